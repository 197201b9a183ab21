/* Between the execution of grids (blocks.cpp) and the run-time that queues them (streams.cpp). */
#ifndef LLM_EXECUTION_H
#define LLM_EXECUTION_H

#include "emulation.h"

namespace emulated {

constexpr size_t MAX_SHARED = 227 * 1024; // bytes a block, on compute capability 9.0

/* Runs a grid to its end; gives what went wrong in words, or null. */
const char *run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &thread);

void seed(unsigned value);
/* A number in [0, below) by the seed. */
uint32_t draw(uint32_t below);
/* The numbers below n in an order by the seed. */
void shuffle_order(int *order, int n);

} // namespace emulated

#endif
