// Rig: see rig.h.

#include "tests/sched/rig.h"

#include "core/io/blob.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void post(struct rig *rig, const struct io_event *event)
{
    assert_ok(process_post(rig->process, event));
}

static void answer_store(struct rig *rig, uint64_t ticket, struct store_batch *batch, enum dj_error error)
{
    struct io_event event = {.kind = IO_STORE_DONE};

    event.store_done.ticket = ticket;
    event.store_done.error = error;
    event.store_done.result = result_make();
    event.store_done.result->batch = batch;
    post(rig, &event);
}

static void carry_out(struct rig *rig, const struct io_effect *effect)
{
    struct io_event event = {.kind = IO_COMPUTE_DONE};

    switch (effect->kind) {
    case IO_SEND:
        assert_true(rig->sents < RIG_SENT_MAX);
        rig->sent[rig->sents++] = (struct rig_sent){
            .link = effect->send.link, .message = effect->send.message, .body = effect->send.body, .bulk = effect->send.bulk};
        break;
    case IO_LINK_CLOSE: rig->closed[rig->closed_links++] = effect->link_close.link; break;
    case IO_STORE_READ: answer_store(rig, effect->store_read.ticket, effect->store_read.batch, DJ_OK); break;
    case IO_STORE_COMMIT:
        rig->items_committed += effect->store_commit.batch->items;
        if (rig->holds_commits) {
            rig->commit[rig->commits].ticket = effect->store_commit.ticket;
            rig->commit[rig->commits++].batch = effect->store_commit.batch;
        } else {
            answer_store(rig, effect->store_commit.ticket, effect->store_commit.batch, DJ_OK);
        }
        break;
    case IO_COMPUTE:
        event.compute_done.ticket = effect->compute.ticket;
        event.compute_done.result = effect->compute.function(effect->compute.input);
        post(rig, &event);
        break;
    case IO_STOP: rig->exits++; break;
    case IO_LINK_OPEN:
    case IO_DEVICE_SUBMIT:
    case IO_ANSWER: fail_msg("a head has no such effect");
    }
}

void rig_run(struct rig *rig)
{
    bool has_more = true;

    while (has_more) {
        has_more = process_run(rig->process, rig->now_ns, &rig->effects);
        uint32_t count = rig->effects.count;
        for (uint32_t i = 0; i < count; i++)
            carry_out(rig, &rig->effects.effect[i]);
        rig->effects.count = 0;
        has_more |= count > 0;
    }
}

void rig_advance(struct rig *rig, uint64_t by_ns)
{
    uint64_t until = rig->now_ns + by_ns, next;

    while ((next = process_deadline_ns(rig->process)) <= until) {
        rig->now_ns = next > rig->now_ns ? next : rig->now_ns;
        rig_run(rig);
    }
    rig->now_ns = until;
    rig_run(rig);
}

void rig_release_commits(struct rig *rig, enum dj_error error)
{
    uint32_t count = rig->commits;

    rig->commits = 0;
    for (uint32_t i = 0; i < count; i++)
        answer_store(rig, rig->commit[i].ticket, rig->commit[i].batch, error);
    rig_run(rig);
}

static void rig_free(void *object)
{
    struct rig *rig = object;

    for (uint32_t i = 0; i < rig->sents; i++) {
        blob_drop(rig->sent[i].body);
        blob_drop(rig->sent[i].bulk);
    }
    for (uint32_t i = 0; i < rig->commits; i++)
        batch_free(rig->commit[i].batch);
    process_free(rig->process);
    effects_free(&rig->effects);
    free(rig);
}

struct rig *rig_make(void **state, struct hash128 token)
{
    struct rig *rig = calloc(1, sizeof *rig);
    struct head_config config = {.address = "127.0.0.1:7070", .version = "test", .token = token, .incarnation = 9};
    struct io_event start = {.kind = IO_START};

    ops_init();
    rig->now_ns = 1000000000;
    rig->arena = case_arena(state);
    effects_init(&rig->effects);
    assert_ok(process_make(&rig->process));
    assert_ok(process_root(rig->process, &head_class, &config, sizeof config));
    case_later(state, rig_free, rig);
    post(rig, &start);
    rig_run(rig);
    return rig;
}

void rig_say(struct rig *rig, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk)
{
    struct io_event event = {.kind = IO_RECV};

    assert_non_null(body);
    event.recv.link = link;
    event.recv.message = message;
    event.recv.body = body;
    event.recv.bulk = bulk;
    post(rig, &event);
    rig_run(rig);
}

uint64_t rig_link(struct rig *rig, uint8_t role, struct hash128 token)
{
    struct io_event event = {.kind = IO_LINK_UP};
    struct wire_hello hello = {.version = WIRE_VERSION, .role = role, .token = token};

    event.link_up.link = ++rig->next_link;
    post(rig, &event);
    rig_say(rig, event.link_up.link, WIRE_HELLO, wire_hello_encode(&hello), NULL);
    return event.link_up.link;
}

void rig_link_down(struct rig *rig, uint64_t link)
{
    struct io_event event = {.kind = IO_LINK_DOWN};

    event.link_down.link = link;
    post(rig, &event);
    rig_run(rig);
}

const struct rig_sent *rig_heard(struct rig *rig, uint64_t link, uint16_t message)
{
    for (uint32_t i = 0; i < rig->sents; i++)
        if (!rig->sent[i].is_taken && rig->sent[i].link == link && rig->sent[i].message == message) {
            rig->sent[i].is_taken = true;
            return &rig->sent[i];
        }
    return NULL;
}

uint64_t rig_worker(struct rig *rig, const char *name, uint64_t incarnation)
{
    uint64_t link = rig_link(rig, ROLE_WORKER, (struct hash128){1, 2});
    struct wire_device device = {.name = "cpu", .backend = "cpu", .numerics = "test", .capacity_bytes = 1 << 30, .threads = 1};
    struct wire_join join = {.incarnation = incarnation, .pid = (uint32_t)incarnation, .devices = &device, .devices_count = 1};

    snprintf(join.name, sizeof join.name, "%s", name);
    snprintf(join.address_tcp, sizeof join.address_tcp, "tcp://127.0.0.1:%u", (unsigned)incarnation);
    rig_say(rig, link, WIRE_JOIN, wire_join_encode(&join), NULL);
    return link;
}

bool rig_is_closed(const struct rig *rig, uint64_t link)
{
    for (uint32_t i = 0; i < rig->closed_links; i++)
        if (rig->closed[i] == link)
            return true;
    return false;
}
