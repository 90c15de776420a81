// Bindings: the words of a plan read back as they were set, hostile ones refused, and delta coding against random walks.

#include "core/srg/bindings.h"

#include "tests/lib/case.h"
#include "tests/lib/graph.h"
#include "tests/lib/random_plan.h"

#include <stdlib.h>
#include <string.h>

static void free_history(void *history)
{
    history_free(history);
}

static void free_random(void *random)
{
    random_plan_free(random);
}

static void free_result(void *result)
{
    graph_result_free(result);
}

static void free_writer(void *writer)
{
    writer_free(writer);
}

static struct binding_history *history_make(void **state, uint32_t words)
{
    struct binding_history *history = arena_alloc(case_arena(state), sizeof *history);
    history_init(history, words);
    case_later(state, free_history, history);
    return history;
}

static struct writer *make_writer(void **state)
{
    struct writer *writer = arena_alloc(case_arena(state), sizeof *writer);
    *writer = writer_make(64 << 20);
    case_later(state, free_writer, writer);
    return writer;
}

// Codes `word` at one end, decodes at the other, pushes at both; returns the bytes it took.
static size_t exchange(struct binding_history *sender, struct binding_history *receiver, const int64_t *word,
                       struct writer *writer)
{
    writer_reset(writer);
    bindings_encode(sender, word, writer);
    write_u8(writer, 0xAB);    // what follows in a message must be left alone
    int64_t *back = malloc((receiver->words + 1) * sizeof *back);
    struct reader reader = reader_make(writer->data, writer->length);
    assert_ok(bindings_decode(receiver, &reader, back));
    assert_int_equal(reader_left(&reader), 1);
    if (sender->words != 0)
        assert_memory_equal(back, word, sender->words * sizeof *word);
    assert_ok(history_push(sender, word));
    assert_ok(history_push(receiver, back));
    free(back);
    return writer->length - 1;
}

static void random_walks_come_back_as_they_were(void **state)
{
    struct writer *writer = make_writer(state);
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct prng prng = case_prng(state, seed);
        enum { WORDS_MAX = 300 };
        uint32_t words = (uint32_t)prng_between(&prng, 0, WORDS_MAX);
        struct binding_history *sender = history_make(state, words), *receiver = history_make(state, words);
        int64_t word[WORDS_MAX] = {0}, step[WORDS_MAX] = {0};
        for (int round = 0; round < 60; round++) {
            for (uint32_t i = 0; i < words; i++) {
                if (prng_chance(&prng, 1, 20))
                    step[i] = (int64_t)prng_between(&prng, 0, 3);
                if (prng_chance(&prng, 1, 40))
                    word[i] = (int64_t)prng_next(&prng);
                if (prng_chance(&prng, 1, 200))
                    word[i] = prng_chance(&prng, 1, 2) ? INT64_MIN : INT64_MAX;
                word[i] = (int64_t)((uint64_t)word[i] + (uint64_t)step[i]);
            }
            exchange(sender, receiver, word, writer);
            if (prng_chance(&prng, 1, 15)) {
                history_reset(sender);
                history_reset(receiver);
            }
        }
    }
}

static void a_vector_that_grows_evenly_takes_one_byte(void **state)
{
    struct writer *writer = make_writer(state);
    enum { WORDS = 2000 };
    struct binding_history *sender = history_make(state, WORDS), *receiver = history_make(state, WORDS);
    int64_t word[WORDS];
    for (int i = 0; i < WORDS; i++)
        word[i] = i * 1000;
    for (int round = 0; round < 10; round++) {
        size_t bytes = exchange(sender, receiver, word, writer);
        if (round >= 2)
            assert_int_equal(bytes, 1);
        for (int i = 0; i < WORDS; i += 3)
            word[i] += i % 7;
    }
    word[1234] += 5;    // one surprise: its gap in two bytes, its difference in one, the end
    assert_true(exchange(sender, receiver, word, writer) <= 4);
}

static void a_number_that_falls_is_as_short_as_one_that_grows(void **state)
{
    struct writer *writer = make_writer(state);
    struct binding_history *sender = history_make(state, 10), *receiver = history_make(state, 10);
    int64_t word[10] = {100, 200, 300};
    exchange(sender, receiver, word, writer);
    word[1] -= 3;
    assert_true(exchange(sender, receiver, word, writer) <= 3);
}

