// Values that go from one device's memory to another's: the worker that has one, and the one that wants it; the script is the other side.

#include "tests/gpu_worker/actors/bench.h"

#include <stdio.h>

static const float input[4] = {1, 2, 3, 4};
static uint8_t theirs[1 << 12];    // the other worker's region
enum { THERE = 256, OTHER = 99 };

static void make(void **state)
{
    bench_make(state, bench_config(), 32 << 20);
    strcpy(bench.device.info.domain, "one machine");
    bench.device.info.key = fake_key(bench.device.region);
    for (uint32_t i = 0; i < sizeof theirs; i++)
        theirs[i] = (uint8_t)(i * 7 + 1);
}

// The one that has it ------------------------------------------------------------------------------------------------

// A client's value 1.0 on the worker; the client's link.
static uint64_t make_value(void **state)
{
    uint64_t link = bench_client(NULL);
    struct srg_plan *plan = bench_plan_of(state, true);
    bench_send_plan(link, 0, plan);
    bench_execute(link, plan, (struct ask){.counter = 1, .leaf = input, .keeps = true});
    assert_non_null(bench_heard(link, WIRE_ANSWER));
    return link;
}

static void fetch(uint64_t link, uint64_t request, const char *domain)
{
    struct wire_handle handle = {.session = 5, .counter = 1};
    struct wire_fetch said = {.request = request, .handles = &handle, .handles_count = 1};
    snprintf(said.domain, sizeof said.domain, "%s", domain);
    bench_say(link, WIRE_FETCH, wire_fetch_encode(&said));
}

static void copied(uint64_t link, uint64_t request, bool is_done)
{
    struct wire_copied said = {.request = request, .is_done = is_done};
    bench_say(link, WIRE_COPIED, wire_copied_encode(&said));
}

static void assert_refused(uint64_t link, uint64_t request)
{
    struct wire_failed failed;
    bench_take(failed, FAILED, link, &failed);
    assert_int_equal(failed.request, request);
    assert_int_equal(failed.error, DJ_E_STALE);
    assert_null(bench_heard(link, WIRE_HELD));
}

// Where the value lies, as the worker says; it is looked at there.
static const uint8_t *told(uint64_t link, uint64_t request)
{
    struct wire_value value;
    bench_take(value, VALUE, link, &value);
    assert_int_equal(value.request, request);
    assert_int_equal(value.bytes, 16);
    assert_int_equal(value.key_bytes, bench.device.info.key.bytes);
    assert_memory_equal(value.key, bench.device.info.key.data, value.key_bytes);
    assert_int_equal(value.region_bytes, bench.device.info.capacity_bytes);
    assert_true(value.offset + value.bytes <= value.region_bytes);
    return bench.device.region + value.offset;
}

static void who_can_open_the_region_is_told_the_place_and_then_that_it_was_held(void **state)
{
    make(state);
    float expected[4];
    bench_neg(input, expected);
    make_value(state);
    uint64_t peer = bench_greet(ROLE_WORKER, (struct hash128){1, 2}), lists = bench.device.ticket;
    fetch(peer, 7, "one machine");
    assert_memory_equal(told(peer, 7), expected, sizeof expected);
    assert_int_equal(bench.device.ticket, lists);    // the device had nothing to do
    copied(peer, 7, true);
    struct wire_held held;
    bench_take(held, HELD, peer, &held);
    assert_int_equal(held.request, 7);
    copied(peer, 7, true);
    assert_refused(peer, 7);
}

static void what_was_told_stays_in_its_place_though_its_client_drops_it(void **state)
{
    make(state);
    float expected[4];
    bench_neg(input, expected);
    uint64_t link = make_value(state), peer = bench_greet(ROLE_WORKER, (struct hash128){1, 2});
    fetch(peer, 7, "one machine");
    const uint8_t *place = told(peer, 7);
    static const uint8_t dropped[] = {1, 0};
    struct wire_release release = {.handles = dropped, .handles_bytes = sizeof dropped};
    bench_say(link, WIRE_RELEASE, wire_release_encode(&release));
    struct srg_plan *plan = bench_plan_of(state, true);
    for (uint64_t counter = 2; counter < 40; counter++) {
        const float other[4] = {(float)counter, 0, 0, 0};
        bench_execute(link, plan, (struct ask){.counter = counter, .leaf = other, .keeps = true});
    }
    assert_memory_equal(place, expected, sizeof expected);
    copied(peer, 7, true);
    assert_non_null(bench_heard(peer, WIRE_HELD));
    for (uint64_t counter = 40; counter < 80; counter++) {
        const float other[4] = {(float)counter, 0, 0, 0};
        bench_execute(link, plan, (struct ask){.counter = counter, .leaf = other, .keeps = true});
    }
    assert_memory_not_equal(place, expected, sizeof expected);    // and not for ever
}

