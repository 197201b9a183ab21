/* The numbers by which the emulation chooses who goes first. */
#include "execution.h"

namespace emulated {

static uint64_t chance = 0;

void seed(unsigned value) { chance = 0x9e3779b97f4a7c15ull * (value + 1ull); }

uint32_t draw(uint32_t below) {
    if (chance == 0) {
        const char *given = getenv("LLM_EMULATION_SEED");
        seed(given ? (unsigned)strtoul(given, nullptr, 10) : 1);
    }
    chance ^= chance << 13; // xorshift (Marsaglia 2003)
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)((chance >> 32) * below >> 32);
}

void shuffle_order(int *order, int n) {
    for (int i = 0; i < n; i++) {
        const int j = (int)draw(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

} // namespace emulated

void emulated_seed(unsigned value) { emulated::seed(value); }

