// How sessions are opened, taken over, left and forgotten; and what a client that resumes one reads.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sched/story.h"

static const struct hash128 token = {1, 2};

static void a_session_is_durable_before_its_client_hears_of_it(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_session_grant grant;

    rig->holds_commits = true;
    SAY(rig, client, SESSION_OPEN, session_open, .request = 5, .device_index = -2, .name = "n");
    assert_null(rig_heard(rig, client, WIRE_SESSION_GRANT));
    rig_release_commits(rig, DJ_OK);
    HEARD(rig, client, SESSION_GRANT, session_grant, &grant);
    assert_int_equal(grant.epoch, 1);
    assert_int_equal(grant.journalled, 0);
    assert_int_equal(rig_stored(rig, STORE_SESSION), 1);
}

static void taking_over_by_name_fences_the_old_client_and_waits_for_every_worker(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t first = story_open(story, "chat", &worker, 1);
    struct wire_session_grant grant;
    struct wire_failed failed;
    struct wire_admit admit;

    story_run(story, worker, 3);
    uint64_t second = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, second, SESSION_OPEN, session_open, .request = 6, .device_index = -1, .name = "chat");
    HEARD(rig, first, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_EPOCH_FENCED);
    assert_true(rig_is_closed(rig, first));
    HEARD(rig, worker, ADMIT, admit, &admit);
    assert_int_equal(admit.epoch, 2);
    SAY(rig, worker, ADMITTED, admitted, .session = story->session, .epoch = 1);    // late, of the old epoch
    assert_null(rig_heard(rig, second, WIRE_SESSION_GRANT));
    SAY(rig, worker, ADMITTED, admitted, .session = story->session, .epoch = 2);
    SAY(rig, worker, ADMITTED, admitted, .session = story->session, .epoch = 2);    // of the grant itself
    HEARD(rig, second, SESSION_GRANT, session_grant, &grant);
    assert_int_equal(grant.session, story->session);
    assert_int_equal(grant.epoch, 2);
    assert_int_equal(grant.journalled, 3);
    // Another tenant's session of that name is another one.
    uint64_t third = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, third, SESSION_OPEN, session_open, .request = 6, .device_index = -2, .name = "chat", .tenant = "else");
    HEARD(rig, third, SESSION_GRANT, session_grant, &grant);
    assert_int_not_equal(grant.session, story->session);
}

static void what_an_earlier_epoch_tells_after_the_takeover_is_left_out(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct wire_session_grant grant;
    struct wire_journal_part part;

    story_open(story, "chat", &worker, 1);
    story_run(story, worker, 3);
    uint64_t second = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, second, SESSION_OPEN, session_open, .request = 6, .device_index = -1, .name = "chat");
    SAY(rig, worker, ADMITTED, admitted, .session = story->session, .epoch = 2);
    SAY(rig, worker, ADMITTED, admitted, .session = story->session, .epoch = 2);
    HEARD(rig, second, SESSION_GRANT, session_grant, &grant);
    assert_int_equal(grant.journalled, 3);
    story_run(story, worker, 2);    // of epoch 1, acknowledged all the same
    SAY(rig, second, JOURNAL_GET, journal_get, .request = 7, .session = story->session, .epoch = 2);
    HEARD(rig, second, JOURNAL_PART, journal_part, &part);
    assert_int_equal(part.next, 0);
    uint32_t runs = 0;
    struct reader reader = reader_make(part.records, part.records_bytes);
    struct record_scratch scratch;
    assert_ok(record_scratch_make(&scratch));
    for (uint32_t i = 0; i < part.count; i++) {
        struct record record;
        assert_ok(record_read(&reader, &scratch, &record));
        runs += record.kind == RECORD_EXECUTION;
    }
    assert_int_equal(runs, 3);
    record_scratch_free(&scratch);
}

static void a_workers_death_counts_as_its_confirmation_of_the_new_epoch(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);

    story_open(story, "chat", &worker, 1);
    uint64_t second = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, second, SESSION_OPEN, session_open, .request = 6, .device_index = -2, .name = "chat");
    assert_null(rig_heard(rig, second, WIRE_SESSION_GRANT));
    rig_link_down(rig, worker);
    assert_non_null(rig_heard(rig, second, WIRE_SESSION_GRANT));
}

