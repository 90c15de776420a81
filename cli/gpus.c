// Gpus: see gpus.h.

#include "cli/gpus.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/knobs.h"
#include "core/base/log.h"

#define USE_THE_CPU "; without --gpus, or with --gpus none, a worker uses the CPU"

bool gpus_parse(const char *text, struct gpus *ret)
{
    struct gpus gpus = {.is_all = strcmp(text, "all") == 0};

    for (const char *at = text; !gpus.is_all && strcmp(text, "none") != 0;) {
        char *end;
        if (*at < '0' || *at > '9')
            return false;
        unsigned long ordinal = strtoul(at, &end, 10);
        if (ordinal >= GPUS_MAX || (*end != ',' && *end != '\0'))
            return false;
        for (uint32_t i = 0; i < gpus.count; i++)
            if (gpus.ordinal[i] == (int)ordinal)
                return false;
        gpus.ordinal[gpus.count++] = (int)ordinal;
        if (*end == '\0')
            break;
        at = end + 1;
    }
    *ret = gpus;
    return true;
}

// The module ------------------------------------------------------------------------------------------------------------------------

void gpus_module_path(char path[CLI_PATH_MAX])
{
    const char *named = getenv("DJINN_CUDA_MODULE");
    char self[CLI_PATH_MAX];

    if (named != NULL && named[0] != '\0') {
        snprintf(path, CLI_PATH_MAX, "%s", named);
        return;
    }
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length < 0 ? 0 : length] = '\0';
    // bin/djinn -> lib/
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(self, '/');
        if (slash != NULL)
            *slash = '\0';
    }
    snprintf(path, CLI_PATH_MAX, "%.470s/lib/libdjinn_cuda.so", self);
}

static void write_log(int level, const char *component, const char *text)
{
    log_write((enum log_level)level, component, "%s", text);
}

enum dj_error gpus_module(const struct cuda_module **ret, struct fault *fault)
{
    static const struct cuda_module *opened;
    char path[CLI_PATH_MAX];
    cuda_module_get *get;

    if (opened != NULL) {
        *ret = opened;
        return DJ_OK;
    }
    gpus_module_path(path);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return fault_set(
            fault, DJ_E_NO_DEVICE,
            "there is no CUDA module (%.200s); it is built where nvcc of CUDA 13 is, and found beside the program or where "
            "DJINN_CUDA_MODULE says",
            dlerror());
    void *symbol = dlsym(handle, CUDA_MODULE_SYMBOL);
    memcpy(&get, &symbol, sizeof get);
    const struct cuda_module *module = symbol == NULL ? NULL : get();
    if (module == NULL || module->version != CUDA_MODULE_VERSION) {
        dlclose(handle);
        return fault_set(fault, DJ_E_NO_DEVICE, "the CUDA module %.300s is of another djinn: build both from one tree", path);
    }
    module->log_to(write_log);
    *ret = opened = module;
    return DJ_OK;
}

static enum dj_error look(const struct cuda_module **module, const struct cuda_load **load, struct fault *fault)
{
    struct fault cause = {0};

    enum dj_error error = gpus_module(module, &cause);
    if (error == DJ_OK)
        error = (*module)->look(load, &cause);
    if (error == DJ_OK)
        return DJ_OK;
    return fault_set(fault, error, "no GPU to use: %.400s" USE_THE_CPU, cause.text);
}

static enum dj_error no_such_gpu(int ordinal, int devices, struct fault *fault)
{
    return fault_set(fault, DJ_E_NO_DEVICE, "there is no GPU %d for --gpus: CUDA shows %d on this machine, counted from 0",
                     ordinal, devices);
}

struct answer {
    enum dj_error error;
    struct fault fault;
    int devices;
};

// In a child: what it opens, and CUDA's state, end with it.
static void count_devices(int to)
{
    struct answer answer = {0};
    const struct cuda_module *module;
    const struct cuda_load *load;

    answer.error = look(&module, &load, &answer.fault);
    if (answer.error == DJ_OK)
        answer.devices = load->devices;
    _exit(write(to, &answer, sizeof answer) == sizeof answer ? 0 : 1);
}

enum dj_error gpus_resolve(struct gpus *gpus, struct fault *fault)
{
    struct answer answer;
    int ends[2], status;

