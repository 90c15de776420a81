// What a place does when its worker is gone, or lacks what it should have: a program hears nothing of it, everything needed is brought back first,
// nothing is asked for that is not needed, and what kills every worker is not tried for ever.

#include "tests/frontend/client/stage.h"

#include <string.h>

// Executions 1 to 3, each of the one before, answered; then the worker is gone and another one is here.
static struct stage *chain_lost(void **state, uint64_t chain)
{
    struct stage *stage = stage_ready(state);
    stage->is_silent = true;
    for (uint64_t counter = 1; counter <= chain; counter++) {
        counter == 1 ? submit(stage, 1) : submit_from(stage, counter, counter - 1, false);
        answer(stage, counter);
    }
    return stage;
}

static void another_worker(struct stage *stage, const struct wire_grant_ask *ask, uint64_t number)
{
    grant(stage, ask->request, INCARNATION + number);
    open_worker(stage, WORKER_LINK + number, 0);
}

static void after_a_loss_what_is_alive_comes_back_first_and_what_was_unanswered_goes_again(void **state)
{
    struct stage *stage = chain_lost(state, 3);
    submit_from(stage, 4, 3, false);
    stage->live[stage->lives++] = (struct released){.counter = 2};
    uint32_t first = stage->stream;
    struct wire_grant_ask ask = lose_worker(stage);
    assert_int_equal(ask.device_index, -1);
    assert_int_equal(ask.numerics, (uint32_t)hash64("cpu x", 5));
    another_worker(stage, &ask, 1);
    assert_int_not_equal(stage->stream, first);
    struct wire_recover recover = recover_of(stage);
    assert_int_equal(recover.incarnation, INCARNATION + 1);
    assert_int_equal(recover.lost, INCARNATION);
    struct reader needed = reader_make(recover.needed, recover.needed_bytes);
    assert_int_equal(read_var(&needed), 2);    // alive
    assert_int_equal(read_var(&needed), 0);
    assert_int_equal(read_var(&needed), 1);    // 3: read by 4, which goes again
    assert_int_equal(read_var(&needed), 0);
    assert_int_equal(reader_left(&needed), 0);
    nothing_more(stage);    // not before the plan is here
    say_recovery(stage, HEAD_LINK, &recover);
    uint32_t replays = 0;
    while (stage->seen < stage->sents) {
        if (stage->sent[stage->seen].message == WIRE_PLAN) {
            stage->seen++;
            continue;
        }
        struct wire_execute execute = execute_of(stage);
        assert_int_equal(execute.counter, ++replays);
        assert_int_equal(execute.is_replay, execute.counter <= 3);
        if (execute.counter == 4)
            assert_true(execute.reset);    // its record must not build on a replay's
    }
    assert_int_equal(replays, 4);
    for (uint64_t counter = 1; counter <= 4; counter++)
        answer(stage, counter);
    assert_int_equal(stage->outcome[4].executed, 1);
    for (uint64_t counter = 1; counter <= 3; counter++)
        assert_int_equal(stage->outcome[counter].executed, 1);
    assert_int_equal(stage->places_lost, 0);
    assert_int_equal(stage->recoveries, 1);
    assert_int_equal(stage->recovered.executions, 3);
    assert_string_equal(stage->recovered.from, "w0");
    assert_string_equal(stage->recovered.to, "w1");
    struct protocol_stats stats = protocol_stats(stage->protocol);
    assert_int_equal(stats.recoveries, 1);
    assert_int_equal(stats.replayed, 3);
}

static void where_nothing_is_needed_nothing_is_asked(void **state)
{
    struct stage *stage = chain_lost(state, 2);
    struct wire_grant_ask ask = lose_worker(stage);
    another_worker(stage, &ask, 1);
    submit(stage, 3);
    next(stage, WIRE_PLAN);
    assert_int_equal(execute_of(stage).counter, 3);
    nothing_more(stage);
}

