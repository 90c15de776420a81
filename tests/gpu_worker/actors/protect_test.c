// When and how values are made safe (bench.h). The device says how long each execution took.

#include "tests/gpu_worker/actors/bench.h"

static const float input[4] = {1, 2, 3, 4};
static uint64_t head;

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

static void make(void **state, struct wire_admit admit)
{
    head = bench_make_joined(state);
    admit.epoch = 1;
    bench_admit(head, admit);
}

static bool is_offered(uint64_t link, struct hash128 content)
{
    for (struct sent *sent; (sent = bench_heard(link, WIRE_LEAF_OFFER)) != NULL;) {
        struct wire_leaf_offer offer;
        assert_ok(wire_leaf_offer_decode(sent->body->data, sent->body->bytes, bench.arena, &offer));
        for (uint32_t i = 0; i < offer.leaves_count; i++) {
            if (hash128_equal(offer.leaves[i].content, content))
                return true;
        }
    }
    return false;
}

static void need(uint64_t link, struct hash128 content, uint64_t bytes)
{
    struct wire_leaf leaf = {.content = content, .bytes = bytes};
    struct wire_leaf_need said = {.leaves = &leaf, .leaves_count = 1};
    bench_say(link, WIRE_LEAF_NEED, wire_leaf_need_encode(&said));
    struct wire_ping ping;
    for (struct sent *sent; (sent = bench_heard(link, WIRE_PING)) != NULL;) {
        assert_ok(wire_ping_decode(sent->body->data, sent->body->bytes, bench.arena, &ping));
        struct wire_pong pong = {.number = ping.number};
        bench_say(link, WIRE_PONG, wire_pong_encode(&pong));
    }
}

