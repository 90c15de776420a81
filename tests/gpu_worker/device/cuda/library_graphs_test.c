// Captured graphs and plans of cuDNN (gpu_worker/device/cuda/graphs.c) on the fake runtime and a fake of the library: a kernel whose plan
// is gone when it runs ends the process there, as it would read code that is no more on a GPU.

#include <string.h>

#include "gpu_worker/device/cuda/cuda_device.h"
#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/libraries.h"
#include "tests/gpu_worker/device/port_suite.h"
#include "tests/lib/cuda/fake_cudnn.h"
#include "tests/lib/cuda/fake_runtime.h"

enum { MANY = DNN_PLANS_MAX + 8, WIDTH_MOST = 8 + 2 * MANY, FILTER_AT = 0, FIRST_AT = 64 << 10, STEP = 64 << 10 };

static const uint64_t GPU_BYTES = 256 << 20;
static uint64_t seed = 1;

static struct device_port *make(const struct io_sink *sink)
{
    struct cuda_device_config config = {.memory_bytes = PORT_REGION_BYTES,
                                        .api = fake_runtime_api(),
                                        .dnn = fake_cudnn_api(),
                                        .image = fake_runtime_images(),
                                        .sink = sink};
    struct device_port *port;
    struct fault fault;
    fake_runtime_begin(seed++, GPU_BYTES);
    fake_cudnn_reset();
    fake_cudnn.enqueue = fake_runtime_enqueue;
    assert_ok(cuda_device_make(&config, &port, &fault));
    return port;
}

static void check_end(void)
{
    assert_int_equal(fake_runtime_end(), 0);
    assert_int_equal(fake_cudnn.live, 0);
    fake_cudnn_reset();
}

const struct port_subject port_subject = {.make = make, .check_end = check_end};

static struct device_tensor row(uint64_t offset, int64_t width)
{
    return (struct device_tensor){
        .offset = offset, .meta = {.dtype = DTYPE_F32, .rank = 4, .size = {1, 1, 1, width}, .stride = {width, width, width, 1}}};
}

// Convolutions with a filter of one number, 2.
static struct device_task doubling(const struct device_tensor *in, const struct device_tensor *out)
{
    static const int64_t one[] = {1, 1}, none[] = {0, 0};
    static const struct attr attr[8] = {
        {.kind = ATTR_INTS, .count = 2, .ints = one},  {.kind = ATTR_INTS, .count = 2, .ints = none},
        {.kind = ATTR_INTS, .count = 2, .ints = one},  {.kind = ATTR_BOOL},
        {.kind = ATTR_INTS, .count = 2, .ints = none}, {.kind = ATTR_INT, .i = 1}};
    return (struct device_task){
        .kind = DEVICE_KERNEL, .op = op_info(OP_CONVOLUTION), .in = in, .n_in = 2, .out = out, .n_out = 1, .attr = attr};
}

// [first, first + widths) numbers in a row, each width doubled twice, in one list; `value` is what stands in the rows.
static void run_widths(struct device_port *port, int64_t first, uint32_t widths, float value)
{
    static struct device_tensor in[2 * MANY][2], out[2 * MANY];
    static struct device_task task[2 * MANY + 3];
    struct blob *filter = blob_make(sizeof(float)), *from = blob_make(WIDTH_MOST * sizeof(float)),
                *to = blob_make(WIDTH_MOST * sizeof(float));
    uint32_t tasks = 0;
    ((float *)(void *)filter->data)[0] = 2;
    for (int64_t i = 0; i < WIDTH_MOST; i++)
        ((float *)(void *)from->data)[i] = value;
    task[tasks++] = (struct device_task){.kind = DEVICE_WRITE, .offset = FILTER_AT, .bytes = sizeof(float), .blob = filter};
    task[tasks++] = (struct device_task){
        .kind = DEVICE_WRITE, .offset = FIRST_AT, .bytes = WIDTH_MOST * sizeof(float), .blob = from};
    for (uint32_t i = 0; i < 2 * widths; i++) {
        int64_t width = first + i / 2;
        in[i][0] = row(FIRST_AT + i % 2 * STEP, width);
        in[i][1] = row(FILTER_AT, 1);
        out[i] = row(FIRST_AT + (i % 2 + 1) * STEP, width);
        task[tasks++] = doubling(in[i], &out[i]);
    }
    uint64_t bytes = (uint64_t)(first + widths - 1) * sizeof(float);
    task[tasks++] = (struct device_task){.kind = DEVICE_READ, .offset = FIRST_AT + 2 * STEP, .bytes = bytes, .blob = to};
    struct device_list list = {.ticket = 1, .tasks = tasks, .task = task};
    port_run(port, &list);
    if (list.error != DJ_OK)
        fail_msg("%s", list.fault.text);
    for (int64_t i = 0; i < first + widths - 1; i++)
        assert_true(((float *)(void *)to->data)[i] == 4 * value);
    blob_drop(filter);
    blob_drop(from);
    blob_drop(to);
}

