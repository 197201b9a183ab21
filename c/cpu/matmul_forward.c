/* out = inp·weightᵀ: vectors run along the rows of inp, so that weight, the large operand, is read
 * where it lies. Tiles come out transposed, and are turned around on their way to memory. */
#include "product.h"
#include "vecmath.h"

#define OC_STEP (MR < 32 ? 48 : MR) // of strips and of vectors a whole number, for every LANES
#define OC_BLOCK (2 * OC_STEP)
#define N_BLOCK (MR < 32 ? 128 : 256)
#define LDT (N_BLOCK + 16) // whose rows are not all in the same few places of a cache
#define PARTS (LINE / LANES) // vectors of a cache line
#define FEW_OC 64 // output channels of a task of few rows, where vectors run along C instead

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
        v = gelu(as_stored(e->pre, v));
    }
    if (e->residual) v += load_n(e->residual + at, left);
    stream_n(e->out + at, v, left);
}

// tile (ocs,ns), rows of LDT. A row of out is written by whole cache lines: the halves of one
// that is streamed would each go to memory.
static void finish_transposed(const Epilogue *e, const float *tile, i64 oc, i64 ocs, i64 n,
                              i64 ns) {
    for (i64 j = 0; j < ns; j += LANES)
        for (i64 i = 0; i < ocs; i += PARTS * LANES) {
            vec r[PARTS][LANES];
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++) {
#pragma GCC unroll 16
                for (int l = 0; l < LANES; l++)
                    r[p][l] = load(tile + (i + p * LANES + l) * LDT + j);
                transpose(r[p]);
            }
            for (int l = 0; l < min_i64(LANES, ns - j); l++)
#pragma GCC unroll 4
                for (int p = 0; p < PARTS; p++) {
                    const i64 o = i + p * LANES;
                    if (o < ocs) finish(e, n + j + l, oc + o, r[p][l], ocs - o);
                }
        }
}

typedef struct {
    Epilogue epilogue;
    const float *panels; // inp packed by KC columns, in these by NR rows
    const real *weight;
    i64 N, C, OC, ocs; // ocs: output channels of a task
} Forward;

INLINE const float *panel_of(const Forward *f, i64 n, i64 k) {
    return f->panels + k / PER * round_up(f->N, NR) + n * UNITS(min_i64(KC, f->C - k));
}

// Tasks of the same output channels follow one another.
static void block(const Forward *f, i64 task) {
    const i64 C = f->C, n_blocks = ceil_div(f->N, N_BLOCK);
    const i64 oc = task / n_blocks * f->ocs, n = task % n_blocks * N_BLOCK;
    const i64 ocs = min_i64(f->ocs, f->OC - oc), ns = min_i64(N_BLOCK, f->N - n);
    float *tile = workspace();
    for (i64 k = 0; k < C; k += KC) {
        // What comes next: more columns of this block, or most likely that one's first.
        const i64 ks = min_i64(KC, C - k), next_k = k + ks < C ? k + ks : 0;
        const i64 next_ks = min_i64(KC, C - next_k), next_task = next_k ? task : task + team_size();
        const i64 next_oc = next_task / n_blocks * f->ocs, next_n = next_task % n_blocks * N_BLOCK;
        const i64 next_ns = round_up(min_i64(N_BLOCK, f->N - next_n), NR);
        Next panels = {(const real *)panel_of(f, next_n, next_k), LINE,
                       next_ns * UNITS(next_ks) * PER / LINE, LINE, 0, NULL};
        Next rows = {f->weight + next_oc * C + next_k, C, min_i64(f->ocs, f->OC - next_oc), next_ks,
                     0, &panels};
        REAL(block_product)(tile, LDT, f->weight + oc * C + k, C, ocs, panel_of(f, n, k),
                            UNITS(ks) * NR, ns, (int)ks, k > 0, &rows);
    }
    finish_transposed(&f->epilogue, tile, oc, ocs, n, ns);
    stream_end();
}

// One vector along C, of ns rows of inp and ocs rows of weight, `stride` apart.
INLINE void few_step(vec acc[4][4], const real *inp, const real *weight, i64 C, i64 stride,
                     i64 left, const int ns, const int ocs) {
    vec x[4];
#pragma GCC unroll 4
    for (int n = 0; n < ns; n++) x[n] = load_n(inp + n * C, left);
#pragma GCC unroll 4
    for (int o = 0; o < ocs; o++) {
        vec w = load_n(weight + o * stride, left);
#pragma GCC unroll 4
        for (int n = 0; n < ns; n++) acc[n][o] += x[n] * w;
    }
}

