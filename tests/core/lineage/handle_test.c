// Handles: one text for each, and back; keys that differ.

#include "core/lineage/handle.h"

#include "tests/lib/case.h"

#include <string.h>

static struct handle any_handle(struct prng *prng)
{
    uint64_t shift = prng_between(prng, 0, 63);
    return (struct handle){
        .execution = {.session = prng_next(prng) >> shift, .counter = prng_next(prng) >> prng_between(prng, 0, 63)},
        .output = (uint32_t)(prng_next(prng) >> prng_between(prng, 32, 63)),
    };
}

static void a_handle_survives_text_and_bytes(void **state)
{
    struct prng prng = case_prng(state, 1);
    for (int i = 0; i < 5000; i++) {
        struct handle handle = any_handle(&prng), back = {0};
        if (i == 0)
            handle = (struct handle){{UINT64_MAX, UINT64_MAX}, UINT32_MAX};
        char text[HANDLE_TEXT], id_text[EXEC_ID_TEXT];
        assert_true(handle_parse(handle_text(handle, text), &back));
        assert_true(handle_equal(handle, back));
        struct exec_id id = {0};
        assert_true(exec_id_parse(exec_id_text(handle.execution, id_text), &id));
        assert_true(exec_id_equal(id, handle.execution));
        struct writer writer = writer_make(64);
        handle_write(&writer, handle);
        struct reader reader = reader_make(writer.data, writer.length);
        assert_true(handle_equal(handle_read(&reader), handle));
        assert_int_equal(reader_left(&reader), 0);
        assert_ok(reader.error);
        writer_free(&writer);
    }
}

static void other_texts_are_no_handles(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "1",
                                      "1.2",
                                      "1.2.3",
                                      "1.2.3:",
                                      "1.2.3:4x",
                                      " 1.2.3:4",
                                      "01.2.3:4",
                                      "1.4294967296.3:4",
                                      "1.2.3:4294967296",
                                      "18446744073709551616.2.3:4",
                                      "-1.2.3:4",
                                      "1.2.3.4:5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct handle handle;
        assert_false(handle_parse(bad[i], &handle));
    }
    struct exec_id id;
    assert_true(exec_id_parse("17.1.42", &id));
    assert_false(exec_id_parse("17.1.42:3", &id));
    assert_int_equal(id.counter, 42);
}

static void keys_of_neighbours_differ(void **state)
{
    (void)state;
    enum { N = 5 };
    struct hash128 key[N * N * N * N];
    size_t count = 0;
    for (uint64_t s = 0; s < N; s++) {
        for (uint32_t e = 0; e < N; e++) {
            for (uint64_t c = 0; c < N; c++) {
                for (uint32_t o = 0; o < N; o++) {
                    struct hash128 one = handle_key((struct handle){{s, exec_counter(e + 1, c)}, o});
                    for (size_t i = 0; i < count; i++)
                        assert_false(hash128_equal(one, key[i]));
                    key[count++] = one;
                }
            }
        }
    }
}

CASES(a_handle_survives_text_and_bytes, other_texts_are_no_handles, keys_of_neighbours_differ)
