/* How fast plain scalar code can go, which computes in f32 whatever is stored. */
#include "llm.h"

double REAL(llm_peak)(i64 work) {
    // Four chains, so that none waits for its own last result; they tend to 1 and stay normal.
    float a = 0, b = 1, c = 2, d = 3;
    i64 rounds = (work + 3) / 4;
    for (i64 i = 0; i < rounds; i++) {
        a = a * 0.5f + 0.5f;
        b = b * 0.5f + 0.5f;
        c = c * 0.5f + 0.5f;
        d = d * 0.5f + 0.5f;
    }
    volatile float result = a + b + c + d; // or a compiler would leave the work out
    (void)result;
    return 2.0 * 4 * (double)rounds;
}
