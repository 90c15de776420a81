// What a worker promises to its clients, played against a scripted world (bench.h).

#include "tests/gpu_worker/actors/bench.h"

static const float input[4] = {1, 2, 3, 4};

static void drop_plan(void *plan)
{
    plan_drop(plan);
}

static struct srg_plan *plan_of(void **state, bool is_leaf)
{
    struct srg_plan *plan = bench_plan(is_leaf);
    case_later(state, drop_plan, plan);
    return plan;
}

static void assert_answer(uint64_t link, uint64_t counter, const float expected[4])
{
    struct wire_answer answer;
    bench_take(answer, ANSWER, link, &answer);
    assert_int_equal(answer.counter, counter);
    assert_int_equal(answer.incarnation, 77);
    assert_int_equal(answer.outputs_count, expected == NULL ? 0 : 1);
    if (expected == NULL)
        return;
    assert_int_equal(answer.outputs[0].bytes, 16);
    assert_memory_equal(answer.outputs[0].data, expected, 16);
}

static void an_execution_with_an_inline_leaf_is_answered_and_its_value_can_be_built_on_and_fetched(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    float once[4], twice[4];
    bench_neg(input, once);
    bench_neg(once, twice);
    bench_execute(link, first, (struct ask){.counter = 1, .index = 0, .leaf = input, .keeps = true, .answers = true});
    assert_answer(link, 1, once);
    bench_execute(link, next, (struct ask){.counter = 2, .index = 1, .distance = 1, .keeps = true, .donates = true});
    assert_answer(link, 2, NULL);
    bench_fetch(link, 42, 2);
    struct sent *sent = bench_heard(link, WIRE_VALUE);
    assert_non_null(sent);
    assert_memory_equal(sent->bulk->data + sent->bulk_offset, twice, 16);
    bench_fetch(link, 43, 1);    // donated: gone
    struct wire_failed failed;
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_HANDLE_UNKNOWN);
    assert_int_equal(failed.request, 43);
}

static void what_is_asked_twice_is_run_once_and_answered_twice(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL), last;
    struct srg_plan *plan = plan_of(state, true);
    float once[4];
    bench_neg(input, once);
    bench_send_plan(link, 0, plan);
    struct ask ask = {.counter = 1, .index = 0, .leaf = input, .keeps = true, .answers = true};
    bench_execute(link, plan, ask);
    assert_answer(link, 1, once);
    uint64_t lists = bench.device.ticket;
    bench_down(link);
    link = bench_client(&last);
    assert_int_equal(last, 1);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, ask);
    assert_answer(link, 1, once);
    assert_int_equal(bench.device.ticket, lists);

    ask.keeps = false;    // the same number for something else
    bench_execute(link, plan, ask);
    struct wire_execution_failed failed;
    bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_DUPLICATE_DIFFERS);

    ask = (struct ask){.counter = 2, .index = 0, .leaf = input, .confirmed = 1};
    bench_execute(link, plan, ask);
    assert_answer(link, 2, NULL);
    ask = (struct ask){.counter = 1, .index = 0, .leaf = input, .keeps = true, .answers = true};
    bench_execute(link, plan, ask);    // confirmed, so not kept any more
    bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_STALE);
}

static void an_execution_waits_for_a_leaf_that_it_asks_its_client_for(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    float once[4];
    bench_neg(input, once);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .content = hash128(input, 16), .is_only_named = true, .answers = true});
    assert_null(bench_heard(link, WIRE_ANSWER));
    struct wire_leaf_need need;
    bench_take(leaf_need, LEAF_NEED, link, &need);
    assert_int_equal(need.leaves_count, 1);
    struct wire_leaf_data data = {.content = need.leaves[0].content, .bytes = 16};
    bench_say_bulk(link, WIRE_LEAF_DATA, wire_leaf_data_encode(&data), blob_copy(input, 16));
    struct wire_leaf_ok ok;
    bench_take(leaf_ok, LEAF_OK, link, &ok);
    assert_answer(link, 1, once);
}

