// Lineage: what is known of live values, a table a session (core/lineage/handles.h): who holds them, and that somebody still needs them.
//
// An entry is there as long as its client has not given the value back: it comes with the record that made the value, with an inventory, or
// with a RECOVER that names it, and goes with a record that ends it. A location is the incarnation of a worker, from the moment in which
// the worker says so (it has the value, whatever becomes of the record). A reference is (session, incarnation whose stream the value is
// in): proof that the value's record is here; a repeated message adds nothing.
//
// The table is help, not truth: a location it lacks costs a replay that was not needed, one that is wrong is named by the client
// (`absent`). So a full table is said once, and everything goes on.

#include <stdlib.h>

#include "core/base/bits.h"
#include "core/base/log.h"
#include "sched/state.h"

static const struct handles_limits limits = {.handles = SESSION_HANDLES_MAX,
                                             .locations = SESSION_LOCATIONS_MAX,
                                             .references = SESSION_REFERENCES_MAX,
                                             .incarnations = SESSION_INCARNATIONS_MAX};

static struct handle handle_of(const struct head_session *session, struct record_ref ref)
{
    return (struct handle){.execution = {.session = session->id, .counter = ref.counter}, .output = ref.output};
}

static void is_full(struct head *head, struct head_session *session)
{
    head->stats.handles_dropped++;
    if (!session->is_known_full)
        log_write(LOG_WARN, "head", "the table of live values is full; recovery of some will replay more session=%llx",
                  (unsigned long long)session->id);
    session->is_known_full = true;
}

// Adds what is not there. `location` 0: no worker is known to have it; `place` 0 adds no reference.
static void put(struct head *head, struct head_session *session, struct record_ref ref, uint64_t location, uint64_t place)
{
    struct handle handle = handle_of(session, ref);

    if (session->handles == NULL && handles_make(limits, &session->handles) != DJ_OK) {
        session->handles = NULL;
        is_full(head, session);
        return;
    }
    uint32_t before = handles_stats(session->handles).handles;
    enum dj_error error = head->handles < HEAD_HANDLES_MAX || handles_find(session->handles, handle, NULL)
                              ? handles_put(session->handles, handle, 0)
                              : DJ_E_LIMIT;
    head->handles += handles_stats(session->handles).handles - before;
    if (error == DJ_OK && location != 0)
        error = handles_add_location(session->handles, handle, location);
    if ((error == DJ_OK || error == DJ_E_EPOCH_FENCED) && place != 0)
        error = handles_hold(session->handles, handle, session->id, place);
    if (error != DJ_OK && error != DJ_E_EPOCH_FENCED)
        is_full(head, session);
}

static void drop(struct head *head, struct head_session *session, struct record_ref ref)
{
    if (session->handles != NULL && handles_drop(session->handles, handle_of(session, ref)))
        head->handles--;
}

// The client's own records have no worker: their place is the session itself.
static uint64_t place_of(const struct head_session *session, const struct head_worker *worker)
{
    return worker == NULL ? session->id : worker->incarnation;
}

static void end_all(struct head *head, struct head_session *session, const uint8_t *gone, uint32_t bytes, uint64_t from)
{
    struct record_refs refs = record_refs_open(gone, bytes, from);
    struct record_ref ref;

    while (record_refs_next(&refs, &ref))
        drop(head, session, ref);
}

void lineage_ran(struct head *head, struct head_session *session, const struct record_execution *record,
                 const struct head_worker *worker, bool is_old)
{
    uint64_t location = worker == NULL || is_old ? 0 : worker->incarnation;

    for (uint32_t byte = 0; byte < record->keep.bytes; byte++)
        for (uint32_t bits = record->keep.bits[byte]; bits != 0; bits &= bits - 1)
            put(head, session,
                (struct record_ref){.counter = record->id.counter, .output = byte * 8 + (uint32_t)__builtin_ctz(bits)}, location,
                place_of(session, worker));
    end_all(head, session, record->gone, record->gone_bytes, record->id.counter);
}

