/* Fibers: stacks that execution moves between. */
#ifndef LLM_FIBERS_H
#define LLM_FIBERS_H

#include <cstddef>

namespace emulated {

constexpr size_t STACK_BYTES = 128 * 1024;

/* One who left: the stack pointer, or on other machines than x86-64 a ucontext_t; and the stack. */
struct Context {
    void *of;
    const void *stack;
    size_t bytes;
};

/* The lowest byte of the numbered stack; below it lies a page that nobody may touch. */
char *fiber_stack(int number);
/* A context in which `entry` begins on that stack, with fiber_arrived(); it must not return. */
void fiber_start(Context &context, char *stack, void (*entry)());
/* Leaves `from` where it is, goes on in `to`. */
void fiber_switch(Context &from, Context &to);
void fiber_arrived();

} // namespace emulated

#endif
