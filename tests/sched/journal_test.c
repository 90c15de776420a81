// What the head promises about the journal: order, causal closure, whose word counts, a full disk, exactly which executions are durable.

#include <string.h>

#include "tests/sched/story.h"

static const struct hash128 token = {1, 2};

static void a_full_disk_refuses_new_work_and_loses_nothing(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1), other = rig_link(rig, ROLE_CLIENT, token);
    struct wire_failed failed;
    struct wire_journal_ok ok;

    rig->store_error = DJ_E_STORE_FULL;
    story_run(story, worker, 2);
    story_run(story, worker, 2);
    assert_null(rig_heard(rig, worker, WIRE_JOURNAL_OK));
    assert_null(rig_heard(rig, client, WIRE_WATERMARK));
    assert_false(rig_is_closed(rig, worker));
    SAY(rig, other, SESSION_OPEN, session_open, .request = 1, .device_index = -1);
    HEARD(rig, other, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_STORE_FULL);
    SAY(rig, client, GRANT_ASK, grant_ask, .request = 2, .session = story->session, .epoch = 1, .device_index = 0);
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_STORE_FULL);

    rig_advance(rig, 1000000000);
    SAY(rig, worker, HEARTBEAT, heartbeat, .sequence = 1);
    assert_null(rig_heard(rig, worker, WIRE_JOURNAL_OK));
    rig->store_error = DJ_OK;
    rig_advance(rig, 3000000000);
    HEARD(rig, worker, JOURNAL_OK, journal_ok, &ok);
    assert_int_equal(ok.last, 4);    // two plans, two executions
    HEARD(rig, worker, JOURNAL_OK, journal_ok, &ok);
    assert_int_equal(ok.last, 6);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 4);
    SAY(rig, other, SESSION_OPEN, session_open, .request = 1, .device_index = -2);
    assert_non_null(rig_heard(rig, other, WIRE_SESSION_GRANT));
}

static void clients_hear_exactly_which_executions_are_durable(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct wire_watermark watermark;

    story_run(story, worker, 1);
    HEARD(rig, client, WATERMARK, watermark, &watermark);
    rig->holds_commits = true;
    story_run(story, worker, 1);
    story->made += 7;
    story->begins = true;
    story_run(story, worker, 1);
    rig->holds_commits = false;
    rig_release_commits(rig, DJ_OK);
    HEARD(rig, client, WATERMARK, watermark, &watermark);
    assert_int_equal(watermark.counter, 2);
    HEARD(rig, client, WATERMARK, watermark, &watermark);
    struct reader reader = reader_make(watermark.counters, watermark.counters_bytes);
    assert_int_equal(watermark.counter, 10);
    assert_int_equal(read_var(&reader), 10);
    assert_int_equal(reader_left(&reader), 0);
}

static struct record import_of(uint64_t session, uint64_t counter, uint64_t source)
{
    return (struct record){
        .kind = RECORD_IMPORT,
        .import = {.id = {.session = session, .counter = counter}, .source = {.counter = source}, .bytes = 24}};
}

static void an_import_waits_for_the_record_of_what_it_imported(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker[2] = {rig_worker(rig, "w1", 10), rig_worker(rig, "w2", 20)};
    struct story *story = story_make(state, rig), *there = story_make(state, rig);
    uint64_t client = story_open(story, "", worker, 2);
    struct wire_admit admit;
    struct wire_journal_ok ok;

    SAY(rig, client, GRANT_ASK, grant_ask, .request = 2, .session = story->session, .epoch = 1, .device_index = 1);
    HEARD(rig, worker[1], ADMIT, admit, &admit);
    there->session = story->session;
    struct record import = import_of(story->session, 5, 1);
    story_journal(there, worker[1], &import);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
    assert_null(rig_heard(rig, worker[1], WIRE_JOURNAL_OK));
    story_run(story, worker[0], 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 2);
    HEARD(rig, worker[1], JOURNAL_OK, journal_ok, &ok);
    assert_int_equal(ok.last, 1);
    // What is in the store already need not be told again.
    import = import_of(story->session, 6, 1);
    story_journal(there, worker[1], &import);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 3);
}

