// Values and executions: reference counts, without recursion. The rules of ownership are in graph.h.

#include "frontend/client/recorder/graph.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/io/blob.h"

struct value *value_make(struct recorder *recorder, enum value_kind kind, const struct tensor_meta *meta)
{
    struct value *value = pool_take(recorder->values);
    if (value == NULL)
        return NULL;
    value->refs = 1;
    value->kind = (uint8_t)kind;
    value->meta = *meta;
    return value;
}

static void release_handle(struct recorder *recorder, const struct exec *exec, uint32_t output)
{
    if (exec->fault != NULL)
        return;
    struct place_entry *place = place_entry(recorder, exec->place);
    if (place == NULL || place->fault != NULL)
        return;
    if (place->released_count == place->released_capacity) {
        uint32_t capacity = place->released_capacity == 0 ? 64 : 2 * place->released_capacity;
        struct released *grown = realloc(place->released, capacity * sizeof *grown);
        if (grown == NULL)
            return;    // the worker keeps it until the session ends
        place->released = grown;
        place->released_capacity = capacity;
    }
    place->released[place->released_count++] = (struct released){.counter = exec->counter, .output = output};
    if (place->released_count >= RECORDER_RELEASED_MAX) {
        recorder->port.release(recorder->port.self, exec->place, place->released, place->released_count);
        place->released_count = 0;
    }
}

void value_uncount(struct recorder *recorder, struct value *value)
{
    if (!value->is_counted)
        return;
    value->is_counted = false;
    recorder->stats.handles_live--;
    list_remove(&value->live);
}

// What a value that nobody needs any more leaves behind; returns values that lost their last reference by it in front of `dead`.
static void value_end(struct recorder *recorder, struct value *value)
{
    assert(value->roots == 0 && value->view == NULL);
    if (value->kind == VALUE_PENDING) {
        struct node *node = value->node;
        node->out[value->output] = NULL;
        if (--node->live == 0 && !node->is_submitted) {
            node->is_dead = true;
            node->is_needed = false;    // during a flush: what needed it has failed
        }
    } else if (value->kind == VALUE_HANDLE) {
        value_uncount(recorder, value);
        if (!value->is_donated)
            release_handle(recorder, value->exec, value->flat);
        if (value->twin != NULL)
            release_handle(recorder, value->twin, 0);
    }
    blob_drop(value->answer);
    leaf_drop(value->leaf);
}

void value_drop(struct recorder *recorder, struct value *value)
{
    if (value == NULL)
        return;
    assert(value->refs > 0);
    if (--value->refs > 0)
        return;
    // A chain of a million dead nodes is one loop, not a million frames.
    value->next_dead = NULL;
    for (struct value *dead = value; dead != NULL;) {
        struct value *next = dead->next_dead;
        value_end(recorder, dead);
        if (dead->kind == VALUE_PENDING && dead->node->is_dead) {
            struct node *node = dead->node;
            recorder->stats.ops_dropped++;
            for (uint32_t i = 0; i < node->n_in; i++) {
                struct value *in = node->in[i].value;
                if (in != NULL && --in->refs == 0) {
                    in->next_dead = next;
                    next = in;
                }
            }
            node->n_in = 0;
        }
        struct exec *exec = dead->kind == VALUE_HANDLE ? dead->exec : NULL, *twin = dead->twin;
        pool_give(recorder->values, dead);
        submitted_drop(recorder, twin);
        submitted_drop(recorder, exec);
        dead = next;
    }
}

void value_unroot(struct recorder *recorder, struct value *value)
{
    if (value == NULL)
        return;
    assert(value->roots > 0);
    value->roots--;
    value_drop(recorder, value);
}

const struct dj_fault *value_fault(const struct recorder *recorder, const struct value *value)
{
    if (value->kind != VALUE_HANDLE)
        return NULL;
    const struct exec *exec = value->exec;
    if (exec->fault != NULL)
        return exec->fault;
    return exec->place < recorder->places ? recorder->place[exec->place].fault : NULL;
}

bool value_revive(struct recorder *recorder, struct value *value)
{
    uint64_t bytes = (uint64_t)tensor_bytes(&value->meta);
    struct leaf *leaf;
    // An answer is row-major; a leaf has the layout of its value.
    if (value->kind != VALUE_HANDLE || value->answer == NULL || bytes == 0 || !tensor_is_contiguous(&value->meta) ||
        leaf_of(recorder->leaves, value->answer->data + value->answer_offset, bytes, &leaf) != DJ_OK)
        return false;
    value_uncount(recorder, value);
    if (!value->is_donated)
        release_handle(recorder, value->exec, value->flat);
    if (value->twin != NULL)
        release_handle(recorder, value->twin, 0);
    submitted_drop(recorder, value->twin);
    submitted_drop(recorder, value->exec);
    value->twin = value->exec = NULL;
    value->leaf = leaf;
    value->kind = VALUE_LEAF;
    return true;
}

void value_fail(struct recorder *recorder, struct value *value, struct exec *cause)
{
    assert(value->kind == VALUE_PENDING);
    (void)recorder;
    value->node->out[value->output] = NULL;
    value->node->live--;
    value->node = NULL;
    value->kind = VALUE_HANDLE;
    value->is_donated = true;    // nothing to release
    value->exec = cause;
    cause->holders++;
}

struct exec *submitted_make(struct recorder *recorder, uint32_t place, uint64_t counter)
{
    struct exec *exec = pool_take(recorder->execs);
    if (exec == NULL)
        return NULL;
    exec->holders = 1;
    exec->place = place;
    exec->counter = counter;
    return exec;
}

void submitted_drop(struct recorder *recorder, struct exec *exec)
{
    if (exec == NULL)
        return;
    assert(exec->holders > 0);
    if (--exec->holders > 0)
        return;
    assert(exec->asked_count == 0 && exec->source == NULL);
    plan_drop(exec->plan);
    free(exec->site);
    free(exec->asked);
    free(exec->fault);
    pool_give(recorder->execs, exec);
}

struct place_entry *place_entry(struct recorder *recorder, uint32_t place)
{
    if (place >= recorder->places) {
        if (place >= RECORDER_PLACES_MAX)
            return NULL;
        uint32_t count = place + 8;
        struct place_entry *grown = realloc(recorder->place, count * sizeof *grown);
        if (grown == NULL)
            return NULL;
        for (uint32_t i = recorder->places; i < count; i++)
            grown[i] = (struct place_entry){0};
        recorder->place = grown;
        recorder->places = count;
    }
    return &recorder->place[place];
}
