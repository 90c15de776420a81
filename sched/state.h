// State: what the head knows, shared by the files of this folder. One actor owns it; one thread.

#ifndef SCHED_STATE_H
#define SCHED_STATE_H

#include <stdbool.h>

#include "core/base/arena.h"
#include "core/base/list.h"
#include "core/base/map.h"
#include "core/io/blob.h"
#include "core/lineage/record.h"
#include "core/semantic/semantic.h"
#include "core/wire/wire.h"
#include "sched/sched.h"

enum { GRANTS_PER_SESSION_MAX = 64, REASON_MAX = 200, LEAF_HOLDERS_MAX = 16, PLAN_RUNS_MAX = 16 };

struct head_worker;
struct head_session;

// One connection.
struct head_link {
    uint64_t link;
    uint8_t role;    // enum wire_role; 0 until HELLO
    struct head_worker *worker;
    struct head_session *session;
};

struct head_worker {
    uint32_t id;    // slot + 1
    uint64_t link;
    char name[64], address_unix[128], address_tcp[128], host[64];
    uint64_t incarnation;
    uint32_t pid;
    uint32_t devices;
    uint32_t first_device;            // in the pool's numbering
    struct wire_device device[64];    // BYTES(ops) point into ops below
    uint8_t ops[64][64];
    uint64_t last_heard_ns, joined_ns;
    bool is_draining;
    uint32_t sessions;    // with a grant for it
    struct wire_heartbeat load;
    bool is_suspect;    // silent for longer than its lease when last looked at
};

struct head_grant {
    struct head_worker *worker;
    uint64_t incarnation;
    struct hash128 secret;
    uint32_t device_index;
    uint64_t request;    // while waiting for ADMITTED
    char reason[REASON_MAX];    // why this worker
};

struct head_session {
    uint64_t id;
    uint32_t epoch;
    uint64_t link;    // 0: the client is away
    uint64_t away_since_ns;
    char tenant[64], name[64];
    uint32_t grants;
    struct head_grant grant[GRANTS_PER_SESSION_MAX];
    uint64_t watermark, executions;
};

struct plan_run {
    uint32_t worker;
    char worker_name[64];
    uint64_t session, executions;
    char reason[REASON_MAX];
};

struct head_plan {
    struct hash128 fingerprint;
    struct srg_plan *plan;    // NULL: in the store only
    uint32_t nodes, inputs, outputs;
    uint64_t executions, first_seen_ns, last_seen_ns;
    int64_t *word;    // of an execution whose delta stood alone; NULL: none yet
    uint8_t *keep;    // its kept outputs, one bit each
    bool is_annotating;
    struct arena *arena;    // of the annotations; NULL: none yet
    struct srg_annotations annotations;
    char warning[SEMANTIC_WARNING_MAX];
    uint32_t runs;
    struct plan_run run[PLAN_RUNS_MAX];    // the latest, by (worker, session)
};

struct head_leaf {
    struct hash128 content;
    uint64_t bytes;
    bool is_stored;
    uint32_t holders;
    uint32_t holder[LEAF_HOLDERS_MAX];    // worker ids
    struct blob *assembly;                // while it arrives
    uint64_t assembled_bytes;
    uint64_t from_link;
};

enum ticket_kind {
    TICKET_START_READ = 1,
    TICKET_START_COMMIT,
    TICKET_START_SCAN,
    TICKET_JOURNAL,
    TICKET_LEAF,
    TICKET_LEAF_READ,
    TICKET_SIDE,
    TICKET_ANNOTATE
};

// What waits for a STORE_DONE or COMPUTE_DONE.
struct head_ticket {
    enum ticket_kind kind;
    uint64_t link, request;
    uint64_t last;           // JOURNAL: the last record of the batch
    struct hash128 hash;     // leaf or plan
    uint32_t executions;     // JOURNAL: how many of the batch's records are executions
    uint32_t marks;          // JOURNAL: watermarks to raise once durable
    uint64_t incarnation;    // JOURNAL: of the worker whose stream it is
    struct {
        uint64_t session;
        uint32_t executions;
        uint64_t counter;
    } mark[64];
};

// A leaf on its way out of the store: in pieces, each followed by a PING, so that heartbeats never wait behind more than a few of them.
struct head_transfer {
    uint64_t id;
    uint64_t link;
    struct hash128 content;
    struct blob *value;
    uint64_t sent_bytes;
};

enum head_phase { HEAD_STARTING, HEAD_SERVING, HEAD_STOPPING };

struct parked {
    uint64_t link;
    uint16_t message;
    struct blob *body, *bulk;
};

