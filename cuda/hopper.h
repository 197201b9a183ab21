/* Hopper's way to feed its tensor cores (sm_90a): products of a whole warpgroup, four warps that begin at
 * a multiple of four, straight from shared memory, which the copy engine fills by tiles beside them.
 *
 * A tile is `height` rows of D channels of bf16, D = 64 or 128: one half of 64 channels after the other,
 * rows of 128 bytes, in which the 16 bytes at place i lie at i ^ row%8 (the engine's swizzle of 128
 * bytes), so that neither rows nor columns meet in one bank. It lies on 1024 bytes.
 *
 * A product is out (64,N) f32 += a (64,16)·b (16,N). Warp w of the four holds rows 16·w..16·w+15 of out,
 * and of an `a` in registers, as mma.h says of a warp's 16 rows.
 *
 * Products and copies run on by themselves: between start_products and wait_products<0>, registers of
 * out and a stay untouched, and shared memory as it is. */
#ifndef LLM_HOPPER_H
#define LLM_HOPPER_H

#include "mma.h"

bool has_warpgroups();
int multiprocessors();

#ifdef LLM_EMULATED
#include "../test/cuda/hopper.h"
#else
#include <cuda.h>

typedef CUtensorMap TensorMap;
typedef unsigned long long Operand; // a descriptor of the PTX manual, "matrix descriptor"

/* A place in the block's own shared memory; the bits above say which of a cluster's blocks it is. */
DEVICE Operand operand_at(u32 address) { return (address & 0x3ffff) >> 4; }

/* Columns 16·k..16·k+15 of a tile's rows, as rows of a or columns of b. */
DEVICE Operand along_rows(const bf16 *tile, int height, int k) {
    const u32 at = shared_address(tile) + (u32)(k / 4 * height * 128 + k % 4 * 32);
    return operand_at(at) | 1ull << 16 | (Operand)(1024 >> 4) << 32 | 1ull << 62;
}

/* Rows 16·k..16·k+15 of a tile, as the rows of b. */
DEVICE Operand across_rows(const bf16 *tile, int height, int k) {
    const u32 at = shared_address(tile) + (u32)(k * 16 * 128);
    return operand_at(at) | (Operand)(height * 128 >> 4) << 16 | (Operand)(1024 >> 4) << 32 |
           1ull << 62;
}

/* out = or += a·b, both along rows. */
template <int N>
__device__ __forceinline__ void multiply_rows(float (&out)[N / 8][4], Operand a, Operand b, bool add);
/* The same, with b across rows. */
template <int N>
__device__ __forceinline__ void multiply_across(float (&out)[N / 8][4], Operand a, Operand b, bool add);
/* out += a·b, b across rows. */
template <int N>
__device__ __forceinline__ void add_weighted(float (&out)[N / 8][4], const u32 (&a)[4], Operand b);

/* An instruction names each number of out, and takes each as an operand. */
#define ROW(n) "+f"(out[n][0]), "+f"(out[n][1]), "+f"(out[n][2]), "+f"(out[n][3])
#define ROWS_64 ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7)
#define ROWS_128 \
    ROWS_64, ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)
#define ROWS_256 \
    ROWS_128, ROW(16), ROW(17), ROW(18), ROW(19), ROW(20), ROW(21), ROW(22), ROW(23), ROW(24), ROW(25), \
        ROW(26), ROW(27), ROW(28), ROW(29), ROW(30), ROW(31)
#define NAMES_64 \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15" \
    ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_128 \
    NAMES_64 \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
    ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define NAMES_256 \
    NAMES_128 \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79" \
    ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95" \
    ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
    ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