static void have(uint64_t link, struct hash128 content, uint64_t bytes, bool durable)
{
    struct wire_leaf leaf = {.content = content, .bytes = bytes};
    struct wire_leaf_ok ok = {.durable = durable, .leaves = &leaf, .leaves_count = 1};
    bench_say(link, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
}

static struct {
    uint32_t checkpoints;
    struct record_checkpoint last;
    struct record_piece piece[8];
} heard;

static void hear(void *context, const struct record *record)
{
    (void)context;
    if (record->kind != RECORD_CHECKPOINT)
        return;
    heard.checkpoints++;
    heard.last = record->checkpoint;
    struct reader reader = reader_make(record->checkpoint.piece, record->checkpoint.piece_bytes);
    for (uint32_t i = 0; i < record->checkpoint.pieces; i++)
        heard.piece[i] = record_piece_read(&reader);
    assert_ok(reader.error);
}

static uint32_t checkpoints(void)
{
    heard.checkpoints = 0;
    bench_later(10000000);
    bench_records(head, hear, NULL);
    return heard.checkpoints;
}

static void step(uint64_t link, const struct srg_plan *plan, uint64_t counter, bool donates)
{
    bench_execute(link, plan, (struct ask){.counter = counter, .index = 1, .distance = 1, .keeps = true, .donates = donates});
    assert_non_null(bench_heard(link, WIRE_ANSWER));
}

static void what_would_take_longer_to_replay_than_the_limit_is_made_safe_and_counts_no_more(void **state)
{
    make(state, (struct wire_admit){.replay_limit_ns = 5000000000});
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    float value[8][4];
    bench_neg(input, value[1]);
    for (int i = 2; i < 8; i++)
        bench_neg(value[i - 1], value[i]);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench.device.elapsed_ns = 2000000000;
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    assert_non_null(bench_heard(link, WIRE_ANSWER));
    bench_store(head);
    assert_non_null(bench_heard(link, WIRE_LEAF_OK));
    step(link, next, 2, true);
    assert_false(is_offered(head, hash128(value[2], 16)));
    step(link, next, 3, true);
    struct hash128 content = hash128(value[3], 16);
    assert_true(is_offered(head, content));
    step(link, next, 4, true);    // what it takes over stays as it was until it is read
    assert_int_equal(checkpoints(), 0);
    need(head, content, 16);
    struct sent *data = bench_heard(head, WIRE_LEAF_DATA);
    assert_non_null(data);
    assert_memory_equal(data->bulk->data, value[3], 16);
    have(head, content, 16, true);
    assert_null(bench_heard(link, WIRE_LEAF_OK));    // no leaf of the client's
    assert_int_equal(checkpoints(), 1);
    assert_int_equal(heard.last.handle.execution.counter, 3);
    assert_int_equal(heard.last.pieces, 1);
    assert_false(heard.last.is_replica);
    assert_int_equal(heard.piece[0].rows, 4);
    assert_true(hash128_equal(heard.piece[0].content, content));
    step(link, next, 5, true);    // 4 s since the cut
    assert_false(is_offered(head, hash128(value[5], 16)));
    step(link, next, 6, true);
    assert_true(is_offered(head, hash128(value[6], 16)));
}

static void where_paths_meet_a_time_counts_once(void **state)
{
    make(state, (struct wire_admit){.replay_limit_ns = 30000000000});
    uint64_t link = bench_client(NULL);
    struct plan_builder *builder;
    struct srg_plan *first = plan_of(state, true), *sum;
    struct fault fault;
    uint32_t index;
    uint8_t dtype[OP_OUTPUTS_MAX] = {DTYPE_F32};
    struct srg_input like = {.is_contiguous = true, .dtype = DTYPE_F32, .rank = 1, .device = 255};
    struct srg_ref ref[2] = {{.kind = REF_INPUT, .index = 0}, {.kind = REF_INPUT, .index = 1}};
    struct attr alpha = {.kind = ATTR_INT, .i = 1};
    assert_ok(plan_builder_make(&builder));
    assert_ok(plan_add_input(builder, &like, &index));
    assert_ok(plan_add_input(builder, &like, &index));
    assert_ok(plan_add_node(builder, op_info(OP_ADD), ref, 2, &alpha, dtype, 0, 255, &index));
    assert_ok(plan_finish(builder, &sum, &fault));
    plan_builder_free(builder);
    case_later(state, drop_plan, sum);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, sum);
    bench.device.elapsed_ns = 1000000000;
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench_execute(link, first, (struct ask){.counter = 2, .leaf = input, .keeps = true});
    // Each builds on the two before it: the sum over producers grows like Fibonacci's numbers, the time does not.
    for (uint64_t counter = 3; counter <= 20; counter++) {
        int64_t word[64] = {0};
        struct tensor_meta meta = bench_meta();
        struct binding_history history;
        struct writer writer = writer_make(1 << 16);
        const uint8_t kept = 1;
        for (uint32_t i = 0; i < 2; i++) {
            binding_set_meta(sum, word, i, &meta);
            binding_set_handle(sum, word, i, i + 1, 0);
        }
        binding_set_node(sum, word, 0, &alpha, NULL);
        history_init(&history, sum->words);
        bindings_encode(&history, word, &writer);
        struct wire_execute said = {.counter = counter,
                                    .plan = 1,
                                    .reset = true,
                                    .delta = writer.data,
                                    .delta_bytes = (uint32_t)writer.length,
                                    .kept = &kept,
                                    .kept_bytes = 1};
        bench_say(link, WIRE_EXECUTE, wire_execute_encode(&said));
        assert_non_null(bench_heard(link, WIRE_ANSWER));
        writer_free(&writer);
        history_free(&history);
    }
    bench_later(10000000);
    assert_true(is_offered(head, hash128(input, 16)));    // the leaf
    assert_null(bench_heard(head, WIRE_LEAF_OFFER));      // 20 s: nothing is due
}

