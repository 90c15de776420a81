// What a session is owed while its streams, links and epochs change (bench.h).

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

static void assert_answer(uint64_t link, uint64_t counter, uint32_t part)
{
    struct wire_answer answer;
    bench_take(answer, ANSWER, link, &answer);
    assert_int_equal(answer.counter, counter);
    assert_int_equal(answer.part, part);
}

static void assert_failure(uint64_t link, uint64_t counter, enum dj_error error)
{
    struct wire_execution_failed failed;
    bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
    assert_int_equal(failed.counter, counter);
    assert_int_equal(failed.error, error);
}

static void assert_value(uint64_t link, uint64_t counter, uint32_t output, const float expected[4])
{
    bench_fetch_output(link, 42, counter, output);
    struct sent *sent = bench_heard(link, WIRE_VALUE);
    assert_non_null(sent);
    assert_memory_equal(sent->bulk->data + sent->bulk_offset, expected, 16);
}

static void make(void **state)
{
    head = bench_make_joined(state);
    bench_admit(head, (struct wire_admit){.epoch = 1});
    assert_non_null(bench_heard(head, WIRE_ADMITTED));
}

static void streams_of_a_session_share_its_values_and_have_their_own_positions(void **state)
{
    make(state);
    uint64_t one = bench_attach(1, 1, NULL), two = bench_attach(1, 2, NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    float once[4], twice[4];
    bench_neg(input, once);
    bench_neg(once, twice);
    bench_send_plan(one, 0, first);
    bench_send_plan(two, 0, next);
    bench_execute(one, first, (struct ask){.counter = 10, .leaf = input, .keeps = true});
    assert_answer(one, 10, 0);
    bench_execute(two, next, (struct ask){.counter = 12, .distance = 2, .keeps = true});
    assert_answer(two, 12, 0);
    assert_value(two, 12, 0, twice);
    bench_down(one);
    struct wire_attached attached;
    bench_attach(1, 1, &attached);
    assert_int_equal(attached.last_counter, 10);
    bench_attach(1, 3, &attached);
    assert_int_equal(attached.last_counter, 0);
}

static void parts_of_one_counter_are_positions_of_their_own(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    struct ask ask = {.counter = 7, .leaf = input, .keeps = true, .is_replay = true, .name = 3};
    bench_execute(link, plan, ask);
    assert_answer(link, 7, 0);
    ask.part = 1;
    ask.name = 5;
    bench_execute(link, plan, ask);
    assert_answer(link, 7, 1);
    uint64_t lists = bench.device.ticket;
    bench_execute(link, plan, ask);    // again: from what was kept
    assert_answer(link, 7, 1);
    assert_int_equal(bench.device.ticket, lists);
    struct wire_attached attached;
    bench_down(link);
    bench_attach(1, 0, &attached);
    assert_int_equal(attached.last_counter, 7);
    assert_int_equal(attached.last_part, 1);
}

static void a_step_of_a_recovery_names_its_values_is_not_journalled_and_does_nothing_where_they_are(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    float once[4];
    bench_neg(input, once);
    bench_send_plan(link, 0, plan);
    struct ask ask = {.counter = 7, .leaf = input, .keeps = true, .is_replay = true, .name = 3};
    bench_execute(link, plan, ask);
    assert_answer(link, 7, 0);
    assert_value(link, 7, 3, once);
    bench_later(10000000);
    struct wire_inventory inventory;
    bench_take(inventory, INVENTORY, head, &inventory);    // after joining: nothing
    assert_true(inventory.is_last);
    bench_take(inventory, INVENTORY, head, &inventory);
    assert_false(inventory.is_last);
    assert_int_equal(inventory.session, 5);
    assert_int_equal(inventory.count, 1);
    const uint8_t handle[] = {7, 3, 16};    // counter, output, bytes
    assert_int_equal(inventory.handles_bytes, sizeof handle);
    assert_memory_equal(inventory.handles, handle, sizeof handle);

    uint64_t again = bench_attach(1, 2, NULL), lists = bench.device.ticket;
    bench_send_plan(again, 0, plan);
    bench_execute(again, plan, ask);
    assert_answer(again, 7, 0);
    assert_int_equal(bench.device.ticket, lists);
    assert_value(again, 7, 3, once);
    ask = (struct ask){.counter = 8, .leaf = input, .keeps = true, .name = 3};
    bench_execute(again, plan, ask);    // a name belongs to a recovery
    struct wire_failed failed;
    bench_take(failed, FAILED, again, &failed);
    assert_int_equal(failed.error, DJ_E_BINDINGS_INVALID);
}

static void a_value_that_failed_is_replaced_when_it_is_made_again(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    float once[4], twice[4];
    bench_neg(input, once);
    bench_neg(once, twice);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench_execute(link, next, (struct ask){.counter = 9, .index = 1, .distance = 4, .keeps = true});
    assert_failure(link, 9, DJ_E_HANDLE_UNKNOWN);
    bench_execute(link, next, (struct ask){.counter = 10, .index = 1, .distance = 1, .keeps = true});
    assert_failure(link, 10, DJ_E_HANDLE_UNKNOWN);    // of 9: the same error, so that it is recovered too
    uint64_t again = bench_attach(1, 2, NULL);
    bench_send_plan(again, 0, first);
    bench_send_plan(again, 1, next);
    bench_execute(again, first, (struct ask){.counter = 5, .leaf = input, .keeps = true, .is_replay = true});
    bench_execute(again, next, (struct ask){.counter = 9, .index = 1, .distance = 4, .keeps = true});
    assert_value(again, 9, 0, twice);
}

static void what_a_lost_link_left_in_the_queue_is_expected_again(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    float once[4], twice[4];
    bench_neg(input, once);
    bench_neg(once, twice);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench.holds_device = true;
    for (uint64_t counter = 1; counter <= 3; counter++)
        bench_execute(link, first, (struct ask){.counter = counter, .leaf = input, .keeps = true});
    bench_execute(link, next, (struct ask){.counter = 4, .index = 1, .distance = 1, .keeps = true});
    const uint8_t released[] = {3, 0};
    struct wire_release release = {.handles = released, .handles_bytes = sizeof released};
    bench_say(link, WIRE_RELEASE, wire_release_encode(&release));
    bench_down(link);
    bench.holds_device = false;
    bench_run();
    struct wire_attached attached;
    link = bench_attach(1, 0, &attached);
    assert_int_equal(attached.last_counter, WORKER_IN_FLIGHT_MAX);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench_execute(link, first, (struct ask){.counter = 3, .leaf = input, .keeps = true});
    bench_execute(link, next, (struct ask){.counter = 4, .index = 1, .distance = 1, .keeps = true});
    for (uint64_t counter = 1; counter <= 3; counter++)
        assert_answer(link, counter, 0);
    assert_answer(link, 4, 0);    // the release stayed behind it
    assert_value(link, 4, 0, twice);
    bench_fetch(link, 43, 3);
    struct wire_failed failed;
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_HANDLE_UNKNOWN);
}

