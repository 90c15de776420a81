// The ABI of djinn.h against a real embedded head and worker ($DJINN_PROGRAM): what programs do to it, in order and out of order.

#include <djinn/djinn.h>

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/case.h"

enum { F32 = 9, THREADS = 4, ROUNDS = 200 };

static struct dj_fault fault;

#define assert_works(call) assert_dj(0, (call), #call, __LINE__)
#define assert_fails(expected, call) assert_dj((expected), (call), #call, __LINE__)

static void assert_dj(int expected, int error, const char *text, int line)
{
    if (error != expected)
        fail_msg("line %d: %s gives %s, not %s: %s", line, text, dj_error_name_of(error), dj_error_name_of(expected),
                 error == 0 ? "" : fault.text);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static struct dj_tensor upload(const float *data, int64_t rows, int64_t columns)
{
    struct dj_tensor shape = {.dtype = F32, .rank = 2, .size = {rows, columns}, .stride = {columns, 1}}, tensor;
    assert_works(dj_upload(DJ_ANY_DEVICE, data, &shape, &tensor, &fault));
    return tensor;
}

static int record(const char *op, const struct dj_tensor *a, const struct dj_tensor *b, struct dj_tensor *out)
{
    struct dj_arg in[2] = {{.kind = DJ_ARG_TENSOR, .tensor = a}, {.kind = DJ_ARG_TENSOR, .tensor = b}};
    struct dj_attr alpha = {.kind = DJ_ATTR_INT, .value.i = 1};
    const struct dj_op *info = dj_op_find(op);
    return dj_record(info->number, in, 2, &alpha, info->attrs, 0, DJ_ANY_DEVICE, out, &fault);
}

static void expect_double(const struct dj_tensor *x, float first)
{
    struct dj_tensor y;
    float data[4];
    assert_works(record("add.Tensor", x, x, &y));
    assert_works(dj_read(&y, data, sizeof data, &fault));
    assert_true(data[0] == 2 * first);
    dj_cell_drop(y.cell);
}

// The djinn process that is this one's child.
static pid_t embedded_pid(pid_t parent)
{
    pid_t found = 0;
    DIR *folder = opendir("/proc");
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char path[300], line[512] = {0};
        snprintf(path, sizeof path, "/proc/%.64s/stat", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue;
        // "PID (djinn) STATE PPID ..."
        char *state = fgets(line, sizeof line, file) == NULL ? NULL : strstr(line, " (djinn) ");
        if (state != NULL && state[9] != 'Z' && strtol(state + 10, NULL, 10) == parent)
            found = (pid_t)strtol(line, NULL, 10);
        fclose(file);
    }
    closedir(folder);
    return found;
}

static void first_use_starts_an_embedded_worker(void **state)
{
    (void)state;
    assert_false(dj_is_initialized());
    struct dj_tensor x = upload((float[]){1, 2, 3, 4}, 2, 2);
    assert_false(dj_is_initialized());    // recording needs nobody
    expect_double(&x, 1);
    assert_true(dj_is_initialized());
    assert_int_equal(dj_device_count(), 1);
    assert_int_equal(dj_op_is_native(dj_op_find("mm")->number), 1);
    struct dj_stats stats;
    dj_stats(&stats);
    assert_true(stats.init_ns > 0 && stats.executions == 1);
    dj_cell_drop(x.cell);
}

static void a_wrong_shape_is_told_at_once_in_words(void **state)
{
    (void)state;
    struct dj_tensor x = upload((float[]){1, 2, 3, 4, 5, 6}, 2, 3), y;
    dj_set_site(42);
    int error = record("mm", &x, &x, &y);
    assert_string_equal(dj_error_name_of(error), "SHAPE");
    assert_int_equal(fault.site, 42);
    assert_true(strlen(fault.text) > 0);
    dj_cell_drop(x.cell);
}

static void large_and_empty_tensors_travel(void **state)
{
    (void)state;
    int64_t rows = 3000, columns = 2000;    // 24 MB: several chunks
    float *data = malloc((size_t)(rows * columns) * sizeof *data), *back = malloc((size_t)(rows * columns) * sizeof *back);
    for (int64_t i = 0; i < rows * columns; i++)
        data[i] = (float)(i % 1000);
    struct dj_tensor x = upload(data, rows, columns), y, none = upload(NULL, 0, 3), also;
    assert_works(record("add.Tensor", &x, &x, &y));
    assert_works(dj_read(&y, back, (size_t)(rows * columns) * sizeof *back, &fault));
    for (int64_t i = 0; i < rows * columns; i++)
        if (back[i] != 2 * data[i])
            fail_msg("element %ld is %g", (long)i, (double)back[i]);
    assert_works(record("add.Tensor", &none, &none, &also));
    assert_works(dj_read(&also, back, 0, &fault));
    dj_cell_drop(x.cell);
    dj_cell_drop(y.cell);
    dj_cell_drop(none.cell);
    dj_cell_drop(also.cell);
    free(data);
    free(back);
}

static void *work(void *argument)
{
    float first = *(float *)argument, data[4] = {first, 0, 0, 0};
    struct dj_tensor shape = {.dtype = F32, .rank = 1, .size = {4}, .stride = {1}}, x;
    struct dj_fault why;
    if (dj_upload(DJ_ANY_DEVICE, data, &shape, &x, &why) != 0)
        return (void *)1;
    for (int i = 0; i < ROUNDS; i++) {
        struct dj_arg in[2] = {{.kind = DJ_ARG_TENSOR, .tensor = &x}, {.kind = DJ_ARG_TENSOR, .tensor = &x}};
        struct dj_attr alpha = {.kind = DJ_ATTR_INT, .value.i = 1};
        struct dj_tensor y;
        float back[4];
        if (dj_record(dj_op_find("add.Tensor")->number, in, 2, &alpha, 1, 0, DJ_ANY_DEVICE, &y, &why) != 0 ||
            dj_read(&y, back, sizeof back, &why) != 0 || back[0] != 2 * first)
            return (void *)1;
        dj_cell_drop(y.cell);
    }
    dj_cell_drop(x.cell);
    return NULL;
}

static void several_threads_record_and_read(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    float first[THREADS];
    for (int i = 0; i < THREADS; i++) {
        first[i] = (float)i + 1;
        assert_int_equal(pthread_create(&thread[i], NULL, work, &first[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
}

static int say_stop(void *context)
{
    ++*(int *)context;
    return 1;
}

static void a_blocking_read_can_be_interrupted_and_made_again(void **state)
{
    (void)state;
    assert_int_equal(dj_device_count(), 1);
    pid_t child = embedded_pid(getpid());
    assert_true(child > 0);
    struct dj_tensor x = upload((float[]){1, 2, 3, 4}, 2, 2), y;
    float data[4];
    int asked = 0;
    kill(child, SIGSTOP);    // it would answer too soon
    assert_works(record("add.Tensor", &x, &x, &y));
    dj_on_wait(say_stop, &asked);
    double begun_ms = now_ms();
    int error = dj_read(&y, data, sizeof data, &fault);
    dj_on_wait(NULL, NULL);
    kill(child, SIGCONT);
    assert_string_equal(dj_error_name_of(error), "INTERRUPTED");
    assert_true(now_ms() - begun_ms < 500 && asked == 1);
    assert_works(dj_read(&y, data, sizeof data, &fault));
    assert_true(data[0] == 2);
    dj_cell_drop(x.cell);
    dj_cell_drop(y.cell);
}

static void a_forked_child_is_told_and_may_have_its_own_session(void **state)
{
    (void)state;
    struct dj_tensor x = upload((float[]){1, 2, 3, 4}, 2, 2), y;
    assert_works(record("add.Tensor", &x, &x, &y));
    pid_t pid = fork();
    if (pid == 0) {
        float data[4];
        int bad = strcmp(dj_error_name_of(dj_read(&y, data, sizeof data, &fault)), "FORKED") != 0;
        bad |= strcmp(dj_error_name_of(record("add.Tensor", &x, &x, &y)), "FORKED") != 0;
        bad |= dj_init(NULL, &fault) != 0;
        bad |= dj_read(&x, data, sizeof data, &fault) == 0;    // the parent's
        struct dj_tensor shape = {.dtype = F32, .rank = 1, .size = {4}, .stride = {1}}, own, sum;
        bad |= dj_upload(DJ_ANY_DEVICE, (float[]){5, 0, 0, 0}, &shape, &own, &fault) != 0 ||
               record("add.Tensor", &own, &own, &sum) != 0 || dj_read(&sum, data, sizeof data, &fault) != 0 || data[0] != 10;
        bad |= dj_shutdown(0) != 0;
        _exit(bad);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    float data[4];
    assert_works(dj_read(&y, data, sizeof data, &fault));    // the parent's session never noticed
    assert_true(data[0] == 2);
    dj_cell_drop(x.cell);
    dj_cell_drop(y.cell);
}

static void another_address_while_connected_is_refused(void **state)
{
    (void)state;
    assert_int_equal(dj_device_count(), 1);
    struct dj_config other = {.address = "127.0.0.1:1"};
    assert_string_equal(dj_error_name_of(dj_init(&other, &fault)), "INVALID");
}

static void a_graph_and_the_head_can_be_looked_at(void **state)
{
    (void)state;
    struct dj_tensor x = upload((float[]){1, 2, 3, 4}, 2, 2), y;
    char *json;
    uint32_t module = dj_module("transformer.h.0", "GPT2Block", 0), before = dj_set_module(module);
    assert_works(dj_capture_begin(&fault));
    assert_works(record("add.Tensor", &x, &x, &y));
    assert_works(dj_capture_end(&fault));
    dj_set_module(before);
    assert_works(dj_graph_json("capture", &json, &fault));
    assert_non_null(strstr(json, "transformer.h.0"));
    dj_free(json);
    assert_works(dj_graph_json("pending", &json, &fault));
    dj_free(json);
    assert_string_equal(dj_error_name_of(dj_graph_json("nonsense", &json, &fault)), "INVALID");
    assert_works(dj_ask("status", NULL, &json, &fault));
    assert_non_null(strstr(json, "workers"));
    dj_free(json);
    dj_cell_drop(x.cell);
    dj_cell_drop(y.cell);
}

static void after_shutdown_tensors_say_closed_and_a_new_session_works(void **state)
{
    (void)state;
    struct dj_tensor x = upload((float[]){1, 2, 3, 4}, 2, 2);
    expect_double(&x, 1);
    pid_t child = embedded_pid(getpid());
    assert_works(dj_shutdown(0));
    assert_false(dj_is_initialized());
    assert_int_equal(kill(child, 0), -1);
    float data[4];
    assert_string_equal(dj_error_name_of(dj_read(&x, data, sizeof data, &fault)), "CLOSED");
    struct dj_tensor y = upload((float[]){7, 2, 3, 4}, 2, 2);
    expect_double(&y, 7);
    dj_cell_drop(x.cell);
    dj_cell_drop(y.cell);
}

static void a_worker_that_dies_is_a_typed_error_within_a_second(void **state)
{
    (void)state;
    struct dj_tensor x = upload((float[]){1, 2, 3, 4}, 2, 2), y, z;
    assert_works(record("mul.Tensor", &x, &x, &y));
    assert_works(dj_flush(&fault));
    assert_works(dj_synchronize(&fault));
    kill(embedded_pid(getpid()), SIGKILL);
    float data[4];
    double begun_ms = now_ms();
    int error = dj_read(&y, data, sizeof data, &fault);
    assert_true(now_ms() - begun_ms < 1000);
    assert_true(strcmp(dj_error_name_of(error), "WORKER_LOST") == 0 || strcmp(dj_error_name_of(error), "HANDLE_LOST") == 0);
    begun_ms = now_ms();
    assert_works(record("mul.Tensor", &x, &x, &z));
    error = dj_read(&z, data, sizeof data, &fault);    // no head to give another worker
    assert_true(error != 0 && now_ms() - begun_ms < 1000);
    assert_true(strlen(fault.text) > 0);
    dj_shutdown(0);
    dj_cell_drop(x.cell);
    dj_cell_drop(y.cell);
    dj_cell_drop(z.cell);
    x = upload((float[]){3, 2, 3, 4}, 2, 2);
    expect_double(&x, 3);
    dj_cell_drop(x.cell);
    assert_works(dj_shutdown(0));
}

static void an_embedded_worker_dies_with_its_parent_however_that_ends(void **state)
{
    (void)state;
    int pipe_fd[2];
    assert_int_equal(pipe(pipe_fd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pid_t child = dj_init(NULL, &fault) == 0 ? embedded_pid(getpid()) : 0;
        (void)!write(pipe_fd[1], &child, sizeof child);
        raise(SIGKILL);
    }
    pid_t child = 0;
    assert_int_equal(read(pipe_fd[0], &child, sizeof child), sizeof child);
    waitpid(pid, NULL, 0);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    assert_true(child > 0);
    for (int i = 0; i < 200 && kill(child, 0) == 0; i++)
        usleep(10000);
    // Nobody may be there to reap it, then it stays as a zombie; it must not run.
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        (void)!fgets(line, sizeof line, file);
        fclose(file);
        assert_non_null(strstr(line, ") Z"));
    }
}

static void no_head_and_bad_addresses_are_named(void **state)
{
    (void)state;
    struct dj_config config = {.address = "127.0.0.1:1", .token = "00112233445566778899aabbccddeeff"};
    double begun_ms = now_ms();
    int error = dj_init(&config, &fault);
    assert_string_equal(dj_error_name_of(error), "NO_HEAD");
    assert_true(now_ms() - begun_ms < 2000);
    assert_non_null(strstr(fault.text, "127.0.0.1:1"));
    config.address = "nonsense";
    assert_string_equal(dj_error_name_of(dj_init(&config, &fault)), "ADDRESS");
    config = (struct dj_config){.program = "/nonexistent/djinn"};
    assert_string_equal(dj_error_name_of(dj_init(&config, &fault)), "NOT_FOUND");
    config = (struct dj_config){.program = "/bin/false"};
    assert_string_equal(dj_error_name_of(dj_init(&config, &fault)), "CLOSED");
    assert_non_null(strstr(fault.text, "log"));
    assert_false(dj_is_initialized());
}

CASES(first_use_starts_an_embedded_worker, a_wrong_shape_is_told_at_once_in_words, large_and_empty_tensors_travel,
      several_threads_record_and_read, a_blocking_read_can_be_interrupted_and_made_again,
      a_forked_child_is_told_and_may_have_its_own_session, another_address_while_connected_is_refused,
      a_graph_and_the_head_can_be_looked_at, after_shutdown_tensors_say_closed_and_a_new_session_works,
      a_worker_that_dies_is_a_typed_error_within_a_second, an_embedded_worker_dies_with_its_parent_however_that_ends,
      no_head_and_bad_addresses_are_named)
