// Named checkpoints, and which leaves the store keeps.

#include <stdio.h>
#include <string.h>

#include "tests/sched/story.h"

static const struct hash128 token = {1, 2};

static uint64_t open_session(struct rig *rig, const char *tenant)
{
    uint64_t client = rig_link(rig, ROLE_CLIENT, token);
    struct wire_session_open open = {.request = 1, .device_index = -2};

    snprintf(open.tenant, sizeof open.tenant, "%s", tenant);
    rig_say(rig, client, WIRE_SESSION_OPEN, wire_session_open_encode(&open), NULL);
    assert_non_null(rig_heard(rig, client, WIRE_SESSION_GRANT));
    return client;
}

static struct hash128 store_leaf(struct rig *rig, uint64_t link, const char *text)
{
    struct wire_leaf leaf = {.content = hash128(text, strlen(text)), .bytes = strlen(text)};
    struct wire_leaf_data data = {.content = leaf.content, .bytes = leaf.bytes};

    SAY(rig, link, LEAF_OFFER, leaf_offer, .leaves = &leaf, .leaves_count = 1);
    rig_say(rig, link, WIRE_LEAF_DATA, wire_leaf_data_encode(&data), blob_copy(text, strlen(text)));
    return leaf.content;
}

static void put_tag(struct rig *rig, uint64_t client, const char *name, struct hash128 content)
{
    struct writer piece = writer_make(256), entry = writer_make(1024), whole = writer_make(4096);
    struct record_piece one = {.content = content, .rows = 1, .bytes = 4};
    struct record record = {.kind = RECORD_CHECKPOINT, .checkpoint = {.handle = {.execution = {.session = 1, .counter = 1}}}};
    struct wire_tag_put put = {.request = 2};

    record_piece_write(&piece, &one);
    record.checkpoint.meta = (struct tensor_meta){.dtype = DTYPE_F32, .rank = 1, .size = {1}, .stride = {1}};
    record.checkpoint.pieces = 1;
    record.checkpoint.piece = piece.data;
    record.checkpoint.piece_bytes = (uint32_t)piece.length;
    record_write(&entry, &record);
    record = (struct record){.kind = RECORD_TAG,
                             .tag = {.entries = 1, .entry = entry.data, .entry_bytes = (uint32_t)entry.length}};
    snprintf(record.tag.name, sizeof record.tag.name, "lie");
    record_write(&whole, &record);
    snprintf(put.name, sizeof put.name, "%s", name);
    put.record = whole.data;
    put.record_bytes = (uint32_t)whole.length;
    rig_say(rig, client, WIRE_TAG_PUT, wire_tag_put_encode(&put), NULL);
    writer_free(&piece);
    writer_free(&entry);
    writer_free(&whole);
}

static void a_tag_is_answered_when_it_is_durable_and_read_by_its_tenant_only(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t client = open_session(rig, "us"), other = open_session(rig, "them");
    struct hash128 content = store_leaf(rig, client, "four");
    struct record_scratch scratch;
    struct record record;
    struct wire_failed failed;
    struct wire_tag tag;

    rig->holds_commits = true;
    put_tag(rig, client, "best", content);
    assert_null(rig_heard(rig, client, WIRE_TAG));
    rig->holds_commits = false;
    rig_release_commits(rig, DJ_OK);
    assert_non_null(rig_heard(rig, client, WIRE_TAG));
    SAY(rig, client, TAG_GET, tag_get, .request = 3, .name = "best");
    HEARD(rig, client, TAG, tag, &tag);
    struct reader reader = reader_make(tag.record, tag.record_bytes);
    assert_ok(record_scratch_make(&scratch));
    assert_ok(record_read(&reader, &scratch, &record));
    record_scratch_free(&scratch);
    assert_string_equal(record.tag.name, "best");
    assert_string_equal(record.tag.tenant, "us");
    assert_int_equal(record.tag.entries, 1);
    SAY(rig, other, TAG_GET, tag_get, .request = 4, .name = "best");
    HEARD(rig, other, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_NOT_FOUND);
}

static void a_tag_of_bytes_that_the_store_lacks_is_refused(void **state)
{
    struct rig *rig = rig_make(state, token);
    uint64_t client = open_session(rig, "us");
    struct wire_failed failed;

    put_tag(rig, client, "best", (struct hash128){4, 4});
    HEARD(rig, client, FAILED, failed, &failed);
    assert_int_equal(failed.error, DJ_E_LEAF_UNKNOWN);
    assert_int_equal(rig_stored(rig, STORE_TAG), 0);
}

