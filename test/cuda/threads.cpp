/* Which thread runs, and how threads wait for one another at barriers and in warp-wide calls. */
#include "threads.h"

#include <cstdarg>
#include <cstdio>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulated {

Block block;

int lane() { return block.running->thread % LANES; }

/* ---- which fiber runs ---- */

static void place_fiber(Fiber &fiber) {
    block.running = &fiber;
    threadIdx = fiber.index;
}

/* The next fiber that is ready: of the running warp as long as there is one, so that a warp runs
 * ahead of the others as far as a barrier lets it. */
static Fiber *next_fiber() {
    if (!block.warps[block.order[block.running_place]].ready) {
        block.ready_warps &= ~(1u << block.running_place);
        if (!block.ready_warps) return nullptr;
        block.running_place = __builtin_ctz(block.ready_warps);
    }
    const int w = block.order[block.running_place];
    return &block.fibers[w * LANES + block.warps[w].order[__builtin_ctz(block.warps[w].ready)]];
}

static void set_ready(Fiber &fiber, bool ready) {
    Warp &warp = block.warps[fiber.thread / LANES];
    const uint32_t bit = 1u << warp.place[fiber.thread % LANES];
    warp.ready = ready ? warp.ready | bit : warp.ready & ~bit;
}

static void enter();

/* Goes on in another fiber, or outside where none is ready. */
static void go_to(Context &from, Fiber *next) {
    if (next) place_fiber(*next);
    if (next && next->state == State::FRESH) {
        fiber_start(next->context, fiber_stack(block.stacks_used++), enter);
        next->state = State::READY;
    }
    fiber_switch(from, next ? next->context : block.outside);
}

/* The running fiber lets others run until it is ready again. */
static void leave() {
    Fiber *const self = block.running, *const next = next_fiber();
    if (next != self) go_to(self->context, next);
}

/* What a stack begins with: a thread, and when that has ended the next one, as long as it is one
 * that has not begun. */
static void enter() {
    fiber_arrived();
    Fiber *next = block.running;
    do {
        place_fiber(*next);
        next->state = State::READY;
        (*block.body)();
        block.running->state = State::ENDED;
        set_ready(*block.running, false);
        block.ended++;
        next = next_fiber();
    } while (next && next->state == State::FRESH);
    go_to(block.running->context, next);
    __builtin_unreachable();
}

void run_threads() {
    go_to(block.outside, next_fiber());
    block.running = nullptr;
}

void fail(const char *format, ...) {
    char text[384];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(block.failure, sizeof block.failure, "%s (thread %d,%d,%d of block %d,%d,%d)", text,
             threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z);
    block.has_failed = true;
    fiber_switch(block.running->context, block.outside);
    __builtin_unreachable();
}

/* ---- waiting ---- */

int barrier(int value) {
    block.counted += value != 0;
    if (++block.arrived == block.threads) {
        block.outcome = block.counted;
        block.arrived = block.counted = 0;
        shuffle_order(block.order, block.warp_count);
        for (int w = 0; w < block.warp_count; w++) block.warps[w].ready = block.warps[w].lanes;
        for (int t = 0; t < block.threads; t++) block.fibers[t].state = State::READY;
        block.ready_warps = all_warps();
        block.running_place = 0; // in the new order: whoever came last is not to go on first
    } else {
        block.running->state = State::AT_BARRIER;
        set_ready(*block.running, false);
    }
    leave();
    return block.outcome;
}

void wait(const void *place) {
    block.running->state = State::WAITING;
    block.running->place = place;
    set_ready(*block.running, false);
    leave();
}

void wake(const void *place) {
    for (int t = 0; t < block.threads; t++) {
        Fiber &fiber = block.fibers[t];
        if (fiber.state != State::WAITING || fiber.place != place) continue;
        fiber.state = State::READY;
        set_ready(fiber, true);
        for (int w = 0; w < block.warp_count; w++)
            if (block.order[w] == t / LANES) block.ready_warps |= 1u << w;
    }
}

static void finish_warp_call(Warp &warp, Fiber *lanes, uint32_t mask, Call call) {
    uint32_t ballot = 0;
    for (int i = 0; i < LANES; i++) {
        if (!(mask >> i & 1)) continue;
        if (lanes[i].call != call || lanes[i].mask != mask)
            fail("lanes %d and %d of a warp wait in different calls, or with different masks", i,
                 block.running->thread % LANES);
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
    Fiber &self = *block.running;
    Warp &warp = block.warps[self.thread / LANES];
    const int own = self.thread % LANES;
    if (!(mask >> own & 1)) fail("lane %d makes a call whose mask %08x lacks it", own, mask);
    self.call = call;
    self.mask = mask;
    self.value = value;
    self.source = source;
    self.state = State::IN_WARP_CALL;
    warp.waiting |= 1u << own;
    set_ready(self, false);
    if ((warp.waiting & mask) == mask) finish_warp_call(warp, &self - own, mask, call);
    leave();
    return self.value;
}

uint64_t gather(const void *value, size_t bytes) {
    Warp &warp = block.warps[block.running->thread / LANES];
    // Of two boards in turn, one stays as it is until every lane has come to the next call.
    char *board = warp.gathered[warp.gathers & 1];
    memcpy(board + lane() * bytes, value, bytes);
    if ((warp.waiting | 1u << lane()) == ~0u) warp.gathers++;
    warp_call(Call::GATHER, ~0u, bytes, 0);
    return (uint64_t)board;
}

} // namespace emulated

using namespace emulated;

/* What the compiler's check of alignment calls (its ABI: libsanitizer's ubsan_handlers.h). The access
 * itself would follow, and end the process. */
struct Misaligned {
    const char *file;
    unsigned line, column;
    void *type;
    unsigned char log_alignment, kind;
};
extern "C" void __ubsan_handle_type_mismatch_v1(Misaligned *what, void *address) {
    if (!block.running) abort();
    fail("%s:%u: %p is not aligned to %d bytes", what->file, what->line, address,
         1 << what->log_alignment);
}
