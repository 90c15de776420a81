// What a worker promises to its head, played against a scripted one (bench.h).

#include "tests/gpu_worker/actors/bench.h"

static const float input[4] = {1, 2, 3, 4};
static uint64_t head;

static void drop_plan(void *plan)
{
    plan_drop(plan);
}

static void make(void **state)
{
    head = bench_make_joined(state);
    bench_admit(head, (struct wire_admit){.epoch = 1});
    struct wire_admitted admitted;
    bench_take(admitted, ADMITTED, head, &admitted);
    assert_int_equal(admitted.session, 5);
}

static uint64_t execute_one(void **state, uint64_t counter)
{
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan(true);
    case_later(state, drop_plan, plan);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = counter, .leaf = input, .keeps = true, .answers = true});
    return link;
}

static void what_ran_is_journalled_behind_the_answer_and_again_until_it_is_acknowledged(void **state)
{
    make(state);
    uint64_t link = execute_one(state, 1);
    assert_non_null(bench_heard(link, WIRE_ANSWER));
    assert_null(bench_heard(head, WIRE_JOURNAL));
    bench_store(head);
    struct wire_journal journal;
    bench_take(journal, JOURNAL, head, &journal);
    assert_int_equal(journal.first, 1);
    assert_int_equal(journal.count, 2);    // the plan, then the execution
    struct record_scratch scratch;
    struct record record;
    assert_ok(record_scratch_make(&scratch));
    struct reader reader = reader_make(journal.records, journal.records_bytes);
    assert_ok(record_read(&reader, &scratch, &record));
    assert_int_equal(record.kind, RECORD_PLAN);
    assert_ok(record_read(&reader, &scratch, &record));
    assert_int_equal(record.kind, RECORD_EXECUTION);
    assert_int_equal(record.execution.id.counter, 1);
    assert_int_equal(record.execution.answers, 1);
    record_scratch_free(&scratch);

    bench_down(head);
    bench_later(100000000);
    head = bench_join(2);    // a new head that remembers nothing of it
    bench_take(journal, JOURNAL, head, &journal);
    assert_int_equal(journal.first, 1);
    struct wire_journal_ok ok = {.last = 2};
    bench_say(head, WIRE_JOURNAL_OK, wire_journal_ok_encode(&ok));
    bench_down(head);
    bench_later(100000000);
    head = bench_join(3);
    bench_later(10000000);
    assert_null(bench_heard(head, WIRE_JOURNAL));
}

static void new_leaves_are_told_and_go_to_the_store_a_piece_at_a_time(void **state)
{
    make(state);
    uint64_t link = execute_one(state, 1);
    bench_later(20000000);
    struct wire_holds holds;
    struct wire_leaf_offer offer;
    bench_take(holds, HOLDS, head, &holds);
    assert_int_equal(holds.gained_count, 1);
    bench_take(leaf_offer, LEAF_OFFER, head, &offer);
    struct wire_leaf named = offer.leaves[0];
    struct wire_leaf_need need = {.leaves = &named, .leaves_count = 1};
    bench_say(head, WIRE_LEAF_NEED, wire_leaf_need_encode(&need));
    struct sent *data = bench_heard(head, WIRE_LEAF_DATA);
    assert_non_null(data);
    assert_memory_equal(data->bulk->data, input, 16);
    struct wire_ping ping;
    bench_take(ping, PING, head, &ping);
    struct wire_leaf_ok ok = {.durable = true, .leaves = &named, .leaves_count = 1};
    bench_say(head, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
    struct wire_leaf_ok told;
    bench_take(leaf_ok, LEAF_OK, link, &told);
    assert_true(told.durable);
}

static void without_its_lease_a_worker_holds_its_answers(void **state)
{
    make(state);
    bench_beat_back(head);
    bench_later(5000000000);    // the head is silent for longer than the lease
    uint64_t link = execute_one(state, 1);
    assert_null(bench_heard(link, WIRE_ANSWER));
    bench_later(500000000);
    bench_beat_back(head);
    assert_non_null(bench_heard(link, WIRE_ANSWER));
}

static void a_life_that_the_same_head_fenced_joins_anew_without_its_sessions(void **state)
{
    make(state);
    uint64_t link = execute_one(state, 1);
    bench_down(head);
    bench_later(100000000);
    head = bench_join(1);
    struct wire_failed failed;
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_STALE);
    struct wire_join first, second;
    uint64_t lives[2] = {0};
    bench_take(join, JOIN, head - 2, &first);
    lives[0] = first.incarnation;
    bench_take(join, JOIN, head, &second);
    lives[1] = second.incarnation;
    assert_true(lives[0] != lives[1]);
}

