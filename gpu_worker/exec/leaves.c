// Leaves: constants named by their content, shared by every session that knows the name. Small ones arrive whole and are written by the
// first execution that uses them; large ones arrive in chunks, each written by a run of its own on the transfer stream.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct leaf *exec_leaf_find(const struct exec *exec, struct hash128 content)
{
    return map_get(exec->leaf, content);
}

void exec_leaf_touch(struct exec *exec, struct leaf *leaf)
{
    list_remove(&leaf->lru);
    list_push(&exec->leaf_lru, &leaf->lru);
}

void exec_leaf_free_hash(struct leaf *leaf)
{
    if (leaf->hash != NULL)
        XXH3_freeState(leaf->hash);
    leaf->hash = NULL;
}

static void leaf_drop(struct exec *exec, struct leaf *leaf)
{
    assert(leaf->writes == 0);
    map_take(exec->leaf, leaf->content);
    list_remove(&leaf->lru);
    exec->stats.leaf_bytes -= leaf->bytes;
    exec_buffer_drop(exec, leaf->buffer);
    blob_drop(leaf->staged);
    blob_drop(leaf->host);
    exec_leaf_free_hash(leaf);
    pool_give(exec->leaves, leaf);
}

bool exec_leaf_evict(struct exec *exec)
{
    list_each (node, &exec->leaf_lru) {
        struct leaf *leaf = list_entry(node, struct leaf, lru);
        bool is_free = (leaf->is_durable || leaf->is_replica) && !leaf->is_filling && leaf->writes == 0 &&
                       (leaf->buffer == NULL || leaf->buffer->refs == 1);
        if (!is_free)
            continue;
        struct hash128 content = leaf->content;
        leaf_drop(exec, leaf);
        exec->stats.evictions++;
        if (exec->leaf_dropped != NULL)
            exec->leaf_dropped(exec->leaf_dropped_context, content);
        return true;
    }
    return false;
}

enum exec_leaf_state exec_leaf_state(const struct exec *exec, struct hash128 content)
{
    const struct leaf *leaf = exec_leaf_find(exec, content);
    return leaf == NULL ? LEAF_ABSENT : leaf->is_filling ? LEAF_FILLING : LEAF_READY;
}

uint64_t exec_leaf_bytes(const struct exec *exec, struct hash128 content)
{
    const struct leaf *leaf = exec_leaf_find(exec, content);
    return leaf == NULL ? 0 : leaf->bytes;
}

void exec_leaf_set_durable(struct exec *exec, struct hash128 content)
{
    struct leaf *leaf = exec_leaf_find(exec, content);
    if (leaf == NULL)
        return;
    leaf->is_durable = true;
    blob_drop(leaf->host);
    leaf->host = NULL;
}

struct blob *exec_leaf_host(const struct exec *exec, struct hash128 content)
{
    const struct leaf *leaf = exec_leaf_find(exec, content);
    return leaf == NULL ? NULL : leaf->host;
}

bool exec_leaf_is_durable(const struct exec *exec, struct hash128 content)
{
    const struct leaf *leaf = exec_leaf_find(exec, content);
    return leaf != NULL && leaf->is_durable;
}

void exec_leaf_set_replica(struct exec *exec, struct hash128 content)
{
    struct leaf *leaf = exec_leaf_find(exec, content);
    if (leaf == NULL)
        return;
    leaf->is_replica = true;
    blob_drop(leaf->host);
    leaf->host = NULL;
    list_remove(&leaf->lru);
    list_push(exec->leaf_lru.next, &leaf->lru);    // before the oldest
}

void exec_each_leaf(const struct exec *exec, void (*visit)(void *context, struct hash128 content, uint64_t bytes), void *context)
{
    for (const struct list *node = exec->leaf_lru.next; node != &exec->leaf_lru; node = node->next) {
        const struct leaf *leaf = list_entry(node, struct leaf, lru);
        if (!leaf->is_filling)
            visit(context, leaf->content, leaf->bytes);
    }
}

void exec_on_leaf_dropped(struct exec *exec, void (*dropped)(void *context, struct hash128 content), void *context)
{
    exec->leaf_dropped = dropped;
    exec->leaf_dropped_context = context;
}

