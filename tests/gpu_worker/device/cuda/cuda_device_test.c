// The CUDA device on the fake runtime: the suite of all devices, and what is its own: graphs, errors of CUDA, memory that is not there.

#include "gpu_worker/device/cuda/cuda_device.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/knobs.h"
#include "gpu_worker/kernels/cuda/cuda.h"
#include "tests/gpu_worker/device/port_suite.h"
#include "tests/lib/cuda/fake_cublaslt.h"
#include "tests/lib/cuda/fake_runtime.h"

static const uint64_t GPU_BYTES = 256 << 20;

static uint64_t seed = 1;

static enum dj_error try_make(const struct io_sink *sink, uint64_t memory_bytes, struct device_port **ret, struct fault *fault)
{
    struct cuda_device_config config = {.memory_bytes = memory_bytes,
                                        .api = fake_runtime_api(),
                                        .image = fake_runtime_images(),
                                        .chaos = {.is_full = port_is_full, .loses_all = port_loses_all},
                                        .sink = sink};
    return cuda_device_make(&config, ret, fault);
}

// Each test has another order of things.
static struct device_port *make(const struct io_sink *sink)
{
    struct device_port *port;
    struct fault fault;
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_ok(try_make(sink, PORT_REGION_BYTES, &port, &fault));
    return port;
}

// Another device on the runtime of the one before.
static struct device_port *make_again(const struct io_sink *sink)
{
    struct device_port *port;
    struct fault fault;
    assert_ok(try_make(sink, PORT_REGION_BYTES, &port, &fault));
    return port;
}

static bool keeps_runtime;    // a device's end is not the runtime's

static void check_end(void)
{
    if (!keeps_runtime)
        assert_int_equal(fake_runtime_end(), 0);
}

const struct port_subject port_subject = {.make = make, .check_end = check_end};

// A row written, put through softmax twice, and read: enough steps for a graph.
struct trip {
    struct blob *in, *out;
    struct device_tensor tensor[3];
    struct device_task task[4];
    struct device_list list;
};

// softmax of a one-hot row of zeros and infinities is 1 and 0; again, it is e and 1 over their sum: the largest tells the place.
static void trip_make(struct trip *trip, uint32_t at, uint64_t offset)
{
    *trip = (struct trip){.in = port_row(at), .out = blob_make(PORT_ROW_BYTES)};
    memset(trip->out->data, 0, PORT_ROW_BYTES);
    for (uint32_t i = 0; i < 3; i++)
        trip->tensor[i] = port_row_tensor(offset + i * 256);
    trip->task[0] = (struct device_task){.kind = DEVICE_WRITE, .offset = offset, .bytes = PORT_ROW_BYTES, .blob = trip->in};
    trip->task[1] = port_softmax(&trip->tensor[0], &trip->tensor[1]);
    trip->task[2] = port_softmax(&trip->tensor[1], &trip->tensor[2]);
    trip->task[3] = (struct device_task){.kind = DEVICE_READ, .offset = offset + 512, .bytes = PORT_ROW_BYTES, .blob = trip->out};
    trip->list = (struct device_list){.ticket = 1, .tasks = 4, .task = trip->task};
}

static uint32_t trip_result(const struct trip *trip)
{
    float row[PORT_ROW];
    uint32_t at = 0;
    memcpy(row, trip->out->data, sizeof row);
    for (uint32_t i = 0; i < PORT_ROW; i++)
        at = row[i] > row[at] ? i : at;
    return row[at] > 0.27f && row[at] < 0.29f ? at : PORT_ROW;    // e / (e + 7)
}

static void trip_drop(struct trip *trip)
{
    blob_drop(trip->in);
    blob_drop(trip->out);
}

static void recurring_lists_are_captured_once_and_replayed_with_their_own_arguments(void **state)
{
    enum { ROUNDS = 40 };
    static struct trip trip[ROUNDS];
    struct device_port *port = port_make(state);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        trip_make(&trip[i], i % PORT_ROW, i % 7 * 4096);
        trip[i].list.ticket = i + 1;
        port->submit(port->self, &trip[i].list);
    }
    port_wait_for(ROUNDS);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        assert_ok(trip[i].list.error);
        assert_int_equal(trip_result(&trip[i]), i % PORT_ROW);
        trip_drop(&trip[i]);
    }
    struct cuda_device_stats stats = cuda_device_stats(port);
    assert_int_equal(stats.lists, ROUNDS);
    assert_int_equal(stats.graph_captures, 1);
    assert_int_equal(stats.graphs, 1);
    assert_int_equal(stats.graph_launches, ROUNDS - (CUDA_GRAPH_AFTER - 1));
    assert_int_equal(stats.launches, 2 * (CUDA_GRAPH_AFTER - 1));
    assert_int_equal(fake_runtime_kernels(), 2 * ROUNDS);
}

