// Records come back as they were written, small ones stay small, and noise is refused.

#include "core/lineage/record.h"

#include "core/base/bits.h"
#include "core/srg/bindings.h"
#include "tests/lib/case.h"
#include "tests/lib/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_scratch(void *scratch)
{
    record_scratch_free(scratch);
}

static struct record_scratch *scratch_make(void **state)
{
    struct record_scratch *scratch = arena_alloc(case_arena(state), sizeof *scratch);
    assert_ok(record_scratch_make(scratch));
    case_later(state, free_scratch, scratch);
    return scratch;
}

static uint8_t *any_bytes(struct arena *arena, struct prng *prng, size_t bytes)
{
    uint8_t *data = arena_alloc(arena, bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)prng_next(prng);
    return data;
}

static struct record_bits any_bits(struct arena *arena, struct prng *prng)
{
    uint32_t bytes = (uint32_t)prng_between(prng, 0, 90);
    uint8_t *bits = arena_zero(arena, bytes + 1u);
    uint64_t of = prng_chance(prng, 1, 2) ? 2 : 20;
    for (uint32_t i = 0; i < bytes * 8; i++) {
        if (prng_chance(prng, 1, of))
            bit_set(bits, i);
    }
    return (struct record_bits){.bits = bytes == 0 ? NULL : bits, .bytes = bytes};
}

static void assert_same_bits(struct record_bits a, struct record_bits b)
{
    uint32_t most = a.bytes > b.bytes ? a.bytes : b.bytes;
    for (uint32_t i = 0; i < most * 8; i++) {
        bool in_a = i < a.bytes * 8 && bit_get(a.bits, i), in_b = i < b.bytes * 8 && bit_get(b.bits, i);
        assert_int_equal(in_a, in_b);
    }
}

static void fill_execution(struct arena *arena, struct prng *prng, struct record_execution *record)
{
    *record = (struct record_execution){
        .id = {.session = prng_next(prng), .counter = prng_between(prng, 2, 1 << 30)},
        .plan = {.hi = prng_next(prng), .lo = prng_next(prng)},
        .numerics = (uint32_t)prng_between(prng, 0, UINT32_MAX),
        .attempt = (uint32_t)prng_between(prng, 0, 3),
        .delta_length = (uint32_t)prng_between(prng, 0, 300),
        .check = (uint32_t)prng_next(prng),
    };
    record->delta = any_bytes(arena, prng, record->delta_length);
    record->base = prng_chance(prng, 1, 2) ? 0 : prng_between(prng, 1, record->id.counter - 1);
    record->before = record->base < 2 || prng_chance(prng, 1, 2) ? 0 : prng_between(prng, 1, record->base - 1);
    record->keep = any_bits(arena, prng);
    record->donate = any_bits(arena, prng);
    uint64_t producer = 0;
    for (uint64_t n = prng_between(prng, 0, 5); n > 0 && producer + 1 < record->id.counter; n--) {
        producer = prng_between(prng, producer + 1, record->id.counter - 1);
        record->producer[record->producers++] = producer;
    }
    record->answers = (uint32_t)prng_between(prng, 0, 4);
    for (uint32_t i = 0; i < record->answers; i++) {
        record->answer[i] = (struct record_answer){.output = (uint32_t)prng_between(prng, 0, 999),
                                                   .length = (uint32_t)prng_between(prng, 0, 256)};
        record->answer[i].bytes = any_bytes(arena, prng, record->answer[i].length);
    }
}

