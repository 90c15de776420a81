// Rig: see rig.h.

#include "tests/sched/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void post(struct rig *rig, const struct io_event *event)
{
    assert_ok(process_post(rig->process, event));
}

// The store -------------------------------------------------------------------------------------------------------------------------

static int order(const struct rig_entry *entry, enum store_table table, const void *key, size_t key_bytes)
{
    if (entry->table != table)
        return entry->table < table ? -1 : 1;
    size_t common = entry->key_bytes < key_bytes ? entry->key_bytes : key_bytes;
    int by_key = common == 0 ? 0 : memcmp(entry->key, key, common);
    return by_key != 0 ? by_key : (entry->key_bytes > key_bytes) - (entry->key_bytes < key_bytes);
}

static uint32_t find(const struct rig *rig, enum store_table table, const void *key, size_t key_bytes)
{
    uint32_t at = 0;
    while (at < rig->entries && order(&rig->entry[at], table, key, key_bytes) < 0)
        at++;
    return at;
}

static bool is_at(const struct rig *rig, uint32_t at, enum store_table table, const void *key, size_t key_bytes)
{
    return at < rig->entries && order(&rig->entry[at], table, key, key_bytes) == 0;
}

static void apply(struct rig *rig, const struct store_item *item)
{
    uint32_t at = find(rig, item->table, item->key, item->key_bytes);
    bool is_there = is_at(rig, at, item->table, item->key, item->key_bytes);

    if (is_there && item->verb != STORE_PUT_IF_ABSENT) {
        blob_drop(rig->entry[at].value);
        memmove(&rig->entry[at], &rig->entry[at + 1], (--rig->entries - at) * sizeof rig->entry[0]);
    }
    if (item->verb == STORE_DELETE || (is_there && item->verb == STORE_PUT_IF_ABSENT))
        return;
    assert_true(rig->entries < RIG_ENTRIES_MAX);
    memmove(&rig->entry[at + 1], &rig->entry[at], (rig->entries++ - at) * sizeof rig->entry[0]);
    rig->entry[at] = (struct rig_entry){.table = item->table, .key_bytes = item->key_bytes};
    memcpy(rig->entry[at].key, item->key, item->key_bytes);
    rig->entry[at].value = blob_copy(item->value->data + item->value_offset, item->value_bytes);
}

static void look(const struct rig *rig, const struct store_item *item, uint32_t index, struct store_result *result)
{
    uint32_t left = item->verb == STORE_SCAN ? item->scan_max : 1;

    for (uint32_t at = find(rig, item->table, item->key, item->key_bytes); left > 0 && at < rig->entries; left--, at++) {
        const struct rig_entry *entry = &rig->entry[at];
        if (entry->table != item->table ||
            (item->verb == STORE_GET && order(entry, item->table, item->key, item->key_bytes) != 0))
            break;
        result_add(result, index, entry->key, entry->key_bytes, blob_hold(entry->value));
    }
}

static void answer_store(struct rig *rig, uint64_t ticket, struct store_batch *batch, enum dj_error error, bool is_read)
{
    struct io_event event = {.kind = IO_STORE_DONE};

    event.store_done.ticket = ticket;
    event.store_done.error = error;
    event.store_done.result = result_make();
    event.store_done.result->batch = batch;
    for (uint32_t i = 0; i < batch->items && error == DJ_OK; i++) {
        if (is_read)
            look(rig, &batch->item[i], i, event.store_done.result);
        else
            apply(rig, &batch->item[i]);
    }
    post(rig, &event);
}

uint32_t rig_stored(const struct rig *rig, enum store_table table)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rig->entries; i++)
        count += rig->entry[i].table == table;
    return count;
}

const struct blob *rig_stored_at(const struct rig *rig, enum store_table table, const void *key, size_t key_bytes)
{
    uint32_t at = find(rig, table, key, key_bytes);
    return is_at(rig, at, table, key, key_bytes) ? rig->entry[at].value : NULL;
}

static void use_store(struct rig *rig, uint64_t ticket, struct store_batch *batch, bool is_read)
{
    rig->items_committed += is_read ? 0 : batch->items;
    if (!rig->holds_commits) {
        answer_store(rig, ticket, batch, is_read ? DJ_OK : rig->store_error, is_read);
        return;
    }
    assert_true(rig->commits < RIG_COMMITS_MAX);
    rig->commit[rig->commits].ticket = ticket;
    rig->commit[rig->commits].is_read = is_read;
    rig->commit[rig->commits++].batch = batch;
}

