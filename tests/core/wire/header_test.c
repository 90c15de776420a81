// The frame header: what is written is read back, and every single flipped bit is noticed by the header's checks or a checksum.

#include "core/wire/wire.h"

#include "tests/lib/case.h"

#include <string.h>

static const char body[] = "the body of a message";
static const char bulk[] = "the bytes of a tensor, which travel behind it";

static void write_leaf_data(uint8_t header[WIRE_HEADER_BYTES])
{
    wire_header_write(header, 7, WIRE_LEAF_DATA, body, sizeof body, bulk, sizeof bulk);
}

static void a_header_is_read_back_as_it_was_written(void **state)
{
    (void)state;
    uint8_t header[WIRE_HEADER_BYTES];
    write_leaf_data(header);
    assert_memory_equal(header, "DJN1", 4);
    struct wire_header parsed;
    assert_ok(wire_header_read(header, &parsed));
    assert_int_equal(parsed.version, WIRE_VERSION);
    assert_int_equal(parsed.message, WIRE_LEAF_DATA);
    assert_int_equal(parsed.body_bytes, sizeof body);
    assert_int_equal(parsed.number, 7);
    assert_int_equal(parsed.bulk_bytes, sizeof bulk);
    assert_int_equal(parsed.bulk_check, hash64(bulk, sizeof bulk));
    assert_true(wire_body_is_intact(header, &parsed, body));
}

static void no_single_flipped_bit_of_header_or_body_passes(void **state)
{
    (void)state;
    uint8_t header[WIRE_HEADER_BYTES];
    char changed[sizeof body];
    for (size_t bit = 0; bit < WIRE_HEADER_BYTES * 8; bit++) {
        write_leaf_data(header);
        header[bit / 8] = (uint8_t)(header[bit / 8] ^ 1 << bit % 8);
        struct wire_header parsed;
        bool is_refused = wire_header_read(header, &parsed) != DJ_OK || parsed.body_bytes != sizeof body ||
                          parsed.bulk_bytes != sizeof bulk || !wire_body_is_intact(header, &parsed, body) ||
                          parsed.bulk_check != hash64(bulk, sizeof bulk);
        assert_true(is_refused);
    }
    write_leaf_data(header);
    struct wire_header parsed;
    assert_ok(wire_header_read(header, &parsed));
    for (size_t bit = 0; bit < sizeof body * 8; bit++) {
        memcpy(changed, body, sizeof body);
        changed[bit / 8] = (char)(changed[bit / 8] ^ 1 << bit % 8);
        assert_false(wire_body_is_intact(header, &parsed, changed));
    }
}

// Writes `value` over `bytes` bytes at `at`, and says what reading the header gives.
static enum dj_error with_field(size_t at, uint64_t value, size_t bytes)
{
    uint8_t header[WIRE_HEADER_BYTES];
    write_leaf_data(header);
    memcpy(header + at, &value, bytes);
    struct wire_header parsed = {.message = 77};
    enum dj_error error = wire_header_read(header, &parsed);
    assert_int_equal(parsed.message == 77, error != DJ_OK);
    return error;
}

static void each_wrong_field_has_its_own_error(void **state)
{
    (void)state;
    assert_error(DJ_E_FRAME_CORRUPT, with_field(0, 'X', 1));
    assert_error(DJ_E_VERSION, with_field(4, WIRE_VERSION + 1, 2));
    assert_error(DJ_E_FRAME_UNKNOWN, with_field(6, 9999, 2));
    assert_error(DJ_E_FRAME_OVERSIZED, with_field(8, wire_body_max(WIRE_LEAF_DATA) + 1, 4));
    assert_error(DJ_E_FRAME_OVERSIZED, with_field(16, WIRE_CHUNK_BYTES + 1, 8));
    assert_error(DJ_E_FRAME_OVERSIZED, with_field(16, UINT64_MAX, 8));
    assert_error(DJ_OK, with_field(16, WIRE_CHUNK_BYTES, 8));
}

static void a_header_can_be_given_another_number(void **state)
{
    (void)state;
    uint8_t header[WIRE_HEADER_BYTES], wanted[WIRE_HEADER_BYTES];
    write_leaf_data(header);
    wire_header_number(header, 0xFFFFFFFF, body, sizeof body);
    wire_header_write(wanted, 0xFFFFFFFF, WIRE_LEAF_DATA, body, sizeof body, bulk, sizeof bulk);
    assert_memory_equal(header, wanted, sizeof header);
}

CASES(a_header_can_be_given_another_number, a_header_is_read_back_as_it_was_written,
      no_single_flipped_bit_of_header_or_body_passes, each_wrong_field_has_its_own_error)
