/* What kernels for Hopper are made of: warpgroups, and rings of tiles that the copy engine fills ahead of
 * them. */
#ifndef LLM_RING_H
#define LLM_RING_H

#include "hopper.h"

// Elsewhere than on sm_90a the kernels are empty, and nobody launches them.
#if defined LLM_EMULATED || defined __CUDA_ARCH_FEAT_SM90_ALL
#define HAS_WARPGROUPS 1
#endif

constexpr int GROUP = 4 * WARP, GROUP_ROWS = 64;

/* Tiles on their way: `full` when one has come, `empty` when all have read it. */
template <int STAGES> struct Ring {
    Barrier full[STAGES], empty[STAGES];
};

/* By one thread, before a barrier of the block. A tile is full after `arrivals` and its bytes. */
template <int STAGES> DEVICE void ring_init(Ring<STAGES> &ring, int arrivals, int groups) {
    for (int stage = 0; stage < STAGES; stage++) {
        barrier_init(&ring.full[stage], arrivals);
        barrier_init(&ring.empty[stage], groups * GROUP / WARP);
    }
}
template <int STAGES> DEVICE void await_full(Ring<STAGES> &ring, int tile) {
    barrier_wait(&ring.full[tile % STAGES], tile / STAGES & 1);
}
/* Before a tile is fetched: until all have read the one that had its place. */
template <int STAGES> DEVICE void await_empty(Ring<STAGES> &ring, int tile) {
    barrier_wait(&ring.empty[tile % STAGES], (tile / STAGES & 1) ^ 1);
}
/* By every warp that has read a tile. */
template <int STAGES> DEVICE void release(Ring<STAGES> &ring, int tile) {
    if (threadIdx.x % WARP == 0) barrier_arrive(&ring.empty[tile % STAGES]);
}

#endif