static enum dj_error leaf_make(struct exec *exec, struct hash128 content, uint64_t bytes, struct leaf **ret)
{
    if (map_count(exec->leaf) >= EXEC_LEAVES_MAX && !exec_leaf_evict(exec))
        return DJ_E_LIMIT;
    struct leaf *leaf = pool_take(exec->leaves);
    if (leaf == NULL)
        return DJ_E_NO_MEMORY;
    leaf->content = content;
    leaf->bytes = bytes;
    enum dj_error error = map_put(exec->leaf, content, leaf);
    if (error != DJ_OK) {
        pool_give(exec->leaves, leaf);
        return error;
    }
    list_push(&exec->leaf_lru, &leaf->lru);
    exec->stats.leaf_bytes += bytes;
    *ret = leaf;
    return DJ_OK;
}

enum dj_error exec_leaf_put(struct exec *exec, struct hash128 content, struct blob *blob, uint64_t offset, uint64_t bytes)
{
    assert(offset <= blob->bytes && bytes <= blob->bytes - offset);
    struct leaf *leaf = exec_leaf_find(exec, content);
    if (leaf != NULL && !leaf->is_filling) {
        exec_leaf_touch(exec, leaf);
        return DJ_OK;
    }
    if (!hash128_equal(hash128(blob->data + offset, bytes), content))
        return DJ_E_FRAME_CORRUPT;
    if (leaf != NULL)
        return DJ_E_BUSY;                                         // its chunks are on their way
    struct blob *host = blob_copy(blob->data + offset, bytes);    // so that a small leaf does not keep the message it came in
    enum dj_error error = host == NULL ? DJ_E_NO_MEMORY : leaf_make(exec, content, bytes, &leaf);
    if (error != DJ_OK) {
        blob_drop(host);
        return error;
    }
    leaf->host = host;
    leaf->staged = blob_hold(host);
    return DJ_OK;
}

enum dj_error exec_leaf_begin(struct exec *exec, struct hash128 content, uint64_t bytes, struct fault *fault)
{
    if (exec_leaf_find(exec, content) != NULL)
        return fault_set(fault, DJ_E_INVALID, "the leaf is already here or on its way");
    if (bytes > region_capacity_bytes(exec->region))
        return exec_fault_memory(exec, bytes, "a leaf", fault);
    struct leaf *leaf;
    enum dj_error error = leaf_make(exec, content, bytes, &leaf);
    if (error != DJ_OK)
        return fault_set(fault, error, "%s", dj_error_text(error));
    leaf->is_filling = true;
    leaf->hash = XXH3_createState();
    leaf->buffer = exec_buffer_make(exec, bytes);
    if (leaf->hash == NULL || leaf->buffer == NULL) {
        leaf_drop(exec, leaf);
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    }
    XXH3_128bits_reset(leaf->hash);
    if (!exec_buffer_reserve(exec, leaf->buffer)) {
        leaf_drop(exec, leaf);
        return exec_fault_memory(exec, bytes, "a leaf", fault);
    }
    return DJ_OK;
}

// The leaf is given up; it goes when its last write is done.
static enum dj_error leaf_fail(struct exec *exec, struct leaf *leaf, struct fault *fault, enum dj_error error, const char *text)
{
    leaf->is_failed = true;
    if (leaf->writes == 0)
        leaf_drop(exec, leaf);
    return fault_set(fault, error, "%s", text);
}

static bool leaf_is_intact(struct leaf *leaf)
{
    XXH128_hash_t hash = XXH3_128bits_digest(leaf->hash);
    return hash.high64 == leaf->content.hi && hash.low64 == leaf->content.lo;
}

enum dj_error exec_leaf_chunk(struct exec *exec, struct hash128 content, uint64_t offset, struct blob *blob,
                              struct exec_run **ret, struct fault *fault)
{
    struct leaf *leaf = exec_leaf_find(exec, content);
    if (leaf == NULL || !leaf->is_filling || leaf->is_failed)
        return fault_set(fault, DJ_E_LEAF_UNKNOWN, "a piece came of a leaf that was not begun or was given up");
    if (offset != leaf->received || blob->bytes > leaf->bytes - offset)
        return leaf_fail(exec, leaf, fault, DJ_E_MALFORMED, "a leaf's pieces leave a gap, overlap or exceed its length");
    struct run *run = exec_run_take(exec);
    uint32_t storage;
    struct device_task *task = NULL;
    if (run != NULL && exec_run_pin(run, leaf->buffer, &storage) == DJ_OK) {
        leaf->buffer->refs++;
        task = exec_run_task(run, DEVICE_WRITE);
    }
    if (task == NULL) {
        if (run != NULL)
            exec_run_give(exec, run);
        return leaf_fail(exec, leaf, fault, DJ_E_NO_MEMORY, dj_error_text(DJ_E_NO_MEMORY));
    }
    XXH3_128bits_update(leaf->hash, blob->data, blob->bytes);
    if (offset + blob->bytes == leaf->bytes && !leaf_is_intact(leaf)) {
        exec_run_give(exec, run);
        return leaf_fail(exec, leaf, fault, DJ_E_FRAME_CORRUPT, "a leaf's bytes have another hash than its name says");
    }
    *task = (struct device_task){.kind = DEVICE_WRITE, .offset = offset, .bytes = blob->bytes, .blob = blob_hold(blob)};
    run->part[0].storage = storage;
    run->face.list.stream = DEVICE_TRANSFER;
    run->leaf = leaf;
    leaf->received += blob->bytes;
    leaf->writes++;
    exec_run_resolve(run);
    list_push(&exec->in_flight, &run->in_flight);
    *ret = &run->face;
    return DJ_OK;
}

