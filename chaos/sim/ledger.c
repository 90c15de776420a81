// Ledger: the manual is ledger.h.

#include "chaos/sim/ledger.h"

#include "core/base/arena.h"
#include "core/base/assert.h"
#include "core/base/map.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { FACTS_MAX = 1 << 20, FRESH_FIRST = 64 };

struct ledger {
    struct sim *sim;
    uint32_t head_node;
    struct arena *arena;
    struct record_scratch scratch;
    struct map *facts;      // exec_id -> struct fact
    struct map *answers;    // handle -> uint64_t: hash of its bytes
    struct map *plans;      // fingerprint -> itself, once stored
    struct map *over;       // session -> itself
    struct map *epochs;     // session -> the number of its latest durable epoch, as a pointer
    uint8_t **fresh;        // records put by the present batch, malloc'd, each behind its length
    uint32_t fresh_count, fresh_capacity;
    struct ledger_totals totals;
};

struct fact *ledger_fact(struct ledger *ledger, struct exec_id id)
{
    struct hash128 key = exec_id_key(id);
    struct fact *fact = map_get(ledger->facts, key);
    if (fact != NULL)
        return fact;
    fact = arena_zero(ledger->arena, sizeof *fact);
    assert(fact != NULL);
    fact->id = id;
    enum dj_error error = map_put(ledger->facts, key, fact);
    assert(error == DJ_OK);
    return fact;
}

static uint64_t bits_hash(uint64_t hash, struct record_bits bits)
{
    uint32_t bytes = bits.bytes;
    while (bytes > 0 && bits.bits[bytes - 1] == 0)
        bytes--;
    return bytes == 0 ? hash_mix(hash, 0) : hash_mix(hash, hash64(bits.bits, bytes));
}

static uint64_t content_of(const struct record *record)
{
    if (record->kind == RECORD_IMPORT) {
        const struct record_import *import = &record->import;
        uint64_t hash = hash_mix(hash_mix(RECORD_IMPORT, import->output), import->source.counter);
        return hash_mix(hash, import->source.output) | 1;
    }
    const struct record_execution *execution = &record->execution;
    uint64_t hash = hash_mix(hash_mix(execution->plan.hi, execution->plan.lo), execution->check);
    return bits_hash(bits_hash(hash, execution->keep), execution->donate) | 1;
}

struct fact *ledger_said(struct ledger *ledger, const char *who, const struct record *record)
{
    if (record->kind != RECORD_EXECUTION && record->kind != RECORD_IMPORT)
        return NULL;
    struct fact *fact = ledger_fact(ledger, record->kind == RECORD_IMPORT ? record->import.id : record->execution.id);
    uint64_t content = content_of(record);
    if (fact->content != 0 && fact->content != content) {
        char text[EXEC_ID_TEXT];
        sim_fail(ledger->sim, "one record per id: what %s says of execution %s is not what was said of it before", who,
                 exec_id_text(fact->id, text));
    }
    fact->content = content;
    return fact;
}

void ledger_answered(struct ledger *ledger, const char *who, const struct fact *fact, uint32_t output, const void *bytes,
                     size_t length)
{
    struct handle handle = {.execution = fact->id, .output = output};
    uint64_t hash = length == 0 ? 1 : hash64(bytes, length), *known = map_get(ledger->answers, handle_key(handle));
    char text[HANDLE_TEXT];
    if (known == NULL) {
        known = arena_copy(ledger->arena, &hash, sizeof hash);
        assert(known != NULL);
        enum dj_error error = map_put(ledger->answers, handle_key(handle), known);
        assert(error == DJ_OK);
    }
    if (*known != hash)
        sim_fail(ledger->sim, "one value per id: %s answers %s, and not with the bytes that it had before", who,
                 handle_text(handle, text));
}

// What the disk does -------------------------------------------------------------------------------------------------------

