// State: what the head knows, shared by the files of this folder. One actor owns it; one thread.

#ifndef SCHED_STATE_H
#define SCHED_STATE_H

#include <stdbool.h>

#include "core/base/arena.h"
#include "core/base/list.h"
#include "core/base/map.h"
#include "core/io/blob.h"
#include "core/lineage/handles.h"
#include "core/lineage/record.h"
#include "core/semantic/semantic.h"
#include "core/wire/wire.h"
#include "sched/gather.h"
#include "sched/sched.h"

enum {
    GRANTS_PER_SESSION_MAX = 64,
    GRANT_REQUESTS_MAX = 8,
    REASON_MAX = 200,
    LEAF_HOLDERS_MAX = 16,
    PLAN_RUNS_MAX = 16,
    RECENT_RECOVERIES = 64,
    GONE_REMEMBERED = 64,          // incarnations whose names are still known
    LINEAGE_LOCATIONS_MAX = 4,     // of one value that a recovery looks at
    HEAD_RECOVERIES_MAX = 64,      // planned at a time
    SESSION_HANDLES_MAX = 1 << 20,
    SESSION_LOCATIONS_MAX = 1 << 21,
    SESSION_REFERENCES_MAX = 1 << 21,
    SESSION_INCARNATIONS_MAX = 1 << 14,
    SESSION_BLOCKS_MAX = 1 << 18,  // of counters known as accepted
    HEAD_HANDLES_MAX = 1 << 22,
    HEAD_HELD_MAX = 1 << 14,       // records that wait for what they need
    HEAD_HELD_BYTES_MAX = 64 << 20,
    HEAD_JOURNAL_BYTES_MAX = 512 << 20,    // that wait for the store; who sends more is cut off and comes again
};
#define HEAD_HELD_NS ((uint64_t)600000000000)    // how long a record waits for what it builds on
#define HEAD_CHECK_NS ((uint64_t)250000000)

struct collection;
struct erasure;
struct head_recovery;
struct head_session;
struct head_worker;
struct page;
struct recovery;
struct trim;
struct trim_fresh;
struct explanation;

// One connection.
struct head_link {
    uint64_t link;
    uint8_t role;    // enum wire_role; 0 until HELLO
    struct head_worker *worker;
    struct head_session *session;
    struct map *told_plans;      // by JOURNAL_GET, so that each goes once; NULL: none yet
    uint64_t stuck;              // journal.c: the walk in which a part of it could not be acknowledged
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
    uint32_t sessions;    // with a grant for one of its devices
    struct wire_heartbeat load;
    bool is_suspect;    // silent for longer than its lease when last looked at
    uint64_t challenger;    // another incarnation that wants to join under its name; 0: none
    uint32_t beats_challenged;    // heartbeats since
    bool has_inventory;        // it has told all that it holds
    uint64_t journal_since;    // records below this number are older than its inventory
};

struct head_grant {
    struct head_worker *worker;
    uint64_t incarnation;
    struct hash128 secret;
    uint32_t device_index;
    uint64_t request[GRANT_REQUESTS_MAX];    // that wait for ADMITTED: places of one client may ask for the same device at once
    uint32_t requests;
    bool is_opening;                  // the answer is to SESSION_OPEN
    bool is_restored;                 // from what the worker told after a restart of the head: its device is not known
    uint32_t admitted_epoch;    // that the worker has confirmed last
    uint32_t replica;           // worker that takes its replicas; 0: none
    char reason[REASON_MAX];    // why this worker
};

// What a client's SESSION_OPEN waits for, in this order.
enum opening_stage {
    OPENING_NONE,
    OPENING_SETTLING,      // a session of an earlier life of the head: the workers' inventories
    OPENING_COMMITTING,    // its record is durable
    OPENING_FENCING        // every worker that holds something of it has confirmed the new epoch
};