void exec_leaf_written(struct exec *exec, struct leaf *leaf, bool is_ok)
{
    leaf->writes--;
    leaf->is_failed = leaf->is_failed || !is_ok;
    if (leaf->writes > 0)
        return;
    if (leaf->is_failed) {
        leaf_drop(exec, leaf);
    } else if (leaf->received == leaf->bytes) {
        leaf->is_filling = false;
        exec_leaf_free_hash(leaf);
        exec_leaf_touch(exec, leaf);
    }
}

// The writes are the run's first tasks, in the order of `staged`. Nobody else pins the buffer but runs that fail with this one.
void exec_leaves_settle(struct exec *exec, struct run *run, bool is_ok)
{
    for (uint32_t i = 0; i < run->staged_count; i++) {
        struct leaf *leaf = run->staged[i];
        leaf->writer = NULL;
        if (is_ok)
            continue;
        leaf->staged = blob_hold(run->task[i].blob);
        leaf->staged_offset = run->task[i].blob_offset;
        exec_buffer_drop(exec, leaf->buffer);
        leaf->buffer = NULL;
    }
}

void exec_leaf_abandon(struct exec *exec, struct hash128 content)
{
    struct leaf *leaf = exec_leaf_find(exec, content);
    if (leaf == NULL || !leaf->is_filling)
        return;
    leaf->is_failed = true;
    if (leaf->writes == 0)
        leaf_drop(exec, leaf);
}

enum dj_error exec_leaf_read(struct exec *exec, struct hash128 content, uint64_t offset, uint64_t bytes, struct exec_run **ret)
{
    struct leaf *leaf = exec_leaf_find(exec, content);
    if (leaf == NULL || leaf->is_filling)
        return DJ_E_LEAF_UNKNOWN;
    if (offset > leaf->bytes || bytes > leaf->bytes - offset)
        return DJ_E_INVALID;
    struct run *run = exec_run_take(exec);
    if (run == NULL)
        return DJ_E_NO_MEMORY;
    if (leaf->buffer == NULL) {    // staged: nothing to ask the device for
        run->face.blob = blob_copy(leaf->staged->data + leaf->staged_offset + offset, bytes);
    } else {
        uint32_t storage;
        run->face.blob = blob_make(bytes);
        struct device_task *task = NULL;
        if (run->face.blob != NULL && exec_run_pin(run, leaf->buffer, &storage) == DJ_OK) {
            leaf->buffer->refs++;
            task = exec_run_task(run, DEVICE_READ);
        }
        if (task == NULL) {
            exec_run_give(exec, run);
            return DJ_E_NO_MEMORY;
        }
        *task = (struct device_task){.kind = DEVICE_READ, .offset = offset, .bytes = bytes, .blob = run->face.blob};
        run->part[0].storage = storage;
        if (leaf->writer != NULL && exec_run_depend(run, leaf->writer) != DJ_OK) {
            exec_run_give(exec, run);
            return DJ_E_BUSY;
        }
    }
    if (run->face.blob == NULL) {
        exec_run_give(exec, run);
        return DJ_E_NO_MEMORY;
    }
    // A staged leaf's first write may still be on its way, on the other stream.
    run->face.list.stream = DEVICE_TRANSFER;
    run->face.list.after = leaf->writer == NULL ? 0 : leaf->writer->face.list.ticket;
    exec_run_resolve(run);
    list_push(&exec->in_flight, &run->in_flight);
    *ret = &run->face;
    return DJ_OK;
}
