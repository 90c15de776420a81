// What the protocol promises about links, against a scripted head and worker: one outcome for every submission, fetch and question, whatever the
// links do; what was answered is not sent again; nothing waits for ever.

#include "frontend/client/protocol/protocol.h"

#include <stdlib.h>
#include <string.h>

#include "tests/frontend/client/stage.h"

// Tests --------------------------------------------------------------------------------------------------------------------

static void a_submission_is_answered(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    struct wire_execute execute = execute_of(stage);
    assert_true(execute.reset);
    assert_int_equal(execute.leaves_count, 1);
    assert_int_equal(execute.leaves[0].data_bytes, 16);
    answer(stage, 1);
    assert_int_equal(stage->outcome[1].executed, 1);
    assert_int_equal(stage->outcome[1].answers, 1);
    assert_memory_equal(stage->outcome[1].data, "abcdefgh", 8);
    assert_true(protocol_is_idle(stage->protocol));
}

static void the_second_of_its_kind_is_a_few_bytes(void **state)
{
    struct stage *stage = stage_ready(state);
    for (uint64_t counter = 1; counter <= 4; counter++) {
        submit(stage, counter);
        if (counter == 1)
            next(stage, WIRE_PLAN);
        const struct sent *sent = &stage->sent[stage->seen];
        struct wire_execute execute = execute_of(stage);
        answer(stage, counter);
        if (counter > 1) {
            assert_int_equal(execute.leaves_count + execute.kept_bytes + execute.donated_bytes, 0);
            assert_int_equal(execute.confirmed, counter - 1);
            assert_true(sent->body->bytes <= 24);
        }
    }
}

static void a_link_that_was_lost_is_remade_and_only_what_is_unanswered_goes_again(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    submit(stage, 2);
    submit(stage, 3);
    answer(stage, 1);
    stage_down(stage, WORKER_LINK);
    pass(stage, 1 * MS);
    submit(stage, 4);    // while the link is away
    stage->seen = stage->sents;
    open_worker(stage, WORKER_LINK + 1, 2);
    next(stage, WIRE_PLAN);
    for (uint64_t counter = 2; counter <= 4; counter++) {
        struct wire_execute execute = execute_of(stage);
        assert_int_equal(execute.counter, counter);
        assert_int_equal(execute.reset, counter <= 3);    // 2 is a repetition: no record can build on it
    }
    nothing_more(stage);
    answer(stage, 2);
    answer(stage, 2);    // told twice, taken once
    answer(stage, 4);    // speaks for 3 too
    for (uint64_t counter = 1; counter <= 4; counter++)
        assert_int_equal(stage->outcome[counter].executed, 1);
    assert_int_equal(protocol_stats(stage->protocol).resubmissions, 2);
    assert_int_equal(stage->places_lost, 0);
}

static void a_worker_that_refuses_its_link_is_replaced_within_a_second(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    stage_down(stage, WORKER_LINK);
    stage->seen = stage->sents;
    uint64_t begun_ns = stage->now_ns;
    while (stage->sents == stage->seen) {
        assert_true(stage->now_ns - begun_ns < 1000 * MS);
        pass(stage, 10 * MS);
        stage_down(stage, 0);
    }
    pass(stage, 250 * MS);
    struct wire_grant_ask ask;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    assert_int_equal(ask.avoid, INCARNATION);
    assert_int_equal(stage->outcome[1].failed, 0);
    assert_int_equal(stage->places_lost, 0);
}

static void a_worker_that_never_comes_back_is_replaced_within_a_second_too(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    stage_down(stage, WORKER_LINK);
    stage->seen = stage->sents;
    pass(stage, 1100 * MS);    // the dial neither succeeds nor fails
    next(stage, WIRE_GRANT_ASK);
}

