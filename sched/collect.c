// Collect: leaves in the store that nothing names any more. Mark and sweep: every session's records are decoded for the leaves that their
// bindings name, checkpoints and tags for their pieces; what was marked, what a worker holds, and what anybody spoke of lately stays, the
// rest is deleted. A record that cannot be decoded may name anything: then nothing is deleted.
//
// Leaves are also what spares a program's next run the upload of its weights, so this happens only when more than the configured bytes are
// stored, and at most every COLLECT_EVERY_NS.

#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/lineage/recovery.h"
#include "core/lineage/vectors.h"
#include "core/srg/bindings.h"
#include "sched/state.h"

enum { COLLECT_BATCH = 256, COLLECT_MARKS_MAX = HEAD_LEAVES_MAX, VECTORS_MAX = 1 << 16, TAGS_PAGE = 64 };
#define COLLECT_EVERY_NS ((uint64_t)60000000000)
#define VECTOR_BYTES_MAX ((uint64_t)128 << 20)

struct collection {
    uint64_t began_ns;
    uint64_t *session;
    uint32_t sessions, next_session;
    struct gather *gather;
    struct map *marked;
    bool is_computing, is_undecodable, is_out;
    uint8_t key[STORE_KEY_MAX];    // tags: where the next page begins
    uint32_t key_bytes;
    struct hash128 *doomed;
    uint32_t doomeds, next_doomed;
    enum { COLLECT_SESSIONS, COLLECT_TAGS, COLLECT_SWEEPS } step;
};

static void proceed(struct head *head);

static void end(struct head *head)
{
    struct collection *collection = head->collection;

    if (collection == NULL || collection->is_computing)
        return;
    head->collection = NULL;
    gather_free(collection->gather);
    map_free(collection->marked);
    free(collection->session);
    free(collection->doomed);
    free(collection);
}

static bool mark(struct collection *collection, struct hash128 content)
{
    return map_put(collection->marked, content, collection) == DJ_OK;
}

static bool mark_pieces(struct collection *collection, const struct record_checkpoint *checkpoint)
{
    struct reader reader = reader_make(checkpoint->piece, checkpoint->piece_bytes);
    bool is_ok = true;

    for (uint32_t i = 0; i < checkpoint->pieces && is_ok; i++)
        is_ok = mark(collection, record_piece_read(&reader).content);
    return is_ok;
}

// Decoding (on another thread) ------------------------------------------------------------------------------------------------------

struct decoder {
    struct collection *collection;
    struct map *plans;    // by fingerprint: struct srg_plan
    struct vectors *vectors;
    struct record_scratch scratch;
    struct record *record;
};

static bool mark_execution(struct decoder *decoder, const struct record_execution *execution)
{
    const struct srg_plan *plan = map_get(decoder->plans, execution->plan);
    const int64_t *word = plan == NULL ? NULL : vectors_decode(decoder->vectors, execution, plan->words);
    bool is_ok = word != NULL;

    for (uint32_t i = 0; is_ok && i < plan->inputs; i++)
        if (plan->input[i].is_leaf)
            is_ok = mark(decoder->collection, binding_leaf(plan, word, i));
    return is_ok;
}

static bool mark_records(struct decoder *decoder)
{
    struct gather_cursor cursor = {0};
    struct record_ref key;
    const struct blob *value;
    bool is_ok = true;

    while (is_ok && gather_next(decoder->collection->gather, &cursor, &key, &value)) {
        struct reader reader = reader_make(value->data, value->bytes);
        is_ok = record_read(&reader, &decoder->scratch, decoder->record) == DJ_OK;
        if (is_ok && decoder->record->kind == RECORD_EXECUTION)
            is_ok = mark_execution(decoder, &decoder->record->execution);
        else if (is_ok && decoder->record->kind == RECORD_CHECKPOINT)
            is_ok = mark_pieces(decoder->collection, &decoder->record->checkpoint);
    }
    return is_ok;
}