static void a_leaf_that_nobody_gives_fails_the_execution_after_a_while_and_what_builds_on_it(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench_execute(link, first, (struct ask){.counter = 1, .content = {3, 4}, .is_only_named = true, .keeps = true});
    bench_execute(link, next, (struct ask){.counter = 2, .index = 1, .distance = 1, .keeps = true});
    bench_later(2 * WORKER_FETCH_NS);
    for (uint64_t counter = 1; counter <= 2; counter++) {
        struct wire_execution_failed failed;
        bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
        assert_int_equal(failed.counter, counter);
        assert_int_equal(failed.error, DJ_E_LEAF_UNKNOWN);
    }
}

static void a_large_leaf_comes_in_pieces_and_a_corrupt_one_is_never_used(void **state)
{
    bench_make(state, bench_config(), 32 << 20);
    uint64_t link = bench_client(NULL), bytes = WIRE_CHUNK_BYTES + 1000;
    uint8_t *leaf = arena_alloc(bench.arena, bytes);
    for (uint64_t i = 0; i < bytes; i++)
        leaf[i] = (uint8_t)(i * 31 >> 3);
    for (int is_corrupt = 1; is_corrupt >= 0; is_corrupt--) {
        struct wire_leaf named = {.content = hash128(leaf, bytes), .bytes = bytes};
        struct wire_leaf_offer offer = {.leaves = &named, .leaves_count = 1};
        bench_say(link, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&offer));
        struct wire_leaf_need need;
        bench_take(leaf_need, LEAF_NEED, link, &need);
        for (uint64_t at = 0; at < bytes; at += WIRE_CHUNK_BYTES) {
            uint64_t piece = bytes - at < WIRE_CHUNK_BYTES ? bytes - at : WIRE_CHUNK_BYTES;
            struct wire_leaf_data data = {.content = named.content, .bytes = bytes, .offset = at};
            struct blob *bulk = blob_copy(leaf + at, piece);
            bulk->data[5] ^= (uint8_t)is_corrupt;
            bench_say_bulk(link, WIRE_LEAF_DATA, wire_leaf_data_encode(&data), bulk);
        }
        assert_int_equal(bench_heard(link, WIRE_LEAF_OK) != NULL, !is_corrupt);
    }
}

static void without_the_token_or_the_grant_nothing_is_taken(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    struct wire_failed failed;
    uint64_t link = bench_greet(ROLE_CLIENT, (struct hash128){1, 3});
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_TOKEN);
    assert_int_equal(bench.closed_link, link);

    bench_client(NULL);    // admits the session, with secret {9, 9}
    link = bench_greet(ROLE_CLIENT, (struct hash128){1, 2});
    struct wire_attach attach = {.session = 5, .epoch = 1, .secret = {9, 8}};
    bench_say(link, WIRE_ATTACH, wire_attach_encode(&attach));
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_GRANT);

    link = bench_accept();
    bench_say(link, WIRE_ATTACH, wire_attach_encode(&attach));    // not even greeted
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_UNEXPECTED);
}

static void one_session_has_two_executions_on_the_device_and_others_get_their_turn(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench.holds_device = true;
    for (uint64_t counter = 1; counter <= 10; counter++)
        bench_execute(link, plan, (struct ask){.counter = counter, .leaf = input});
    assert_int_equal(bench.device.tail - bench.device.head, WORKER_IN_FLIGHT_MAX);
    bench.holds_device = false;
    bench_run();
    for (uint64_t counter = 1; counter <= 10; counter++)
        assert_answer(link, counter, NULL);
}

static void a_session_that_stays_away_is_forgotten_with_its_values(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL), last;
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench_down(link);
    bench_later(WORKER_GRACE_NS / 2);
    link = bench_client(&last);
    assert_int_equal(last, 1);
    bench_down(link);
    bench_later(WORKER_GRACE_NS + 1000000000);
    bench_client(&last);
    assert_int_equal(last, 0);
}

