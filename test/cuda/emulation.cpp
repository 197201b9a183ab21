/* Runs grids: blocks one after another, each block's threads as fibers that wait for one another at
 * barriers and warp-wide calls. */
#include "emulation.h"
#include "execution.h"
#include "fibers.h"

#include <cstdarg>
#include <cstdio>
#include <numeric>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* What __shared__ puts there; the linker makes the names. */
extern "C" {
extern char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
}

namespace emulated {

constexpr int LANES = 32, MAX_WARPS = 32;
constexpr uint32_t SHARED_NAN = 0x7fe5a5e5; // of two bf16 the upper one is NaN too
constexpr size_t GUARD_BYTES = 1024;        // after dynamic shared memory

struct Copy {
    char *to;
    const char *from;
    int bytes, valid;
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
    const void *place; // what it waits for, if it is WAITING
    std::vector<Copy> copies;
    std::vector<size_t> groups; // the copies before each commit
};

struct Warp {
    uint32_t ready, waiting; // bits of lanes, by place in the order
    uint32_t lanes;          // that it has
    int order[LANES];        // the lane at each place
    int place[LANES];
    unsigned gathers;
    alignas(64) char gathered[2][LANES * GATHERED];
};

static Fiber fibers[LANES * MAX_WARPS];
static Warp warps[MAX_WARPS];
static int warp_order[MAX_WARPS];
static uint32_t ready_warps; // bits, by place in the order
static int threads, warp_count, ended, stacks_used;
static Fiber *running;
static int running_place; // of the running fiber's warp
static Context outside;   // where run_block waits
static bool is_running, failed;
static char failure[512];
static const std::function<void()> *body;

static struct {
    int arrived, counted, outcome;
} block_barrier;

alignas(1024) static char dynamic_memory[MAX_SHARED + GUARD_BYTES];
static size_t dynamic_bytes;

char *dynamic_shared() { return dynamic_memory; }
int lane() { return running->thread % LANES; }

/* ---- chance ---- */

static uint64_t chance = 0;
void seed(unsigned value) { chance = 0x9e3779b97f4a7c15ull * (value + 1ull); }
uint32_t draw(uint32_t below) {
    if (chance == 0) {
        const char *given = getenv("LLM_EMULATION_SEED");
        seed(given ? (unsigned)strtoul(given, nullptr, 10) : 1);
    }
    chance ^= chance << 13; // xorshift (Marsaglia 2003)
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)((chance >> 32) * below >> 32);
}
static void shuffle_order(int *order, int n) {
    for (int i = 0; i < n; i++) {
        const int j = (int)draw(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

/* ---- which fiber runs ---- */

static void place_fiber(Fiber &fiber) {
    running = &fiber;
    threadIdx = fiber.index;
}

/* The next fiber that is ready: of the running warp as long as there is one, so that a warp runs
 * ahead of the others as far as a barrier lets it. */
static Fiber *next_fiber() {
    if (!warps[warp_order[running_place]].ready) {
        ready_warps &= ~(1u << running_place);
        if (!ready_warps) return nullptr;
        running_place = __builtin_ctz(ready_warps);
    }
    const int w = warp_order[running_place];
    return &fibers[w * LANES + warps[w].order[__builtin_ctz(warps[w].ready)]];
}

static uint32_t all_warps() { return warp_count == 32 ? ~0u : (1u << warp_count) - 1; }

static void set_ready(Fiber &fiber, bool ready) {
    Warp &warp = warps[fiber.thread / LANES];
    const uint32_t bit = 1u << warp.place[fiber.thread % LANES];
    warp.ready = ready ? warp.ready | bit : warp.ready & ~bit;
}

static void enter();

/* Goes on in another fiber, or outside where none is ready. */
static void go_to(Context &from, Fiber *next) {
    if (next) place_fiber(*next);
    if (next && next->state == State::FRESH) {
        fiber_start(next->context, fiber_stack(stacks_used++), enter);
        next->state = State::READY;
    }
    fiber_switch(from, next ? next->context : outside);
}

/* The running fiber lets others run until it is ready again. */
static void leave() {
    Fiber *const self = running, *const next = next_fiber();
    if (next != self) go_to(self->context, next);
}

/* What a stack begins with: a thread, and when it has ended the next one, as long as that is fresh too. */
static void enter() {
    Fiber *next = running;
    do {
        place_fiber(*next);
        next->state = State::READY;
        (*body)();
        running->state = State::ENDED;
        set_ready(*running, false);
        ended++;
        next = next_fiber();
    } while (next && next->state == State::FRESH);
    go_to(running->context, next);
    __builtin_unreachable();
}

void fail(const char *format, ...) {
    char text[384];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(failure, sizeof failure, "%s (thread %d,%d,%d of block %d,%d,%d)", text, threadIdx.x,
             threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z);
    failed = true;
    fiber_switch(running->context, outside);
    __builtin_unreachable();
}

/* ---- waiting ---- */

int barrier(int value) {
    block_barrier.counted += value != 0;
    if (++block_barrier.arrived == threads) {
        block_barrier.outcome = block_barrier.counted;
        block_barrier.arrived = block_barrier.counted = 0;
        shuffle_order(warp_order, warp_count);
        for (int w = 0; w < warp_count; w++) warps[w].ready = warps[w].lanes;
        for (int t = 0; t < threads; t++) fibers[t].state = State::READY;
        ready_warps = all_warps();
        running_place = 0; // in the new order: whoever came last is not to go on first
    } else {
        running->state = State::AT_BARRIER;
        set_ready(*running, false);
    }
    leave();
    return block_barrier.outcome;
}

void wait(const void *place) {
    running->state = State::WAITING;
    running->place = place;
    set_ready(*running, false);
    leave();
}

void wake(const void *place) {
    for (int t = 0; t < threads; t++) {
        Fiber &fiber = fibers[t];
        if (fiber.state != State::WAITING || fiber.place != place) continue;
        fiber.state = State::READY;
        set_ready(fiber, true);
        for (int w = 0; w < warp_count; w++)
            if (warp_order[w] == t / LANES) ready_warps |= 1u << w;
    }
}

static void finish_warp_call(Warp &warp, Fiber *lanes, uint32_t mask, Call call) {
    uint32_t ballot = 0;
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        if (lanes[i].call != call || lanes[i].mask != mask)
            fail("lanes %d and %d of a warp wait in different calls, or with different masks", i,
                 running->thread % LANES);
        if (lanes[i].value) ballot |= 1u << i;
        if (call == Call::SHUFFLE && !(mask >> lanes[i].source & 1))
            fail("a shuffle reads lane %d, which is not in the mask %08x", lanes[i].source, mask);
    }
    uint64_t values[LANES];
    for (int i = 0; i < LANES; i++) values[i] = lanes[i].value;
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        if (call == Call::SHUFFLE) lanes[i].value = values[lanes[i].source];
        if (call == Call::BALLOT) lanes[i].value = ballot;
        lanes[i].state = State::READY;
        warp.ready |= 1u << warp.place[i];
    }
    warp.waiting &= ~mask;
}

uint64_t warp_call(Call call, uint32_t mask, uint64_t value, int source) {
    Warp &warp = warps[running->thread / LANES];
    const int own = running->thread % LANES;
    if (!(mask >> own & 1)) fail("lane %d makes a call whose mask %08x lacks it", own, mask);
    running->call = call;
    running->mask = mask;
    running->value = value;
    running->source = source;
    running->state = State::IN_WARP_CALL;
    warp.waiting |= 1u << own;
    set_ready(*running, false);
    if ((warp.waiting & mask) == mask)
        finish_warp_call(warp, running - own, mask, call);
    Fiber *const self = running;
    leave();
    return self->value;
}

uint64_t gather(const void *value, size_t bytes) {
    Warp &warp = warps[running->thread / LANES];
    // Of two boards in turn, one stays as it is until every lane has come to the next call.
    char *board = warp.gathered[warp.gathers & 1];
    memcpy(board + lane() * bytes, value, bytes);
    if ((warp.waiting | 1u << lane()) == ~0u) warp.gathers++;
    warp_call(Call::GATHER, ~0u, bytes, 0);
    return (uint64_t)board;
}

/* ---- blocks ---- */

static void fill_nan(char *from, size_t bytes) {
    for (size_t i = 0; i < 4 && i < bytes; i++) from[i] = (char)(SHARED_NAN >> 8 * i);
    for (size_t done = 4; done < bytes; done *= 2)
        memcpy(from + done, from, done < bytes - done ? done : bytes - done);
}

static void prepare_block() {
    shuffle_order(warp_order, warp_count);
    ended = stacks_used = running_place = 0;
    ready_warps = all_warps();
    block_barrier = {};
    for (int w = 0; w < warp_count; w++) {
        Warp &warp = warps[w];
        shuffle_order(warp.order, LANES);
        warp.ready = warp.waiting = warp.gathers = 0;
        for (int i = 0; i < LANES; i++) warp.place[warp.order[i]] = i;
        for (int i = 0; i < LANES && w * LANES + i < threads; i++) {
            Fiber &fiber = fibers[w * LANES + i];
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
    fill_nan(__start_emulated_shared, __stop_emulated_shared - __start_emulated_shared);
}

/* Says who waits for whom when no fiber can go on. */
static void describe_wait() {
    int at_barrier = 0, in_call = 0, waiting = 0, missing = -1;
    Fiber *caller = nullptr;
    for (int t = 0; t < threads; t++) {
        if (fibers[t].state == State::AT_BARRIER) at_barrier++;
        if (fibers[t].state == State::WAITING) waiting++;
        if (fibers[t].state == State::IN_WARP_CALL) in_call++, caller = &fibers[t];
    }
    if (caller) {
        const uint32_t absent = caller->mask & ~warps[caller->thread / LANES].waiting;
        missing = absent ? __builtin_ctz(absent) : -1;
        snprintf(failure, sizeof failure,
                 "thread %d of block %d,%d,%d waits in a warp-wide call that lane %d never makes "
                 "(in the block %d in such calls, %d at a barrier, %d at one of theirs, %d ended)",
                 caller->thread, blockIdx.x, blockIdx.y, blockIdx.z, missing, in_call, at_barrier,
                 waiting, ended);
    } else if (waiting) {
        snprintf(failure, sizeof failure,
                 "%d of %d threads of block %d,%d,%d wait at an mbarrier whose phase never ends",
                 waiting, threads, blockIdx.x, blockIdx.y, blockIdx.z);
    } else {
        snprintf(failure, sizeof failure,
                 "%d of %d threads of block %d,%d,%d wait at a barrier that the others never reach",
                 at_barrier, threads, blockIdx.x, blockIdx.y, blockIdx.z);
    }
}

static void check_guard() {
    const char *const end = dynamic_memory + dynamic_bytes;
    static char expected[GUARD_BYTES + 4];
    static bool is_filled = false;
    if (!is_filled) fill_nan(expected, sizeof expected);
    is_filled = true;
    if (memcmp(end, expected + dynamic_bytes % 4, GUARD_BYTES - 4) == 0) return;
    snprintf(failure, sizeof failure, "block %d,%d,%d wrote past its %zu bytes of dynamic shared "
             "memory", blockIdx.x, blockIdx.y, blockIdx.z, dynamic_bytes);
    failed = true;
}

static void run_block() {
    prepare_block();
    is_running = true;
    go_to(outside, next_fiber());
    is_running = false;
    if (!failed && ended < threads) {
        describe_wait();
        failed = true;
    }
    if (!failed) check_guard();
}

const char *run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()> &thread) {
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    gridDim = grid;
    blockDim = block;
    dynamic_bytes = shared;
    threads = block.x * block.y * block.z;
    warp_count = (threads + LANES - 1) / LANES;
    body = &thread;
    failed = false;
    // start + i·step mod blocks reaches every block once, in no order that a kernel could count on.
    uint64_t step = blocks > 2 ? 1 + draw(blocks - 1) : 1, start = draw(blocks);
    while (std::gcd(step, blocks) != 1) step++;
    for (uint64_t i = 0; i < blocks && !failed; i++) {
        const uint64_t b = (start + i * step) % blocks;
        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                    (unsigned)(b / grid.x / grid.y)};
        run_block();
    }
    return failed ? failure : nullptr;
}

/* ---- copies that a thread waits for ---- */

static bool is_shared(const char *p, int bytes) {
    return (p >= dynamic_memory && p + bytes <= dynamic_memory + dynamic_bytes) ||
           (p >= __start_emulated_shared && p + bytes <= __stop_emulated_shared);
}

} // namespace emulated