static bool learn_plans(struct decoder *decoder)
{
    for (uint32_t i = 0;; i++) {
        const struct blob *value = gather_plan(decoder->collection->gather, i);
        if (value == NULL)
            break;
        struct reader reader = reader_make(value->data, value->bytes);
        struct srg_plan *plan = NULL;
        if (record_read(&reader, &decoder->scratch, decoder->record) != DJ_OK || decoder->record->kind != RECORD_PLAN ||
            plan_decode(decoder->record->plan.bytes, decoder->record->plan.length, &plan, NULL) != DJ_OK)
            continue;
        if (map_put(decoder->plans, plan->fingerprint, plan) != DJ_OK) {
            plan_drop(plan);
            return false;
        }
    }
    return true;
}

static void *decode_session(void *input)
{
    struct collection *collection = input;
    struct decoder decoder = {.collection = collection, .record = malloc(sizeof *decoder.record)};
    uint32_t cursor = 0;
    void *plan;

    bool is_ok = decoder.record != NULL && record_scratch_make(&decoder.scratch) == DJ_OK &&
                 map_make(RECOVERY_PLANS_MAX, &decoder.plans) == DJ_OK &&
                 vectors_make(VECTORS_MAX, VECTOR_BYTES_MAX, &decoder.vectors) == DJ_OK && learn_plans(&decoder) &&
                 mark_records(&decoder);
    collection->is_undecodable = collection->is_undecodable || !is_ok;
    while (decoder.plans != NULL && (plan = map_next(decoder.plans, &cursor, NULL)) != NULL)
        plan_drop(plan);
    vectors_free(decoder.vectors);
    map_free(decoder.plans);
    record_scratch_free(&decoder.scratch);
    free(decoder.record);
    return collection;
}

void collect_decoded(struct head *head)
{
    struct collection *collection = head->collection;

    collection->is_computing = false;
    gather_free(collection->gather);
    collection->gather = NULL;
    proceed(head);
}

static void gathered(struct head *head, struct gather *gather, void *context, enum dj_error error, const struct fault *fault)
{
    struct collection *collection = context;

    (void)gather;
    (void)fault;
    if (error != DJ_OK) {
        end(head);
        return;
    }
    collection->is_computing = true;
    head_ticket(head, actor_compute(head->self, decode_session, collection), TICKET_COLLECT);
}

// Tags --------------------------------------------------------------------------------------------------------------------------------

static void read_tags(struct head *head, struct collection *collection)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch == NULL ? NULL
                                            : batch_add(batch, STORE_SCAN, STORE_TAG, collection->key, collection->key_bytes);

    if (item == NULL) {
        batch_free(batch);
        end(head);
        return;
    }
    item->scan_max = TAGS_PAGE;
    collection->is_out = true;
    head_ticket(head, actor_store_read(head->self, batch), TICKET_COLLECT);
}

static bool mark_tag(struct head *head, struct collection *collection, const struct blob *value)
{
    struct reader reader = reader_make(value->data, value->bytes);
    struct record record;

    // A tag in a file is listed without its bytes: rare, and it stops the collection.
    if (record_read(&reader, &head->scratch, &record) != DJ_OK || record.kind != RECORD_TAG)
        return false;
    struct reader entries = reader_make(record.tag.entry, record.tag.entry_bytes);
    bool is_ok = true;
    for (uint32_t i = 0, count = record.tag.entries; i < count && is_ok; i++) {
        struct record entry;
        is_ok = record_read(&entries, &head->scratch, &entry) == DJ_OK && entry.kind == RECORD_CHECKPOINT &&
                mark_pieces(collection, &entry.checkpoint);
    }
    return is_ok;
}

static void take_tags(struct head *head, struct collection *collection, const struct store_result *result)
{
    for (uint32_t i = 0; i < result->entries; i++)
        collection->is_undecodable = !mark_tag(head, collection, result->entry[i].value) || collection->is_undecodable;
    if (result->entries == TAGS_PAGE && result->entry[TAGS_PAGE - 1].key_bytes < STORE_KEY_MAX) {
        const struct store_entry *last = &result->entry[TAGS_PAGE - 1];
        memset(collection->key, 0, sizeof collection->key);
        memcpy(collection->key, last->key, last->key_bytes);
        collection->key_bytes = last->key_bytes + 1;
    } else {
        collection->step = COLLECT_SWEEPS;
    }
}

// Sweeping ------------------------------------------------------------------------------------------------------------------------------