static void what_was_answered_and_is_not_durable_is_told_to_the_head_before_the_question(void **state)
{
    struct stage *stage = chain_lost(state, 2);
    watermark(stage, HEAD_LINK, 1, 1);
    stage->seen = stage->sents;
    RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = INCARNATION);
    struct wire_journal journal;
    DECODE(journal, next(stage, WIRE_JOURNAL), &journal);
    assert_int_equal(journal.first, 1);
    assert_int_equal(journal.count, 2);    // a plan and execution 2
    struct record_scratch scratch;
    struct record record;
    assert_ok(record_scratch_make(&scratch));
    struct reader reader = reader_make(journal.records, journal.records_bytes);
    assert_ok(record_read(&reader, &scratch, &record));
    assert_int_equal(record.kind, RECORD_PLAN);
    assert_ok(record_read(&reader, &scratch, &record));
    assert_int_equal(record.kind, RECORD_EXECUTION);
    assert_int_equal(record.execution.id.counter, 2);
    assert_int_equal(record.execution.base, 0);
    assert_int_equal(record.execution.producers, 1);
    assert_int_equal(record.execution.producer[0], 1);
    assert_int_equal(record.execution.numerics, (uint32_t)hash64("cpu x", 5));
    record_scratch_free(&scratch);
    RECEIVE(HEAD_LINK, JOURNAL_OK, journal_ok, .last = 1);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 1);
    RECEIVE(HEAD_LINK, JOURNAL_OK, journal_ok, .last = 2);
    assert_int_equal(protocol_stats(stage->protocol).executions_unacknowledged, 0);
}

static void answers_travel_with_the_record(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    answer(stage, 1);
    stage->seen = stage->sents;
    pass(stage, 1100 * MS);    // its worker should have journalled it by now
    struct wire_journal journal;
    DECODE(journal, next(stage, WIRE_JOURNAL), &journal);
    struct record_scratch scratch;
    struct record record;
    assert_ok(record_scratch_make(&scratch));
    struct reader reader = reader_make(journal.records, journal.records_bytes);
    assert_ok(record_read(&reader, &scratch, &record));
    assert_ok(record_read(&reader, &scratch, &record));
    assert_int_equal(record.execution.answers, 1);
    assert_memory_equal(record.execution.answer[0].bytes, "abcdefghijklmnop", 16);
    record_scratch_free(&scratch);
    pass(stage, 5000 * MS);
    nothing_more(stage);    // told once on a link
    stage_down(stage, HEAD_LINK);
    pass(stage, 1000 * MS);
    open_head_again(stage, HEAD_LINK + 1);
    pass(stage, 1100 * MS);
    next(stage, WIRE_JOURNAL);    // and again on the next
}

static void a_second_loss_in_the_middle_begins_again(void **state)
{
    struct stage *stage = chain_lost(state, 3);
    stage->live[stage->lives++] = (struct released){.counter = 3};
    struct wire_grant_ask ask = lose_worker(stage);
    another_worker(stage, &ask, 1);
    struct wire_recover recover = recover_of(stage);
    say_recovery(stage, HEAD_LINK, &recover);
    answer(stage, 1);
    ask = lose_worker(stage);
    another_worker(stage, &ask, 2);
    recover = recover_of(stage);
    assert_int_equal(recover.incarnation, INCARNATION + 2);
    assert_int_equal(recover.lost, INCARNATION);
    assert_int_equal(recover.replayed, 2);
    say_recovery(stage, HEAD_LINK, &recover);
    for (uint64_t counter = 1; counter <= 3; counter++)
        answer(stage, counter);
    assert_int_equal(stage->recoveries, 1);
    assert_int_equal(protocol_stats(stage->protocol).replayed, 4);
}