static void others_get_bytes(void **state)
{
    make(state);
    uint64_t link = make_value(state), peer = bench_greet(ROLE_WORKER, (struct hash128){1, 2});
    fetch(peer, 1, "");
    fetch(peer, 2, "another machine");
    fetch(link, 3, "one machine");    // a client opens nothing
    bench.device.info.key.bytes = 0;
    fetch(peer, 4, "one machine");
    for (uint32_t i = 1; i <= 4; i++) {
        struct sent *sent = bench_heard(i == 3 ? link : peer, WIRE_VALUE);
        struct wire_value value;
        assert_non_null(sent);
        assert_ok(wire_value_decode(sent->body->data, sent->body->bytes, bench.arena, &value));
        assert_int_equal(value.request, i);
        assert_int_equal(value.key_bytes, 0);
        assert_int_equal(sent->bulk_bytes, 16);
    }
}

static void a_place_is_held_for_a_bounded_time_and_as_long_as_its_link(void **state)
{
    make(state);
    make_value(state);
    uint64_t peer = bench_greet(ROLE_WORKER, (struct hash128){1, 2}), other = bench_greet(ROLE_WORKER, (struct hash128){1, 2});
    fetch(peer, 1, "one machine");
    fetch(other, 2, "one machine");
    (void)told(peer, 1);
    (void)told(other, 2);
    copied(other, 1, true);    // not its own
    assert_refused(other, 1);
    bench_later(WORKER_FETCH_NS - 1000000000);
    copied(other, 2, false);    // it does not want it
    assert_null(bench_heard(other, WIRE_HELD));
    copied(other, 2, true);
    assert_refused(other, 2);
    bench_later(2000000000);
    copied(peer, 1, true);
    assert_refused(peer, 1);
    fetch(peer, 3, "one machine");
    (void)told(peer, 3);
    bench_down(peer);
    bench_later(1000000000);
    assert_false(bench.has_stopped);
}

static void held_is_said_under_the_lease(void **state)
{
    uint64_t head = bench_make_joined(state);
    strcpy(bench.device.info.domain, "one machine");
    bench.device.info.key = fake_key(bench.device.region);
    bench_admit(head, (struct wire_admit){.epoch = 1});
    bench_beat_back(head);
    make_value(state);
    uint64_t peer = bench_greet(ROLE_WORKER, (struct hash128){1, 2});
    fetch(peer, 1, "one machine");
    (void)told(peer, 1);
    bench_later(5000000000);    // the head is silent: there is no lease
    copied(peer, 1, true);
    assert_null(bench_heard(peer, WIRE_HELD));
    bench_beat_back(head);
    struct sent *sent = bench_heard(peer, WIRE_HELD);
    assert_non_null(sent);
    assert_true(sent->not_after_ns > bench.now_ns && sent->not_after_ns <= bench.now_ns + 4000000000);
}

// The one that wants it ----------------------------------------------------------------------------------------------

// The client asks for an import of `counter`; the other worker is there. Its link.
static uint64_t import(uint64_t link, uint64_t counter, uint64_t peer)
{
    struct wire_handle source = {.session = 5, .counter = 900};
    struct wire_location there = {.incarnation = OTHER, .address_tcp = "tcp://t:1", .host = "elsewhere"};
    struct wire_import said = {
        .counter = counter, .handles = &source, .handles_count = 1, .locations = &there, .locations_count = 1};
    bench_say(link, WIRE_IMPORT, wire_import_encode(&said));
    if (peer != 0)
        return peer;
    peer = ++bench.next_link;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = peer, .request = bench.opened_request}});
    bench_run();
    struct wire_hello_ok ok = {.version = WIRE_VERSION, .role = ROLE_WORKER, .incarnation = OTHER};
    bench_say(peer, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
    return peer;
}