static void what_ran_in_an_earlier_life_of_a_place_is_not_run_again(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = plan_of(state, true), *next = plan_of(state, false);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    struct ask ask = {.counter = 2, .index = 1, .distance = 1, .keeps = true, .donates = true, .answers = true};
    bench_execute(link, next, ask);
    assert_answer(link, 1, 0);
    assert_answer(link, 2, 0);
    bench_down(link);
    uint64_t lists = bench.device.ticket;
    link = bench_attach(1, 1, NULL);    // the place begins anew, at the same worker
    bench_send_plan(link, 1, next);
    bench_execute(link, next, ask);    // its input is gone, its value is here
    struct wire_answer answer;
    bench_take(answer, ANSWER, link, &answer);
    assert_int_equal(answer.counter, 2);
    assert_int_equal(answer.outputs_count, 1);
    assert_int_equal(bench.device.ticket, lists);
}

static void a_newer_epoch_keeps_the_values_and_is_admitted_when_the_old_one_is_off_the_device(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    float once[4];
    bench_neg(input, once);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench_store(head);
    bench.holds_device = true;
    bench_execute(link, plan, (struct ask){.counter = 2, .leaf = input, .keeps = true});
    bench_admit(head, (struct wire_admit){.epoch = 2});
    struct wire_failed failed;
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.error, DJ_E_EPOCH_FENCED);
    assert_int_equal(bench.closed_link, link);
    assert_null(bench_heard(head, WIRE_ADMITTED));
    uint32_t before = bench.sents;
    bench.holds_device = false;
    bench_run();
    struct wire_admitted admitted;
    uint32_t journal = 0, said = 0;
    for (uint32_t i = before; i < bench.sents; i++) {
        if (bench.sent[i].message == WIRE_JOURNAL)
            journal = i + 1;
        if (bench.sent[i].message == WIRE_ADMITTED)
            said = i + 1;
    }
    assert_true(journal > 0 && said > journal);
    bench_take(admitted, ADMITTED, head, &admitted);
    assert_int_equal(admitted.epoch, 2);

    uint64_t old = bench_greet(ROLE_CLIENT, (struct hash128){1, 2});
    struct wire_attach attach = {.session = 5, .epoch = 1, .secret = {9, 9}};
    bench_say(old, WIRE_ATTACH, wire_attach_encode(&attach));
    bench_take(failed, FAILED, old, &failed);
    assert_int_equal(failed.error, DJ_E_EPOCH_FENCED);
    struct wire_attached attached;
    link = bench_attach(2, 0, &attached);
    assert_int_equal(attached.last_counter, 0);
    assert_value(link, 1, 0, once);
    assert_value(link, 2, 0, once);
    bench_admit(head, (struct wire_admit){.epoch = 1});
    assert_null(bench_heard(head, WIRE_ADMITTED));
}