static void a_head_that_is_away_is_waited_for(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    stage->live[stage->lives++] = (struct released){.counter = 1};
    submit_from(stage, 2, 1, false);
    stage_down(stage, HEAD_LINK);
    stage_down(stage, WORKER_LINK);
    pass(stage, 1 * MS);
    stage_up(stage, WORKER_LINK + 5);    // at its address there is another life of it
    RECEIVE(WORKER_LINK + 5, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = INCARNATION + 1);
    for (int i = 0; i < 20; i++) {
        pass(stage, 1000 * MS);
        stage_down(stage, 0);
    }
    assert_string_equal(stage->address, "tcp://h:1");
    assert_int_equal(stage->outcome[2].failed, 0);
    pass(stage, 1000 * MS);
    stage->seen = stage->sents;
    open_head_again(stage, HEAD_LINK + 1);
    while (stage->sent[stage->seen].message == WIRE_JOURNAL)
        stage->seen++;
    struct wire_grant_ask ask;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    struct wire_grant one = {.worker = 4,
                             .name = "w1",
                             .address_tcp = "tcp://w:3",
                             .host = "there",
                             .incarnation = INCARNATION + 1,
                             .numerics = "cpu x"};
    stage->incarnation = INCARNATION + 1;
    RECEIVE(HEAD_LINK + 1, SESSION_GRANT, session_grant, .request = ask.request, .session = SESSION, .epoch = 1, .grants = &one,
            .grants_count = 1);
    while (stage->seen < stage->sents && stage->sent[stage->seen].message == WIRE_JOURNAL)
        stage->seen++;
    open_worker(stage, WORKER_LINK + 1, 0);
    struct wire_recover recover = recover_of(stage);
    say_recovery(stage, HEAD_LINK + 1, &recover);
    answer(stage, 1);
    answer(stage, 2);
    assert_int_equal(stage->outcome[2].executed, 1);
}

static void values_of_a_session_that_is_over_are_lost_and_are_not_asked_for_in_the_next_one(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    stage->live[stage->lives++] = (struct released){.counter = 1};
    submit_from(stage, 2, 1, false);
    stage_down(stage, HEAD_LINK);
    stage_down(stage, WORKER_LINK);
    pass(stage, 1 * MS);
    stage_up(stage, WORKER_LINK + 5);    // at its address there is another life of it
    RECEIVE(WORKER_LINK + 5, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = INCARNATION + 1);
    pass(stage, 1000 * MS);
    stage_up(stage, HEAD_LINK + 1);
    RECEIVE(HEAD_LINK + 1, HELLO_OK, hello_ok, .version = WIRE_VERSION, .role = ROLE_HEAD);
    for (uint32_t tries = 0; tries < 2; tries++) {    // another client took the session over and ended it: it is given a new one
        struct wire_session_open open;
        while (stage->sent[stage->seen].message != WIRE_SESSION_OPEN)
            stage->seen++;
        DECODE(session_open, next(stage, WIRE_SESSION_OPEN), &open);
        assert_int_equal(open.session, tries == 0 ? SESSION : 0);
        if (tries == 0)
            RECEIVE(HEAD_LINK + 1, FAILED, failed, .request = open.request, .error = DJ_E_SESSION_UNKNOWN, .text = "over");
        else
            RECEIVE(HEAD_LINK + 1, SESSION_GRANT, session_grant, .request = open.request, .session = SESSION + 1, .epoch = 1);
    }
    struct wire_grant_ask ask;
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    struct wire_grant one = {
        .worker = 4, .name = "w1", .address_tcp = "tcp://w:3", .host = "there", .incarnation = INCARNATION + 1};
    RECEIVE(HEAD_LINK + 1, SESSION_GRANT, session_grant, .request = ask.request, .session = SESSION + 1, .epoch = 1,
            .grants = &one, .grants_count = 1);
    nothing_more(stage);
    assert_int_equal(stage->outcome[2].error, DJ_E_HANDLE_LOST);
    assert_int_equal(stage->places_lost, 1);
}

static void a_value_that_cannot_be_brought_back_is_the_end_of_its_place_in_the_heads_words(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    stage->live[stage->lives++] = (struct released){.counter = 1};
    submit_from(stage, 2, 1, false);
    struct wire_grant_ask ask = lose_worker(stage);
    another_worker(stage, &ask, 1);
    struct wire_recover recover = recover_of(stage);
    RECEIVE(HEAD_LINK, FAILED, failed, .request = recover.request, .error = DJ_E_LINEAGE, .text = "5.1.1:0 is gone");
    assert_int_equal(stage->outcome[2].error, DJ_E_LINEAGE);
    assert_string_equal(stage->outcome[2].text, "5.1.1:0 is gone");
    assert_int_equal(stage->places_lost, 1);
}