static void a_place_without_a_worker_for_too_long_is_lost(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    protocol_fetch(stage->protocol, stage->now_ns, 0, 1, 0, (void *)2);
    struct wire_grant_ask ask = lose_worker(stage);
    for (uint32_t asked = 0; asked < 20; asked++) {    // every 250 ms while there is none
        RECEIVE(HEAD_LINK, FAILED, failed, .request = ask.request, .error = DJ_E_NO_WORKER, .text = "none");
        nothing_more(stage);
        pass(stage, 250 * MS);
        DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    }
    assert_int_equal(stage->outcome[1].failed, 0);
    pass(stage, PROTOCOL_RECOVERY_NS);
    assert_int_equal(stage->outcome[1].error, DJ_E_NO_WORKER);
    assert_int_equal(stage->outcome[2].fetched, 1);
    assert_int_equal(stage->outcome[2].error, DJ_E_NO_WORKER);
    assert_int_equal(stage->places_lost, 1);
    assert_non_null(strstr(stage->outcome[1].text, "w0"));
}

static void another_life_of_the_worker_is_not_the_worker(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    stage_down(stage, WORKER_LINK);
    pass(stage, 1 * MS);
    stage_up(stage, WORKER_LINK + 1);
    stage->seen = stage->sents;
    RECEIVE(WORKER_LINK + 1, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = INCARNATION + 1);
    next(stage, WIRE_GRANT_ASK);
    assert_int_equal(stage->outcome[1].failed, 0);
}

static void a_head_that_says_no_is_quoted(void **state)
{
    struct stage *stage = stage_make(state);
    stage_up(stage, HEAD_LINK);
    struct fault fault = {0};
    RECEIVE(HEAD_LINK, FAILED, failed, .error = DJ_E_TOKEN, .text = "wrong token");
    assert_int_equal(protocol_state(stage->protocol, &fault), PROTOCOL_FAILED);
    assert_int_equal(fault.code, DJ_E_TOKEN);
    assert_string_equal(fault.text, "wrong token");
}

static void a_head_that_is_not_there_is_named_within_a_second(void **state)
{
    struct stage *stage = stage_make(state);
    struct fault fault = {0};
    for (int i = 0; i < 100; i++) {
        stage_down(stage, 0);
        pass(stage, 10 * MS);
    }
    assert_int_equal(protocol_state(stage->protocol, &fault), PROTOCOL_FAILED);
    assert_int_equal(fault.code, DJ_E_NO_HEAD);
    assert_non_null(strstr(fault.text, "h:1"));
}

static void a_head_that_says_nothing_times_out(void **state)
{
    struct stage *stage = stage_make(state);
    struct fault fault = {0};
    stage_up(stage, HEAD_LINK);
    pass(stage, 6000 * MS);
    assert_int_equal(protocol_state(stage->protocol, &fault), PROTOCOL_FAILED);
    assert_int_equal(fault.code, DJ_E_TIMEOUT);
}

static void a_question_is_answered_or_its_failure_is(void **state)
{
    struct stage *stage = stage_ready(state);
    protocol_ask(stage->protocol, stage->now_ns, "status", "", (void *)1);
    struct wire_ask ask;
    DECODE(ask, next(stage, WIRE_ASK), &ask);
    assert_string_equal(ask.verb, "status");
    RECEIVE(HEAD_LINK, TOLD, told, .request = ask.request, .data = (const uint8_t *)"{}", .data_bytes = 2);
    assert_string_equal(stage->outcome[1].text, "{}");
    stage_down(stage, HEAD_LINK);
    protocol_ask(stage->protocol, stage->now_ns, "status", "", (void *)2);
    stage_down(stage, 0);
    for (int i = 0; i < 10; i++)
        pass(stage, 100 * MS), stage_down(stage, 0);
    assert_int_equal(stage->outcome[2].told, 1);
    assert_int_equal(stage->outcome[2].error, DJ_E_NO_HEAD);
}

static void work_goes_on_when_the_head_is_gone(void **state)
{
    struct stage *stage = stage_ready(state);
    stage_down(stage, HEAD_LINK);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    next(stage, WIRE_EXECUTE);
    answer(stage, 1);
    assert_int_equal(stage->outcome[1].executed, 1);
}

