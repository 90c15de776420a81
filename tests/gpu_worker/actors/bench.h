// A worker on a bench: its process with a fake device, and a script that plays everybody else: the head, clients, other workers.
// Links are numbers; what the worker sends is kept per link until the script takes it.

#ifndef TESTS_GPU_WORKER_ACTORS_BENCH_H
#define TESTS_GPU_WORKER_ACTORS_BENCH_H

#include "core/lineage/record.h"
#include "core/srg/bindings.h"
#include "core/wire/wire.h"
#include "gpu_worker/actors/worker.h"
#include "tests/gpu_worker/exec/fake_device.h"
#include "tests/lib/case.h"

enum { SENT_MAX = 4096 };

struct sent {
    uint64_t link;
    uint16_t message;
    struct blob *body, *bulk;
    uint64_t bulk_offset, bulk_bytes, not_after_ns;
    bool is_taken;
};

struct bench {
    struct process *process;
    struct fake_device device;
    struct io_effects effects;
    struct arena *arena;
    uint64_t now_ns;
    uint64_t next_link;
    uint64_t generation;                // of the head that was joined last
    uint64_t opened_request;            // the last LINK_OPEN, and where to
    char opened_address[IO_ADDRESS_MAX];
    struct sent sent[SENT_MAX];
    uint32_t sents;
    bool has_stopped, holds_device;     // holds_device: lists wait for bench_device
    uint64_t closed_link;
};

static struct bench bench;

static inline void bench_effects(void)
{
    for (uint32_t i = 0; i < bench.effects.count; i++) {
        const struct io_effect *effect = &bench.effects.effect[i];
        switch (effect->kind) {
        case IO_SEND:
            assert_true(bench.sents < SENT_MAX);
            bench.sent[bench.sents++] = (struct sent){.link = effect->send.link, .message = effect->send.message, .body = effect->send.body,
                                                      .bulk = effect->send.bulk, .bulk_offset = effect->send.bulk_offset,
                                                      .bulk_bytes = effect->send.bulk_bytes, .not_after_ns = effect->send.not_after_ns};
            break;
        case IO_LINK_OPEN:
            bench.opened_request = effect->link_open.request;
            memcpy(bench.opened_address, effect->link_open.address, IO_ADDRESS_MAX);
            break;
        case IO_LINK_CLOSE: bench.closed_link = effect->link_close.link; break;
        case IO_DEVICE_SUBMIT: {
            uint64_t ticket = effect->device_submit.list->ticket;
            fake_submit(&bench.device, effect->device_submit.list);
            effect->device_submit.list->ticket = ticket;
            break;
        }
        case IO_STOP: bench.has_stopped = true; break;
        default: fail();
        }
    }
    bench.effects.count = 0;
}

static inline void bench_post(const struct io_event *event)
{
    assert_ok(process_post(bench.process, event));
}

// Runs until nothing is left to do; the device too unless it is held.
static inline void bench_run(void)
{
    for (;;) {
        while (process_run(bench.process, bench.now_ns, &bench.effects))
            bench_effects();
        bench_effects();
        struct device_list *list = bench.holds_device ? NULL : fake_step(&bench.device);
        if (list == NULL)
            return;
        bench_post(&(struct io_event){.kind = IO_DEVICE_DONE, .device_done = {.list = list}});
    }
}

static inline void bench_later(uint64_t ns)
{
    for (uint64_t end = bench.now_ns + ns; bench.now_ns < end;) {
        bench.now_ns += ns < 10000000 ? ns : 10000000;
        bench_run();
    }
}

static inline void bench_end(void *unused)
{
    (void)unused;
    process_free(bench.process);
    effects_free(&bench.effects);
    fake_free(&bench.device);
    arena_free(bench.arena);
    for (uint32_t i = 0; i < bench.sents; i++) {
        blob_drop(bench.sent[i].body);
        blob_drop(bench.sent[i].bulk);
    }
}

static inline struct worker_config bench_config(void)
{
    struct worker_config config = {.name = "w", .version = "test", .host = "here", .token = {1, 2}, .incarnation = 77, .devices = 1};
    return config;
}

