// Records: lineage as it travels in JOURNAL messages and lies in the store (core/io/store.h): which plans exist, which executions ran
// with which bindings, which leaves, sessions and workers there are. One record is its kind, then its fields (core/base/codec.h).
//
// Pointers of a decoded record point into what was decoded, which must outlive them.

#ifndef CORE_LINEAGE_RECORD_H
#define CORE_LINEAGE_RECORD_H

#include <stdint.h>

#include "core/base/codec.h"
#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/lineage/handle.h"
#include "core/ops/tensor.h"
#include "core/srg/plan.h"

// Numbers cross the wire and the disk: never reused.
enum record_kind {
    RECORD_PLAN = 1,
    RECORD_EXECUTION = 2,
    RECORD_LEAF = 3,
    RECORD_SESSION = 4,
    RECORD_WORKER = 5,
    RECORD_IMPORT = 6,
    RECORD_RELEASE = 7,
    RECORD_CHECKPOINT = 8,
    RECORD_TAG = 9
};

// How a session's values are protected (docs/recovery.md). Numbers cross wires and disks.
enum lineage_policy { LINEAGE_CHECKPOINT = 0, LINEAGE_REPLICATE = 1, LINEAGE_RECOMPUTE = 2, LINEAGE_POLICIES = 3 };
#define LINEAGE_REPLAY_LIMIT_NS ((uint64_t)1000000000)    // the default

enum {
    RECORD_TEXT_MAX = 128,             // names and addresses, with the NUL
    RECORD_ANSWERS_MAX = 64,           // small answers in one execution record
    RECORD_ANSWER_BYTES_MAX = 1024,    // all of them together; larger ones are blobs
    RECORD_PRODUCERS_MAX = 256,        // a record that lists so many may lack some: who needs all decodes the bindings
    RECORD_DELTA_BYTES_MAX = 10 * PLAN_WORDS_MAX,
    RECORD_BITS_MAX = 1 << 18,    // flat outputs (and so inputs) of a plan
    RECORD_GONE_MAX = 1 << 18,    // handles that one record ends
    RECORD_GONE_BYTES_MAX = 1 << 20,
    RECORD_PIECES_MAX = OP_INPUTS_MAX,    // of one checkpointed value: one CAT puts them together
    RECORD_TAG_ENTRIES_MAX = 1 << 13,
    RECORD_CHAIN_MAX = 512,       // executions of a plan in a stream until one stands alone
    RECORD_BYTES_MAX = PLAN_BYTES_MAX + 4096,
};

struct record_plan {
    struct hash128 fingerprint;
    const uint8_t *bytes;    // srg.proto
    size_t length;
};

// A set of small numbers (outputs kept, inputs donated) as a bitmap. Written as gaps or as bits, whichever is shorter.
struct record_bits {
    const uint8_t *bits;    // NULL when bytes is 0
    uint32_t bytes;
};

// Handles of a session by (counter, output), written by the distance from an execution's counter and the gaps between outputs: a few bytes
// for the caches of a step.
struct record_ref {
    uint64_t counter;
    uint32_t output;
};
// Sorts `ref` and appends it; every counter is below `from`.
void record_refs_write(struct writer *writer, uint64_t from, struct record_ref *ref, uint32_t count);
struct record_refs {    // a cursor
    struct reader reader;
    uint64_t from, counter;
    uint32_t left, next;
};
struct record_refs record_refs_open(const uint8_t *bytes, uint32_t length, uint64_t from);
bool record_refs_next(struct record_refs *refs, struct record_ref *ret);    // false at the end, or malformed: refs->reader.error

struct record_answer {
    uint32_t output;
    uint32_t length;
    const uint8_t *bytes;
};

struct record_execution {
    struct exec_id id;
    struct hash128 plan;
    uint64_t base;           // counter of the execution whose binding vector comes before this one in the delta's history;
                             // 0: the delta stands alone
    uint64_t before;         // and of the one before that; 0: the history had only one. So a vector is found by counters alone, whoever
                             // journalled the records of base and before (a vector is the same for an id, a chain is not)
    const uint8_t *delta;    // bindings_encode
    uint32_t delta_length;
    uint32_t check;          // record_words_check of the words that the delta gives: a chain decoded wrongly is noticed
    struct record_bits keep;                    // flat outputs that became handles
    struct record_bits donate;                  // inputs whose memory the execution took
    const uint8_t *gone;                        // record_refs_write: handles that ended with it (donated or released), ...
    uint32_t gone_bytes;                        // ... from id.counter
    uint32_t numerics;                          // numerics class
    uint64_t cost_ns;                           // time on the device
    uint32_t attempt;                           // 0: the first
    uint32_t producers;                         // distinct earlier executions of the session that made its handle inputs ...
    uint64_t producer[RECORD_PRODUCERS_MAX];    // ... by their counters, ascending
    uint32_t answers;
    struct record_answer answer[RECORD_ANSWERS_MAX];
};

struct record_leaf {
    struct hash128 content;
    struct tensor_meta meta;    // as first seen
    uint64_t length;
};

// A value under a new name: it came to another place.
struct record_import {
    struct exec_id id;
    uint32_t output;
    struct record_ref source;    // of the same session
    uint64_t bytes;
};

// Handles that ended outside of any execution, or (`is_lost`) that a worker has no more: an execution that failed took them, and whoever runs
// it again needs them.
struct record_release {
    uint64_t session;
    uint64_t from;    // above every counter in it
    bool is_lost;
    const uint8_t *gone;
    uint32_t gone_bytes;
};

