// What a program that runs again meets: what it did before is answered from its records, and nothing is sent; where it goes another way, or past
// its end, what it needs is brought to a worker and it goes on under numbers of its new life.

#include "tests/frontend/client/stage.h"

#include <string.h>

// What the client told the head.
static void take_records(struct stage *stage, struct writer *records)
{
    for (uint32_t i = 0; i < stage->sents; i++) {
        struct wire_journal journal;
        if (stage->sent[i].message != WIRE_JOURNAL)
            continue;
        DECODE(journal, &stage->sent[i], &journal);
        write_raw(records, journal.records, journal.records_bytes);
    }
}

static void chain(struct stage *stage, uint64_t first, uint64_t last)
{
    for (uint64_t number = first; number <= last; number++)
        number == 1 ? submit(stage, 1) : submit_from(stage, number, number - 1, false);
}

// A life that is over: executions 1 to `last`, answered and told.
static void live_once(void **state, uint64_t last, struct writer *records)
{
    struct stage *stage = stage_ready(state);
    chain(stage, 1, last);
    for (uint64_t number = 1; number <= last; number++)
        answer(stage, number);
    pass(stage, 1100 * MS);
    *records = writer_make(1 << 20);
    take_records(stage, records);
}

static struct stage *live_again(void **state, uint32_t epoch, const struct writer *records)
{
    struct stage *stage = stage_begin(state, "again");
    struct wire_session_open open;
    struct wire_journal_get get;
    stage->epoch = epoch;
    stage_up(stage, HEAD_LINK);
    next(stage, WIRE_HELLO);
    RECEIVE(HEAD_LINK, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
    assert_string_equal(open.name, "again");
    session(stage, open.request, INCARNATION, 3);
    assert_int_equal(protocol_state(stage->protocol, NULL), PROTOCOL_OPENING);    // until the records are here
    DECODE(journal_get, next(stage, WIRE_JOURNAL_GET), &get);
    assert_int_equal(get.from, 0);
    RECEIVE(HEAD_LINK, JOURNAL_PART, journal_part, .request = get.request, .next = 77);
    DECODE(journal_get, next(stage, WIRE_JOURNAL_GET), &get);
    assert_int_equal(get.from, 77);
    RECEIVE(HEAD_LINK, JOURNAL_PART, journal_part, .request = get.request, .records = records->data,
            .records_bytes = (uint32_t)records->length);
    assert_int_equal(protocol_state(stage->protocol, NULL), PROTOCOL_READY);
    open_worker(stage, WORKER_LINK, 0);
    nothing_more(stage);
    return stage;
}

static void assert_answered(struct stage *stage, uint64_t number)
{
    assert_int_equal(stage->outcome[number].executed, 1);
    assert_int_equal(stage->outcome[number].answers, 1);
    assert_memory_equal(stage->outcome[number].data, "abcdefghijklmnop", 16);
}

static void what_was_done_before_is_answered_and_nothing_is_sent(void **state)
{
    struct writer records;
    live_once(state, 3, &records);
    struct stage *stage = live_again(state, 2, &records);
    chain(stage, 1, 3);
    nothing_more(stage);
    assert_int_equal(stage->outcome[1].executed, 0);    // never within the submission
    pass(stage, 1);
    for (uint64_t number = 1; number <= 3; number++)
        assert_answered(stage, number);
    assert_int_equal(protocol_stats(stage->protocol).resumed, 3);
    assert_true(protocol_is_idle(stage->protocol));
    nothing_more(stage);
    writer_free(&records);
}

// The steps of the recovery, then the first execution of the new life; returns its words' distance to its input.
static uint64_t go_on(struct stage *stage, uint64_t number)
{
    pass(stage, 1);
    stage->seen = stage->sents;
    open_worker(stage, WORKER_LINK + 1, 0);
    struct wire_recover recover = recover_of(stage);
    struct wire_recovery plan = {.request = recover.request, .is_last = true};    // the worker still has it all
    receive(stage, HEAD_LINK, WIRE_RECOVERY, wire_recovery_encode(&plan), NULL);
    while (stage->sent[stage->seen].message == WIRE_PLAN)
        stage->seen++;
    struct wire_execute execute = execute_of(stage);
    assert_int_equal(execute.counter, exec_counter(stage->epoch, number));
    assert_false(execute.is_replay);
    struct binding_history history;
    int64_t word[16];
    uint64_t distance;
    uint32_t output;
    history_init(&history, stage->next_plan->words);
    struct reader reader = reader_make(execute.delta, execute.delta_bytes);
    assert_ok(bindings_decode(&history, &reader, word));
    binding_handle(stage->next_plan, word, 0, &distance, &output);
    return distance;
}

static void past_its_end_the_program_goes_on_under_numbers_of_its_new_life(void **state)
{
    struct writer records;
    live_once(state, 3, &records);
    struct stage *stage = live_again(state, 2, &records);
    chain(stage, 1, 3);
    stage->live[stage->lives++] = (struct released){.counter = 3};
    submit_from(stage, 4, 3, false);
    nothing_more(stage);
    assert_int_equal(go_on(stage, 4), exec_counter(2, 4) - 3);
    answer(stage, exec_counter(2, 4));
    assert_answered(stage, 4);
    submit_from(stage, 5, 4, false);
    assert_int_equal(execute_of(stage).counter, exec_counter(2, 5));
    writer_free(&records);
}

static void at_the_first_difference_the_records_are_left(void **state)
{
    struct writer records;
    live_once(state, 3, &records);
    struct stage *stage = live_again(state, 2, &records);
    chain(stage, 1, 2);
    stage->live[stage->lives++] = (struct released){.counter = 1};
    submit_from(stage, 3, 1, false);    // of 2 it was before
    assert_int_equal(go_on(stage, 3), exec_counter(2, 3) - 1);
    pass(stage, 1);
    assert_answered(stage, 2);
    assert_int_equal(stage->outcome[3].executed, 0);
    answer(stage, exec_counter(2, 3));
    assert_answered(stage, 3);
    writer_free(&records);
}

static void of_several_lives_what_the_last_left_counts(void **state)
{
    struct writer records;
    live_once(state, 3, &records);
    struct stage *second = live_again(state, 2, &records);
    chain(second, 1, 1);
    second->live[second->lives++] = (struct released){.counter = 1};
    submit(second, 2);    // a leaf's, not of 1 as before
    pass(second, 1);
    second->seen = second->sents;
    open_worker(second, WORKER_LINK + 1, 0);
    struct wire_recover recover = recover_of(second);
    struct wire_recovery plan = {.request = recover.request, .is_last = true};
    receive(second, HEAD_LINK, WIRE_RECOVERY, wire_recovery_encode(&plan), NULL);
    submit_from(second, 3, 2, false);
    answer(second, exec_counter(2, 2));
    answer(second, exec_counter(2, 3));
    pass(second, 1100 * MS);
    take_records(second, &records);

    struct stage *third = live_again(state, 3, &records);
    submit(third, 1);
    submit(third, 2);
    submit_from(third, 3, 2, false);
    pass(third, 1);
    for (uint64_t number = 1; number <= 3; number++)
        assert_answered(third, number);
    assert_int_equal(protocol_stats(third->protocol).resumed, 3);
    nothing_more(third);
    writer_free(&records);
}

static void a_value_of_a_recorded_execution_can_be_fetched(void **state)
{
    struct writer records;
    live_once(state, 3, &records);
    struct stage *stage = live_again(state, 2, &records);
    chain(stage, 1, 2);
    stage->live[stage->lives++] = (struct released){.counter = 2};
    protocol_fetch(stage->protocol, stage->now_ns, 0, 2, 0, (void *)9);
    pass(stage, 1);
    open_worker(stage, WORKER_LINK + 1, 0);
    struct wire_recover recover = recover_of(stage);
    struct reader needed = reader_make(recover.needed, recover.needed_bytes);
    assert_int_equal(read_var(&needed), 2);
    struct wire_recovery plan = {.request = recover.request, .is_last = true};
    receive(stage, HEAD_LINK, WIRE_RECOVERY, wire_recovery_encode(&plan), NULL);
    struct wire_fetch fetch;
    DECODE(fetch, next(stage, WIRE_FETCH), &fetch);
    assert_int_equal(fetch.handles[0].counter, 2);
    chain(stage, 3, 3);    // and is still answered from its record
    nothing_more(stage);
    pass(stage, 1);
    assert_answered(stage, 3);
    writer_free(&records);
}

static void records_that_cannot_be_read_are_not_used(void **state)
{
    struct writer records = writer_make(100);
    write_raw(&records, "\xff\xff\xff\xff", 4);
    struct stage *stage = live_again(state, 2, &records);
    submit(stage, 1);
    next(stage, WIRE_PLAN);
    assert_int_equal(execute_of(stage).counter, exec_counter(2, 1));
    answer(stage, exec_counter(2, 1));
    assert_answered(stage, 1);
    writer_free(&records);
}

static void a_head_that_is_cut_off_while_the_records_are_read_is_asked_for_the_same_session_and_epoch(void **state)
{
    struct stage *stage = stage_begin(state, "again");
    struct wire_session_open open;
    struct wire_journal_get get;
    stage->epoch = 2;
    stage_up(stage, HEAD_LINK);
    next(stage, WIRE_HELLO);
    RECEIVE(HEAD_LINK, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
    session(stage, open.request, INCARNATION, 3);
    next(stage, WIRE_JOURNAL_GET);
    stage_down(stage, HEAD_LINK);
    pass(stage, 100 * MS);
    open_head_again(stage, HEAD_LINK + 1);    // under its name it would take itself over
    DECODE(journal_get, next(stage, WIRE_JOURNAL_GET), &get);
    assert_int_equal(get.from, 0);
    RECEIVE(HEAD_LINK + 1, JOURNAL_PART, journal_part, .request = get.request);
    assert_int_equal(protocol_state(stage->protocol, NULL), PROTOCOL_READY);
}

static void a_worker_that_dies_while_the_records_are_read_is_replaced_though_the_head_is_cut_off_too(void **state)
{
    struct stage *stage = stage_begin(state, "again");
    struct wire_session_open open;
    struct wire_grant_ask ask;
    stage->epoch = 2;
    stage_up(stage, HEAD_LINK);
    next(stage, WIRE_HELLO);
    RECEIVE(HEAD_LINK, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
    session(stage, open.request, INCARNATION, 3);
    next(stage, WIRE_JOURNAL_GET);
    open_worker(stage, WORKER_LINK, 0);
    RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = INCARNATION);
    next(stage, WIRE_GRANT_ASK);
    stage_down(stage, HEAD_LINK);
    pass(stage, 100 * MS);
    open_head_again(stage, HEAD_LINK + 1);
    next(stage, WIRE_JOURNAL_GET);
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    assert_int_equal(ask.avoid, INCARNATION);
}

CASES(a_worker_that_dies_while_the_records_are_read_is_replaced_though_the_head_is_cut_off_too,
      a_head_that_is_cut_off_while_the_records_are_read_is_asked_for_the_same_session_and_epoch,
      what_was_done_before_is_answered_and_nothing_is_sent, past_its_end_the_program_goes_on_under_numbers_of_its_new_life,
      at_the_first_difference_the_records_are_left, of_several_lives_what_the_last_left_counts,
      a_value_of_a_recorded_execution_can_be_fetched, records_that_cannot_be_read_are_not_used)