static void an_old_epoch_does_not_come_back(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct wire_failed failed;

    rig_link_down(rig, story_open(story, "chat", &worker, 1));
    uint64_t second = rig_link(rig, ROLE_CLIENT, token), late = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, second, SESSION_OPEN, session_open, .request = 6, .device_index = -2, .name = "chat");
    SAY(rig, late, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = story->session, .epoch = 1);
    HEARD(rig, late, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_EPOCH_FENCED);
    assert_true(rig_is_closed(rig, late));
}

static void sessions_survive_the_head_and_their_numbers_are_not_used_again(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct wire_session_grant grant;

    story_open(story, "chat", &worker, 1);
    story_run(story, worker, 3);
    rig_link_down(rig, worker);    // so that the next life waits for nobody
    rig_restart(rig);
    uint64_t other = rig_link(rig, ROLE_CLIENT, token), client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, other, SESSION_OPEN, session_open, .request = 1, .device_index = -2);
    HEARD(rig, other, SESSION_GRANT, session_grant, &grant);
    assert_int_not_equal(grant.session, story->session);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 1, .device_index = -2, .name = "chat");
    HEARD(rig, client, SESSION_GRANT, session_grant, &grant);
    assert_int_equal(grant.session, story->session);
    assert_int_equal(grant.epoch, 2);
    assert_int_equal(grant.journalled, 3);
}

static void a_session_that_is_closed_is_erased(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "chat", &worker, 1);

    story_run(story, worker, 3);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 3);
    SAY(rig, client, SESSION_CLOSE, session_close, .session = story->session, .epoch = 1);
    assert_non_null(rig_heard(rig, worker, WIRE_DISMISS));
    rig_advance(rig, 2000000000);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
    assert_int_equal(rig_stored(rig, STORE_SESSION), 0);
    story_run(story, worker, 1);    // still on its way
    rig_advance(rig, 2000000000);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
}

static void erasing_goes_on_after_a_restart(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);

    story_run(story, worker, 3);
    SAY(rig, client, SESSION_CLOSE, session_close, .session = story->session, .epoch = 1);
    rig_restart(rig);
    rig_advance(rig, 2000000000);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
    assert_int_equal(rig_stored(rig, STORE_SESSION), 0);
}

static void a_named_session_that_is_kept_loses_its_values_and_keeps_its_records_for_a_while(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "chat", &worker, 1);

    story_run(story, worker, 3);
    SAY(rig, client, SESSION_CLOSE, session_close, .session = story->session, .epoch = 1, .keep = true);
    assert_non_null(rig_heard(rig, worker, WIRE_DISMISS));
    rig_link_down(rig, worker);
    rig_advance(rig, 60 * (uint64_t)1000000000);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 3);
    rig->now_ns += HEAD_RETENTION_NS;
    rig_advance(rig, 2000000000);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
    assert_int_equal(rig_stored(rig, STORE_SESSION), 0);
}

static void the_records_of_a_session_are_read_in_pages_each_plan_before_its_first_use(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "chat", &worker, 1), from = 0;
    uint32_t executions = 0, plans = 0, pages = 0;
    struct record_scratch scratch;
    struct record record;

    story_run(story, worker, 700);
    assert_ok(record_scratch_make(&scratch));
    do {
        struct wire_journal_part part;
        SAY(rig, client, JOURNAL_GET, journal_get, .request = 4, .session = story->session, .epoch = 1, .from = from);
        HEARD(rig, client, JOURNAL_PART, journal_part, &part);
        struct reader reader = reader_make(part.records, part.records_bytes);
        for (uint32_t i = 0; i < part.count; i++) {
            assert_ok(record_read(&reader, &scratch, &record));
            plans += record.kind == RECORD_PLAN;
            if (record.kind == RECORD_EXECUTION)
                assert_int_equal(record.execution.id.counter, ++executions);
            assert_true(plans == (executions < 2 ? executions == 0 || record.kind == RECORD_EXECUTION ? 1 : 2 : 2));
        }
        assert_int_equal(reader_left(&reader), 0);
        assert_true(part.next > from || part.next == 0);
        from = part.next;
        pages++;
    } while (from != 0);
    record_scratch_free(&scratch);
    assert_int_equal(executions, 700);
    assert_true(pages > 1);
}

