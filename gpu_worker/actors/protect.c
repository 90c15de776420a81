// Protect: what values would cost to bring back, and when they are made safe (docs/recovery.md, "Bounded recovery time").
//
// The closure cost of an execution is its own time plus that of what it was built on, as far as that is not safe. Two bounds of it are
// kept, and the smaller one counts: the sum over the producers (exact for chains, too much where paths meet), and all that the session
// ran since the earliest execution that it builds on (exact where everything builds on everything). When the cost passes the session's
// limit, and ten times what writing would take, what the execution keeps is pinned when it is prepared, or when it is done if nothing was
// taken of it meanwhile, and written (cut.c): one consistent cut, after which its cost is 0.

#include "core/base/log.h"
#include "gpu_worker/actors/state.h"

#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 1024, PRODUCERS_MAX = 16, WRITE_COST_FACTOR = 10, CUT_VALUES_MAX = 4096 };
#define WRITE_NS_PER_BYTE ((uint64_t)2)    // 500 MB/s
#define MEMORY_FREE_PART 16                // no checkpoint while less than a 16th of the memory is free

struct entry {    // of one execution that keeps something
    struct list order;
    uint64_t counter, elapsed_ns;
    uint64_t cost_ns;             // closure cost
    uint64_t start_ns, end_ns;    // in the session's time: where the earliest of its unsafe closure began, where it ended
    uint64_t producer[PRODUCERS_MAX];
    uint8_t producers;
    bool is_safe;
};

struct closure {
    struct map *entry;         // by counter
    struct list order;         // by age
    uint64_t total_ns;         // the session's time: of all entries so far
    uint64_t not_before_ns;    // after a checkpoint that failed
};

static bool is_protected(const struct worker *worker, const struct session *session)
{
    return worker->config.head[0] != '\0' && session->recovery != LINEAGE_RECOMPUTE && !session->is_gone;
}

// The table ----------------------------------------------------------------------------------------------------------

static struct closure *closure_of(struct session *session)
{
    if (session->closure != NULL)
        return session->closure;
    struct closure *closure = calloc(1, sizeof *closure);
    if (closure == NULL || map_make(ENTRIES_MAX + 1, &closure->entry) != DJ_OK) {
        free(closure);
        return NULL;
    }
    list_init(&closure->order);
    return session->closure = closure;
}

static void entry_drop(struct closure *closure, struct entry *entry)
{
    map_take(closure->entry, map_key(entry->counter));
    list_remove(&entry->order);
    free(entry);    // NOLINT(clang-analyzer-unix.Malloc): an entry is what was allocated, its list node lies inside
}

static struct entry *entry_make(struct closure *closure, uint64_t counter)
{
    struct entry *entry = map_get(closure->entry, map_key(counter));
    if (entry != NULL) {    // another part of it
        list_remove(&entry->order);
        list_push(&closure->order, &entry->order);
        return entry;
    }
    if (map_count(closure->entry) >= ENTRIES_MAX)
        entry_drop(closure, list_entry(closure->order.next, struct entry, order));
    entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    entry->counter = counter;
    if (map_put(closure->entry, map_key(counter), entry) != DJ_OK) {
        free(entry);
        return NULL;
    }
    list_push(&closure->order, &entry->order);
    return entry;
}

static void add_producer(struct entry *entry, uint64_t counter)
{
    for (uint32_t i = 0; i < entry->producers; i++) {
        if (entry->producer[i] == counter)
            return;
    }
    if (entry->producers < PRODUCERS_MAX && counter != entry->counter)
        entry->producer[entry->producers++] = counter;
}

static void add_producers(struct entry *entry, const struct work *work)
{
    const struct srg_plan *srg = exec_plan_structure(work->plan);
    for (uint32_t i = 0; i < srg->inputs; i++) {
        uint64_t distance;
        uint32_t output;
        if (srg->input[i].is_leaf)
            continue;
        binding_handle(srg, work->word, i, &distance, &output);
        add_producer(entry, work->position.counter - distance);
    }
}

// Reckons start and cost anew; `now_ns` is the session's time before the execution.
static void reckon(const struct closure *closure, struct entry *entry, uint64_t now_ns)
{
    uint64_t sum = 0, start = now_ns;
    for (uint32_t i = 0; i < entry->producers; i++) {
        const struct entry *producer = map_get(closure->entry, map_key(entry->producer[i]));
        if (producer == NULL || producer->is_safe)
            continue;
        if (__builtin_add_overflow(sum, producer->cost_ns, &sum))
            sum = UINT64_MAX / 2;
        if (producer->start_ns < start)
            start = producer->start_ns;
    }
    uint64_t span = now_ns - start;
    entry->start_ns = start;
    entry->cost_ns = (sum < span ? sum : span) + entry->elapsed_ns;
}

void worker_protect_safe(struct session *session, uint64_t counter)
{
    struct closure *closure = session->closure;
    struct entry *safe = closure == NULL ? NULL : map_get(closure->entry, map_key(counter));
    if (safe == NULL)
        return;
    safe->is_safe = true;
    // What was built on it costs less now.
    for (struct list *node = safe->order.next; node != &closure->order; node = node->next) {
        struct entry *entry = list_entry(node, struct entry, order);
        reckon(closure, entry, (entry->end_ns == 0 ? closure->total_ns : entry->end_ns) - entry->elapsed_ns);
    }
}

void worker_protect_failed(struct worker *worker, struct session *session)
{
    if (session->closure != NULL)
        session->closure->not_before_ns = actor_now_ns(worker->self) + WORKER_FETCH_NS / 2;
}

// Cuts ---------------------------------------------------------------------------------------------------------------

