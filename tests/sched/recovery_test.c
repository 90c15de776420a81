// What the head promises about lost values: the smallest replay, no replay of what somebody holds, a typed error for what cannot come back,
// and no plan before everything that was told is durable and everybody who is remembered has told what he holds.

#include <stdio.h>
#include <string.h>

#include "tests/sched/story.h"

static const struct hash128 token = {1, 2};

static void a_lost_value_is_replayed_from_its_start(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story_run(story, worker, 5);
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 5, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.replays, 5);
    assert_int_equal(steps.all, 5);
    assert_int_equal(steps.first, 1);
}

static void what_another_worker_holds_is_fetched_and_not_replayed(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), other = rig_worker(rig, "w3", 30);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct writer held = writer_make(16);
    struct story_steps steps;

    story_run(story, worker, 5);
    write_var(&held, 5);
    write_var(&held, 0);
    write_var(&held, 24);
    SAY(rig, other, INVENTORY, inventory, .session = story->session, .epoch = 1, .count = 1, .handles = held.data,
        .handles_bytes = (uint32_t)held.length);
    writer_free(&held);
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 5, 20, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.fetches, 1);
    assert_int_equal(steps.all, 1);
    // It turns out not to be there.
    story_recover(story, client, 5, 20, 0, 5);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.replays, 5);
}

static void what_the_target_holds_needs_nothing(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story_run(story, worker, 3);
    story_recover(story, client, 3, 10, 0, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.all, 0);
    story_recover(story, client, 3, 10, 0, 3);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.all, 3);
}

static void what_nothing_brings_back_is_named(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct wire_failed failed;
    char text[HANDLE_TEXT];
    struct handle handle = {.execution = {.session = story->session, .counter = 8}};

    story_run(story, worker, 3);
    story_recover(story, client, 8, 10, 0, 0);
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_LINEAGE);
    assert_int_equal(failed.request, 9);
    assert_non_null(strstr(failed.text, handle_text(handle, text)));
}

static void what_only_a_record_that_waits_brings_back_is_to_be_asked_for_again(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker[2] = {rig_worker(rig, "w1", 10), rig_worker(rig, "w2", 20)};
    struct story *story = story_make(state, rig), *there = story_make(state, rig);
    uint64_t client = story_open(story, "", worker, 2);
    struct wire_failed failed;
    struct wire_admit admit;
    struct story_steps steps;

    SAY(rig, client, GRANT_ASK, grant_ask, .request = 2, .session = story->session, .epoch = 1, .device_index = 1);
    HEARD(rig, worker[1], ADMIT, admit, &admit);
    there->session = story->session;
    // Its source was made by the first worker, which has not told of that.
    struct record import = {.kind = RECORD_IMPORT,
                            .import = {.id = {.session = story->session, .counter = 5}, .source = {.counter = 1}, .bytes = 24}};
    story_journal(there, worker[1], &import);
    story_recover(story, client, 5, 10, 0, 0);
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_BUSY);
    story_run(story, worker[0], 1);
    story_recover(story, client, 5, 10, 0, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.fetches, 1);
}

static void a_recovery_waits_until_what_was_told_before_is_durable(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct story_steps steps;

    story_run(story, worker, 3);
    rig_link_down(rig, worker);
    rig_worker(rig, "w2", 20);
    rig->holds_commits = true;
    story->journalled = 0;
    story_run(story, client, 1);    // the client tells what its worker did not
    story_run(story, client, 1);    // behind what is being written
    story_recover(story, client, 5, 20, 10, 0);
    assert_false(story_recovery(story, client, &steps));
    rig->holds_commits = false;
    rig_release_commits(rig, DJ_OK);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.replays, 5);
}

static void a_recovery_goes_with_its_client_and_is_answered_when_its_target_dies(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), target = rig_worker(rig, "w2", 20);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct wire_failed failed;

    story_run(story, worker, 3);
    rig_link_down(rig, worker);
    rig->holds_answers = true;
    story_recover(story, client, 3, 20, 10, 0);
    rig_link_down(rig, target);
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_WORKER_LOST);
    rig_release_answers(rig);
    rig_worker(rig, "w3", 30);
    rig->holds_answers = true;
    story_recover(story, client, 3, 30, 10, 0);
    rig_link_down(rig, client);
    rig_release_answers(rig);
    assert_null(rig_heard(rig, client, WIRE_RECOVERY));
}

