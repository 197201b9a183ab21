/* CUDA's functions of one thread, in plain C++. */
#ifndef LLM_INTRINSICS_H
#define LLM_INTRINSICS_H

template <typename To, typename From> inline To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline uint32_t __float_as_uint(float x) { return emulated_bits<uint32_t>(x); }
static inline float __uint_as_float(uint32_t x) { return emulated_bits<float>(x); }
static inline int __float_as_int(float x) { return emulated_bits<int>(x); }
static inline float __int_as_float(int x) { return emulated_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }

static inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
static inline double rsqrt(double x) { return 1. / sqrt(x); }
static inline float __frsqrt_rn(float x) { return 1.f / sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.f / x; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
#define __expf expf /* glibc has other functions of these names */
#define __logf logf
#define __log2f log2f
#define __sinf sinf
#define __cosf cosf
#define __powf powf
/* In these an optimizer sees no product and sum to contract. */
static inline float __fmul_rn(float x, float y) {
    volatile float product = x * y;
    return product;
}
static inline float __fadd_rn(float x, float y) {
    volatile float sum = x + y;
    return sum;
}
static inline float __fsub_rn(float x, float y) { return __fadd_rn(x, -y); }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(uint32_t x) { return (float)x; }

#define EMULATED_MINIMUM(type)                                           \
    static inline type min(type a, type b) { return b < a ? b : a; } \
    static inline type max(type a, type b) { return a < b ? b : a; }
EMULATED_MINIMUM(int)
EMULATED_MINIMUM(unsigned)
EMULATED_MINIMUM(long)
EMULATED_MINIMUM(unsigned long)
EMULATED_MINIMUM(long long)
EMULATED_MINIMUM(unsigned long long)
#undef EMULATED_MINIMUM
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline int __popc(uint32_t x) { return __builtin_popcount(x); }
static inline int __popcll(uint64_t x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline uint32_t __umulhi(uint32_t x, uint32_t y) { return (uint64_t)x * y >> 32; }
/* The four bytes of (y, x) that the selector's digits name. */
static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
    const uint64_t bytes = (uint64_t)y << 32 | x;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++)
        out |= (uint32_t)(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return out;
}

template <typename T> inline T __ldg(const T *p) { return *p; }
template <typename T> inline T __ldcs(const T *p) { return *p; }
template <typename T> inline T __ldcg(const T *p) { return *p; }
template <typename T> inline T __ldca(const T *p) { return *p; }
template <typename T> inline T __ldlu(const T *p) { return *p; }
template <typename T> inline void __stcs(T *p, T value) { *p = value; }
template <typename T> inline void __stcg(T *p, T value) { *p = value; }
template <typename T> inline void __stwt(T *p, T value) { *p = value; }

static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
static inline void __nanosleep(unsigned) {}

/* No two fibers run at once. The value is of a type of its own: a literal fits every T. */
template <typename T> struct EmulatedSame {
    typedef T Type;
};
template <typename T> using EmulatedValue = typename EmulatedSame<T>::Type;
#define EMULATED_ATOMIC(name, result)                                        \
    template <typename T> inline T name(T *p, EmulatedValue<T> value) {      \
        const T old = *p;                                                    \
        *p = result;                                                         \
        return old;                                                          \
    }
EMULATED_ATOMIC(atomicAdd, old + value)
EMULATED_ATOMIC(atomicSub, old - value)
EMULATED_ATOMIC(atomicExch, value)
EMULATED_ATOMIC(atomicMax, old < value ? value : old)
EMULATED_ATOMIC(atomicMin, value < old ? value : old)
EMULATED_ATOMIC(atomicOr, old | value)
EMULATED_ATOMIC(atomicAnd, old & value)
EMULATED_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
#undef EMULATED_ATOMIC
template <typename T>
inline T atomicCAS(T *p, EmulatedValue<T> expected, EmulatedValue<T> value) {
    const T old = *p;
    if (old == expected) *p = value;
    return old;
}

#define EMULATED_VECTORS(type, name, alignment2, alignment4)                             \
    struct alignas(alignment2) name##2 {                                                 \
        type x, y;                                                                       \
    };                                                                                   \
    struct alignas(alignment4) name##4 {                                                 \
        type x, y, z, w;                                                                 \
    };                                                                                   \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }              \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float, 8, 16)
EMULATED_VECTORS(int, int, 8, 16)
EMULATED_VECTORS(unsigned, uint, 8, 16)
EMULATED_VECTORS(unsigned short, ushort, 4, 8)
EMULATED_VECTORS(unsigned char, uchar, 2, 4)
EMULATED_VECTORS(double, double, 16, 16)
#undef EMULATED_VECTORS

#endif