static void assert_same_execution(const struct record_execution *a, const struct record_execution *b)
{
    assert_true(exec_id_equal(a->id, b->id) && hash128_equal(a->plan, b->plan));
    assert_true(a->base == b->base && a->numerics == b->numerics && a->attempt == b->attempt);
    assert_int_equal(a->delta_length, b->delta_length);
    assert_int_equal(a->check, b->check);
    assert_memory_equal(a->delta, b->delta, a->delta_length);
    assert_same_bits(a->keep, b->keep);
    assert_same_bits(a->donate, b->donate);
    assert_int_equal(a->producers, b->producers);
    assert_memory_equal(a->producer, b->producer, a->producers * sizeof a->producer[0]);
    assert_int_equal(a->answers, b->answers);
    for (uint32_t i = 0; i < a->answers; i++) {
        assert_int_equal(a->answer[i].output, b->answer[i].output);
        assert_int_equal(a->answer[i].length, b->answer[i].length);
        assert_memory_equal(a->answer[i].bytes, b->answer[i].bytes, a->answer[i].length);
    }
}

static void executions_come_back_as_they_were_written(void **state)
{
    struct record_scratch *scratch = scratch_make(state);
    struct arena *arena = case_arena(state);
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct prng prng = case_prng(state, seed);
        struct record written[3], read;
        struct writer writer = writer_make(1 << 20);
        for (int i = 0; i < 3; i++) {
            written[i].kind = RECORD_EXECUTION;
            fill_execution(arena, &prng, &written[i].execution);
            record_write(&writer, &written[i]);
        }
        struct reader reader = reader_make(writer.data, writer.length);
        for (int i = 0; i < 3; i++) {
            assert_ok(record_read(&reader, scratch, &read));
            assert_int_equal(read.kind, RECORD_EXECUTION);
            assert_same_execution(&written[i].execution, &read.execution);
        }
        assert_int_equal(reader_left(&reader), 0);
        writer_free(&writer);
    }
}

static void the_other_kinds_come_back_too(void **state)
{
    struct record_scratch *scratch = scratch_make(state);
    struct record plan = {.kind = RECORD_PLAN, .plan = {.fingerprint = {1, 2}, .bytes = (const uint8_t *)"abc", .length = 3}};
    struct record leaf = {.kind = RECORD_LEAF, .leaf = {.content = {3, 4}, .length = 24}};
    leaf.leaf.meta = (struct tensor_meta){.dtype = DTYPE_F32, .rank = 2, .size = {2, 3}, .stride = {3, 1}};
    struct record session = {.kind = RECORD_SESSION,
                             .session = {.session = 17, .epoch = 2, .watermark = 99, .opened_ns = 5, .seen_ns = 6}};
    snprintf(session.session.client, RECORD_TEXT_MAX, "r\xC3\xA9my@host");
    snprintf(session.session.worker, RECORD_TEXT_MAX, "w1");
    struct record worker = {
        .kind = RECORD_WORKER,
        .worker = {.incarnation = 1, .generation = 2, .memory_bytes = 3, .seen_ns = 4, .devices = 5, .numerics = 6}};
    snprintf(worker.worker.name, RECORD_TEXT_MAX, "worker-a");
    snprintf(worker.worker.address, RECORD_TEXT_MAX, "tcp://127.0.0.1:7071");
    snprintf(worker.worker.backend, RECORD_TEXT_MAX, "cpu");
    struct writer writer = writer_make(1 << 20);
    record_write(&writer, &plan);
    record_write(&writer, &leaf);
    record_write(&writer, &session);
    record_write(&writer, &worker);

    struct reader reader = reader_make(writer.data, writer.length);
    struct record read;
    assert_ok(record_read(&reader, scratch, &read));
    assert_true(read.kind == RECORD_PLAN && hash128_equal(read.plan.fingerprint, plan.plan.fingerprint) && read.plan.length == 3);
    assert_memory_equal(read.plan.bytes, "abc", 3);
    assert_ok(record_read(&reader, scratch, &read));
    assert_true(read.kind == RECORD_LEAF && read.leaf.length == 24 && tensor_same_sizes(&read.leaf.meta, &leaf.leaf.meta));
    assert_ok(record_read(&reader, scratch, &read));
    assert_true(read.kind == RECORD_SESSION && read.session.watermark == 99 && read.session.seen_ns == 6);
    assert_string_equal(read.session.client, session.session.client);
    assert_string_equal(read.session.tenant, "");
    assert_string_equal(read.session.worker, "w1");
    assert_ok(record_read(&reader, scratch, &read));
    assert_true(read.kind == RECORD_WORKER && read.worker.numerics == 6 && read.worker.generation == 2);
    assert_string_equal(read.worker.backend, "cpu");
    assert_int_equal(reader_left(&reader), 0);
    writer_free(&writer);
}