static void an_execution_waits_for_the_records_of_its_inputs_and_those_behind_it_wait_too(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    story_open(story, "", &worker, 1);
    struct record import = import_of(story->session, 8, 1);
    struct wire_journal_ok ok;

    story_run(story, worker, 1);
    HEARD(rig, worker, JOURNAL_OK, journal_ok, &ok);
    story->made = 8;
    story_run(story, worker, 1);    // of 8, whose record comes behind it
    story->begins = true;
    story_run(story, worker, 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 1);
    assert_null(rig_heard(rig, worker, WIRE_JOURNAL_OK));
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);    // the session's client tells it
    SAY(rig, client, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = story->session, .epoch = 1);
    struct story *there = story_make(state, rig);
    there->session = story->session;
    story_journal(there, client, &import);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 4);
    HEARD(rig, worker, JOURNAL_OK, journal_ok, &ok);
    HEARD(rig, worker, JOURNAL_OK, journal_ok, &ok);
    assert_int_equal(ok.last, story->journalled);
}

static void a_record_that_comes_behind_the_one_that_needs_it_is_taken_first(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    story_open(story, "", &worker, 1);
    struct record import = import_of(story->session, 8, 1);

    story_run(story, worker, 1);
    story->made = 8;
    story_run(story, worker, 2);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 1);
    story_journal(story, worker, &import);    // its device told of it later
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 4);
}

static void what_is_waited_for_may_itself_wait_for_what_stands_in_front_of_it(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    story_open(story, "", &worker, 1);
    struct record last = import_of(story->session, 9, 6), first = import_of(story->session, 4, 1),
                  next = import_of(story->session, 6, 4);

    story_run(story, worker, 1);
    story_journal(story, worker, &last);
    story_journal(story, worker, &first);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 1);
    story_journal(story, worker, &next);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 4);
}

static void who_is_waited_for_may_wait_for_what_is_never_told(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    story_open(story, "", &worker, 1);
    struct record last = import_of(story->session, 9, 6), next = import_of(story->session, 6, 4),
                  other = import_of(story->session, 10, 9);

    story_run(story, worker, 1);
    story_journal(story, worker, &last);
    story_journal(story, worker, &next);
    story_journal(story, worker, &other);
    rig_advance(rig, 1000000000);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 1);
    struct record missing = import_of(story->session, 4, 1);
    story_journal(story, worker, &missing);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 5);
}

static void what_waited_for_a_record_goes_with_its_link(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    story_open(story, "", &worker, 1);
    struct record import = import_of(story->session, 5, 1);

    story_journal(story, worker, &import);
    rig_link_down(rig, worker);
    rig_advance(rig, 1000000000);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
}

static void only_who_has_the_session_speaks_for_it(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), stranger = rig_worker(rig, "w2", 20);
    struct story *story = story_make(state, rig), *other = story_make(state, rig), *another = story_make(state, rig);
    story_open(story, "", &worker, 1);
    uint64_t third = rig_worker(rig, "w3", 30), client = story_open(other, "", (uint64_t[]){stranger, third}, 2);
    struct wire_journal_ok ok;

    other->session = story->session;
    story_run(other, client, 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
    HEARD(rig, client, JOURNAL_OK, journal_ok, &ok);    // what is left out is done with, too
    another->session = story->session;
    story_run(another, third, 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
    story_run(story, worker, 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 1);
}

static void what_is_said_of_session_0_is_left_out(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct record import = import_of(0, 1, 0), release = {.kind = RECORD_RELEASE};
    story_open(story, "", &worker, 1);
    story_journal(story, worker, &import);
    story_journal(story, worker, &release);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 0);
    story_run(story, worker, 1);
    assert_int_equal(rig_stored(rig, STORE_EXECUTION), 1);
}

static void records_older_than_an_inventory_add_no_location(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    struct story_steps steps;

    story_open(story, "", &worker, 1);
    rig_restart(rig);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = story->session, .epoch = 1);
    // A new life of the worker, which has dropped everything and still has an old record to tell.
    worker = rig_link(rig, ROLE_WORKER, token);
    struct wire_device device = {.name = "cpu", .backend = "cpu", .numerics = "test", .threads = 1};
    SAY(rig, worker, JOIN, join, .name = "w1", .incarnation = 11, .pid = 10, .devices = &device, .devices_count = 1);
    SAY(rig, worker, INVENTORY, inventory, .is_last = true, .journal_next = 100);
    story_run(story, worker, 2);
    story_recover(story, client, 2, 11, 10, 0);
    assert_true(story_recovery(story, client, &steps));
    assert_int_equal(steps.replays, 2);
}

