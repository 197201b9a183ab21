/* Fibers: stacks that execution moves between. */
#ifndef LLM_FIBERS_H
#define LLM_FIBERS_H

#include <cstddef>

namespace emulated {

constexpr size_t STACK_BYTES = 128 * 1024;

#ifdef __x86_64__
typedef void *Context; // the stack pointer of one who left
#else
struct Context {
    void *of; // a ucontext_t
};
#endif

/* The lowest byte of the numbered stack; below it lies a page that nobody may touch. */
char *fiber_stack(int number);
/* A context in which `entry` begins on that stack; it must not return. */
void fiber_start(Context &context, char *stack, void (*entry)());
/* Leaves `from` where it is, goes on in `to`. */
void fiber_switch(Context &from, Context &to);

} // namespace emulated

#endif
