// What the head hears of a worker's values: records whose deltas decode, handles that end, the inventory (bench.h).

#include "tests/gpu_worker/actors/bench.h"

static const float input[4] = {1, 2, 3, 4};
static uint64_t head;

static void make(void **state)
{
    head = bench_make_joined(state);
    bench_admit(head, (struct wire_admit){.epoch = 1});
}

// What was journalled: binding vectors by counter, decoded as whoever recovers would, and handles that ended.
static struct {
    const struct srg_plan *plan;
    int64_t word[16][64];
    uint32_t executions, alone, releases, losses, gones, imports;
    struct record_ref gone[64];
    struct record_import import;
    uint64_t cost_ns;
} heard;

static void hear_gone(const uint8_t *bytes, uint32_t length, uint64_t from)
{
    struct record_refs refs = record_refs_open(bytes, length, from);
    while (record_refs_next(&refs, &heard.gone[heard.gones]))
        heard.gones++;
    assert_ok(refs.reader.error);
}

static void hear(void *context, const struct record *record)
{
    (void)context;
    if (record->kind == RECORD_RELEASE) {
        heard.releases++;
        heard.losses += record->release.is_lost;
        hear_gone(record->release.gone, record->release.gone_bytes, record->release.from);
    }
    if (record->kind == RECORD_IMPORT) {
        heard.imports++;
        heard.import = record->import;
    }
    if (record->kind != RECORD_EXECUTION)
        return;
    const struct record_execution *execution = &record->execution;
    struct binding_history history;
    history_init(&history, heard.plan->words);
    if (execution->before != 0)
        assert_ok(history_push(&history, heard.word[execution->before]));
    if (execution->base != 0)
        assert_ok(history_push(&history, heard.word[execution->base]));
    struct reader reader = reader_make(execution->delta, execution->delta_length);
    assert_ok(bindings_decode(&history, &reader, heard.word[execution->id.counter]));
    assert_int_equal(reader_left(&reader), 0);
    assert_int_equal(execution->check, record_words_check(heard.word[execution->id.counter], heard.plan->words));
    history_free(&history);
    heard.executions++;
    heard.alone += execution->base == 0;
    heard.cost_ns = execution->cost_ns;
    hear_gone(execution->gone, execution->gone_bytes, execution->id.counter);
}

static void listen(const struct srg_plan *plan)
{
    heard.plan = plan;
    bench_store(head);
    bench_records(head, hear, NULL);
}

static void start_listening(void)
{
    memset(&heard, 0, sizeof heard);
    for (uint32_t i = 0; i < 16; i++)
        heard.word[i][0] = INT64_MIN;    // of an execution without a record: decodes to nonsense
}

static void records_go_on_behind_one_another_and_say_what_ended_and_what_it_took(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = bench_plan_of(state, true), *next = bench_plan_of(state, false);
    struct binding_history history;
    history_init(&history, next->words);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    listen(first);
    bench.device.elapsed_ns = 12345;
    for (uint64_t counter = 2; counter <= 6; counter++) {
        struct ask ask = {.counter = counter, .index = 1, .distance = 1, .keeps = true, .donates = true, .goes_on = counter > 2};
        ask.history = &history;
        bench_execute(link, next, ask);
    }
    listen(next);
    assert_int_equal(heard.executions, 6);
    assert_int_equal(heard.alone, 2);
    assert_int_equal(heard.cost_ns, 12345);
    assert_int_equal(heard.gones, 5);    // each took the one before it
    for (uint32_t i = 0; i < heard.gones; i++)
        assert_int_equal(heard.gone[i].counter, i + 1);
    history_free(&history);
}

// Their lists come back in the other order.
static void swap_two_lists(void)
{
    struct device_list *first = fake_step(&bench.device), *second = fake_step(&bench.device);
    assert_true(first != NULL && second != NULL);
    bench_post(&(struct io_event){.kind = IO_DEVICE_DONE, .device_done = {.list = second}});
    bench_post(&(struct io_event){.kind = IO_DEVICE_DONE, .device_done = {.list = first}});
}

static void a_record_never_builds_on_a_later_execution(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan_of(state, true);
    struct binding_history history;
    history_init(&history, plan->words);
    bench_send_plan(link, 0, plan);
    for (uint64_t counter = 1; counter <= 7; counter++) {
        float other[4] = {(float)counter, 1, 1, 1};
        struct ask ask = {.counter = counter, .leaf = other, .keeps = true, .goes_on = counter > 1, .history = &history};
        bench.holds_device = counter > 1 && counter < 6;
        bench_execute(link, plan, ask);
        if (bench.holds_device && counter % 2 == 1)
            swap_two_lists();
    }
    listen(plan);
    assert_int_equal(heard.executions, 7);
    history_free(&history);
}

