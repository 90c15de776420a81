// Journal records from anywhere: an error, or a record that is written and read again as the same bytes.

#include "core/base/assert.h"
#include "core/lineage/record.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct record_scratch scratch, scratch_again;
    if (scratch.keep == NULL) {
        enum dj_error made = record_scratch_make(&scratch);
        if (made == DJ_OK)
            made = record_scratch_make(&scratch_again);
        assert(made == DJ_OK);
    }
    struct reader reader = reader_make(data, size);
    static struct record record, again;
    for (int i = 0; i < 8 && record_read(&reader, &scratch, &record) == DJ_OK; i++) {
        struct writer first = writer_make(RECORD_BYTES_MAX), second = writer_make(RECORD_BYTES_MAX);
        record_write(&first, &record);
        assert(first.error == DJ_OK);
        struct reader own = reader_make(first.data, first.length);
        enum dj_error error = record_read(&own, &scratch_again, &again);
        assert(error == DJ_OK && reader_left(&own) == 0);
        record_write(&second, &again);
        assert(first.length == second.length && memcmp(first.data, second.data, first.length) == 0);
        writer_free(&first);
        writer_free(&second);
    }
    return 0;
}