template <>
__device__ __forceinline__ void multiply_rows<64>(float (&out)[8][4], Operand a, Operand b, bool add) {
    asm volatile("{.reg .pred add; setp.ne.b32 add, %34, 0;"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_64
                 "}, %32, %33, add, 1, 1, 0, 0;}"
                 : ROWS_64
                 : "l"(a), "l"(b), "r"((int)add));
}
template <>
__device__ __forceinline__ void add_weighted<64>(float (&out)[8][4], const u32 (&a)[4], Operand b) {
    asm volatile("{.reg .pred add; setp.eq.u32 add, 0, 0;"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_64
                 "}, {%32,%33,%34,%35}, %36, add, 1, 1, 1;}"
                 : ROWS_64
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
__device__ __forceinline__ void multiply_rows<128>(float (&out)[16][4], Operand a, Operand b, bool add) {
    asm volatile("{.reg .pred add; setp.ne.b32 add, %66, 0;"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_128
                 "}, %64, %65, add, 1, 1, 0, 0;}"
                 : ROWS_128
                 : "l"(a), "l"(b), "r"((int)add));
}
template <>
__device__ __forceinline__ void add_weighted<128>(float (&out)[16][4], const u32 (&a)[4], Operand b) {
    asm volatile("{.reg .pred add; setp.eq.u32 add, 0, 0;"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_128
                 "}, {%64,%65,%66,%67}, %68, add, 1, 1, 1;}"
                 : ROWS_128
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
__device__ __forceinline__ void multiply_rows<256>(float (&out)[32][4], Operand a, Operand b, bool add) {
    asm volatile("{.reg .pred add; setp.ne.b32 add, %130, 0;"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" NAMES_256
                 "}, %128, %129, add, 1, 1, 0, 0;}"
                 : ROWS_256
                 : "l"(a), "l"(b), "r"((int)add));
}
template <>
__device__ __forceinline__ void multiply_across<256>(float (&out)[32][4], Operand a, Operand b, bool add) {
    asm volatile("{.reg .pred add; setp.ne.b32 add, %130, 0;"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" NAMES_256
                 "}, %128, %129, add, 1, 1, 0, 1;}"
                 : ROWS_256
                 : "l"(a), "l"(b), "r"((int)add));
}

#undef ROW
#undef ROWS_64
#undef ROWS_128
#undef ROWS_256
#undef NAMES_64
#undef NAMES_128
#undef NAMES_256

DEVICE void start_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/* The products since the last call become a group. */
DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Waits for all groups but the last N. */
template <int N> DEVICE void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* A barrier whose phase ends when `arrivals` have been made and the announced bytes have come. */
struct Barrier {
    unsigned long long state;
};
DEVICE void barrier_init(Barrier *barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}
/* After the last init, before the block's barrier that shows them to the others. */
DEVICE void barriers_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void barrier_arrive(Barrier *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}
/* Arrives, and announces bytes that copies will bring. */
DEVICE void barrier_expect(Barrier *barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}
/* Waits for the end of a phase: the first has parity 0, the second 1, the third 0 again. */
DEVICE void barrier_wait(Barrier *barrier, int parity) {
    asm volatile("{.reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra.uni ended;\n"
                 "bra.uni again;\n"
                 "ended: }" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

/* Whether this lane of a whole warp is the one that acts for it. In what it then does the compiler knows
 * that all values are the warp's, as the copy engine takes them. */
DEVICE bool is_elected() {
    u32 elected;
    asm volatile("{.reg .pred is_it; elect.sync _|is_it, 0xffffffff; selp.u32 %0, 1, 0, is_it;}"
                 : "=r"(elected));
    return elected;
}

/* Starts to copy 64 channels of a map's box of rows into shared memory, zeros for rows that do not exist;
 * the barrier is told of their bytes. */
DEVICE void copy_tile(bf16 *to, const TensorMap *map, Barrier *barrier, int channel, int row, int b) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(barrier)), "r"(channel), "r"(row), "r"(b)
                 : "memory");
}

/* What a warpgroup needs of registers is told to each when their work parts: a multiple of 8. */
template <int N> DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* Brings a line of memory into the L2 cache. */
DEVICE void prefetch_line(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

/* Blocks that run together and reach each other's shared memory, in which all lies alike. */
constexpr int CLUSTER = 2;
#if !defined __CUDA_ARCH__ || __CUDA_ARCH__ >= 900
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
DEVICE int cluster_rank() {
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
/* A barrier of all threads of a cluster. */
DEVICE void cluster_wait() {
    asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
}
DEVICE void barrier_arrive_at(Barrier *barrier, int rank) {
    asm volatile("{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(
                     shared_address(barrier)),
                 "r"(rank)
                 : "memory");
}
/* copy_tile into each block of the cluster; the barrier of each is told. */
DEVICE void copy_tile_to_all(bf16 *to, const TensorMap *map, Barrier *barrier, int channel, int row) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(barrier)), "r"(channel), "r"(row), "r"(0),
                 "h"((unsigned short)((1 << CLUSTER) - 1))
                 : "memory");
}
#else
#define IN_CLUSTERS
#endif

/* The map of (B,T,channels) bf16 for copy_tile, of so many rows at once. False where the driver has none. */
bool make_map(TensorMap *map, const bf16 *tensor, int channels, int T, int B, int rows = 64);
#endif

#endif