static void a_policy_of_recomputing_writes_nothing(void **state)
{
    make(state, (struct wire_admit){.recovery = LINEAGE_RECOMPUTE});
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true);
    float once[4];
    bench_neg(input, once);
    bench_send_plan(link, 0, first);
    bench.device.elapsed_ns = 100000000000;
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench_later(10000000);
    assert_false(is_offered(head, hash128(once, 16)));
}

static uint64_t peer_of(struct wire_location location)
{
    assert_string_equal(bench.opened_address, location.address_tcp);
    uint64_t peer = ++bench.next_link;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = peer, .request = bench.opened_request}});
    bench_run();
    struct wire_hello_ok ok = {.version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = location.incarnation};
    bench_say(peer, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
    return peer;
}

static void a_policy_of_replicating_gives_the_pieces_to_another_worker(void **state)
{
    struct wire_location location = {.incarnation = 88, .address_tcp = "tcp://t:1", .host = "elsewhere"};
    make(state, (struct wire_admit){.recovery = LINEAGE_REPLICATE, .replicas = &location, .replicas_count = 1});
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    float once[4], twice[4];
    bench_neg(input, once);
    bench_neg(once, twice);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench.device.elapsed_ns = 2000000000;
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    assert_non_null(bench_heard(link, WIRE_ANSWER));
    uint64_t peer = peer_of(location);
    struct hash128 content = hash128(once, 16);
    assert_true(is_offered(peer, content));
    need(peer, content, 16);
    struct sent *data = bench_heard(peer, WIRE_LEAF_DATA);
    assert_non_null(data);
    assert_memory_equal(data->bulk->data, once, 16);
    have(peer, content, 16, false);
    bench_store(head);
    assert_int_equal(checkpoints(), 1);
    assert_true(heard.last.is_replica);

    step(link, next, 2, false);
    assert_true(is_offered(peer, hash128(twice, 16)));
    bench_down(peer);    // then the store takes it, when the next one is due
    assert_int_equal(checkpoints(), 0);
    bench_beat_back(head);
    bench_later(WORKER_FETCH_NS);
    bench_beat_back(head);
    float third[4];
    bench_neg(twice, third);
    bench_execute(link, next, (struct ask){.counter = 3, .index = 1, .distance = 1, .keeps = true});
    assert_true(is_offered(head, hash128(third, 16)));
}

static void a_replica_for_another_worker_is_held_but_not_offered_to_the_store(void **state)
{
    make(state, (struct wire_admit){0});
    uint64_t peer = bench_greet(ROLE_WORKER, (struct hash128){1, 2});
    struct wire_leaf leaf = {.content = hash128(input, 16), .bytes = 16};
    struct wire_leaf_offer offer = {.leaves = &leaf, .leaves_count = 1};
    bench_say(peer, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&offer));
    struct wire_leaf_need lacked;
    bench_take(leaf_need, LEAF_NEED, peer, &lacked);
    struct wire_leaf_data data = {.content = leaf.content, .bytes = 16};
    bench_say_bulk(peer, WIRE_LEAF_DATA, wire_leaf_data_encode(&data), blob_copy(input, 16));
    struct wire_leaf_ok ok;
    bench_take(leaf_ok, LEAF_OK, peer, &ok);
    bench_later(20000000);
    struct wire_holds holds;
    bench_take(holds, HOLDS, head, &holds);
    assert_int_equal(holds.gained_count, 1);
    assert_null(bench_heard(head, WIRE_LEAF_OFFER));
    leaf.bytes = (uint64_t)1 << 40;    // more than there is room for
    leaf.content.lo++;
    bench_say(peer, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&offer));
    struct wire_failed failed;
    bench_take(failed, FAILED, peer, &failed);
    assert_int_equal(failed.error, DJ_E_DEVICE_MEMORY);
}

// A value that grows: cat of a handle ([rows, 4], rows 0: a leaf) and a leaf of one row.
static float row_of(uint32_t row, uint32_t column)
{
    return (float)(row * 4 + column);
}

