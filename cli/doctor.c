// djinn doctor: what this machine has, what is missing, and how to get it. Changes nothing.

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <lmdb.h>
#include <nng/nng.h>
#include <uv.h>
#include <xxhash.h>
#include <zstd.h>

#include "cli/config.h"
#include "cli/options.h"
#include "gpu_worker/kernels/kernel.h"

static int problems;

static void line(const char *name, const char *format, ...) DJ_PRINTF(2, 3);
static void line(const char *name, const char *format, ...)
{
    va_list arguments;

    printf("%-12s ", name);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static void show_machine(void)
{
    struct sysinfo info;
    const struct kernel_table *kernels = kernels_cpu();
    uint32_t native = 0, computed = 0;

    line("cores", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    if (sysinfo(&info) == 0)
        line("memory", "%.1f GiB, %.1f GiB free", (double)info.totalram * info.mem_unit / 1073741824.0,
             (double)info.freeram * info.mem_unit / 1073741824.0);
    for (uint32_t row = 0; row < op_count(); row++) {
        if ((op_at(row)->flags & OP_IS_VIEW) != 0)
            continue;
        computed++;
        native += kernels->kernel[op_at(row)->number].run != NULL;
    }
    line("cpu backend", "%s", kernels->numerics);
    line("cpu kernels", "%u of %u ops", native, computed);
}

static void show_libraries(void)
{
    line("libuv", "%s", uv_version_string());
    line("nng", "%s", nng_version());
    line("lmdb", "%s", mdb_version(NULL, NULL, NULL));
    line("xxhash", "%d.%d.%d", XXH_versionNumber() / 10000, XXH_versionNumber() / 100 % 100, XXH_versionNumber() % 100);
    line("zstd", "%s", ZSTD_versionString());
}

static void show_cuda(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);

    if (driver == NULL) {
        line("cuda", "no driver (libcuda.so.1 is not there); workers use the CPU");
        return;
    }
    dlclose(driver);
    line("cuda", "there is a driver, but this djinn has no CUDA module (libdjinn_cuda.so); workers use the CPU");
}

static void show_state(const char *given)
{
    char folder[CLI_PATH_MAX];
    struct statvfs disk;
    struct hash128 token;
    struct fault fault = {0};

    state_folder(given, folder);
    if (statvfs(folder, &disk) != 0) {
        line("state", "%s is not there yet; the first head makes it", folder);
        return;
    }
    line("state", "%s, %.1f GiB free", folder, (double)disk.f_bavail * (double)disk.f_frsize / 1073741824.0);
    if (token_load(folder, false, &token, &fault) == DJ_OK) {
        line("token", "found");
    } else {
        problems++;
        line("token", "%s", fault.text);
    }
}

static void show_config(void)
{
    static struct config config;
    struct fault fault = {0};

    if (config_load(NULL, &config, &fault) == DJ_OK) {
        line("config", "%s", config.path[0] != '\0' ? config.path : "none; the defaults hold");
    } else {
        problems++;
        line("config", "%s", fault.text);
    }
}

static void show_head(const char *address, const char *state)
{
    struct fault fault = {0};
    char *answer;
    size_t bytes;

    if (head_ask(address, state, "status", "", &answer, &bytes, &fault) == DJ_OK) {
        line("head", "answers");
        free(answer);
    } else {
        line("head", "%s", fault.text);
    }
}

struct options {
    struct client_options client;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->client; return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s' is one argument too many", argument); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int command_doctor(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse,
        NULL,
        "Say what this machine has, what is missing, and how to get it.\v"
        "Prints one line a thing: cores, memory, kernels, libraries, GPU, configuration, state folder, token, head. Changes nothing.\n\n"
        "Exit status: 0 when nothing is wrong (what is optional may be absent); 1 when something is, which its line says; 2 the command line is not valid.",
        client_children,
        NULL,
        NULL};
    struct options options = {0};

    options_parse(&argp, argc, argv, &options);
    line("djinn", "%s", DJINN_VERSION);
    show_machine();
    show_libraries();
    show_cuda();
    show_config();
    show_state(options.client.state);
    show_head(options.client.address, options.client.state);
    return problems == 0 ? EXIT_DONE : EXIT_FAILED;
}
