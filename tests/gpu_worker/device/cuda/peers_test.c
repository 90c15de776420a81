// The CUDA device and the memory of other processes: two or more devices on one fake runtime, whose handles open to the same memory.

#include <string.h>
#include <unistd.h>

#include "gpu_worker/device/cuda/cuda_device.h"
#include "tests/gpu_worker/device/port_suite.h"
#include "tests/lib/cuda/fake_runtime.h"

static const uint64_t GPU_BYTES = (uint64_t)4 << 30;

static uint64_t seed = 1;
static bool keeps_runtime;    // a device's end is not the runtime's

static enum dj_error try_make(const struct io_sink *sink, const struct cuda_api *api, struct device_port **ret,
                              struct fault *fault)
{
    struct cuda_device_config config = {.memory_bytes = 2 << 20, .api = api, .image = fake_runtime_images(), .sink = sink};
    return cuda_device_make(&config, ret, fault);
}

static struct device_port *make(const struct io_sink *sink)
{
    struct device_port *port;
    struct fault fault;
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_ok(try_make(sink, fake_runtime_api(), &port, &fault));
    return port;
}

static void check_end(void)
{
    if (!keeps_runtime)
        assert_int_equal(fake_runtime_end(), 0);
}

const struct port_subject port_subject = {.make = make, .check_end = check_end};

// Two devices on one runtime: `owner` has bytes that `port` copies from its memory.
static struct device_port *make_owner(uint8_t first)
{
    struct device_port *owner;
    struct fault fault;
    assert_ok(try_make(port_sink(), fake_runtime_api(), &owner, &fault));
    struct blob *blob = blob_make(4096);
    memset(blob->data, first, blob->bytes);
    struct device_task write = {.kind = DEVICE_WRITE, .offset = 64, .bytes = blob->bytes, .blob = blob};
    struct device_list list = {.tasks = 1, .task = &write, .stream = DEVICE_TRANSFER};
    port_run(owner, &list);
    assert_ok(list.error);
    blob_drop(blob);
    return owner;
}

// A row written, put through softmax and read; the list's error.
static enum dj_error row_trip(struct device_port *port, uint64_t incarnation)
{
    struct blob *in = port_row(3), *out = blob_make(PORT_ROW_BYTES);
    struct device_tensor x = port_row_tensor(0), y = port_row_tensor(4096);
    struct device_task task[3] = {{.kind = DEVICE_WRITE, .bytes = PORT_ROW_BYTES, .blob = in},
                                  port_softmax(&x, &y),
                                  {.kind = DEVICE_READ, .offset = 4096, .bytes = PORT_ROW_BYTES, .blob = out}};
    struct device_list list = {.tasks = 3, .task = task, .incarnation = incarnation};
    port_run(port, &list);
    if (list.error == DJ_OK)
        assert_int_equal(port_row_read(out->data), 3);
    blob_drop(in);
    blob_drop(out);
    return list.error;
}

static struct device_peer peer_of(const struct device_port *owner, uint64_t incarnation)
{
    return (struct device_peer){.incarnation = incarnation, .key = owner->info->key};
}

// Copies a span of the peer's and gives its first byte; -1 when the copy failed, as a device's error that is not a loss.
static int copied(struct device_port *port, const struct device_peer *peer)
{
    struct blob *blob = blob_make(2048);
    struct device_task copy = {.kind = DEVICE_COPY_PEER, .offset = 4096, .bytes = 2048, .blob_offset = 128, .peer = peer},
                       read = {.kind = DEVICE_READ, .offset = 4096, .bytes = 2048, .blob = blob};
    struct device_task task[2] = {copy, read};
    struct device_list list = {.tasks = 2, .task = task, .stream = DEVICE_TRANSFER};
    port_run(port, &list);
    if (list.error != DJ_OK)
        assert_true(list.error == DJ_E_DEVICE && list.failed_task == 0 && list.fault.text[0] != '\0');
    for (uint32_t i = 1; i < blob->bytes && list.error == DJ_OK; i++)
        assert_int_equal(blob->data[i], blob->data[0]);
    int first = list.error == DJ_OK ? blob->data[0] : -1;
    blob_drop(blob);
    return first;
}

static void a_peers_region_is_opened_once_and_copied_from(void **state)
{
    struct device_port *port = port_make(state), *owner = make_owner(7);
    struct device_peer peer = peer_of(owner, 1);
    assert_true(port->info->domain[0] != '\0' && peer.key.bytes == 64);
    assert_string_equal(port->info->domain, owner->info->domain);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(copied(port, &peer), 7);
    assert_int_equal(fake_runtime_calls("cudaIpcOpenMemHandle"), 1);
    assert_int_equal(cuda_device_stats(port).peer_copies, 3);
    assert_int_equal(cuda_device_stats(port).peer_bytes, 3 * 2048);
    keeps_runtime = true;
    port_stop(port);
    keeps_runtime = false;
    assert_int_equal(fake_runtime_calls("cudaIpcCloseMemHandle"), 1);
    port_stop(owner);
}

static void wait_for_closes(uint64_t closes)
{
    for (uint32_t tries = 0; tries < 5000 && fake_runtime_calls("cudaIpcCloseMemHandle") < closes; tries++)
        usleep(1000);
    assert_int_equal(fake_runtime_calls("cudaIpcCloseMemHandle"), closes);
}