struct head {
    struct actor *self;
    struct head_config config;
    enum head_phase phase;
    uint64_t generation;
    struct arena *arena;    // decoding of one message
    struct map *links, *sessions, *plans, *leaves, *tickets, *transfers;
    struct head_worker *worker[HEAD_WORKERS_MAX];
    struct head_worker *device[HEAD_DEVICES_MAX];    // pool numbering: remote_accelerator:N
    uint32_t devices;                                // one past the highest in use
    uint64_t next_session, next_transfer, assembly_bytes;
    uint64_t executions_stored;
    uint32_t leaves_stored, sessions_stored;
    uint64_t started_ns;
    uint64_t stopping_since_ns, stop_link, stop_request;    // who asked it to stop, once somebody has
    struct record_scratch scratch;
    uint32_t parked_count;
    struct parked parked[HEAD_PARKED_MAX];
};

// head.c
// Closes a link and forgets it, as if it had gone down: no event of it comes any more. Frees its struct head_link.
void head_close(struct head *head, uint64_t link);
void head_finish(struct head *head);                      // tells every link, and exits
void head_check_at(struct head *head, uint64_t at_ns);    // the next look at what time does to things
void head_reply_failed(struct head *head, uint64_t link, uint64_t request, enum dj_error error, const char *format, ...)
    DJ_PRINTF(5, 6);
void head_send(struct head *head, uint64_t link, uint16_t message, struct blob *body);
struct head_ticket *head_ticket(struct head *head, uint64_t ticket,
                                enum ticket_kind kind);    // NULL out of memory: the answer is then ignored
void head_side_commit(struct head *head, const struct record *record, enum store_table table);    // nobody waits for it

// membership.c
void worker_join(struct head *head, struct head_link *link, const struct wire_join *join);
void worker_heard(struct head *head, struct head_worker *worker, const struct wire_heartbeat *beat);
void worker_fence(struct head *head, struct head_worker *worker, const char *why);
void workers_check(struct head *head, uint64_t now_ns);
struct head_worker *worker_find(struct head *head, uint32_t id);

// sessions.c
void session_open(struct head *head, struct head_link *link, const struct wire_session_open *open);
void session_grant_ask(struct head *head, struct head_link *link, const struct wire_grant_ask *ask);
void session_admitted(struct head *head, struct head_worker *worker, const struct wire_admitted *admitted);
void session_away(struct head *head, struct head_session *session);
void session_close(struct head *head, struct head_session *session);
void session_worker_gone(struct head *head, struct head_worker *worker);
void sessions_check(struct head *head, uint64_t now_ns);

// placement.c: which device for a session: the one asked for, or by load. NULL with the reason why there is none in `reason`.
struct head_worker *placement_choose(struct head *head, const struct head_session *session, int64_t device_index,
                                     uint32_t *ret_device, enum dj_error *ret_error, char reason[REASON_MAX]);

// plans.c
struct head_plan *plans_see(struct head *head, struct hash128 fingerprint);    // NULL: the registry is full
void plans_learn(struct head *head, const struct record_plan *record);
void plans_ran(struct head *head, const struct record_execution *record, const struct head_worker *worker);
void plans_annotated(struct head *head, struct head_plan *plan, void *result);
void plans_forget(struct head_plan *plan);

// journal.c
void journal_take(struct head *head, struct head_link *link, const struct wire_journal *journal);
void journal_done(struct head *head, struct head_ticket *ticket, enum dj_error error);

// leaves.c
void leaf_offered(struct head *head, struct head_link *link, const struct wire_leaf_offer *offer);
void leaf_data(struct head *head, struct head_link *link, const struct wire_leaf_data *data, struct blob *bulk);
void leaf_stored(struct head *head, struct head_ticket *ticket, enum dj_error error);
void leaf_get(struct head *head, struct head_link *link, const struct wire_leaf_get *get);
void leaf_read_done(struct head *head, struct head_ticket *ticket, enum dj_error error, struct store_result *result);
void leaf_continue(struct head *head, const struct head_link *link, uint64_t transfer);
void leaf_holds(struct head *head, struct head_worker *worker, const struct wire_holds *holds);
void leaf_locate(struct head *head, struct head_link *link, const struct wire_locate *locate);
void leaves_worker_gone(struct head *head, const struct head_worker *worker);
struct head_leaf *leaf_see(struct head *head, struct hash128 content, uint64_t bytes);    // NULL: the table is full
void leaves_link_down(struct head *head, uint64_t link);

// stop.c
void stop_begin(struct head *head, const struct head_link *link, uint64_t request);
void stop_check(struct head *head, uint64_t now_ns);

// admin.c
void admin_tell_stopped(struct head *head, uint64_t link, uint64_t request);
void admin_ask(struct head *head, struct head_link *link, const struct wire_ask *ask);

#endif
