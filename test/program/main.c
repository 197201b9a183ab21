/* A trainer around the emitted file: reads one batch and the parameters from standard input, makes
 * five steps of AdamW with the gradient clipped at norm 1, and prints each loss. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "step.c"

static char *arena;

static const struct tensor *find(const char *name) {
    const struct tensor *t = tensors;
    while (strcmp(t->name, name)) t++;
    return t;
}

static void fill(const struct tensor *t) {
    if (fread(arena + t->offset, 4, t->elements, stdin) != (size_t)t->elements) exit(1);
}

int main(void) {
    if (!(arena = calloc(ARENA_BYTES, 1))) return 1;
    fill(find("tokens"));
    fill(find("targets"));
    for (const struct tensor *t = tensors; t->name; t++)
        if (!strcmp(t->role, "parameter")) fill(t);
    const struct tensor *squares = find("squares");
    for (int step = 1; step <= 5; step++) {
        forward(arena);
        backward(arena, 0);
        gradient_norm(arena);
        double norm = 0;
        for (i64 i = 0; i < squares->elements; i++) norm += ((double *)(arena + squares->offset))[i];
        norm = sqrt(norm);
        update(arena, 1e-3f, norm > 1 ? (float)(1 / norm) : 1, step);
        printf("%.9g\n", *(float *)(arena + find("loss")->offset));
    }
    return 0;
}
