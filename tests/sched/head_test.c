// What a head promises: who may talk to it, how workers join and are fenced, how sessions get grants, what the journal's acknowledgement
// means.

#include <string.h>

#include "core/io/blob.h"
#include "core/lineage/record.h"
#include "tests/sched/rig.h"

static const struct hash128 token = {1, 2};

static void the_first_words_are_accepted_with_the_right_token(void **state)
{
    struct rig *rig = rig_make(state, token);
    struct wire_hello_ok ok;
    uint64_t link = rig_link(rig, ROLE_ADMIN, token);

    HEARD(rig, link, HELLO_OK, hello_ok, &ok);
    assert_int_equal(ok.generation, 1);
    assert_false(rig_is_closed(rig, link));
}

static void a_wrong_token_is_told_so_and_closed(void **state)
{
    struct rig *rig = rig_make(state, token);
    struct wire_failed failed;
    uint64_t link = rig_link(rig, ROLE_CLIENT, (struct hash128){1, 3});

    HEARD(rig, link, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_TOKEN);
    assert_true(rig_is_closed(rig, link));
}

static void another_protocol_version_is_told_both_versions(void **state)
{
    struct rig *rig = rig_make(state, token);
    struct wire_failed failed;
    struct io_event up = {.kind = IO_LINK_UP};

    up.link_up.link = 77;
    assert_ok(process_post(rig->process, &up));
    SAY(rig, 77, HELLO, hello, .version = 99, .role = ROLE_CLIENT, .token = token, .build = "9.9");
    HEARD(rig, 77, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_VERSION);
    assert_non_null(strstr(failed.text, "99"));
    assert_non_null(strstr(failed.text, "version 3"));
    assert_true(rig_is_closed(rig, 77));
}

static void nothing_is_accepted_before_hello(void **state)
{
    struct rig *rig = rig_make(state, token);
    struct io_event up = {.kind = IO_LINK_UP};

    up.link_up.link = 78;
    assert_ok(process_post(rig->process, &up));
    SAY(rig, 78, SESSION_OPEN, session_open, .request = 1, .device_index = -1);
    assert_true(rig_is_closed(rig, 78));
}

static void garbage_in_a_message_closes_only_its_link(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t good = rig_worker(rig, "w1", 10), bad = rig_link(rig, ROLE_WORKER, token);

    rig_say(rig, bad, WIRE_JOIN, blob_copy("\xff\xff\xff\xff\xff", 5), NULL);
    assert_true(rig_is_closed(rig, bad));
    assert_false(rig_is_closed(rig, good));
    rig_say(rig, good, 4000, blob_copy("", 0), NULL);
    assert_true(rig_is_closed(rig, good));
}

static void a_session_is_granted_only_after_the_worker_admitted_it(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_admit admit;
    struct wire_session_grant grant;

    SAY(rig, client, SESSION_OPEN, session_open, .request = 5, .device_index = -1);
    assert_null(rig_heard(rig, client, WIRE_SESSION_GRANT));
    HEARD(rig, worker, ADMIT, admit, &admit);
    SAY(rig, worker, ADMITTED, admitted, .session = admit.session, .epoch = admit.epoch);
    HEARD(rig, client, SESSION_GRANT, session_grant, &grant);
    assert_int_equal(grant.request, 5);
    assert_int_equal(grant.session, admit.session);
    assert_int_equal(grant.grants_count, 1);
    assert_true(hash128_equal(grant.grants[0].secret, admit.secret));
    assert_string_equal(grant.grants[0].name, "w1");
}

static void without_workers_a_session_hears_what_to_do(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_failed failed;

    SAY(rig, client, SESSION_OPEN, session_open, .request = 5, .device_index = -1);
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_NO_WORKER);
    assert_int_equal(failed.request, 5);
    assert_non_null(strstr(failed.text, "djinn start --worker"));
}

