/* out = inp·weightᵀ: vectors run along the rows of inp, so that weight, the large operand, is read
 * where it lies. Tiles come out transposed, and are turned around on their way to memory. */
#include "product.h"
#include "vecmath.h"

#define OC_BLOCK 96 // of strips and of vectors a whole number, for every LANES
#define N_BLOCK 256
#define FEW 16 // below as many rows, vectors run along C instead
#define FEW_OC 64 // output channels of a task then

typedef struct {
    real *out, *pre;
    const real *bias, *residual;
    i64 OC;
} Epilogue;

INLINE void finish(const Epilogue *e, i64 row, i64 column, vec v, i64 left) {
    i64 at = row * e->OC + column;
    if (e->bias) v += load_n(e->bias + column, left);
    if (e->pre) {
        stream_n(e->pre + at, v, left);
        v = gelu(v);
    }
    if (e->residual) v += load_n(e->residual + at, left);
    stream_n(e->out + at, v, left);
}

// tile (ocs,ns), rows of N_BLOCK.
static void finish_transposed(const Epilogue *e, const float *tile, i64 oc, i64 ocs, i64 n,
                              i64 ns) {
    for (i64 j = 0; j < ns; j += LANES)
        for (i64 i = 0; i < ocs; i += LANES) {
            vec r[LANES];
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) r[l] = load(tile + (i + l) * N_BLOCK + j);
            transpose(r);
            for (int l = 0; l < min_i64(LANES, ns - j); l++)
                finish(e, n + j + l, oc + i, r[l], ocs - i);
        }
}

static void block(const Epilogue *e, const float *panels, const real *weight, i64 C, i64 oc,
                  i64 ocs, i64 n, i64 ns) {
    float *tile = workspace();
    for (i64 k = 0; k < C; k += KC)
        REAL(block_product)(tile, N_BLOCK, weight + oc * C + k, C, ocs,
                            panels + n * UNITS(C) + k / PER * NR, UNITS(C) * NR, ns,
                            (int)min_i64(KC, C - k), k > 0, NULL);
    finish_transposed(e, tile, oc, ocs, n, ns);
    stream_end();
}

// One vector along C, of ns rows of inp and ocs rows of weight.
INLINE void few_step(vec acc[4][4], const real *inp, const real *weight, i64 C, i64 left,
                     const int ns, const int ocs) {
    vec x[4];
#pragma GCC unroll 4
    for (int n = 0; n < ns; n++) x[n] = load_n(inp + n * C, left);
#pragma GCC unroll 4
    for (int o = 0; o < ocs; o++) {
        vec w = load_n(weight + o * C, left);
#pragma GCC unroll 4
        for (int n = 0; n < ns; n++) acc[n][o] += x[n] * w;
    }
}

// dots[n][o] = row n of inp · row o of weight.
INLINE void few_dots(float *dots, const real *inp, const real *weight, i64 C, const int ns,
                     const int ocs) {
    vec acc[4][4];
#pragma GCC unroll 4
    for (int n = 0; n < ns; n++)
#pragma GCC unroll 4
        for (int o = 0; o < ocs; o++) acc[n][o] = splat(0);
    i64 c = 0;
    for (; c + LANES <= C; c += LANES) few_step(acc, inp + c, weight + c, C, LANES, ns, ocs);
    if (c < C) few_step(acc, inp + c, weight + c, C, C - c, ns, ocs);
#pragma GCC unroll 4
    for (int n = 0; n < ns; n++)
#pragma GCC unroll 4
        for (int o = 0; o < ocs; o++) dots[n * FEW_OC + o] = sum(acc[n][o]);
}

INLINE void few_rows(float *dots, const real *inp, const real *weight, i64 N, i64 C,
                     const int ocs) {
    for (i64 n = 0; n < N; n += 4) {
        float *d = dots + n * FEW_OC;
        const real *x = inp + n * C;
        switch (N - n) {
        case 1: few_dots(d, x, weight, C, 1, ocs); break;
        case 2: few_dots(d, x, weight, C, 2, ocs); break;
        case 3: few_dots(d, x, weight, C, 3, ocs); break;
        default: few_dots(d, x, weight, C, 4, ocs);
        }
    }
}

static void few_block(const Epilogue *e, const real *inp, const real *weight, i64 N, i64 C,
                      i64 oc, i64 ocs) {
    float dots[FEW * FEW_OC];
    i64 o = 0;
    // Up to four rows, memory sets the pace, and weight is best read in one stream.
    if (N > 4)
        for (; o + 4 <= ocs; o += 4) few_rows(dots + o, inp, weight + (oc + o) * C, N, C, 4);
    for (; o < ocs; o++) few_rows(dots + o, inp, weight + (oc + o) * C, N, C, 1);
    for (i64 n = 0; n < N; n++)
        for (o = 0; o < ocs; o += LANES)
            finish(e, n, oc + o, load(dots + n * FEW_OC + o), ocs - o);
    stream_end();
}

void REAL(matmul_forward)(real *out, real *pre, const real *inp, const real *weight,
                          const real *bias, const real *residual, float *scratch, int N, int C,
                          int OC) {
    const Epilogue e = {out, pre, bias, residual, OC};
    if (N < FEW) {
#pragma omp parallel for schedule(static)
        for (i64 oc = 0; oc < OC; oc += FEW_OC)
            few_block(&e, inp, weight, N, C, oc, min_i64(FEW_OC, OC - oc));
        return;
    }
    const i64 step = 4 * LANES, steps = ceil_div(C, step);
    const i64 n_blocks = ceil_div(N, N_BLOCK);
    i64 ocs = OC_BLOCK;
    while (ocs > 48 && n_blocks * ceil_div(OC, ocs) < 4 * team_size()) ocs -= 48;
#pragma omp parallel
    {
#pragma omp for collapse(2)
        for (i64 n = 0; n < N; n += NR)
            for (i64 s = 0; s < steps; s++)
                REAL(pack_rows)(scratch + n * UNITS(C) + s * step / PER * NR, inp + n * C + s * step,
                                C, N - n, min_i64(step, C - s * step));
#pragma omp for collapse(2) schedule(dynamic)
        for (i64 oc = 0; oc < OC; oc += ocs)
            for (i64 n = 0; n < N; n += N_BLOCK)
                block(&e, scratch, weight, C, oc, min_i64(ocs, OC - oc), n,
                      min_i64(N_BLOCK, N - n));
    }
}
