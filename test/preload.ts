// Tests run the kernels that the sources say: build them when they are missing or older.
import { buildNative } from "../src/build/native.ts"

const { warning } = await buildNative((line) => console.error(line))
if (warning) console.error(`warning: ${warning}`)