static void sessions_spread_over_workers_and_stay_where_they_are(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker[2] = {rig_worker(rig, "w1", 10), rig_worker(rig, "w2", 20)};
    uint64_t first = rig_link(rig, ROLE_CLIENT, token), second = rig_link(rig, ROLE_CLIENT, token);
    struct wire_admit admit;

    SAY(rig, first, SESSION_OPEN, session_open, .request = 1, .device_index = -1);
    HEARD(rig, worker[0], ADMIT, admit, &admit);
    SAY(rig, second, SESSION_OPEN, session_open, .request = 1, .device_index = -1);
    assert_null(rig_heard(rig, worker[0], WIRE_ADMIT));
    HEARD(rig, worker[1], ADMIT, admit, &admit);
    SAY(rig, second, GRANT_ASK, grant_ask, .request = 2, .session = admit.session, .epoch = admit.epoch, .device_index = -1);
    HEARD(rig, worker[1], ADMIT, admit, &admit);
    SAY(rig, second, GRANT_ASK, grant_ask, .request = 3, .session = admit.session, .epoch = admit.epoch, .device_index = 0);
    HEARD(rig, worker[0], ADMIT, admit, &admit);
}

static void a_device_that_is_not_there_is_refused_by_name(void **state)
{
    struct rig *rig = rig_make(state, token);
    struct wire_failed failed;
    uint64_t client;

    rig_worker(rig, "w1", 10);
    client = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, client, SESSION_OPEN, session_open, .request = 1, .device_index = 7);
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_NO_DEVICE);
    assert_non_null(strstr(failed.text, "remote_accelerator:7"));
}

static void a_closed_connection_fences_its_worker_at_once(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_worker_gone gone;

    rig_link_down(rig, worker);
    HEARD(rig, client, WORKER_GONE, worker_gone, &gone);
    assert_int_equal(gone.incarnation, 10);
    assert_string_equal(gone.name, "w1");
}

static void a_silent_worker_is_fenced_after_its_lease_and_not_before(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t silent = rig_worker(rig, "w1", 10), alive = rig_worker(rig, "w2", 20), client = rig_link(rig, ROLE_CLIENT, token);

    for (int i = 0; i < 7; i++) {
        rig_advance(rig, HEAD_HEARTBEAT_NS);
        SAY(rig, alive, HEARTBEAT, heartbeat, .sequence = (uint64_t)i);
    }
    assert_null(rig_heard(rig, client, WIRE_WORKER_GONE));
    rig_advance(rig, HEAD_HEARTBEAT_NS + 400000000);
    SAY(rig, alive, HEARTBEAT, heartbeat, .sequence = 8);
    rig_advance(rig, 300000000);
    assert_non_null(rig_heard(rig, client, WIRE_WORKER_GONE));
    assert_null(rig_heard(rig, client, WIRE_WORKER_GONE));
    assert_true(rig_is_closed(rig, silent));
    assert_false(rig_is_closed(rig, alive));
}

static void a_new_life_of_a_worker_fences_the_old_one(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_worker_gone gone;

    rig_worker(rig, "w1", 10);
    rig_advance(rig, HEAD_LEASE_NS - 100000000);
    rig->now_ns += 200000000;    // silent for longer than its lease, not yet looked at
    rig_worker(rig, "w1", 11);
    HEARD(rig, client, WORKER_GONE, worker_gone, &gone);
    assert_int_equal(gone.incarnation, 10);
}

// What the head says to one who joins under the name of a worker that counts as alive.
static enum dj_error refusal(struct rig *rig, uint64_t incarnation, const char *word)
{
    uint64_t link = rig_worker(rig, "w1", incarnation);
    struct wire_failed failed;

    HEARD(rig, link, FAILED, failed, &failed);
    assert_null(rig_heard(rig, link, WIRE_JOINED));
    assert_true(rig_is_closed(rig, link));
    assert_non_null(strstr(failed.text, "named w1"));
    assert_non_null(strstr(failed.text, word));
    return (enum dj_error)failed.error;
}

static void a_new_life_that_comes_before_the_old_connection_closed_may_ask_again(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t old = rig_worker(rig, "w1", 10);

    assert_int_equal(dj_error_retry(refusal(rig, 11, "free within 4 s")), ERROR_RETRY_later);
    SAY(rig, old, HEARTBEAT, heartbeat, .sequence = 1);    // was under way as it died
    rig_advance(rig, HEAD_LEASE_NS - 100000000);
    assert_int_equal(dj_error_retry(refusal(rig, 11, "free within 4 s")), ERROR_RETRY_later);
    rig_link_down(rig, old);
    assert_non_null(rig_heard(rig, rig_worker(rig, "w1", 11), WIRE_JOINED));
}