static void what_was_on_the_device_in_two_deaths_fails_alone(void **state)
{
    struct stage *stage = stage_ready(state);
    stage->is_silent = true;
    submit(stage, 1);
    submit_from(stage, 2, 1, false);
    submit(stage, 3);
    for (uint64_t death = 1; death <= 2; death++) {
        stage_down(stage, stage->link);
        struct wire_grant_ask ask = lose_worker(stage);
        another_worker(stage, &ask, death);
    }
    assert_int_equal(stage->outcome[1].error, DJ_E_QUARANTINED);
    assert_non_null(strstr(stage->outcome[1].text, "execution 1"));
    assert_int_equal(stage->outcome[2].error, DJ_E_QUARANTINED);    // made of it
    answer(stage, 3);
    assert_int_equal(stage->outcome[3].executed, 1);
}

static void a_death_of_which_only_the_head_tells_counts_and_the_error_names_the_plan(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    for (uint64_t death = 1; death <= 2; death++) {
        struct wire_grant_ask ask = lose_worker(stage);    // its link would have closed a moment later
        another_worker(stage, &ask, death);
    }
    char name[HASH128_TEXT];
    hash128_text(stage->plan->fingerprint, name);
    assert_int_equal(stage->outcome[1].error, DJ_E_QUARANTINED);
    assert_non_null(strstr(stage->outcome[1].text, name));
    assert_non_null(strstr(stage->outcome[1].text, "1 nodes"));
}

// Its link goes, and it cannot be reached for longer than a place waits.
static struct wire_grant_ask give_up(struct stage *stage)
{
    struct wire_grant_ask ask;
    stage->seen = stage->sents;
    stage_down(stage, stage->link);
    for (int i = 0; i < 60 && stage->seen == stage->sents; i++) {
        pass(stage, 250 * MS);
        stage_down(stage, 0);
        while (stage->seen < stage->sents && stage->sent[stage->seen].message != WIRE_GRANT_ASK)
            stage->seen++;
    }
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    return ask;
}

// The head hears it well, and gives another.
static void a_worker_that_only_this_client_cannot_reach_is_no_death(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    for (uint64_t number = 1; number <= 3; number++) {
        struct wire_grant_ask ask = give_up(stage);
        another_worker(stage, &ask, number);
        assert_int_equal(stage->outcome[1].failed, 0);
    }
    answer(stage, 1);
    assert_int_equal(stage->outcome[1].executed, 1);
}

static void a_death_that_the_head_tells_after_the_worker_was_given_up_counts(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    for (uint64_t death = 1; death <= 2; death++) {
        uint64_t incarnation = stage->incarnation;
        struct wire_grant_ask ask = give_up(stage);
        RECEIVE(HEAD_LINK, WORKER_GONE, worker_gone, .worker = 3, .incarnation = incarnation);
        another_worker(stage, &ask, death);
    }
    assert_int_equal(stage->outcome[1].error, DJ_E_QUARANTINED);
}

static void who_waits_for_leaves_is_not_blamed_and_who_has_them_is(void **state)
{
    struct stage *stage = stage_ready(state);
    struct wire_leaf leaf = {.content = stage->leaf->content, .bytes = stage->leaf->bytes};
    submit(stage, 1);
    for (uint64_t death = 1; death <= 5; death++) {
        assert_int_equal(stage->outcome[1].failed, 0);
        RECEIVE(stage->link, LEAF_NEED, leaf_need, .leaves = &leaf, .leaves_count = 1);
        RECEIVE(stage->link, LEAF_OK, leaf_ok, .durable = death < 4, .leaves = &leaf, .leaves_count = 1);
        stage_down(stage, stage->link);
        struct wire_grant_ask ask = lose_worker(stage);
        another_worker(stage, &ask, death);
    }
    assert_int_equal(stage->outcome[1].error, DJ_E_QUARANTINED);
}