static void a_large_leaf_comes_from_another_worker_that_has_it(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL), bytes = 100000;
    uint8_t *leaf = arena_zero(bench.arena, bytes);
    struct wire_leaf named = {.content = hash128(leaf, bytes), .bytes = bytes};
    struct blob *bulk = blob_copy(leaf, bytes);
    struct wire_leaf_offer offer = {.leaves = &named, .leaves_count = 1};
    bench_say(link, WIRE_LEAF_OFFER, wire_leaf_offer_encode(&offer));
    assert_null(bench_heard(link, WIRE_LEAF_NEED));
    struct wire_locate locate;
    bench_take(locate, LOCATE, head, &locate);
    struct wire_location location = {
        .worker = 2, .incarnation = 88, .address_unix = "unix:///u", .address_tcp = "tcp://t:1", .host = "here"};
    struct wire_located located = {.request = locate.request, .locations = &location, .locations_count = 1};
    bench_say(head, WIRE_LOCATED, wire_located_encode(&located));
    assert_string_equal(bench.opened_address, "unix:///u");
    bench_post(&(struct io_event){.kind = IO_LINK_DOWN, .link_down = {.request = bench.opened_request, .error = DJ_E_ADDRESS}});
    bench_run();
    assert_string_equal(bench.opened_address, "tcp://t:1");    // the other way is tried
    uint64_t peer = ++bench.next_link;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = peer, .request = bench.opened_request}});
    bench_run();
    struct wire_hello_ok ok = {.version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = 88};
    bench_say(peer, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
    assert_non_null(bench_heard(peer, WIRE_LEAF_GET));
    struct wire_leaf_data data = {.content = named.content, .bytes = bytes};
    bench_say_bulk(peer, WIRE_LEAF_DATA, wire_leaf_data_encode(&data), bulk);
    assert_non_null(bench_heard(link, WIRE_LEAF_OK));
}

static void a_leaf_that_a_head_died_over_is_asked_for_at_the_next_and_given_up_when_nobody_has_it(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan(true);
    case_later(state, drop_plan, plan);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan,
                  (struct ask){.counter = 1, .content = {3, 4}, .is_only_named = true, .keeps = true, .is_replay = true});
    for (uint64_t generation = 1; generation <= 2; generation++) {
        struct wire_locate locate;
        bench_take(locate, LOCATE, head, &locate);
        struct wire_located located = {.request = locate.request, .in_store = true};
        bench_say(head, WIRE_LOCATED, wire_located_encode(&located));
        struct wire_leaf_get get;
        bench_take(leaf_get, LEAF_GET, head, &get);
        struct wire_failed failed = {.request = get.request, .error = DJ_E_LEAF_UNKNOWN};
        if (generation == 2) {
            bench_say(head, WIRE_FAILED, wire_failed_encode(&failed));
            break;
        }
        bench_down(head);
        assert_non_null(bench_heard(link, WIRE_LEAF_NEED));    // the client does not have it either
        bench_later(100000000);
        head = bench_join(2);
        bench_later(2 * (WORKER_FETCH_NS / 10));
    }
    assert_null(bench_heard(link, WIRE_EXECUTION_FAILED));
    for (int i = 0; i < 4; i++) {
        bench_beat_back(head);
        bench_later(WORKER_FETCH_NS / 4);
    }
    bench_later(WORKER_FETCH_NS / 4);
    struct wire_execution_failed failed;
    bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_LEAF_UNKNOWN);
}

// The head hears the JOIN of a worker that begins, and refuses it. Returns the head's link.
static uint64_t refuse_join(enum dj_error error)
{
    uint64_t link = ++bench.next_link, opened = bench.opened_request;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = link, .request = opened}});
    bench_run();
    struct wire_hello_ok ok = {.version = WIRE_VERSION, .role = ROLE_HEAD, .generation = 1};
    bench_say(link, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
    assert_non_null(bench_heard(link, WIRE_JOIN));
    struct wire_failed failed = {.error = (uint16_t)error};
    strcpy(failed.text, "no");
    bench_say(link, WIRE_FAILED, wire_failed_encode(&failed));
    return link;
}

static void a_worker_whose_name_is_not_free_yet_asks_again_and_one_that_lives_twice_ends(void **state)
{
    struct worker_config config = bench_config();
    strcpy(config.head, "head://h:1");
    bench_make(state, config, 32 << 20);
    for (int times = 0; times < 4; times++) {
        uint64_t opened = bench.opened_request;
        bench_down(refuse_join(DJ_E_BUSY));
        assert_false(bench.has_stopped);
        bench_later(1000000000);
        assert_true(bench.opened_request != opened);
    }
    refuse_join(DJ_E_INVALID);
    assert_true(bench.has_stopped);
}

CASES(what_ran_is_journalled_behind_the_answer_and_again_until_it_is_acknowledged,
      new_leaves_are_told_and_go_to_the_store_a_piece_at_a_time, without_its_lease_a_worker_holds_its_answers,
      a_life_that_the_same_head_fenced_joins_anew_without_its_sessions, a_large_leaf_comes_from_another_worker_that_has_it,
      a_leaf_that_a_head_died_over_is_asked_for_at_the_next_and_given_up_when_nobody_has_it,
      a_worker_whose_name_is_not_free_yet_asks_again_and_one_that_lives_twice_ends)
