// Peers: other processes' regions, opened once (cudaIpcOpenMemHandle) and copied from over NVLink or PCIe. Closing is part of the job: as long as
// a region is open here its memory is not free, not even when the process that made it has died, and whoever is started in its place would find none.
//
// Only the transfer lane copies from them, and its flights end in order, so a region is in use until the newest flight that names it is done.

#include "gpu_worker/device/cuda/state.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "core/base/hash.h"
#include "core/base/log.h"

_Static_assert(sizeof(struct cuda_ipc_memory) <= DEVICE_KEY_MAX, "a key has room for CUDA's handle");

enum { PLACE_BYTES = 128 };

// Handles are of use to processes of the same boot of the same machine, in the same namespaces. "": which these are is not to be known.
static void name_domain(char domain[DEVICE_DOMAIN_MAX])
{
    static const char *const spaces[] = {"/proc/self/ns/ipc", "/proc/self/ns/pid"};
    char text[PLACE_BYTES];
    uint64_t hash = 0;

    domain[0] = '\0';
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = file < 0 ? -1 : read(file, text, sizeof text);
    if (file >= 0)
        close(file);
    if (bytes <= 0)
        return;
    hash = hash64_seed(text, (size_t)bytes, hash);
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        bytes = readlink(spaces[i], text, sizeof text);
        if (bytes <= 0)
            return;
        hash = hash64_seed(text, (size_t)bytes, hash);
    }
    snprintf(domain, DEVICE_DOMAIN_MAX, "cuda-%016llx", (unsigned long long)hash);
}

void peers_export(struct cuda_device *device)
{
    const struct cuda_api *api = device->api;
    struct device_info *info = &device->info;
    struct cuda_ipc_memory memory;
    struct fault fault;

    if (info->lives == 0 && api->cudaIpcOpenMemHandle != NULL && api->cudaIpcCloseMemHandle != NULL)
        name_domain(info->domain);
    info->key.bytes = 0;
    if (info->domain[0] == '\0' || api->cudaIpcGetMemHandle == NULL)
        return;
    if (!device_check(device, api->cudaIpcGetMemHandle(&memory, device->region), "sharing its memory", &fault)) {
        log_write(LOG_INFO, "device", "other workers of this machine get values by way of the host's memory: %s", fault.text);
        return;
    }
    info->key.bytes = sizeof memory;
    memcpy(info->key.data, &memory, sizeof memory);
}

static bool is_in_use(const struct cuda_device *device, const struct peer_region *region)
{
    return region->flight >= device->lane[DEVICE_TRANSFER].flight_head;
}

static void close_region(struct cuda_device *device, struct peer_region *region)
{
    (void)device_check(device, device->api->cudaIpcCloseMemHandle(region->data), "closing another process's memory", NULL);
    *region = (struct peer_region){0};
}

// A free place, or that of the region used longest ago; NULL: all are in use.
static struct peer_region *make_room(struct cuda_device *device)
{
    struct peer_region *oldest = NULL;

    for (uint32_t i = 0; i < CUDA_PEERS_MAX; i++) {
        struct peer_region *region = &device->peers.region[i];
        if (region->data == NULL)
            return region;
        if (!is_in_use(device, region) && (oldest == NULL || region->used < oldest->used))
            oldest = region;
    }
    if (oldest != NULL)
        close_region(device, oldest);
    return oldest;
}

static struct peer_region *find(struct cuda_device *device, const struct device_key *key)
{
    for (uint32_t i = 0; i < CUDA_PEERS_MAX; i++) {
        struct peer_region *region = &device->peers.region[i];
        const struct device_key *its = &region->peer.key;
        if (region->data != NULL && its->bytes == key->bytes && memcmp(its->data, key->data, key->bytes) == 0)
            return region;
    }
    return NULL;
}

// False with fault->code DJ_OK: there is no room as long as copies run.
static bool region_open(struct cuda_device *device, const struct device_peer *peer, struct peer_region **ret, struct fault *fault)
{
    struct cuda_ipc_memory memory;
    void *data = NULL;

    struct peer_region *region = find(device, &peer->key);
    if (region == NULL) {
        if (device->api->cudaIpcOpenMemHandle == NULL || peer->key.bytes != sizeof memory) {
            fault_set(fault, DJ_E_DEVICE, "GPU %d (%s) does not open that memory", device->config.ordinal, device->info.name);
            return false;
        }
        region = make_room(device);
        if (region == NULL)
            return false;
        memcpy(&memory, peer->key.data, sizeof memory);
        int code = device->api->cudaIpcOpenMemHandle(&data, memory, CUDA_IPC_LAZY_PEER_ACCESS);
        if (!device_check(device, code, "opening another process's memory", fault))
            return false;
        region->data = data;
        region->peer = *peer;
    }
    region->peer.incarnation = peer->incarnation;
    region->is_forgotten = false;
    region->used = ++device->peers.clock;
    region->flight = device->lane[DEVICE_TRANSFER].flight_issue;
    *ret = region;
    return true;
}

bool peer_copy(struct cuda_device *device, struct lane *lane, struct flight *flight, const struct device_task *task)
{
    struct fault fault = {.text = ""};
    struct peer_region *region;

    assert(lane == &device->lane[DEVICE_TRANSFER]);
    bool is_open = region_open(device, task->peer, &region, &fault);
    if (!is_open && fault.code == DJ_OK)
        return false;
    if (!is_open) {
        flight_fail(flight, flight->task, &fault);
    } else if (task->bytes > 0) {
        int code = device->api->cudaMemcpyAsync(device->region + task->offset, region->data + task->blob_offset, task->bytes,
                                                CUDA_DEVICE_TO_DEVICE, lane->stream);
        if (flight_check(device, flight, flight->task, code, "copying from another process's memory")) {
            device->stats.peer_copies++;
            device->stats.peer_bytes += task->bytes;
        }
    }
    flight->task++;
    return true;
}

void peers_mark_forgotten(struct cuda_device *device)
{
    for (uint32_t i = 0; i < CUDA_PEERS_MAX && device->forgotten_count > 0; i++) {
        struct peer_region *region = &device->peers.region[i];
        bool is_named = device->forgotten_count > CUDA_PEERS_MAX;
        for (uint32_t k = 0; k < device->forgotten_count && !is_named; k++)
            is_named = device->forgotten[k] == region->peer.incarnation;
        region->is_forgotten |= is_named && region->data != NULL;
    }
    device->forgotten_count = 0;
}

bool peers_close_forgotten(struct cuda_device *device)
{
    bool any = false;

    for (uint32_t i = 0; i < CUDA_PEERS_MAX; i++) {
        struct peer_region *region = &device->peers.region[i];
        if (!region->is_forgotten || is_in_use(device, region))
            continue;
        close_region(device, region);
        any = true;
    }
    return any;
}

// The streams are quiet. A lost device closes them with its context.
void peers_release(struct cuda_device *device)
{
    for (uint32_t i = 0; i < CUDA_PEERS_MAX; i++)
        if (device->peers.region[i].data != NULL)
            (void)device->api->cudaIpcCloseMemHandle(device->peers.region[i].data);
    memset(&device->peers, 0, sizeof device->peers);
}