static inline void bench_make(void **state, struct worker_config config, uint64_t capacity)
{
    ops_init();
    memset(&bench, 0, sizeof bench);
    bench.now_ns = 1000000000;
    bench.next_link = 100;
    fake_init(&bench.device, capacity);
    strcpy(bench.device.info.numerics, "fake");
    assert_ok(arena_make(1 << 16, 0, &bench.arena));
    effects_init(&bench.effects);
    config.device[0] = &bench.device.port;
    assert_ok(process_make(&bench.process));
    assert_ok(process_root(bench.process, &worker_class, &config, sizeof config));
    case_later(state, bench_end, NULL);
    bench_post(&(struct io_event){.kind = IO_START});
    bench_run();
}

static inline void bench_say_bulk(uint64_t link, uint16_t message, struct blob *body, struct blob *bulk)
{
    assert_non_null(body);
    bench_post(&(struct io_event){.kind = IO_RECV, .recv = {.link = link, .message = message, .body = body, .bulk = bulk}});
    bench_run();
}

static inline void bench_say(uint64_t link, uint16_t message, struct blob *body) { bench_say_bulk(link, message, body, NULL); }

// The oldest message of this kind on this link that was not taken yet; NULL when there is none.
static inline struct sent *bench_heard(uint64_t link, uint16_t message)
{
    for (uint32_t i = 0; i < bench.sents; i++) {
        struct sent *sent = &bench.sent[i];
        if (sent->is_taken || sent->link != link || sent->message != message)
            continue;
        sent->is_taken = true;
        return sent;
    }
    return NULL;
}

// Takes the next message of this kind and decodes it into *ret; fails the test when there is none.
#define bench_take(name, NAME, link, ret)                                                                         \
    do {                                                                                                          \
        struct sent *taken = bench_heard((link), WIRE_##NAME);                                                    \
        assert_non_null(taken);                                                                                   \
        assert_ok(wire_##name##_decode(taken->body->data, taken->body->bytes, bench.arena, (ret)));               \
    } while (0)

static inline uint64_t bench_accept(void)
{
    uint64_t link = ++bench.next_link;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = link}});
    bench_run();
    return link;
}

static inline void bench_down(uint64_t link)
{
    bench_post(&(struct io_event){.kind = IO_LINK_DOWN, .link_down = {.link = link, .error = DJ_E_CLOSED}});
    bench_run();
}

static inline uint64_t bench_greet(uint8_t role, struct hash128 token)
{
    uint64_t link = bench_accept();
    struct wire_hello hello = {.version = WIRE_VERSION, .role = role, .token = token};
    bench_say(link, WIRE_HELLO, wire_hello_encode(&hello));
    return link;
}

// A client's link, attached to a stream of session 5; *ret_attached (may be NULL) gets what the worker said.
static inline uint64_t bench_attach(uint32_t epoch, uint32_t stream, struct wire_attached *ret_attached)
{
    uint64_t link = bench_greet(ROLE_CLIENT, (struct hash128){1, 2});
    struct wire_hello_ok ok;
    bench_take(hello_ok, HELLO_OK, link, &ok);
    struct wire_attach attach = {.session = 5, .epoch = epoch, .secret = {9, 9}, .stream = stream};
    bench_say(link, WIRE_ATTACH, wire_attach_encode(&attach));
    struct wire_attached attached;
    bench_take(attached, ATTACHED, link, &attached);
    if (ret_attached != NULL)
        *ret_attached = attached;
    return link;
}

// To stream 0, epoch 1; *ret_last (may be NULL) gets the last counter that the worker has.
static inline uint64_t bench_client(uint64_t *ret_last)
{
    struct wire_attached attached;
    uint64_t link = bench_attach(1, 0, &attached);
    if (ret_last != NULL)
        *ret_last = attached.last_counter;
    return link;
}

// A plan: NEG of one input (leaf or handle, float32[4]); its only output.
static inline struct srg_plan *bench_plan(bool is_leaf)
{
    struct plan_builder *builder;
    struct srg_plan *plan;
    struct fault fault;
    uint32_t index;
    uint8_t dtype[OP_OUTPUTS_MAX] = {DTYPE_F32};
    struct srg_input input = {.is_leaf = is_leaf, .is_contiguous = true, .dtype = DTYPE_F32, .rank = 1, .device = 255};
    struct srg_ref ref = {.kind = REF_INPUT};
    assert_ok(plan_builder_make(&builder));
    assert_ok(plan_add_input(builder, &input, &index));
    assert_ok(plan_add_node(builder, op_info(OP_NEG), &ref, 1, NULL, dtype, 0, 255, &index));
    assert_ok(plan_finish(builder, &plan, &fault));
    plan_builder_free(builder);
    return plan;
}