static void a_failed_kernel_names_its_node_and_the_stream_goes_on(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench.device.fail_task = 1;
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true, .answers = true});
    struct wire_execution_failed failed;
    bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_INDEX);
    assert_int_equal(failed.node, 0);
    float once[4];
    bench_neg(input, once);
    bench_execute(link, plan, (struct ask){.counter = 2, .leaf = input, .answers = true});
    assert_answer(link, 2, once);
}

static void a_fetch_that_is_back_before_what_it_reads_waits_for_it_and_fails_with_it(void **state)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    for (uint64_t counter = 1; counter <= 2; counter++) {
        bool is_failing = counter == 2;
        bench.holds_device = true;
        bench.device.fail_task = is_failing;
        bench_execute(link, plan, (struct ask){.counter = counter, .leaf = input, .keeps = true});
        bench_fetch(link, 40 + counter, counter);
        struct device_list *computed = fake_step(&bench.device), *read = fake_step(&bench.device);
        assert_true(computed->stream == DEVICE_COMPUTE && read != NULL && read->stream == DEVICE_TRANSFER);
        bench_post(&(struct io_event){.kind = IO_DEVICE_DONE, .device_done = {.list = read}});
        bench_run();
        assert_null(bench_heard(link, WIRE_VALUE));
        bench_post(&(struct io_event){.kind = IO_DEVICE_DONE, .device_done = {.list = computed}});
        bench.holds_device = false;
        bench_run();
        assert_int_equal(bench_heard(link, WIRE_VALUE) != NULL, !is_failing);
        assert_int_equal(bench_heard(link, WIRE_EXECUTION_FAILED) != NULL, is_failing);
    }
    struct wire_failed failed;
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_INDEX);
    assert_int_equal(failed.request, 42);
}

// A list comes back from a device that has lost everything.
static void lose_device(void **state, bool is_gone)
{
    bench_make(state, bench_config(), 1 << 20);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench.holds_device = true;
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    struct device_list *list = fake_step(&bench.device);
    assert_non_null(list);
    list->error = fault_set(&list->fault, DJ_E_DEVICE_LOST, "lost");
    bench.device.info.lives = 1;
    bench.device.info.is_gone = is_gone;
    bench_post(&(struct io_event){.kind = IO_DEVICE_DONE, .device_done = {.list = list}});
    bench_run();
}

static void a_worker_whose_device_was_made_anew_begins_another_life(void **state)
{
    lose_device(state, false);
    assert_false(bench.has_stopped);
    bench.holds_device = false;
    assert_true(bench_client(NULL) != 0);    // it takes clients
}

static void a_worker_whose_device_is_gone_ends_with_its_process(void **state)
{
    lose_device(state, true);
    assert_true(bench.has_stopped);
}

CASES(an_execution_with_an_inline_leaf_is_answered_and_its_value_can_be_built_on_and_fetched,
      what_is_asked_twice_is_run_once_and_answered_twice, an_execution_waits_for_a_leaf_that_it_asks_its_client_for,
      a_leaf_that_nobody_gives_fails_the_execution_after_a_while_and_what_builds_on_it,
      a_large_leaf_comes_in_pieces_and_a_corrupt_one_is_never_used, without_the_token_or_the_grant_nothing_is_taken,
      one_session_has_two_executions_on_the_device_and_others_get_their_turn,
      a_session_that_stays_away_is_forgotten_with_its_values, a_failed_kernel_names_its_node_and_the_stream_goes_on,
      a_fetch_that_is_back_before_what_it_reads_waits_for_it_and_fails_with_it,
      a_worker_whose_device_was_made_anew_begins_another_life, a_worker_whose_device_is_gone_ends_with_its_process)
