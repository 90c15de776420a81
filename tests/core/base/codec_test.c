// What the codec promises: what was written is read, no byte string makes a reader read past its end, and failures stick.

#include "core/base/codec.h"
#include "tests/lib/case.h"

#include <stdlib.h>
#include <string.h>

static void release(void *writer)
{
    writer_free(writer);
}

// The numbers at which encodings change length, and those around them.
static uint64_t edge(struct prng *prng)
{
    uint64_t power = (uint64_t)1 << prng_between(prng, 0, 63);
    return power + prng_between(prng, 0, 2) - 1;
}

static void what_is_written_is_read(void **state)
{
    static struct writer writer;
    writer = writer_make(1 << 20);
    case_later(state, release, &writer);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        enum { ITEMS = 100 };
        struct {
            uint64_t kind, value, more;
        } item[ITEMS];
        struct prng prng = case_prng(state, seed);
        writer_reset(&writer);
        for (int i = 0; i < ITEMS; i++) {
            item[i].kind = prng_between(&prng, 0, 6);
            uint64_t value = item[i].value = edge(&prng);
            uint64_t more = item[i].more = prng_next(&prng);
            switch (item[i].kind) {
            case 0: write_u8(&writer, (uint8_t)value); break;
            case 1: write_u32(&writer, (uint32_t)value); break;
            case 2: write_u64(&writer, value); break;
            case 3: write_var(&writer, value); break;
            case 4: write_zig(&writer, (int64_t)value); break;
            case 5: write_hash(&writer, (struct hash128){value, more}); break;
            default: write_bytes(&writer, &item[i], more % sizeof item[i]); break;
            }
        }
        assert_ok(writer.error);

        struct reader reader = reader_make(writer.data, writer.length);
        for (int i = 0; i < ITEMS; i++) {
            uint64_t value = item[i].value;
            size_t bytes = 0;
            switch (item[i].kind) {
            case 0: assert_int_equal(read_u8(&reader), (uint8_t)value); break;
            case 1: assert_int_equal(read_u32(&reader), (uint32_t)value); break;
            case 2: assert_int_equal(read_u64(&reader), value); break;
            case 3: assert_int_equal(read_var(&reader), value); break;
            case 4: assert_int_equal(read_zig(&reader), value); break;
            case 5: assert_true(hash128_equal(read_hash(&reader), (struct hash128){value, item[i].more})); break;
            default:
                assert_memory_equal(read_bytes(&reader, sizeof item[i], &bytes), &item[i], item[i].more % sizeof item[i]);
                assert_int_equal(bytes, item[i].more % sizeof item[i]);
            }
        }
        assert_ok(reader.error);
        assert_int_equal(reader_left(&reader), 0);
    }
}

static void the_bytes_are_those_of_the_formats(void **state)
{
    static struct writer writer;
    writer = writer_make(100);
    case_later(state, release, &writer);
    write_u32(&writer, 0x01020304);
    write_var(&writer, 300);    // the example of the Protocol Buffers documentation
    write_zig(&writer, -1);
    write_zig(&writer, 1);
    write_zig(&writer, INT64_MIN);
    write_text(&writer, "hi");
    write_text(&writer, NULL);
    static const uint8_t expected[] = {4,    3,    2,    1,    0xAC, 0x02, 1,    2, 0xFF, 0xFF, 0xFF,
                                       0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 2, 'h',  'i',  0};
    assert_ok(writer.error);
    assert_int_equal(writer.length, sizeof expected);
    assert_memory_equal(writer.data, expected, sizeof expected);
}

static void a_reader_gives_zeros_after_its_first_failure(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3, 4, 5};
    struct reader reader = reader_make(bytes, sizeof bytes);
    assert_int_equal(read_u64(&reader), 0);
    assert_error(DJ_E_FRAME_TRUNCATED, reader.error);
    assert_int_equal(read_u8(&reader), 0);
    assert_int_equal(read_var(&reader), 0);
    assert_null(read_raw(&reader, 0));
    reader_fail(&reader, DJ_E_SHAPE);
    assert_error(DJ_E_FRAME_TRUNCATED, reader.error);
    assert_int_equal(reader_left(&reader), 0);

    struct reader empty = reader_make(NULL, 0);
    assert_non_null(read_raw(&empty, 0));
    assert_ok(empty.error);
}

static enum dj_error error_of_var(const uint8_t *bytes, size_t length)
{
    struct reader reader = reader_make(bytes, length);
    (void)read_var(&reader);
    return reader.error;
}