static void library_calls_are_captured_and_replayed(void **state)
{
    struct device_port *port = port_make(state);
    for (int i = 1; i <= 5; i++)
        run_widths(port, 8, 1, (float)i);
    struct cuda_device_stats stats = cuda_device_stats(port);
    assert_int_equal(stats.graph_captures, 1);
    assert_int_equal(stats.graph_launches, 5 - (CUDA_GRAPH_AFTER - 1));
    assert_int_equal(fake_cudnn.plans, 1);
}

static void a_plan_that_goes_takes_graphs_with_library_calls_along(void **state)
{
    struct device_port *port = port_make(state);
    for (int i = 1; i <= CUDA_GRAPH_AFTER; i++)
        run_widths(port, 8, 1, (float)i);
    assert_int_equal(cuda_device_stats(port).graphs, 1);
    run_widths(port, 9, DNN_PLANS_MAX - 1, 1);
    assert_int_equal(cuda_device_stats(port).graphs, 1);    // there was room
    run_widths(port, 8 + DNN_PLANS_MAX, 1, 1);
    assert_int_equal(cuda_device_stats(port).graphs, 0);
    // What is captured again has run step by step since.
    for (int i = 1; i <= CUDA_GRAPH_AFTER; i++) {
        assert_int_equal(cuda_device_stats(port).graph_captures, 1);
        run_widths(port, 8, 1, (float)-i);
    }
    assert_int_equal(cuda_device_stats(port).graph_captures, 2);
    run_widths(port, 8, 1, 7);
    assert_int_equal(cuda_device_stats(port).graph_launches, 1 + 2);
}

static void graphs_without_library_calls_stay(void **state)
{
    struct device_tensor a = row(FIRST_AT, 8), b = row(FIRST_AT + STEP, 8);
    struct device_port *port = port_make(state);
    struct device_task task[] = {port_softmax(&a, &b), port_softmax(&b, &a)};
    for (int i = 0; i < CUDA_GRAPH_AFTER; i++) {
        struct device_list list = {.ticket = 1, .tasks = 2, .task = task};
        port_run(port, &list);
        assert_ok(list.error);
    }
    assert_int_equal(cuda_device_stats(port).graphs, 1);
    run_widths(port, 8, MANY, 1);
    assert_int_equal(cuda_device_stats(port).graphs, 1);
}

static void a_program_of_more_shapes_than_there_are_plans_runs_and_is_never_captured(void **state)
{
    struct device_port *port = port_make(state);
    for (int i = 1; i <= CUDA_GRAPH_AFTER + 1; i++)
        run_widths(port, 8, MANY, (float)i);
    assert_int_equal(cuda_device_stats(port).graph_captures, 0);
    assert_true(fake_cudnn.plans > MANY);
    assert_false(cuda_device_is_lost(port));
}

static void the_library_is_part_of_the_numerics_class_and_closed_at_the_end(void **state)
{
    struct device_port *port = port_make(state);
    assert_non_null(strstr(port->info->numerics, " cudnn-91900 plans-"));
    port_stop(port);    // check_end counts
    struct cuda_device_config config = {.memory_bytes = 2 << 20,
                                        .api = fake_runtime_api(),
                                        .dnn = fake_cudnn_api(),
                                        .image = fake_runtime_images(),
                                        .sink = port_sink()};
    struct fault fault;
    fake_runtime_begin(seed++, GPU_BYTES);
    fake_cudnn.fail_at = 1;
    fake_cudnn.fail_status = CUDNN_STATUS_INTERNAL_ERROR;
    assert_error(DJ_E_DEVICE, cuda_device_make(&config, &port, &fault));
    assert_non_null(strstr(fault.text, "cuDNN cannot be started: an error of the fake"));
    check_end();
}

CASES(library_calls_are_captured_and_replayed, a_plan_that_goes_takes_graphs_with_library_calls_along,
      graphs_without_library_calls_stay, a_program_of_more_shapes_than_there_are_plans_runs_and_is_never_captured,
      the_library_is_part_of_the_numerics_class_and_closed_at_the_end)