static void a_value_of_this_worker_gets_a_second_name_without_moving(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    float once[4];
    bench_neg(input, once);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    assert_answer(link, 1, 0);
    uint64_t lists = bench.device.ticket;
    struct wire_handle source = {.session = 5, .counter = 1};
    struct wire_location here = {.incarnation = 77};
    struct wire_import import = {
        .counter = 2, .output = 4, .handles = &source, .handles_count = 1, .locations = &here, .locations_count = 1};
    bench_say(link, WIRE_IMPORT, wire_import_encode(&import));
    assert_answer(link, 2, 0);
    assert_int_equal(bench.device.ticket, lists);
    assert_value(link, 2, 4, once);
}

static void a_value_whose_worker_is_gone_is_lost(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct wire_handle source = {.session = 5, .counter = 1};
    struct wire_location there = {.incarnation = 99, .address_tcp = "tcp://t:1", .host = "elsewhere"};
    struct wire_import import = {.counter = 2, .handles = &source, .handles_count = 1, .locations = &there, .locations_count = 1};
    bench_say(link, WIRE_IMPORT, wire_import_encode(&import));
    assert_string_equal(bench.opened_address, "tcp://t:1");
    bench_post(&(struct io_event){.kind = IO_LINK_DOWN, .link_down = {.request = bench.opened_request, .error = DJ_E_ADDRESS}});
    bench_run();
    assert_failure(link, 2, DJ_E_HANDLE_LOST);

    import.counter = 3;
    bench_say(link, WIRE_IMPORT, wire_import_encode(&import));
    uint64_t peer = ++bench.next_link;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = peer, .request = bench.opened_request}});
    bench_run();
    struct wire_hello_ok other = {.version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = 100};
    bench_say(peer, WIRE_HELLO_OK, wire_hello_ok_encode(&other));    // another life answers there
    assert_failure(link, 3, DJ_E_HANDLE_LOST);
}