static struct srg_plan *grow_plan(void **state, bool is_leaf)
{
    struct plan_builder *builder;
    struct srg_plan *plan;
    struct fault fault;
    uint32_t index;
    uint8_t dtype[OP_OUTPUTS_MAX] = {DTYPE_F32};
    struct srg_input grown = {.is_leaf = is_leaf, .is_contiguous = true, .dtype = DTYPE_F32, .rank = 2, .device = 255};
    struct srg_input more = {.is_leaf = true, .is_contiguous = true, .dtype = DTYPE_F32, .rank = 2, .device = 255};
    struct srg_ref ref[2] = {{.kind = REF_INPUT, .index = 0}, {.kind = REF_INPUT, .index = 1}};
    struct attr dim = {.kind = ATTR_INT, .i = 0};
    assert_ok(plan_builder_make(&builder));
    assert_ok(plan_add_input(builder, &grown, &index));
    assert_ok(plan_add_input(builder, &more, &index));
    assert_ok(plan_add_node(builder, op_info(OP_CAT), ref, 2, &dim, dtype, 0, 255, &index));
    assert_ok(plan_finish(builder, &plan, &fault));
    plan_builder_free(builder);
    case_later(state, drop_plan, plan);
    return plan;
}

static struct tensor_meta rows_meta(uint32_t rows)
{
    struct tensor_meta meta = {.dtype = DTYPE_F32, .rank = 2, .size = {rows, 4}};
    tensor_make_contiguous(&meta);
    return meta;
}

static void fill(float *to, uint32_t from, uint32_t rows)
{
    for (uint32_t i = 0; i < rows * 4; i++)
        to[i] = row_of(from + i / 4, i % 4);
}

// Execution `counter` grows what the one before it made from `from` rows to `to`.
static void grow(uint64_t link, const struct srg_plan *plan, uint32_t index, uint64_t counter, uint32_t from, uint32_t to)
{
    static float bytes[256 * 4];
    int64_t word[64] = {0};
    struct tensor_meta old = rows_meta(from), more = rows_meta(to - from);
    struct wire_leaf leaf[2] = {{.content = hash128(bytes, 0)}};
    fill(bytes, from, to - from);
    leaf[1] = (struct wire_leaf){.content = hash128(bytes, (to - from) * 16),
                                 .bytes = (to - from) * 16,
                                 .data = (const uint8_t *)bytes,
                                 .data_bytes = (to - from) * 16};
    binding_set_meta(plan, word, 0, &old);
    binding_set_meta(plan, word, 1, &more);
    if (from == 0)
        binding_set_leaf(plan, word, 0, leaf[0].content);
    else
        binding_set_handle(plan, word, 0, 1, 0);
    binding_set_leaf(plan, word, 1, leaf[1].content);
    struct binding_history history;
    history_init(&history, plan->words);
    struct writer writer = writer_make(1 << 16);
    bindings_encode(&history, word, &writer);
    const uint8_t kept = 1;
    struct wire_execute said = {.counter = counter,
                                .plan = index,
                                .reset = true,
                                .delta = writer.data,
                                .delta_bytes = (uint32_t)writer.length,
                                .kept = &kept,
                                .kept_bytes = 1,
                                .leaves = leaf,
                                .leaves_count = 2};
    bench_say(link, WIRE_EXECUTE, wire_execute_encode(&said));
    assert_non_null(bench_heard(link, WIRE_ANSWER));
    writer_free(&writer);
    history_free(&history);
    bench_store(head);
}

static struct hash128 rows_hash(uint32_t from, uint32_t rows)
{
    float bytes[64 * 4];
    fill(bytes, from, rows);
    return hash128(bytes, rows * 16);
}

static void ask_checkpoint(uint64_t link, uint64_t request, uint64_t counter)
{
    uint8_t handles[] = {(uint8_t)counter, 0};
    struct wire_checkpoint said = {.request = request, .handles = handles, .handles_bytes = sizeof handles};
    bench_say(link, WIRE_CHECKPOINT, wire_checkpoint_encode(&said));
}