static void a_twin_of_a_living_worker_is_told_so_after_a_lease(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t old = rig_worker(rig, "w1", 10);

    for (uint64_t waited = 0; waited < HEAD_LEASE_NS; waited += HEAD_HEARTBEAT_NS) {
        assert_int_equal(dj_error_retry(refusal(rig, 11, "a moment ago")), ERROR_RETRY_later);
        rig_advance(rig, HEAD_HEARTBEAT_NS);
        SAY(rig, old, HEARTBEAT, heartbeat, .sequence = waited);
    }
    // What the old one said before another newcomer came says nothing to it.
    assert_int_equal(dj_error_retry(refusal(rig, 12, "a moment ago")), ERROR_RETRY_later);
    for (uint64_t waited = 0; waited < HEAD_LEASE_NS; waited += HEAD_HEARTBEAT_NS) {
        assert_int_equal(dj_error_retry(refusal(rig, 12, "a moment ago")), ERROR_RETRY_later);
        rig_advance(rig, HEAD_HEARTBEAT_NS);
        SAY(rig, old, HEARTBEAT, heartbeat, .sequence = waited);
    }
    assert_int_equal(refusal(rig, 12, "--name"), DJ_E_INVALID);
    assert_false(rig_is_closed(rig, old));
}

static struct blob *journal_of(uint64_t session, uint64_t first_counter, uint32_t count)
{
    struct writer writer = writer_make(1 << 16);
    struct wire_journal journal = {.first = first_counter, .count = count};

    for (uint32_t i = 0; i < count; i++) {
        struct record record = {.kind = RECORD_EXECUTION};
        record.execution.id = (struct exec_id){.session = session, .counter = first_counter + i};
        record.execution.plan = (struct hash128){5, 6};
        record_write(&writer, &record);
    }
    journal.records = writer.data;
    journal.records_bytes = (uint32_t)writer.length;
    struct blob *body = wire_journal_encode(&journal);
    writer_free(&writer);
    return body;
}

static void records_are_acknowledged_only_when_durable_and_raise_the_watermark(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_admit admit;
    struct wire_journal_ok ok;
    struct wire_watermark watermark;

    SAY(rig, client, SESSION_OPEN, session_open, .request = 1, .device_index = -1);
    HEARD(rig, worker, ADMIT, admit, &admit);
    rig->holds_commits = true;
    rig_say(rig, worker, WIRE_JOURNAL, journal_of(admit.session, 1, 3), NULL);
    assert_null(rig_heard(rig, worker, WIRE_JOURNAL_OK));
    assert_null(rig_heard(rig, client, WIRE_WATERMARK));
    rig_release_commits(rig, DJ_OK);
    HEARD(rig, worker, JOURNAL_OK, journal_ok, &ok);
    assert_int_equal(ok.last, 3);
    HEARD(rig, client, WATERMARK, watermark, &watermark);
    assert_int_equal(watermark.counter, 3);
    assert_int_equal(watermark.incarnation, 10);
}

static void a_client_resumes_its_session_on_a_new_link(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), first = rig_link(rig, ROLE_CLIENT, token);
    struct wire_admit admit;
    struct wire_session_grant grant;

    SAY(rig, first, SESSION_OPEN, session_open, .request = 1, .device_index = -1);
    HEARD(rig, worker, ADMIT, admit, &admit);
    rig_link_down(rig, first);
    uint64_t second = rig_link(rig, ROLE_CLIENT, token);
    SAY(rig, second, SESSION_OPEN, session_open, .request = 7, .device_index = -2, .session = admit.session,
        .epoch = admit.epoch);
    HEARD(rig, second, SESSION_GRANT, session_grant, &grant);
    assert_int_equal(grant.session, admit.session);
    assert_int_equal(grant.grants_count, 0);
    for (uint64_t waited = 0; waited < HEAD_GRACE_NS + HEAD_LEASE_NS; waited += HEAD_HEARTBEAT_NS) {
        rig_advance(rig, HEAD_HEARTBEAT_NS);
        SAY(rig, worker, HEARTBEAT, heartbeat, .sequence = waited);
    }
    assert_null(rig_heard(rig, worker, WIRE_DISMISS));
}

