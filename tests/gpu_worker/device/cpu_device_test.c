// What every device must guarantee (gpu_worker/device/README.md), on the CPU device.

#include "gpu_worker/device/cpu_device.h"

#include "core/io/blob.h"
#include "tests/lib/case.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { DONE_MAX = 4096 };

static struct inbox {
    pthread_mutex_t mutex;
    struct device_list *done[DONE_MAX];
    uint32_t count;
} inbox = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void post(void *self, const struct io_event *event)
{
    struct inbox *box = self;
    pthread_mutex_lock(&box->mutex);
    box->done[box->count++] = event->device_done.list;
    pthread_mutex_unlock(&box->mutex);
}

static const struct io_sink sink = {.post = post, .self = &inbox};

static void stop(void *port)
{
    ((struct device_port *)port)->stop(((struct device_port *)port)->self);
}

static struct device_port *device(void **state)
{
    ops_init();
    struct cpu_device_config config = {.threads = 2, .memory_bytes = 64 << 20, .sink = &sink};
    struct device_port *port;
    struct fault fault;
    assert_ok(cpu_device_make(&config, &port, &fault));
    case_later(state, stop, port);
    inbox.count = 0;
    return port;
}

static void wait_for(uint32_t count)
{
    for (int tries = 0; tries < 5000; tries++) {
        pthread_mutex_lock(&inbox.mutex);
        bool is_there = inbox.count >= count;
        pthread_mutex_unlock(&inbox.mutex);
        if (is_there)
            return;
        usleep(1000);
    }
    fail_msg("the device did not finish");
}

static struct device_tensor floats(uint64_t offset)
{
    return (struct device_tensor){.offset = offset, .meta = {.dtype = DTYPE_F32, .rank = 1, .size = {4}, .stride = {1}}};
}

static void a_list_writes_computes_and_reads_in_order(void **state)
{
    struct device_port *port = device(state);
    const float from[4] = {1, -2, 3, -4}, expected[4] = {-1, 2, -3, 4};
    struct blob *in = blob_copy(from, sizeof from), *out = blob_make(sizeof from);
    struct device_tensor tensor[2] = {floats(128), floats(4096)};
    struct device_task task[3] = {
        {.kind = DEVICE_WRITE, .offset = 128, .bytes = 16, .blob = in},
        {.kind = DEVICE_KERNEL,
         .op = op_info(OP_NEG),
         .n_in = 1,
         .n_out = 1,
         .in = &tensor[0],
         .out = &tensor[1],
         .compute = DTYPE_F32},
        {.kind = DEVICE_READ, .offset = 4096, .bytes = 16, .blob = out},
    };
    assert_true(port->can(port->self, &task[1]));
    struct device_list list = {.ticket = 7, .tasks = 3, .task = task};
    port->submit(port->self, &list);
    wait_for(1);
    assert_ok(list.error);
    assert_memory_equal(out->data, expected, sizeof expected);
    blob_drop(in);
    blob_drop(out);
}

static void lists_come_back_once_each_and_in_the_order_of_submission(void **state)
{
    struct device_port *port = device(state);
    enum { LISTS = 2000 };
    static struct device_list list[LISTS];
    static struct device_task task[LISTS];
    for (uint32_t i = 0; i < LISTS; i++) {
        task[i] = (struct device_task){.kind = DEVICE_ZERO, .offset = 64 * i, .bytes = 64};
        list[i] = (struct device_list){.ticket = i + 1, .stream = i % DEVICE_STREAMS, .tasks = 1, .task = &task[i]};
        port->submit(port->self, &list[i]);
        if (i % 500 == 0)
            usleep(200);    // lets the thread fall asleep in between
    }
    wait_for(LISTS);
    assert_int_equal(inbox.count, LISTS);
    for (uint32_t i = 0; i < LISTS; i++)
        assert_ptr_equal(inbox.done[i], &list[i]);
}

static void a_failing_kernel_ends_its_list_and_is_named(void **state)
{
    struct device_port *port = device(state);
    const int64_t bad[1] = {99};
    struct blob *in = blob_copy(bad, sizeof bad);
    struct device_tensor tensor[3] = {
        {.offset = 0, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {2, 4}, .stride = {4, 1}}},
        {.offset = 64, .meta = {.dtype = DTYPE_I64, .rank = 1, .size = {1}, .stride = {1}}},
        {.offset = 128, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {1, 4}, .stride = {4, 1}}},
    };
    struct device_task task[3] = {
        {.kind = DEVICE_WRITE, .offset = 64, .bytes = 8, .blob = in},
        {.kind = DEVICE_KERNEL, .op = op_info(OP_EMBEDDING), .n_in = 2, .n_out = 1, .in = tensor, .out = &tensor[2]},
        {.kind = DEVICE_ZERO, .offset = 1 << 20, .bytes = 64},
    };
    struct device_list list = {.tasks = 3, .task = task};
    port->submit(port->self, &list);
    wait_for(1);
    assert_error(DJ_E_INDEX, list.error);
    assert_int_equal(list.failed_task, 1);
    assert_true(list.fault.text[0] != '\0');
    blob_drop(in);
}

static void the_capability_is_what_the_kernels_have_and_views(void **state)
{
    struct device_port *port = device(state);
    assert_true(port->info->ops[OP_ADD / 8] >> OP_ADD % 8 & 1);
    assert_true(port->info->ops[OP_PERMUTE / 8] >> OP_PERMUTE % 8 & 1);
    assert_false(port->info->ops[0] & 1);
    assert_true(port->info->numerics[0] != '\0');
}

static void trimmed_memory_reads_as_zeros(void **state)
{
    struct device_port *port = device(state);
    struct blob *in = blob_make(1 << 20), *out = blob_make(1 << 20);
    memset(in->data, 5, in->bytes);
    struct device_task write = {.kind = DEVICE_WRITE, .bytes = 1 << 20, .blob = in},
                       read = {.kind = DEVICE_READ, .bytes = 1 << 20, .blob = out};
    struct device_list first = {.tasks = 1, .task = &write}, second = {.tasks = 1, .task = &read};
    port->submit(port->self, &first);
    wait_for(1);
    port->trim(port->self, 0, 1 << 20);
    port->submit(port->self, &second);
    wait_for(2);
    for (size_t i = 0; i < out->bytes; i += 4096)
        assert_int_equal(out->data[i], 0);
    blob_drop(in);
    blob_drop(out);
}

CASES(a_list_writes_computes_and_reads_in_order, lists_come_back_once_each_and_in_the_order_of_submission,
      a_failing_kernel_ends_its_list_and_is_named, the_capability_is_what_the_kernels_have_and_views,
      trimmed_memory_reads_as_zeros)
