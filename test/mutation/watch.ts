// How much memory a reader asks for. Resident memory would not show it: pages that are zero cost
// nothing until they are touched, so an array of gigabytes that a broken header asked for, and that
// is then refused, would pass unseen. So the constructors themselves are watched, and refuse before
// they allocate.

const TYPES = [
  "ArrayBuffer",
  "BigInt64Array",
  "BigUint64Array",
  "Float16Array",
  "Float32Array",
  "Float64Array",
  "Int32Array",
  "Uint16Array",
  "Uint32Array",
  "Uint8Array",
  "Array",
] as const
const POINTER = 8 // bytes of an element of an Array

type Constructor = { new (...args: unknown[]): object; BYTES_PER_ELEMENT?: number }

/** More memory than a call may ask for. */
export class TooMuch extends Error {}

/** Calls with every array's constructor watched: together they may make `limit` bytes. Views of
 * buffers that exist cost nothing. */
export function watched<R>(limit: number, call: () => R): R {
  let bytes = 0
  const count = (name: string, more: number) => {
    bytes += more
    if (bytes > limit) throw new TooMuch(`${name} of ${more} bytes, ${bytes} of ${limit} in all`)
  }
  const all = globalThis as unknown as Record<string, Constructor>
  const kept = TYPES.map((name) => all[name]!)
  for (const [i, name] of TYPES.entries()) {
    all[name] = new Proxy(kept[i]!, {
      construct(type, args) {
        const [first] = args as [unknown]
        const size = type.BYTES_PER_ELEMENT ?? (name === "Array" ? POINTER : 1)
        const length = (first as ArrayLike<unknown> | undefined)?.length
        const elements = typeof first === "number" ? first : (length ?? 0)
        count(name, elements * size)
        return Reflect.construct(type, args)
      },
    })
  }
  const { alloc, allocUnsafe } = Buffer
  Buffer.alloc = ((size: number, ...rest: []) => {
    count("Buffer", size)
    return alloc(size, ...rest)
  }) as typeof alloc
  Buffer.allocUnsafe = (size) => {
    count("Buffer", size)
    return allocUnsafe(size)
  }
  try {
    return call()
  } finally {
    for (const [i, name] of TYPES.entries()) all[name] = kept[i]!
    Object.assign(Buffer, { alloc, allocUnsafe })
  }
}
