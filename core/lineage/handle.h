// Handles: the names of values. A handle names one value for ever: (execution, flat output). The asker names it, so that submissions
// pipeline without waiting for anybody.

#ifndef CORE_LINEAGE_HANDLE_H
#define CORE_LINEAGE_HANDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/codec.h"
#include "core/base/hash.h"

struct exec_id {
    uint64_t session;    // given by the head
    uint64_t counter;    // by the client: (epoch - 1) << EPOCH_SHIFT | number from 1 on, so that two lives of a client name nothing
                         // alike; a number of 0 names no execution
};

// An epoch counts who may speak for a session. It fences; it is no part of a value's name but for keeping numbers apart.
enum { EPOCH_SHIFT = 40, EPOCHS_MAX = 1 << 24 };
static inline uint64_t exec_counter(uint32_t epoch, uint64_t number)
{
    return (uint64_t)(epoch - 1) << EPOCH_SHIFT | number;
}
static inline uint32_t exec_epoch(uint64_t counter)
{
    return (uint32_t)(counter >> EPOCH_SHIFT) + 1;
}
static inline uint64_t exec_number(uint64_t counter)
{
    return counter & (((uint64_t)1 << EPOCH_SHIFT) - 1);
}

struct handle {
    struct exec_id execution;
    uint32_t output;    // flat output of the execution's plan
};

static inline bool exec_id_equal(struct exec_id a, struct exec_id b)
{
    return a.session == b.session && a.counter == b.counter;
}

static inline bool handle_equal(struct handle a, struct handle b)
{
    return a.output == b.output && exec_id_equal(a.execution, b.execution);
}

// Keys for core/base/map.h. The counter stays as it is; the rest is mixed into the other half.
struct hash128 exec_id_key(struct exec_id id);
struct hash128 handle_key(struct handle handle);

// "17.1.42" (session.epoch.number) and "17.1.42:3" (output 3). Parsing takes exactly that form.
enum { EXEC_ID_TEXT = 56, HANDLE_TEXT = 68 };
const char *exec_id_text(struct exec_id id, char text[EXEC_ID_TEXT]);
const char *handle_text(struct handle handle, char text[HANDLE_TEXT]);
bool exec_id_parse(const char *text, struct exec_id *ret);
bool handle_parse(const char *text, struct handle *ret);

// On wires and in records: varints.
void exec_id_write(struct writer *writer, struct exec_id id);
struct exec_id exec_id_read(struct reader *reader);
void handle_write(struct writer *writer, struct handle handle);
struct handle handle_read(struct reader *reader);

#endif