struct head_session {
    uint64_t id;
    uint32_t epoch;
    uint32_t told_epoch;    // that a client was granted last in this life of the head: it has read all that earlier epochs left; 0: none
    uint64_t link;    // 0: the client is away
    uint64_t away_since_ns;
    char tenant[64], name[64];
    uint32_t grants;
    struct head_grant grant[GRANTS_PER_SESSION_MAX];
    uint64_t watermark, executions;
    uint8_t recovery;    // enum lineage_policy
    bool allows_close;
    bool is_stored;     // read from the store: an earlier life of the head knew it, and who was granted what is not known
    bool is_retired;    // named, and nobody is there: only its records are kept
    bool is_known_full, is_told_unsafe;    // said once in the log
    uint64_t replay_limit_ns, opened_ns, seen_ns;    // the latter wall clock
    struct {
        enum opening_stage stage;
        uint64_t request, since_ns, journalled;
        int64_t device_index;
        bool is_takeover;
    } opening;
    struct handles *handles;    // live values of it; NULL: none yet
    struct map *accepted;       // executions and imports whose records were taken, a bit each, by blocks of counters; NULL: none yet
    uint32_t held;              // records that wait in the journal
    uint64_t records;           // in the store, about: repetitions count twice until the next trim
    uint64_t since_trim;        // records committed since the last trim
    uint32_t recoveries;        // under way
    bool has_checkpoint;        // since the last trim
    bool is_trimming;
    struct trim_fresh *fresh;    // while a trim reads: what was journalled meanwhile
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
    uint64_t moved_ns;                    // when it was last asked for, or some of it arrived
    uint64_t spoken_ns;                   // when somebody last named it
};

enum ticket_kind {
    TICKET_START_READ = 1,
    TICKET_START_COMMIT,
    TICKET_START_SCAN,
    TICKET_JOURNAL,
    TICKET_LEAF,
    TICKET_LEAF_READ,
    TICKET_SIDE,
    TICKET_ANNOTATE,     // a COMPUTE; job: struct annotate_job
    TICKET_SESSION,      // a session's record: number is the session, last its epoch
    TICKET_GATHER,       // job: struct gather
    TICKET_SURVEY,       // a COMPUTE; job: struct gather
    TICKET_RECOVERY,     // a COMPUTE; job: struct head_recovery
    TICKET_EXPLAIN,      // a COMPUTE; job: struct explanation
    TICKET_TRIM,         // a COMPUTE; job: struct trim
    TICKET_TRIM_COMMIT,
    TICKET_ERASE,        // job: struct erasure
    TICKET_PAGE,         // JOURNAL_GET; job: struct page
    TICKET_TAG_PUT,
    TICKET_TAG_GET,
    TICKET_COLLECT,
    TICKET_SOURCE        // journal.c: is an import's source in the store?
};

