// Flush: from recorded nodes to submissions.
//
//   1. mark      backwards: a node is needed if a cell or a reader holds an output, or a needed node reads one; the others are dropped
//   2. poison    forwards: what reads a lost value fails with the same words and is not submitted
//   3. segments  forwards: runs of nodes of one place; values that cross are kept
//   4. submit    per segment: plan, words, masks (segment.c); what was kept becomes a handle
// Every pass is linear over arrays with epoch marks; nothing is hashed but by the plan builder.

#include "frontend/client/recorder/flush.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"

bool recorder_is_full(const struct recorder *recorder)
{
    return recorder->nodes >= (recorder->is_capturing ? RECORDER_CAPTURE_NODES_MAX : RECORDER_NODES_MAX) ||
           recorder->leaf_bytes_pending > RECORDER_LEAF_BYTES_MAX;
}

bool recorder_has_pending(const struct recorder *recorder)
{
    return recorder->nodes > 0;
}

static bool output_is_needed(const struct recorder *recorder, const struct node *node)
{
    for (uint32_t o = 0; o < node->op->outputs; o++)
        if (node->out[o] != NULL && (node->out[o]->roots > 0 || node->out[o]->needed_mark == recorder->epoch))
            return true;
    return false;
}

void flush_mark(struct recorder *recorder)
{
    recorder->epoch++;
    for (uint32_t i = recorder->nodes; i-- > 0;) {
        struct node *node = recorder->node[i];
        node->is_needed = !node->is_dead && output_is_needed(recorder, node);
        for (uint32_t k = 0; node->is_needed && k < node->n_in; k++)
            if (node->in[k].value != NULL)
                node->in[k].value->needed_mark = recorder->epoch;
    }
}

// Only remembered views keep the unneeded alive; their recipes stay, their values go, the last first.
static void drop_unneeded(struct recorder *recorder)
{
    for (uint32_t i = recorder->nodes; i-- > 0;) {
        struct node *node = recorder->node[i];
        for (uint32_t o = 0; !node->is_needed && !node->is_dead && o < node->op->outputs; o++)
            if (node->out[o] != NULL && node->out[o]->view != NULL)
                view_set_value(recorder, node->out[o]->view, NULL);
        assert(node->is_needed || node->is_dead);
    }
}

// The execution to blame when a value is lost: its own, or one that stands for the place that is gone.
static struct exec *blame_of(struct recorder *recorder, const struct value *value)
{
    struct exec *exec = value->exec;
    if (exec->fault == NULL) {
        const struct dj_fault *fault = value_fault(recorder, value);
        exec->fault = malloc(sizeof *exec->fault);
        assert(exec->fault != NULL);    // a few hundred bytes: without them nothing can be told any more
        *exec->fault = *fault;
    }
    return exec;
}

static void node_poison(struct recorder *recorder, struct node *node, struct exec *cause)
{
    node->is_needed = false;
    node->is_submitted = true;    // so that dropping its outputs does not count it as dead
    for (uint32_t o = 0; o < node->op->outputs; o++)
        if (node->out[o] != NULL)
            value_fail(recorder, node->out[o], cause);
    node_kill(recorder, node);
}

static void poison(struct recorder *recorder)
{
    for (uint32_t i = 0; i < recorder->nodes; i++) {
        struct node *node = recorder->node[i];
        if (!node->is_needed)
            continue;
        for (uint32_t k = 0; k < node->n_in; k++) {
            struct value *value = node->in[k].value;
            if (value != NULL && value->kind == VALUE_HANDLE && value_fault(recorder, value) != NULL &&
                !value_revive(recorder, value)) {
                node_poison(recorder, node, blame_of(recorder, value));
                break;
            }
        }
    }
}

// Numbers the segments; returns how many. Devices of this flush ask for their place once.
static uint32_t number_segments(struct recorder *recorder)
{
    int device = INT32_MIN;
    uint32_t place = 0, segment = 0, nodes = 0, refs = 0;
    for (uint32_t i = 0; i < recorder->nodes; i++) {
        struct node *node = recorder->node[i];
        if (!node->is_needed)
            continue;
        bool is_next = false;
        if (node->device != device) {
            device = node->device;
            uint32_t there = recorder->port.place(recorder->port.self, device);
            is_next = segment == 0 || there != place;
            place = there;
        }
        if (is_next || nodes >= FLUSH_SEGMENT_NODES_MAX || refs + node->n_in > FLUSH_SEGMENT_REFS_MAX) {
            segment++;
            nodes = refs = 0;
        }
        nodes++;
        refs += node->n_in;
        node->segment = segment;
        node->place = place;
    }
    return segment;
}

static void mark_crossings(struct recorder *recorder)
{
    for (uint32_t i = 0; i < recorder->nodes; i++) {
        struct node *node = recorder->node[i];
        for (uint32_t k = 0; node->is_needed && k < node->n_in; k++) {
            struct value *value = node->in[k].value;
            if (value != NULL && value->kind == VALUE_PENDING && value->node->segment != node->segment)
                value->crossing_mark = recorder->epoch;
        }
    }
}

// Nothing of what is left will ever run: its values fail with `error`.
static void fail_rest(struct recorder *recorder, enum dj_error error, const struct fault *fault)
{
    struct exec *cause = submitted_make(recorder, 0, 0);
    if (cause != NULL && (cause->fault = calloc(1, sizeof *cause->fault)) != NULL) {
        cause->fault->error = (int32_t)error;
        const char *text = fault != NULL && fault->text[0] != '\0' ? fault->text : dj_error_text(error);
        snprintf(cause->fault->text, sizeof cause->fault->text, "%s", text);
    }
    assert(cause != NULL && cause->fault != NULL);
    for (uint32_t i = 0; i < recorder->nodes; i++)
        if (recorder->node[i]->is_needed && !recorder->node[i]->is_submitted)
            node_poison(recorder, recorder->node[i], cause);
    submitted_drop(recorder, cause);
}

static void nodes_clear(struct recorder *recorder)
{
    recorder->nodes = 0;
    recorder->leaf_bytes_pending = 0;
    arena_reset(recorder->arena);
}

enum dj_error recorder_flush(struct recorder *recorder, struct fault *fault)
{
    if (recorder->nodes == 0) {
        recorder->leaf_bytes_pending = 0;
        return DJ_OK;
    }
    flush_mark(recorder);
    drop_unneeded(recorder);
    poison(recorder);
    uint32_t segments = number_segments(recorder);
    if (segments > 1)
        mark_crossings(recorder);
    enum dj_error error = DJ_OK;
    for (uint32_t segment = 1, first = 0; segment <= segments && error == DJ_OK; segment++) {
        uint32_t end = first;
        while (end < recorder->nodes && (!recorder->node[end]->is_needed || recorder->node[end]->segment == segment))
            end++;
        error = segment_submit(recorder, first, end, fault);
        first = end;
        if (error == DJ_OK && segment < segments)
            poison(recorder);    // an import may have found its source gone
    }
    if (error != DJ_OK)
        fail_rest(recorder, error, fault);
    nodes_clear(recorder);
    return error;
}

void recorder_abandon_pending(struct recorder *recorder, enum dj_error error, const char *text)
{
    if (recorder->nodes == 0)
        return;
    struct fault fault;
    fault_set(&fault, error, "%s", text);
    flush_mark(recorder);
    drop_unneeded(recorder);
    fail_rest(recorder, error, &fault);
    nodes_clear(recorder);
}