static void wait(struct rig *rig, uint64_t worker, uint64_t ns)
{
    for (uint64_t waited = 0; waited < ns; waited += HEAD_HEARTBEAT_NS) {
        rig_advance(rig, HEAD_HEARTBEAT_NS);
        if (worker != 0)
            SAY(rig, worker, HEARTBEAT, heartbeat, .sequence = waited);
    }
}

static void only_leaves_that_nothing_names_are_collected(void **state)
{
    struct rig *rig = rig_make(state, token);
    rig->config.leaf_store_bytes = 8;
    rig_restart(rig);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct hash128 tagged = store_leaf(rig, client, "four"), bound = store_leaf(rig, client, "bound"),
                   held = store_leaf(rig, client, "held one");
    struct wire_leaf leaf = {.content = held, .bytes = 8};

    store_leaf(rig, client, "nobody's");
    put_tag(rig, client, "best", tagged);
    binding_set_leaf(story->begin.graph.plan, story->begin.graph.word, 0, bound);
    story_run(story, worker, 5);
    SAY(rig, worker, HOLDS, holds, .gained = &leaf, .gained_count = 1);
    assert_int_equal(rig_stored(rig, STORE_LEAF), 4);
    wait(rig, worker, 50 * (uint64_t)1000000000);
    assert_int_equal(rig_stored(rig, STORE_LEAF), 4);
    wait(rig, worker, 200 * (uint64_t)1000000000);
    assert_int_equal(rig_stored(rig, STORE_LEAF), 3);
    SAY(rig, worker, LEAF_OFFER, leaf_offer, .leaves = &leaf, .leaves_count = 1);
    assert_null(rig_heard(rig, worker, WIRE_LEAF_NEED));
}

static void with_a_record_that_does_not_decode_no_leaf_is_collected(void **state)
{
    struct rig *rig = rig_make(state, token);
    rig->config.leaf_store_bytes = 4;
    rig_restart(rig);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);

    store_leaf(rig, client, "nobody's");
    story->begins = true;
    story_run(story, worker, 1);
    history_reset(&story->begin.history);    // its delta is not what its base makes of it
    story_run(story, worker, 1);
    wait(rig, worker, 250 * (uint64_t)1000000000);
    assert_int_equal(rig_stored(rig, STORE_LEAF), 1);
}

static void a_chain_with_a_record_that_stands_alone_still_tells_which_leaves_it_names(void **state)
{
    struct rig *rig = rig_make(state, token);
    rig->config.leaf_store_bytes = 4;
    rig_restart(rig);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);

    store_leaf(rig, client, "nobody's");
    binding_set_leaf(story->begin.graph.plan, story->begin.graph.word, 0, store_leaf(rig, client, "bound"));
    story->begins = true;
    story_run(story, worker, 1);
    story->is_alone = true;
    story_run(story, worker, 1);
    story->is_alone = false;
    story_run(story, worker, 1);    // refers to both
    wait(rig, worker, 250 * (uint64_t)1000000000);
    assert_int_equal(rig_stored(rig, STORE_LEAF), 1);
}

static void a_leaf_that_was_held_until_now_is_not_collected(void **state)
{
    struct rig *rig = rig_make(state, token);
    rig->config.leaf_store_bytes = 4;
    rig_restart(rig);
    uint64_t worker = rig_worker(rig, "w1", 10);
    struct story *story = story_make(state, rig);
    uint64_t client = story_open(story, "", &worker, 1);
    struct wire_leaf leaf = {.content = store_leaf(rig, client, "held one"), .bytes = 8};

    SAY(rig, worker, HOLDS, holds, .gained = &leaf, .gained_count = 1);
    wait(rig, worker, 150 * (uint64_t)1000000000);
    rig_link_down(rig, worker);    // and with it what it had not told yet
    wait(rig, 0, 59 * (uint64_t)1000000000);
    assert_int_equal(rig_stored(rig, STORE_LEAF), 1);
    wait(rig, 0, 130 * (uint64_t)1000000000);
    assert_int_equal(rig_stored(rig, STORE_LEAF), 0);
}

CASES(a_tag_is_answered_when_it_is_durable_and_read_by_its_tenant_only, a_tag_of_bytes_that_the_store_lacks_is_refused,
      only_leaves_that_nothing_names_are_collected, with_a_record_that_does_not_decode_no_leaf_is_collected,
      a_chain_with_a_record_that_stands_alone_still_tells_which_leaves_it_names, a_leaf_that_was_held_until_now_is_not_collected)
