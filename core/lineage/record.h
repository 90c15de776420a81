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
enum record_kind { RECORD_PLAN = 1, RECORD_EXECUTION = 2, RECORD_LEAF = 3, RECORD_SESSION = 4, RECORD_WORKER = 5 };

enum {
    RECORD_TEXT_MAX = 128,             // names and addresses, with the NUL
    RECORD_ANSWERS_MAX = 64,           // small answers in one execution record
    RECORD_ANSWER_BYTES_MAX = 1024,    // all of them together; larger ones are blobs
    RECORD_PRODUCERS_MAX = 256,        // a record that lists so many may lack some: who needs all decodes the bindings
    RECORD_DELTA_BYTES_MAX = 10 * PLAN_WORDS_MAX,
    RECORD_BITS_MAX = 1 << 18,    // flat outputs (and so inputs) of a plan
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
    const uint8_t *delta;    // bindings_encode
    uint32_t delta_length;
    struct record_bits keep;                    // flat outputs that became handles
    struct record_bits donate;                  // inputs whose memory the execution took
    uint32_t numerics;                          // numerics class
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

struct record_session {
    uint64_t session;
    uint32_t epoch;
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
    };
};

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
size_t record_key_execution(struct exec_id id, uint8_t key[RECORD_KEY_MAX]);        // 20
size_t record_key_leaf(struct hash128 content, uint8_t key[RECORD_KEY_MAX]);        // 16
size_t record_key_session(uint64_t session, uint8_t key[RECORD_KEY_MAX]);           // 8
size_t record_key_worker(const char *name, uint8_t key[RECORD_KEY_MAX]);            // the name's bytes, cut at RECORD_KEY_MAX
size_t record_key(const struct record *record, uint8_t key[RECORD_KEY_MAX]);
bool record_key_parse_execution(const uint8_t *key, size_t length, struct exec_id *ret);
bool record_key_parse_hash(const uint8_t *key, size_t length, struct hash128 *ret);
bool record_key_parse_session(const uint8_t *key, size_t length, uint64_t *ret);

#endif
