/* Runs grids: blocks one after another, each in memory that holds nothing yet. */
#include "sanitizer.h"
#include "threads.h"

#include <cstdio>
#include <numeric>

/* What __shared__ puts there; the linker makes the names. */
extern "C" {
extern char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
}

namespace emulated {

constexpr uint32_t SHARED_NAN = 0x7fe5a5e5; // of two bf16 the upper one is NaN too
constexpr size_t GUARD_BYTES = 1024;        // after dynamic shared memory

alignas(1024) static char dynamic_memory[MAX_SHARED + GUARD_BYTES];
static size_t dynamic_bytes;

char *dynamic_shared() { return dynamic_memory; }

bool is_shared(const char *p, size_t bytes) {
    return (p >= dynamic_memory && p + bytes <= dynamic_memory + dynamic_bytes) ||
           (p >= __start_emulated_shared && p + bytes <= __stop_emulated_shared);
}

// Between arrays of one section lies what AddressSanitizer lets nobody touch.
__attribute__((no_sanitize("address", "alignment"))) void fill_nan(char *from, size_t bytes) {
    uint32_t *const words = (uint32_t *)from;
    for (size_t i = 0; i < bytes / 4; i++) words[i] = SHARED_NAN;
}

static void prepare_block() {
    shuffle_order(block.order, block.warp_count);
    block.ended = block.stacks_used = block.running_place = 0;
    block.ready_warps = all_warps();
    block.arrived = block.counted = 0;
    block.bulk.clear();
    for (int w = 0; w < block.warp_count; w++) {
        Warp &warp = block.warps[w];
        shuffle_order(warp.order, LANES);
        warp.ready = warp.waiting = warp.gathers = 0;
        for (int i = 0; i < LANES; i++) warp.place[warp.order[i]] = i;
        for (int i = 0; i < LANES && w * LANES + i < block.threads; i++) {
            Fiber &fiber = block.fibers[w * LANES + i];
            const unsigned t = fiber.thread = w * LANES + i;
            fiber.index = {t % blockDim.x, t / blockDim.x % blockDim.y,
                           t / (blockDim.x * blockDim.y)};
            fiber.state = State::FRESH;
            fiber.copies.clear();
            fiber.groups.clear();
            warp.ready |= 1u << warp.place[i];
        }
        warp.lanes = warp.ready;
    }
    fill_nan(dynamic_memory, dynamic_bytes + GUARD_BYTES);
    ASAN_UNPOISON_MEMORY_REGION(dynamic_memory, dynamic_bytes);
    ASAN_POISON_MEMORY_REGION(dynamic_memory + dynamic_bytes, sizeof dynamic_memory - dynamic_bytes);
    fill_nan(__start_emulated_shared, __stop_emulated_shared - __start_emulated_shared);
}

/* Says who waits for whom when no fiber can go on. */
static void describe_wait() {
    int at_barrier = 0, in_call = 0, waiting = 0, missing = -1;
    Fiber *caller = nullptr;
    for (int t = 0; t < block.threads; t++) {
        if (block.fibers[t].state == State::AT_BARRIER) at_barrier++;
        if (block.fibers[t].state == State::WAITING) waiting++;
        if (block.fibers[t].state == State::IN_WARP_CALL) in_call++, caller = &block.fibers[t];
    }
    if (caller) {
        const uint32_t absent = caller->mask & ~block.warps[caller->thread / LANES].waiting;
        missing = absent ? __builtin_ctz(absent) : -1;
        snprintf(block.failure, sizeof block.failure,
                 "thread %d of block %d,%d,%d waits in a warp-wide call that lane %d never makes "
                 "(in the block %d in such calls, %d at a barrier, %d at one of theirs, %d ended)",
                 caller->thread, blockIdx.x, blockIdx.y, blockIdx.z, missing, in_call, at_barrier,
                 waiting, block.ended);
    } else if (waiting) {
        snprintf(block.failure, sizeof block.failure,
                 "%d of %d threads of block %d,%d,%d wait at an mbarrier whose phase never ends",
                 waiting, block.threads, blockIdx.x, blockIdx.y, blockIdx.z);
    } else {
        snprintf(block.failure, sizeof block.failure,
                 "%d of %d threads of block %d,%d,%d wait at a barrier that the others never reach",
                 at_barrier, block.threads, blockIdx.x, blockIdx.y, blockIdx.z);
    }
}

static void check_guard() {
    const char *const end = dynamic_memory + dynamic_bytes;
    ASAN_UNPOISON_MEMORY_REGION(end, GUARD_BYTES);
    alignas(4) static char expected[GUARD_BYTES + 4];
    static bool is_filled = false;
    if (!is_filled) fill_nan(expected, sizeof expected);
    is_filled = true;
    if (memcmp(end, expected + dynamic_bytes % 4, GUARD_BYTES - 4) == 0) return;
    snprintf(block.failure, sizeof block.failure,
             "block %d,%d,%d wrote past its %zu bytes of dynamic shared memory", blockIdx.x,
             blockIdx.y, blockIdx.z, dynamic_bytes);
    block.has_failed = true;
}

static void run_block() {
    prepare_block();
    run_threads();
    if (!block.has_failed && block.ended < block.threads) {
        describe_wait();
        block.has_failed = true;
    }
    if (!block.has_failed && !block.bulk.empty()) {
        snprintf(block.failure, sizeof block.failure,
                 "block %d,%d,%d ended with %zu copies on their way", blockIdx.x, blockIdx.y,
                 blockIdx.z, block.bulk.size());
        block.has_failed = true;
    }
    if (!block.has_failed) check_guard();
}

const char *run_grid(dim3 grid, dim3 threads, size_t shared, const std::function<void()> &thread) {
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    gridDim = grid;
    blockDim = threads;
    dynamic_bytes = shared;
    block.threads = threads.x * threads.y * threads.z;
    block.warp_count = (block.threads + LANES - 1) / LANES;
    block.body = &thread;
    block.has_failed = false;
    // start + i·step mod blocks reaches every block once, in no order that a kernel could count on.
    uint64_t step = blocks > 2 ? 1 + draw(blocks - 1) : 1, start = draw(blocks);
    while (std::gcd(step, blocks) != 1) step++;
    for (uint64_t i = 0; i < blocks && !block.has_failed; i++) {
        const uint64_t b = (start + i * step) % blocks;
        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                    (unsigned)(b / grid.x / grid.y)};
        run_block();
    }
    return block.has_failed ? block.failure : nullptr;
}

} // namespace emulated
