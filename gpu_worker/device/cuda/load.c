// Load: see load.h. Places are gathered once a load, then each part is looked for in all of them, in the order of the table below.

#include "gpu_worker/device/cuda/load.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PLACES_MAX = 64, VERSION_LEAST = 13000, VERSION_MAJOR = 1000 };

enum part { DRIVER, RUNTIME, NVRTC_BUILTINS, NVRTC, CUBLASLT, CUBLAS, CUDNN, PARTS };
_Static_assert((int)PARTS <= (int)CUDA_PARTS_MAX, "struct cuda_load has room for every part");

// In the order in which they are opened: each needs symbols of those before it, and finds them since they are open under their names.
static const struct {
    const char *name, *soname;
    const char *pattern;    // of its file, where that is not the name itself
    bool is_needed;
    const char *remedy;
} table[PARTS] = {
    [DRIVER] = {"driver", "libcuda.so.1", NULL, true,
                "install the NVIDIA driver, 580 or later, from the distribution; a container needs its host's"},
    [RUNTIME] = {"runtime", "libcudart.so.13", NULL, true, "pip install nvidia-cuda-runtime, or install the CUDA 13 toolkit"},
    [NVRTC_BUILTINS] = {"nvrtc-builtins", "libnvrtc-builtins.so.13", "libnvrtc-builtins.so.13.*", false,
                        "pip install nvidia-cuda-nvrtc"},
    [NVRTC] = {"nvrtc", "libnvrtc.so.13", NULL, false, "pip install nvidia-cuda-nvrtc"},
    [CUBLASLT] = {"cublasLt", "libcublasLt.so.13", NULL, false, "pip install nvidia-cublas"},
    [CUBLAS] = {"cublas", "libcublas.so.13", NULL, false, "pip install nvidia-cublas"},
    [CUDNN] = {"cudnn", "libcudnn.so.9", NULL, false, "pip install nvidia-cudnn-cu13"},
};

// Places ---------------------------------------------------------------------------------------------------------------------------

struct places {
    uint32_t count;
    char folder[PLACES_MAX][CUDA_PART_PATH_MAX];    // "": the loader's own
};

static void add_place(struct places *places, const char *folder, size_t length)
{
    if (places->count == PLACES_MAX || length >= CUDA_PART_PATH_MAX)
        return;
    memcpy(places->folder[places->count], folder, length);
    places->folder[places->count++][length] = '\0';
}