using namespace emulated;

void emulated_async_copy(void *to, const void *from, int bytes, int valid) {
    if (bytes != 4 && bytes != 8 && bytes != 16) fail("an asynchronous copy of %d bytes", bytes);
    if (valid < 0 || valid > bytes) fail("an asynchronous copy of %d of %d bytes", valid, bytes);
    if ((uintptr_t)to % bytes || (valid && (uintptr_t)from % bytes))
        fail("an asynchronous copy of %d bytes that is not aligned to them", bytes);
    if (!is_shared((char *)to, bytes)) fail("an asynchronous copy to what is not shared memory");
    fill_nan((char *)to, bytes);
    running->copies.push_back({(char *)to, (const char *)from, bytes, valid});
}

void emulated_async_commit() { running->groups.push_back(running->copies.size()); }

void emulated_async_wait(int n) {
    auto &groups = running->groups;
    auto &copies = running->copies;
    if ((int)groups.size() <= n) return;
    const size_t last = groups.size() - 1 - n, done = groups[last];
    for (size_t i = 0; i < done; i++) {
        memcpy(copies[i].to, copies[i].from, copies[i].valid);
        memset(copies[i].to + copies[i].valid, 0, copies[i].bytes - copies[i].valid);
    }
    copies.erase(copies.begin(), copies.begin() + done);
    groups.erase(groups.begin(), groups.begin() + last + 1);
    for (size_t &group : groups) group -= done;
}

extern "C" __attribute__((visibility("default"))) void emulated_seed(unsigned value) { seed(value); }

/* What the compiler's check of alignment calls (its ABI: libsanitizer's ubsan_handlers.h). The access
 * itself would follow, and end the process. */
struct Misaligned {
    const char *file;
    unsigned line, column;
    void *type;
    unsigned char log_alignment, kind;
};
extern "C" void __ubsan_handle_type_mismatch_v1(Misaligned *what, void *address) {
    if (!is_running) abort();
    fail("%s:%u: %p is not aligned to %d bytes", what->file, what->line, address,
         1 << what->log_alignment);
}