static void a_value_that_was_given_back_is_not_live(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct writer gone = writer_make(64);
    struct record_ref ref = {.counter = 3};
    struct wire_located located;

    story_run(story, worker, 3);
    struct wire_handle handle[2] = {{.session = story->session, .counter = 2}, {.session = story->session, .counter = 3}};
    SAY(rig, client, LOCATE, locate, .request = 1, .handles = &handle[0], .handles_count = 1);
    HEARD(rig, client, LOCATED, located, &located);
    assert_int_equal(located.locations_count, 0);
    SAY(rig, client, LOCATE, locate, .request = 2, .handles = &handle[1], .handles_count = 1);
    HEARD(rig, client, LOCATED, located, &located);
    assert_int_equal(located.locations_count, 1);
    assert_int_equal(located.locations[0].incarnation, 10);
    record_refs_write(&gone, 4, &ref, 1);
    struct record release = {
        .kind = RECORD_RELEASE,
        .release = {.session = story->session, .from = 4, .gone = gone.data, .gone_bytes = (uint32_t)gone.length}};
    story_journal(story, worker, &release);
    writer_free(&gone);
    SAY(rig, client, LOCATE, locate, .request = 3, .handles = &handle[1], .handles_count = 1);
    HEARD(rig, client, LOCATED, located, &located);
    assert_int_equal(located.locations_count, 0);
}

static void say_checkpoint(struct story *story, uint64_t worker, uint64_t piece_number, bool is_replica)
{
    struct writer pieces = writer_make(256);
    struct record_piece piece = {.content = {.hi = 7, .lo = piece_number}, .rows = 2, .bytes = 24};

    record_piece_write(&pieces, &piece);
    struct record record = {.kind = RECORD_CHECKPOINT,
                            .checkpoint = {.handle = {.execution = {.session = story->session, .counter = 1}},
                                           .meta = story->begin.graph.out[0],
                                           .is_replica = is_replica,
                                           .pieces = 1,
                                           .piece = pieces.data,
                                           .piece_bytes = (uint32_t)pieces.length}};
    story_journal(story, worker, &record);
    writer_free(&pieces);
}

static void assert_checkpoint(struct story *story, uint64_t piece_number)
{
    uint8_t key[RECORD_KEY_MAX];
    struct handle handle = {.execution = {.session = story->session, .counter = 1}};
    const struct blob *value = rig_stored_at(story->rig, STORE_CHECKPOINT, key, record_key_handle(handle, key));
    struct record_scratch scratch;
    struct record record;

    assert_non_null(value);
    struct reader reader = reader_make(value->data, value->bytes);
    assert_ok(record_scratch_make(&scratch));
    assert_ok(record_read(&reader, &scratch, &record));
    record_scratch_free(&scratch);
    struct reader pieces = reader_make(record.checkpoint.piece, record.checkpoint.piece_bytes);
    assert_int_equal(record_piece_read(&pieces).content.lo, piece_number);
}

static void a_checkpoint_in_the_store_replaces_a_replica_and_not_the_other_way_round(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);

    story_open(story, "", &worker, 1);
    story_run(story, worker, 1);
    say_checkpoint(story, worker, 1, true);
    assert_checkpoint(story, 1);
    say_checkpoint(story, worker, 2, false);
    assert_checkpoint(story, 2);
    say_checkpoint(story, worker, 3, true);
    assert_checkpoint(story, 2);
}

CASES(a_full_disk_refuses_new_work_and_loses_nothing, clients_hear_exactly_which_executions_are_durable,
      an_import_waits_for_the_record_of_what_it_imported, what_waited_for_a_record_goes_with_its_link,
      a_record_that_comes_behind_the_one_that_needs_it_is_taken_first,
      what_is_waited_for_may_itself_wait_for_what_stands_in_front_of_it, who_is_waited_for_may_wait_for_what_is_never_told,
      an_execution_waits_for_the_records_of_its_inputs_and_those_behind_it_wait_too, only_who_has_the_session_speaks_for_it,
      what_is_said_of_session_0_is_left_out, records_older_than_an_inventory_add_no_location,
      a_value_that_was_given_back_is_not_live, a_checkpoint_in_the_store_replaces_a_replica_and_not_the_other_way_round)