// Execution 2 is made of 1, and the device fails it.
static struct wire_recover say_device_failed(struct stage *stage, bool donates)
{
    submit_from(stage, 2, 1, donates);
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 2, .incarnation = stage->incarnation,
            .error = DJ_E_DEVICE, .node = 0, .text = "the device failed");
    assert_int_equal(stage->outcome[2].failed, 0);
    stage->seen = stage->sents;
    pass(stage, 1);
    open_worker(stage, WORKER_LINK + 1, 0);
    return recover_of(stage);
}

static void a_list_that_the_device_failed_has_taken_only_what_it_donated(void **state)
{
    struct wire_recover recover = say_device_failed(chain_lost(state, 1), false);
    assert_int_equal(recover.absent_bytes, 0);
    assert_true(recover.needed_bytes > 0);
    struct stage *stage = chain_lost(state, 1);
    recover = say_device_failed(stage, true);
    struct reader absent = reader_make(recover.absent, recover.absent_bytes);
    assert_int_equal(read_var(&absent), 1);
    say_recovery(stage, HEAD_LINK, &recover);
    answer(stage, 1);
    answer(stage, 2);
    assert_int_equal(stage->outcome[2].executed, 1);
}

static void a_step_for_which_there_is_never_room_ends_its_place_with_the_sizes(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    stage->live[stage->lives++] = (struct released){.counter = 1};
    submit_from(stage, 2, 1, false);
    struct wire_grant_ask ask = lose_worker(stage);
    another_worker(stage, &ask, 1);
    uint64_t round = 1;
    while (stage->outcome[2].failed == 0) {
        assert_true(++round < 60);
        struct wire_recover recover = recover_of(stage);
        say_recovery(stage, HEAD_LINK, &recover);
        RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 1, .incarnation = stage->incarnation,
                .error = DJ_E_DEVICE_MEMORY, .node = 0, .text = "needs 9 bytes, 5 are free");
        RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 2, .incarnation = stage->incarnation,
                .error = DJ_E_DEVICE_MEMORY, .node = 0, .text = "needs 9 bytes, 5 are free");
        for (int i = 0; i < 2 && stage->outcome[2].failed == 0; i++)
            pass(stage, 260 * MS);
        stage->seen = stage->sents;
        if (stage->outcome[2].failed == 0)
            open_worker(stage, WORKER_LINK + round, 0);
    }
    assert_true(round > 10);    // it was tried for a while
    assert_int_equal(stage->outcome[2].error, DJ_E_DEVICE_MEMORY);
    assert_non_null(strstr(stage->outcome[2].text, "9 bytes"));
}

static void a_link_that_is_cut_blames_nobody(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    for (uint64_t cut = 1; cut <= 5; cut++) {
        stage_down(stage, stage->link);
        pass(stage, 60 * MS);
        stage->seen = stage->sents;
        open_worker(stage, WORKER_LINK + cut, 1);
    }
    answer(stage, 1);
    assert_int_equal(stage->outcome[1].executed, 1);
}

// The worker says that an input is not there.
static struct wire_recover say_absent(struct stage *stage, uint64_t counter, uint64_t link)
{
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = counter, .incarnation = stage->incarnation,
            .error = DJ_E_HANDLE_UNKNOWN, .node = -1, .text = "no such value");
    stage->seen = stage->sents;
    pass(stage, 1);
    open_worker(stage, link, 0);
    return recover_of(stage);
}