enum { STEPS_MAX = 3000 };

// A list of `steps` softmaxes over rows of `length`: its key differs with both.
static void run_shape(struct device_port *port, int64_t length, uint32_t steps)
{
    static struct device_task task[STEPS_MAX];
    assert_in_range(steps, 1, STEPS_MAX);
    struct device_tensor row = {.offset = 0, .meta = {.dtype = DTYPE_F32, .rank = 1, .size = {length}, .stride = {1}}},
                         other = row;
    other.offset = 1 << 20;
    for (uint32_t i = 0; i < steps; i++)
        task[i] = port_softmax(i % 2 == 0 ? &row : &other, i % 2 == 0 ? &other : &row);
    struct device_list list = {.ticket = 1, .tasks = steps, .task = task};
    port_run(port, &list);
    assert_ok(list.error);
}

static void the_graph_used_longest_ago_makes_room(void **state)
{
    enum { SHAPES = CUDA_GRAPHS_MAX + 3 };
    struct device_port *port = port_make(state);
    for (uint32_t shape = 0; shape < SHAPES; shape++)
        for (uint32_t i = 0; i < CUDA_GRAPH_AFTER + 1; i++)
            run_shape(port, shape % 2 == 0 ? 4 : 40, 2 + shape / 2);
    struct cuda_device_stats stats = cuda_device_stats(port);
    assert_int_equal(stats.graph_captures, SHAPES);
    assert_int_equal(stats.graphs, CUDA_GRAPHS_MAX);
    run_shape(port, 4, 2);    // the first shape has no graph any more; it is counted anew
    assert_int_equal(cuda_device_stats(port).graph_launches, stats.graph_launches);
    run_shape(port, SHAPES % 2 == 1 ? 4 : 40, 2 + (SHAPES - 1) / 2);    // the last one has
    assert_int_equal(cuda_device_stats(port).graph_launches, stats.graph_launches + 1);
}

static void a_program_of_thousands_of_steps_is_captured(void **state)
{
    struct device_port *port = port_make(state);
    for (uint32_t i = 0; i < CUDA_GRAPH_AFTER + 1; i++)
        run_shape(port, 4, STEPS_MAX);
    struct cuda_device_stats stats = cuda_device_stats(port);
    assert_int_equal(stats.graph_captures, 1);
    assert_int_equal(stats.graph_launches, 2);
}

