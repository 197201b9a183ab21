/* AMX (Intel's matrix extensions): eight tile registers of 16 rows by 64 bytes, and one instruction
 * that multiplies them. Without the instructions the same names work on arrays, for the tests. */
#ifndef LLM_AMX_H
#define LLM_AMX_H

#include "simd.h"

#define TILE_ROWS 16
#define TILE_BYTES 64 // of a row: 16 f32, or 16 units of two bf16

#if defined __AMX_BF16__

/* Gives this thread's tiles their shape, once. */
INLINE void tiles_configure(void) {
    static _Thread_local int done;
    if (done) return;
    struct {
        unsigned char palette, start, reserved[14];
        unsigned short row_bytes[16];
        unsigned char rows[16];
    } shape __attribute__((aligned(64))) = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        shape.row_bytes[t] = TILE_BYTES;
        shape.rows[t] = TILE_ROWS;
    }
    _tile_loadconfig(&shape);
    done = 1;
}

// t, a and b are literals, as the instructions name their registers; `bytes` lie from row to row.
#define tile_zero(t) _tile_zero(t)
// GCC does not know that the instruction reads memory, and could leave out what was written there.
#define tile_load(t, from, bytes) \
    do { \
        __asm__ volatile("" : : : "memory"); \
        _tile_loadd(t, from, bytes); \
    } while (0)
#define tile_store(t, to, bytes) _tile_stored(t, to, bytes)
/* t[i][j] += a[i][k]·b[k][j] over 16 units k, both numbers of each. */
#define tile_multiply_add(t, a, b) _tile_dpbf16ps(t, a, b)

#else

static _Thread_local float emulated_tiles[8][TILE_ROWS][TILE_BYTES / 4]
    __attribute__((aligned(64)));

INLINE void tiles_configure(void) {}

INLINE void tile_zero(int t) { __builtin_memset(emulated_tiles[t], 0, sizeof emulated_tiles[t]); }

INLINE void tile_load(int t, const void *from, i64 bytes) {
    for (i64 i = 0; i < TILE_ROWS; i++)
        __builtin_memcpy(emulated_tiles[t][i], (const char *)from + i * bytes, TILE_BYTES);
}

INLINE void tile_store(int t, void *to, i64 bytes) {
    for (i64 i = 0; i < TILE_ROWS; i++)
        __builtin_memcpy((char *)to + i * bytes, emulated_tiles[t][i], TILE_BYTES);
}

INLINE float wide(bf16 x) { return from_bf16((bf16s){x})[0]; }

INLINE void tile_multiply_add(int t, int a, int b) {
    for (int i = 0; i < TILE_ROWS; i++)
        for (int k = 0; k < TILE_ROWS; k++) {
            const bf16 *x = (const bf16 *)&emulated_tiles[a][i][k];
            const veci y = *(const veci *)emulated_tiles[b][k];
            vec *sum = (vec *)emulated_tiles[t][i];
            *sum += wide(x[0]) * (vec)(y << 16);
            *sum += wide(x[1]) * (vec)(y & (int)0xffff0000);
        }
}

#endif

/* The four tiles that hold sums. */
INLINE void tiles_zero(void) {
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
}

#endif
