// The one table of cases: every kernel of c/llm.h, run on every library.

import { contract } from "../../src/native/library.ts"
import { inBf16 } from "./bf16.ts"
import { adamwCases, beginCases, still } from "./cases/adamw.ts"
import { attentionCases } from "./cases/attention.ts"
import { bf16Cases } from "./cases/bf16.ts"
import { classifierCases } from "./cases/classifier.ts"
import { elementwiseCases } from "./cases/elementwise.ts"
import { embeddingCases } from "./cases/embedding.ts"
import { fp8Cases } from "./cases/fp8.ts"
import { layernormCases } from "./cases/layernorm.ts"
import { matmulCases } from "./cases/matmul.ts"
import { reductionCases } from "./cases/reductions.ts"

const own = [
  ...embeddingCases,
  ...layernormCases,
  ...matmulCases,
  ...elementwiseCases,
  ...attentionCases,
  ...classifierCases,
  ...reductionCases,
  ...beginCases,
  ...adamwCases,
  ...[Number.NaN, 0].map((step) => still(65, step)),
  ...bf16Cases,
  ...fp8Cases,
]
const signatures = await contract()

export const cases = [...own, ...own.flatMap((row) => inBf16(row, signatures) ?? [])]