static void a_record_never_builds_on_an_execution_that_has_none(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan_of(state, true);
    struct binding_history history;
    history_init(&history, plan->words);
    bench_send_plan(link, 0, plan);
    for (uint64_t counter = 1; counter <= 9; counter++) {
        struct ask ask = {.counter = counter, .leaf = input, .keeps = true, .goes_on = counter > 1, .history = &history};
        ask.is_replay = counter == 7;
        bench.device.fail_task = counter == 3 ? 1 : 0;
        float other[4] = {(float)counter, 1, 1, 1};
        ask.leaf = other;
        bench_execute(link, plan, ask);
    }
    listen(plan);
    assert_int_equal(heard.executions, 7);
    assert_int_equal(heard.alone, 2);    // the first, and the one after the failure
    history_free(&history);
}

static void handles_that_end_outside_of_an_execution_are_told(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    const uint8_t released[] = {1, 0};
    struct wire_release release = {.handles = released, .handles_bytes = sizeof released};
    bench_say(link, WIRE_RELEASE, wire_release_encode(&release));
    listen(plan);
    assert_int_equal(heard.releases, 1);
    assert_int_equal(heard.losses, 0);
    assert_int_equal(heard.gones, 1);
    assert_int_equal(heard.gone[0].counter, 1);
}

// Whose record may come much later: what it used must be live until then.
static void a_handle_ends_behind_the_record_of_what_used_it(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = bench_plan_of(state, true), *next = bench_plan_of(state, false);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench.holds_device = true;
    bench_execute(link, next, (struct ask){.counter = 2, .index = 1, .distance = 1, .keeps = true});
    const uint8_t released[] = {1, 0};
    struct wire_release release = {.handles = released, .handles_bytes = sizeof released};
    bench_say(link, WIRE_RELEASE, wire_release_encode(&release));
    bench_later(20000000);
    listen(first);
    assert_int_equal(heard.executions, 1);
    assert_int_equal(heard.releases, 0);
    bench.holds_device = false;
    bench_run();
    listen(next);
    assert_int_equal(heard.executions, 2);
    assert_int_equal(heard.releases, 1);
    assert_int_equal(heard.gone[0].counter, 1);
}

// Its client may give it again, and needs then what it took.
static void what_a_failed_execution_took_is_lost_and_has_not_ended(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct srg_plan *first = bench_plan_of(state, true), *next = bench_plan_of(state, false);
    bench_send_plan(link, 0, first);
    bench_send_plan(link, 1, next);
    bench_execute(link, first, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    listen(first);
    bench.device.fail_task = 1;
    bench_execute(link, next, (struct ask){.counter = 2, .index = 1, .distance = 1, .keeps = true, .donates = true});
    listen(next);
    assert_int_equal(heard.executions, 1);
    assert_int_equal(heard.releases, 1);
    assert_int_equal(heard.losses, 1);
    assert_int_equal(heard.gones, 1);
    assert_int_equal(heard.gone[0].counter, 1);
}

static void a_record_leaves_when_the_store_has_the_leaves_of_its_execution_and_not_before(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench_later(20000000);
    assert_non_null(bench_heard(head, WIRE_LEAF_OFFER));    // which the store does not take
    assert_int_equal(bench_records(head, hear, NULL), 0);
    bench_later(2000000000);
    bench_beat_back(head);
    struct wire_leaf offered = bench_store(head);    // it was offered again
    assert_true(hash128_equal(offered.content, hash128(input, 16)));
    listen(plan);
    assert_int_equal(heard.executions, 1);
}

static void an_import_is_journalled_with_its_source(void **state)
{
    make(state);
    start_listening();
    uint64_t link = bench_client(NULL);
    struct wire_handle source = {.session = 5, .counter = 3, .output = 2};
    struct wire_location there = {.incarnation = 88, .address_tcp = "tcp://t:1", .host = "elsewhere"};
    struct wire_import import = {
        .counter = 4, .output = 6, .handles = &source, .handles_count = 1, .locations = &there, .locations_count = 1};
    bench_say(link, WIRE_IMPORT, wire_import_encode(&import));
    uint64_t peer = ++bench.next_link;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = peer, .request = bench.opened_request}});
    bench_run();
    struct wire_hello_ok ok = {.version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = 88};
    bench_say(peer, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
    struct wire_fetch fetch;
    bench_take(fetch, FETCH, peer, &fetch);
    const uint8_t sizes[] = {4};
    struct wire_value value = {.request = fetch.request, .dtype = DTYPE_F32, .sizes = sizes, .sizes_bytes = 1, .bytes = 16};
    bench_say_bulk(peer, WIRE_VALUE, wire_value_encode(&value), blob_copy(input, 16));
    assert_non_null(bench_heard(link, WIRE_ANSWER));
    listen(NULL);
    assert_int_equal(heard.imports, 1);
    assert_int_equal(heard.import.id.counter, 4);
    assert_int_equal(heard.import.output, 6);
    assert_int_equal(heard.import.source.counter, 3);
    assert_int_equal(heard.import.source.output, 2);
    assert_int_equal(heard.import.bytes, 16);
}