static void an_input_that_is_absent_is_brought_back_in_a_new_stream(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    submit_from(stage, 2, 1, true);
    submit_from(stage, 3, 2, false);
    submit(stage, 4);
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 2, .incarnation = INCARNATION,
            .error = DJ_E_HANDLE_UNKNOWN, .node = -1, .text = "no such value");
    submit(stage, 5);    // waits
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 3, .incarnation = INCARNATION,
            .error = DJ_E_HANDLE_UNKNOWN, .node = -1, .text = "no such value");
    assert_int_not_equal(stage->closed, WORKER_LINK);    // 4 is still out
    uint32_t first = stage->stream;
    answer(stage, 4);
    assert_int_equal(stage->closed, WORKER_LINK);
    stage->seen = stage->sents;
    open_worker(stage, WORKER_LINK + 1, 0);
    assert_int_not_equal(stage->stream, first);
    struct wire_recover recover = recover_of(stage);
    assert_true(recover.absent_bytes > 0);
    struct reader absent = reader_make(recover.absent, recover.absent_bytes);
    assert_int_equal(read_var(&absent), 1);
    assert_int_equal(recover.lost, 0);
    say_recovery(stage, HEAD_LINK, &recover);
    next(stage, WIRE_RELEASE);    // the failed values' names are free again
    uint64_t expected[] = {1, 2, 3, 5};
    for (uint32_t i = 0; i < 4; i++) {
        while (stage->sent[stage->seen].message == WIRE_PLAN)
            stage->seen++;
        assert_int_equal(execute_of(stage).counter, expected[i]);
        answer(stage, expected[i]);
    }
    for (uint64_t counter = 1; counter <= 5; counter++)
        assert_int_equal(stage->outcome[counter].executed, 1);
}

static void what_an_execution_took_ends_when_it_has_failed_for_good_and_not_before(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    submit_from(stage, 2, 1, true);
    stage->seen = stage->sents;
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 2, .incarnation = INCARNATION, .error = DJ_E_DEVICE,
            .node = -1, .text = "it failed");
    open_worker(stage, WORKER_LINK + 1, 0);
    struct wire_recover recover = recover_of(stage);
    assert_true(recover.needed_bytes > 0);
    say_recovery(stage, HEAD_LINK, &recover);
    answer(stage, 1);
    assert_int_equal(stage->outcome[2].failed, 0);
    stage->seen = stage->sents;
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 2, .incarnation = INCARNATION,
            .error = DJ_E_DEVICE_MEMORY, .node = -1, .text = "it does not fit");
    assert_int_equal(stage->outcome[2].error, DJ_E_DEVICE_MEMORY);
    struct wire_release release;
    DECODE(release, next(stage, WIRE_RELEASE), &release);
    const uint8_t expected[] = {1, 0};
    assert_int_equal(release.handles_bytes, sizeof expected);
    assert_memory_equal(release.handles, expected, sizeof expected);
}

static void an_input_that_stays_absent_is_an_error_after_three_recoveries(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    submit_from(stage, 2, 1, false);
    for (uint64_t round = 1; round <= 3; round++) {
        struct wire_recover recover = say_absent(stage, 2, WORKER_LINK + round);
        say_recovery(stage, HEAD_LINK, &recover);
        answer(stage, 1);
        assert_int_equal(stage->outcome[2].failed, 0);
    }
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 2, .incarnation = stage->incarnation,
            .error = DJ_E_HANDLE_UNKNOWN, .node = -1, .text = "no such value");
    assert_int_equal(stage->outcome[2].failed, 1);
    assert_int_equal(stage->outcome[2].error, DJ_E_HANDLE_UNKNOWN);
}

static void what_was_submitted_on_top_of_a_failure_has_no_other_end_and_nothing_is_recovered_for_it(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    submit_from(stage, 2, 1, false);
    for (uint64_t round = 1; round <= 3; round++) {
        struct wire_recover recover = say_absent(stage, 2, WORKER_LINK + round);
        say_recovery(stage, HEAD_LINK, &recover);
        answer(stage, 1);
    }
    submit_from(stage, 3, 2, false);
    submit_from(stage, 4, 3, false);
    submit_from(stage, 5, 4, false);
    protocol_fetch(stage->protocol, stage->now_ns, 0, 2, 0, (void *)7);
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 2, .incarnation = stage->incarnation,
            .error = DJ_E_DEVICE, .node = -1, .text = "a broken device");
    assert_int_equal(stage->outcome[2].error, DJ_E_DEVICE);
    assert_int_equal(stage->outcome[7].fetched, 1);
    assert_int_equal(stage->outcome[7].error, DJ_E_DEVICE);
    // Its worker says so of the next one, which would be an absence otherwise.
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 3, .incarnation = stage->incarnation,
            .error = DJ_E_DEVICE, .node = -1, .text = "a broken device");
    assert_int_equal(stage->outcome[3].error, DJ_E_DEVICE);
    // Before it says anything of the others it is gone.
    struct wire_grant_ask ask = lose_worker(stage);
    another_worker(stage, &ask, 1);
    nothing_more(stage);
    assert_int_equal(stage->outcome[4].error, DJ_E_DEVICE);
    assert_non_null(strstr(stage->outcome[4].text, "builds on execution 3"));
    assert_int_equal(stage->outcome[5].error, DJ_E_DEVICE);
    assert_int_equal(stage->places_lost, 0);
}