static void a_session_that_no_life_of_the_head_gave_out_is_not_resumed(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_failed failed;

    SAY(rig, client, SESSION_OPEN, session_open, .request = 1, .device_index = -2, .session = (uint64_t)9 << 32 | 1, .epoch = 1);
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_SESSION_UNKNOWN);
}

static void a_leaf_is_durable_only_once_its_bytes_are_checked_and_committed(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct wire_leaf leaf = {.content = hash128("weights", 7), .bytes = 7};
    struct wire_leaf_ok ok;

    rig->holds_commits = true;
    SAY(rig, worker, LEAF_OFFER, leaf_offer, .leaves = &leaf, .leaves_count = 1);
    assert_non_null(rig_heard(rig, worker, WIRE_LEAF_NEED));
    struct wire_leaf_data data = {.content = leaf.content, .bytes = 7};
    rig_say(rig, worker, WIRE_LEAF_DATA, wire_leaf_data_encode(&data), blob_copy("weighty", 7));
    assert_null(rig_heard(rig, worker, WIRE_LEAF_OK));
    assert_non_null(rig_heard(rig, worker, WIRE_FAILED));
    SAY(rig, worker, LEAF_OFFER, leaf_offer, .leaves = &leaf, .leaves_count = 1);
    assert_non_null(rig_heard(rig, worker, WIRE_LEAF_NEED));
    rig_say(rig, worker, WIRE_LEAF_DATA, wire_leaf_data_encode(&data), blob_copy("weights", 7));
    assert_null(rig_heard(rig, worker, WIRE_LEAF_OK));
    rig_release_commits(rig, DJ_OK);
    HEARD(rig, worker, LEAF_OK, leaf_ok, &ok);
    assert_true(ok.durable);
    SAY(rig, worker, LEAF_OFFER, leaf_offer, .leaves = &leaf, .leaves_count = 1);
    assert_null(rig_heard(rig, worker, WIRE_LEAF_NEED));
    assert_non_null(rig_heard(rig, worker, WIRE_LEAF_OK));
}

static void a_session_whose_client_left_is_dismissed_after_the_grace_period(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t worker = rig_worker(rig, "w1", 10), client = rig_link(rig, ROLE_CLIENT, token);

    SAY(rig, client, SESSION_OPEN, session_open, .request = 1, .device_index = -1);
    rig_link_down(rig, client);
    for (uint64_t waited = 0; waited < HEAD_GRACE_NS; waited += HEAD_HEARTBEAT_NS) {
        assert_null(rig_heard(rig, worker, WIRE_DISMISS));
        rig_advance(rig, HEAD_HEARTBEAT_NS);
        SAY(rig, worker, HEARTBEAT, heartbeat, .sequence = waited);
    }
    rig_advance(rig, 1000000000);
    assert_non_null(rig_heard(rig, worker, WIRE_DISMISS));
}

CASES(the_first_words_are_accepted_with_the_right_token, a_wrong_token_is_told_so_and_closed,
      another_protocol_version_is_told_both_versions, nothing_is_accepted_before_hello, garbage_in_a_message_closes_only_its_link,
      a_session_is_granted_only_after_the_worker_admitted_it, without_workers_a_session_hears_what_to_do,
      sessions_spread_over_workers_and_stay_where_they_are, a_device_that_is_not_there_is_refused_by_name,
      a_closed_connection_fences_its_worker_at_once, a_silent_worker_is_fenced_after_its_lease_and_not_before,
      a_new_life_of_a_worker_fences_the_old_one, a_new_life_that_comes_before_the_old_connection_closed_may_ask_again,
      a_twin_of_a_living_worker_is_told_so_after_a_lease, a_client_resumes_its_session_on_a_new_link,
      a_session_that_no_life_of_the_head_gave_out_is_not_resumed,
      records_are_acknowledged_only_when_durable_and_raise_the_watermark,
      a_leaf_is_durable_only_once_its_bytes_are_checked_and_committed,
      a_session_whose_client_left_is_dismissed_after_the_grace_period)