static void each_scalar_of_a_node_has_its_word(void **state)
{
    struct graph *graph = graph_make();
    struct srg_ref scalar = graph_scalar(graph, 1.0);
    OP3(graph, OP_WHERE, LEAF(graph, DTYPE_BOOL, 3), scalar, scalar);
    struct graph_result *result = arena_alloc(case_arena(state), sizeof *result);
    *result = graph_finish(graph);
    case_later(state, free_result, result);
    const int64_t scalars[] = {11, 22};
    binding_set_node(result->plan, result->word, 0, NULL, scalars);
    assert_int_equal(binding_scalar(result->plan, result->word, 0, 1), 11);
    assert_int_equal(binding_scalar(result->plan, result->word, 0, 2), 22);
}

static void hashes_take_no_more_than_their_bytes(void **state)
{
    struct writer *writer = make_writer(state);
    struct prng prng = case_prng(state, 3);
    enum { WORDS = 512 };
    struct binding_history *sender = history_make(state, WORDS), *receiver = history_make(state, WORDS);
    int64_t word[WORDS];
    for (int i = 0; i < WORDS; i++)
        word[i] = (int64_t)prng_next(&prng);
    assert_true(exchange(sender, receiver, word, writer) <= WORDS * 8 + 64);
}

static void a_decode_step_of_gpt2_takes_few_bytes(void **state)
{
    struct binding_history sender = {0}, receiver = {0};
    struct writer *writer = make_writer(state);
    struct hash128 fingerprint = {0};
    for (int step = 0; step < 6; step++) {
        struct graph *graph = graph_make();
        graph_gpt2(graph, 12, 768, 12, 128 + step, 1, true, true);
        struct graph_result *result = arena_alloc(case_arena(state), sizeof *result);
        *result = graph_finish(graph);
        case_later(state, free_result, result);
        if (step == 0) {
            fingerprint = result->plan->fingerprint;
            history_init(&sender, result->plan->words);
            history_init(&receiver, result->plan->words);
        }
        assert_true(hash128_equal(fingerprint, result->plan->fingerprint));    // a longer cache is the same plan
        size_t bytes = exchange(&sender, &receiver, result->word, writer);
        print_message("step %d: %u words, %zu bytes\n", step, result->plan->words, bytes);
        if (step >= 2)
            assert_true(bytes <= 4);
    }
    history_free(&sender);
    history_free(&receiver);
}

static void bytes_that_are_no_delta_are_refused(void **state)
{
    struct prng prng = case_prng(state, 11);
    enum { WORDS = 40 };
    struct binding_history *history = history_make(state, WORDS);
    int64_t word[WORDS] = {0}, back[WORDS];
    assert_ok(history_push(history, word));
    struct writer *writer = make_writer(state);
    for (int i = 0; i < WORDS; i += 2)
        word[i] = (int64_t)prng_next(&prng) >> prng_between(&prng, 0, 63);
    bindings_encode(history, word, writer);
    for (size_t length = 0; length < writer->length; length++) {
        struct reader reader = reader_make(writer->data, length);
        assert_error(DJ_E_BINDINGS_INVALID, bindings_decode(history, &reader, back));
    }
    static const uint8_t bad[][4] = {{41 * 4, 0, 3}, {7, 3},     {1, 0, 3},
                                     {1, 41, 3},     {2, 41, 3}, {160, 1, 0, 3}};    // gap, end with a gap, counts
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct reader reader = reader_make(bad[i], sizeof bad[i]);
        assert_error(DJ_E_BINDINGS_INVALID, bindings_decode(history, &reader, back));
    }
    for (int round = 0; round < 20000; round++) {    // never reads or writes outside; the sanitizers watch
        uint8_t noise[24];
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)prng_between(&prng, 0, prng_chance(&prng, 1, 2) ? 12 : 255);
        struct reader reader = reader_make(noise, sizeof noise);
        enum dj_error error = bindings_decode(history, &reader, back);
        assert_true(error == DJ_OK || error == DJ_E_BINDINGS_INVALID);
    }
}

