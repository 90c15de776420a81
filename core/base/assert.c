// Assert: says which claim broke and where, then aborts, so that a core dump shows the state that broke it.

#include "core/base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void assert_failed(const char *claim, const char *file, int line)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: this must hold and does not: %s\n", file, line, claim);
    fflush(stderr);
    abort();
}
