// The bug that this process has: DJINN_PLANTED names it, or planted_test.c sets it.

#include "core/base/planted.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum planted_bug planted_bug;

__attribute__((constructor)) static void plant(void)
{
#define BUG(name, tests, text) #name,
    static const char *const names[] = {"NONE", PLANTED_LIST(BUG)};
#undef BUG
    const char *wanted = getenv("DJINN_PLANTED");
    if (wanted == NULL)
        return;
    for (uint32_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], wanted) == 0) {
            planted_bug = (enum planted_bug)i;
            return;
        }
    fprintf(stderr, "no planted bug is called %s\n", wanted);
    abort();
}
