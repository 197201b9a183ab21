/* The team of threads, and what each of them owns. */
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
