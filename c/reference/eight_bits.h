/* Numbers of eight bits: a sign, an exponent, and `FRACTION` bits after the binary point. */
#ifndef LLM_REFERENCE_EIGHT_BITS_H
#define LLM_REFERENCE_EIGHT_BITS_H

#include "real.h"

typedef struct {
    int fraction; // bits
    int least;    // exponent of the smallest normal number, which the subnormal ones share
    int most;     // code of the largest number
    float largest;
} fp8_format;

static const fp8_format E4M3 = {3, -6, 0x7e, 448};
static const fp8_format E5M2 = {2, -14, 0x7b, 57344};
enum { FP8_NAN = 0x7f };

static inline float power_of_two(int exponent) { // of a normal number
    f32_bits x = {.bits = (u32)(exponent + 127) << 23};
    return x.number;
}

static inline int exponent_of(float x) { // floor(log2(x)) of a positive normal number
    f32_bits wide = {.number = x};
    return (int)(wide.bits >> 23) - 127;
}

// Codes count upwards through the numbers of a sign: those with an exponent e are 2^(e - fraction)
// apart, and begin at code (e - least)·2^fraction + 2^fraction.
static inline unsigned char fp8_nearest(float x, const fp8_format *format) {
    f32_bits wide = {.number = x};
    int sign = (int)(wide.bits >> 24 & 0x80);
    if (x != x) return (unsigned char)(sign | FP8_NAN);
    float size = x < 0 ? -x : x;
    if (size >= format->largest) return (unsigned char)(sign | format->most);
    int exponent = size < power_of_two(format->least) ? format->least : exponent_of(size);
    float steps = size / power_of_two(exponent - format->fraction);
    int whole = (int)steps;
    float rest = steps - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && (whole & 1))) whole++;
    return (unsigned char)(sign | (((exponent - format->least) << format->fraction) + whole));
}

static inline float fp8_value(unsigned char code, const fp8_format *format) {
    int size = code & 0x7f, steps = 1 << format->fraction;
    if (size > format->most) { // e5m2 has an infinity there, which is never stored
        f32_bits nan = {.bits = 0x7fc00000};
        return nan.number;
    }
    int power = size / steps, whole = power > 0 ? steps + size % steps : size;
    float x = (float)whole *
              power_of_two(format->least + (power > 0 ? power - 1 : 0) - format->fraction);
    return code & 0x80 ? -x : x;
}

#endif
