// Invariants: claims about what lies in the head's store. The manual is cluster.h.

#include "chaos/sim/cluster.h"

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/lineage/record.h"

#include <inttypes.h>
#include <stdio.h>

static bool has_producer(struct sim *sim, const struct closure *closure, struct exec_id id)
{
    uint8_t key[RECORD_KEY_MAX];
    if (sim_store_get(sim, closure->head_node, STORE_EXECUTION, key, record_key_execution(id, key)) != NULL)
        return true;
    // A value that came from another worker counts as an execution of its own, which nobody journals: its origin is stored by that worker.
    return closure->is_import(closure->context, id.session, id.counter);
}

static bool is_closed(struct sim *sim, const struct closure *closure, const struct store_entry *entry, char *text)
{
    struct reader reader = reader_make(entry->value->data, entry->value->bytes);
    struct record record;
    uint8_t key[RECORD_KEY_MAX];
    if (record_read(&reader, closure->scratch, &record) != DJ_OK || record.kind != RECORD_EXECUTION) {
        snprintf(text, SIM_TEXT_MAX, "an execution in the store cannot be read");
        return false;
    }
    const struct record_execution *execution = &record.execution;
    if (sim_store_get(sim, closure->head_node, STORE_PLAN, key, record_key_plan(execution->plan, key)) == NULL) {
        snprintf(text, SIM_TEXT_MAX, "execution %" PRIu64 " of session %" PRIu64 " is stored, its plan is not",
                 execution->id.counter, execution->id.session);
        return false;
    }
    for (uint32_t i = 0; i < execution->producers; i++) {
        struct exec_id id = execution->id;
        id.counter = execution->producer[i];
        if (has_producer(sim, closure, id))
            continue;
        snprintf(text, SIM_TEXT_MAX, "execution %" PRIu64 " of session %" PRIu64 " is stored, its producer %" PRIu64 " is not",
                 execution->id.counter, execution->id.session, id.counter);
        return false;
    }
    return true;
}

// Looks at everything again only when something was added: entries are never taken away, so what held holds.
bool closure_holds(struct sim *sim, void *context, char *text)
{
    struct closure *closure = context;
    uint32_t count = sim_store_count(sim, closure->head_node, STORE_EXECUTION);
    for (uint32_t i = 0; count != closure->checked && i < count; i++)
        if (!is_closed(sim, closure, sim_store_at(sim, closure->head_node, STORE_EXECUTION, i), text))
            return false;
    closure->checked = count;
    return true;
}
