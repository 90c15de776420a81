// Every message of the table with random contents: what is decoded equals what was encoded, every cut and every surplus byte is noticed, and
// no field passes its bound. The fillers and the comparisons are expanded from the same table, but share no code with the codec.

#include "core/wire/wire.h"

#include "core/io/blob.h"
#include "tests/lib/case.h"

#include <string.h>

enum { ROUNDS = 40, LIST_FILL_MAX = 3, BYTES_FILL_MAX = 64 };

static uint64_t any_u64(struct prng *prng)
{
    return prng_next(prng) >> prng_between(prng, 0, 63);    // all lengths of varint
}

static void fill_text(struct prng *prng, char *text, size_t max)
{
    size_t length = prng_chance(prng, 1, 4) ? max - 1 : prng_between(prng, 0, max - 1);
    for (size_t i = 0; i < length; i++)
        text[i] = (char)prng_between(prng, 1, 127);
    if (length >= 2)
        memcpy(text, "\xC3\xA9", 2);
    text[length] = '\0';
}

static const uint8_t *fill_bytes(struct prng *prng, struct arena *arena, size_t max, uint32_t *ret_bytes)
{
    size_t bytes = prng_between(prng, 0, max < BYTES_FILL_MAX ? max : BYTES_FILL_MAX);
    uint8_t *data = arena_alloc(arena, bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)prng_next(prng);
    *ret_bytes = (uint32_t)bytes;
    return data;
}