// Or a worker that is started in the place of a dead one would find no memory.
static void a_peer_that_is_forgotten_is_closed_though_nothing_is_submitted(void **state)
{
    struct device_port *port = port_make(state), *owner = make_owner(9), *other = make_owner(5);
    struct device_peer peer = peer_of(owner, 1), kept = peer_of(other, 2);
    assert_int_equal(copied(port, &peer), 9);
    assert_int_equal(copied(port, &kept), 5);
    port->forget_peer(port->self, 77);
    port->forget_peer(port->self, 1);
    wait_for_closes(1);
    assert_int_equal(copied(port, &kept), 5);
    assert_int_equal(fake_runtime_calls("cudaIpcOpenMemHandle"), 2);
    assert_int_equal(copied(port, &peer), 9);    // it was not gone
    for (uint64_t i = 0; i < 2 * CUDA_PEERS_MAX; i++)
        port->forget_peer(port->self, 100 + i);
    port->forget_peer(port->self, 1);
    port->forget_peer(port->self, 2);
    wait_for_closes(3);
    keeps_runtime = true;
    port_stop(port);
    port_stop(owner);
    keeps_runtime = false;
    port_stop(other);
}

static void beyond_the_most_the_region_used_longest_ago_is_closed(void **state)
{
    enum { OWNERS = CUDA_PEERS_MAX + 1 };
    static struct device_port *owner[OWNERS];
    struct device_port *port;
    struct fault fault;
    ops_init();
    (void)state;
    fake_runtime_begin(seed++, (uint64_t)4 << 30);
    port_reset();
    assert_ok(try_make(port_sink(), fake_runtime_api(), &port, &fault));
    for (uint32_t i = 0; i < OWNERS; i++)
        owner[i] = make_owner((uint8_t)(i + 1));
    for (uint32_t round = 0; round < 2; round++)
        for (uint32_t i = 0; i < OWNERS; i++) {
            struct device_peer peer = peer_of(owner[i], i), first = peer_of(owner[0], 0);
            assert_int_equal(copied(port, &peer), i + 1);
            assert_int_equal(copied(port, &first), 1);
        }
    // The first one stayed open; of the others one at a time had to go.
    assert_int_equal(fake_runtime_calls("cudaIpcOpenMemHandle"), OWNERS + OWNERS - 1);
    assert_int_equal(fake_runtime_calls("cudaIpcCloseMemHandle"), OWNERS - 1 + 1);
    port->stop(port->self);
    for (uint32_t i = 0; i < OWNERS; i++)
        owner[i]->stop(owner[i]->self);
    assert_int_equal(fake_runtime_end(), 0);
}

static void memory_that_cannot_be_opened_fails_its_list_and_harms_nothing(void **state)
{
    struct device_port *port = port_make(state), *owner = make_owner(3);
    struct device_peer peer = peer_of(owner, 1), torn = peer, other = peer;
    memset(torn.key.data, 0xee, sizeof torn.key.data);
    other.key.bytes = 12;
    assert_int_equal(copied(port, &torn), -1);
    assert_int_equal(copied(port, &other), -1);
    fake_runtime_fail("cudaIpcOpenMemHandle", 1, FAKE_RUNTIME_UNKNOWN_ERROR);
    assert_int_equal(copied(port, &peer), -1);
    assert_int_equal(copied(port, &peer), 3);
    keeps_runtime = true;
    port_stop(owner);
    // The owner has gone: what is open stays readable, what is not cannot be opened.
    assert_true(copied(port, &peer) >= 0);
    port->forget_peer(port->self, 1);
    wait_for_closes(1);
    assert_int_equal(copied(port, &peer), -1);
    assert_false(cuda_device_is_lost(port));
    keeps_runtime = false;
    port_stop(port);
}

// Containers may forbid it.
static void a_device_whose_memory_cannot_be_shared_says_so_and_works(void **state)
{
    struct cuda_api api = *fake_runtime_api();
    struct fault fault;
    struct device_port *port;
    ops_init();
    (void)state;
    for (uint32_t lacks = 0; lacks < 4; lacks++) {
        fake_runtime_begin(seed++, GPU_BYTES);
        port_reset();
        api = *fake_runtime_api();
        if (lacks == 0)
            fake_runtime_fail("cudaIpcGetMemHandle", 1, FAKE_RUNTIME_UNKNOWN_ERROR);
        if (lacks == 1)
            api.cudaIpcGetMemHandle = NULL;
        if (lacks == 2)
            api.cudaIpcOpenMemHandle = NULL;
        if (lacks == 3)
            api.cudaIpcCloseMemHandle = NULL;
        assert_ok(try_make(port_sink(), &api, &port, &fault));
        assert_int_equal(port->info->key.bytes, 0);
        assert_int_equal(port->info->domain[0] == '\0', lacks >= 2);
        assert_ok(row_trip(port, 1));
        port->stop(port->self);
        assert_int_equal(fake_runtime_end(), 0);
    }
}

// The memory is another one: so is its key.
static void a_device_made_anew_has_another_key_and_has_closed_what_was_open(void **state)
{
    struct device_port *port = port_make(state);
    struct device_key before = port->info->key;
    struct device_peer peer = peer_of(port, 1);    // itself
    assert_true(copied(port, &peer) >= 0);
    fake_runtime_fault(1);
    assert_error(DJ_E_DEVICE_LOST, row_trip(port, 1));
    assert_ok(row_trip(port, 2));
    assert_int_equal(port->info->key.bytes, before.bytes);
    assert_memory_not_equal(port->info->key.data, before.data, before.bytes);
    assert_int_equal(copied(port, &peer), -1);
    peer = peer_of(port, 2);
    assert_true(copied(port, &peer) >= 0);
    port_stop(port);
}

CASES(a_peers_region_is_opened_once_and_copied_from, a_peer_that_is_forgotten_is_closed_though_nothing_is_submitted,
      beyond_the_most_the_region_used_longest_ago_is_closed, memory_that_cannot_be_opened_fails_its_list_and_harms_nothing,
      a_device_whose_memory_cannot_be_shared_says_so_and_works, a_device_made_anew_has_another_key_and_has_closed_what_was_open)
