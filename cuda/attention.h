/* What the attention kernels share: where a head's rows lie, and which block takes which of them.
 *
 * Exponentials are powers of two: exp(q·k/sqrt(HS)) = exp2(q·k·scale), scale = log2(e)/sqrt(HS). */
#ifndef LLM_ATTENTION_H
#define LLM_ATTENTION_H

#include <math.h>

#include "numbers.h"

constexpr float LN2 = 0.693147181f;

/* NH·HS channels of each token, `token` numbers after the last one's, in sequences that lie
 * `sequence` apart. */
struct Rows {
    const real *first;
    i64 sequence;
    int token;
};

/* T queries of each of B sequences; that of token t sees the keys of rows 0..positions[b] + t. */
struct Attention {
    real *out;            // (B,T,NH·HS)
    float *lse;           // (B,NH,T), or NULL
    Rows q, k, v;
    const int *positions; // (B), or NULL for zeros
    int B, T, NH, HS;
    float scale;
};

/* The gradients of q, k, v of T tokens that see each other, laid out as the contract has them. */
struct Gradients {
    real *dqkv;
    float *delta; // (B,NH,T), made first: the sum of dout·out over a head's channels
    const real *dout, *qkv, *out;
    const float *lse;
    int B, T, NH, HS;
    float scale;
    float *sums; // of each block's rows (parts,3·NH·HS), or NULL
};

static inline float score_scale(int HS) { return LOG2E / sqrtf((float)HS); }

/* out = softmax(q·kᵀ/sqrt(HS))·v, by the tensor cores where they can, and without. */
void REAL(attend)(const Attention &x);
void REAL(attend_plainly)(const Attention &x);
void REAL(differentiate_plainly)(const Gradients &x);

/* The same on a Hopper GPU, for heads of 64 or 128 channels; false elsewhere, with nothing done. */
bool attention_forward_hopper(bf16 *out, float *lse, const bf16 *qkv, int B, int T, int NH, int HS);
bool differentiate_hopper(Gradients x, float *sums, int accumulate);

/* One block's share: rows of one head from `first` on. */
struct Share {
    int first, b, h;
};

/* Heads whose keys and values should stay in the L2 cache while their blocks are worked on. */
constexpr int HEADS_AT_ONCE = 64;

/* The share of block `index` of tiles·heads; among heads that run at once, the tiles with the most
 * keys (or queries) to see first, so that the last blocks to start are the shortest. */
DEVICE Share share_of(int index, int tiles, int height, int heads, int NH, bool last_first) {
    const int group = index / (HEADS_AT_ONCE * tiles), first = group * HEADS_AT_ONCE;
    const int at_once = min(HEADS_AT_ONCE, heads - first), rest = index % (HEADS_AT_ONCE * tiles);
    const int tile = rest / at_once, head = first + rest % at_once;
    return {(last_first ? tiles - 1 - tile : tile) * height, head / NH, head % NH};
}

DEVICE const real *head_of(const Rows &rows, const Share &share, int HS) {
    return rows.first + share.b * rows.sequence + (i64)share.h * HS;
}

#endif