static void words_read_back_as_they_were_set(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct prng prng = case_prng(state, seed);
        struct random_plan *random = arena_alloc(case_arena(state), sizeof *random);
        *random = random_plan_make(&prng, (struct random_plan_options){.nodes = 40});
        case_later(state, free_random, random);
        const struct srg_plan *plan = random->plan;
        int64_t *copy = calloc(plan->words + 1, sizeof *copy);
        for (uint32_t i = 0; i < plan->inputs; i++) {
            struct tensor_meta meta;
            assert_ok(binding_meta(plan, random->word, i, &meta, NULL));
            binding_set_meta(plan, copy, i, &meta);
            uint64_t distance;
            uint32_t output;
            if (plan->input[i].is_leaf) {
                binding_set_leaf(plan, copy, i, binding_leaf(plan, random->word, i));
            } else {
                binding_handle(plan, random->word, i, &distance, &output);
                binding_set_handle(plan, copy, i, distance, output);
            }
        }
        for (uint32_t n = 0; n < plan->nodes; n++) {
            struct attr attr[OP_ATTRS_MAX];
            int64_t scalar[8];
            uint32_t scalars = 0;
            binding_attrs(plan, random->word, n, attr);
            for (uint32_t r = 0; r < plan->node[n].refs; r++) {
                if (plan->ref[plan->node[n].first_ref + r].kind == REF_SCALAR)
                    scalar[scalars++] = binding_scalar(plan, random->word, n, r);
            }
            binding_set_node(plan, copy, n, attr, scalar);
        }
        assert_memory_equal(copy, random->word, plan->words * sizeof *copy);    // every word is somebody's
        free(copy);
    }
}

static void hostile_sizes_are_refused_with_the_input_named(void **state)
{
    struct graph *graph = graph_make();
    OP1(graph, OP_NEG, LEAF(graph, DTYPE_F32, 2, 3, 4));
    struct graph_result *result = arena_alloc(case_arena(state), sizeof *result);
    *result = graph_finish(graph);
    case_later(state, free_result, result);
    static const int64_t sizes[][3] = {
        {-1, 3, 4}, {INT64_MAX, INT64_MAX, INT64_MAX}, {INT64_MIN, 1, 1}, {1LL << 62, 4, 1}, {2, 1LL << 40, 1LL << 40}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct tensor_meta meta = {.dtype = DTYPE_F32, .rank = 3, .stride = {1, 1, 1}}, out;
        memcpy(meta.size, sizes[i], sizeof sizes[i]);
        binding_set_meta(result->plan, result->word, 0, &meta);
        struct fault fault = {0};
        uint32_t node = 77;
        enum dj_error error = plan_infer(result->plan, result->word, &out, NULL, &node, &fault);
        assert_true(error != DJ_OK);
        assert_int_equal(node, 0);
        assert_non_null(strstr(fault.text, "input 0"));
        assert_non_null(strstr(fault.text, "NEG"));
    }
}

static void pushing_after_the_second_time_allocates_nothing(void **state)
{
    struct binding_history *history = history_make(state, 100);
    int64_t word[100] = {0};
    assert_ok(history_push(history, word));
    uint64_t before = alloc_count();
    for (int i = 0; i < 10; i++)
        assert_ok(history_push(history, word));
    assert_int_equal(alloc_count(), before);
    for (uint64_t n = 0; n < 2; n++) {
        struct binding_history *other = history_make(state, 10);
        alloc_fail_after(n);
        enum dj_error error = history_push(other, word);
        alloc_fail_stop();
        assert_error(DJ_E_NO_MEMORY, error);
        assert_int_equal(other->depth, 0);
    }
}

CASES(random_walks_come_back_as_they_were, a_vector_that_grows_evenly_takes_one_byte,
      a_number_that_falls_is_as_short_as_one_that_grows, each_scalar_of_a_node_has_its_word, hashes_take_no_more_than_their_bytes,
      a_decode_step_of_gpt2_takes_few_bytes, bytes_that_are_no_delta_are_refused, words_read_back_as_they_were_set,
      hostile_sizes_are_refused_with_the_input_named, pushing_after_the_second_time_allocates_nothing)
