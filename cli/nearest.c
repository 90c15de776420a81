// Nearest: Levenshtein distance over words of a bounded length. The manual is nearest.h.

#include "cli/nearest.h"

#include <stdbool.h>
#include <string.h>

enum { WORD_MAX = 32, DISTANCE_MAX = 2 };

static size_t distance_of(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1], length = strlen(b);

    if (length > WORD_MAX || strlen(a) > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= length; j++) {
            size_t above = row[j], best = corner + (a[i - 1] != b[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            corner = above;
            row[j] = best;
        }
    }
    return row[length];
}

struct nearest nearest_make(const char *word)
{
    return (struct nearest){.word = word, .distance = DISTANCE_MAX + 1};
}

// Two edits turn any word of two letters into any other: a candidate must share at least half of what was written.
void nearest_try(struct nearest *nearest, const char *candidate)
{
    size_t distance = distance_of(nearest->word, candidate);

    if (distance < nearest->distance && distance * 2 <= strlen(nearest->word)) {
        nearest->best = candidate;
        nearest->distance = distance;
    }
}
