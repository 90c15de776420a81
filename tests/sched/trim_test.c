// What trimming may take and what must stay: live values come back as before, records to come still find their bases.

#include <string.h>

#include "tests/sched/story.h"

static const struct hash128 token = {1, 2};

// The last value of a long chain, checkpointed in the middle: what is before the checkpoint can go.
static void checkpoint(struct story *story, uint64_t worker, uint64_t counter)
{
    struct writer pieces = writer_make(256);
    struct record_piece piece = {.content = {7, counter}, .rows = 2, .bytes = 24};

    record_piece_write(&pieces, &piece);
    struct record record = {.kind = RECORD_CHECKPOINT,
                            .checkpoint = {.handle = {.execution = {.session = story->session, .counter = counter}},
                                           .pieces = 1,
                                           .piece = pieces.data,
                                           .piece_bytes = (uint32_t)pieces.length}};
    record.checkpoint.meta = story->step.graph.out[0];
    story_journal(story, worker, &record);
    writer_free(&pieces);
}

static void what_a_checkpoint_makes_superfluous_goes_and_the_rest_still_comes_back(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story_run(story, worker, 600);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 600);
    checkpoint(story, worker, 590);
    story_run(story, worker, 10);
    assert_true(rig_stored(rig, STORE_EXECUTION) < 40);
    assert_int_equal(rig_stored(rig, STORE_CHECKPOINT), 1);
    // The chain goes on from a record whose ancestors are gone.
    story_run(story, worker, 10);
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 620, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.restores, 1);
    assert_int_equal(steps.replays, 30);
    assert_int_equal(steps.first, 590);
}

static void what_a_failed_execution_took_can_still_be_brought_back_after_a_trim(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct writer gone = writer_make(64);
    struct record_ref ref = {.counter = 600};
    struct story_steps steps;

    story_run(story, worker, 600);
    record_refs_write(&gone, 601, &ref, 1);
    struct record lost = {
        .kind = RECORD_RELEASE,
        .release = {
            .session = story->session, .from = 601, .is_lost = true, .gone = gone.data, .gone_bytes = (uint32_t)gone.length}};
    story_journal(story, worker, &lost);
    writer_free(&gone);
    checkpoint(story, worker, 590);
    story->begins = true;
    story_run(story, worker, 1);    // now there is a trim
    assert_true(rig_stored(rig, STORE_EXECUTION) < 40);
    story_recover(story, client, 600, 10, 0, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.restores, 1);
    assert_int_equal(steps.replays, 10);    // also 600 itself, which is not where it was
}

static void a_chain_goes_on_after_a_trim_that_left_nothing_else_of_it(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story_run(story, worker, 600);
    checkpoint(story, worker, 600);
    story_run(story, worker, 1);
    uint32_t kept = rig_stored(rig, STORE_EXECUTION);
    assert_true(kept < 10);
    story_run(story, worker, 3);
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 604, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.restores, 1);
    assert_int_equal(steps.replays, 4);
}

static void the_end_of_a_chain_stays_though_no_live_value_reaches_it(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story->begins = true;
    story_run(story, worker, 600);
    for (uint64_t from = 1; from < 600; from++) {    // the client gives them back, all but the last
        struct writer gone = writer_make(64);
        struct record_ref ref = {.counter = from};
        record_refs_write(&gone, 601, &ref, 1);
        struct record release = {
            .kind = RECORD_RELEASE,
            .release = {.session = story->session, .from = 601, .gone = gone.data, .gone_bytes = (uint32_t)gone.length}};
        story_journal(story, worker, &release);
        writer_free(&gone);
    }
    story->begins = false;
    story_run(story, worker, 1);
    checkpoint(story, worker, 601);
    story_run(story, worker, 1);
    assert_true(rig_stored(rig, STORE_EXECUTION) < 10);
    story->begins = true;
    story_run(story, worker, 1);    // its bindings refer to records 600 and 599
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 603, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.replays, 1);
}

static void records_that_come_while_a_trim_reads_are_safe(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story_run(story, worker, 2100);    // more than a page
    checkpoint(story, worker, 2100);
    rig->holds_commits = true;
    story_run(story, worker, 1);
    rig_release_commits(rig, DJ_OK);    // now the first page is asked for
    story_run(story, worker, 5);
    story->begins = true;
    story_run(story, worker, 1);
    for (int i = 0; i < 20; i++)
        rig_release_commits(rig, DJ_OK);
    rig->holds_commits = false;
    rig_release_commits(rig, DJ_OK);
    assert_true(rig_stored(rig, STORE_EXECUTION) < 20);
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 2106, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.restores, 1);
    assert_int_equal(steps.replays, 6);
}

static void records_that_come_while_a_trim_thinks_are_safe(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story_run(story, worker, 600);
    checkpoint(story, worker, 600);
    rig->holds_answers = true;
    story_run(story, worker, 1);
    story_run(story, worker, 2);
    for (int i = 0; i < 4; i++)
        rig_release_answers(rig);
    story_run(story, worker, 2);
    assert_true(rig_stored(rig, STORE_EXECUTION) < 20);
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 605, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.restores, 1);
    assert_int_equal(steps.replays, 5);
}

static void a_session_with_a_recovery_under_way_is_not_trimmed(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);

    story_run(story, worker, 600);
    rig->holds_answers = true;
    story_recover(story, client, 600, 10, 0, 600);
    checkpoint(story, worker, 600);
    story_run(story, worker, 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 601);
    rig->holds_answers = false;
    for (int i = 0; i < 3; i++)
        rig_release_answers(rig);
    story_run(story, worker, 1);
    assert_true(rig_stored(rig, STORE_EXECUTION) < 10);
}

static void a_named_session_keeps_all_its_records(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);

    story_open(story, "chat", &worker, 1);
    story_run(story, worker, 600);
    checkpoint(story, worker, 600);
    story_run(story, worker, 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 601);
}

static void after_a_restart_what_nobody_spoke_of_yet_is_not_trimmed(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct story_steps steps;

    story_open(story, "", &worker, 1);
    story_run(story, worker, 20);    // 20 is live, and its worker dies with the head
    rig_link_down(rig, worker);
    rig_restart(rig);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = story->session, .epoch = 1);
    worker = rig_worker(rig, "w2", 20);
    struct story *other = story_make(state, rig);    // another place of the session goes on
    other->session = story->session;
    other->made = 1000;
    other->keeps = other->begins = true;
    story_run(other, worker, 1);
    other->begins = false;
    for (uint32_t i = 0; i < 600; i++) {
        other->made = 1001 + i;
        story_run(other, worker, 1);
    }
    checkpoint(other, worker, 1300);
    story_run(other, worker, 1);
    story_recover(story, client, 20, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.replays, 20);
}

CASES(what_a_checkpoint_makes_superfluous_goes_and_the_rest_still_comes_back,
      what_a_failed_execution_took_can_still_be_brought_back_after_a_trim,
      a_chain_goes_on_after_a_trim_that_left_nothing_else_of_it, the_end_of_a_chain_stays_though_no_live_value_reaches_it,
      records_that_come_while_a_trim_reads_are_safe, records_that_come_while_a_trim_thinks_are_safe,
      a_session_with_a_recovery_under_way_is_not_trimmed, a_named_session_keeps_all_its_records,
      after_a_restart_what_nobody_spoke_of_yet_is_not_trimmed)
