// Encoded plans from an enemy: every truncation, flipped bits, and messages that unpack to far more than their length. Each is a typed
// error or a valid plan; nothing crashes, nothing leaks (the sanitizers watch), memory stays within the budget.

#include "core/srg/export.h"
#include "core/srg/srg.pb-c.h"
#include "tests/lib/case.h"
#include "tests/lib/graph.h"
#include "tests/lib/random_plan.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

static struct writer encode(uint64_t seed, bool is_json)
{
    struct prng prng = prng_make(seed);
    struct random_plan random = random_plan_make(&prng, (struct random_plan_options){.nodes = 25});
    struct writer writer = writer_make(PLAN_BYTES_MAX);
    if (is_json)
        assert_ok(plan_to_json(random.plan, &writer));
    else
        assert_ok(plan_encode(random.plan, &writer));
    random_plan_free(&random);
    return writer;
}

static bool is_typed(enum dj_error error, const struct fault *fault)
{
    return (error == DJ_E_PLAN_INVALID || error == DJ_E_OP_UNKNOWN || error == DJ_E_LIMIT) && fault->code == error &&
           fault->text[0] != '\0';
}

// Decodes, and if it is a plan after all, encodes it again: whatever passes the checks must be usable.
static void attack(const uint8_t *bytes, size_t length, bool is_json)
{
    struct srg_plan *plan = NULL;
    struct fault fault = {0};
    enum dj_error error = is_json ? plan_from_json((const char *)bytes, length, &plan, &fault)
                                  : plan_decode(bytes, length, &plan, &fault);
    if (error != DJ_OK) {
        assert_true(is_typed(error, &fault));
        assert_null(plan);
        return;
    }
    struct writer writer = writer_make(PLAN_BYTES_MAX);
    assert_ok(plan_encode(plan, &writer));
    struct srg_plan *again = NULL;
    assert_ok(plan_decode(writer.data, writer.length, &again, NULL));
    assert_true(hash128_equal(plan->fingerprint, again->fingerprint));
    plan_drop(again);
    plan_drop(plan);
    writer_free(&writer);
}

static void every_truncation_is_a_typed_error(void **state)
{
    (void)state;
    for (int is_json = 0; is_json < 2; is_json++) {
        struct writer writer = encode(5, is_json);
        for (size_t length = 0; length < writer.length; length += is_json ? 7 : 1) {
            uint8_t *exact = malloc(length + 1);    // so that a read past the end is seen
            memcpy(exact, writer.data, length);
            struct srg_plan *plan = NULL;
            struct fault fault = {0};
            enum dj_error error = is_json ? plan_from_json((const char *)exact, length, &plan, &fault)
                                          : plan_decode(exact, length, &plan, &fault);
            if (!is_json || length + 2 < writer.length)
                assert_true(is_typed(error, &fault) || error == DJ_OK);
            if (is_json && length + 2 < writer.length)
                assert_int_equal(error, DJ_E_PLAN_INVALID);
            plan_drop(plan);
            free(exact);
        }
        writer_free(&writer);
    }
}

static void flipped_bits_are_errors_or_other_plans(void **state)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct prng prng = case_prng(state, seed);
        for (int is_json = 0; is_json < 2; is_json++) {
            struct writer writer = encode(seed, is_json);
            uint8_t *copy = malloc(writer.length);
            for (int round = 0; round < 400; round++) {
                memcpy(copy, writer.data, writer.length);
                for (uint64_t flips = prng_between(&prng, 1, 4); flips > 0; flips--) {
                    size_t at = prng_between(&prng, 0, writer.length - 1);
                    copy[at] = (uint8_t)(copy[at] ^ 1u << prng_between(&prng, 0, 7));
                }
                attack(copy, writer.length, is_json);
            }
            free(copy);
            writer_free(&writer);
        }
    }
}

// A megabyte of empty strings, or of unknown fields: protobuf-c would take tens of bytes for each two.
static void what_unpacks_to_much_more_than_its_length_is_refused(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20 };
    static const uint8_t patterns[][4] = {
        {0x0A, 0x00, 0x0A, 0x00}, {0x12, 0x00, 0x12, 0x00}, {0x78, 0x00, 0x78, 0x00}, {0x08, 0x01, 0x08, 0x01}};
    uint8_t *bytes = malloc(BYTES + 8);
    int over_budget = 0;
    for (size_t p = 0; p < sizeof patterns / sizeof patterns[0]; p++) {
        for (int is_nested = 0; is_nested < 2; is_nested++) {
            // Field 4 (modules) of length BYTES, or the pattern at the top.
            static const uint8_t head[] = {0x08, 0x01, 0x22, 0x80, 0x80, 0x40};
            size_t at = is_nested ? sizeof head : 0;
            memcpy(bytes, head, at);
            for (size_t i = 0; i + 4 <= BYTES; i += 4)
                memcpy(bytes + at + i, patterns[p], 4);
            struct srg_plan *plan = NULL;
            struct fault fault = {0};
            size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
            assert_error(DJ_E_PLAN_INVALID, plan_decode(bytes, is_nested ? BYTES + sizeof head : BYTES, &plan, &fault));
            size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
            assert_true(after < before + 4096);
            over_budget += strstr(fault.text, "unpacks") != NULL;
        }
    }
    free(bytes);
    assert_int_equal(over_budget, 8);    // refused while unpacking, not by what comes after
}