// Effects ---------------------------------------------------------------------------------------------------------------------------

static void compute(struct rig *rig, const struct io_effect *effect)
{
    struct io_event event = {.kind = IO_COMPUTE_DONE};

    event.compute_done.ticket = effect->compute.ticket;
    event.compute_done.result = effect->compute.function(effect->compute.input);
    if (!rig->holds_answers) {
        post(rig, &event);
        return;
    }
    assert_true(rig->answers < sizeof rig->answer / sizeof rig->answer[0]);
    rig->answer[rig->answers++] = event;
}

static void carry_out(struct rig *rig, const struct io_effect *effect)
{
    switch (effect->kind) {
    case IO_SEND:
        assert_true(rig->sents < RIG_SENT_MAX);
        rig->sent[rig->sents++] = (struct rig_sent){
            .link = effect->send.link, .message = effect->send.message, .body = effect->send.body, .bulk = effect->send.bulk};
        break;
    case IO_LINK_CLOSE: rig->closed[rig->closed_links++] = effect->link_close.link; break;
    case IO_STORE_READ: use_store(rig, effect->store_read.ticket, effect->store_read.batch, true); break;
    case IO_STORE_COMMIT: use_store(rig, effect->store_commit.ticket, effect->store_commit.batch, false); break;
    case IO_COMPUTE: compute(rig, effect); break;
    case IO_STOP: rig->exits++; break;
    case IO_LINK_OPEN:
    case IO_DEVICE_SUBMIT:
    case IO_ANSWER: fail_msg("a head has no such effect");
    }
}

void rig_release_answers(struct rig *rig)
{
    uint32_t count = rig->answers;

    rig->answers = 0;
    rig->holds_answers = false;
    for (uint32_t i = 0; i < count; i++)
        post(rig, &rig->answer[i]);
    rig_run(rig);
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
        answer_store(rig, rig->commit[i].ticket, rig->commit[i].batch, rig->commit[i].is_read ? DJ_OK : error,
                     rig->commit[i].is_read);
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
    for (uint32_t i = 0; i < rig->entries; i++)
        blob_drop(rig->entry[i].value);
    process_free(rig->process);
    effects_free(&rig->effects);
    free(rig);
}

static void start(struct rig *rig)
{
    struct io_event event = {.kind = IO_START};

    assert_ok(process_make(&rig->process));
    assert_ok(process_root(rig->process, &head_class, &rig->config, sizeof rig->config));
    post(rig, &event);
    rig_run(rig);
}

struct rig *rig_make(void **state, struct hash128 token)
{
    struct rig *rig = calloc(1, sizeof *rig);

    ops_init();
    rig->config = (struct head_config){.address = "127.0.0.1:7070", .version = "test", .token = token, .incarnation = 9};
    rig->now_ns = 1000000000;
    rig->arena = case_arena(state);
    effects_init(&rig->effects);
    case_later(state, rig_free, rig);
    start(rig);
    return rig;
}

void rig_restart(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->commits; i++)    // what was not durable is lost
        batch_free(rig->commit[i].batch);
    rig->commits = 0;
    rig->holds_commits = false;
    process_free(rig->process);
    start(rig);
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
    return rig_worker_of(rig, name, incarnation, "test");
}

uint64_t rig_worker_of(struct rig *rig, const char *name, uint64_t incarnation, const char *numerics)
{
    uint64_t link = rig_link(rig, ROLE_WORKER, (struct hash128){1, 2});
    struct wire_device device = {.name = "cpu", .backend = "cpu", .capacity_bytes = 1 << 30, .threads = 1};
    struct wire_join join = {.incarnation = incarnation, .pid = (uint32_t)incarnation, .devices = &device, .devices_count = 1};

    snprintf(device.numerics, sizeof device.numerics, "%s", numerics);
    snprintf(join.name, sizeof join.name, "%s", name);
    snprintf(join.address_tcp, sizeof join.address_tcp, "tcp://127.0.0.1:%u", (unsigned)incarnation);
    rig_say(rig, link, WIRE_JOIN, wire_join_encode(&join), NULL);
    SAY(rig, link, INVENTORY, inventory, .is_last = true);
    return link;
}

bool rig_is_closed(const struct rig *rig, uint64_t link)
{
    for (uint32_t i = 0; i < rig->closed_links; i++)
        if (rig->closed[i] == link)
            return true;
    return false;
}