static uint64_t reads(void)
{
    struct wire_heartbeat beat = {0};
    bench_later(600000000);
    for (struct sent *sent; (sent = bench_heard(head, WIRE_HEARTBEAT)) != NULL;) {
        assert_ok(wire_heartbeat_decode(sent->body->data, sent->body->bytes, bench.arena, &beat));
        struct wire_heartbeat_ok ok = {.sequence = beat.sequence, .sent_ns = beat.sent_ns, .generation = 1};
        bench_say(head, WIRE_HEARTBEAT_OK, wire_heartbeat_ok_encode(&ok));
    }
    return beat.checkpoint_bytes;
}

static void rows_that_are_safe_are_not_written_again(void **state)
{
    make(state, (struct wire_admit){0});
    uint64_t link = bench_client(NULL);
    struct srg_plan *begin = grow_plan(state, true), *go_on = grow_plan(state, false);
    bench_send_plan(link, 0, begin);
    bench_send_plan(link, 1, go_on);
    grow(link, begin, 0, 1, 0, 60);
    grow(link, go_on, 1, 2, 60, 100);
    grow(link, go_on, 1, 3, 100, 110);    // appended: same memory as 2's
    ask_checkpoint(link, 7, 2);
    assert_true(is_offered(head, rows_hash(0, 64)));
    have(head, rows_hash(0, 64), 1024, true);
    assert_null(bench_heard(link, WIRE_CHECKPOINTED));
    have(head, rows_hash(64, 36), 36 * 16, true);
    struct wire_checkpointed done;
    bench_take(checkpointed, CHECKPOINTED, link, &done);
    assert_int_equal(done.request, 7);
    assert_int_equal(checkpoints(), 1);
    assert_int_equal(heard.last.pieces, 2);
    assert_int_equal(heard.last.dim, 0);
    assert_int_equal(heard.piece[1].rows, 36);
    assert_int_equal(reads(), 1600);

    ask_checkpoint(link, 8, 3);
    assert_true(is_offered(head, rows_hash(0, 64)));    // its name, in case that it is gone
    have(head, rows_hash(0, 64), 1024, true);
    have(head, rows_hash(64, 46), 46 * 16, true);
    bench_take(checkpointed, CHECKPOINTED, link, &done);
    assert_int_equal(reads(), 1600 + 46 * 16);

    ask_checkpoint(link, 9, 3);
    need(head, rows_hash(0, 64), 1024);    // it is gone: this one ends, the next reads everything
    struct wire_failed failed;
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.request, 9);
    ask_checkpoint(link, 10, 3);
    need(head, rows_hash(0, 64), 1024);
    assert_non_null(bench_heard(head, WIRE_LEAF_DATA));
}

static void a_checkpoint_of_what_is_not_here_says_so_and_one_without_an_answer_ends(void **state)
{
    make(state, (struct wire_admit){0});
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    struct wire_failed failed;
    ask_checkpoint(link, 7, 9);
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.request, 7);
    assert_int_equal(failed.error, DJ_E_HANDLE_UNKNOWN);
    ask_checkpoint(link, 8, 1);
    bench_later(6 * WORKER_FETCH_NS);    // a store that says nothing
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.request, 8);
    assert_int_equal(failed.error, DJ_E_TIMEOUT);
}

CASES(what_would_take_longer_to_replay_than_the_limit_is_made_safe_and_counts_no_more, where_paths_meet_a_time_counts_once,
      a_policy_of_recomputing_writes_nothing, a_policy_of_replicating_gives_the_pieces_to_another_worker,
      a_replica_for_another_worker_is_held_but_not_offered_to_the_store, rows_that_are_safe_are_not_written_again,
      a_checkpoint_of_what_is_not_here_says_so_and_one_without_an_answer_ends)
