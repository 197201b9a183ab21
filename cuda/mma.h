/* The tensor cores' products of bf16, the loads that feed them, and copies into shared memory that
 * run beside the arithmetic (all sm_80): one instruction each, under a plain name.
 *
 * A product is out (16,8) f32 += a (16,16) · b (16,8). Of each operand a lane holds pairs of
 * neighbours (a u32: the first in the lower half), with g = lane/4 and c = lane%4·2:
 *   a[0] row g, columns c, c+1; a[1] row g+8; a[2], a[3] the same rows, columns c+8, c+9
 *   b0 rows c, c+1 of column g; b1 rows c+8, c+9
 *   out[0], out[1] row g, columns c, c+1; out[2], out[3] row g+8
 * So the sums of two products side by side are, rounded, the a of a next one. */
#ifndef LLM_MMA_H
#define LLM_MMA_H

#include "numbers.h"

#ifdef LLM_EMULATED
#include "../test/cuda/mma.h"
#else

DEVICE void multiply_add(float (&out)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(out[0]), "+f"(out[1]), "+f"(out[2]), "+f"(out[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

/* Four matrices (8,8) from shared memory: lane l gives the address of row l%8 of matrix l/8, on 16
 * bytes; it gets row l/4, columns l%4·2 and the next, of each. */
DEVICE void load_matrices(u32 (&to)[4], const bf16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same, of the matrices' transposes: it gets rows l%4·2 and the next of column l/4. */
DEVICE void load_matrices_transposed(u32 (&to)[4], const bf16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* Copies 16 bytes into shared memory, or zeros where they are not `present`, in the background. */
DEVICE void copy_async(void *shared, const void *global, bool present) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(present ? 16 : 0)
                 : "memory");
}

DEVICE void copy_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :
                 : "r"(shared_address(shared)), "l"(global)
                 : "memory");
}

/* The copies since the last call become a group. */
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Waits for this thread's groups but the last N; a barrier then shows them to the others. */
template <int N> DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Two numbers as a pair of bf16. */
DEVICE u32 narrow_pair(float first, float second) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

/* 2^x by the special function unit: off by 2^-22 of it at most, and 0 below 2^-126. */
DEVICE float exp2_fast(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

/* 1/x by the special function unit: off by 1 ulp at most, and 0 of what is beyond 2^126. */
DEVICE float reciprocal_fast(float x) {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
}

/* What is made of x from here on is not made earlier: while it is loaded, others go on. */
DEVICE void not_before(u32 &x) { asm volatile("" : "+r"(x)); }
DEVICE void not_before(float &x) { asm volatile("" : "+f"(x)); }

#endif
#endif