void lineage_imported(struct head *head, struct head_session *session, const struct record_import *record,
                      const struct head_worker *worker, bool is_old)
{
    put(head, session, (struct record_ref){.counter = record->id.counter, .output = record->output},
        worker == NULL || is_old ? 0 : worker->incarnation, place_of(session, worker));
}

// What a worker lost is not there any more, and needed as before: it does not end.
void lineage_released(struct head *head, struct head_session *session, const struct record_release *record,
                      const struct head_worker *worker)
{
    struct record_refs refs = record_refs_open(record->gone, record->gone_bytes, record->from);
    struct record_ref ref;

    while (record->is_lost && worker != NULL && session->handles != NULL && record_refs_next(&refs, &ref))
        handles_remove_location(session->handles, handle_of(session, ref), worker->incarnation);
    if (!record->is_lost)
        end_all(head, session, record->gone, record->gone_bytes, record->from);
}

// Accepted ----------------------------------------------------------------------------------------------------------------

enum { BLOCK_BITS = 4096 };

void lineage_accept(struct head_session *session, uint64_t counter)
{
    struct hash128 key = map_key(counter / BLOCK_BITS);

    // Out of memory nothing is wrong: who asks hears that it is not known, and looks into the store.
    if (session->accepted == NULL && map_make(SESSION_BLOCKS_MAX, &session->accepted) != DJ_OK)
        return;
    uint8_t *block = map_get(session->accepted, key);
    if (block == NULL) {
        block = calloc(1, BLOCK_BITS / 8);
        if (block == NULL || map_put(session->accepted, key, block) != DJ_OK) {
            free(block);
            return;
        }
    }
    bit_set(block, (uint32_t)(counter % BLOCK_BITS));
}

bool lineage_is_accepted(const struct head_session *session, uint64_t counter)
{
    const uint8_t *block = session->accepted == NULL ? NULL : map_get(session->accepted, map_key(counter / BLOCK_BITS));
    return block != NULL && bit_get(block, (uint32_t)(counter % BLOCK_BITS));
}

void lineage_end(struct head_session *session)
{
    uint32_t cursor = 0;
    void *block;

    while (session->accepted != NULL && (block = map_next(session->accepted, &cursor, NULL)) != NULL)
        free(block);
    map_free(session->accepted);
    handles_free(session->handles);
    free(session);
}

// Inventory ---------------------------------------------------------------------------------------------------------------

enum dj_error lineage_inventory(struct head *head, struct head_worker *worker, const struct wire_inventory *inventory)
{
    struct head_session *session = map_get(head->sessions, map_key(inventory->session));
    struct reader reader = reader_make(inventory->handles, inventory->handles_bytes);
    uint64_t counter = 0;

    for (uint32_t i = 0; i < inventory->count && reader.error == DJ_OK; i++) {
        counter += read_var(&reader);
        struct record_ref ref = {.counter = counter, .output = (uint32_t)read_var_max(&reader, UINT32_MAX)};
        read_var(&reader);    // its bytes
        if (reader.error == DJ_OK && session != NULL)
            put(head, session, ref, worker->incarnation, 0);
    }
    if (reader.error != DJ_OK || reader_left(&reader) > 0)
        return DJ_E_MALFORMED;
    if (session != NULL)
        session_is_held(head, session, worker, inventory->epoch);
    else if (inventory->session != 0)
        session_is_over_at(head, worker, inventory->session, inventory->epoch);
    if (inventory->is_last && !worker->has_inventory) {
        worker->has_inventory = true;
        worker->journal_since = inventory->journal_next;
        settle_worker(head, worker->name);
    }
    return DJ_OK;
}

// A worker that is gone ---------------------------------------------------------------------------------------------------------

void lineage_fence(struct head *head, uint64_t incarnation)
{
    uint32_t cursor = 0, lost_count = 0;
    struct head_session *session;

    while ((session = map_next(head->sessions, &cursor, NULL)) != NULL) {
        struct handle *lost = NULL;
        if (session->handles == NULL)
            continue;
        if (handles_fence(session->handles, incarnation, &lost, &lost_count) != DJ_OK)
            is_full(head, session);
        free(lost);
    }
}