static inline void bench_send_plan(uint64_t link, uint32_t index, const struct srg_plan *plan)
{
    struct writer writer = writer_make(PLAN_BYTES_MAX);
    assert_ok(plan_encode(plan, &writer));
    struct wire_plan said = {.index = index, .fingerprint = plan->fingerprint, .encoded = writer.data, .encoded_bytes = (uint32_t)writer.length};
    bench_say(link, WIRE_PLAN, wire_plan_encode(&said));
    writer_free(&writer);
}

static inline struct tensor_meta bench_meta(void)
{
    struct tensor_meta meta = {.dtype = DTYPE_F32, .rank = 1, .size = {4}, .stride = {1}};
    return meta;
}

static inline void bench_neg(const float in[4], float out[4])
{
    struct fake_tensor from = {.data = (uint8_t *)(uintptr_t)in, .meta = bench_meta()}, to = {.data = (uint8_t *)out, .meta = bench_meta()};
    fake_kernel(op_info(OP_NEG), NULL, &from, 1, &to, 1);
}

static inline void bench_drop_plan(void *plan) { plan_drop(plan); }

// The same, dropped when the test ends.
static inline struct srg_plan *bench_plan_of(void **state, bool is_leaf)
{
    struct srg_plan *plan = bench_plan(is_leaf);
    case_later(state, bench_drop_plan, plan);
    return plan;
}

struct ask {                            // an EXECUTE of bench_plan under number `index`
    uint64_t counter, distance, confirmed;  // distance: of a handle input
    uint32_t index, part, output;       // output: of a handle input
    uint32_t name;                      // of the kept output, in a step of a recovery
    bool is_replay, goes_on;            // goes_on: a delta against `history`, which is the caller's
    struct binding_history *history;
    const float *leaf;                  // a leaf input; NULL: a handle
    struct hash128 content;             // a leaf that is only named
    bool is_only_named, keeps, answers, donates;
};

static inline void bench_execute(uint64_t link, const struct srg_plan *plan, struct ask ask)
{
    int64_t word[64] = {0};
    struct tensor_meta meta = bench_meta();
    struct wire_leaf leaf = {.bytes = 16, .data = (const uint8_t *)ask.leaf, .data_bytes = 16};
    binding_set_meta(plan, word, 0, &meta);
    if (ask.leaf != NULL || ask.is_only_named) {
        leaf.content = ask.is_only_named ? ask.content : hash128(ask.leaf, 16);
        binding_set_leaf(plan, word, 0, leaf.content);
    } else {
        binding_set_handle(plan, word, 0, ask.distance, ask.output);
    }
    struct binding_history fresh, *history = ask.history == NULL ? &fresh : ask.history;
    history_init(&fresh, plan->words);
    struct writer writer = writer_make(1 << 16), names = writer_make(16);
    if (!ask.goes_on)
        history_reset(history);
    bindings_encode(history, word, &writer);
    assert_ok(history_push(history, word));
    if (ask.name != 0)
        write_var(&names, ask.name);
    uint8_t kept = ask.keeps, donated = ask.donates, answers = 0;
    struct wire_execute said = {.counter = ask.counter, .part = ask.part, .plan = ask.index, .reset = !ask.goes_on,
                                .delta = writer.data, .delta_bytes = (uint32_t)writer.length,
                                .kept = &kept, .kept_bytes = 1, .donated = &donated, .donated_bytes = 1, .answers = &answers,
                                .answers_bytes = ask.answers ? 1 : 0, .confirmed = ask.confirmed, .is_replay = ask.is_replay,
                                .names = names.data, .names_bytes = (uint32_t)names.length};
    if (ask.leaf != NULL) {
        said.leaves = &leaf;
        said.leaves_count = 1;
    }
    bench_say(link, WIRE_EXECUTE, wire_execute_encode(&said));
    writer_free(&writer);
    writer_free(&names);
    history_free(&fresh);
}

