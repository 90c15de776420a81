// Wire: every message between processes: one table (messages.def), one codec, one frame format, one version.
//
// Frame (little-endian, 40 bytes of header):
//   magic u32 "DJN1", version u16, message u16, body_bytes u32, number u32, bulk_bytes u64,
//   body_check u64 (XXH3 of the header before it and of the body), bulk_check u64 (XXH3 of the bulk; 0 when there is none)
// then the body, then the bulk. The body is what messages.def describes; the bulk is tensor bytes. `number` counts the frames of one direction of one
// link from 0: a frame that is missing, comes twice or out of its turn is as corrupt as one whose bytes changed, and ends the link.

#ifndef CORE_WIRE_WIRE_H
#define CORE_WIRE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/codec.h"
#include "core/base/error.h"
#include "core/base/hash.h"

struct blob;

enum {
    WIRE_VERSION = 3,
    WIRE_HEADER_BYTES = 40,
    WIRE_BODY_MAX = 20 << 20,           // the largest body of any message; each kind has its own, smaller bound where that is enough
    WIRE_INLINE_BYTES = 1024,           // values up to this size travel in the body
    WIRE_CHUNK_BYTES = 4 << 20,         // leaves travel in bulks of at most this
};
#define WIRE_BULK_MAX ((uint64_t)1 << 33)   // one answered value: 8 GiB

enum wire_role { ROLE_CLIENT = 1, ROLE_WORKER = 2, ROLE_HEAD = 3, ROLE_ADMIN = 4 };
enum wire_admit_flag { ADMIT_SYNC = 1 };    // ADMIT.flags

enum wire_message {
#define MESSAGE(number, NAME, name) WIRE_##NAME = number,
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

#define MESSAGE(number, NAME, name) struct wire_##name {
#define END(NAME, name) };
#define RECORD(name) struct wire_##name {
#define RECORD_END(name) };
#define U8(f) uint8_t f;
#define U32(f) uint32_t f;
#define U64(f) uint64_t f;
#define I64(f) int64_t f;
#define F64(f) double f;
#define BOOL(f) bool f;
#define HASH(f) struct hash128 f;
#define TEXT(f, max) char f[max];
#define BYTES(f, max) const uint8_t *f; uint32_t f##_bytes;
#define LIST(record, f, max) const struct wire_##record *f; uint32_t f##_count;
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

const char *wire_name(uint16_t message);                    // "EXECUTE"; "?" for unknown numbers
uint32_t wire_body_max(uint16_t message);                   // the longest body its fields allow, at most WIRE_BODY_MAX; 0 for unknown numbers
uint64_t wire_bulk_max(uint16_t message);                   // the longest bulk: 0 for all but the messages that carry tensor bytes

// For every message: struct blob *wire_<name>_encode(const struct wire_<name> *) gives the body as a new blob (NULL: out of memory or over a
// bound, which a debug log line names), and wire_<name>_decode reads a body whose frame was verified; lists and nothing else go into `arena`,
// BYTES point into the body, which the caller keeps meanwhile. DJ_E_MALFORMED, DJ_E_FRAME_TRUNCATED, DJ_E_NO_MEMORY.
#define MESSAGE(number, NAME, name) \
    struct blob *wire_##name##_encode(const struct wire_##name *message); \
    DJ_MUST_USE enum dj_error wire_##name##_decode(const void *body, size_t bytes, struct arena *arena, struct wire_##name *ret);
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

struct wire_header {
    uint16_t version, message;
    uint32_t body_bytes, number;
    uint64_t bulk_bytes, body_check, bulk_check;
};

void wire_header_write(uint8_t header[WIRE_HEADER_BYTES], uint32_t number, uint16_t message, const void *body, uint32_t body_bytes,
                       const void *bulk, uint64_t bulk_bytes);
// Gives a header that was written another number.
void wire_header_number(uint8_t header[WIRE_HEADER_BYTES], uint32_t number, const void *body, uint32_t body_bytes);
// Magic, version, known message, bounds. DJ_E_FRAME_CORRUPT (magic), DJ_E_VERSION, DJ_E_FRAME_UNKNOWN, DJ_E_FRAME_OVERSIZED.
DJ_MUST_USE enum dj_error wire_header_read(const uint8_t header[WIRE_HEADER_BYTES], struct wire_header *ret);
bool wire_body_is_intact(const uint8_t header[WIRE_HEADER_BYTES], const struct wire_header *parsed, const void *body);

#endif
