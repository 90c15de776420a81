// Frame reader: header, body, bulk, each filled to its end and checked. The manual is frame_reader.h.

#include "core/link/frame_reader.h"

#include "core/base/assert.h"
#include "core/io/blob.h"

#include <string.h>

void frame_reader_init(struct frame_reader *reader, uint64_t bulk_budget_bytes)
{
    *reader = (struct frame_reader){.bulk_budget_bytes = bulk_budget_bytes};
}

void frame_reader_free(struct frame_reader *reader)
{
    blob_drop(reader->body);
    blob_drop(reader->bulk);
    reader->body = reader->bulk = NULL;
}

size_t frame_reader_span(struct frame_reader *reader, uint8_t **ret_at)
{
    switch (reader->part) {
    case FRAME_BODY: *ret_at = reader->body->data + reader->have; return reader->parsed.body_bytes - reader->have;
    case FRAME_BULK: *ret_at = reader->bulk->data + reader->have; return reader->parsed.bulk_bytes - reader->have;
    case FRAME_HEADER: break;
    }
    *ret_at = reader->header + reader->have;
    return WIRE_HEADER_BYTES - reader->have;
}

static enum dj_error end_header(struct frame_reader *reader)
{
    enum dj_error error = wire_header_read(reader->header, &reader->parsed);
    if (error != DJ_OK)
        return error;
    if (reader->parsed.bulk_bytes > reader->bulk_budget_bytes)
        return DJ_E_FRAME_OVERSIZED;
    // A stream gives every frame once, in its turn: this one did not.
    bool has_needless_check = reader->parsed.bulk_bytes == 0 && reader->parsed.bulk_check != 0;
    if (has_needless_check || reader->parsed.number != (uint32_t)reader->messages)
        return DJ_E_FRAME_CORRUPT;
    reader->body = blob_make(reader->parsed.body_bytes);
    return reader->body == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

static enum dj_error end_body(struct frame_reader *reader)
{
    if (!wire_body_is_intact(reader->header, &reader->parsed, reader->body->data)) {
        reader->checksum_failures++;
        return DJ_E_FRAME_CORRUPT;
    }
    if (reader->parsed.bulk_bytes == 0)
        return DJ_OK;
    reader->bulk = blob_make(reader->parsed.bulk_bytes);
    return reader->bulk == NULL ? DJ_E_NO_MEMORY : DJ_OK;
}

static enum dj_error end_bulk(struct frame_reader *reader)
{
    if (reader->bulk == NULL || hash64(reader->bulk->data, reader->bulk->bytes) == reader->parsed.bulk_check)
        return DJ_OK;
    reader->checksum_failures++;
    return DJ_E_FRAME_CORRUPT;
}

static size_t part_bytes(const struct frame_reader *reader)
{
    switch (reader->part) {
    case FRAME_HEADER: return WIRE_HEADER_BYTES;
    case FRAME_BODY: return reader->parsed.body_bytes;
    case FRAME_BULK: return reader->parsed.bulk_bytes;
    }
    return 0;
}

static enum dj_error end_part(struct frame_reader *reader)
{
    switch (reader->part) {
    case FRAME_HEADER: return end_header(reader);
    case FRAME_BODY: return end_body(reader);
    case FRAME_BULK: return end_bulk(reader);
    }
    return DJ_E_INTERNAL;
}

enum dj_error frame_reader_filled(struct frame_reader *reader, size_t bytes, struct link_message *ret)
{
    ret->message = 0;
    if (reader->error != DJ_OK)
        return reader->error;
    reader->have += bytes;
    assert(reader->have <= part_bytes(reader));

    while (reader->have == part_bytes(reader)) {    // parts may be empty
        reader->error = end_part(reader);
        if (reader->error != DJ_OK)
            return reader->error;
        reader->have = 0;
        if (reader->part != FRAME_BULK) {
            reader->part++;
            continue;
        }
        *ret = (struct link_message){.message = reader->parsed.message, .body = reader->body, .bulk = reader->bulk};
        reader->body = reader->bulk = NULL;
        reader->part = FRAME_HEADER;
        reader->messages++;
        return DJ_OK;
    }
    return DJ_OK;
}

enum dj_error frame_reader_feed(struct frame_reader *reader, const uint8_t **data, size_t *bytes, struct link_message *ret)
{
    ret->message = 0;
    while (*bytes > 0 && reader->error == DJ_OK) {
        uint8_t *at;
        size_t step = frame_reader_span(reader, &at);
        if (step > *bytes)
            step = *bytes;
        memcpy(at, *data, step);
        *data += step;
        *bytes -= step;
        enum dj_error error = frame_reader_filled(reader, step, ret);
        if (error != DJ_OK || ret->message != 0)
            return error;
    }
    return reader->error;
}
