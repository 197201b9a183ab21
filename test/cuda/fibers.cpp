/* On x86-64 a switch saves what a function must save, and nothing else: swapcontext calls the kernel
 * for the mask of signals, which takes twenty times as long. */
#include "fibers.h"
#include "sanitizer.h"

#include <sys/mman.h>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace emulated {

char *fiber_stack(int number) {
    static std::vector<char *> stacks;
    constexpr size_t PAGE = 4096;
    while ((int)stacks.size() <= number) {
        void *memory = mmap(nullptr, 2 * PAGE + STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) abort();
        mprotect(memory, PAGE, PROT_NONE);
        // Each begins elsewhere in its page: at the same place, all would share a few lines of cache.
        stacks.push_back((char *)memory + PAGE + stacks.size() % 61 * 64);
    }
    return stacks[number];
}

#ifdef __SANITIZE_ADDRESS__
// AddressSanitizer has to know which stack it watches, and says which one was left.
static Context *left;

static void fiber_leaves(Context &from, const Context &to) {
    left = &from;
    __sanitizer_start_switch_fiber(nullptr, to.stack, to.bytes);
}
void fiber_arrived() { __sanitizer_finish_switch_fiber(nullptr, &left->stack, &left->bytes); }
#else
static void fiber_leaves(Context &, const Context &) {}
void fiber_arrived() {}
#endif

#ifdef __x86_64__

extern "C" void emulated_switch(void **from, void *to);
asm(R"(
.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch, . - emulated_switch
)");

static void prepare(Context &context, char *stack, void (*entry)()) {
    void **top = (void **)(stack + STACK_BYTES);
    *--top = nullptr; // as a return address: the stack is aligned as after a call
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context.of = top;
}

static void move(Context &from, Context &to) { emulated_switch(&from.of, to.of); }

#else

} // namespace emulated
#include <ucontext.h>
namespace emulated {

static ucontext_t *own(Context &context) {
    if (!context.of) context.of = calloc(1, sizeof(ucontext_t));
    return (ucontext_t *)context.of;
}

static void prepare(Context &context, char *stack, void (*entry)()) {
    ucontext_t *made = own(context);
    getcontext(made);
    made->uc_stack.ss_sp = stack;
    made->uc_stack.ss_size = STACK_BYTES;
    made->uc_link = nullptr;
    makecontext(made, entry, 0);
}

static void move(Context &from, Context &to) { swapcontext(own(from), own(to)); }

#endif

void fiber_start(Context &context, char *stack, void (*entry)()) {
    ASAN_UNPOISON_MEMORY_REGION(stack, STACK_BYTES); // a thread that failed never left its frames
    prepare(context, stack, entry);
    context.stack = stack;
    context.bytes = STACK_BYTES;
}

void fiber_switch(Context &from, Context &to) {
    fiber_leaves(from, to);
    move(from, to);
    fiber_arrived();
}

} // namespace emulated
