// Value: see value.h.

#include "store/value.h"

#include <string.h>
#include <zstd.h>

#include "core/base/hash.h"
#include "core/io/blob.h"
#include "store/store.h"

bool value_is_file(const struct value *value)
{
    return value->form == VALUE_FILE || value->form == VALUE_FILE_ZSTD;
}

bool value_parse(const void *bytes, size_t length, struct value *ret)
{
    const uint8_t *at = bytes;
    struct value value = {0};

    if (length < VALUE_HEADER || at[0] > VALUE_FILE_ZSTD)
        return false;
    value.form = (enum value_form)at[0];
    memcpy(&value.check, at + 1, 8);
    if (value_is_file(&value)) {
        if (length != VALUE_FILE_BYTES)
            return false;
        memcpy(&value.plain_bytes, at + VALUE_HEADER, 8);
        memcpy(&value.stored_bytes, at + VALUE_HEADER + 8, 8);
        memcpy(&value.file, at + VALUE_HEADER + 16, 8);
        if (value.form == VALUE_FILE && value.plain_bytes != value.stored_bytes)
            return false;
    } else if (value.form == VALUE_INLINE_ZSTD) {
        if (length < VALUE_HEADER + 8)
            return false;
        memcpy(&value.plain_bytes, at + VALUE_HEADER, 8);
        value.data = at + VALUE_HEADER + 8;
        value.stored_bytes = length - VALUE_HEADER - 8;
    } else if (value.form == VALUE_FILE_BY_KEY) {
        if (length != VALUE_HEADER + 8)
            return false;
        memcpy(&value.plain_bytes, at + VALUE_HEADER, 8);
        value.stored_bytes = value.plain_bytes;
    } else {
        value.data = at + VALUE_HEADER;
        value.plain_bytes = value.stored_bytes = length - VALUE_HEADER;
    }
    *ret = value;
    return true;
}

size_t value_length(const struct value *value)
{
    if (value_is_file(value))
        return VALUE_FILE_BYTES;
    return VALUE_HEADER + (value->form == VALUE_INLINE_ZSTD ? 8u : 0u) + value->stored_bytes;
}

void value_write(const struct value *value, uint8_t *to)
{
    to[0] = (uint8_t)value->form;
    memcpy(to + 1, &value->check, 8);
    to += VALUE_HEADER;
    if (value_is_file(value)) {
        memcpy(to, &value->plain_bytes, 8);
        memcpy(to + 8, &value->stored_bytes, 8);
        memcpy(to + 16, &value->file, 8);
        return;
    }
    if (value->form == VALUE_INLINE_ZSTD) {
        memcpy(to, &value->plain_bytes, 8);
        to += 8;
    }
    if (value->stored_bytes > 0)
        memcpy(to, value->data, value->stored_bytes);
}

bool value_pays(uint64_t plain_bytes, uint64_t stored_bytes)
{
    return stored_bytes <= plain_bytes - plain_bytes / 10;
}

bool value_is_compressible(const uint8_t *data, uint64_t bytes)
{
    uint8_t packed[ZSTD_COMPRESSBOUND(VALUE_PROBE_BYTES)];

    if (bytes <= VALUE_PROBE_BYTES)
        return true;    // it costs no more to try
    uint64_t from = (bytes - VALUE_PROBE_BYTES) / 2;
    size_t length = ZSTD_compress(packed, sizeof packed, data + from, VALUE_PROBE_BYTES, VALUE_ZSTD_LEVEL);
    return ZSTD_isError(length) == 0 && value_pays(VALUE_PROBE_BYTES, length);
}

enum dj_error value_unpack(const struct value *value, struct blob **ret)
{
    bool is_packed = value->form == VALUE_INLINE_ZSTD;

    if (is_packed && (value->plain_bytes > STORE_INLINE_BYTES ||
                      ZSTD_getFrameContentSize(value->data, value->stored_bytes) != value->plain_bytes))
        return DJ_E_STORE_CORRUPT;
    if (!is_packed && value->form != VALUE_INLINE)
        return DJ_E_STORE_CORRUPT;
    struct blob *blob = is_packed ? blob_make(value->plain_bytes) : blob_copy(value->data, value->stored_bytes);
    if (blob == NULL)
        return DJ_E_NO_MEMORY;
    bool is_good = !is_packed ||
                   ZSTD_decompress(blob->data, blob->bytes, value->data, value->stored_bytes) == (size_t)value->plain_bytes;
    if (!is_good || hash64(blob->data, blob->bytes) != value->check) {
        blob_drop(blob);
        return DJ_E_STORE_CORRUPT;
    }
    *ret = blob;
    return DJ_OK;
}
