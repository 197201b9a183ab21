/* Between what is stored (`real`: f32 or bf16) and what is computed with. */
#ifndef LLM_REFERENCE_REAL_H
#define LLM_REFERENCE_REAL_H

#include "llm.h"

typedef union {
    float number;
    u32 bits;
} f32_bits;

// A bf16 is the upper half of the f32 of the same value.
static inline float bf16_value(bf16 x) {
    f32_bits wide = {.bits = (u32)x << 16};
    return wide.number;
}

// Half of what the last kept bit is worth, less one when that bit is 0 (a tie stays even), carries
// into it when the rest is more than half. A NaN is kept one, as its fraction could be cut to 0.
static inline bf16 bf16_nearest(float x) {
    f32_bits wide = {.number = x};
    if (x != x) return (bf16)(wide.bits >> 16 | 0x40);
    return (bf16)((wide.bits + 0x7fff + (wide.bits >> 16 & 1)) >> 16);
}

#ifdef LLM_BF16
static inline float value(real x) { return bf16_value(x); }
static inline real rounded(double x) { return bf16_nearest((float)x); }
#else
static inline float value(real x) { return x; }
static inline real rounded(double x) { return (float)x; }
#endif

#endif
