/* The reference runs on one thread. */
#include "llm.h"

int llm_threads(int n) {
    (void)n;
    return 1;
}
