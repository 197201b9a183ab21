/* The team of threads, what each of them owns, and how fast it can go. */
#include <omp.h>

#include "product.h"

// A vector needs its own alignment; thread-local memory has no more than this declaration asks for.
static _Thread_local float own[WORKSPACE] __attribute__((aligned(64)));

float *workspace(void) { return own; }

int team_size(void) { return omp_get_max_threads(); }

int llm_threads(int n) {
    if (n > 0) omp_set_num_threads(n);
    return omp_get_max_threads();
}

// As many independent chains as the microkernel keeps, so that none waits for its own last result.
static float chains(i64 rounds) {
    float factor = 0.999f;
    __asm__ volatile("" : "+m"(factor)); // or the compiler folds a chain at a fixed point
    vec acc[MR * VECTORS], x = splat(factor), y = splat(1e-3f), total = splat(0);
#pragma GCC unroll 24
    for (int i = 0; i < MR * VECTORS; i++) acc[i] = splat(i);
    for (i64 r = 0; r < rounds; r++)
#pragma GCC unroll 24
        for (int i = 0; i < MR * VECTORS; i++) acc[i] = acc[i] * x + y;
#pragma GCC unroll 24
    for (int i = 0; i < MR * VECTORS; i++) total += acc[i];
    return sum(total);
}

double llm_peak_f32(i64 work) {
    const i64 round = MR * VECTORS * LANES, rounds = ceil_div(max_i64(work, 1), round);
    int threads = 0;
#pragma omp parallel reduction(+ : threads)
    {
        float result = chains(rounds);
        __asm__ volatile("" : : "m"(result)); // or the compiler would leave the work out
        threads = 1;
    }
    return 2.0 * (double)(round * rounds) * threads;
}
