// Deltas from anywhere, on a history of 0, 1 and 2 vectors: an error, or a vector whose own delta decodes to it.

#include "core/base/assert.h"
#include "core/srg/bindings.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct binding_history history;
    history_init(&history, data[0] % WORDS_MAX);
    struct reader reader = reader_make(data + 1, size - 1);
    int64_t word[WORDS_MAX], back[WORDS_MAX];
    struct writer writer = writer_make(1 << 16);
    for (int round = 0; round < 6 && bindings_decode(&history, &reader, word) == DJ_OK; round++) {
        writer_reset(&writer);
        bindings_encode(&history, word, &writer);
        struct reader own = reader_make(writer.data, writer.length);
        enum dj_error error = bindings_decode(&history, &own, back);
        assert(error == DJ_OK && reader_left(&own) == 0);
        assert(memcmp(word, back, history.words * sizeof word[0]) == 0);
        error = history_push(&history, word);
        assert(error == DJ_OK);
    }
    writer_free(&writer);
    history_free(&history);
    return 0;
}