static inline void bench_fetch_output(uint64_t link, uint64_t request, uint64_t counter, uint32_t output)
{
    struct wire_handle handle = {.session = 5, .counter = counter, .output = output};
    struct wire_fetch fetch = {.request = request, .handles = &handle, .handles_count = 1};
    bench_say(link, WIRE_FETCH, wire_fetch_encode(&fetch));
}

static inline void bench_fetch(uint64_t link, uint64_t request, uint64_t counter) { bench_fetch_output(link, request, counter, 0); }

// The head takes the worker's call and lets it join, as `generation`. Returns its link.
static inline uint64_t bench_join(uint64_t generation)
{
    uint64_t head = ++bench.next_link;
    bench.generation = generation;
    bench_post(&(struct io_event){.kind = IO_LINK_UP, .link_up = {.link = head, .request = bench.opened_request}});
    bench_run();
    struct wire_hello hello;
    bench_take(hello, HELLO, head, &hello);
    assert_int_equal(hello.role, ROLE_WORKER);
    struct wire_hello_ok ok = {.version = WIRE_VERSION, .role = ROLE_HEAD, .generation = generation};
    bench_say(head, WIRE_HELLO_OK, wire_hello_ok_encode(&ok));
    struct wire_joined joined = {.worker = 3, .generation = generation, .lease_ns = 4000000000, .heartbeat_ns = 500000000};
    bench_say(head, WIRE_JOINED, wire_joined_encode(&joined));
    return head;
}

// A worker that has joined head generation 1. Returns the head's link.
static inline uint64_t bench_make_joined(void **state)
{
    struct worker_config config = bench_config();
    strcpy(config.head, "head://h:1");
    bench_make(state, config, 32 << 20);
    assert_string_equal(bench.opened_address, "head://h:1");
    return bench_join(1);
}

static inline void bench_admit(uint64_t head, struct wire_admit admit)
{
    admit.session = 5;
    admit.secret = (struct hash128){9, 9};
    bench_say(head, WIRE_ADMIT, wire_admit_encode(&admit));
}

// The head's store has everything that was offered to it by now: what leaves in batches is waited for. Returns the last thing offered.
static inline struct wire_leaf bench_store(uint64_t head)
{
    struct wire_leaf last = {0};
    bench_later(20000000);
    for (struct sent *sent; (sent = bench_heard(head, WIRE_LEAF_OFFER)) != NULL;) {
        struct wire_leaf_offer offer;
        assert_ok(wire_leaf_offer_decode(sent->body->data, sent->body->bytes, bench.arena, &offer));
        struct wire_leaf_ok ok = {.durable = true, .leaves = offer.leaves, .leaves_count = offer.leaves_count};
        if (offer.leaves_count > 0)
            last = offer.leaves[offer.leaves_count - 1];
        bench_say(head, WIRE_LEAF_OK, wire_leaf_ok_encode(&ok));
    }
    return last;
}

static inline void bench_beat_back(uint64_t head)
{
    struct wire_heartbeat beat;
    for (struct sent *sent; (sent = bench_heard(head, WIRE_HEARTBEAT)) != NULL;) {
        assert_ok(wire_heartbeat_decode(sent->body->data, sent->body->bytes, bench.arena, &beat));
        struct wire_heartbeat_ok ok = {.sequence = beat.sequence, .sent_ns = beat.sent_ns, .generation = bench.generation};
        bench_say(head, WIRE_HEARTBEAT_OK, wire_heartbeat_ok_encode(&ok));
    }
}

// Visits every record of the JOURNAL messages that were sent to `head` and not taken yet; returns how many records.
static inline uint32_t bench_records(uint64_t head, void (*visit)(void *context, const struct record *record), void *context)
{
    struct record_scratch scratch;
    struct record *record = arena_zero(bench.arena, sizeof *record);
    uint32_t count = 0;
    assert_ok(record_scratch_make(&scratch));
    for (struct sent *sent; (sent = bench_heard(head, WIRE_JOURNAL)) != NULL;) {
        struct wire_journal journal;
        assert_ok(wire_journal_decode(sent->body->data, sent->body->bytes, bench.arena, &journal));
        struct reader reader = reader_make(journal.records, journal.records_bytes);
        for (; reader_left(&reader) > 0; count++) {
            assert_ok(record_read(&reader, &scratch, record));
            visit(context, record);
        }
    }
    record_scratch_free(&scratch);
    return count;
}

#endif
