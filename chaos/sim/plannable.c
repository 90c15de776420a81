// Plannable: the manual is plannable.h.

#include "chaos/sim/plannable.h"

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/lineage/recovery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static bool nobody_has_it(void *context, struct hash128 content)
{
    (void)context, (void)content;
    return false;
}

static bool is_of(const struct store_entry *entry, enum store_table table, uint64_t session)
{
    struct exec_id id;
    struct handle handle;
    if (table == STORE_EXECUTION)
        return record_key_parse_execution(entry->key, entry->key_bytes, &id) && id.session == session;
    return record_key_parse_handle(entry->key, entry->key_bytes, &handle) && handle.execution.session == session;
}

static enum dj_error add_all(const struct sim *sim, uint32_t head_node, uint64_t session, struct recovery *recovery)
{
    static const enum store_table tables[] = {STORE_PLAN, STORE_EXECUTION, STORE_CHECKPOINT};
    enum dj_error error = DJ_OK;
    for (uint32_t t = 0; t < 3; t++) {
        uint32_t count = sim_store_count(sim, head_node, tables[t]);
        for (uint32_t i = 0; i < count && error == DJ_OK; i++) {
            const struct store_entry *entry = sim_store_at(sim, head_node, tables[t], i);
            if (tables[t] == STORE_PLAN || is_of(entry, tables[t], session))
                error = recovery_add(recovery, entry->value->data, entry->value->bytes);
        }
    }
    return error;
}

static bool is_durable(struct ledger *ledger, uint64_t session, struct record_ref handle)
{
    return ledger_fact(ledger, (struct exec_id){.session = session, .counter = handle.counter})->was_stored;
}

bool plannable(struct sim *sim, struct ledger *ledger, uint32_t head_node, uint64_t session, const struct record_ref *needed,
               uint32_t count, char text[SIM_TEXT_MAX])
{
    struct recovery *recovery;
    struct recovery_sum sum;
    struct fault fault = {0};
    enum dj_error error = recovery_make(session, &recovery);
    assert(error == DJ_OK);
    error = add_all(sim, head_node, session, recovery);
    for (uint32_t i = 0; i < count && error == DJ_OK; i++)
        if (is_durable(ledger, session, needed[i]))
            error = recovery_need(recovery, needed[i]);
    if (error == DJ_OK)
        error = recovery_plan(recovery, &(struct recovery_options){.target = 1, .allows_close = true}, nobody_has_it, NULL, &sum,
                              &fault);
    recovery_free(recovery);
    if (error != DJ_OK)
        snprintf(text, SIM_TEXT_MAX, "session %" PRIu64 ": %s (%.300s)", session, dj_error_name(error), fault.text);
    return error == DJ_OK;
}