static void a_text_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    ops_init();
    static const char *const bad[] = {"\xFF", "a\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xE0\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct plan_builder *builder;
        struct srg_plan *plan = NULL, *back = NULL;
        uint16_t module;
        assert_ok(plan_builder_make(&builder));
        assert_ok(plan_add_module(builder, bad[i], "T", false, &module));
        assert_ok(plan_finish(builder, &plan, NULL));
        struct writer writer = writer_make(PLAN_BYTES_MAX);
        struct fault fault = {0};
        assert_ok(plan_encode(plan, &writer));
        assert_error(DJ_E_PLAN_INVALID, plan_decode(writer.data, writer.length, &back, &fault));
        assert_non_null(strstr(fault.text, "UTF-8"));
        plan_drop(plan);
        plan_builder_free(builder);
        writer_free(&writer);
    }
}

static void json_is_bounded_before_it_is_parsed(void **state)
{
    (void)state;
    enum { BYTES = 4 << 20 };
    char *text = malloc(BYTES);
    struct srg_plan *plan = NULL;
    memset(text, '[', BYTES);
    assert_error(DJ_E_PLAN_INVALID, plan_from_json(text, BYTES, &plan, NULL));
    memset(text, ',', BYTES);
    text[0] = '[';
    assert_error(DJ_E_LIMIT, plan_from_json(text, BYTES, &plan, NULL));
    assert_error(DJ_E_PLAN_INVALID, plan_from_json(text, (size_t)PLAN_JSON_BYTES_MAX + 1, &plan, NULL));
    static const char open_string[] = {'{', '"', 'a', '\\', '"'};
    assert_error(DJ_E_PLAN_INVALID, plan_from_json(open_string, sizeof open_string, &plan, NULL));
    assert_error(DJ_E_PLAN_INVALID, plan_from_json(text, 0, &plan, NULL));
    free(text);
}

