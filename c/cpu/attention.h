/* Heads wider than the tiles of attention.c are worked on row by row, and so is a single token. */
#ifndef LLM_ATTENTION_H
#define LLM_ATTENTION_H

#include "product.h"
#include "vecmath.h"

#define HEAD_MAX 256 // of the tiles; what it takes of the workspace grows with it

// attention_decode of several tokens a sequence, of heads up to HEAD_MAX.
HIDDEN void REAL(tiled_decode)(real *out, real *kcache, real *vcache, const real *qkv,
                               const int *positions, int B, int T, int C, int NH, int maxT);

HIDDEN void REAL(wide_forward)(real *out, float *lse, const real *qkv, int B, int T, int C, int NH);
HIDDEN void REAL(wide_backward)(real *dqkv, const real *dout, const real *qkv, const real *out,
                                const float *lse, float *scratch, int B, int T, int C, int NH);

#endif
