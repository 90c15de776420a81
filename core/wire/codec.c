// Codec: messages.def expanded five times: the longest encoding, the names, sizes, encoders, decoders. The manual is wire.h.
//
// Encoding measures first, so that the body is allocated once, at its size, and written without a copy. Decoding is strict: a body must
// end exactly where its fields do, so any cut and any surplus is noticed.

#include "core/wire/wire.h"

#include "core/base/assert.h"
#include "core/base/log.h"
#include "core/io/blob.h"

#include <string.h>

enum { VAR32_MAX = 5, VAR64_MAX = 10 };

// The table may have records and field kinds that no message uses yet.
#define ROW static __attribute__((unused))

// The longest encoding of each record and message. A list's length and a byte string's length are varints below 2^32.
enum {
#define MESSAGE(number, NAME, name) LONGEST_##name = 0
#define END(NAME, name) ,
#define RECORD(name) LONGEST_##name = 0
#define RECORD_END(name) ,
#define U8(f) +1
#define U32(f) +VAR32_MAX
#define U64(f) +VAR64_MAX
#define I64(f) +VAR64_MAX
#define F64(f) +8
#define BOOL(f) +1
#define HASH(f) +16
#define TEXT(f, max) +VAR32_MAX + (max)
#define BYTES(f, max) +VAR32_MAX + (max)
#define LIST(record, f, max) +VAR32_MAX + (max)*LONGEST_##record
#include "core/wire/messages.def"
#undef MESSAGE
#undef END
#undef RECORD
#undef RECORD_END
#undef U8
#undef U32
#undef U64
#undef I64
#undef F64
#undef BOOL
#undef HASH
#undef TEXT
#undef BYTES
#undef LIST
};

// Names and bounds: only the messages matter.
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

const char *wire_name(uint16_t message)
{
    switch (message) {
#define MESSAGE(number, NAME, name) \
    case number: \
        return #NAME;
#include "core/wire/messages.def"
#undef MESSAGE
    default: return "?";
    }
}

uint32_t wire_body_max(uint16_t message)
{
    switch (message) {
#define MESSAGE(number, NAME, name) \
    case number: \
        return (uint32_t)LONGEST_##name < (uint32_t)WIRE_BODY_MAX ? (uint32_t)LONGEST_##name : (uint32_t)WIRE_BODY_MAX;
#include "core/wire/messages.def"
#undef MESSAGE
    default: return 0;
    }
}

#undef END
#undef RECORD
#undef RECORD_END
#undef U8
#undef U32
#undef U64
#undef I64
#undef F64
#undef BOOL
#undef HASH
#undef TEXT
#undef BYTES
#undef LIST

// Size -------------------------------------------------------------------------------------------------------------------

// SIZE_OVER marks a field over its bound; it is large enough to stay marked through every sum and small enough not to wrap.
#define SIZE_OVER ((size_t)1 << 48)

static size_t var_bytes(uint64_t value)
{
    return (size_t)(64 - __builtin_clzll(value | 1) + 6) / 7;
}

static size_t zig_bytes(int64_t value)
{
    return var_bytes((uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0));
}

static size_t text_bytes(const char *text, size_t max)
{
    size_t length = strnlen(text, max);
    return length == max ? SIZE_OVER : var_bytes(length) + length;
}

static size_t bytes_bytes(uint32_t length, size_t max)
{
    return length > max ? SIZE_OVER : var_bytes(length) + length;
}

#define BEGIN_SIZE(name) \
    ROW size_t size_##name(const struct wire_##name *m) \
    { \
        size_t size = 0;
#define END_SIZE \
    return size; \
    }
