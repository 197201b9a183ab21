/* Numbers of eight bits: a sign, an exponent, FRACTION bits after the binary point; a scale per tensor,
 * in its slot. As in eight_bits.h of the reference. */
#ifndef LLM_FP8_H
#define LLM_FP8_H

#include "numbers.h"

/* A number as it lies in memory, of a type of its own. */
struct E4m3 {
    static constexpr int FRACTION = 3, LEAST = -6; /* exponent of the smallest normal number */
    static constexpr u32 MOST = 0x7e;              /* code of the largest number */
    static constexpr float LARGEST = 448;
    unsigned char code;
};
struct E5m2 {
    static constexpr int FRACTION = 2, LEAST = -14;
    static constexpr u32 MOST = 0x7b;
    static constexpr float LARGEST = 57344;
    unsigned char code;
};

/* What a slot begins with (llm.h). */
enum { INVERSE, SCALE, NOW };

DEVICE float power_of_two(int exponent) { return __uint_as_float((u32)(exponent + 127) << 23); }

#if !defined(LLM_EMULATED) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890)
#define LLM_FP8_INSTRUCTIONS
#endif

#ifndef LLM_FP8_INSTRUCTIONS
/* The code of the nearest number, of two the even one; beyond the largest, of that. */
template <typename F> DEVICE u32 code_of(float x) {
    constexpr int DROPPED = 23 - F::FRACTION; // bits of an f32's fraction
    const u32 bits = __float_as_uint(x), sign = bits >> 24 & 0x80, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return sign | 0x7f;
    if (size >= __float_as_uint(F::LARGEST)) return sign | F::MOST;
    if (size < __float_as_uint(power_of_two(F::LEAST))) {
        // Numbers as far apart as the smallest ones: the sum's last bits count steps.
        const float steps = power_of_two(F::LEAST + DROPPED);
        return sign | (__float_as_uint(__uint_as_float(size) + steps) - __float_as_uint(steps));
    }
    const u32 half = (1u << (DROPPED - 1)) - 1 + (size >> DROPPED & 1);
    return sign | (((size + half) >> DROPPED) - ((u32)(F::LEAST + 126) << F::FRACTION));
}
#endif

/* Two codes, the first in the lower byte. */
template <typename F> DEVICE u32 narrow_pair(float first, float second) {
#ifdef LLM_FP8_INSTRUCTIONS
    unsigned short pair;
    if constexpr (F::FRACTION == E4m3::FRACTION)
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
    else
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return code_of<F>(first) | code_of<F>(second) << 8;
#endif
}

/* Exponents that stand where an f32 has its own are too small by as much as its bias is larger. */
template <typename F> DEVICE float number_of(u32 code) {
    const u32 size = code & 0x7f;
    const float x = __uint_as_float(size << (23 - F::FRACTION)) * power_of_two(126 + F::LEAST);
    return __uint_as_float((size > F::MOST ? 0x7fc00000 : __float_as_uint(x)) | (code & 0x80) << 24);
}
DEVICE float widen(E4m3 x) { return number_of<E4m3>(x.code); }
DEVICE float widen(E5m2 x) { return number_of<E5m2>(x.code); }

#endif