static void a_lost_head_is_dialled_again_and_the_session_resumed(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    next(stage, WIRE_EXECUTE);
    answer(stage, 1);
    stage_down(stage, HEAD_LINK);
    for (int refused = 0; refused < 3; refused++) {
        pass(stage, 1000 * MS);
        stage_down(stage, 0);
    }
    pass(stage, 1000 * MS);
    open_head_again(stage, HEAD_LINK + 50);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 1);
    watermark(stage, HEAD_LINK + 50, 1, 1);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 0);
}

static void the_window_is_bounded_and_answers_and_durability_open_it(void **state)
{
    struct stage *stage = stage_ready(state);
    uint64_t counter = 0;
    while (!protocol_is_full(stage->protocol))
        submit(stage, ++counter);
    assert_int_equal(counter, PROTOCOL_IN_FLIGHT_MAX);
    for (uint64_t c = 1; c <= counter; c++)
        answer(stage, c);
    assert_false(protocol_is_full(stage->protocol));
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, counter);
    watermark(stage, HEAD_LINK, 1, counter - 1);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 1);
}

static void a_failed_execution_fails_alone(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    submit(stage, 2);
    RECEIVE(WORKER_LINK, EXECUTION_FAILED, execution_failed, .counter = 1, .incarnation = INCARNATION,
            .error = DJ_E_DEVICE_MEMORY, .node = 0, .text = "full");
    answer(stage, 2);
    assert_int_equal(stage->outcome[1].failed, 1);
    assert_int_equal(stage->outcome[1].error, DJ_E_DEVICE_MEMORY);
    assert_string_equal(stage->outcome[1].text, "full");
    assert_int_equal(stage->outcome[2].executed, 1);
}

static void a_lost_link_may_have_lost_leaves_so_they_are_named_again(void **state)
{
    struct stage *stage = stage_ready(state);
    struct wire_execute execute;
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    DECODE(execute, next(stage, WIRE_EXECUTE), &execute);
    assert_int_equal(execute.leaves_count, 1);
    stage_down(stage, WORKER_LINK);
    pass(stage, 200 * MS);
    open_worker(stage, WORKER_LINK + 1, 0);
    next(stage, WIRE_PLAN);
    DECODE(execute, next(stage, WIRE_EXECUTE), &execute);
    assert_int_equal(execute.leaves_count, 1);
}

static void two_places_at_one_worker_have_a_stream_each_and_a_mark_says_exactly_which(void **state)
{
    struct stage *stage = stage_ready(state);
    uint32_t home = protocol_place(stage->protocol, stage->now_ns, -1), other = protocol_place(stage->protocol, stage->now_ns, 1);
    assert_int_not_equal(home, other);
    struct wire_grant_ask ask;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    assert_int_equal(ask.device_index, 1);
    uint32_t first = stage->stream;
    grant(stage, ask.request, INCARNATION);
    open_worker(stage, WORKER_LINK + 1, 0);
    assert_int_not_equal(stage->stream, first);
    stage->link = WORKER_LINK;
    submit(stage, 1);
    submit(stage, 2);
    answer(stage, 1);
    answer(stage, 2);
    watermark(stage, HEAD_LINK, 2, 9);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 1);
    watermark(stage, HEAD_LINK, 1, 1);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 0);
}

static void import_to(struct stage *stage, uint32_t place, uint64_t counter)
{
    protocol_import(stage->protocol, stage->now_ns, place, counter, 0, 1, 0, (void *)(uintptr_t)counter);
    struct wire_import import;
    DECODE(import, next(stage, WIRE_IMPORT), &import);
    assert_int_equal(import.counter, counter);
    stage->is_silent = true;
    answer(stage, counter);
}

