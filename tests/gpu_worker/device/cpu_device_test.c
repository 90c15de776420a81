// The CPU device under the suite of all devices, and what is its own.

#include "gpu_worker/device/cpu_device.h"

#include <string.h>

#include "tests/gpu_worker/device/port_suite.h"

static struct device_port *make(const struct io_sink *sink)
{
    struct cpu_device_config config = {.threads = 2, .memory_bytes = PORT_REGION_BYTES, .sink = sink};
    struct device_port *port;
    struct fault fault;
    assert_ok(cpu_device_make(&config, &port, &fault));
    return port;
}

const struct port_subject port_subject = {.make = make};

static void trimmed_memory_reads_as_zeros(void **state)
{
    struct device_port *port = port_make(state);
    struct blob *in = blob_make(1 << 20), *out = blob_make(1 << 20);
    memset(in->data, 5, in->bytes);
    struct device_task write = {.kind = DEVICE_WRITE, .bytes = 1 << 20, .blob = in},
                       read = {.kind = DEVICE_READ, .bytes = 1 << 20, .blob = out};
    struct device_list first = {.tasks = 1, .task = &write}, second = {.tasks = 1, .task = &read};
    port_run(port, &first);
    port->trim(port->self, 0, 1 << 20);
    port_run(port, &second);
    for (size_t i = 0; i < out->bytes; i += 4096)
        assert_int_equal(out->data[i], 0);
    blob_drop(in);
    blob_drop(out);
}

// A fault for tests of recovery: what a GPU's sticky error is to whoever uses the device.
PORT_CASES(PORT_SUITE, trimmed_memory_reads_as_zeros)
