// Times of the CUDA device on the fake runtime: some of the suite of all devices with every launch timed, and what the file says.

#include "gpu_worker/device/cuda/timing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu_worker/device/cuda/cuda_device.h"
#include "tests/gpu_worker/device/port_suite.h"
#include "tests/lib/cuda/fake_cublaslt.h"
#include "tests/lib/cuda/fake_runtime.h"

static const uint64_t GPU_BYTES = 256 << 20;

static uint64_t seed = 1;
static char path[64];
static struct cuda_device_config config;

static void remove_file(void)
{
    unlink(path);
}

static struct device_port *make_with(const struct io_sink *sink, bool times_launches)
{
    struct device_port *port;
    struct fault fault;
    if (path[0] == '\0')
        atexit(remove_file);
    snprintf(path, sizeof path, "/tmp/djinn-timing-%d.json", (int)getpid());
    remove_file();
    config = (struct cuda_device_config){.memory_bytes = PORT_REGION_BYTES,
                                         .api = fake_runtime_api(),
                                         .image = fake_runtime_images(),
                                         .timing_file = path,
                                         .times_launches = times_launches,
                                         .sink = sink};
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_ok(cuda_device_make(&config, &port, &fault));
    return port;
}

static struct device_port *make(const struct io_sink *sink)
{
    return make_with(sink, true);
}
static struct device_port *make_counting(const struct io_sink *sink)
{
    return make_with(sink, false);
}

static void check_end(void)
{
    assert_int_equal(fake_runtime_end(), 0);
}

const struct port_subject port_subject = {.make = make, .check_end = check_end};

// A list of `steps` softmaxes over a row of `length`; its error.
static enum dj_error run_softmaxes(struct device_port *port, int64_t length, uint32_t steps, uint64_t incarnation)
{
    static struct device_task task[64];
    struct device_tensor row = {.offset = 0, .meta = {.dtype = DTYPE_F32, .rank = 1, .size = {length}, .stride = {1}}},
                         other = row;
    other.offset = 1 << 20;
    for (uint32_t i = 0; i < steps; i++)
        task[i] = port_softmax(i % 2 == 0 ? &row : &other, i % 2 == 0 ? &other : &row);
    struct device_list list = {.ticket = 1, .incarnation = incarnation, .tasks = steps, .task = task};
    port_run(port, &list);
    return list.error;
}

static const char *read_file(void)
{
    static char text[8192];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static uint64_t value_of(const char *text, const char *name)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\": ", name);
    const char *at = strstr(text, wanted);
    assert_non_null(at);
    return strtoull(at + strlen(wanted), NULL, 10);
}

static void each_launch_is_counted_under_its_op_and_kernel_with_its_bytes(void **state)
{
    struct device_port *port = port_make(state);
    for (uint32_t i = 0; i < 10; i++)
        assert_ok(run_softmaxes(port, 8, 3, 0));
    assert_ok(run_softmaxes(port, 1000, 2, 0));
    assert_int_equal(cuda_device_stats(port).graph_captures, 0);
    port_stop(port);
    const char *text = read_file();
    assert_int_equal(value_of(text, "lists"), 11);
    assert_int_equal(value_of(text, "launches"), 32);
    assert_int_equal(value_of(text, "unmeasured"), 0);
    assert_true(value_of(text, "elapsed_ns") > 0);
    assert_true(value_of(text, "list_ns") >= value_of(text, "program_ns") + value_of(text, "launch_ns"));
    // In and out, four bytes each: 30 times 8 elements, twice 1000.
    const char *few = strstr(text, "\"count\": 30"), *many = strstr(text, "\"count\": 2,");
    assert_non_null(few);
    assert_non_null(many);
    assert_int_equal(value_of(few, "bytes"), 30 * 2 * 8 * 4);
    assert_int_equal(value_of(many, "bytes"), 2 * 2 * 1000 * 4);
    assert_true(value_of(few, "ns") > 0);
    assert_non_null(strstr(text, "\"kernel\": \"softmax"));
}

static void a_gather_counts_the_rows_that_it_takes(void **state)
{
    struct device_port *port = port_make(state);
    struct device_tensor in[2] = {
        {.offset = 0, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {1000, 8}, .stride = {8, 1}}},
        {.offset = 1 << 20, .meta = {.dtype = DTYPE_I64, .rank = 1, .size = {2}, .stride = {1}}},
    };
    struct device_tensor out = {.offset = 2 << 20, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {2, 8}, .stride = {8, 1}}};
    static const struct attr attr[4];
    struct device_task task[2] = {
        {.kind = DEVICE_ZERO, .offset = 0, .bytes = 3 << 20},
        {.kind = DEVICE_KERNEL,
         .op = op_info(OP_EMBEDDING),
         .compute = DTYPE_F32,
         .n_in = 2,
         .in = in,
         .n_out = 1,
         .out = &out,
         .attr = attr},
    };
    struct device_list list = {.ticket = 1, .tasks = 2, .task = task};
    port_run(port, &list);
    assert_ok(list.error);
    port_stop(port);
    assert_int_equal(value_of(read_file(), "count"), 1);
    assert_int_equal(value_of(strstr(read_file(), "\"count\""), "bytes"), 2 * 8 + 2 * 8 * 4 + 2 * 8 * 4);
}

