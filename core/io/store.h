// The store port: what the core asks of durable storage. Implemented by store/ (LMDB and blob files, its own thread) and by chaos/sim
// (a map with a log that loses what was not yet durable). A batch commits as a whole or not at all, in the order of submission.

#ifndef CORE_IO_STORE_H
#define CORE_IO_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct blob;

enum { STORE_KEY_MAX = 64 };

// The tables; numbers are on disk: never reused. Keys and values are bytes; who writes them encodes them (core/lineage/record.h).
enum store_table {
    STORE_META = 1,         // "generation", "schema"
    STORE_PLAN = 2,         // fingerprint -> srg.proto bytes
    STORE_ANNOTATION = 3,   // fingerprint -> annotations
    STORE_EXECUTION = 4,    // (session, counter) -> execution or import record
    STORE_SESSION = 5,      // session -> session record
    STORE_LEAF = 6,         // content hash -> the leaf's bytes (as a file above 64 KB)
    STORE_WORKER = 7,       // worker name -> worker record
    STORE_CHECKPOINT = 8,   // (session, counter, output) -> checkpoint record
    STORE_TAG = 9,          // hash of (tenant, name) -> tag record
    STORE_TABLES = 10
};

enum store_verb { STORE_PUT, STORE_PUT_IF_ABSENT, STORE_DELETE, STORE_GET, STORE_SCAN };

struct store_item {
    enum store_verb verb;
    enum store_table table;
    uint8_t key[STORE_KEY_MAX];
    uint32_t key_bytes;
    struct blob *value;                 // PUT*: what to write (held); GET: NULL
    uint64_t value_offset, value_bytes; // PUT*: the part of the blob
    uint32_t scan_max;                  // SCAN: entries wanted, from `key` on (inclusive), in key order
};

// Made by the core (batch_make), which gives it away with the effect and gets it back in the result of IO_STORE_DONE: blobs are counted on
// the core's thread only.
struct store_batch {
    uint32_t items, capacity;
    struct store_item *item;
};

struct store_entry {
    uint32_t item;                      // which item of the batch it answers
    uint8_t key[STORE_KEY_MAX];
    uint32_t key_bytes;
    struct blob *value;                 // held by the result
    uint64_t bytes;                     // of the whole value, also where a scan lists it without reading it (then `value` is empty)
};

struct store_result {                   // freed by the core with result_free
    uint32_t entries, capacity;         // of a STORE_READ batch; none of a commit
    struct store_entry *entry;
    struct store_batch *batch;          // the batch that was asked; freed by result_free
};

// All of these return NULL out of memory. item->value is a hold that the batch owns and batch_free drops; result_add takes the caller's hold
// of `value` in every case. The pointers to items and entries are good until the next add.
struct store_batch *batch_make(void);
struct store_item *batch_add(struct store_batch *batch, enum store_verb verb, enum store_table table, const void *key, size_t key_bytes);
void batch_free(struct store_batch *batch);
struct store_result *result_make(void);
struct store_entry *result_add(struct store_result *result, uint32_t item, const void *key, size_t key_bytes, struct blob *value);
void result_free(struct store_result *result);      // drops the blobs and frees the batch; NULL is allowed

struct store_port {
    void *self;
    void (*commit)(void *self, uint64_t ticket, struct store_batch *batch);     // answered by IO_STORE_DONE once durable
    void (*read)(void *self, uint64_t ticket, struct store_batch *batch);       // answered by IO_STORE_DONE with a result
    void (*stop)(void *self);                                                   // commits what was accepted, then ends
};

#endif