// A value whose bytes are leaves: its pieces along `dim`, in order, each contiguous. Rank 0 or one piece: dim 0.
struct record_piece {
    struct hash128 content;
    int64_t rows;    // along dim
    uint64_t bytes;
};
struct record_checkpoint {
    struct handle handle;
    struct tensor_meta meta;    // contiguous
    uint32_t dim;
    bool is_replica;    // the pieces are with other workers, not in the store
    uint32_t pieces;
    const uint8_t *piece;    // record_piece_read, one after the other
    uint32_t piece_bytes;
};
void record_piece_write(struct writer *writer, const struct record_piece *piece);
struct record_piece record_piece_read(struct reader *reader);

// A named checkpoint of a tenant: RECORD_CHECKPOINT records, one after the other.
struct record_tag {
    char tenant[RECORD_TEXT_MAX], name[RECORD_TEXT_MAX];
    uint64_t made_ns;    // wall clock
    uint32_t entries;
    const uint8_t *entry;
    uint32_t entry_bytes;
};

struct record_session {
    uint64_t session;
    uint32_t epoch;
    uint8_t recovery;    // enum lineage_policy
    bool allows_close;
    bool is_over;    // closed for good: nothing of it can be asked for
    uint64_t replay_limit_ns;
    uint64_t watermark;             // the last execution acknowledged
    uint64_t opened_ns, seen_ns;    // wall clock
    char client[RECORD_TEXT_MAX], tenant[RECORD_TEXT_MAX], worker[RECORD_TEXT_MAX];
};

struct record_worker {
    uint64_t incarnation;
    uint64_t generation;    // of the head that it last joined
    uint64_t memory_bytes;
    uint64_t seen_ns;    // wall clock
    uint32_t devices, numerics;
    char name[RECORD_TEXT_MAX], address[RECORD_TEXT_MAX], backend[RECORD_TEXT_MAX];
};

struct record {
    enum record_kind kind;
    union {
        struct record_plan plan;
        struct record_execution execution;
        struct record_leaf leaf;
        struct record_session session;
        struct record_worker worker;
        struct record_import import;
        struct record_release release;
        struct record_checkpoint checkpoint;
        struct record_tag tag;
    };
};

// Adds an execution that made an input, in order, each once; beyond RECORD_PRODUCERS_MAX those that do not fit are left out.
void record_add_producer(struct record_execution *execution, uint64_t counter);
// The number of a numerics class, by the text that a device gives for it.
uint32_t record_numerics(const char *text);
uint32_t record_words_check(const int64_t *word, uint32_t words);

// The parts of records that recovery steps are written of too. record_bits_read reads into `to` (RECORD_BITS_MAX / 8 bytes), of which the
// first *used hold what was read last. record_meta_read refuses what tensor_check refuses.
void record_bits_write(struct writer *writer, const struct record_bits *bits);
struct record_bits record_bits_read(struct reader *reader, uint8_t *to, uint32_t *used);
void record_meta_write(struct writer *writer, const struct tensor_meta *meta);
void record_meta_read(struct reader *reader, struct tensor_meta *ret);
// Whether `count` pieces in `bytes`, side by side along `dim`, make a value of that (contiguous) shape.
bool record_pieces_fit(const struct tensor_meta *meta, uint32_t dim, uint32_t count, const uint8_t *bytes, uint32_t length);

// Appends a record. A caller that passes more than the bounds above meets an assertion.
void record_write(struct writer *writer, const struct record *record);

// Where decoded bitmaps are put: they are written compactly, so they cannot point into the input. One scratch serves one record at a
// time: reading the next overwrites it.
struct record_scratch {
    uint8_t *keep, *donate;               // RECORD_BITS_MAX / 8 bytes each
    uint32_t keep_bytes, donate_bytes;    // how much of them was written last
};
DJ_MUST_USE enum dj_error record_scratch_make(struct record_scratch *ret);
void record_scratch_free(struct record_scratch *scratch);

// Reads the next record. DJ_E_FRAME_TRUNCATED, DJ_E_MALFORMED; on failure *ret holds nothing.
DJ_MUST_USE enum dj_error record_read(struct reader *reader, struct record_scratch *scratch, struct record *ret);

// Keys in the store: big-endian, so that their order is that of the numbers. Returns the key's length.
enum { RECORD_KEY_MAX = 64 };
size_t record_key_plan(struct hash128 fingerprint, uint8_t key[RECORD_KEY_MAX]);    // 16
size_t record_key_execution(struct exec_id id, uint8_t key[RECORD_KEY_MAX]);        // 16; imports likewise
size_t record_key_leaf(struct hash128 content, uint8_t key[RECORD_KEY_MAX]);        // 16
size_t record_key_session(uint64_t session, uint8_t key[RECORD_KEY_MAX]);           // 8
size_t record_key_worker(const char *name, uint8_t key[RECORD_KEY_MAX]);            // the name's bytes, cut at RECORD_KEY_MAX
size_t record_key_handle(struct handle handle, uint8_t key[RECORD_KEY_MAX]);        // 20: checkpoints
size_t record_key_tag(const char *tenant, const char *name, uint8_t key[RECORD_KEY_MAX]);    // 16: a hash of both
// RECORD_RELEASE has none: it is not stored.
size_t record_key(const struct record *record, uint8_t key[RECORD_KEY_MAX]);
bool record_key_parse_execution(const uint8_t *key, size_t length, struct exec_id *ret);
bool record_key_parse_handle(const uint8_t *key, size_t length, struct handle *ret);
bool record_key_parse_hash(const uint8_t *key, size_t length, struct hash128 *ret);
bool record_key_parse_session(const uint8_t *key, size_t length, uint64_t *ret);

#endif
