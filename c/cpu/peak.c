/* How fast the machine can go: the microkernel's instruction on registers alone. */
#include "product.h"
#include "unit.h"

#if AMX && defined LLM_BF16
#include "amx.h"

#define ROUND (4 * TILE_ROWS * TILE_ROWS * TILE_BYTES / 2) // multiply-adds

static float chains(i64 rounds) {
    float numbers[TILE_ROWS * TILE_ROWS] __attribute__((aligned(64))) = {0};
    tiles_configure();
    tile_load(4, numbers, TILE_BYTES);
    tile_load(5, numbers, TILE_BYTES);
    tiles_zero();
    for (i64 r = 0; r < rounds; r++) {
        tile_multiply_add(0, 4, 5);
        tile_multiply_add(1, 4, 5);
        tile_multiply_add(2, 4, 5);
        tile_multiply_add(3, 4, 5);
    }
    tile_store(0, numbers, TILE_BYTES);
    return numbers[0];
}
#else
#define ROUND (MR * VECTORS * LANES * PER) // multiply-adds

// The product has to depend on the step before, or the compiler takes it out of the loop; a sum of
// f32 that adds to itself, the one form NEON has, goes up and down in turn and stays normal.
#ifdef LLM_BF16
#define STEP(acc, x) multiply_add(acc, x, x)
#else
#define STEP(acc, x) multiply_add(acc, acc, x)
#endif

// As many independent chains as the microkernel keeps, so that none waits for its own last result.
static float chains(i64 rounds) {
    float factor = 0x1p-12f;
    __asm__ volatile("" : "+m"(factor)); // or the compiler might do without the loop
    vec acc[MR * VECTORS], x = splat(factor), total = splat(0);
#pragma GCC unroll 24
    for (int i = 0; i < MR * VECTORS; i++) acc[i] = splat(i + 1);
    for (i64 r = 0; r < rounds; r++, x = -x)
#pragma GCC unroll 24
        for (int i = 0; i < MR * VECTORS; i++) acc[i] = STEP(acc[i], x);
#pragma GCC unroll 24
    for (int i = 0; i < MR * VECTORS; i++) total += acc[i];
    return sum(total);
}
#endif

double REAL(llm_peak)(i64 work) {
    const i64 rounds = ceil_div(max_i64(work, 1), ROUND);
    int threads = 0;
#pragma omp parallel reduction(+ : threads)
    {
        float result = chains(rounds);
        __asm__ volatile("" : : "m"(result)); // or the compiler would leave the work out
        threads = 1;
    }
    return 2.0 * ROUND * (double)rounds * threads;
}