// Until then its source is held: the worker that has the source tells of its end on another link than the one that tells of the import, and
// what is not live goes from the store.
static void an_import_has_run_when_it_is_durable_or_its_place_is_lost(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    answer(stage, 1);
    uint32_t other = protocol_place(stage->protocol, stage->now_ns, 1);
    stage->seen = stage->sents - 1;
    struct wire_grant_ask ask;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    grant(stage, ask.request, INCARNATION + 1);
    open_worker(stage, WORKER_LINK + 1, 0);
    import_to(stage, other, 2);
    import_to(stage, other, 3);
    assert_true(protocol_is_idle(stage->protocol));
    assert_int_equal(stage->outcome[2].executed + stage->outcome[3].executed, 0);
    watermark(stage, HEAD_LINK, 2, 2);
    assert_int_equal(stage->outcome[2].executed, 1);
    assert_int_equal(stage->outcome[3].executed, 0);
    RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = INCARNATION + 1);
    assert_int_equal(stage->outcome[3].executed, 0);    // it may be brought back from its source
    pass(stage, PROTOCOL_RECOVERY_NS);
    assert_int_equal(stage->places_lost, 1);
    assert_int_equal(stage->outcome[3].executed, 1);
    assert_int_equal(stage->outcome[2].executed, 1);
}

static void an_execution_is_kept_until_its_leaves_are_durable_too(void **state)
{
    struct stage *stage = stage_ready(state);
    leaf_drop(stage->leaf);
    assert_ok(leaf_of(stage->leaves, (float[]){9, 9, 9, 9}, 16, &stage->leaf));
    submit(stage, 1);
    answer(stage, 1);
    watermark(stage, HEAD_LINK, 1, 1);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 1);
    struct wire_leaf leaf = {.content = stage->leaf->content, .bytes = 16};
    RECEIVE(WORKER_LINK, LEAF_OK, leaf_ok, .durable = true, .leaves = &leaf, .leaves_count = 1);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 0);
}

static void a_large_leaf_is_offered_and_sent_in_chunks_when_needed(void **state)
{
    struct stage *stage = stage_ready(state);
    uint64_t bytes = WIRE_CHUNK_BYTES + 5;
    uint8_t *data = calloc(1, bytes);
    leaf_drop(stage->leaf);
    assert_ok(leaf_of(stage->leaves, data, bytes, &stage->leaf));
    free(data);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    struct wire_leaf_offer offer;
    DECODE(leaf_offer, next(stage, WIRE_LEAF_OFFER), &offer);
    assert_int_equal(offer.leaves_count, 1);
    assert_int_equal(execute_of(stage).leaves_count, 0);
    struct wire_leaf need = {.content = stage->leaf->content, .bytes = bytes};
    RECEIVE(WORKER_LINK, LEAF_NEED, leaf_need, .leaves = &need, .leaves_count = 1);
    struct wire_leaf_data part;
    const struct sent *sent = next(stage, WIRE_LEAF_DATA);
    assert_int_equal(sent->bulk_bytes, WIRE_CHUNK_BYTES);
    sent = next(stage, WIRE_LEAF_DATA);
    DECODE(leaf_data, sent, &part);
    assert_int_equal(part.offset, WIRE_CHUNK_BYTES);
    assert_int_equal(sent->bulk_bytes, 5);
    submit(stage, 2);
    execute_of(stage);
    nothing_more(stage);    // not offered again
    RECEIVE(WORKER_LINK, LEAF_OK, leaf_ok, .durable = true, .leaves = &need, .leaves_count = 1);
    for (uint32_t i = 0; i < stage->sents; i++) {
        blob_drop(stage->sent[i].bulk);
        stage->sent[i].bulk = NULL;
    }
    assert_null(stage->leaf->blob);    // the store has it
}

static void rubbish_from_a_worker_loses_it_and_nothing_else(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    stage->seen = stage->sents;
    receive(stage, WORKER_LINK, WIRE_ANSWER, blob_copy("\xff\xff\xff", 3), NULL);
    next(stage, WIRE_GRANT_ASK);
    assert_int_equal(stage->closed, WORKER_LINK);
    assert_int_equal(stage->outcome[1].failed, 0);
    assert_int_equal(protocol_state(stage->protocol, NULL), PROTOCOL_READY);
}

