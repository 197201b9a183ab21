/* The two products of the backward pass; in both, vectors run along C, and tiles lie as the result
 * does. */
#include "column_sums.h"
#include "product.h"
#include "unit.h"
#include "vecmath.h"

#define N_BLOCK (MR < 32 ? 264 : 512) // rows of dinp in a task
#define C_BLOCK 192
#define OC_BLOCK (MR < 32 ? 48 : MR) // rows of dweight in a task

static void finish_input(real *dinp, const real *pre, const float *tile, i64 ldt, i64 C, i64 rows,
                         i64 columns, int accumulate) {
    for (i64 i = 0; i < rows; i++)
        for (i64 j = 0; j < columns; j += LANES) {
            i64 at = i * C + j, left = columns - j;
            vec v = load(tile + i * ldt + j);
            if (pre) v *= gelu_gradient(load_n(pre + at, left));
            if (accumulate) v += load_n(dinp + at, left);
            store_n(dinp + at, v, left);
        }
}

typedef struct {
    real *dinp;
    const real *dout, *weight, *pre;
    i64 N, C, OC, ns, cs; // ns rows and cs columns of dinp are a task
    int accumulate;
} Input;

static void input_block(const Input *f, i64 task) {
    const i64 C = f->C, OC = f->OC, c_blocks = ceil_div(C, f->cs), next_task = task + team_size();
    const i64 n = task / c_blocks * f->ns, ns = min_i64(f->ns, f->N - n);
    const i64 c = task % c_blocks * f->cs, cs = min_i64(f->cs, C - c);
    const i64 next_c = next_task % c_blocks * f->cs;
    const real *pre = f->pre ? f->pre + n * C + c : NULL;
    real *dinp = f->dinp + n * C + c;
    float *panels = workspace(), *tile = panels + UNITS(KC) * C_BLOCK;
    for (i64 k = 0; k < OC; k += KC) {
        const i64 ks = min_i64(KC, OC - k), next_ks = min_i64(KC, OC - k - ks);
        for (i64 j = 0; j < cs; j += NR)
            REAL(pack_columns)(panels + j * UNITS(KC), f->weight + k * C + c + j, C, ks, cs - j);
        // More of these weights; in the end what the sums meet, and most likely that task's weights.
        Next later = {f->weight + next_c, C, next_task / c_blocks * f->ns < f->N ? min_i64(KC, OC) : 0,
                      min_i64(f->cs, C - next_c), 0, NULL};
        Next sums = {dinp, C, ns, cs, 0, &later};
        Next factors = {pre, C, pre ? ns : 0, cs, 0, &sums};
        Next next = {f->weight + (k + ks) * C + c, C, next_ks, cs, 0, next_ks ? NULL : &factors};
        REAL(block_product)(tile, C_BLOCK, f->dout + n * OC + k, OC, ns, panels, UNITS(KC) * NR, cs,
                            (int)ks, k > 0, &next);
    }
    finish_input(dinp, pre, tile, C_BLOCK, C, ns, cs, f->accumulate);
}

void REAL(matmul_backward_input)(real *dinp, float *sums, const real *dout, const real *weight,
                                 const real *pre, int N, int C, int OC, int accumulate_inp,
                                 int accumulate) {
    const i64 ns = round_up(ceil_div(N, ceil_div(N, N_BLOCK)), MR);
    const i64 cs = block_columns(C, ceil_div(N, ns), C_BLOCK);
    const Input f = {dinp, dout, weight, pre, N, C, OC, ns, cs, accumulate_inp};
    const i64 tasks = ceil_div(N, ns) * ceil_div(C, cs);
#pragma omp parallel for schedule(dynamic)
    for (i64 task = 0; task < tasks; task++) input_block(&f, task);
    if (sums) REAL(column_sums)(sums, dinp, N, C, accumulate);
}

// rows (ocs,KC) = transpose of dout (ns,ocs); sums (ocs) += sum over ns. panel: scratch for one.
static void pack_dout(real *rows, float *sums, float *panel, const real *dout, i64 OC, i64 ocs,
                      i64 ns) {
    const i64 units = UNITS(ns);
    for (i64 o = 0; o < ocs; o += LANES) {
        if (o % NR == 0) REAL(pack_columns)(panel, dout + o, OC, ns, ocs - o);
        vec total[2] = {splat(0), splat(0)};
        for (i64 k = 0; k < units; k += LANES) {
            const float *at = panel + k * NR + o % NR;
            vec r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                r[i] = k + i < units ? load(at + i * NR) : splat(0);
                total[i % 2] = add_units(total[i % 2], r[i]);
            }
            transpose(r);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) *(vec *)(rows + (o + i) * KC + k * PER) = r[i];
        }
        store(sums + o, load(sums + o) + (total[0] + total[1]));
    }
}

