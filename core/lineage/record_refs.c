// References: handles of a session in a few bytes. By execution, from the latest back: a varint distance from the one before (>= 1; the
// first: from `from`), the count, then the outputs as gaps.

#include "core/base/assert.h"
#include "core/lineage/record.h"

#include <stdlib.h>

static int ref_order(const void *a, const void *b)
{
    const struct record_ref *x = a, *y = b;
    if (x->counter != y->counter)
        return x->counter > y->counter ? -1 : 1;
    return x->output < y->output ? -1 : x->output > y->output;
}

void record_refs_write(struct writer *writer, uint64_t from, struct record_ref *ref, uint32_t count)
{
    uint64_t after = from;
    if (count > 1)
        qsort(ref, count, sizeof *ref, ref_order);
    for (uint32_t i = 0, end; i < count; i = end) {
        for (end = i; end < count && ref[end].counter == ref[i].counter; end++)
            ;
        assert(ref[i].counter < after);
        write_var(writer, after - ref[i].counter);
        write_var(writer, end - i);
        uint64_t next = 0;
        for (uint32_t k = i; k < end; k++) {
            assert(ref[k].output >= next);    // each once
            write_var(writer, ref[k].output - next);
            next = (uint64_t)ref[k].output + 1;
        }
        after = ref[i].counter;
    }
}

struct record_refs record_refs_open(const uint8_t *bytes, uint32_t length, uint64_t from)
{
    return (struct record_refs){.reader = reader_make(bytes, length), .from = from, .counter = from};
}

bool record_refs_next(struct record_refs *refs, struct record_ref *ret)
{
    struct reader *reader = &refs->reader;
    if (refs->left == 0) {
        if (reader->error != DJ_OK || reader_left(reader) == 0)
            return false;
        uint64_t distance = read_var(reader);
        refs->left = (uint32_t)read_var_max(reader, RECORD_GONE_MAX);
        refs->next = 0;
        if (reader->error == DJ_OK && (distance == 0 || distance > refs->counter || refs->left == 0))
            reader_fail(reader, DJ_E_MALFORMED);
        refs->counter -= reader->error == DJ_OK ? distance : 0;
    }
    uint64_t output = refs->next + read_var_max(reader, UINT32_MAX);
    if (reader->error == DJ_OK && output >= UINT32_MAX)
        reader_fail(reader, DJ_E_MALFORMED);
    if (reader->error != DJ_OK)
        return false;
    refs->left--;
    refs->next = (uint32_t)output + 1;
    *ret = (struct record_ref){.counter = refs->counter, .output = (uint32_t)output};
    return true;
}