static void a_fetch_waits_for_the_recovery_of_its_place(void **state)
{
    struct stage *stage = chain_lost(state, 2);
    struct wire_grant_ask ask = lose_worker(stage);
    protocol_fetch(stage->protocol, stage->now_ns, 0, 2, 0, (void *)7);
    another_worker(stage, &ask, 1);
    struct wire_recover recover = recover_of(stage);    // it needs the value
    say_recovery(stage, HEAD_LINK, &recover);
    uint32_t executes = 0;
    while (stage->sent[stage->seen].message != WIRE_FETCH)
        executes += stage->sent[stage->seen++].message == WIRE_EXECUTE;
    assert_int_equal(executes, 2);
    struct wire_fetch fetch;
    DECODE(fetch, next(stage, WIRE_FETCH), &fetch);
    assert_int_equal(fetch.handles[0].counter, 2);
    receive(stage, stage->link, WIRE_VALUE, wire_value_encode(&(struct wire_value){.request = fetch.request, .bytes = 4}),
            blob_copy("wxyz", 4));
    assert_int_equal(stage->outcome[7].fetched, 1);
    assert_int_equal(stage->outcome[7].error, DJ_OK);
}

static void a_fetch_of_what_a_step_could_not_bring_back_is_asked_again_with_the_step(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    struct wire_grant_ask ask = lose_worker(stage);
    protocol_fetch(stage->protocol, stage->now_ns, 0, 1, 0, (void *)7);
    another_worker(stage, &ask, 1);
    struct wire_recover recover = recover_of(stage);
    say_recovery(stage, HEAD_LINK, &recover);
    while (stage->sent[stage->seen].message != WIRE_FETCH)
        stage->seen++;
    struct wire_fetch fetch;
    DECODE(fetch, next(stage, WIRE_FETCH), &fetch);
    // The worker that should have given a replica of its leaf has died since.
    RECEIVE(stage->link, EXECUTION_FAILED, execution_failed, .counter = 1, .incarnation = stage->incarnation,
            .error = DJ_E_LEAF_UNKNOWN, .node = -1, .text = "nobody has it");
    RECEIVE(stage->link, FAILED, failed, .request = fetch.request, .error = DJ_E_LEAF_UNKNOWN, .text = "nobody has it");
    assert_int_equal(stage->outcome[7].fetched, 0);
    pass(stage, 600 * MS);
    stage->seen = stage->sents;
    open_worker(stage, WORKER_LINK + 2, 0);
    recover = recover_of(stage);
    assert_int_equal(recover.needed_bytes, 2);    // as before
    say_recovery(stage, HEAD_LINK, &recover);
    while (stage->sent[stage->seen].message != WIRE_FETCH)
        stage->seen++;
    DECODE(fetch, next(stage, WIRE_FETCH), &fetch);
    receive(stage, stage->link, WIRE_VALUE, wire_value_encode(&(struct wire_value){.request = fetch.request, .bytes = 4}),
            blob_copy("wxyz", 4));
    assert_int_equal(stage->outcome[7].fetched, 1);
    assert_int_equal(stage->outcome[7].error, DJ_OK);
}

