// History: delta coding of binding vectors. A step of a generation changes few numbers, and those that change mostly grow by the same
// amount each time, so a word is predicted from the two vectors before it and only what was predicted wrongly is written.
//
// Format: tokens, each a varint `gap * 4 + form`; `gap` words were predicted well, then by form
//   0  one word: zigzag varint of (word - prediction)
//   1  a varint count, then so many words, each like in form 0
//   2  a varint count, then so many words of 8 bytes: for hashes, whose difference would take 10
//   3  the end; gap is 0, all other words were predicted well
// A vector that was predicted as a whole is one byte. All arithmetic wraps.

#include "core/srg/bindings.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

enum form { FORM_ONE = 0, FORM_RUN = 1, FORM_RAW = 2, FORM_END = 3 };

enum { FORM_BITS = 2, VARINT_WIDE_BITS = 56 };    // a difference of more bits is shorter raw

void history_init(struct binding_history *history, uint32_t words)
{
    *history = (struct binding_history){.words = words};
}

void history_free(struct binding_history *history)
{
    free(history->last);
    free(history->before);
    *history = (struct binding_history){.words = history->words};
}

void history_reset(struct binding_history *history)
{
    history->depth = 0;
}

enum dj_error history_push(struct binding_history *history, const int64_t *word)
{
    size_t bytes = (history->words == 0 ? 1 : history->words) * sizeof *word;
    if (history->last == NULL)
        history->last = malloc(bytes);
    if (history->before == NULL)
        history->before = malloc(bytes);
    if (history->last == NULL || history->before == NULL)
        return DJ_E_NO_MEMORY;
    int64_t *oldest = history->before;
    history->before = history->last;
    history->last = oldest;
    if (history->words != 0)
        memcpy(history->last, word, history->words * sizeof *word);
    if (history->depth < 2)
        history->depth++;
    return DJ_OK;
}

static inline uint64_t predict(const struct binding_history *history, uint32_t i)
{
    switch (history->depth) {
    case 0: return 0;
    case 1: return (uint64_t)history->last[i];
    default: return 2 * (uint64_t)history->last[i] - (uint64_t)history->before[i];
    }
}

static bool is_wide(uint64_t difference)
{
    uint64_t magnitude = difference >> 63 ? ~difference : difference;
    return magnitude >> (VARINT_WIDE_BITS - 1) != 0;
}

static void write_run(const struct binding_history *history, const int64_t *word, uint32_t gap, uint32_t first, uint32_t count,
                      bool is_raw, struct writer *writer)
{
    if (is_raw || count > 1) {
        write_var(writer, (uint64_t)gap << FORM_BITS | (is_raw ? FORM_RAW : FORM_RUN));
        write_var(writer, count);
    } else {
        write_var(writer, (uint64_t)gap << FORM_BITS | FORM_ONE);
    }
    for (uint32_t i = first; i < first + count; i++) {
        if (is_raw)
            write_u64(writer, (uint64_t)word[i]);
        else
            write_zig(writer, (int64_t)((uint64_t)word[i] - predict(history, i)));
    }
}

void bindings_encode(const struct binding_history *history, const int64_t *word, struct writer *writer)
{
    uint32_t gap = 0;
    for (uint32_t i = 0; i < history->words;) {
        uint64_t difference = (uint64_t)word[i] - predict(history, i);
        if (difference == 0) {
            gap++;
            i++;
            continue;
        }
        bool is_raw = is_wide(difference);
        uint32_t first = i++;
        while (i < history->words) {
            difference = (uint64_t)word[i] - predict(history, i);
            if (difference == 0 || is_wide(difference) != is_raw)
                break;
            i++;
        }
        write_run(history, word, gap, first, i - first, is_raw, writer);
        gap = 0;
    }
    write_var(writer, FORM_END);
}

enum dj_error bindings_decode(const struct binding_history *history, struct reader *reader, int64_t *word)
{
    for (uint32_t i = 0; i < history->words; i++)
        word[i] = (int64_t)predict(history, i);
    for (uint32_t at = 0;;) {
        uint64_t token = read_var(reader);
        enum form form = token & ((1u << FORM_BITS) - 1);
        uint64_t gap = token >> FORM_BITS;
        if (reader->error != DJ_OK || gap > history->words - at)
            return DJ_E_BINDINGS_INVALID;
        if (form == FORM_END)
            return gap == 0 ? DJ_OK : DJ_E_BINDINGS_INVALID;
        at += (uint32_t)gap;
        uint64_t count = form == FORM_ONE ? 1 : read_var(reader);
        if (count == 0 || count > history->words - at)
            return DJ_E_BINDINGS_INVALID;
        for (uint32_t end = at + (uint32_t)count; at < end; at++) {
            if (form == FORM_RAW)
                word[at] = (int64_t)read_u64(reader);
            else
                word[at] = (int64_t)((uint64_t)word[at] + (uint64_t)read_zig(reader));
        }
        if (reader->error != DJ_OK)
            return DJ_E_BINDINGS_INVALID;
    }
}
