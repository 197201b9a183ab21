/* The Gaussian error linear unit in its tanh form, and its derivative, of one number. Shared by the
 * op itself (gelu.c) and by the matrix products that apply it to their results (matmul.c). */
#ifndef LLM_REFERENCE_ACTIVATION_H
#define LLM_REFERENCE_ACTIVATION_H

#include "libm.h"

#define GELU_SLOPE 0.79788456080286535588 // sqrt(2/pi)
#define GELU_CUBIC 0.044715

static inline double gelu(double x) {
    return 0.5 * x * (1 + tanh(GELU_SLOPE * (x + GELU_CUBIC * x * x * x)));
}

// The product rule on x/2 and 1 + tanh(u(x)), with tanh' = 1 - tanh².
static inline double gelu_gradient(double x) {
    double tanh_u = tanh(GELU_SLOPE * (x + GELU_CUBIC * x * x * x));
    double du = GELU_SLOPE * (1 + 3 * GELU_CUBIC * x * x);
    return 0.5 * (1 + tanh_u) + 0.5 * x * (1 - tanh_u * tanh_u) * du;
}

#endif