static void a_worker_that_stops_answering_pings_is_left(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    stage->seen = stage->sents;
    pass(stage, 2500 * MS);
    next(stage, WIRE_PING);
    RECEIVE(WORKER_LINK, PONG, pong, .number = 1);
    pass(stage, 9000 * MS);
    assert_int_not_equal(stage->closed, WORKER_LINK);
    pass(stage, 3000 * MS);
    assert_int_equal(stage->closed, WORKER_LINK);
}

// A worker that answers some, links that break at any time, dials that fail: in the end every tag has one outcome.
static void whatever_the_links_do_every_submission_has_one_outcome(void **state)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct prng prng = case_prng(state, seed);
        struct stage *stage = stage_ready(state);
        uint64_t counter = 0, received = 0, answered = 0;
        bool is_up = true;
        uint64_t link = WORKER_LINK;
        for (int step = 0; step < 100 && stage->places_lost == 0; step++) {
            uint64_t what = prng_between(&prng, 0, 9);
            if (what < 4) {
                submit(stage, ++counter);
                received = is_up ? counter : received;
            } else if (what < 7 && is_up && answered < received) {
                answer(stage, answered = prng_between(&prng, answered + 1, received));
            } else if (what == 7 && is_up) {
                stage_down(stage, link);
                is_up = false;
                pass(stage, 1);
            } else if (what == 8 && !is_up) {
                if (prng_chance(&prng, 1, 3)) {
                    stage_down(stage, 0);
                    pass(stage, 300 * MS);
                } else {
                    if (stage->sent[stage->sents - 1].message == WIRE_GRANT_ASK) {
                        struct wire_grant_ask ask;
                        DECODE(grant_ask, &stage->sent[stage->sents - 1], &ask);
                        grant(stage, ask.request, INCARNATION);    // it lived after all
                    }
                    stage->seen = stage->sents;
                    open_worker(stage, ++link, received);
                    is_up = true;
                    received = counter;
                }
            }
        }
        pass(stage, 20000 * MS);
        RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = INCARNATION);
        pass(stage, PROTOCOL_RECOVERY_NS);    // and no other
        assert_true(protocol_is_idle(stage->protocol));
        for (uint64_t c = 1; c <= counter; c++) {
            assert_int_equal(stage->outcome[c].executed + stage->outcome[c].failed, 1);
            if (c <= answered)
                assert_int_equal(stage->outcome[c].executed, 1);
        }
    }
}

CASES(a_submission_is_answered, the_second_of_its_kind_is_a_few_bytes,
      a_link_that_was_lost_is_remade_and_only_what_is_unanswered_goes_again,
      a_worker_that_refuses_its_link_is_replaced_within_a_second, a_worker_that_never_comes_back_is_replaced_within_a_second_too,
      a_place_without_a_worker_for_too_long_is_lost, another_life_of_the_worker_is_not_the_worker, a_head_that_says_no_is_quoted,
      a_head_that_is_not_there_is_named_within_a_second, a_head_that_says_nothing_times_out,
      a_question_is_answered_or_its_failure_is, work_goes_on_when_the_head_is_gone,
      a_lost_head_is_dialled_again_and_the_session_resumed, the_window_is_bounded_and_answers_and_durability_open_it,
      a_failed_execution_fails_alone, a_lost_link_may_have_lost_leaves_so_they_are_named_again,
      two_places_at_one_worker_have_a_stream_each_and_a_mark_says_exactly_which,
      an_import_has_run_when_it_is_durable_or_its_place_is_lost, an_execution_is_kept_until_its_leaves_are_durable_too,
      a_large_leaf_is_offered_and_sent_in_chunks_when_needed, rubbish_from_a_worker_loses_it_and_nothing_else,
      a_worker_that_stops_answering_pings_is_left, whatever_the_links_do_every_submission_has_one_outcome)