static void counting_alone_leaves_graphs_as_they_are(void **state)
{
    struct device_port *port = port_make_with(state, make_counting);
    for (uint32_t i = 0; i < 10; i++)
        assert_ok(run_softmaxes(port, 8, 3, 0));
    port_stop(port);
    const char *text = read_file();
    assert_int_equal(value_of(text, "graph_captures"), 1);
    assert_int_equal(value_of(text, "graph_launches"), 10 - (CUDA_GRAPH_AFTER - 1));
    assert_int_equal(value_of(text, "launches"), 3 * (CUDA_GRAPH_AFTER - 1));
    assert_non_null(strstr(text, "\"kernels\": []"));
}

static void the_file_is_complete_when_the_device_has_rested(void **state)
{
    struct device_port *port = port_make(state);
    assert_ok(run_softmaxes(port, 8, 3, 0));
    for (int tries = 0; tries < 200 && (access(path, F_OK) != 0 || value_of(read_file(), "lists") == 0); tries++)
        usleep(20000);
    assert_int_equal(value_of(read_file(), "launches"), 3);
    assert_non_null(strstr(read_file(), "\"count\": 3,"));
}

static void more_launches_than_there_are_pairs_of_events_are_all_timed(void **state)
{
    struct device_port *port = port_make(state);
    struct device_tensor row = port_row_tensor(0), other = port_row_tensor(4096);
    static struct device_task task[TIMING_PAIRS + 100];
    for (uint32_t i = 0; i < TIMING_PAIRS + 100; i++)
        task[i] = port_softmax(i % 2 == 0 ? &row : &other, i % 2 == 0 ? &other : &row);
    struct device_list list = {.ticket = 1, .tasks = TIMING_PAIRS + 100, .task = task};
    port_run(port, &list);
    assert_ok(list.error);
    port_stop(port);
    assert_int_equal(value_of(read_file(), "count"), TIMING_PAIRS + 100);
    assert_int_equal(value_of(read_file(), "unmeasured"), 0);
}

static void a_time_that_cannot_be_taken_is_counted_and_fails_nothing(void **state)
{
    static const char *const functions[] = {"cudaEventCreateWithFlags", "cudaEventElapsedTime"};
    for (uint32_t f = 0; f < sizeof functions / sizeof functions[0]; f++) {
        struct device_port *port = port_make(state);
        fake_runtime_fail(functions[f], 1, FAKE_RUNTIME_UNKNOWN_ERROR);
        assert_ok(run_softmaxes(port, 8, 3, 0));
        assert_true(fake_runtime_has_failed());
        assert_int_equal(fake_runtime_kernels(), 3);
        port_stop(port);
        assert_int_equal(value_of(read_file(), "unmeasured") + value_of(read_file(), "count"), 3);
        assert_true(value_of(read_file(), "unmeasured") <= 1);
    }
}

static void a_device_made_anew_is_timed_further(void **state)
{
    struct device_port *port = port_make(state);
    assert_ok(run_softmaxes(port, 8, 3, 1));
    fake_runtime_fault(2);
    assert_error(DJ_E_DEVICE_LOST, run_softmaxes(port, 8, 3, 1));
    assert_int_equal(port->info->lives, 1);
    assert_ok(run_softmaxes(port, 8, 3, 2));
    assert_false(cuda_device_is_lost(port));
    port_stop(port);
    assert_true(value_of(read_file(), "count") >= 6);
    assert_int_equal(value_of(read_file(), "lists"), 3);
}

static void a_folder_that_is_not_there_is_logged_and_fails_nothing(void **state)
{
    struct device_port *port;
    struct fault fault;
    (void)state;
    ops_init();
    port_reset();
    config = (struct cuda_device_config){.memory_bytes = PORT_REGION_BYTES,
                                         .api = fake_runtime_api(),
                                         .image = fake_runtime_images(),
                                         .timing_file = "/nowhere/at/all.json",
                                         .times_launches = true,
                                         .sink = port_sink()};
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_ok(cuda_device_make(&config, &port, &fault));
    assert_ok(run_softmaxes(port, 8, 3, 0));
    port->stop(port->self);
    assert_int_equal(fake_runtime_end(), 0);
}

static void fills_go_before_a_programs_launches_where_there_is_a_workspace(void **state)
{
    struct device_port *port;
    struct fault fault;
    (void)state;
    ops_init();
    port_reset();
    fake_cublaslt_reset();
    fake_runtime_begin(seed++, GPU_BYTES);
    struct device_port *other = make(port_sink());
    other->stop(other->self);
    assert_int_equal(fake_runtime_calls("cudaMemsetAsync"), 0);
    config.blas = fake_cublaslt_api();
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_ok(cuda_device_make(&config, &port, &fault));
    for (uint32_t i = 0; i < 3; i++)
        assert_ok(run_softmaxes(port, 8, 40, 0));
    assert_true(fake_runtime_calls("cudaMemsetAsync") >= 2);    // at least those that tell how long one takes
    port->stop(port->self);
    assert_int_equal(fake_runtime_end(), 0);
    assert_int_equal(value_of(read_file(), "delays"), fake_runtime_calls("cudaMemsetAsync") - 2);
}

PORT_CASES(a_list_writes_computes_and_reads_in_order, the_first_of_two_failures_is_named,
           lists_of_both_streams_mixed_at_random_keep_every_order, each_launch_is_counted_under_its_op_and_kernel_with_its_bytes,
           a_gather_counts_the_rows_that_it_takes, counting_alone_leaves_graphs_as_they_are,
           the_file_is_complete_when_the_device_has_rested, more_launches_than_there_are_pairs_of_events_are_all_timed,
           a_time_that_cannot_be_taken_is_counted_and_fails_nothing, a_device_made_anew_is_timed_further,
           a_folder_that_is_not_there_is_logged_and_fails_nothing, fills_go_before_a_programs_launches_where_there_is_a_workspace)
