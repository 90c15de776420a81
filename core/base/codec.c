// Codec: the writer grows by doubling up to its limit; the reader is two pointers. On failure the reader is moved to its end, so that
// the bounds check that every read makes anyway also makes the failure stick.

#include "core/base/codec.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <stdlib.h>
#include <string.h>

enum { WRITER_CAPACITY_FIRST = 256, VAR_BYTES_MAX = 10 };

struct writer writer_make(size_t limit_bytes)
{
    return (struct writer){.limit = limit_bytes};
}

void writer_free(struct writer *writer)
{
    free(writer->data);
    *writer = (struct writer){.limit = writer->limit};
}

void writer_reset(struct writer *writer)
{
    writer->length = 0;
    writer->error = DJ_OK;
}

static bool grow(struct writer *writer, size_t needed)
{
    size_t capacity = writer->capacity == 0 ? WRITER_CAPACITY_FIRST : writer->capacity;
    while (capacity < needed)
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    uint8_t *data = realloc(writer->data, capacity);
    if (data == NULL) {
        writer->error = DJ_E_NO_MEMORY;
        return false;
    }
    writer->data = data;
    writer->capacity = capacity;
    return true;
}

void *writer_reserve(struct writer *writer, size_t bytes)
{
    if (writer->error != DJ_OK)
        return NULL;
    if (bytes > writer->limit - writer->length) {
        writer->error = DJ_E_FRAME_OVERSIZED;
        return NULL;
    }
    // An empty writer gets memory even for 0 bytes: NULL means failure.
    if ((bytes > writer->capacity - writer->length || writer->data == NULL) && !grow(writer, writer->length + bytes))
        return NULL;
    void *at = writer->data + writer->length;
    writer->length += bytes;
    return at;
}

