// Sizes at which kernels break: 1, primes, and a tile ± 1 for tiles of 16, 48 and 64.

export const EDGES = [1, 2, 3, 7, 13, 16, 17, 31, 47, 48, 49, 63, 64, 65, 127, 129]

/** Lengths for kernels that run along one array: chunks of threads and vectors, ± 1. */
export const LENGTHS = [...EDGES, 255, 256, 257, 1000, 4097, 65537]

/** `count` tuples of `width` sizes: as i runs, each place steps through all sizes, in its own
 * order, so that every size meets many others in every place. */
export function tuples(count: number, width: number, sizes = EDGES): number[][] {
  return Array.from({ length: count }, (_, i) =>
    Array.from({ length: width }, (_, place) => {
      const lap = Math.floor(i / sizes.length)
      return sizes[(i * (2 * place + 1) + 5 * place + lap * place) % sizes.length]!
    }),
  )
}

/** The bits of i as options, so that consecutive cases try all combinations. */
export const bit = (i: number, place: number) => ((i >> place) & 1) === 1
