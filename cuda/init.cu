/* New weights are drawn into the host's memory, by the reference's generator. */
#include "launch.h"

// CUDA's headers and the emulation's bring libm's own.
#define LLM_REFERENCE_LIBM_H
extern "C" {
#include "../c/reference/init.c"
}