// dots[n][o·apart] = row n of inp · row o·apart of weight.
INLINE void few_dots(float *dots, const real *inp, const real *weight, i64 C, i64 apart,
                     const int ns, const int ocs) {
    const i64 stride = apart * C;
    vec acc[4][4];
#pragma GCC unroll 4
    for (int n = 0; n < ns; n++)
#pragma GCC unroll 4
        for (int o = 0; o < ocs; o++) acc[n][o] = splat(0);
    i64 c = 0;
    for (; c + LANES <= C; c += LANES)
        few_step(acc, inp + c, weight + c, C, stride, LANES, ns, ocs);
    if (c < C) few_step(acc, inp + c, weight + c, C, stride, C - c, ns, ocs);
#pragma GCC unroll 4
    for (int n = 0; n < ns; n++)
#pragma GCC unroll 4
        for (int o = 0; o < ocs; o++) dots[n * FEW_OC + o * apart] = sum(acc[n][o]);
}

INLINE void few_rows(float *dots, const real *inp, const real *weight, i64 N, i64 C, i64 apart,
                     const int ocs) {
    for (i64 n = 0; n < N; n += 4) {
        float *d = dots + n * FEW_OC;
        const real *x = inp + n * C;
        switch (N - n) {
        case 1: few_dots(d, x, weight, C, apart, 1, ocs); break;
        case 2: few_dots(d, x, weight, C, apart, 2, ocs); break;
        case 3: few_dots(d, x, weight, C, apart, 3, ocs); break;
        default: few_dots(d, x, weight, C, apart, 4, ocs);
        }
    }
}

static void few_block(const Epilogue *e, const real *inp, const real *weight, i64 N, i64 C,
                      i64 oc, i64 ocs) {
    float dots[LLM_FEW_ROWS * FEW_OC];
    const i64 quarter = ocs / 4;
    // Memory sets the pace, and gives the most when each quarter is a stream of its own: a prefetcher
    // stops at the end of a page, and then the three others go on.
    for (i64 o = 0; o < quarter; o++)
        few_rows(dots + o, inp, weight + (oc + o) * C, N, C, quarter, 4);
    for (i64 o = 4 * quarter; o < ocs; o++)
        few_rows(dots + o, inp, weight + (oc + o) * C, N, C, 1, 1);
    for (i64 n = 0; n < N; n++)
        for (i64 o = 0; o < ocs; o += LANES)
            finish(e, n, oc + o, load(dots + n * FEW_OC + o), ocs - o);
    stream_end();
}

void REAL(matmul_forward)(real *out, real *pre, const real *inp, const real *weight,
                          const real *bias, const real *residual, float *scratch, int N, int C,
                          int OC) {
    const Epilogue e = {out, pre, bias, residual, OC};
    if (N < LLM_FEW_ROWS) {
        i64 ocs = FEW_OC;
        while (ocs > 16 && ceil_div(OC, ocs) < 8 * team_size()) ocs /= 2;
#pragma omp parallel for schedule(dynamic)
        for (i64 oc = 0; oc < OC; oc += ocs)
            few_block(&e, inp, weight, N, C, oc, min_i64(ocs, OC - oc));
        return;
    }
    const i64 step = 4 * LANES, n_blocks = ceil_div(N, N_BLOCK); // KC is a multiple of step
    i64 ocs = OC_BLOCK;
    while (ocs > OC_STEP && n_blocks * ceil_div(OC, ocs) < 4 * team_size()) ocs -= OC_STEP;
    const Forward f = {e, scratch, weight, N, C, OC, ocs};
    const i64 tasks = n_blocks * ceil_div(OC, ocs);
#pragma omp parallel
    {
#pragma omp for collapse(2)
        for (i64 n = 0; n < N; n += NR)
            for (i64 c = 0; c < C; c += step) {
                const i64 k = c / KC * KC;
                float *panel = (float *)panel_of(&f, n, k);
                REAL(pack_rows)(panel + (c - k) / PER * NR, inp + n * C + c, C, N - n,
                                min_i64(step, C - c));
            }
#pragma omp for schedule(dynamic)
        for (i64 task = 0; task < tasks; task++) block(&f, task);
    }
}
