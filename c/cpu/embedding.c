/* Rows in, rows out; on the way back a strip of channels is a task, so that rows of the same token
 * meet in order without locks. */
#include "simd.h"

#define STRIP 64 // channels: four cache lines
#define ZERO_CHUNK (256 * 1024) // floats

void REAL(embedding_forward)(real *out, const int *tokens, const real *wte, const real *wpe,
                             const int *positions, int B, int T, int C) {
#pragma omp parallel for collapse(2) schedule(static) if (B * T > 1)
    for (i64 b = 0; b < B; b++)
        for (i64 t = 0; t < T; t++) {
            real *o = out + (b * T + t) * C;
            const real *token = wte + (i64)tokens[b * T + t] * C;
            const real *place = wpe + ((positions ? positions[b] : 0) + t) * C;
            for (i64 c = 0; c < C; c += LANES)
                store_n(o + c, load_n(token + c, C - c) + load_n(place + c, C - c), C - c);
        }
}

static void add_row(float *to, const real *from, i64 n) {
    for (i64 c = 0; c < n; c += LANES)
        store_n(to + c, load_n(to + c, n - c) + load_n(from + c, n - c), n - c);
}

static void clear(float *x, i64 n) {
    for (i64 i = 0; i < n; i += LANES) stream_n(x + i, splat(0), n - i);
    stream_end();
}

void REAL(embedding_backward)(float *dwte, float *dwpe, const real *dout, const int *tokens, int B,
                              int T, int C, int Vp, int maxT, int accumulate_wte,
                              int accumulate_wpe) {
    const i64 wte_size = accumulate_wte ? 0 : (i64)Vp * C;
    const i64 wpe_size = accumulate_wpe ? 0 : (i64)maxT * C;
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (i64 i = 0; i < wte_size; i += ZERO_CHUNK)
            clear(dwte + i, min_i64(ZERO_CHUNK, wte_size - i));
#pragma omp for schedule(static)
        for (i64 i = 0; i < wpe_size; i += ZERO_CHUNK)
            clear(dwpe + i, min_i64(ZERO_CHUNK, wpe_size - i));
#pragma omp for schedule(dynamic)
        for (i64 c = 0; c < C; c += STRIP)
            for (i64 row = 0; row < (i64)B * T; row++) {
                const real *d = dout + row * C + c;
                add_row(dwte + (i64)tokens[row] * C + c, d, min_i64(STRIP, C - c));
                add_row(dwpe + row % T * C + c, d, min_i64(STRIP, C - c));
            }
    }
}