static uint64_t asked(uint64_t peer, const char *domain)
{
    struct wire_fetch fetch;
    bench_take(fetch, FETCH, peer, &fetch);
    assert_string_equal(fetch.domain, domain);
    return fetch.request;
}

static struct wire_value place_of(uint64_t request)
{
    static const uint8_t sizes[] = {4};
    static struct device_key key;
    key = fake_key(theirs);
    return (struct wire_value){.request = request,
                               .dtype = DTYPE_F32,
                               .sizes = sizes,
                               .sizes_bytes = 1,
                               .bytes = 16,
                               .key = key.data,
                               .key_bytes = key.bytes,
                               .region_bytes = sizeof theirs,
                               .offset = THERE};
}

static void tell(uint64_t peer, struct wire_value value)
{
    bench_say(peer, WIRE_VALUE, wire_value_encode(&value));
}

static void give_bytes(uint64_t peer, uint64_t request)
{
    struct wire_value value = place_of(request);
    struct blob *bulk = blob_make(16);
    value.key_bytes = 0;
    memcpy(bulk->data, theirs + THERE, 16);
    bench_say_bulk(peer, WIRE_VALUE, wire_value_encode(&value), bulk);
}

static void assert_copied(uint64_t peer, uint64_t request, bool is_done)
{
    struct wire_copied copied;
    bench_take(copied, COPIED, peer, &copied);
    assert_int_equal(copied.request, request);
    assert_int_equal(copied.is_done, is_done);
}

static void say_held(uint64_t peer, uint64_t request)
{
    struct wire_held held = {.request = request};
    bench_say(peer, WIRE_HELD, wire_held_encode(&held));
}

static void say_stale(uint64_t peer, uint64_t request)
{
    struct wire_failed failed = {.request = request, .error = DJ_E_STALE};
    bench_say(peer, WIRE_FAILED, wire_failed_encode(&failed));
}

static void assert_imported(uint64_t link, uint64_t counter)
{
    struct wire_answer answer;
    bench_take(answer, ANSWER, link, &answer);
    assert_int_equal(answer.counter, counter);
    bench_fetch(link, 1000 + counter, counter);
    struct sent *sent = bench_heard(link, WIRE_VALUE);
    assert_non_null(sent);
    assert_int_equal(sent->bulk_bytes, 16);
    assert_memory_equal(sent->bulk->data + sent->bulk_offset, theirs + THERE, 16);
}

static void a_value_is_copied_and_counts_once_it_was_held(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL), peer = import(link, 1, 0), request = asked(peer, "one machine");
    tell(peer, place_of(request));
    assert_copied(peer, request, true);
    assert_null(bench_heard(link, WIRE_ANSWER));
    tell(peer, place_of(request));    // sent twice
    assert_null(bench_heard(peer, WIRE_COPIED));
    say_held(peer, request);
    assert_imported(link, 1);
    say_held(peer, request);
    bench_down(peer);
    assert_null(bench_heard(link, WIRE_EXECUTION_FAILED));
    assert_int_equal(bench.device.forgotten, OTHER);
}

static void what_was_copied_and_not_held_is_asked_for_as_bytes(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL), peer = import(link, 1, 0), request = asked(peer, "one machine");
    tell(peer, place_of(request));
    assert_copied(peer, request, true);
    say_stale(peer, request);
    uint64_t again = asked(peer, "");
    assert_true(again != request);
    say_held(peer, request);    // of what was given up
    assert_null(bench_heard(link, WIRE_ANSWER));
    give_bytes(peer, again);
    assert_imported(link, 1);
}

static void a_copy_that_fails_is_given_up_for_bytes_and_after_a_few_not_tried(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL), peer = 0;
    for (uint64_t counter = 1; counter <= 5; counter++) {
        peer = import(link, counter, peer);
        if (counter <= 3) {
            uint64_t request = asked(peer, "one machine");
            struct wire_value value = place_of(request);
            value.key_bytes--;    // cannot be opened
            tell(peer, value);
            assert_copied(peer, request, false);
        }
        give_bytes(peer, asked(peer, ""));
        assert_imported(link, counter);
    }
}

