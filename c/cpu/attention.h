/* Heads wider than the tiles of attention.c are worked on row by row. */
#ifndef LLM_ATTENTION_H
#define LLM_ATTENTION_H

#include "product.h"
#include "vecmath.h"

#define HEAD_MAX 256 // of the tiles; what it takes of the workspace grows with it

HIDDEN void wide_forward(float *out, float *lse, const float *qkv, int B, int T, int C, int NH);
HIDDEN void wide_backward(float *dqkv, const float *dout, const float *qkv, const float *out,
                          const float *lse, int B, int T, int C, int NH);

#endif