// Each row: JSON that a person might write, and what it is told.
static void mistakes_in_json_are_told_with_their_place(void **state)
{
    (void)state;
    ops_init();
#define PLAN(inputs, nodes) "{\"schema\":\"djinn.srg.v1\",\"inputs\":[" inputs "],\"nodes\":[" nodes "]}"
#define INPUT "{\"leaf\":true,\"dtype\":\"float32\",\"rank\":1,\"contiguous\":true}"
    static const struct {
        const char *text, *says;
    } rows[] = {
        {PLAN(INPUT, "{\"op\":\"NEG\",\"in\":[\"i0\"],\"out\":[\"float32\"]}"), NULL},
        {PLAN(INPUT, "{\"op\":\"neg\",\"in\":[\"i0\"],\"out\":[\"float32\"]}"), NULL},
        {"{\"schema\":\"djinn.srg.v9\",\"inputs\":[],\"nodes\":[]}", "djinn.srg.v1"},
        {PLAN(INPUT, "{\"op\":\"NOG\",\"in\":[\"i0\"],\"out\":[\"float32\"]}"), "there is no op \"NOG\""},
        {PLAN(INPUT, "{\"op\":\"NEG\",\"in\":[\"i1\"],\"out\":[\"float32\"]}"), "input 1 of 1"},
        {PLAN(INPUT, "{\"op\":\"NEG\",\"in\":[\"x\"],\"out\":[\"float32\"]}"), "operand 0 must be"},
        {PLAN(INPUT, "{\"op\":\"NEG\",\"in\":[\"n0\"],\"out\":[\"float32\"]}"), "does not come before it"},
        {PLAN(INPUT, "{\"op\":\"NEG\",\"in\":[\"i0\"],\"out\":[\"float33\"]}"), "must name 1 dtypes"},
        {PLAN(INPUT, "{\"op\":\"NEG\",\"in\":[\"i0\"],\"out\":[\"float32\"],\"attrs\":{\"x\":1}}"), "no attribute \"x\""},
        {PLAN(INPUT, "{\"op\":\"UNSQUEEZE\",\"in\":[\"i0\"],\"out\":[\"float32\"],\"attrs\":{\"dim\":1.5}}"),
         "attribute \"dim\""},
        {PLAN(INPUT, "{\"op\":\"UNSQUEEZE\",\"in\":[\"i0\"],\"out\":[\"float32\"]}"), "attribute dim is nothing"},
        {PLAN("{\"leaf\":1}", ""), "input 0: \"leaf\""},
        {PLAN(INPUT, "") "x", "something follows"},
        {"{\"schema\":\"djinn.srg.v1\",\"fingerprint\":\"00\",\"inputs\":[],\"nodes\":[]}", "\"fingerprint\" is not"},
        {"[1, 2", "cannot be read on from byte"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct srg_plan *plan = NULL;
        struct fault fault = {0};
        enum dj_error error = plan_from_json(rows[i].text, strlen(rows[i].text), &plan, &fault);
        assert_int_equal(error == DJ_OK, rows[i].says == NULL);
        if (rows[i].says != NULL && strstr(fault.text, rows[i].says) == NULL)
            fail_msg("row %zu says \"%s\"", i, fault.text);
        plan_drop(plan);
    }
}

static void annotations_survive_and_those_of_another_plan_are_refused(void **state)
{
    enum { NODES = 20, INPUTS = 7 };
    struct prng prng = case_prng(state, 1);
    struct srg_annotation node[NODES];
    uint8_t residency[INPUTS];
    struct srg_annotations notes = {
        .nodes = NODES, .inputs = INPUTS, .phase = PHASE_LLM_DECODE, .modality = MODALITY_TEXT, .confidence = 91};
    notes.node = node;
    notes.input_residency = residency;
    for (int i = 0; i < NODES; i++)
        node[i] = (struct srg_annotation){.phase = (uint8_t)prng_between(&prng, 0, PHASE_COUNT - 1),
                                          .residency = (uint8_t)prng_between(&prng, 0, RESIDENCY_COUNT - 1),
                                          .modality = (uint8_t)prng_between(&prng, 0, MODALITY_COUNT - 1),
                                          .role = (uint8_t)prng_between(&prng, 0, ROLE_COUNT - 1),
                                          .priority = (uint8_t)prng_between(&prng, 0, 255),
                                          .confidence = (uint8_t)prng_between(&prng, 0, 100),
                                          .colocation = (uint16_t)prng_between(&prng, 0, 65535),
                                          .criticality = (float)prng_unit(&prng),
                                          .flops = prng_unit(&prng) * 1e12,
                                          .bytes = prng_unit(&prng) * 1e9};
    for (int i = 0; i < INPUTS; i++)
        residency[i] = (uint8_t)(i % RESIDENCY_COUNT);
    struct writer writer = writer_make(1 << 20);
    assert_ok(annotations_encode(&notes, &writer));
    struct srg_annotations back = {0};
    struct fault fault = {0};
    assert_ok(annotations_decode(writer.data, writer.length, NODES, INPUTS, case_arena(state), &back, &fault));
    assert_true(back.phase == notes.phase && back.modality == notes.modality && back.confidence == notes.confidence);
    assert_memory_equal(back.input_residency, residency, INPUTS);
    for (int i = 0; i < NODES; i++) {
        const struct srg_annotation *a = &node[i], *b = &back.node[i];
        assert_true(a->phase == b->phase && a->residency == b->residency && a->modality == b->modality && a->role == b->role);
        assert_true(a->priority == b->priority && a->confidence == b->confidence && a->colocation == b->colocation);
        assert_memory_equal(&a->criticality, &b->criticality, sizeof a->criticality);
        assert_memory_equal(&a->flops, &b->flops, 2 * sizeof a->flops);
    }
    assert_error(DJ_E_PLAN_INVALID,
                 annotations_decode(writer.data, writer.length, NODES + 1, INPUTS, case_arena(state), &back, &fault));
    assert_error(DJ_E_PLAN_INVALID,
                 annotations_decode(writer.data, writer.length, NODES, INPUTS - 1, case_arena(state), &back, &fault));
    writer_free(&writer);
}

CASES(every_truncation_is_a_typed_error, flipped_bits_are_errors_or_other_plans,
      what_unpacks_to_much_more_than_its_length_is_refused, a_text_that_is_not_utf8_is_refused,
      json_is_bounded_before_it_is_parsed, mistakes_in_json_are_told_with_their_place,
      annotations_survive_and_those_of_another_plan_are_refused)