static bool is_due(const struct worker *worker, const struct session *session, uint64_t cost_ns)
{
    return cost_ns > session->replay_limit_ns && session->cuts == 0 &&
           actor_now_ns(worker->self) >= session->closure->not_before_ns;
}

static bool is_memory_short(const struct worker *worker, uint64_t bytes)
{
    struct exec_stats stats = exec_stats(worker->exec);
    uint64_t free_bytes = stats.capacity_bytes - stats.used_bytes;
    return free_bytes < bytes || free_bytes < stats.capacity_bytes / MEMORY_FREE_PART;
}

static uint32_t kept_of(const struct work *work)
{
    uint32_t kept = 0;
    for (uint32_t byte = 0; byte < work->kept_bytes; byte++)
        kept += (uint32_t)__builtin_popcount(work->kept[byte]);
    return kept;
}

// Pins all that the execution keeps; NULL when something of it is gone, or writing would cost too much.
static struct cut *cut_of(struct worker *worker, const struct work *work, uint64_t cost_ns)
{
    struct session *session = work->stream->session;
    uint32_t kept = kept_of(work);
    struct cut *cut = kept == 0 || kept > CUT_VALUES_MAX ? NULL : worker_cut_make(session, kept);
    if (cut == NULL)
        return NULL;
    struct handle handle = {.execution = {.session = session->id, .counter = work->position.counter}};
    enum dj_error error = DJ_OK;
    for (uint32_t byte = 0; byte < work->kept_bytes && error == DJ_OK; byte++) {
        for (uint32_t bits = work->kept[byte]; bits != 0 && error == DJ_OK; bits &= bits - 1) {
            handle.output = byte * 8 + (uint32_t)__builtin_ctz(bits);
            error = worker_cut_add(worker, cut, handle);
        }
    }
    uint64_t bytes = error == DJ_OK ? worker_cut_bytes(worker, cut) : 0;
    if (error == DJ_OK && cost_ns / WRITE_COST_FACTOR > bytes * WRITE_NS_PER_BYTE && !is_memory_short(worker, bytes)) {
        worker_cut_of_execution(cut, work->position.counter);
        return cut;
    }
    worker_cut_free(worker, cut);
    return NULL;
}

void worker_protect_prepared(struct worker *worker, struct work *work)
{
    struct session *session = work->stream->session;
    struct closure *closure = is_protected(worker, session) && kept_of(work) > 0 ? closure_of(session) : NULL;
    struct entry *entry = closure == NULL ? NULL : entry_make(closure, work->position.counter);
    if (entry == NULL)
        return;
    entry->is_safe = false;
    entry->end_ns = 0;
    add_producers(entry, work);
    reckon(closure, entry, closure->total_ns);
    // A replay brings back what was there: the next new execution is soon enough.
    if (!work->is_replay && is_due(worker, session, entry->cost_ns))
        work->cut = cut_of(worker, work, entry->cost_ns);
}

void worker_protect_done(struct worker *worker, struct work *work, const struct exec_run *run)
{
    struct session *session = work->stream->session;
    struct closure *closure = session->closure;
    struct entry *entry = closure == NULL ? NULL : map_get(closure->entry, map_key(work->position.counter));
    struct cut *cut = work->cut;
    work->cut = NULL;
    if (entry == NULL || run->error != DJ_OK || session->is_gone) {
        worker_cut_free(worker, cut);
        if (entry != NULL)
            entry_drop(closure, entry);
        return;
    }
    entry->elapsed_ns += run->list.elapsed_ns;
    reckon(closure, entry, closure->total_ns);
    closure->total_ns += run->list.elapsed_ns;
    entry->end_ns = closure->total_ns;
    if (cut == NULL && !work->is_replay && is_due(worker, session, entry->cost_ns))
        cut = cut_of(worker, work, entry->cost_ns);
    if (cut != NULL && session->cuts == 0)
        worker_cut_begin(worker, cut);
    else
        worker_cut_free(worker, cut);
}

// A client asks: in its turn, when all that came before is done.
enum dj_error worker_protect_ask(struct worker *worker, struct work *work, struct fault *fault)
{
    struct session *session = work->stream->session;
    char text[HANDLE_TEXT];
    if (worker->config.head[0] == '\0')
        return fault_set(fault, DJ_E_NO_HEAD, "a checkpoint needs a head, which has the store");
    if (work->releases == 0 || work->releases > CUT_VALUES_MAX)
        return fault_set(fault, DJ_E_LIMIT, "a checkpoint of %u values at one worker; 1 to %d are possible", work->releases,
                         CUT_VALUES_MAX);
    for (uint32_t i = 0; i < work->releases; i++) {
        if (exec_value_state(worker->exec, work->released[i]) == VALUE_COMING)
            return DJ_E_BUSY;
    }
    struct cut *cut = worker_cut_make(session, work->releases);
    if (cut == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    for (uint32_t i = 0; i < work->releases; i++) {
        enum dj_error error = worker_cut_add(worker, cut, work->released[i]);
        if (error == DJ_OK)
            continue;
        worker_cut_free(worker, cut);
        return fault_set(fault, error, "the value %s cannot be made safe: %s", handle_text(work->released[i], text),
                         dj_error_text(error));
    }
    worker_cut_of_request(cut, work->link, work->request);
    worker_cut_begin(worker, cut);
    return DJ_OK;
}

void worker_protect_drop(struct worker *worker, struct session *session)
{
    worker_cuts_session_over(worker, session);
    struct closure *closure = session->closure;
    session->closure = NULL;
    if (closure == NULL)
        return;
    list_each (node, &closure->order)
        entry_drop(closure, list_entry(node, struct entry, order));
    map_free(closure->entry);
    free(closure);
}
