// djinn doctor, CUDA's part: the libraries with their places and versions, the module, the GPUs; what is missing and how to get it.
//
// The libraries are looked for by the same code that the module has (device/cuda/load.h), linked here too, so that it is told what is missing also where the
// module itself is.

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/doctor.h"
#include "cli/gpus.h"
#include "gpu_worker/device/cuda/load.h"

enum { VERSION_BYTES = 24 };

// 13000 is 13.0, of the driver and the runtime; 91900 is 9.19.0 of the others.
static void write_version(const struct cuda_part *part, char to[VERSION_BYTES])
{
    unsigned version = part->version;

    if (version == 0)
        snprintf(to, VERSION_BYTES, "no version told");
    else if (strcmp(part->name, "driver") == 0 || strcmp(part->name, "runtime") == 0)
        snprintf(to, VERSION_BYTES, "CUDA %u.%u", version / 1000, version % 1000 / 10);
    else
        snprintf(to, VERSION_BYTES, "%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
}

static void show_part(const struct cuda_part *part, cJSON *parts)
{
    const char *remark = part->fault.text[0] == '\0' ? "" : part->is_needed ? "needed for GPUs: " : "optional: ";
    char version[VERSION_BYTES];
    cJSON *item = cJSON_CreateObject();

    write_version(part, version);
    if (part->is_found)
        doctor_line(part->name, "%s, %s%s%s%s", version, part->path, remark[0] == '\0' ? "" : "; ", remark, part->fault.text);
    else
        doctor_line(part->name, "%s%s", remark, part->fault.text);
    cJSON_AddStringToObject(item, "name", part->name);
    cJSON_AddStringToObject(item, "library", part->soname);
    cJSON_AddBoolToObject(item, "is_needed", part->is_needed);
    cJSON_AddBoolToObject(item, "is_found", part->is_found);
    cJSON_AddStringToObject(item, "path", part->path);
    cJSON_AddStringToObject(item, "version", part->version == 0 ? "" : version);
    cJSON_AddStringToObject(item, "problem", part->fault.text);
    cJSON_AddItemToArray(parts, item);
}

static void show_gpu(const struct cuda_api *api, int ordinal, cJSON *gpus)
{
    static char properties[CUDA_PROPERTIES_BYTES];
    size_t free_bytes = 0, all_bytes = 0;
    int major = 0, minor = 0;
    char name[16];
    cJSON *item = cJSON_CreateObject();

    snprintf(name, sizeof name, "gpu %d", ordinal);
    memset(properties, 0, sizeof properties);
    int status = api->cudaGetDeviceProperties(properties, ordinal);
    if (status == CUDA_OK)
        status = api->cudaDeviceGetAttribute(&major, CUDA_ATTR_MAJOR, ordinal);
    if (status == CUDA_OK)
        status = api->cudaDeviceGetAttribute(&minor, CUDA_ATTR_MINOR, ordinal);
    if (status == CUDA_OK)
        status = api->cudaSetDevice(ordinal);
    if (status == CUDA_OK)
        status = api->cudaMemGetInfo(&free_bytes, &all_bytes);
    if (status == CUDA_OK)
        doctor_line(name, "%.200s, compute capability %d.%d, %.1f GiB, %.1f GiB free", properties, major, minor,
                    (double)all_bytes / 1073741824.0, (double)free_bytes / 1073741824.0);
    else
        doctor_line(name, "%.200s cannot be used: %s, %s", properties, api->cudaGetErrorName(status),
                    api->cudaGetErrorString(status));
    cJSON_AddNumberToObject(item, "number", ordinal);
    cJSON_AddStringToObject(item, "name", properties);
    cJSON_AddNumberToObject(item, "capability", major * 10 + minor);
    cJSON_AddNumberToObject(item, "memory_bytes", (double)all_bytes);
    cJSON_AddNumberToObject(item, "free_bytes", (double)free_bytes);
    cJSON_AddStringToObject(item, "problem", status == CUDA_OK ? "" : api->cudaGetErrorString(status));
    cJSON_AddItemToArray(gpus, item);
}

static bool show_module(void)
{
    const struct cuda_module *module;
    struct fault fault = {0};
    char path[CLI_PATH_MAX];

    gpus_module_path(path);
    if (gpus_module(&module, &fault) == DJ_OK) {
        doctor_line("cuda module", "%s", path);
        return true;
    }
    doctor_line("cuda module", "needed for GPUs: %s", fault.text);
    return false;
}

void doctor_cuda(void)
{
    static struct cuda_load load;
    struct fault fault = {0};
    cJSON *parts = cJSON_AddArrayToObject(doctor_answer(), "cuda_parts"), *gpus = cJSON_AddArrayToObject(doctor_answer(), "gpus");

    enum dj_error error = cuda_load(&load, &fault);
    for (uint32_t i = 0; i < load.parts; i++)
        show_part(&load.part[i], parts);
    bool has_module = show_module(), is_usable = error == DJ_OK && has_module;
    for (int i = 0; i < load.devices; i++)
        show_gpu(&load.api, i, gpus);
    cJSON_AddBoolToObject(doctor_answer(), "is_gpu_usable", is_usable);
    if (is_usable)
        doctor_line("cuda", "%d GPUs for djinn start --worker --gpus", load.devices);
    else if (error == DJ_OK)
        doctor_line("cuda", "%d GPUs, but no CUDA module; workers use the CPU", load.devices);
    else
        doctor_line("cuda", "%s; workers use the CPU", fault.text);
}
