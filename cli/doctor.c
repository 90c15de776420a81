// djinn doctor: what this machine has, what is missing, and how to get it. Changes nothing.

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
#include "cli/doctor.h"
#include "cli/options.h"
#include "gpu_worker/device/cpu_device.h"
#include "gpu_worker/kernels/kernel.h"

enum { LINE_MAX_BYTES = 2048 };

static int problems;
static bool is_json;
static cJSON *answer;

cJSON *doctor_answer(void)
{
    return answer;
}

void doctor_line(const char *name, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (is_json)
        cJSON_AddStringToObject(answer, name, text);
    else
        printf("%-15s %s\n", name, text);
}

static void show_machine(void)
{
    struct sysinfo info;
    const struct kernel_table *kernels = kernels_cpu();
    uint32_t native = 0, computed = 0;

    doctor_line("cores", "%ld, %u threads for kernels", sysconf(_SC_NPROCESSORS_ONLN), cpu_device_default_threads());
    if (sysinfo(&info) == 0)
        doctor_line("memory", "%.1f GiB, %.1f GiB free", (double)info.totalram * info.mem_unit / 1073741824.0,
                    (double)info.freeram * info.mem_unit / 1073741824.0);
    for (uint32_t row = 0; row < op_count(); row++) {
        if ((op_at(row)->flags & OP_IS_VIEW) != 0)
            continue;
        computed++;
        native += kernels->kernel[op_at(row)->number].run != NULL;
    }
    doctor_line("cpu backend", "%s", kernels->numerics);
    doctor_line("cpu kernels", "%u of %u ops", native, computed);
}

static void show_libraries(void)
{
    doctor_line("libuv", "%s", uv_version_string());
    doctor_line("nng", "%s", nng_version());
    doctor_line("lmdb", "%s", mdb_version(NULL, NULL, NULL));
    doctor_line("xxhash", "%d.%d.%d", XXH_versionNumber() / 10000, XXH_versionNumber() / 100 % 100, XXH_versionNumber() % 100);
    doctor_line("zstd", "%s", ZSTD_versionString());
}

static void show_state(const char *given)
{
    char folder[CLI_PATH_MAX];
    struct statvfs disk;
    struct hash128 token;
    struct fault fault = {0};

    state_folder(given, folder);
    if (statvfs(folder, &disk) != 0) {
        doctor_line("state", "%s is not there yet; the first head makes it", folder);
        return;
    }
    doctor_line("state", "%s, %.1f GiB free", folder, (double)disk.f_bavail * (double)disk.f_frsize / 1073741824.0);
    if (token_load(folder, false, &token, &fault) == DJ_OK) {
        doctor_line("token", "found");
    } else {
        problems++;
        doctor_line("token", "%s", fault.text);
    }
}

static void show_config(void)
{
    static struct config config;
    struct fault fault = {0};

    if (config_load(NULL, &config, &fault) == DJ_OK) {
        doctor_line("config", "%s", config.path[0] != '\0' ? config.path : "none; the defaults hold");
    } else {
        problems++;
        doctor_line("config", "%s", fault.text);
    }
}

static void show_head(const char *address, const char *state)
{
    struct fault fault = {0};
    char *status;
    size_t bytes;

    if (head_ask(address, state, "status", "", &status, &bytes, &fault) == DJ_OK) {
        doctor_line("head", "answers");
        free(status);
    } else {
        doctor_line("head", "%s", fault.text);
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
        "Prints one line a thing: cores, memory, kernels, libraries; what there is of CUDA, where, in which version, what is missing and how to get it, and the GPUs; "
        "configuration, state folder, token, head. Changes nothing. --json prints the same as one object, and the parts of CUDA and GPUs as arrays.\n\n"
        "CUDA is searched in the folders of DJINN_CUDA_PATH first (colons between; '-' ends the search), the module where DJINN_CUDA_MODULE says.\n\n"
        "Exit status: 0 when a worker can run, be it on the CPU (what is optional may be absent); 1 when something is, which its line says; 2 the command line is not valid.",
        client_json_children,
        NULL,
        NULL};
    struct options options = {0};

    options_parse(&argp, argc, argv, &options);
    is_json = options.client.is_json;
    if ((answer = cJSON_CreateObject()) == NULL)
        return complain(EXIT_FAILED, "no memory");
    doctor_line("djinn", "%s", DJINN_VERSION);
    show_machine();
    show_libraries();
    doctor_cuda();
    show_config();
    show_state(options.client.state);
    show_head(options.client.address, options.client.state);
    cJSON_AddNumberToObject(answer, "problems", problems);
    char *text = is_json ? cJSON_Print(answer) : NULL;
    if (text != NULL)
        puts(text);
    cJSON_free(text);
    cJSON_Delete(answer);
    return problems == 0 ? EXIT_DONE : EXIT_FAILED;
}