#define BEGIN_FILL(name) \
    static __attribute__((unused)) void fill_##name(struct prng *prng, struct arena *arena, struct wire_##name *m) \
    { \
        (void)arena, (void)prng;
#define MESSAGE(number, NAME, name) BEGIN_FILL(name)
#define END(NAME, name) }
#define RECORD(name) BEGIN_FILL(name)
#define RECORD_END(name) }
#define U8(f) m->f = (uint8_t)prng_next(prng);
#define U32(f) m->f = (uint32_t)any_u64(prng);
#define U64(f) m->f = any_u64(prng);
#define I64(f) m->f = (int64_t)(prng_chance(prng, 1, 2) ? any_u64(prng) : ~any_u64(prng));
#define F64(f) m->f = prng_unit(prng) * 1e30;
#define BOOL(f) m->f = prng_chance(prng, 1, 2);
#define HASH(f) m->f = (struct hash128){prng_next(prng), prng_next(prng)};
#define TEXT(f, max) fill_text(prng, m->f, max);
#define BYTES(f, max) m->f = fill_bytes(prng, arena, max, &m->f##_bytes);
#define LIST(record, f, max) \
    { \
        uint32_t count = (uint32_t)prng_between(prng, 0, (max) < LIST_FILL_MAX ? (max) : LIST_FILL_MAX); \
        struct wire_##record *list = arena_zero(arena, count * sizeof *list + 1); \
        for (uint32_t i = 0; i < count; i++) \
            fill_##record(prng, arena, &list[i]); \
        m->f = list; \
        m->f##_count = count; \
    }
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

#define BEGIN_EQUAL(name) \
    static __attribute__((unused)) bool equal_##name(const struct wire_##name *a, const struct wire_##name *b) \
    { \
        bool same = true;
#define END_EQUAL \
    return same; \
    }
#define MESSAGE(number, NAME, name) BEGIN_EQUAL(name)
#define END(NAME, name) END_EQUAL
#define RECORD(name) BEGIN_EQUAL(name)
#define RECORD_END(name) END_EQUAL
#define U8(f) same = same && a->f == b->f;
#define U32(f) same = same && a->f == b->f;
#define U64(f) same = same && a->f == b->f;
#define I64(f) same = same && a->f == b->f;
#define F64(f) same = same && memcmp(&a->f, &b->f, sizeof a->f) == 0;
#define BOOL(f) same = same && a->f == b->f;
#define HASH(f) same = same && hash128_equal(a->f, b->f);
#define TEXT(f, max) same = same && strcmp(a->f, b->f) == 0;
#define BYTES(f, max) same = same && a->f##_bytes == b->f##_bytes && memcmp(a->f, b->f, a->f##_bytes) == 0;
#define LIST(record, f, max) \
    same = same && a->f##_count == b->f##_count; \
    for (uint32_t i = 0; same && i < a->f##_count; i++) \
        same = equal_##record(&a->f[i], &b->f[i]);
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

#define RECORD(name)
#define RECORD_END(name)
#define END(NAME, name)
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

// For each message: one random value there and back, cut at every byte, with one byte too many, and with bytes changed.
#define MESSAGE(number, NAME, name) \
    static void try_##name(struct prng *prng, struct arena *arena) \
    { \
        struct wire_##name in = {0}, out; \
        fill_##name(prng, arena, &in); \
        struct blob *body = wire_##name##_encode(&in); \
        assert_non_null(body); \
        assert_true(body->bytes <= wire_body_max(WIRE_##NAME)); \
        assert_ok(wire_##name##_decode(body->data, body->bytes, arena, &out)); \
        assert_true(equal_##name(&in, &out)); \
        for (size_t cut = 0; cut < body->bytes; cut++) { \
            uint8_t *exact = arena_copy(arena, body->data, cut); \
            assert_error(DJ_E_FRAME_TRUNCATED, wire_##name##_decode(exact, cut, arena, &out)); \
        } \
        uint8_t *longer = arena_alloc(arena, body->bytes + 1); \
        memcpy(longer, body->data, body->bytes); \
        longer[body->bytes] = 0; \
        assert_error(DJ_E_MALFORMED, wire_##name##_decode(longer, body->bytes + 1, arena, &out)); \
        for (int i = 0; i < 50; i++) { \
            longer[prng_between(prng, 0, body->bytes - 1)] = (uint8_t)prng_next(prng); \
            enum dj_error error = wire_##name##_decode(longer, body->bytes, arena, &out); \
            assert_true(error == DJ_OK || error == DJ_E_FRAME_TRUNCATED || error == DJ_E_MALFORMED); \
        } \
        blob_drop(body); \
    }
#include "core/wire/messages.def"
#undef MESSAGE

static void every_message_survives_the_wire_and_every_cut_is_noticed(void **state)
{
    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        struct prng prng = case_prng(state, seed);
        struct arena *arena = NULL;
        assert_ok(arena_make(64 * 1024, 0, &arena));
#define MESSAGE(number, NAME, name) \
    try_##name(&prng, arena); \
    arena_reset(arena);
#include "core/wire/messages.def"
#undef MESSAGE
        arena_free(arena);
    }
}

static void a_text_without_its_end_or_a_list_over_its_bound_is_not_encoded(void **state)
{
    (void)state;
    struct wire_failed failed = {0};
    memset(failed.text, 'x', sizeof failed.text);
    assert_null(wire_failed_encode(&failed));
    failed.text[sizeof failed.text - 1] = '\0';
    struct blob *body = wire_failed_encode(&failed);
    assert_non_null(body);
    blob_drop(body);

    struct wire_located located = {.locations_count = 17};
    assert_null(wire_located_encode(&located));
    uint8_t byte = 0;
    struct wire_plan plan = {.encoded = &byte, .encoded_bytes = 16777217};
    assert_null(wire_plan_encode(&plan));
}

static void a_short_body_cannot_ask_for_a_long_list(void **state)
{
    struct arena *arena = case_arena(state);
    const uint8_t body[] = {0x80, 0x20};    // 4096 leaves, and then nothing
    struct wire_leaf_offer offer;
    assert_error(DJ_E_FRAME_TRUNCATED, wire_leaf_offer_decode(body, sizeof body, arena, &offer));
    assert_true(arena_used_bytes(arena) < 4096);

    const uint8_t over[] = {0x81, 0x20, 0};    // 4097
    assert_error(DJ_E_MALFORMED, wire_leaf_offer_decode(over, sizeof over, arena, &offer));
}

static void a_failed_decode_leaves_the_output_as_it_was(void **state)
{
    struct arena *arena = case_arena(state);
    struct wire_pong pong = {.number = 42};
    assert_error(DJ_E_FRAME_TRUNCATED, wire_pong_decode("\x80", 1, arena, &pong));
    assert_int_equal(pong.number, 42);
}

static void decoding_reports_when_memory_runs_out(void **state)
{
    (void)state;
    struct wire_leaf leaves[4096];
    memset(leaves, 0, sizeof leaves);
    struct wire_leaf_offer offer = {.leaves = leaves, .leaves_count = 4096};
    struct blob *body = wire_leaf_offer_encode(&offer);
    assert_non_null(body);
    struct arena *arena = NULL;
    assert_ok(arena_make(1024, 4096, &arena));
    assert_error(DJ_E_NO_MEMORY, wire_leaf_offer_decode(body->data, body->bytes, arena, &offer));
    arena_free(arena);
    blob_drop(body);
}

static void every_message_has_a_name_and_a_bound(void **state)
{
    (void)state;
    assert_string_equal(wire_name(WIRE_EXECUTE), "EXECUTE");
    assert_string_equal(wire_name(9999), "?");
    assert_int_equal(wire_body_max(9999), 0);
    assert_int_equal(wire_body_max(WIRE_PING), 10);
    assert_int_equal(wire_body_max(WIRE_EXECUTE), WIRE_BODY_MAX);
    assert_true(wire_body_max(WIRE_HELLO) < 512);    // before anybody is known, little can be asked for
#define MESSAGE(number, NAME, name) \
    assert_string_equal(wire_name(number), #NAME); \
    assert_true(wire_body_max(number) > 0);
#include "core/wire/messages.def"
#undef MESSAGE
}

CASES(every_message_survives_the_wire_and_every_cut_is_noticed, a_text_without_its_end_or_a_list_over_its_bound_is_not_encoded,
      a_short_body_cannot_ask_for_a_long_list, a_failed_decode_leaves_the_output_as_it_was, decoding_reports_when_memory_runs_out,
      every_message_has_a_name_and_a_bound)
