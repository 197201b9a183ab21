/* A trainer around the emitted file: reads one batch and the parameters from standard input, makes
 * five steps of AdamW with the gradient clipped at norm 1, and prints each loss. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "step.c"

int main(void) {
    char *arena = calloc(ARENA_BYTES, 1);
    const float *loss = NULL;
    const double *squares = NULL, *end = NULL;
    for (const struct tensor *t = tensors; arena && t->name; t++) {
        char *at = arena + t->offset;
        const int is_input = !strcmp(t->name, "tokens") || !strcmp(t->name, "targets");
        if (is_input || !strcmp(t->role, "parameter"))
            if (fread(at, 4, t->elements, stdin) != (size_t)t->elements) return 1;
        if (!strcmp(t->name, "loss")) loss = (float *)at;
        if (!strcmp(t->name, "squares")) end = (squares = (double *)at) + t->elements;
    }
    for (int step = 1; loss && squares && step <= 5; step++) {
        forward(arena);
        backward(arena, 0);
        gradient_norm(arena);
        double norm = 0;
        for (const double *s = squares; s < end; s++) norm += *s;
        update(arena, 1e-3f, norm > 1 ? (float)(1 / sqrt(norm)) : 1, step);
        printf("%.9g\n", *loss);
    }
}