static void a_new_head_hears_all_values_before_the_journal(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan_of(state, true);
    bench_send_plan(link, 0, plan);
    for (uint64_t counter = 1; counter <= 3; counter++)
        bench_execute(link, plan, (struct ask){.counter = counter, .leaf = input, .keeps = counter != 2});
    bench_execute(link, plan, (struct ask){.counter = 4, .content = {1, 1}, .is_only_named = true, .keeps = true});
    struct wire_inventory inventory;
    bench_take(inventory, INVENTORY, head, &inventory);
    assert_true(inventory.is_last);    // the first head heard that there is nothing
    assert_int_equal(inventory.count, 0);
    bench_store(head);
    struct wire_journal journal;
    bench_take(journal, JOURNAL, head, &journal);
    assert_null(bench_heard(head, WIRE_JOURNAL));
    bench_down(head);
    bench_later(100000000);
    uint32_t before = bench.sents, first = 0;
    head = bench_join(2);
    for (uint32_t i = before; i < bench.sents && first == 0; i++) {
        if (bench.sent[i].message == WIRE_INVENTORY || bench.sent[i].message == WIRE_JOURNAL)
            first = bench.sent[i].message;
    }
    assert_int_equal(first, WIRE_INVENTORY);
    bench_take(inventory, INVENTORY, head, &inventory);
    assert_false(inventory.is_last);    // that the session is here, also if nothing of it were
    assert_int_equal(inventory.session, 5);
    assert_int_equal(inventory.epoch, 1);
    assert_int_equal(inventory.count, 0);
    bench_take(inventory, INVENTORY, head, &inventory);
    assert_true(inventory.is_last);
    assert_int_equal(inventory.journal_next, journal.first + journal.count);    // what is journalled is older
    assert_int_equal(inventory.session, 5);
    assert_int_equal(inventory.epoch, 1);
    const uint8_t handles[] = {1, 0, 16, 2, 0, 16};
    assert_int_equal(inventory.count, 2);
    assert_int_equal(inventory.handles_bytes, sizeof handles);
    assert_memory_equal(inventory.handles, handles, sizeof handles);
    assert_non_null(bench_heard(head, WIRE_JOURNAL));
}

static void count_plans(void *context, const struct record *record)
{
    *(uint32_t *)context += record->kind == RECORD_PLAN;
}

static void a_fenced_life_joins_with_nothing(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    bench_down(head);
    bench_later(100000000);
    head = bench_join(1);
    struct wire_inventory inventory;
    bench_take(inventory, INVENTORY, head, &inventory);
    assert_true(inventory.is_last);
    assert_int_equal(inventory.count, 0);
    start_listening();
    uint32_t plans = 0;
    bench_later(10000000);
    assert_int_equal(bench_records(head, count_plans, &plans), 1);    // the plan, and nothing of what was run
    assert_int_equal(plans, 1);
}

CASES(records_go_on_behind_one_another_and_say_what_ended_and_what_it_took, a_record_never_builds_on_an_execution_that_has_none,
      a_record_never_builds_on_a_later_execution, handles_that_end_outside_of_an_execution_are_told,
      a_handle_ends_behind_the_record_of_what_used_it, what_a_failed_execution_took_is_lost_and_has_not_ended,
      a_record_leaves_when_the_store_has_the_leaves_of_its_execution_and_not_before, an_import_is_journalled_with_its_source,
      a_new_head_hears_all_values_before_the_journal, a_fenced_life_joins_with_nothing)
