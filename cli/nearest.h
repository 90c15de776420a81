// Nearest: which of the words that there are was probably meant by one that there is not.

#ifndef CLI_NEAREST_H
#define CLI_NEAREST_H

#include <stddef.h>

struct nearest {
    const char *word;       // as written
    const char *best;       // the nearest candidate so far; NULL: none is near
    size_t distance;        // edits to it
};

struct nearest nearest_make(const char *word);
void nearest_try(struct nearest *nearest, const char *candidate);      // kept when it is the best; must outlive *nearest

#endif
