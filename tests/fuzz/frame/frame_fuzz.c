// Fuzz: bytes as they come from a stream. The first byte cuts the rest into pieces; what the frame reader lets through is decoded as what it says
// it is. Nothing may crash, and what was decoded must be encoded and decoded again as the same thing.

#include "core/base/arena.h"
#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/link/frame_reader.h"

#include <string.h>

enum { ARENA_BYTES = 1 << 20, BULK_BUDGET_BYTES = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

// Decodes a body as a message of its kind: with fresh checksums, so that the fuzzer gets past them.
static void decode(uint16_t message, const void *body, size_t bytes, struct arena *arena)
{
    enum dj_error error = DJ_OK;
    switch (message) {
#define MESSAGE(number, NAME, name) \
    case number: { \
        struct wire_##name decoded; \
        error = wire_##name##_decode(body, bytes, arena, &decoded); \
        struct blob *once = error == DJ_OK ? wire_##name##_encode(&decoded) : NULL; \
        if (once != NULL && wire_##name##_decode(once->data, once->bytes, arena, &decoded) == DJ_OK) { \
            struct blob *twice = wire_##name##_encode(&decoded); \
            assert(twice == NULL || (once->bytes == twice->bytes && memcmp(once->data, twice->data, once->bytes) == 0)); \
            blob_drop(twice); \
        } \
        blob_drop(once); \
        break; \
    }
#define END(NAME, name)
#define RECORD(name)
#define RECORD_END(name)
#define U8(f)
#define U32(f)
#define U64(f)
#define I64(f)
#define F64(f)
#define BOOL(f)
#define HASH(f)
#define TEXT(f, max)
#define BYTES(f, max)
#define LIST(record, f, max)
#include "core/wire/messages.def"
    default: break;
    }
    assert(error == DJ_OK || error == DJ_E_FRAME_TRUNCATED || error == DJ_E_MALFORMED || error == DJ_E_NO_MEMORY);
}

static void read_stream(const uint8_t *data, size_t bytes, size_t piece, struct arena *arena)
{
    struct frame_reader reader;
    frame_reader_init(&reader, BULK_BUDGET_BYTES);
    enum dj_error error = DJ_OK;
    while (bytes > 0 && error == DJ_OK) {
        size_t left = bytes < piece ? bytes : piece;
        bytes -= left;
        while (left > 0 && error == DJ_OK) {
            struct link_message message;
            error = frame_reader_feed(&reader, &data, &left, &message);
            if (message.message != 0) {
                decode(message.message, message.body->data, message.body->bytes, arena);
                blob_drop(message.body);
                blob_drop(message.bulk);
            }
        }
    }
    frame_reader_free(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct arena *arena = NULL;
    if (bytes < 3 || arena_make(4096, ARENA_BYTES, &arena) != DJ_OK)
        return 0;
    read_stream(data + 1, bytes - 1, (size_t)data[0] + 1, arena);
    arena_reset(arena);
    decode((uint16_t)(data[0] | data[1] << 8), data + 2, bytes - 2, arena);
    decode(data[0], data + 2, bytes - 2, arena);
    arena_free(arena);
    return 0;
}