static void put_little(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

void write_u8(struct writer *writer, uint8_t value)
{
    uint8_t *at = writer_reserve(writer, 1);
    if (at != NULL)
        *at = value;
}

void write_u32(struct writer *writer, uint32_t value)
{
    uint8_t *at = writer_reserve(writer, 4);
    if (at != NULL)
        put_little(at, value, 4);
}

void write_u64(struct writer *writer, uint64_t value)
{
    uint8_t *at = writer_reserve(writer, 8);
    if (at != NULL)
        put_little(at, value, 8);
}

void write_var(struct writer *writer, uint64_t value)
{
    uint8_t bytes[VAR_BYTES_MAX];
    size_t length = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[length++] = (uint8_t)(value | 0x80);
    bytes[length++] = (uint8_t)value;
    write_raw(writer, bytes, length);
}

void write_zig(struct writer *writer, int64_t value)
{
    write_var(writer, (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0));
}

void write_hash(struct writer *writer, struct hash128 hash)
{
    uint8_t *at = writer_reserve(writer, 16);
    if (at != NULL) {
        put_little(at, hash.hi, 8);
        put_little(at + 8, hash.lo, 8);
    }
}

void write_raw(struct writer *writer, const void *data, size_t bytes)
{
    void *at = writer_reserve(writer, bytes);
    if (at != NULL && bytes != 0)
        memcpy(at, data, bytes);
}

void write_bytes(struct writer *writer, const void *data, size_t bytes)
{
    write_var(writer, bytes);
    write_raw(writer, data, bytes);
}

void write_text(struct writer *writer, const char *text)
{
    write_bytes(writer, text, text == NULL ? 0 : strlen(text));
}

struct reader reader_make(const void *data, size_t bytes)
{
    static const uint8_t nothing[1];
    const uint8_t *at = data == NULL ? nothing : data;
    assert(data != NULL || bytes == 0);
    return (struct reader){.at = at, .end = at + bytes};
}

void reader_fail(struct reader *reader, enum dj_error error)
{
    assert(error != DJ_OK);
    if (reader->error == DJ_OK)
        reader->error = error;
    reader->at = reader->end;
}

size_t reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

static uint64_t take_little(struct reader *reader, int bytes)
{
    const uint8_t *at = read_raw(reader, (size_t)bytes);
    uint64_t value = 0;
    if (at == NULL)
        return 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

uint8_t read_u8(struct reader *reader)
{
    return (uint8_t)take_little(reader, 1);
}

uint32_t read_u32(struct reader *reader)
{
    return (uint32_t)take_little(reader, 4);
}

uint64_t read_u64(struct reader *reader)
{
    return take_little(reader, 8);
}

uint64_t read_var(struct reader *reader)
{
    uint64_t value = 0;
    for (int i = 0; i < VAR_BYTES_MAX; i++) {
        if (reader->at == reader->end) {
            reader_fail(reader, DJ_E_FRAME_TRUNCATED);
            return 0;
        }
        uint8_t byte = *reader->at++;
        if (i == VAR_BYTES_MAX - 1 && byte > 1)    // the tenth byte has room for one bit of 64
            break;
        value |= (uint64_t)(byte & 0x7F) << (7 * i);
        if (byte < 0x80)
            return value;
    }
    reader_fail(reader, DJ_E_MALFORMED);
    return 0;
}

uint64_t read_var_max(struct reader *reader, uint64_t max)
{
    uint64_t value = read_var(reader);
    if (value <= max)
        return value;
    reader_fail(reader, DJ_E_MALFORMED);
    return 0;
}

int64_t read_zig(struct reader *reader)
{
    uint64_t value = read_var(reader);
    return (int64_t)(value >> 1 ^ (0 - (value & 1)));
}

struct hash128 read_hash(struct reader *reader)
{
    const uint8_t *at = read_raw(reader, 16);
    if (at == NULL)
        return (struct hash128){0};
    struct reader halves = reader_make(at, 16);
    uint64_t hi = read_u64(&halves);
    return (struct hash128){.hi = hi, .lo = read_u64(&halves)};
}

const void *read_raw(struct reader *reader, size_t bytes)
{
    if (reader->error != DJ_OK)
        return NULL;
    if (bytes > reader_left(reader)) {
        reader_fail(reader, DJ_E_FRAME_TRUNCATED);
        return NULL;
    }
    const void *at = reader->at;
    reader->at += bytes;
    return at;
}

const void *read_bytes(struct reader *reader, size_t max, size_t *ret_bytes)
{
    size_t bytes = (size_t)read_var_max(reader, max);
    const void *at = read_raw(reader, bytes);
    *ret_bytes = at != NULL ? bytes : 0;
    return at;
}

// How many bytes the UTF-8 character at `at` takes: 0 when it is none (overlong, surrogate, over U+10FFFF, cut, or NUL).
static size_t character_bytes(const uint8_t *at, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t bytes = at[0] < 0x80 ? 1 : at[0] >> 5 == 6 ? 2 : at[0] >> 4 == 14 ? 3 : at[0] >> 3 == 30 ? 4 : 0;
    if (bytes == 0 || bytes > left || at[0] == 0)
        return 0;
    uint32_t point = bytes == 1 ? at[0] : at[0] & (0x7Fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if (at[i] >> 6 != 2)
            return 0;
        point = point << 6 | (at[i] & 0x3F);
    }
    bool is_character = point >= least[bytes] && point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
    return is_character ? bytes : 0;
}

void read_text(struct reader *reader, char *text, size_t capacity)
{
    assert(capacity > 0);

    size_t length = 0;
    const uint8_t *bytes = read_bytes(reader, capacity - 1, &length);
    text[0] = '\0';
    if (bytes == NULL)
        return;
    for (size_t at = 0; at < length;) {
        size_t step = character_bytes(bytes + at, length - at);
        if (step == 0) {
            reader_fail(reader, DJ_E_MALFORMED);
            return;
        }
        at += step;
    }
    memcpy(text, bytes, length);
    text[length] = '\0';
}
