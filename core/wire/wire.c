// Wire: the frame header. What is inside a body is codec.c; the manual is wire.h.

#include "core/wire/wire.h"

#include <string.h>

enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_MESSAGE = 6,
    AT_BODY_BYTES = 8,
    AT_NUMBER = 12,
    AT_BULK_BYTES = 16,
    AT_BODY_CHECK = 24,    // covers everything before it, and the body
    AT_BULK_CHECK = 32,
};

static const uint8_t magic[4] = {'D', 'J', 'N', '1'};

static void put_little(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t take_little(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static uint64_t body_check(const uint8_t *header, const void *body, size_t bytes)
{
    return hash64_seed(body, bytes, hash64(header, AT_BODY_CHECK));
}

void wire_header_write(uint8_t header[WIRE_HEADER_BYTES], uint32_t number, uint16_t message, const void *body,
                       uint32_t body_bytes, const void *bulk, uint64_t bulk_bytes)
{
    memcpy(header + AT_MAGIC, magic, sizeof magic);
    put_little(header + AT_VERSION, WIRE_VERSION, 2);
    put_little(header + AT_MESSAGE, message, 2);
    put_little(header + AT_BODY_BYTES, body_bytes, 4);
    put_little(header + AT_BULK_BYTES, bulk_bytes, 8);
    put_little(header + AT_BULK_CHECK, bulk_bytes == 0 ? 0 : hash64(bulk, bulk_bytes), 8);
    wire_header_number(header, number, body, body_bytes);
}

void wire_header_number(uint8_t header[WIRE_HEADER_BYTES], uint32_t number, const void *body, uint32_t body_bytes)
{
    put_little(header + AT_NUMBER, number, 4);
    put_little(header + AT_BODY_CHECK, body_check(header, body, body_bytes), 8);
}

enum dj_error wire_header_read(const uint8_t header[WIRE_HEADER_BYTES], struct wire_header *ret)
{
    if (memcmp(header + AT_MAGIC, magic, sizeof magic) != 0)
        return DJ_E_FRAME_CORRUPT;
    struct wire_header parsed = {
        .version = (uint16_t)take_little(header + AT_VERSION, 2),
        .message = (uint16_t)take_little(header + AT_MESSAGE, 2),
        .body_bytes = (uint32_t)take_little(header + AT_BODY_BYTES, 4),
        .number = (uint32_t)take_little(header + AT_NUMBER, 4),
        .bulk_bytes = take_little(header + AT_BULK_BYTES, 8),
        .body_check = take_little(header + AT_BODY_CHECK, 8),
        .bulk_check = take_little(header + AT_BULK_CHECK, 8),
    };
    // Another version may mean another layout from here on, so it is looked at before anything else is believed.
    if (parsed.version != WIRE_VERSION)
        return DJ_E_VERSION;
    uint32_t body_max = wire_body_max(parsed.message);
    if (body_max == 0)
        return DJ_E_FRAME_UNKNOWN;
    if (parsed.body_bytes > body_max || parsed.bulk_bytes > wire_bulk_max(parsed.message))
        return DJ_E_FRAME_OVERSIZED;
    *ret = parsed;
    return DJ_OK;
}

bool wire_body_is_intact(const uint8_t header[WIRE_HEADER_BYTES], const struct wire_header *parsed, const void *body)
{
    return body_check(header, body, parsed->body_bytes) == parsed->body_check;
}

uint64_t wire_bulk_max(uint16_t message)
{
    switch (message) {
    case WIRE_LEAF_DATA: return WIRE_CHUNK_BYTES;
    case WIRE_ANSWER:
    case WIRE_VALUE: return WIRE_BULK_MAX;
    default: return 0;
    }
}