    if (!gpus->is_all && gpus->count < 2)
        return DJ_OK;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fault_set(fault, DJ_E_SYSTEM, "cannot make a pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0)
        count_devices(ends[1]);
    close(ends[1]);
    // Shorter than what a pipe takes at once: it comes whole or not at all.
    ssize_t length = child < 0 ? -1 : read(ends[0], &answer, sizeof answer);
    close(ends[0]);
    if (child > 0)
        waitpid(child, &status, 0);
    if (length != sizeof answer)
        return fault_set(fault, DJ_E_NO_DEVICE,
                         "looking for GPUs ended the process that looked: the driver does not work" USE_THE_CPU);
    if (answer.error != DJ_OK)
        return fault_set(fault, answer.error, "%s", answer.fault.text);
    for (uint32_t i = 0; i < gpus->count; i++)
        if (gpus->ordinal[i] >= answer.devices)
            return no_such_gpu(gpus->ordinal[i], answer.devices, fault);
    if (!gpus->is_all)
        return DJ_OK;
    gpus->is_all = false;
    gpus->count = answer.devices < GPUS_MAX ? (uint32_t)answer.devices : GPUS_MAX;
    for (uint32_t i = 0; i < gpus->count; i++)
        gpus->ordinal[i] = (int)i;
    return DJ_OK;
}

enum dj_error gpu_check(int ordinal, struct fault *fault)
{
    const struct cuda_module *module;
    const struct cuda_load *load;

    enum dj_error error = look(&module, &load, fault);
    if (error != DJ_OK)
        return error;
    if (ordinal < load->devices)
        return DJ_OK;
    return no_such_gpu(ordinal, load->devices, fault);
}

static bool is_full(void)
{
    return knob_take(KNOB_DEVICE_FULL);
}

static bool loses_all(void)
{
    return knob_take(KNOB_DEVICE_LOST);
}

enum dj_error gpu_make(int ordinal, uint64_t memory_bytes, const struct io_sink *sink, struct device_port **ret,
                       struct fault *fault)
{
    const struct cuda_module *module;

    enum dj_error error = gpu_check(ordinal, fault);
    if (error == DJ_OK)
        error = gpus_module(&module, fault);
    if (error != DJ_OK)
        return error;
    struct cuda_module_config config = {
        .ordinal = ordinal, .memory_bytes = memory_bytes, .chaos = {.is_full = is_full, .loses_all = loses_all}, .sink = sink};
    return module->make(&config, ret, fault);
}

// One process a GPU -----------------------------------------------------------------------------------------------------------------

static pid_t start_one(const sigset_t *usual, int (*serve)(void *context, uint32_t which), void *context, uint32_t which)
{
    pid_t parent = getpid(), child = fork();

    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)    // it ended before it was asked about
        _exit(EXIT_FAILED);
    sigprocmask(SIG_SETMASK, usual, NULL);
    exit(serve(context, which));
}

static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
}

int gpus_serve_each(uint32_t count, int (*serve)(void *context, uint32_t which), void *context)
{
    sigset_t watched, usual;
    pid_t child[GPUS_MAX];
    uint32_t running = 0;
    int code = EXIT_DONE, status, number;

    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGCHLD);
    sigprocmask(SIG_BLOCK, &watched, &usual);
    for (uint32_t i = 0; i < count && code == EXIT_DONE; i++) {
        child[running] = start_one(&usual, serve, context, i);
        if (child[running] < 0)
            code = complain(EXIT_FAILED, "cannot fork: %s", strerror(errno));
        else
            running++;
    }
    uint32_t started = running;
    bool is_ending = code != EXIT_DONE;
    while (running > 0) {
        for (uint32_t i = 0; i < started && is_ending; i++)
            if (child[i] > 0)
                kill(child[i], SIGTERM);
        is_ending = false;
        if (sigwait(&watched, &number) != 0)
            continue;
        is_ending = number != SIGCHLD;
        for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0; running--) {
            for (uint32_t i = 0; i < started; i++)
                if (child[i] == ended)
                    child[i] = 0;
            code = code == EXIT_DONE ? code_of(status) : code;
        }
    }
    sigprocmask(SIG_SETMASK, &usual, NULL);
    return code;
}
