// Ledger: what the head's store was ever given, told by the disk itself, and what anybody said of an execution. It knows what must hold for
// everything durable, however it came there:
//
//   one record per id     whoever journals an execution says the same of it: plan, bindings, what was kept and donated
//   one value per id      whoever answers an output, in whatever life, gives the same bytes
//   causal closure        at the end of every batch a stored execution's plan and producers have been stored, imports' sources too
//   durable pieces        a checkpoint that is stored has its pieces in the store

#ifndef CHAOS_SIM_LEDGER_H
#define CHAOS_SIM_LEDGER_H

#include "chaos/sim/sim.h"
#include "core/lineage/record.h"

// What is known of one execution or import.
struct fact {
    struct exec_id id;
    uint64_t content;        // hash of what its record says; 0: nobody has said yet
    bool was_stored;         // at some time
    bool is_stored;          // now
    bool has_names;          // its outputs went under other numbers once: answers are not compared by flat output
    const void *sender;      // who journalled it last ...
    uint64_t number;         // ... under which number
    const void *answerer;    // who answered it last
};

struct ledger;

struct ledger *ledger_make(struct sim *sim, uint32_t head_node);    // aborts out of memory; listens to the store (sim_on_store)
void ledger_free(struct ledger *ledger);

struct fact *ledger_fact(struct ledger *ledger, struct exec_id id);    // made at the first mention; good until ledger_free
// Somebody says this record (of an execution or import). NULL for other kinds.
struct fact *ledger_said(struct ledger *ledger, const char *who, const struct record *record);
void ledger_answered(struct ledger *ledger, const char *who, const struct fact *fact, uint32_t output, const void *bytes, size_t length);
// A session that is over keeps nothing: what is acknowledged of it may be gone.
void ledger_session_over(struct ledger *ledger, uint64_t session);
bool ledger_is_over(const struct ledger *ledger, uint64_t session);
// Of an epoch before the session's durable one: what a worker tells of it after the takeover is acknowledged and left out, since who resumed
// the session has read all that there was.
bool ledger_is_late(const struct ledger *ledger, struct exec_id id);
struct record_scratch *ledger_scratch(struct ledger *ledger);

struct ledger_totals {
    uint64_t stored, deleted, checkpoints, sessions;
};
struct ledger_totals ledger_totals(const struct ledger *ledger);

#endif