static void a_varint_has_at_most_ten_bytes_and_64_bits(void **state)
{
    (void)state;
    uint8_t bytes[11];
    memset(bytes, 0xFF, sizeof bytes);
    assert_error(DJ_E_MALFORMED, error_of_var(bytes, 11));
    assert_error(DJ_E_FRAME_TRUNCATED, error_of_var(bytes, 9));
    bytes[9] = 0x01;
    assert_ok(error_of_var(bytes, 10));
    bytes[9] = 0x02;
    assert_error(DJ_E_MALFORMED, error_of_var(bytes, 10));

    struct reader reader = reader_make("\x08", 1);
    assert_int_equal(read_var_max(&reader, 7), 0);
    assert_error(DJ_E_MALFORMED, reader.error);
}

static enum dj_error error_of_text(const char *text, size_t length, size_t capacity)
{
    uint8_t bytes[64];
    char copy[64] = "untouched";
    bytes[0] = (uint8_t)length;
    memcpy(bytes + 1, text, length);
    struct reader reader = reader_make(bytes, length + 1);
    read_text(&reader, copy, capacity);
    assert_string_equal(copy, reader.error == DJ_OK ? text : "");
    return reader.error;
}

static void a_text_is_utf8_without_nul_and_fits(void **state)
{
    (void)state;
    assert_ok(error_of_text("", 0, 1));
    assert_ok(error_of_text("h\xC3\xA9llo \xE2\x82\xAC \xF0\x9F\x98\x80", 15, 16));
    assert_error(DJ_E_MALFORMED, error_of_text("hello", 5, 5));
    static const struct {
        const char *bytes;
        size_t length;
    } bad[] = {
        {"a\0b", 3},
        {"\x80", 1},
        {"\xC3", 1},
        {"\xC0\xAF", 2},
        {"\xE0\x80\xAF", 3},
        {"\xED\xA0\x80", 3},
        {"\xF4\x90\x80\x80", 4},
        {"\xF8\x88\x80\x80\x80", 5},
        {"\xE2\x82", 2},
        {"\xC3(", 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_error(DJ_E_MALFORMED, error_of_text(bad[i].bytes, bad[i].length, 64));
}

static void random_bytes_never_lead_a_reader_astray(void **state)
{
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct prng prng = case_prng(state, seed);
        size_t length = prng_between(&prng, 0, 40), bytes;
        uint8_t *input = malloc(length + 1);    // on the heap, so that AddressSanitizer sees one byte too far
        assert_non_null(input);
        for (size_t i = 0; i < length; i++)
            input[i] = (uint8_t)prng_next(&prng);
        struct reader reader = reader_make(input, length);
        char text[16];
        while (reader.error == DJ_OK) {
            switch (prng_between(&prng, 0, 5)) {
            case 0: (void)read_u32(&reader); break;
            case 1: (void)read_zig(&reader); break;
            case 2: (void)read_hash(&reader); break;
            case 3: (void)read_bytes(&reader, 20, &bytes); break;
            case 4: (void)read_raw(&reader, prng_next(&prng) % 9 == 0 ? SIZE_MAX : 3); break;
            default: read_text(&reader, text, sizeof text); break;
            }
            assert_true(reader_left(&reader) <= length);
        }
        free(input);
    }
}

static void a_writer_stops_at_its_limit(void **state)
{
    static struct writer writer;
    writer = writer_make(10);
    case_later(state, release, &writer);
    write_u64(&writer, 1);
    write_u8(&writer, 2);
    assert_ok(writer.error);
    write_u32(&writer, 3);
    assert_error(DJ_E_FRAME_OVERSIZED, writer.error);
    write_u8(&writer, 4);
    assert_int_equal(writer.length, 9);
    assert_null(writer_reserve(&writer, 0));
    writer_reset(&writer);
    assert_non_null(writer_reserve(&writer, 10));
    assert_null(writer_reserve(&writer, SIZE_MAX));
}

static void a_writer_without_memory_says_so(void **state)
{
    (void)state;
    static const uint8_t zeros[1000];
    for (uint64_t n = 0, more = 1; more; n++) {
        struct writer writer = writer_make(1 << 20);
        alloc_fail_after(n);
        for (int i = 0; i < 5; i++)
            write_raw(&writer, zeros, sizeof zeros);
        more = alloc_fail_stop();
        assert_error(more ? DJ_E_NO_MEMORY : DJ_OK, writer.error);
        writer_free(&writer);
    }
}

CASES(what_is_written_is_read, the_bytes_are_those_of_the_formats, a_reader_gives_zeros_after_its_first_failure,
      a_varint_has_at_most_ten_bytes_and_64_bits, a_text_is_utf8_without_nul_and_fits, random_bytes_never_lead_a_reader_astray,
      a_writer_stops_at_its_limit, a_writer_without_memory_says_so)