static void an_answer_leaves_under_its_lease_and_again_when_it_came_too_late_for_it(void **state)
{
    make(state);
    bench_beat_back(head);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .answers = true});
    struct sent *sent = bench_heard(link, WIRE_ANSWER);
    assert_non_null(sent);
    assert_in_range(sent->not_after_ns, bench.now_ns + 3000000000, bench.now_ns + 4000000000);
    struct wire_ping ping = {0};
    for (int i = 0; i < 6; i++) {    // nobody says that it was read
        bench_later(1000000000);
        bench_beat_back(head);
    }
    bench_take(ping, PING, link, &ping);
    assert_non_null(bench_heard(link, WIRE_ANSWER));
    struct wire_pong pong = {.number = ping.number};
    bench_say(link, WIRE_PONG, wire_pong_encode(&pong));    // of the first: too late to say anything
    bench_later(500000000);
    bench_take(ping, PING, link, &ping);
    pong.number = ping.number;
    bench_say(link, WIRE_PONG, wire_pong_encode(&pong));
    for (int i = 0; i < 10; i++) {
        bench_later(1000000000);
        bench_beat_back(head);
    }
    assert_null(bench_heard(link, WIRE_ANSWER));
    assert_null(bench_heard(link, WIRE_PING));
}

static void a_value_waits_for_the_lease_and_is_sent_again_when_it_came_too_late_for_it(void **state)
{
    make(state);
    bench_beat_back(head);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench_later(5000000000);    // the head is silent
    bench_fetch(link, 42, 1);
    assert_null(bench_heard(link, WIRE_VALUE));
    bench_beat_back(head);
    struct sent *sent = bench_heard(link, WIRE_VALUE);
    assert_non_null(sent);
    assert_true(sent->not_after_ns > bench.now_ns);
    for (struct sent *old; (old = bench_heard(link, WIRE_PING)) != NULL;)
        sent = old;
    struct wire_ping ping;
    assert_ok(wire_ping_decode(sent->body->data, sent->body->bytes, bench.arena, &ping));
    for (int i = 0; i < 6; i++) {
        bench_later(1000000000);
        bench_beat_back(head);
    }
    struct wire_pong pong = {.number = ping.number};
    bench_say(link, WIRE_PONG, wire_pong_encode(&pong));
    assert_non_null(bench_heard(link, WIRE_VALUE));
}

static void with_sync_an_answer_waits_until_its_record_is_durable(void **state)
{
    head = bench_make_joined(state);
    bench_admit(head, (struct wire_admit){.epoch = 1, .flags = 1});
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true, .answers = true});
    bench_store(head);
    assert_null(bench_heard(link, WIRE_ANSWER));
    struct wire_journal journal;
    bench_take(journal, JOURNAL, head, &journal);
    struct wire_journal_ok ok = {.last = journal.first + journal.count - 1};
    bench_say(head, WIRE_JOURNAL_OK, wire_journal_ok_encode(&ok));
    assert_answer(link, 1, 0);
}

CASES(streams_of_a_session_share_its_values_and_have_their_own_positions, parts_of_one_counter_are_positions_of_their_own,
      a_step_of_a_recovery_names_its_values_is_not_journalled_and_does_nothing_where_they_are,
      a_value_that_failed_is_replaced_when_it_is_made_again, what_a_lost_link_left_in_the_queue_is_expected_again,
      what_ran_in_an_earlier_life_of_a_place_is_not_run_again,
      a_newer_epoch_keeps_the_values_and_is_admitted_when_the_old_one_is_off_the_device,
      a_value_of_this_worker_gets_a_second_name_without_moving, a_value_whose_worker_is_gone_is_lost,
      an_answer_leaves_under_its_lease_and_again_when_it_came_too_late_for_it,
      a_value_waits_for_the_lease_and_is_sent_again_when_it_came_too_late_for_it,
      with_sync_an_answer_waits_until_its_record_is_durable)
