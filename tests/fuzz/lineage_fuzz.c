// A session's records from anywhere, each behind its length (two bytes): whatever is taken is planned, encoded, explained and trimmed.
// The first byte names what is needed; a record that could be damaged anywhere must at worst be one that cannot be replayed.

#include "core/base/assert.h"
#include "core/lineage/recovery.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool any_leaf(void *context, struct hash128 content)
{
    (void)context;
    return content.lo & 1;
}

static enum dj_error count(void *context, const struct record *record, const uint8_t *bytes, size_t length)
{
    uint32_t *visits = context;
    assert((bytes == NULL) == (length == 0) && record->kind != RECORD_PLAN);
    (*visits)++;
    return DJ_OK;
}

static void plan(struct recovery *recovery, uint64_t target)
{
    struct recovery_options options = {.target = target, .allows_close = true};
    struct recovery_sum sum;
    struct fault fault = {0};
    struct writer writer = writer_make(1 << 24);
    enum dj_error error = recovery_plan(recovery, &options, any_leaf, NULL, &sum, &fault);
    assert(error == DJ_OK || (error == fault.code && fault.text[0] != '\0'));
    uint32_t from = 0, steps;
    while (error == DJ_OK && from < sum.steps) {
        error = recovery_encode(recovery, &from, 4096, &writer, &steps);
        assert(error == DJ_OK);
    }
    writer_free(&writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { SESSION = 17 };
    ops_init();
    struct recovery *recovery = NULL;
    enum dj_error error = recovery_make(SESSION, &recovery);
    assert(error == DJ_OK);
    uint64_t needed = size > 0 ? data[0] : 0;
    for (size_t at = size > 0; at + 2 <= size;) {
        size_t length = data[at] | (size_t)data[at + 1] << 8;
        at += 2;
        if (length > size - at)
            length = size - at;
        error = recovery_add(recovery, data + at, length);
        assert(error == DJ_OK || error == DJ_E_MALFORMED || error == DJ_E_INVALID || error == DJ_E_LIMIT);
        at += length;
    }
    for (uint32_t output = 0; output < 2; output++) {
        error = recovery_need(recovery, (struct record_ref){.counter = needed, .output = output});
        assert(error == DJ_OK);
    }
    error = recovery_add_location(recovery, (struct record_ref){.counter = needed / 2}, 2);
    assert(error == DJ_OK);
    plan(recovery, 1);
    plan(recovery, 0);
    struct writer json = writer_make(1 << 24);
    error = recovery_explain(recovery, (struct record_ref){.counter = needed}, &json);
    assert(error == DJ_OK);
    writer_free(&json);
    uint32_t visits = 0;
    error = recovery_trim(recovery, count, &visits);
    assert(error == DJ_OK);
    recovery_free(recovery);
    return 0;
}