static void keep_fresh(struct ledger *ledger, const struct sim_change *change)
{
    if (ledger->fresh_count == ledger->fresh_capacity) {
        ledger->fresh_capacity = ledger->fresh_capacity == 0 ? FRESH_FIRST : ledger->fresh_capacity * 2;
        ledger->fresh = realloc(ledger->fresh, ledger->fresh_capacity * sizeof *ledger->fresh);
        assert(ledger->fresh != NULL);
    }
    uint8_t *copy = malloc(sizeof change->value_bytes + change->value_bytes);
    assert(copy != NULL);
    memcpy(copy, &change->value_bytes, sizeof change->value_bytes);
    memcpy(copy + sizeof change->value_bytes, change->value, change->value_bytes);
    ledger->fresh[ledger->fresh_count++] = copy;
}

static void execution_changes(struct ledger *ledger, const struct sim_change *change)
{
    struct exec_id id;
    if (!record_key_parse_execution(change->key, change->key_bytes, &id)) {
        sim_fail(ledger->sim, "an execution is stored under a key that names none");
        return;
    }
    struct fact *fact = ledger_fact(ledger, id);
    fact->is_stored = change->value != NULL;
    ledger->totals.stored += fact->is_stored && !fact->was_stored;
    ledger->totals.deleted += !fact->is_stored;
    fact->was_stored |= fact->is_stored;
    if (fact->is_stored)
        keep_fresh(ledger, change);
}

static void plan_changes(struct ledger *ledger, const struct sim_change *change)
{
    struct hash128 fingerprint;
    if (change->value == NULL || !record_key_parse_hash(change->key, change->key_bytes, &fingerprint))
        return;
    enum dj_error error = map_put(ledger->plans, fingerprint, ledger);
    assert(error == DJ_OK);
}

static void check_producer(struct ledger *ledger, const struct fact *fact, uint64_t counter)
{
    char text[EXEC_ID_TEXT];
    const struct fact *producer = ledger_fact(ledger, (struct exec_id){.session = fact->id.session, .counter = counter});
    if (!producer->was_stored)
        sim_fail(ledger->sim, "causal closure: %s is stored, its producer %" PRIu64 " is not", exec_id_text(fact->id, text),
                 counter);
}

static void check_pieces(struct ledger *ledger, const struct record_checkpoint *checkpoint)
{
    struct reader reader = reader_make(checkpoint->piece, checkpoint->piece_bytes);
    char text[HANDLE_TEXT];
    for (uint32_t i = 0; i < checkpoint->pieces && !checkpoint->is_replica; i++) {
        uint8_t key[RECORD_KEY_MAX];
        struct record_piece piece = record_piece_read(&reader);
        if (sim_store_get(ledger->sim, ledger->head_node, STORE_LEAF, key, record_key_leaf(piece.content, key)) == NULL)
            sim_fail(ledger->sim, "durable pieces: the checkpoint of %s is stored, piece %u of it is not",
                     handle_text(checkpoint->handle, text), i);
    }
}

static void check_fresh(struct ledger *ledger, const uint8_t *bytes, size_t length)
{
    struct reader reader = reader_make(bytes, length);
    struct record record;
    char text[EXEC_ID_TEXT];
    if (record_read(&reader, &ledger->scratch, &record) != DJ_OK) {
        sim_fail(ledger->sim, "a record in the store cannot be read");
        return;
    }
    if (record.kind == RECORD_CHECKPOINT)
        check_pieces(ledger, &record.checkpoint);
    const struct fact *fact = ledger_said(ledger, "the store", &record);
    if (fact == NULL)
        return;
    if (record.kind == RECORD_IMPORT) {
        check_producer(ledger, fact, record.import.source.counter);
        return;
    }
    if (map_get(ledger->plans, record.execution.plan) == NULL)
        sim_fail(ledger->sim, "causal closure: execution %s is stored, its plan is not", exec_id_text(fact->id, text));
    for (uint32_t i = 0; i < record.execution.producers; i++)
        check_producer(ledger, fact, record.execution.producer[i]);
}