static void after_a_restart_nothing_is_planned_before_the_inventories(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct wire_session_grant grant;
    struct story_steps steps;

    story_open(story, "", &worker, 1);
    rig_worker(rig, "w2", 20);
    story_run(story, worker, 4);
    rig_restart(rig);

    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = story->session, .epoch = 1);
    HEARD(rig, client, SESSION_GRANT, session_grant, &grant);
    rig_worker(rig, "w2", 20);
    story_recover(story, client, 4, 20, 10, 0);
    assert_false(story_recovery(story, client, &steps));

    struct writer held = writer_make(16);
    worker = rig_link(rig, ROLE_WORKER, token);
    struct wire_device device = {.name = "cpu", .backend = "cpu", .numerics = "test", .threads = 1};
    SAY(rig, worker, JOIN, join, .name = "w1", .incarnation = 10, .pid = 10, .devices = &device, .devices_count = 1);
    assert_false(story_recovery(story, client, &steps));
    write_var(&held, 4);
    write_var(&held, 0);
    write_var(&held, 24);
    SAY(rig, worker, INVENTORY, inventory, .session = story->session, .epoch = 1, .count = 1, .handles = held.data,
        .handles_bytes = (uint32_t)held.length, .is_last = true);
    writer_free(&held);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.fetches, 1);
    assert_int_equal(steps.all, 1);
}

static void after_a_restart_a_worker_that_does_not_come_back_is_waited_for_one_lease(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct story_steps steps;

    story_open(story, "", &worker, 1);
    story_run(story, worker, 4);
    rig_restart(rig);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = story->session, .epoch = 1);
    uint64_t other = rig_worker(rig, "w2", 20);
    story_recover(story, client, 4, 20, 10, 0);
    for (int i = 0; i < 7; i++) {
        rig_advance(rig, HEAD_HEARTBEAT_NS);
        SAY(rig, other, HEARTBEAT, heartbeat, .sequence = (uint64_t)i);
    }
    assert_false(story_recovery(story, client, &steps));
    rig_advance(rig, 2 * HEAD_HEARTBEAT_NS);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.replays, 4);
}

static void a_value_is_explained_and_an_unknown_one_is_not_found(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), admin = rig_link(rig, ROLE_ADMIN, token);
    struct story *story = story_make(state, rig);
    struct wire_told told;
    struct wire_failed failed;
    struct wire_ask ask = {.request = 3, .verb = "explain"};
    struct handle handle;

    story_open(story, "", &worker, 1);
    story_run(story, worker, 4);
    handle = (struct handle){.execution = {.session = story->session, .counter = 4}};
    handle_text(handle, ask.argument);
    rig_say(rig, admin, WIRE_ASK, wire_ask_encode(&ask), NULL);
    HEARD(rig, admin, TOLD, told, &told);
    char text[4096] = "";
    assert_true(told.data_bytes < sizeof text);
    memcpy(text, told.data, told.data_bytes);
    assert_non_null(strstr(text, "\"op\":\"MUL\""));
    assert_non_null(strstr(text, "\"held_by\":[\"w1\"]"));

    handle.execution.counter = 99;
    handle_text(handle, ask.argument);
    rig_say(rig, admin, WIRE_ASK, wire_ask_encode(&ask), NULL);
    HEARD(rig, admin, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_NOT_FOUND);
    snprintf(ask.argument, sizeof ask.argument, "nonsense");
    rig_say(rig, admin, WIRE_ASK, wire_ask_encode(&ask), NULL);
    HEARD(rig, admin, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_INVALID);
}

CASES(a_lost_value_is_replayed_from_its_start, what_another_worker_holds_is_fetched_and_not_replayed,
      what_the_target_holds_needs_nothing, what_nothing_brings_back_is_named,
      what_only_a_record_that_waits_brings_back_is_to_be_asked_for_again, a_recovery_waits_until_what_was_told_before_is_durable,
      a_recovery_goes_with_its_client_and_is_answered_when_its_target_dies,
      after_a_restart_nothing_is_planned_before_the_inventories,
      after_a_restart_a_worker_that_does_not_come_back_is_waited_for_one_lease,
      a_value_is_explained_and_an_unknown_one_is_not_found)