// What waits for a STORE_DONE or COMPUTE_DONE.
struct head_ticket {
    enum ticket_kind kind;
    uint64_t link, request;
    uint64_t number, last;
    struct hash128 hash;    // leaf or plan
    uint32_t table;         // START_SCAN
    struct blob *body;      // TAG_PUT: the answer
    void *job;
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

// What became durable of one session's records from one sender, to be told as a WATERMARK.
struct journal_mark {
    uint64_t session, incarnation;
    uint64_t *counter;
    uint32_t counters, capacity;
};

// Records on their way into the store: the one that waits takes all that comes while another is written.
struct journal_batch {
    struct store_batch *batch;    // NULL: nothing yet
    uint64_t number;
    uint64_t bytes;
    uint32_t executions;
    struct journal_mark *mark;
    uint32_t marks, capacity;
};

struct head_journal {
    struct journal_batch waiting, writing;
    bool is_writing;
    uint64_t durable;       // number of the last one that is durable
    uint64_t retry_at_ns;    // the store had no room: when to try again; 0: not
    uint64_t retry_after_ns;
    struct list parts;      // messages that are not acknowledged yet, in the order in which they came
    struct list held;       // records that wait for what they need
    uint32_t held_count;
    uint64_t held_bytes, walk;
};

struct recent_recovery {
    uint64_t session, at_ns, took_ns, cost_ns;
    uint32_t replays, restores, fetches, steps, error;
    char lost[64], target[64];
};

struct head_stats {
    uint64_t recoveries, recoveries_failed, replayed, replay_cost_ns;
    uint64_t trims, trimmed, rewritten, erased, leaves_collected, leaf_bytes_collected;
    uint64_t handles_dropped;    // that the table had no room for
    uint64_t records_refused;    // of sessions that their sender has no grant for
};

// A worker that the head remembers from its last life and has not heard of yet.
struct expected_worker {
    char name[64];
    bool is_here;
};

struct gone_worker {
    uint64_t incarnation;
    char name[64];
};

struct head {
    struct actor *self;
    struct head_config config;
    enum head_phase phase;
    uint64_t generation;
    struct arena *arena;    // decoding of one message
    struct map *links, *sessions, *plans, *leaves, *tickets, *transfers;
    struct map *names;      // (tenant, name) -> session
    struct head_worker *worker[HEAD_WORKERS_MAX];
    struct head_worker *device[HEAD_DEVICES_MAX];    // pool numbering: remote_accelerator:N
    uint32_t devices;                                // one past the highest in use
    uint64_t next_session, next_transfer, assembly_bytes;
    uint64_t executions_stored, records_stored;
    uint32_t leaves_stored, sessions_stored;
    uint64_t leaf_bytes_stored;
    uint64_t started_ns, serving_since_ns, checked_ns;
    uint64_t stopping_since_ns, stop_link, stop_request;    // who asked it to stop, once somebody has
    struct record_scratch scratch;
    uint32_t parked_count;
    struct parked parked[HEAD_PARKED_MAX];
    struct head_journal journal;
    bool is_full;       // the store has no room
    bool is_partial;    // a stored session had no room here: which leaves it names is not known, so none is collected
    bool is_settled;    // who was remembered has told what it holds, or is given up
    struct expected_worker *expected;
    uint32_t expecteds, expected_capacity;
    struct gone_worker gone[GONE_REMEMBERED];
    uint64_t gones;
    struct list gathers, recoveries, explanations, erasures, pages, trims;
    uint32_t recoveries_active;
    struct recent_recovery recent[RECENT_RECOVERIES];
    uint64_t recents;
    struct head_stats stats;
    uint64_t handles;    // entries of all sessions' tables
    struct collection *collection;
    uint64_t collected_ns;
};

// head.c
// Closes a link and forgets it, as if it had gone down: no event of it comes any more. Frees its struct head_link.
void head_close(struct head *head, uint64_t link);
void head_finish(struct head *head);                      // tells every link, and exits
void head_check_at(struct head *head, uint64_t at_ns);    // the next look at what time does to things
void head_receive_message(struct head *head, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk);

// send.c
void head_reply_failed(struct head *head, uint64_t link, uint64_t request, enum dj_error error, const char *format, ...)
    DJ_PRINTF(5, 6);
void head_send(struct head *head, uint64_t link, uint16_t message, struct blob *body);
struct head_ticket *head_ticket(struct head *head, uint64_t ticket,
                                enum ticket_kind kind);    // NULL out of memory: the answer is then ignored
// Commits one record; its answer comes with that kind of ticket. TICKET_SIDE: nobody waits for it. NULL out of memory.
struct head_ticket *head_commit_record(struct head *head, const struct record *record, enum store_table table, enum ticket_kind kind);

// start.c: reads the store, commits the generation, then serves.
DJ_MUST_USE enum dj_error start_read(struct head *head);
DJ_MUST_USE enum dj_error start_commit(struct head *head);    // also once more, where the store had no room
DJ_MUST_USE enum dj_error start_done(struct head *head, enum ticket_kind kind, uint32_t table, enum dj_error error,
                                     const struct store_result *result);

// membership.c
void worker_join(struct head *head, struct head_link *link, const struct wire_join *join);
void worker_heard(struct head *head, struct head_worker *worker, const struct wire_heartbeat *beat);
void worker_fence(struct head *head, struct head_worker *worker, const char *why);
void workers_check(struct head *head, uint64_t now_ns);
struct head_worker *worker_find(struct head *head, uint32_t id);
struct head_worker *worker_living(struct head *head, uint64_t incarnation);
uint32_t worker_numerics(const struct head_worker *worker, uint32_t device);    // its class, as records name it
void worker_location(const struct head_worker *worker, struct wire_location *ret);
void worker_unremember(struct head *head, const char *name);
void worker_name(const struct head *head, uint64_t incarnation, char ret[64]);    // also of one that is gone; "": not known

// sessions.c
void session_grant(struct head *head, struct head_session *session, const struct wire_grant_ask *ask, bool is_opening);
void session_grant_ask(struct head *head, struct head_link *link, const struct wire_grant_ask *ask);
void session_admit(struct head *head, struct head_session *session, struct head_grant *grant);
void session_admitted(struct head *head, struct head_worker *worker, const struct wire_admitted *admitted);
void session_away(struct head *head, struct head_session *session);
void session_worker_gone(struct head *head, struct head_worker *worker);
void session_worker_joined(struct head *head);
bool session_is_granted(const struct head_session *session, const struct head_worker *worker);
void session_is_held(struct head *head, struct head_session *session, struct head_worker *worker, uint32_t epoch);
// Its worker tells of what it ran; an earlier life of the head granted that.
void session_was_run(struct head *head, struct head_session *session, struct head_worker *worker);
void session_is_over_at(struct head *head, const struct head_worker *worker, uint64_t session, uint32_t epoch);

// resume.c
uint64_t head_wall_ns(const struct head *head);
void session_open(struct head *head, struct head_link *link, const struct wire_session_open *open);
void session_remember(struct head *head, const struct head_session *session, bool is_over);
void session_unname(struct head *head, const struct head_session *session);
void session_restore(struct head *head, const struct record_session *record);
void session_stored(struct head *head, const struct head_ticket *ticket, enum dj_error error);
void opening_check(struct head *head, struct head_session *session);
void openings_check(struct head *head);
void settle_expect(struct head *head, const struct record_worker *record);
void settle_worker(struct head *head, const char *name);
void settle_check(struct head *head, uint64_t now_ns);

// retire.c
void session_close(struct head *head, struct head_session *session);    // for good
// For good, unless it is named: then its records stay for a while.
void session_leave(struct head *head, struct head_session *session);
void session_closed(struct head *head, struct head_link *link, const struct wire_session_close *close);
void sessions_check(struct head *head, uint64_t now_ns);
void erase_session(struct head *head, uint64_t session);
void erase_done(struct head *head, struct erasure *erasure, enum dj_error error, const struct store_result *result);
void erase_check(struct head *head);
void erase_end(struct head *head);

// placement.c: which device for a session: the one asked for, or by load. NULL with the reason why there is none in `reason`.
struct head_worker *placement_choose(struct head *head, const struct head_session *session, const struct wire_grant_ask *ask,
                                     uint32_t *ret_device, enum dj_error *ret_error, char reason[REASON_MAX]);

// plans.c
struct head_plan *plans_see(struct head *head, struct hash128 fingerprint);    // NULL: the registry is full
void plans_learn(struct head *head, const struct record_plan *record);
void plans_ran(struct head *head, const struct record_execution *record, const struct head_worker *worker);
struct annotate_job;
void plans_annotated(struct head_plan *plan, struct annotate_job *job);    // takes the job; plan: NULL when it is not known any more
void plans_free(struct head_plan *plan);

// journal.c
void journal_init(struct head *head);
void journal_take(struct head *head, struct head_link *link, const struct wire_journal *journal, struct blob *body);
void journal_done(struct head *head, enum dj_error error, struct store_result *result);
void journal_source_read(struct head *head, const struct head_ticket *ticket, enum dj_error error,
                         const struct store_result *result);
void journal_pump(struct head *head);
void journal_release(struct head *head);
void journal_check(struct head *head, uint64_t now_ns);
uint64_t journal_barrier(const struct head *head);    // everything told so far is durable when journal.durable has reached it
void journal_link_down(struct head *head, uint64_t link);
void journal_end(struct head *head);

// lineage.c. is_old: the record is older than the worker's inventory, which knows better what the worker holds
void lineage_ran(struct head *head, struct head_session *session, const struct record_execution *record,
                 const struct head_worker *worker, bool is_old);
void lineage_imported(struct head *head, struct head_session *session, const struct record_import *record,
                      const struct head_worker *worker, bool is_old);
void lineage_released(struct head *head, struct head_session *session, const struct record_release *record,
                      const struct head_worker *worker);
void lineage_accept(struct head_session *session, uint64_t counter);    // its record was taken
bool lineage_is_accepted(const struct head_session *session, uint64_t counter);    // false: not that is known
DJ_MUST_USE enum dj_error lineage_inventory(struct head *head, struct head_worker *worker, const struct wire_inventory *inventory);
void lineage_fence(struct head *head, uint64_t incarnation);
void lineage_needed(struct head *head, struct head_session *session, const struct record_ref *need, uint32_t count, uint64_t target,
                    uint64_t lost);
void lineage_absent(struct head_session *session, struct record_ref ref);
uint32_t lineage_locations(const struct head_session *session, struct record_ref ref, uint64_t *ret, uint32_t max);
void lineage_forget(struct head *head, struct head_session *session);    // its live values
void lineage_end(struct head_session *session);                            // frees a session and what is known of it

// What is known of a session's live values at one moment, for another thread. Freed with free().
struct lineage_value {
    struct record_ref ref;
    uint32_t locations;
    uint64_t location[LINEAGE_LOCATIONS_MAX];
};
struct lineage_view {
    uint32_t values;
    struct lineage_value value[];
};
// Locations of living workers only. NULL out of memory.
struct lineage_view *lineage_view(struct head *head, const struct head_session *session);

// recovery.c
DJ_MUST_USE enum dj_error recovery_asked(struct head *head, struct head_link *link, const struct wire_recover *recover);
void recovery_planned(struct head *head, struct head_recovery *job);
void recoveries_check(struct head *head);    // begins those that may
void recoveries_link_down(struct head *head, uint64_t link);
void recoveries_worker_gone(struct head *head, const struct head_worker *worker);
void recoveries_session_over(struct head *head, uint64_t session);
void recovery_abandon(struct head_recovery *job);    // its computation's answer will not come: the head ends
void recoveries_end(struct head *head);
DJ_MUST_USE enum dj_error recovery_add_view(struct recovery *recovery, const struct lineage_view *view);

// explain.c
void explain_ask(struct head *head, struct head_link *link, const struct wire_ask *ask);
void explained(struct head *head, struct explanation *job);
void explanations_end(struct head *head);

// trim.c
void trim_note(struct head_session *session, uint64_t counter);    // was journalled
void trim_consider(struct head *head, struct head_session *session);
void trim_planned(struct head *head, struct trim *trim);
void trim_committed(struct head *head, struct trim *trim, enum dj_error error);
void trim_forget(struct head_session *session);
void trim_abandon(struct trim *trim);    // as recovery_abandon
void trims_end(struct head *head);

// pages.c
void journal_get(struct head *head, struct head_link *link, const struct wire_journal_get *get);
void page_read(struct head *head, struct page *page, enum dj_error error, struct store_result *result);
void pages_check(struct head *head);
void pages_end(struct head *head);

// tags.c
DJ_MUST_USE enum dj_error tag_put(struct head *head, struct head_link *link, const struct wire_tag_put *put);
void tag_stored(struct head *head, struct head_ticket *ticket, enum dj_error error);
void tag_get(struct head *head, struct head_link *link, const struct wire_tag_get *get);
void tag_read(struct head *head, const struct head_ticket *ticket, enum dj_error error, const struct store_result *result);

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

// collect.c
void collect_check(struct head *head, uint64_t now_ns);
void collect_done(struct head *head, enum dj_error error, const struct store_result *result);
void collect_decoded(struct head *head);
void collect_end(struct head *head);

// stop.c
void stop_begin(struct head *head, const struct head_link *link, uint64_t request);
void stop_check(struct head *head, uint64_t now_ns);

// admin.c
void admin_tell_stopped(struct head *head, uint64_t link, uint64_t request);
void admin_tell(struct head *head, uint64_t link, uint64_t request, const void *data, size_t bytes);
void admin_ask(struct head *head, struct head_link *link, const struct wire_ask *ask);

#endif