static void add_matches(struct places *places, const char *before, const char *pattern)
{
    char whole[CUDA_PART_PATH_MAX];
    glob_t found;

    if (before == NULL || snprintf(whole, sizeof whole, "%s%s", before, pattern) >= (int)sizeof whole ||
        glob(whole, 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++)
        add_place(places, found.gl_pathv[i], strlen(found.gl_pathv[i]));
    globfree(&found);
}

// The folders of DJINN_CUDA_PATH; false: nothing else is to be searched.
static bool add_named(struct places *places, const char *named)
{
    while (named != NULL && *named != '\0') {
        size_t length = strcspn(named, ":");
        if (length == 1 && *named == '-')
            return false;
        if (length > 0)
            add_place(places, named, length);
        named += length + (named[length] == ':');
    }
    return true;
}

static void find_places(struct places *places)
{
    static const char *const packages = "/lib/python3*/site-packages/nvidia/*/lib";

    places->count = 0;
    if (!add_named(places, getenv("DJINN_CUDA_PATH")))
        return;
    add_place(places, "", 0);
    add_matches(places, "", "/usr/local/cuda*/lib64");
    add_matches(places, getenv("VIRTUAL_ENV"), packages);
    add_matches(places, getenv("CONDA_PREFIX"), packages);
    add_matches(places, "/opt/*/.venv", packages);
    add_matches(places, "", "/usr/local/lib/python3*/*-packages/nvidia/*/lib");
    add_matches(places, "", "/usr/local/nvidia/lib64");
    add_matches(places, "", "/usr/lib/wsl/lib");
}

// Parts ------------------------------------------------------------------------------------------------------------------------------

static void *open_file(struct cuda_part *part, const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    const struct link_map *map = NULL;

    if (handle == NULL) {
        const char *why = dlerror();
        // A file that is there and cannot be opened says more than one that is nowhere.
        if (strchr(path, '/') != NULL && part->fault.code == DJ_OK)
            fault_set(&part->fault, DJ_E_NO_DEVICE, "%.160s cannot be opened: %.300s", path,
                      why != NULL ? why : "no reason given");
        return NULL;
    }
    part->is_found = true;
    part->fault = (struct fault){0};
    bool is_named = dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map != NULL && map->l_name[0] != '\0';
    snprintf(part->path, sizeof part->path, "%s", is_named ? map->l_name : path);
    return handle;
}

static void *open_in(struct cuda_part *part, const char *folder, const char *pattern)
{
    char path[CUDA_PART_PATH_MAX + 64];
    void *handle = NULL;
    glob_t found;

    // The loader searches by name: a pattern is no name.
    if (folder[0] == '\0')
        return strchr(pattern, '*') == NULL ? open_file(part, pattern) : NULL;
    snprintf(path, sizeof path, "%s/%s", folder, pattern);
    if (glob(path, 0, NULL, &found) != 0)
        return NULL;
    for (size_t i = 0; i < found.gl_pathc && handle == NULL; i++)
        handle = open_file(part, found.gl_pathv[i]);
    globfree(&found);
    return handle;
}

static void *open_part(struct cuda_load *load, enum part which, const struct places *places)
{
    struct cuda_part *part = &load->part[which];
    void *handle = NULL;

    *part = (struct cuda_part){.name = table[which].name, .soname = table[which].soname, .is_needed = table[which].is_needed};
    for (uint32_t i = 0; i < places->count && handle == NULL; i++)
        handle = open_in(part, places->folder[i], table[which].pattern != NULL ? table[which].pattern : table[which].soname);
    if (handle == NULL && part->fault.code == DJ_OK)
        fault_set(&part->fault, DJ_E_NO_DEVICE, "%s is nowhere to be found: %s", part->soname, table[which].remedy);
    return handle;
}

// The address of a function; the first one missing makes the part unusable.
static void *symbol(struct cuda_load *load, enum part which, void *handle, const char *name)
{
    struct cuda_part *part = &load->part[which];
    void *at = handle == NULL ? NULL : dlsym(handle, name);

    if (at == NULL && handle != NULL && part->fault.code == DJ_OK)
        fault_set(&part->fault, DJ_E_NO_DEVICE, "%.240s lacks %s, so it is of another version than djinn knows: %s", part->path,
                  name, table[which].remedy);
    return at;
}

// An object pointer becomes a function pointer by its bytes: ISO C has no conversion.
#define TAKE(which, member, name) \
    do { \
        void *at = symbol(load, which, handle, name); \
        memcpy(&(member), &at, sizeof at); \
    } while (0)

#define TAKE_OPTIONAL(member, name) \
    do { \
        void *at = handle == NULL ? NULL : dlsym(handle, name); \
        memcpy(&(member), &at, sizeof at); \
    } while (0)

static void fill_runtime(struct cuda_load *load, void *handle)
{
#define X(function, parameters) TAKE(RUNTIME, load->api.function, #function);
    CUDA_FUNCTIONS(X)
#undef X
#define X(function, parameters) TAKE_OPTIONAL(load->api.function, #function);
    CUDA_IPC_FUNCTIONS(X)
#undef X
    TAKE(RUNTIME, load->api.cudaGetErrorString, "cudaGetErrorString");
    TAKE(RUNTIME, load->api.cudaGetErrorName, "cudaGetErrorName");
}

static bool is_usable(const struct cuda_part *part)
{
    return part->is_found && part->fault.code == DJ_OK;
}

static void fill_blas(struct cuda_load *load, void *handle)
{
#define X(type, function, parameters) TAKE(CUBLASLT, load->blas.function, #function);
    CUBLASLT_FUNCTIONS(X)
#undef X
    load->has_blas = is_usable(&load->part[CUBLASLT]);
    if (load->has_blas)
        load->part[CUBLASLT].version = (uint32_t)load->blas.cublasLtGetVersion();
}

static void fill_dnn(struct cuda_load *load, void *handle)
{
#define X(type, function, parameters) TAKE(CUDNN, load->dnn.function, #function);
    CUDNN_FUNCTIONS(X)
#undef X
    load->has_dnn = is_usable(&load->part[CUDNN]);
    if (load->has_dnn)
        load->part[CUDNN].version = (uint32_t)load->dnn.cudnnGetVersion();
}

// What there is -------------------------------------------------------------------------------------------------------------------

// Asks the runtime for its version; false with the part's fault when it is none that djinn can use.
static bool is_runtime_usable(struct cuda_load *load)
{
    struct cuda_part *runtime = &load->part[RUNTIME];
    int version = 0;

    if (!is_usable(runtime))
        return false;
    int status = load->api.cudaRuntimeGetVersion(&version);
    runtime->version = (uint32_t)version;
    if (status == CUDA_OK && version >= VERSION_LEAST && version < VERSION_LEAST + VERSION_MAJOR)
        return true;
    fault_set(&runtime->fault, DJ_E_NO_DEVICE, "%.300s is of CUDA %d.%d, djinn needs 13: %s", runtime->path, version / 1000,
              version % 1000 / 10, table[RUNTIME].remedy);
    return false;
}

// Counts GPUs. What the runtime answers decides, not whether libcuda was found here: it looks for the driver itself.
static void count_devices(struct cuda_load *load)
{
    struct cuda_part *driver = &load->part[DRIVER];
    int version = 0, devices = 0;

    if (load->api.cudaDriverGetVersion(&version) == CUDA_OK)
        driver->version = (uint32_t)version;
    int status = load->api.cudaGetDeviceCount(&devices);
    (void)load->api.cudaGetLastError();
    if (status == CUDA_OK && devices > 0) {
        load->devices = devices;
        driver->is_found = true;
        driver->fault = (struct fault){0};
    } else if (status == CUDA_OK || status == CUDA_NO_DEVICE) {
        fault_set(&driver->fault, DJ_E_NO_DEVICE,
                  "the driver shows no GPU: see that nvidia-smi lists one, and that CUDA_VISIBLE_DEVICES does not hide it");
    } else if (status == CUDA_DRIVER_TOO_OLD && driver->is_found && version > 0) {
        fault_set(&driver->fault, DJ_E_NO_DEVICE, "the driver is for CUDA %d.%d, djinn needs one for 13: %s", version / 1000,
                  version % 1000 / 10, table[DRIVER].remedy);
    } else if (status != CUDA_DRIVER_TOO_OLD || driver->is_found) {
        fault_set(&driver->fault, DJ_E_NO_DEVICE,
                  "the driver does not work: cudaGetDeviceCount said %s, %s; see that nvidia-smi lists GPUs",
                  load->api.cudaGetErrorName(status), load->api.cudaGetErrorString(status));
    }
}

static enum dj_error judge(const struct cuda_load *load, struct fault *fault)
{
    const struct fault *driver = &load->part[DRIVER].fault, *runtime = &load->part[RUNTIME].fault;

    if (load->devices > 0)
        return DJ_OK;
    if (driver->code != DJ_OK && runtime->code != DJ_OK)
        return fault_set(fault, DJ_E_NO_DEVICE, "no CUDA driver: %.200s; and no CUDA runtime: %.200s", driver->text,
                         runtime->text);
    if (runtime->code != DJ_OK)
        return fault_set(fault, DJ_E_NO_DEVICE, "no CUDA runtime: %.400s", runtime->text);
    return fault_set(fault, DJ_E_NO_DEVICE, "no CUDA driver or GPU: %.400s", driver->text);
}

enum dj_error cuda_load(struct cuda_load *ret, struct fault *fault)
{
    struct places *places = malloc(sizeof *places);
    void *handle[PARTS];

    memset(ret, 0, sizeof *ret);
    if (places == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the list of folders to search");
    find_places(places);
    for (enum part which = 0; which < PARTS; which++)
        handle[which] = open_part(ret, which, places);
    ret->parts = PARTS;
    free(places);
    fill_runtime(ret, handle[RUNTIME]);
    fill_blas(ret, handle[CUBLASLT]);
    fill_dnn(ret, handle[CUDNN]);
    if (is_runtime_usable(ret))
        count_devices(ret);
    return judge(ret, fault);
}
