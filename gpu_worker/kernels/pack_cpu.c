// Packs: a few hundred constant operands in the layout that a kernel wants. Shared by every device of the process: a lock guards the
// list, never the packing; a pack in use is never evicted.
//
// A model runs through its weights in a circle. Were the least recently used pack always given up for a new one, a model a little
// over the limit would find none of its weights packed, so only a pack that IDLE_ACQUIRES calls have not asked for makes room.

#include "gpu_worker/kernels/cpu.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/base/list.h"

enum { IDLE_ACQUIRES = 4096 };

struct pack {
    struct list node;    // in `packs`, most recently used last
    struct pack_key key;
    size_t bytes;
    uint32_t users;
    uint64_t used_at;    // the value of `acquires` when it was asked for last
    bool is_filled;
    float *data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list packs = {&packs, &packs};
static size_t used_bytes, limit_bytes = PACK_BYTES_LIMIT;
static uint64_t acquires;

static struct pack *find(const struct pack_key *key)
{
    list_each (node, &packs) {
        struct pack *pack = list_entry(node, struct pack, node);
        if (memcmp(&pack->key, key, sizeof *key) == 0)
            return pack;
    }
    return NULL;
}

// Frees packs that were last asked for at least `idle` acquires ago, the oldest first, until `bytes` more fit.
static void evict_for(size_t bytes, uint64_t idle)
{
    list_each (node, &packs) {
        if (used_bytes + bytes <= limit_bytes)
            return;
        struct pack *pack = list_entry(node, struct pack, node);
        if (acquires - pack->used_at < idle)
            return;
        if (pack->users > 0)
            continue;
        used_bytes -= pack->bytes;
        list_remove(&pack->node);
        free(pack->data);
        free(pack);
    }
}

static struct pack *insert(const struct pack_key *key, size_t bytes)
{
    evict_for(bytes, IDLE_ACQUIRES);
    if (used_bytes + bytes > limit_bytes)
        return NULL;
    struct pack *pack = calloc(1, sizeof *pack);
    float *data = aligned_alloc(64, bytes);
    if (pack == NULL || data == NULL) {
        free(pack);
        free(data);
        return NULL;
    }
    *pack = (struct pack){.key = *key, .bytes = bytes, .users = 1, .used_at = acquires, .data = data};
    used_bytes += bytes;
    list_push(&packs, &pack->node);
    return pack;
}

struct pack *pack_acquire(const struct pack_key *key, size_t bytes, bool *is_new)
{
    *is_new = true;
    if (bytes == 0 || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = size_round_up(bytes, 64);

    pthread_mutex_lock(&lock);
    acquires++;
    struct pack *pack = find(key);
    *is_new = pack == NULL;
    if (pack == NULL) {
        pack = insert(key, bytes);
    } else if (!pack->is_filled || pack->bytes != bytes) {
        pack = NULL;    // another device is filling it: this call packs for itself
        *is_new = true;
    } else {
        pack->users++;
        pack->used_at = acquires;
        list_remove(&pack->node);
        list_push(&packs, &pack->node);
    }
    pthread_mutex_unlock(&lock);
    return pack;
}

float *pack_data(struct pack *pack)
{
    return pack->data;
}

void pack_release(struct pack *pack)
{
    pthread_mutex_lock(&lock);
    assert(pack->users > 0);
    pack->users--;
    pack->is_filled = true;
    pthread_mutex_unlock(&lock);
}

void kernels_cpu_pack_limit(size_t bytes)
{
    pthread_mutex_lock(&lock);
    limit_bytes = bytes;
    evict_for(0, 0);
    pthread_mutex_unlock(&lock);
}

size_t kernels_cpu_pack_bytes(void)
{
    pthread_mutex_lock(&lock);
    size_t bytes = used_bytes;
    pthread_mutex_unlock(&lock);
    return bytes;
}
