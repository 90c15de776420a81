// Value: what stands in LMDB behind a key: 1 byte of form, 8 bytes of the plain bytes' XXH3, then by form:
//
//   VALUE_INLINE         the bytes
//   VALUE_INLINE_ZSTD    8 bytes of plain length, a zstd frame
//   VALUE_FILE[_ZSTD]    8 bytes each of plain length, stored length, the file's number
//
// A length is believed only if the zstd frame, or the file's size, says the same: so a flipped bit anywhere is noticed before it asks for
// memory. Pure; used by the store's thread and by who reads a store beside it.

#ifndef STORE_VALUE_H
#define STORE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct blob;

// Numbers are on disk: never reused.
enum value_form {
    VALUE_INLINE = 0,
    VALUE_FILE_BY_KEY = 1,    // schema 1 only: 8 bytes of length; the file was named after the key
    VALUE_INLINE_ZSTD = 2,
    VALUE_FILE = 3,
    VALUE_FILE_ZSTD = 4,
};

enum { VALUE_HEADER = 9, VALUE_FILE_BYTES = VALUE_HEADER + 24, VALUE_ZSTD_LEVEL = 1, VALUE_PROBE_BYTES = 16 << 10 };

struct value {
    enum value_form form;
    uint64_t check;                     // XXH3 of the plain bytes
    uint64_t plain_bytes, stored_bytes;
    uint64_t file;                      // FILE forms
    const uint8_t *data;                // INLINE forms: points into what was parsed
};

bool value_parse(const void *bytes, size_t length, struct value *ret);    // false: no value of ours
size_t value_length(const struct value *value);                           // in LMDB
void value_write(const struct value *value, uint8_t *to);                 // value_length bytes
bool value_is_file(const struct value *value);

// Whether a tenth or more would be saved, by a part of it, so that weights, which do not compress, cost little.
bool value_is_compressible(const uint8_t *data, uint64_t bytes);
bool value_pays(uint64_t plain_bytes, uint64_t stored_bytes);

// The plain bytes of an INLINE form, checked. DJ_E_STORE_CORRUPT, DJ_E_NO_MEMORY.
DJ_MUST_USE enum dj_error value_unpack(const struct value *value, struct blob **ret);

#endif