static void a_decode_step_of_gpt2_takes_under_256_bytes(void **state)
{
    (void)state;
    struct binding_history history = {0};
    size_t bytes = 0;
    for (int step = 0; step < 4; step++) {
        struct graph *graph = graph_make();
        graph_gpt2(graph, 12, 768, 12, 128 + step, 1, true, true);
        struct graph_result result = graph_finish(graph);
        if (step == 0)
            history_init(&history, result.plan->words);
        struct writer delta = writer_make(1 << 20), writer = writer_make(1 << 20);
        bindings_encode(&history, result.word, &delta);
        assert_ok(history_push(&history, result.word));
        uint8_t donated[64] = {0};
        for (uint32_t i = 0; i < result.plan->inputs; i++) {
            if (!result.plan->input[i].is_leaf)
                bit_set(donated, i);
        }
        // All of the caches, which the step before made and this one took over.
        struct record_ref gone_ref[64];
        uint32_t gones = 0;
        for (uint32_t i = 0; i < result.plan->inputs && step > 0; i++) {
            uint64_t distance;
            if (result.plan->input[i].is_leaf)
                continue;
            binding_handle(result.plan, result.word, i, &distance, &gone_ref[gones].output);
            gone_ref[gones++].counter = 100000 + (uint64_t)step - distance;
        }
        struct writer gone = writer_make(1 << 20);
        record_refs_write(&gone, 100000 + (uint64_t)step, gone_ref, gones);
        assert_true(step == 0 || gones >= 24);
        static const uint8_t token[8] = {1};
        struct record record = {.kind = RECORD_EXECUTION};
        record.execution = (struct record_execution){
            .id = {.session = 1u << 30, .counter = 100000 + (uint64_t)step},
            .plan = result.plan->fingerprint,
            .base = step == 0 ? 0 : 100000 + (uint64_t)step - 1,
            .delta = delta.data,
            .delta_length = (uint32_t)delta.length,
            .keep = {.bits = result.keep, .bytes = result.plan->outputs / 8 + 1},
            .donate = {.bits = donated, .bytes = sizeof donated},
            .gone = gone.data,
            .gone_bytes = (uint32_t)gone.length,
            .numerics = 0xFEDCBA98,
            .cost_ns = 20000000,
            .producers = step == 0 ? 0 : 1,
            .producer = {100000 + (uint64_t)step - 1},
            .answers = 1,
            .answer = {{.output = result.plan->outputs - 1, .length = 8, .bytes = token}},
        };
        record_write(&writer, &record);
        bytes = writer.length;
        print_message("step %d: delta %zu bytes, gone %zu bytes, record %zu bytes\n", step, delta.length, gone.length, bytes);
        writer_free(&gone);
        writer_free(&delta);
        writer_free(&writer);
        graph_result_free(&result);
    }
    assert_true(bytes <= 256);
    history_free(&history);
}

static size_t length_with(const uint8_t *bits, uint32_t bytes)
{
    struct record record = {.kind = RECORD_EXECUTION, .execution = {.id = {1, 1}, .keep = {.bits = bits, .bytes = bytes}}};
    struct writer writer = writer_make(1 << 20);
    record_write(&writer, &record);
    size_t length = writer.length;
    writer_free(&writer);
    return length;
}

static void bit_sets_take_what_the_shorter_form_takes(void **state)
{
    (void)state;
    uint8_t bits[100] = {0};
    size_t empty = length_with(bits, sizeof bits);
    assert_int_equal(length_with(NULL, 0), empty);
    for (uint32_t i = 0; i < 800; i += 80)
        bit_set(bits, i);
    assert_int_equal(length_with(bits, sizeof bits), empty + 10);    // ten gaps
    memset(bits, 0xFF, sizeof bits);
    assert_int_equal(length_with(bits, sizeof bits), empty + 1 + 100);    // the bitmap, whose length takes one byte more
}