static void choose(struct head *head, struct collection *collection)
{
    const struct head_leaf *leaf;
    uint32_t cursor = 0;

    collection->doomed = calloc((size_t)map_count(head->leaves) + 1, sizeof *collection->doomed);
    while (collection->doomed != NULL && (leaf = map_next(head->leaves, &cursor, NULL)) != NULL)
        if (leaf->is_stored && leaf->holders == 0 && leaf->spoken_ns + COLLECT_EVERY_NS < collection->began_ns &&
            map_get(collection->marked, leaf->content) == NULL)
            collection->doomed[collection->doomeds++] = leaf->content;
}

static void sweep(struct head *head, struct collection *collection)
{
    struct store_batch *batch = batch_make();
    uint8_t key[RECORD_KEY_MAX];

    if (collection->doomed == NULL)
        choose(head, collection);
    for (uint32_t n = 0; batch != NULL && n < COLLECT_BATCH && collection->next_doomed < collection->doomeds;
         collection->next_doomed++) {
        struct head_leaf *leaf = map_get(head->leaves, collection->doomed[collection->next_doomed]);
        if (leaf == NULL || leaf->holders > 0 || leaf->spoken_ns + COLLECT_EVERY_NS >= collection->began_ns)
            continue;
        batch_add(batch, STORE_DELETE, STORE_LEAF, key, record_key_leaf(leaf->content, key));
        head->stats.leaves_collected++;
        head->stats.leaf_bytes_collected += leaf->bytes;
        head->leaf_bytes_stored -= leaf->bytes < head->leaf_bytes_stored ? leaf->bytes : head->leaf_bytes_stored;
        head->leaves_stored -= head->leaves_stored > 0;
        free(map_take(head->leaves, leaf->content));
        n++;
    }
    if (batch == NULL || batch->items == 0) {
        batch_free(batch);
        end(head);
        return;
    }
    collection->is_out = true;
    head_ticket(head, actor_store_commit(head->self, batch), TICKET_COLLECT);
}

void collect_done(struct head *head, enum dj_error error, const struct store_result *result)
{
    struct collection *collection = head->collection;

    if (collection == NULL)
        return;
    collection->is_out = false;
    if (error != DJ_OK) {
        end(head);
        return;
    }
    if (collection->step == COLLECT_TAGS)
        take_tags(head, collection, result);
    proceed(head);
}

static void proceed(struct head *head)
{
    struct collection *collection = head->collection;

    if (collection->is_undecodable) {
        log_write(LOG_WARN, "head", "leaves cannot be collected: a record or a tag does not decode");
        end(head);
    } else if (collection->step == COLLECT_SESSIONS && collection->next_session < collection->sessions) {
        if (!gather_begin(head, collection->session[collection->next_session++], gathered, collection, &collection->gather))
            end(head);
    } else if (collection->step == COLLECT_SWEEPS) {
        sweep(head, collection);
    } else {
        collection->step = COLLECT_TAGS;
        read_tags(head, collection);
    }
}

static void begin(struct head *head, uint64_t now_ns)
{
    struct collection *collection = calloc(1, sizeof *collection);
    const struct head_session *session;
    uint32_t cursor = 0;

    head->collected_ns = now_ns;
    if (collection == NULL)
        return;
    head->collection = collection;
    collection->began_ns = now_ns;
    collection->session = calloc((size_t)map_count(head->sessions) + 1, sizeof *collection->session);
    if (collection->session == NULL || map_make(COLLECT_MARKS_MAX, &collection->marked) != DJ_OK) {
        end(head);
        return;
    }
    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL)
        collection->session[collection->sessions++] = session->id;
    log_write(LOG_INFO, "head", "leaves are collected sessions=%u leaf_bytes=%llu", collection->sessions,
              (unsigned long long)head->leaf_bytes_stored);
    proceed(head);
}

// Workers tell which leaves they hold after they joined: not before everybody had the time.
void collect_check(struct head *head, uint64_t now_ns)
{
    if (head->collection == NULL && head->is_settled && !head->is_partial && head->journal.held_count == 0 &&
        head->leaf_bytes_stored > head->config.leaf_store_bytes && now_ns - head->serving_since_ns > COLLECT_EVERY_NS &&
        now_ns - head->collected_ns > COLLECT_EVERY_NS)
        begin(head, now_ns);
}

void collect_end(struct head *head)
{
    if (head->collection != NULL)
        head->collection->is_computing = false;
    end(head);
}
