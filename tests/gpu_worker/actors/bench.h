// A worker on a bench: its process with a fake device, and a script that plays everybody else: the head, clients, other workers.
// Links are numbers; what the worker sends is kept per link until the script takes it.

#ifndef TESTS_GPU_WORKER_ACTORS_BENCH_H
#define TESTS_GPU_WORKER_ACTORS_BENCH_H

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
    uint64_t bulk_offset, bulk_bytes;
    bool is_taken;
};

struct bench {
    struct process *process;
    struct fake_device device;
    struct io_effects effects;
    struct arena *arena;
    uint64_t now_ns;
    uint64_t next_link;
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
                                                      .bulk_bytes = effect->send.bulk_bytes};
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

// A client's link, attached to session 5 (epoch 1); *ret_last gets the last counter that the worker has.
static inline uint64_t bench_client(uint64_t *ret_last)
{
    uint64_t link = bench_greet(ROLE_CLIENT, (struct hash128){1, 2});
    struct wire_hello_ok ok;
    bench_take(hello_ok, HELLO_OK, link, &ok);
    struct wire_attach attach = {.session = 5, .epoch = 1, .secret = {9, 9}};
    bench_say(link, WIRE_ATTACH, wire_attach_encode(&attach));
    struct wire_attached attached;
    bench_take(attached, ATTACHED, link, &attached);
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

struct ask {                            // an EXECUTE of bench_plan under number `index`
    uint64_t counter, distance, confirmed;  // distance: of a handle input
    uint32_t index;
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
        binding_set_handle(plan, word, 0, ask.distance, 0);
    }
    struct binding_history history;
    history_init(&history, plan->words);
    struct writer writer = writer_make(1 << 16);
    bindings_encode(&history, word, &writer);
    uint8_t kept = ask.keeps, donated = ask.donates, answers = 0;
    struct wire_execute said = {.counter = ask.counter, .plan = ask.index, .reset = true, .delta = writer.data, .delta_bytes = (uint32_t)writer.length,
                                .kept = &kept, .kept_bytes = 1, .donated = &donated, .donated_bytes = 1, .answers = &answers,
                                .answers_bytes = ask.answers ? 1 : 0, .confirmed = ask.confirmed};
    if (ask.leaf != NULL) {
        said.leaves = &leaf;
        said.leaves_count = 1;
    }
    bench_say(link, WIRE_EXECUTE, wire_execute_encode(&said));
    writer_free(&writer);
    history_free(&history);
}

static inline void bench_fetch(uint64_t link, uint64_t request, uint64_t counter)
{
    struct wire_handle handle = {.session = 5, .counter = counter};
    struct wire_fetch fetch = {.request = request, .handles = &handle, .handles_count = 1};
    bench_say(link, WIRE_FETCH, wire_fetch_encode(&fetch));
}

#endif