#define MESSAGE(number, NAME, name) BEGIN_SIZE(name)
#define END(NAME, name) END_SIZE
#define RECORD(name) BEGIN_SIZE(name)
#define RECORD_END(name) END_SIZE
#define U8(f) size += 1;
#define U32(f) size += var_bytes(m->f);
#define U64(f) size += var_bytes(m->f);
#define I64(f) size += zig_bytes(m->f);
#define F64(f) size += 8;
#define BOOL(f) size += 1;
#define HASH(f) size += 16;
#define TEXT(f, max) size += text_bytes(m->f, max);
#define BYTES(f, max) size += bytes_bytes(m->f##_bytes, max);
#define LIST(record, f, max) \
    size += var_bytes(m->f##_count); \
    if (m->f##_count > (max)) \
        return SIZE_OVER; \
    for (uint32_t i = 0; i < m->f##_count; i++) \
        size += size_##record(&m->f[i]);
#include "core/wire/messages.def"
#undef MESSAGE
#undef END
#undef RECORD
#undef RECORD_END
#undef U8
#undef U32
#undef U64
#undef I64
#undef F64
#undef BOOL
#undef HASH
#undef TEXT
#undef BYTES
#undef LIST

// Encoding ---------------------------------------------------------------------------------------------------------------

ROW void put_f64(struct writer *writer, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    write_u64(writer, bits);
}

// A record's put function; for a message also its encoder.
#define BEGIN_PUT(name) \
    ROW void put_##name(struct writer *writer, const struct wire_##name *m) \
    {
#define END_ENCODE(NAME, name) \
    } \
    struct blob *wire_##name##_encode(const struct wire_##name *message) \
    { \
        size_t size = size_##name(message); \
        if (size > wire_body_max(WIRE_##NAME)) { \
            log_write(LOG_DEBUG, "wire", "not encoded: a field is over its bound message=%s", #NAME); \
            return NULL; \
        } \
        struct blob *body = blob_make(size); \
        if (body == NULL) \
            return NULL; \
        struct writer writer = {.data = body->data, .capacity = size, .limit = size}; \
        put_##name(&writer, message); \
        assert(writer.error == DJ_OK && writer.length == size); \
        return body; \
    }
#define MESSAGE(number, NAME, name) BEGIN_PUT(name)
#define END(NAME, name) END_ENCODE(NAME, name)
#define RECORD(name) BEGIN_PUT(name)
#define RECORD_END(name) }
#define U8(f) write_u8(writer, m->f);
#define U32(f) write_var(writer, m->f);
#define U64(f) write_var(writer, m->f);
#define I64(f) write_zig(writer, m->f);
#define F64(f) put_f64(writer, m->f);
#define BOOL(f) write_u8(writer, m->f);
#define HASH(f) write_hash(writer, m->f);
#define TEXT(f, max) write_text(writer, m->f);
#define BYTES(f, max) write_bytes(writer, m->f, m->f##_bytes);
#define LIST(record, f, max) \
    write_var(writer, m->f##_count); \
    for (uint32_t i = 0; i < m->f##_count; i++) \
        put_##record(writer, &m->f[i]);
#include "core/wire/messages.def"
#undef MESSAGE
#undef END
#undef RECORD
#undef RECORD_END
#undef U8
#undef U32
#undef U64
#undef I64
#undef F64
#undef BOOL
#undef HASH
#undef TEXT
#undef BYTES
#undef LIST

// Decoding ---------------------------------------------------------------------------------------------------------------

ROW double get_f64(struct reader *reader)
{
    uint64_t bits = read_u64(reader);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool get_bool(struct reader *reader)
{
    uint8_t value = read_u8(reader);
    if (value > 1)
        reader_fail(reader, DJ_E_MALFORMED);
    return value == 1;
}

static const uint8_t *get_bytes(struct reader *reader, size_t max, uint32_t *ret_bytes)
{
    size_t bytes = 0;
    const uint8_t *at = read_bytes(reader, max, &bytes);
    *ret_bytes = (uint32_t)bytes;
    return at;
}

// Memory for a list of `count` records, after the count was checked: every record takes at least a byte, so a short body cannot ask for
// much.
static void *get_list(struct reader *reader, struct arena *arena, uint32_t count, size_t record_bytes)
{
    if (count == 0)
        return NULL;
    if (count > reader_left(reader)) {
        reader_fail(reader, DJ_E_FRAME_TRUNCATED);
        return NULL;
    }
    void *list = arena_zero(arena, count * record_bytes);
    if (list == NULL)
        reader_fail(reader, DJ_E_NO_MEMORY);
    return list;
}

#define BEGIN_GET(name) \
    ROW void get_##name(struct reader *reader, struct arena *arena, struct wire_##name *m) \
    { \
        (void)arena;
#define END_DECODE(name) \
    } \
    enum dj_error wire_##name##_decode(const void *body, size_t bytes, struct arena *arena, struct wire_##name *ret) \
    { \
        struct reader reader = reader_make(body, bytes); \
        struct wire_##name message = {0}; \
        get_##name(&reader, arena, &message); \
        if (reader.error == DJ_OK && reader_left(&reader) != 0) \
            return DJ_E_MALFORMED; \
        if (reader.error == DJ_OK) \
            *ret = message; \
        return reader.error; \
    }
#define MESSAGE(number, NAME, name) BEGIN_GET(name)
#define END(NAME, name) END_DECODE(name)
#define RECORD(name) BEGIN_GET(name)
#define RECORD_END(name) }
#define U8(f) m->f = read_u8(reader);
#define U32(f) m->f = (uint32_t)read_var_max(reader, UINT32_MAX);
#define U64(f) m->f = read_var(reader);
#define I64(f) m->f = read_zig(reader);
#define F64(f) m->f = get_f64(reader);
#define BOOL(f) m->f = get_bool(reader);
#define HASH(f) m->f = read_hash(reader);
#define TEXT(f, max) read_text(reader, m->f, max);
#define BYTES(f, max) m->f = get_bytes(reader, max, &m->f##_bytes);
#define LIST(record, f, max) \
    { \
        uint32_t count = (uint32_t)read_var_max(reader, max); \
        struct wire_##record *list = get_list(reader, arena, count, sizeof *list); \
        for (uint32_t i = 0; list != NULL && i < count && reader->error == DJ_OK; i++) \
            get_##record(reader, arena, &list[i]); \
        m->f = list; \
        m->f##_count = list != NULL ? count : 0; \
    }
#include "core/wire/messages.def"