static void places_that_cannot_be_are_refused(void **state)
{
    static const uint8_t nothing[] = {0};
    make(state);
    uint64_t link = bench_client(NULL), peer = 0;
    for (uint64_t counter = 1; counter <= 6; counter++) {
        peer = import(link, counter, peer);
        struct wire_value value = place_of(asked(peer, "one machine"));
        struct wire_execution_failed failed;
        switch (counter) {
        case 1: value.offset = sizeof theirs - 15; break;
        case 2: value.offset = UINT64_MAX - 3; break;
        case 3: value.region_bytes = 15; break;
        case 4: value.bytes = 20; break;
        case 5: value.dtype = 250; break;
        default:
            value.sizes = nothing;
            value.bytes = 0;
            break;
        }
        uint64_t lists = bench.device.ticket;
        tell(peer, value);
        assert_int_equal(bench.device.ticket, lists);
        bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
        assert_int_equal(failed.counter, counter);
        assert_int_equal(failed.error, DJ_E_MALFORMED);
    }
}

static void who_does_not_want_it_any_more_lets_go(void **state)
{
    make(state);
    uint64_t link = bench_client(NULL), peer = import(link, 1, 0), request = asked(peer, "one machine");
    bench_down(link);    // the client comes again, or not at all
    tell(peer, place_of(request));
    assert_copied(peer, request, false);

    link = bench_attach(1, 1, NULL);
    (void)import(link, 2, peer);
    request = asked(peer, "one machine");
    bench.holds_device = true;
    tell(peer, place_of(request));
    bench_down(link);
    bench.holds_device = false;
    bench_run();
    assert_copied(peer, request, false);
    assert_null(bench_heard(peer, WIRE_FETCH));
}

static void an_import_whose_worker_goes_between_the_copy_and_its_word_is_lost(void **state)
{
    make(state);
    for (uint32_t is_held = 0; is_held < 2; is_held++) {
        uint64_t link = bench_attach(1, is_held, NULL), peer = import(link, 1 + is_held, 0), request = asked(peer, "one machine");
        struct wire_execution_failed failed;
        bench.holds_device = is_held == 0;
        tell(peer, place_of(request));
        bench_down(peer);
        assert_int_equal(bench.device.forgotten, OTHER);
        bench.device.forgotten = 0;
        bench.holds_device = false;
        bench_run();
        assert_int_equal(bench.device.forgotten, is_held == 0 ? OTHER : 0);    // again behind a copy that may have opened it
        bench_take(execution_failed, EXECUTION_FAILED, link, &failed);
        assert_int_equal(failed.error, DJ_E_HANDLE_LOST);
        bench_down(link);
    }
}

static void a_copy_that_finds_no_memory_lets_go_and_asks_for_bytes(void **state)
{
    struct worker_config config = bench_config();
    bench_make(state, config, 1 << 12);
    strcpy(bench.device.info.domain, "one machine");
    uint64_t link = bench_client(NULL), peer = import(link, 1, 0), request = asked(peer, "one machine");
    struct wire_value value = place_of(request);
    static const uint8_t sizes[] = {0x80, 0x10};    // 2048 floats
    value.sizes = sizes;
    value.sizes_bytes = sizeof sizes;
    value.bytes = 8192;
    value.region_bytes = 1 << 20;
    tell(peer, value);
    assert_copied(peer, request, false);
    (void)asked(peer, "");
}

CASES(who_can_open_the_region_is_told_the_place_and_then_that_it_was_held,
      what_was_told_stays_in_its_place_though_its_client_drops_it, others_get_bytes,
      a_place_is_held_for_a_bounded_time_and_as_long_as_its_link, held_is_said_under_the_lease,
      a_value_is_copied_and_counts_once_it_was_held, what_was_copied_and_not_held_is_asked_for_as_bytes,
      a_copy_that_fails_is_given_up_for_bytes_and_after_a_few_not_tried, places_that_cannot_be_are_refused,
      who_does_not_want_it_any_more_lets_go, an_import_whose_worker_goes_between_the_copy_and_its_word_is_lost,
      a_copy_that_finds_no_memory_lets_go_and_asks_for_bytes)