// Recovery ----------------------------------------------------------------------------------------------------------------------

static int ref_order(const void *a, const void *b)
{
    const struct record_ref *x = a, *y = b;
    if (x->counter != y->counter)
        return x->counter < y->counter ? -1 : 1;
    return x->output < y->output ? -1 : x->output > y->output;
}

// Where a session has one place only, what that place no longer names is not needed by anybody. With several, another place of the same
// worker may need it and has not said so yet. How many a session has that an earlier life of the head knew is not known.
static void forget_others(struct head *head, struct head_session *session, const struct record_ref *need, uint32_t count,
                          uint64_t lost)
{
    struct handles_info info;
    uint32_t cursor = 0, n = 0, all = handles_stats(session->handles).handles;
    struct record_ref *other = calloc((size_t)all + 1, sizeof *other);

    while (other != NULL && handles_next(session->handles, &cursor, &info)) {
        struct record_ref ref = {.counter = info.handle.execution.counter, .output = info.handle.output};
        if (info.locations == 0 && bsearch(&ref, need, count, sizeof ref, ref_order) == NULL)
            other[n++] = ref;
    }
    for (uint32_t i = 0; i < n; i++)
        if (handles_release(session->handles, handle_of(session, other[i]), session->id, lost))
            drop(head, session, other[i]);
    free(other);
}

void lineage_needed(struct head *head, struct head_session *session, const struct record_ref *need, uint32_t count,
                    uint64_t target, uint64_t lost)
{
    for (uint32_t i = 0; i < count; i++)
        put(head, session, need[i], 0, target);
    if (lost != 0 && session->grants <= 1 && !session->is_stored && session->handles != NULL)
        forget_others(head, session, need, count, lost);
}

void lineage_absent(struct head_session *session, struct record_ref ref)
{
    uint64_t incarnation[LINEAGE_LOCATIONS_MAX];

    if (session->handles == NULL)
        return;
    uint32_t count = handles_locations(session->handles, handle_of(session, ref), incarnation, LINEAGE_LOCATIONS_MAX);
    for (uint32_t i = 0; i < count && i < LINEAGE_LOCATIONS_MAX; i++)
        handles_remove_location(session->handles, handle_of(session, ref), incarnation[i]);
}

struct lineage_view *lineage_view(struct head *head, const struct head_session *session)
{
    uint32_t all = session->handles == NULL ? 0 : handles_stats(session->handles).handles;
    struct lineage_view *view = calloc(1, sizeof *view + ((size_t)all + 1) * sizeof view->value[0]);
    struct handles_info info;
    uint32_t cursor = 0;
    uint64_t living = 0;    // mostly all are with the same worker

    while (view != NULL && view->values < all && handles_next(session->handles, &cursor, &info)) {
        struct lineage_value *value = &view->value[view->values++];
        uint64_t incarnation[LINEAGE_LOCATIONS_MAX];
        value->ref = (struct record_ref){.counter = info.handle.execution.counter, .output = info.handle.output};
        uint32_t count = info.locations;
        incarnation[0] = info.location;
        if (count > 1)
            count = lineage_locations(session, value->ref, incarnation, LINEAGE_LOCATIONS_MAX);
        for (uint32_t k = 0; k < count; k++)
            if (incarnation[k] == living || worker_living(head, incarnation[k]) != NULL)
                value->location[value->locations++] = living = incarnation[k];
    }
    return view;
}

uint32_t lineage_locations(const struct head_session *session, struct record_ref ref, uint64_t *ret, uint32_t max)
{
    uint32_t count = session->handles == NULL ? 0 : handles_locations(session->handles, handle_of(session, ref), ret, max);
    return count < max ? count : max;
}

void lineage_forget(struct head *head, struct head_session *session)
{
    if (session->handles == NULL)
        return;
    head->handles -= handles_stats(session->handles).handles;
    handles_free(session->handles);
    session->handles = NULL;
}