static void truncated_and_changed_records_are_refused_or_other_records(void **state)
{
    struct record_scratch *scratch = scratch_make(state);
    struct prng prng = case_prng(state, 9);
    struct record record = {.kind = RECORD_EXECUTION}, read;
    fill_execution(case_arena(state), &prng, &record.execution);
    struct writer writer = writer_make(1 << 20);
    record_write(&writer, &record);
    for (size_t length = 0; length < writer.length; length++) {
        uint8_t *exact = malloc(length + 1);
        memcpy(exact, writer.data, length);
        struct reader reader = reader_make(exact, length);
        enum dj_error error = record_read(&reader, scratch, &read);
        assert_true(error == DJ_E_FRAME_TRUNCATED || error == DJ_E_MALFORMED);
        free(exact);
    }
    for (int round = 0; round < 20000; round++) {
        uint8_t noise[64];
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)(prng_chance(&prng, 1, 2) ? prng_between(&prng, 0, 6) : prng_next(&prng));
        struct reader reader = reader_make(noise, sizeof noise);
        enum dj_error error = record_read(&reader, scratch, &read);
        assert_true(error == DJ_OK || error == DJ_E_FRAME_TRUNCATED || error == DJ_E_MALFORMED);
    }
    // After all that the scratch is still clean.
    struct reader reader = reader_make(writer.data, writer.length);
    assert_ok(record_read(&reader, scratch, &read));
    assert_same_execution(&record.execution, &read.execution);
    writer_free(&writer);
}

static void keys_sort_like_the_numbers_and_parse_back(void **state)
{
    struct prng prng = case_prng(state, 4);
    for (int i = 0; i < 5000; i++) {
        struct exec_id id[2];
        uint8_t key[2][RECORD_KEY_MAX];
        for (int k = 0; k < 2; k++) {
            id[k] = (struct exec_id){prng_between(&prng, 0, 3) << 40, prng_next(&prng) >> prng_between(&prng, 0, 63)};
            assert_int_equal(record_key_execution(id[k], key[k]), 16);
            struct exec_id back;
            assert_true(record_key_parse_execution(key[k], 16, &back));
            assert_true(exec_id_equal(back, id[k]));
        }
        int expected = id[0].session != id[1].session   ? (id[0].session < id[1].session ? -1 : 1)
                       : id[0].counter != id[1].counter ? (id[0].counter < id[1].counter ? -1 : 1)
                                                        : 0;
        int actual = memcmp(key[0], key[1], 16);
        assert_int_equal(actual < 0 ? -1 : actual > 0, expected);
    }
    uint8_t key[RECORD_KEY_MAX];
    struct hash128 hash = {0x0102030405060708u, 0x090A0B0C0D0E0F10u}, hash_back;
    uint64_t session;
    struct exec_id id;
    assert_int_equal(record_key_plan(hash, key), 16);
    assert_memory_equal(key, "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20", 16);
    assert_true(record_key_parse_hash(key, 16, &hash_back) && hash128_equal(hash, hash_back));
    assert_int_equal(record_key_session(77, key), 8);
    assert_true(record_key_parse_session(key, 8, &session) && session == 77);
    assert_false(record_key_parse_session(key, 7, &session) || record_key_parse_hash(key, 15, &hash_back) ||
                 record_key_parse_execution(key, 21, &id));
    assert_int_equal(record_key_worker("w1", key), 2);
}

CASES(executions_come_back_as_they_were_written, the_other_kinds_come_back_too, a_decode_step_of_gpt2_takes_under_256_bytes,
      bit_sets_take_what_the_shorter_form_takes, truncated_and_changed_records_are_refused_or_other_records,
      keys_sort_like_the_numbers_and_parse_back)