static void finish_weight(float *dweight, const float *tile, i64 ldt, i64 C, i64 rows, i64 columns,
                          int accumulate) {
    for (i64 i = 0; i < rows; i++)
        for (i64 j = 0; j < columns; j += LANES) {
            float *at = dweight + i * C + j;
            const vec v = load(tile + i * ldt + j);
            if (accumulate) store_n(at, load_n(at, columns - j) + v, columns - j);
            else stream_n(at, v, columns - j);
        }
}

typedef struct {
    float *dweight, *dbias;
    const real *dout, *inp;
    const float *panels;
    i64 N, C, OC;
    int accumulate;
} Weight;

static void weight_block(const Weight *w, i64 oc, i64 ocs, i64 c, i64 cs) {
    real *rows = (real *)workspace();
    float *last = workspace() + OC_BLOCK * KC, *tile = last + NR * KC;
    float sums[OC_BLOCK] = {0};
    const i64 ldt = round_up(cs, NR);
    for (i64 n = 0; n < w->N; n += KC) {
        i64 ns = min_i64(KC, w->N - n);
        pack_dout(rows, sums, last, w->dout + n * w->OC + oc, w->OC, ocs, ns);
        // The rows of dout that this thread packs next: of this block, or most likely of that one.
        const int more = n + ns < w->N;
        const i64 next_oc = more ? oc : oc + OC_BLOCK * team_size(), next_n = more ? n + ns : 0;
        Next ahead = {NULL, LINE, 0, LINE, 0, NULL};
        Next next = {w->dout + next_n * w->OC + next_oc, w->OC,
                     next_oc < w->OC ? min_i64(KC, w->N - next_n) : 0, OC_BLOCK, 0, &ahead};
        for (i64 j = 0; j < cs; j += NR) {
            const float *panel = w->panels + (c + j) * UNITS(w->N) + n / PER * NR;
            if (c + j + NR > w->C) {
                REAL(pack_columns)(last, w->inp + n * w->C + c + j, w->C, ns, cs - j);
                panel = last;
            }
            // The next panel: of these rows, or the first one of the rows that are next.
            const i64 next_j = j + NR < cs ? j + NR : 0, from_n = next_j ? n : next_n;
            ahead.at = (const real *)(w->panels + (c + next_j) * UNITS(w->N) + from_n / PER * NR);
            ahead.rows = c + next_j + NR <= w->C ? UNITS(min_i64(KC, w->N - from_n)) * NR / 16 : 0;
            for (i64 i = 0; i < ocs; i += MR) {
                const i64 rows_left = min_i64(MR, ocs - i), left = min_i64(NR, cs - j);
                REAL(block_product)(tile + i * ldt + j, ldt, rows + i * KC, KC, rows_left, panel, 0,
                                    left, (int)ns, n > 0, &next);
                // At once, so that memory has the next strip's time to take it.
                if (!more)
                    finish_weight(w->dweight + (oc + i) * w->C + c + j, tile + i * ldt + j, ldt,
                                  w->C, rows_left, left, w->accumulate);
            }
        }
    }
    if (w->dbias && c == 0)
        finish_weight(w->dbias + oc, sums, 0, 0, 1, ocs, w->accumulate);
    stream_end();
}

void REAL(matmul_backward_weight)(float *dweight, float *dbias, const real *dout, const real *inp,
                                  float *scratch, int N, int C, int OC, int accumulate) {
    const Weight w = {dweight, dbias, dout, inp, scratch, N, C, OC, accumulate};
    // Scratch holds no part of a panel, so whole panels only: the columns left go task by task.
    const i64 whole = C / NR * NR, step = 64, steps = ceil_div(N, step);
    const i64 cs = block_columns(C, ceil_div(OC, OC_BLOCK), 12 * 64);
#pragma omp parallel
    {
#pragma omp for collapse(2)
        for (i64 c = 0; c < whole; c += NR)
            for (i64 s = 0; s < steps; s++)
                REAL(pack_columns)(scratch + c * UNITS(N) + s * step / PER * NR,
                                   inp + s * step * C + c, C, min_i64(step, N - s * step), NR);
#pragma omp for collapse(2) schedule(dynamic)
        for (i64 oc = 0; oc < OC; oc += OC_BLOCK)
            for (i64 c = 0; c < C; c += cs)
                weight_block(&w, oc, min_i64(OC_BLOCK, OC - oc), c, min_i64(cs, C - c));
    }
}