void ledger_session_over(struct ledger *ledger, uint64_t session)
{
    enum dj_error error = map_put(ledger->over, map_key(session), ledger);
    assert(error == DJ_OK);
}

bool ledger_is_late(const struct ledger *ledger, struct exec_id id)
{
    return exec_epoch(id.counter) < (uintptr_t)map_get(ledger->epochs, map_key(id.session));
}

bool ledger_is_over(const struct ledger *ledger, uint64_t session)
{
    return map_get(ledger->over, map_key(session)) != NULL;
}

static void session_changes(struct ledger *ledger, const struct sim_change *change)
{
    uint64_t session;
    struct record record;
    struct reader reader = reader_make(change->value, change->value == NULL ? 0 : change->value_bytes);
    ledger->totals.sessions += change->value != NULL;
    if (!record_key_parse_session(change->key, change->key_bytes, &session))
        return;
    bool is_read = change->value != NULL && record_read(&reader, &ledger->scratch, &record) == DJ_OK;
    if (change->value == NULL || (is_read && record.session.is_over))
        ledger_session_over(ledger, session);
    if (is_read && record.session.epoch != 0) {
        enum dj_error error = map_put(ledger->epochs, map_key(session), (void *)(uintptr_t)record.session.epoch);
        assert(error == DJ_OK);
    }
}

static void batch_ends(struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->fresh_count; i++) {
        uint64_t length;
        memcpy(&length, ledger->fresh[i], sizeof length);
        check_fresh(ledger, ledger->fresh[i] + sizeof length, length);
        free(ledger->fresh[i]);
    }
    ledger->fresh_count = 0;
}

static void store_changes(void *context, const struct sim_change *change)
{
    struct ledger *ledger = context;
    if (change->node != ledger->head_node)
        return;
    if (change->key == NULL) {
        batch_ends(ledger);
        return;
    }
    if (change->table == STORE_EXECUTION)
        execution_changes(ledger, change);
    else if (change->table == STORE_PLAN)
        plan_changes(ledger, change);
    else if (change->table == STORE_SESSION)
        session_changes(ledger, change);
    else if (change->table == STORE_CHECKPOINT && change->value != NULL) {
        ledger->totals.checkpoints++;
        keep_fresh(ledger, change);
    }
}

// Making -------------------------------------------------------------------------------------------------------------------

struct ledger *ledger_make(struct sim *sim, uint32_t head_node)
{
    struct ledger *ledger = calloc(1, sizeof *ledger);
    assert(ledger != NULL);
    ledger->sim = sim;
    ledger->head_node = head_node;
    enum dj_error error = arena_make(1 << 14, 0, &ledger->arena);
    if (error == DJ_OK)
        error = record_scratch_make(&ledger->scratch);
    if (error == DJ_OK)
        error = map_make(FACTS_MAX, &ledger->facts);
    if (error == DJ_OK)
        error = map_make(FACTS_MAX, &ledger->answers);
    if (error == DJ_OK)
        error = map_make(FACTS_MAX, &ledger->plans);
    if (error == DJ_OK)
        error = map_make(FACTS_MAX, &ledger->over);
    if (error == DJ_OK)
        error = map_make(FACTS_MAX, &ledger->epochs);
    assert(error == DJ_OK);
    sim_on_store(sim, store_changes, ledger);
    return ledger;
}

void ledger_free(struct ledger *ledger)
{
    map_free(ledger->facts);
    map_free(ledger->answers);
    map_free(ledger->plans);
    map_free(ledger->over);
    map_free(ledger->epochs);
    record_scratch_free(&ledger->scratch);
    arena_free(ledger->arena);
    free(ledger->fresh);
    free(ledger);
}

struct record_scratch *ledger_scratch(struct ledger *ledger)
{
    return &ledger->scratch;
}

struct ledger_totals ledger_totals(const struct ledger *ledger)
{
    return ledger->totals;
}
