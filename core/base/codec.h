// Codec: the writer and reader of bytes on wires and disks. Little-endian; integers as varints (LEB128; signed ones zigzag).
//
// Both are sticky: after the first failure every call does nothing (writer) or gives zeros (reader), and the error is asked
// once, at the end. A reader never reads past its end, whatever the bytes say.

#ifndef CORE_BASE_CODEC_H
#define CORE_BASE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/base/hash.h"

struct writer {
    uint8_t *data;          // malloc'd; grows up to limit
    size_t length, capacity, limit;
    enum dj_error error;    // DJ_OK, DJ_E_NO_MEMORY or DJ_E_FRAME_OVERSIZED
};

struct writer writer_make(size_t limit_bytes);
void writer_free(struct writer *writer);
void writer_reset(struct writer *writer);                                    // keeps the memory
void *writer_reserve(struct writer *writer, size_t bytes);                   // appends `bytes` uninitialised; NULL on failure
void write_u8(struct writer *writer, uint8_t value);
void write_u32(struct writer *writer, uint32_t value);                       // 4 bytes, fixed
void write_u64(struct writer *writer, uint64_t value);                       // 8 bytes, fixed
void write_var(struct writer *writer, uint64_t value);
void write_zig(struct writer *writer, int64_t value);
void write_hash(struct writer *writer, struct hash128 hash);                 // 16 bytes: hi, lo
void write_raw(struct writer *writer, const void *data, size_t bytes);       // no length
void write_bytes(struct writer *writer, const void *data, size_t bytes);     // varint length, then the bytes
void write_text(struct writer *writer, const char *text);                    // as bytes; NULL is written as ""

struct reader {
    const uint8_t *at, *end;
    enum dj_error error;    // DJ_OK, DJ_E_FRAME_TRUNCATED or DJ_E_MALFORMED
};

struct reader reader_make(const void *data, size_t bytes);
void reader_fail(struct reader *reader, enum dj_error error);                // for checks by callers; the first error stays
size_t reader_left(const struct reader *reader);
uint8_t read_u8(struct reader *reader);
uint32_t read_u32(struct reader *reader);
uint64_t read_u64(struct reader *reader);
uint64_t read_var(struct reader *reader);                                    // refuses encodings over 10 bytes or 64 bits
uint64_t read_var_max(struct reader *reader, uint64_t max);                  // DJ_E_MALFORMED above max
int64_t read_zig(struct reader *reader);
struct hash128 read_hash(struct reader *reader);
const void *read_raw(struct reader *reader, size_t bytes);                   // points into the input; NULL on failure
const void *read_bytes(struct reader *reader, size_t max, size_t *ret_bytes);  // on failure NULL and 0 bytes
// Copies a string into text[capacity], NUL-terminated. DJ_E_MALFORMED if too long, if it has a NUL inside or is not UTF-8.
void read_text(struct reader *reader, char *text, size_t capacity);

#endif