static void a_lost_worker_is_replaced_by_one_of_its_class_and_not_by_one_that_cannot_be_reached(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), plain = rig_worker_of(rig, "w2", 20, "other"), twin = rig_worker(rig, "w3", 30);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct wire_admit admit;

    SAY(rig, client, GRANT_ASK, grant_ask, .request = 2, .session = story->session, .epoch = 1, .device_index = 0,
        .numerics = (uint32_t)hash64("test", 4), .avoid = 10);
    assert_null(rig_heard(rig, worker, WIRE_ADMIT));
    assert_null(rig_heard(rig, plain, WIRE_ADMIT));
    HEARD(rig, twin, ADMIT, admit, &admit);
    rig_link_down(rig, worker);
    rig_link_down(rig, twin);
    SAY(rig, client, GRANT_ASK, grant_ask, .request = 3, .session = story->session, .epoch = 1, .device_index = 0,
        .numerics = (uint32_t)hash64("test", 4), .avoid = 10);
    HEARD(rig, plain, ADMIT, admit, &admit);
}

static void replicas_go_to_another_living_worker(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_admit admit;

    SAY(rig, client, SESSION_OPEN, session_open, .request = 1, .device_index = -1, .recovery = LINEAGE_REPLICATE,
        .replay_limit_ns = 7);
    HEARD(rig, worker, ADMIT, admit, &admit);
    assert_int_equal(admit.recovery, LINEAGE_REPLICATE);
    assert_int_equal(admit.replay_limit_ns, 7);
    assert_int_equal(admit.replicas_count, 0);
    uint64_t other = rig_worker(rig, "w2", 20);
    HEARD(rig, worker, ADMIT, admit, &admit);
    assert_int_equal(admit.replicas_count, 1);
    assert_int_equal(admit.replicas[0].incarnation, 20);
    rig_worker(rig, "w3", 30);
    rig_link_down(rig, other);
    HEARD(rig, worker, ADMIT, admit, &admit);
    assert_int_equal(admit.replicas[0].incarnation, 30);
}

static void a_head_that_slept_gives_everybody_that_time(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), client = rig_link(rig, ROLE_CLIENT, token);

    rig_advance(rig, HEAD_LEASE_NS / 2);
    SAY(rig, worker, HEARTBEAT, heartbeat, .sequence = 1);
    for (int i = 0; i < 4; i++) {    // it runs once in three seconds, and hears nobody meanwhile
        rig->now_ns += 3000000000;
        rig_run(rig);
        rig->now_ns += 260000000;
        rig_run(rig);
    }
    assert_null(rig_heard(rig, client, WIRE_WORKER_GONE));
    rig_advance(rig, HEAD_LEASE_NS + 1000000000);
    assert_non_null(rig_heard(rig, client, WIRE_WORKER_GONE));
}

static void assert_sessions_at(struct rig *rig, uint64_t sessions)
{
    uint64_t admin = rig_link(rig, ROLE_ADMIN, token);
    struct wire_told told;
    char text[4096];

    SAY(rig, admin, ASK, ask, .request = 1, .verb = "status");
    HEARD(rig, admin, TOLD, told, &told);
    snprintf(text, sizeof text, "%.*s", (int)told.data_bytes, (const char *)told.data);
    const char *at = strstr(text, "\"workers\":[");
    at = at == NULL ? NULL : strstr(at, "\"sessions\":");
    assert_non_null(at);
    assert_int_equal(strtoull(at + strlen("\"sessions\":"), NULL, 10), sessions);
}

// A session that had values, of which none are left; its client and its worker find a new head.
static uint64_t come_back(struct rig *rig, struct story *story, uint64_t *worker)
{
    story_open(story, "", worker, 1);
    story_run(story, *worker, 1);
    rig_restart(rig);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = story->session, .epoch = 1);
    *worker = rig_worker(rig, "w1", 10);
    assert_sessions_at(rig, 0);
    return client;
}