static void a_program_that_cannot_be_captured_is_launched_step_by_step(void **state)
{
    static const char *const functions[] = {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"};
    for (uint32_t f = 0; f < sizeof functions / sizeof functions[0]; f++) {
        struct device_port *port = port_make(state);
        fake_runtime_fail(functions[f], 1, FAKE_RUNTIME_UNKNOWN_ERROR);
        for (uint32_t i = 0; i < 6; i++)
            run_shape(port, 8, 2);
        assert_true(fake_runtime_has_failed());
        assert_int_equal(cuda_device_stats(port).graph_launches, 0);
        assert_int_equal(fake_runtime_kernels(), 12);
        for (uint32_t i = 0; i < CUDA_GRAPH_AFTER; i++)
            run_shape(port, 8, 3);    // other programs are captured all the same
        assert_int_equal(cuda_device_stats(port).graph_launches, 1);
        assert_false(cuda_device_is_lost(port));
        port_stop(port);
    }
}

static void a_launch_refused_within_a_capture_leaves_the_stream_usable(void **state)
{
    struct device_port *port = port_make(state);
    for (uint32_t i = 1; i < CUDA_GRAPH_AFTER; i++)
        run_shape(port, 8, 3);
    fake_runtime_fail("cudaLaunchKernel", 2, FAKE_RUNTIME_UNKNOWN_ERROR);
    run_shape(port, 8, 3);
    assert_true(fake_runtime_has_failed());
    assert_int_equal(cuda_device_stats(port).graph_captures, 0);
    assert_int_equal(fake_runtime_kernels(), 3 * CUDA_GRAPH_AFTER);
    assert_int_equal(port->info->lives, 0);
}

static void check_lost(struct trip *trip, uint32_t trips)
{
    uint32_t failed = 0;
    for (uint32_t i = 0; i < trips; i++) {
        failed += trip[i].list.error != DJ_OK;
        if (trip[i].list.error == DJ_OK) {
            assert_int_equal(failed, 0);
            assert_int_equal(trip_result(&trip[i]), i % PORT_ROW);
        } else {
            assert_error(DJ_E_DEVICE_LOST, trip[i].list.error);
            assert_non_null(strstr(trip[i].list.fault.text, "cudaErrorIllegalAddress"));
            assert_non_null(strstr(trip[i].list.fault.text, "an illegal memory access was encountered"));
            assert_non_null(strstr(trip[i].list.fault.text, "Fake GPU"));
        }
        trip_drop(&trip[i]);
    }
    assert_true(failed > 0);
}

static void an_error_that_stays_fails_all_lists_and_the_next_incarnation_works(void **state)
{
    enum { LISTS = 50 };
    static struct trip trip[LISTS];
    for (uint32_t at = 1; at < 30; at += 4) {
        keeps_runtime = true;
        struct device_port *port = port_make(state);
        fake_runtime_fault(at);
        for (uint32_t i = 0; i < LISTS; i++) {
            trip_make(&trip[i], i % PORT_ROW, 0);
            port->submit(port->self, &trip[i].list);
        }
        port_wait_for(LISTS);
        check_lost(trip, LISTS);
        assert_int_equal(port->info->lives, 1);
        struct trip late;
        trip_make(&late, 1, 0);
        port_run(port, &late.list);
        assert_error(DJ_E_DEVICE_LOST, late.list.error);
        trip_drop(&late);
        port_stop(port);
        assert_int_equal(fake_runtime_calls("cudaDeviceReset"), 1);
        keeps_runtime = false;
        port = port_make_with(state, make_again);
        assert_false(cuda_device_is_lost(port));
        trip_make(&late, 6, 0);
        port_run(port, &late.list);
        assert_ok(late.list.error);
        assert_int_equal(trip_result(&late), 6);
        trip_drop(&late);
        port_stop(port);
    }
}

static void a_lost_device_is_made_anew_for_the_next_incarnation(void **state)
{
    enum { LIVES = 4, LISTS = 12 };
    static struct trip trip[LISTS];
    struct device_port *port = port_make(state);
    uint64_t bytes = port->info->capacity_bytes;
    for (uint32_t life = 1; life <= LIVES; life++) {
        uint32_t failed = 0;
        if (life < LIVES)
            fake_runtime_fault(life * 3);
        for (uint32_t i = 0; i < LISTS; i++) {
            trip_make(&trip[i], i % PORT_ROW, 0);
            trip[i].list.incarnation = life;
            port_run(port, &trip[i].list);
            failed += trip[i].list.error != DJ_OK;
            if (trip[i].list.error == DJ_OK)
                assert_int_equal(trip_result(&trip[i]), i % PORT_ROW);
            else
                assert_error(DJ_E_DEVICE_LOST, trip[i].list.error);
            trip_drop(&trip[i]);
        }
        assert_int_equal(failed > 0, life < LIVES);
        assert_int_equal(port->info->lives, life < LIVES ? life : LIVES - 1);
    }
    assert_int_equal(fake_runtime_calls("cudaDeviceReset"), LIVES - 1);
    assert_int_equal(port->info->capacity_bytes, bytes);
    port_stop(port);
}

// Whatever refuses the next life: memory that is not there, or CUDA, whose documentation wants another process after such an error.
static void a_device_that_cannot_be_made_anew_is_gone_and_says_so_before_its_lists_come_back(void **state)
{
    for (int reason = 0; reason < 2; reason++) {
        struct device_port *port = port_make(state);
        struct trip trip;
        fake_runtime_fault(1);
        if (reason == 0)
            fake_runtime_fail("cudaMalloc", 1, CUDA_OUT_OF_MEMORY);
        else
            fake_runtime_keep_fault();
        for (uint32_t life = 1; life <= 3; life++) {
            trip_make(&trip, 3, 0);
            trip.list.incarnation = life;
            port_run(port, &trip.list);
            assert_error(DJ_E_DEVICE_LOST, trip.list.error);
            assert_non_null(strstr(trip.list.fault.text, "cudaErrorIllegalAddress"));
            assert_true(port->info->is_gone);
            trip_drop(&trip);
        }
        assert_true(cuda_device_is_lost(port));
        assert_int_equal(port->info->lives, 1);
        port_stop(port);
    }
}

// Whichever call hears of it, and though none says it again.
static void every_error_that_cuda_calls_final_loses_the_device(void **state)
{
#define X(name, number, nvidias) number,
    static const int errors[] = {CUDA_FINAL_ERRORS(X)};
#undef X
    static const char *const functions[] = {"cudaEventQuery", "cudaMemcpyAsync", "cudaLaunchKernel", "cudaEventRecord"};
    struct device_port *port = port_make(state);
    for (uint32_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct trip trip;
        trip_make(&trip, 3, 0);
        trip.list.incarnation = i + 1;
        fake_runtime_fail(functions[i % 4], 1, errors[i]);
        port_run(port, &trip.list);
        assert_error(DJ_E_DEVICE_LOST, trip.list.error);
        assert_int_equal(port->info->lives, i + 1);
        trip_drop(&trip);
    }
}

static void a_gpu_that_is_too_old_is_refused_with_its_capability(void **state)
{
    struct device_port *port;
    struct fault fault;
    (void)state;
    ops_init();
    fake_runtime_begin(seed++, GPU_BYTES);
    fake_runtime_set_capability(75);
    assert_error(DJ_E_NO_DEVICE, try_make(port_sink(), PORT_REGION_BYTES, &port, &fault));
    assert_non_null(strstr(fault.text, "compute capability 7.5; djinn's kernels need 8.0"));
    assert_int_equal(fake_runtime_end(), 0);
}

// Every function of CUDA's that a life of the device calls, refused at its n-th call.
static void life_with_a_failure(const char *function, uint64_t nth, int error)
{
    enum { TRIPS = 6 };
    static struct trip trip[TRIPS];
    struct device_port *port;
    struct fault fault;
    fake_runtime_begin(seed++, GPU_BYTES);
    fake_runtime_fail(function, nth, error);
    port_reset();
    enum dj_error made = try_make(port_sink(), 2 << 20, &port, &fault);
    if (made != DJ_OK) {
        assert_true(made == DJ_E_DEVICE || (made == DJ_E_DEVICE_MEMORY && error == CUDA_OUT_OF_MEMORY));
        assert_true(fake_runtime_has_failed() && fault.text[0] != '\0');
        assert_int_equal(fake_runtime_end(), 0);
        return;
    }
    for (uint32_t i = 0; i < TRIPS; i++) {
        trip_make(&trip[i], i % PORT_ROW, i % 2 * 4096);
        trip[i].list.ticket = i + 1;
        trip[i].list.stream = i == 2 ? DEVICE_TRANSFER : DEVICE_COMPUTE;
        trip[i].list.after = i == 2 || i == 3 ? i : 0;
        port->submit(port->self, &trip[i].list);
    }
    port_wait_for(TRIPS);
    uint32_t failed = 0;
    for (uint32_t i = 0; i < TRIPS; i++) {
        const struct device_list *list = &trip[i].list;
        failed += list->error != DJ_OK;
        if (list->error != DJ_OK)
            assert_true(list->error == DJ_E_DEVICE && strstr(list->fault.text, "cudaError") != NULL);
        else
            assert_int_equal(trip_result(&trip[i]), i % PORT_ROW);
        trip_drop(&trip[i]);
    }
    assert_true(failed <= 1 && (failed == 0 || fake_runtime_has_failed()));
    assert_false(cuda_device_is_lost(port));
    port->stop(port->self);
    assert_int_equal(fake_runtime_end(), 0);
    assert_int_equal(port_done(), TRIPS);
}

static void any_call_refused_once_fails_at_most_one_list_and_loses_nothing(void **state)
{
    enum { CALLS_MOST = 12 };
    uint32_t refused = 0;
    (void)state;
    ops_init();
    for (uint32_t f = 0; f < fake_runtime_function_count; f++)
        for (uint64_t nth = 1; nth <= CALLS_MOST; nth++) {
            life_with_a_failure(fake_runtime_functions[f], nth, nth % 2 == 0 ? CUDA_OUT_OF_MEMORY : FAKE_RUNTIME_UNKNOWN_ERROR);
            if (!fake_runtime_has_failed())
                break;
            refused++;
        }
    assert_true(refused > 100);
}

// A device that loses everything and is stopped at once, while any call that makes it anew is refused: every list comes back once, and
// nothing is left.
static void loss_with_a_failure(const char *function, uint64_t nth)
{
    enum { TRIPS = 6, FIRST_LIFE = 3 };
    static struct trip trip[TRIPS];
    struct device_port *port;
    struct fault fault;
    fake_runtime_begin(seed++, GPU_BYTES);
    port_reset();
    assert_ok(try_make(port_sink(), 2 << 20, &port, &fault));
    fake_runtime_fail(function, nth, nth % 2 == 0 ? CUDA_OUT_OF_MEMORY : FAKE_RUNTIME_UNKNOWN_ERROR);
    knob_set(KNOB_DEVICE_LOST, 1);
    for (uint32_t i = 0; i < TRIPS; i++) {
        trip_make(&trip[i], i % PORT_ROW, i % 2 * 4096);
        trip[i].list.ticket = i + 1;
        trip[i].list.incarnation = i < FIRST_LIFE ? 1 : 2;
        trip[i].list.stream = i % 2 == 0 ? DEVICE_COMPUTE : DEVICE_TRANSFER;
        port->submit(port->self, &trip[i].list);
    }
    port->stop(port->self);
    knob_set(KNOB_DEVICE_LOST, 0);
    assert_int_equal(port_done(), TRIPS);
    assert_int_equal(fake_runtime_end(), 0);
    for (uint32_t i = 0; i < TRIPS; i++) {
        if (trip[i].list.error == DJ_OK)
            assert_int_equal(trip_result(&trip[i]), i % PORT_ROW);
        else
            assert_true(fake_runtime_has_failed() || (trip[i].list.error == DJ_E_DEVICE_LOST && i < FIRST_LIFE));
        trip_drop(&trip[i]);
    }
}

static void a_loss_gives_every_list_back_whatever_call_is_refused_and_though_it_is_stopped_meanwhile(void **state)
{
    enum { CALLS_MOST = 6 };
    uint32_t refused = 0;
    (void)state;
    ops_init();
    for (uint32_t f = 0; f < fake_runtime_function_count; f++)
        for (uint64_t nth = 1; nth <= CALLS_MOST; nth++) {
            loss_with_a_failure(fake_runtime_functions[f], nth);
            if (!fake_runtime_has_failed())
                break;
            refused++;
        }
    assert_true(refused > 60);
}

static void memory_that_is_not_there_is_told_with_sizes_at_the_start(void **state)
{
    (void)state;
    ops_init();
    struct device_port *port;
    struct fault fault;
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_error(DJ_E_DEVICE_MEMORY, try_make(port_sink(), (uint64_t)1 << 30, &port, &fault));
    assert_non_null(strstr(fault.text, "1073741824 bytes"));
    assert_non_null(strstr(fault.text, "268435456 bytes are free"));
    assert_int_equal(fake_runtime_end(), 0);
    fake_runtime_begin(seed++, 1 << 20);
    assert_error(DJ_E_DEVICE_MEMORY, try_make(port_sink(), 0, &port, &fault));
    assert_int_equal(fake_runtime_end(), 0);
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_error(DJ_E_DEVICE_MEMORY, try_make(port_sink(), 1 << 20, &port, &fault));
    assert_int_equal(fake_runtime_end(), 0);
}

static void without_a_size_most_of_what_is_free_becomes_the_region(void **state)
{
    ops_init();
    struct device_port *port;
    struct fault fault;
    (void)state;
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_ok(try_make(port_sink(), 0, &port, &fault));
    uint64_t capacity = port->info->capacity_bytes;
    assert_true(capacity % (2 << 20) == 0 && capacity > GPU_BYTES / 10 * 7 && capacity < GPU_BYTES / 10 * 9);
    assert_string_equal(port->info->numerics, "cuda sm_90 kernels-2 cublasLt-none cudnn-none tf32-off");
    assert_string_equal(port->info->name, "Fake GPU");
    assert_string_equal(port->info->backend, "cuda");
    port->stop(port->self);
    assert_int_equal(fake_runtime_end(), 0);
}

static void libraries_are_part_of_the_numerics_class_and_closed_at_the_end(void **state)
{
    struct cuda_device_config config = {.memory_bytes = 2 << 20,
                                        .allows_tf32 = true,
                                        .api = fake_runtime_api(),
                                        .blas = fake_cublaslt_api(),
                                        .image = fake_runtime_images(),
                                        .sink = port_sink()};
    struct device_port *port;
    struct fault fault;
    (void)state;
    ops_init();
    fake_cublaslt_reset();
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_ok(cuda_device_make(&config, &port, &fault));
    assert_int_equal(strncmp(port->info->numerics, "cuda sm_90 kernels-2 cublasLt-130100 cudnn-none products-", 57), 0);
    assert_non_null(strstr(port->info->numerics, " tf32-on"));
    port->stop(port->self);
    assert_int_equal(fake_runtime_end(), 0);
    assert_int_equal(fake_cublaslt.live, 0);
    fake_cublaslt_reset();
    fake_cublaslt.fail_at = 1;
    fake_cublaslt.fail_status = 1;
    fake_runtime_begin(seed++, GPU_BYTES);
    assert_error(DJ_E_DEVICE, cuda_device_make(&config, &port, &fault));
    assert_non_null(strstr(fault.text, "cuBLASLt cannot be started: status 1"));
    assert_int_equal(fake_runtime_end(), 0);
    assert_int_equal(fake_cublaslt.live, 0);
}

static void a_stream_that_waits_does_not_hold_up_the_other(void **state)
{
    struct device_port *port = port_make(state);
    struct trip first, second;
    fake_runtime_set_running(false);
    // More than the pinned memory of a stream takes.
    struct blob *in = blob_make(PORT_REGION_BYTES - (1 << 20));
    memset(in->data, 1, in->bytes);
    static struct device_task task[3];
    for (uint32_t i = 0; i < 3; i++)
        task[i] = (struct device_task){.kind = DEVICE_WRITE, .offset = 1 << 20, .bytes = in->bytes, .blob = in};
    struct device_list large = {.ticket = 1, .stream = DEVICE_TRANSFER, .tasks = 3, .task = task};
    trip_make(&first, 2, 0);
    trip_make(&second, 4, 8192);
    first.list.ticket = 2;
    first.list.after = 1;
    first.list.stream = DEVICE_COMPUTE;
    port->submit(port->self, &large);
    usleep(30000);
    assert_true(fake_runtime_calls("cudaMemcpyAsync") < 3 * in->bytes / CUDA_CHUNK_BYTES);
    second.list.ticket = 3;
    port->submit(port->self, &second.list);
    for (int tries = 0; tries < 2000 && fake_runtime_calls("cudaLaunchKernel") < 2; tries++)
        usleep(500);
    assert_int_equal(fake_runtime_calls("cudaLaunchKernel"), 2);    // issued, though nothing has run
    assert_int_equal(port_done(), 0);
    port->submit(port->self, &first.list);
    fake_runtime_set_running(true);
    port_wait_for(3);
    assert_ok(large.error);
    assert_int_equal(trip_result(&first), 2);
    assert_int_equal(trip_result(&second), 4);
    blob_drop(in);
    trip_drop(&first);
    trip_drop(&second);
}

static void device_code_is_loaded_once_a_family_and_when_first_needed(void **state)
{
    struct device_port *port = port_make(state);
    assert_int_equal(fake_runtime_calls("cudaLibraryLoadData"), 0);
    for (uint32_t i = 0; i < 3; i++)
        run_shape(port, 8, 5 + i);
    assert_int_equal(fake_runtime_calls("cudaLibraryLoadData"), 1);
    assert_int_equal(fake_runtime_calls("cudaLibraryGetKernel"), 1);
}

PORT_CASES(PORT_SUITE, recurring_lists_are_captured_once_and_replayed_with_their_own_arguments,
           the_graph_used_longest_ago_makes_room, a_program_of_thousands_of_steps_is_captured,
           a_program_that_cannot_be_captured_is_launched_step_by_step, a_launch_refused_within_a_capture_leaves_the_stream_usable,
           an_error_that_stays_fails_all_lists_and_the_next_incarnation_works,
           a_lost_device_is_made_anew_for_the_next_incarnation,
           a_device_that_cannot_be_made_anew_is_gone_and_says_so_before_its_lists_come_back,
           every_error_that_cuda_calls_final_loses_the_device, a_gpu_that_is_too_old_is_refused_with_its_capability,
           any_call_refused_once_fails_at_most_one_list_and_loses_nothing,
           a_loss_gives_every_list_back_whatever_call_is_refused_and_though_it_is_stopped_meanwhile,
           memory_that_is_not_there_is_told_with_sizes_at_the_start, without_a_size_most_of_what_is_free_becomes_the_region,
           libraries_are_part_of_the_numerics_class_and_closed_at_the_end, a_stream_that_waits_does_not_hold_up_the_other,
           device_code_is_loaded_once_a_family_and_when_first_needed)