static void the_same_worker_after_all_goes_on_in_the_same_stream(void **state)
{
    struct stage *stage = chain_lost(state, 1);
    submit(stage, 2);
    stage_down(stage, WORKER_LINK);
    uint32_t first = stage->stream;
    struct wire_grant_ask ask;
    for (int i = 0; i < 6; i++) {
        pass(stage, 60 * MS);
        stage_down(stage, 0);
    }
    pass(stage, 300 * MS);
    for (stage->seen = stage->sents - 1; stage->sent[stage->seen].message != WIRE_GRANT_ASK; stage->seen--) {
    }
    DECODE(grant_ask, next(stage, WIRE_GRANT_ASK), &ask);
    grant(stage, ask.request, INCARNATION);
    open_worker(stage, WORKER_LINK + 1, 2);
    assert_int_equal(stage->stream, first);
    answer(stage, 2);
    assert_int_equal(stage->outcome[2].executed, 1);
}

static void a_session_that_was_taken_over_fails_once_and_for_all(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    RECEIVE(HEAD_LINK, FAILED, failed, .request = 0, .error = DJ_E_EPOCH_FENCED, .text = "epoch 2 began");
    assert_int_equal(stage->outcome[1].error, DJ_E_EPOCH_FENCED);
    assert_non_null(strstr(stage->outcome[1].text, "took session"));
    submit(stage, 2);
    assert_int_equal(stage->outcome[2].error, DJ_E_EPOCH_FENCED);
    stage->seen = stage->sents;
    pass(stage, 20000 * MS);
    nothing_more(stage);
}

static void an_answer_that_differs_the_second_time_is_counted_and_the_first_stands(void **state)
{
    struct stage *stage = stage_ready(state);
    submit(stage, 1);
    answer(stage, 1);
    answer(stage, 1);
    assert_int_equal(protocol_stats(stage->protocol).nondeterminism, 0);
    struct wire_output output = {.dtype = DTYPE_F32, .bytes = 4, .data = (const uint8_t *)"else", .data_bytes = 4};
    RECEIVE(stage->link, ANSWER, answer, .counter = 1, .incarnation = INCARNATION, .outputs = &output, .outputs_count = 1);
    assert_int_equal(protocol_stats(stage->protocol).nondeterminism, 1);
    assert_int_equal(stage->outcome[1].answers, 1);
    assert_memory_equal(stage->outcome[1].data, "abcdefgh", 8);
}

CASES(values_of_a_session_that_is_over_are_lost_and_are_not_asked_for_in_the_next_one,
      after_a_loss_what_is_alive_comes_back_first_and_what_was_unanswered_goes_again, where_nothing_is_needed_nothing_is_asked,
      what_was_answered_and_is_not_durable_is_told_to_the_head_before_the_question, answers_travel_with_the_record,
      a_second_loss_in_the_middle_begins_again, a_head_that_is_away_is_waited_for,
      a_value_that_cannot_be_brought_back_is_the_end_of_its_place_in_the_heads_words,
      what_was_on_the_device_in_two_deaths_fails_alone, a_worker_that_only_this_client_cannot_reach_is_no_death,
      a_death_that_the_head_tells_after_the_worker_was_given_up_counts,
      a_death_of_which_only_the_head_tells_counts_and_the_error_names_the_plan,
      who_waits_for_leaves_is_not_blamed_and_who_has_them_is, a_list_that_the_device_failed_has_taken_only_what_it_donated,
      a_step_for_which_there_is_never_room_ends_its_place_with_the_sizes, a_link_that_is_cut_blames_nobody,
      an_input_that_is_absent_is_brought_back_in_a_new_stream,
      what_an_execution_took_ends_when_it_has_failed_for_good_and_not_before,
      an_input_that_stays_absent_is_an_error_after_three_recoveries,
      what_was_submitted_on_top_of_a_failure_has_no_other_end_and_nothing_is_recovered_for_it,
      a_fetch_waits_for_the_recovery_of_its_place, a_fetch_of_what_a_step_could_not_bring_back_is_asked_again_with_the_step,
      the_same_worker_after_all_goes_on_in_the_same_stream, a_session_that_was_taken_over_fails_once_and_for_all,
      an_answer_that_differs_the_second_time_is_counted_and_the_first_stands)
