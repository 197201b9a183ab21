/* Between the two kinds of number. */
#include "elements.h"

namespace {
template <typename To, typename From> struct Convert {
    To *out;
    const From *inp;
    template <int N> __device__ void at(i64 i) const { store(out + i, load<N>(inp + i)); }
};
} // namespace

// Eight bytes of bf16, sixteen of f32, a thread.
void bf16_round(bf16 *out, const float *inp, i64 n) { each<4>(n, Convert<bf16, float>{out, inp}); }

void bf16_widen(float *out, const bf16 *inp, i64 n) { each<4>(n, Convert<float, bf16>{out, inp}); }
