/* The threads of the block that runs: what moves them (threads.cpp), and what begins and ends them
 * (blocks.cpp). */
#ifndef LLM_THREADS_H
#define LLM_THREADS_H

#include "execution.h"
#include "fibers.h"

#include <vector>

namespace emulated {

constexpr int LANES = 32, MAX_WARPS = 32;

struct Copy {
    char *to;
    const char *from;
    int bytes, valid;
};

struct BulkCopy {
    const void *barrier;
    std::function<void()> land;
};

enum class State { FRESH, READY, IN_WARP_CALL, AT_BARRIER, WAITING, ENDED };

struct Fiber {
    Context context;
    int thread; // its number in the block
    uint3 index;
    State state;
    // The warp-wide call it waits in, or its outcome.
    Call call;
    uint32_t mask;
    int source;
    uint64_t value;
    const void *place;          // what it waits for, if it is WAITING
    std::vector<Copy> copies;   // asked for, not yet done
    std::vector<size_t> groups; // how many of them there were at each commit
};

struct Warp {
    uint32_t ready;   // bits of lanes, by place in the order
    uint32_t lanes;   // those that it has
    uint32_t waiting; // in a warp-wide call: bits by lane
    int order[LANES]; // the lane at each place
    int place[LANES];
    unsigned gathers;
    alignas(64) char gathered[2][LANES * GATHERED];
};

struct Block {
    Fiber fibers[LANES * MAX_WARPS];
    Warp warps[MAX_WARPS];
    int order[MAX_WARPS];     // the warp at each place
    uint32_t ready_warps;     // bits, by place
    int threads, warp_count;
    int ended, stacks_used;
    int arrived, counted, outcome; // at the barrier, of the last one
    std::vector<BulkCopy> bulk;    // on their way
    Fiber *running;           // null between blocks
    int running_place;        // of the running fiber's warp
    Context outside;          // where run_block waits
    const std::function<void()> *body;
    bool has_failed;
    char failure[512];
};
extern Block block;

inline uint32_t all_warps() {
    return block.warp_count == MAX_WARPS ? ~0u : (1u << block.warp_count) - 1;
}

/* Runs threads from the first one that is ready, until none is. */
void run_threads();

/* Whether these bytes are shared memory of the block. */
bool is_shared(const char *p, size_t bytes);
void fill_nan(char *from, size_t bytes);

} // namespace emulated

#endif
