/* A trainer around the emitted file: reads one batch and the parameters from standard input, makes
 * five steps of AdamW with the gradient clipped at norm 1, and prints each loss. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "step.c"

int main(void) {
    char *arena = calloc(ARENA_BYTES, 1);
    const float *loss = NULL;
    double *controls = NULL;
    for (const struct tensor *t = tensors; arena && t->name; t++) {
        char *at = arena + t->offset;
        const int is_input = !strcmp(t->name, "tokens") || !strcmp(t->name, "targets");
        if (is_input || !strcmp(t->role, "parameter"))
            if (fread(at, 4, t->elements, stdin) != (size_t)t->elements) return 1;
        if (!strcmp(t->name, "loss")) loss = (float *)at;
        if (!strcmp(t->name, "controls")) controls = (double *)at;
    }
    for (int step = 1; loss && controls && step <= 5; step++) {
        const double now[] = {1e-3, step, 1};
        memcpy(controls, now, sizeof now);
        forward(arena);
        backward(arena, 0);
        gradient_norm(arena);
        update(arena);
        printf("%.9g\n", *loss);
    }
}
