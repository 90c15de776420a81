// What is said about CUDA on machines of every kind, with libraries made for the test (fakes/). Each case loads in a process of its own: what is open stays open.

#include "gpu_worker/device/cuda/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/case.h"

enum { PATH_BYTES = 4096 };

struct outcome {
    enum dj_error error;
    struct fault fault;
    struct cuda_load load;
};

// The names of fakes' folders ("driver cudart") as DJINN_CUDA_PATH, with `end` behind them.
static void name_path(const char *folders, const char *end, char path[PATH_BYTES])
{
    char self[1024] = "", words[256];
    size_t used = 0;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    assert_true(length > 0);
    *strrchr(self, '/') = '\0';
    snprintf(words, sizeof words, "%s", folders);
    for (char *rest = words, *word; (word = strsep(&rest, " ")) != NULL;)
        if (*word != '\0')
            used += (size_t)snprintf(path + used, PATH_BYTES - used, "%s/cuda_fakes/%s:", self, word);
    snprintf(path + used, PATH_BYTES - used, "%s", end);
}

static void unmap(void *outcome)
{
    munmap(outcome, sizeof(struct outcome));
}

// Loads in a child, from the fakes and nowhere else; `environment` is pairs of names and values, NULL last.
static const struct outcome *load_from(void **state, const char *folders, const char *const *environment)
{
    struct outcome *outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char path[PATH_BYTES];
    int status = 0;

    assert_ptr_not_equal(outcome, MAP_FAILED);
    case_later(state, unmap, outcome);
    name_path(folders, "-", path);
    pid_t child = fork();
    if (child == 0) {
        setenv("DJINN_CUDA_PATH", path, 1);
        for (; environment != NULL && *environment != NULL; environment += 2)
            setenv(environment[0], environment[1], 1);
        outcome->error = cuda_load(&outcome->load, &outcome->fault);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return outcome;
}

static void assert_says(const char *text, const char *words)
{
    if (strstr(text, words) == NULL)
        fail_msg("'%s' does not say '%s'", text, words);
}

static const struct cuda_part *part(const struct outcome *outcome, const char *name)
{
    uint32_t i = 0;
    while (i < outcome->load.parts && strcmp(outcome->load.part[i].name, name) != 0)
        i++;
    assert_true(i < outcome->load.parts);
    return &outcome->load.part[i];
}

static void a_machine_with_nothing_is_told_of_the_driver_and_the_runtime(void **state)
{
    const struct outcome *outcome = load_from(state, "", NULL);

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_error(DJ_E_NO_DEVICE, outcome->fault.code);
    assert_says(outcome->fault.text, "libcuda.so.1");
    assert_says(outcome->fault.text, "pip install nvidia-cuda-runtime");
    assert_true(outcome->load.parts >= 5);
    for (uint32_t i = 0; i < outcome->load.parts; i++) {
        assert_false(outcome->load.part[i].is_found);
        assert_says(outcome->load.part[i].fault.text, outcome->load.part[i].soname);
    }
    assert_says(part(outcome, "cublasLt")->fault.text, "pip install nvidia-cublas");
    assert_says(part(outcome, "cudnn")->fault.text, "pip install nvidia-cudnn-cu13");
    assert_true(part(outcome, "driver")->is_needed && part(outcome, "runtime")->is_needed);
    assert_false(part(outcome, "cublasLt")->is_needed || part(outcome, "cudnn")->is_needed);
}

static void libraries_without_a_driver_are_told_so(void **state)
{
    const struct outcome *outcome = load_from(state, "cudart",
                                              (const char *const[]){"FAKE_STATUS", "35", "FAKE_DRIVER", "0", NULL});

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_says(outcome->fault.text, "no CUDA driver");
    assert_says(outcome->fault.text, "install the NVIDIA driver");
    assert_true(part(outcome, "runtime")->is_found);
    assert_int_equal(part(outcome, "runtime")->version, 13000);
    assert_int_equal(part(outcome, "runtime")->fault.code, DJ_OK);
    assert_says(part(outcome, "runtime")->path, "cuda_fakes/cudart/libcudart.so.13");
}

static void a_driver_without_the_runtime_is_told_how_to_get_it(void **state)
{
    const struct outcome *outcome = load_from(state, "driver", NULL);

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_says(outcome->fault.text, "no CUDA runtime");
    assert_says(outcome->fault.text, "pip install nvidia-cuda-runtime");
    assert_true(part(outcome, "driver")->is_found);
}

static void a_driver_that_is_too_old_is_named_with_its_version(void **state)
{
    const struct outcome *outcome = load_from(state, "driver cudart",
                                              (const char *const[]){"FAKE_STATUS", "35", "FAKE_DRIVER", "12080", NULL});

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_says(outcome->fault.text, "for CUDA 12.8");
    assert_says(outcome->fault.text, "580");
    assert_int_equal(part(outcome, "driver")->version, 12080);
}

static void a_runtime_that_is_too_old_is_named_with_its_version(void **state)
{
    const struct outcome *outcome = load_from(state, "driver cudart", (const char *const[]){"FAKE_RUNTIME", "12090", NULL});

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_says(outcome->fault.text, "of CUDA 12.9");
    assert_says(outcome->fault.text, "pip install nvidia-cuda-runtime");
    assert_int_equal(outcome->load.devices, 0);
}

static void a_missing_function_is_named(void **state)
{
    const struct outcome *outcome = load_from(state, "driver cudart_lacks", NULL);

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_says(outcome->fault.text, "lacks cudaLibraryLoadData");
    assert_says(outcome->fault.text, "cudart_lacks/libcudart.so.13");
    assert_int_equal(outcome->load.devices, 0);
}

static void a_machine_whose_driver_shows_no_gpu_is_told_so(void **state)
{
    const struct outcome *by_status = load_from(state, "driver cudart", (const char *const[]){"FAKE_STATUS", "100", NULL}),
                         *by_count = load_from(state, "driver cudart", (const char *const[]){"FAKE_DEVICES", "0", NULL});

    assert_error(DJ_E_NO_DEVICE, by_status->error);
    assert_error(DJ_E_NO_DEVICE, by_count->error);
    assert_says(by_status->fault.text, "CUDA_VISIBLE_DEVICES");
    assert_string_equal(by_status->fault.text, by_count->fault.text);
}

static void a_driver_that_fails_is_quoted(void **state)
{
    const struct outcome *outcome = load_from(state, "driver cudart", (const char *const[]){"FAKE_STATUS", "999", NULL});

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_says(outcome->fault.text, "cudaErrorUnknown, unknown error");
}

static void a_library_that_cannot_be_opened_says_why(void **state)
{
    const struct outcome *outcome = load_from(state, "driver torn", NULL), *later = load_from(state, "driver torn cudart", NULL);

    assert_error(DJ_E_NO_DEVICE, outcome->error);
    assert_says(outcome->fault.text, "torn/libcudart.so.13 cannot be opened");
    // One further on is taken instead, and the first forgotten.
    assert_ok(later->error);
    assert_int_equal(part(later, "runtime")->fault.code, DJ_OK);
}

static void a_runtime_and_a_driver_are_enough(void **state)
{
    const struct outcome *outcome = load_from(state, "driver cudart", NULL);

    assert_ok(outcome->error);
    assert_int_equal(outcome->load.devices, 2);
    assert_false(outcome->load.has_blas || outcome->load.has_dnn);
#define X(name, parameters) assert_non_null(outcome->load.api.name);
    CUDA_FUNCTIONS(X)
#undef X
    assert_non_null(outcome->load.api.cudaGetErrorString);
    assert_non_null(outcome->load.api.cudaGetErrorName);
    assert_int_equal(part(outcome, "driver")->version, 13000);
}

static void cublaslt_and_cudnn_are_taken_where_they_are(void **state)
{
    const struct outcome *outcome = load_from(state, "driver cudart cublaslt cudnn", NULL);

    assert_ok(outcome->error);
    assert_true(outcome->load.has_blas && outcome->load.has_dnn);
    assert_int_equal(part(outcome, "cublasLt")->version, 130100);
    assert_int_equal(part(outcome, "cudnn")->version, 91900);
}

static void a_library_that_lacks_a_function_is_left_out(void **state)
{
    const struct outcome *outcome = load_from(state, "driver cudart cublaslt_lacks cudnn", NULL);

    assert_ok(outcome->error);
    assert_false(outcome->load.has_blas);
    assert_true(outcome->load.has_dnn);
    assert_true(part(outcome, "cublasLt")->is_found);
    assert_says(part(outcome, "cublasLt")->fault.text, "lacks cublasLtDestroy");
}

CASES(a_machine_with_nothing_is_told_of_the_driver_and_the_runtime, libraries_without_a_driver_are_told_so,
      a_driver_without_the_runtime_is_told_how_to_get_it, a_driver_that_is_too_old_is_named_with_its_version,
      a_runtime_that_is_too_old_is_named_with_its_version, a_missing_function_is_named,
      a_machine_whose_driver_shows_no_gpu_is_told_so, a_driver_that_fails_is_quoted, a_library_that_cannot_be_opened_says_why,
      a_runtime_and_a_driver_are_enough, cublaslt_and_cudnn_are_taken_where_they_are, a_library_that_lacks_a_function_is_left_out)