static void a_session_that_a_worker_has_is_granted_to_it_also_by_a_new_head(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = come_back(rig, story, &worker);
    struct wire_dismiss dismiss;
    struct wire_admit admit;

    SAY(rig, worker, INVENTORY, inventory, .session = story->session, .epoch = 1);
    assert_null(rig_heard(rig, worker, WIRE_ADMIT));
    assert_sessions_at(rig, 1);
    // The grant that the client asks for is this one.
    SAY(rig, client, GRANT_ASK, grant_ask, .request = 2, .session = story->session, .epoch = 1, .device_index = 0);
    HEARD(rig, worker, ADMIT, admit, &admit);
    assert_sessions_at(rig, 1);
    SAY(rig, client, SESSION_CLOSE, session_close, .session = story->session, .epoch = 1);
    HEARD(rig, worker, DISMISS, dismiss, &dismiss);
    assert_int_equal(dismiss.session, story->session);
    assert_sessions_at(rig, 0);
    assert_null(rig_heard(rig, worker, WIRE_DISMISS));
}

static void a_session_of_which_a_worker_journals_is_granted_to_it_also_by_a_new_head(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = come_back(rig, story, &worker);

    story_run(story, worker, 2);
    assert_sessions_at(rig, 1);
    SAY(rig, client, SESSION_CLOSE, session_close, .session = story->session, .epoch = 1);
    assert_non_null(rig_heard(rig, worker, WIRE_DISMISS));
}

static void a_session_that_is_over_is_dismissed_at_a_worker_that_still_has_it(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);

    SAY(rig, worker, INVENTORY, inventory, .session = 77, .epoch = 1);
    assert_non_null(rig_heard(rig, worker, WIRE_DISMISS));
    SAY(rig, worker, INVENTORY, inventory, .is_last = true);
    assert_null(rig_heard(rig, worker, WIRE_DISMISS));
}

static void taking_over_after_a_restart_waits_for_all_who_have_something_of_the_session(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker[2] = {rig_worker(rig, "w1", 10), rig_worker(rig, "w2", 20)};
    struct story *story = story_make(state, rig);
    struct wire_admit admit;

    story_open(story, "chat", worker, 2);
    story_run(story, worker[0], 1);
    rig_restart(rig);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 6, .device_index = -2, .name = "chat");
    worker[0] = rig_worker(rig, "w1", 10);
    SAY(rig, worker[0], INVENTORY, inventory, .session = story->session, .epoch = 1);
    HEARD(rig, worker[0], ADMIT, admit, &admit);
    assert_int_equal(admit.epoch, 2);
    worker[1] = rig_worker(rig, "w2", 20);
    story_run(story, worker[1], 1);    // it tells of what it ran only
    rig_advance(rig, 1000000000);
    HEARD(rig, worker[1], ADMIT, admit, &admit);
    assert_int_equal(admit.epoch, 2);
    SAY(rig, worker[0], ADMITTED, admitted, .session = story->session, .epoch = 2);
    assert_null(rig_heard(rig, client, WIRE_SESSION_GRANT));
    SAY(rig, worker[1], ADMITTED, admitted, .session = story->session, .epoch = 2);
    assert_non_null(rig_heard(rig, client, WIRE_SESSION_GRANT));
}

CASES(a_session_is_durable_before_its_client_hears_of_it, taking_over_by_name_fences_the_old_client_and_waits_for_every_worker,
      what_an_earlier_epoch_tells_after_the_takeover_is_left_out, a_workers_death_counts_as_its_confirmation_of_the_new_epoch,
      an_old_epoch_does_not_come_back, sessions_survive_the_head_and_their_numbers_are_not_used_again,
      a_session_that_is_closed_is_erased, erasing_goes_on_after_a_restart,
      a_named_session_that_is_kept_loses_its_values_and_keeps_its_records_for_a_while,
      the_records_of_a_session_are_read_in_pages_each_plan_before_its_first_use,
      a_lost_worker_is_replaced_by_one_of_its_class_and_not_by_one_that_cannot_be_reached, replicas_go_to_another_living_worker,
      a_head_that_slept_gives_everybody_that_time, a_session_that_a_worker_has_is_granted_to_it_also_by_a_new_head,
      a_session_of_which_a_worker_journals_is_granted_to_it_also_by_a_new_head,
      a_session_that_is_over_is_dismissed_at_a_worker_that_still_has_it,
      taking_over_after_a_restart_waits_for_all_who_have_something_of_the_session)
