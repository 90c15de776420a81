// Module: see module.h. What this machine has is looked at once and kept.

#include "gpu_worker/device/cuda/module.h"

#include <stdlib.h>

#include "core/base/log.h"
#include "core/ops/op.h"
#include "gpu_worker/device/cuda/cuda_device.h"
#include "gpu_worker/device/cuda/images.h"

static struct {
    bool is_looked;
    enum dj_error error;
    struct fault fault;
    struct cuda_load load;
    void (*write)(int level, const char *component, const char *text);
} module;

static void pass_on(void *context, enum log_level level, const char *component, const char *line)
{
    (void)context;
    module.write((int)level, component, line);
}

// The program's sink judges which lines are worth writing: all go there.
static void log_to(void (*write)(int level, const char *component, const char *text))
{
    module.write = write;
    log_install(write == NULL ? NULL : pass_on, NULL, LOG_DEBUG);
}

static enum dj_error look(const struct cuda_load **ret, struct fault *fault)
{
    if (!module.is_looked) {
        module.error = cuda_load(&module.load, &module.fault);
        module.is_looked = true;
    }
    *ret = &module.load;
    return module.error == DJ_OK ? DJ_OK : fault_set(fault, module.error, "%s", module.fault.text);
}

static enum dj_error make(const struct cuda_module_config *config, struct device_port **ret, struct fault *fault)
{
    const struct cuda_load *load;

    enum dj_error error = look(&load, fault);
    if (error != DJ_OK)
        return error;
    if (config->ordinal < 0 || config->ordinal >= load->devices)
        return fault_set(fault, DJ_E_NO_DEVICE, "there is no GPU %d: this machine has %d, counted from 0", config->ordinal,
                         load->devices);
    ops_init();    // this copy of the tables
    struct cuda_device_config device = {.index = config->index,
                                        .ordinal = config->ordinal,
                                        .memory_bytes = config->memory_bytes,
                                        .allows_tf32 = config->allows_tf32,
                                        .api = &load->api,
                                        .blas = load->has_blas ? &load->blas : NULL,
                                        .dnn = load->has_dnn ? &load->dnn : NULL,
                                        .image = cuda_images(),
                                        .chaos = config->chaos,
                                        .sink = config->sink};
    const char *launches = getenv("DJINN_CUDA_TIMING");
    device.times_launches = launches != NULL && launches[0] != '\0';
    device.timing_file = device.times_launches ? launches : getenv("DJINN_CUDA_COUNTS");
    return cuda_device_make(&device, ret, fault);
}

__attribute__((visibility("default"))) const struct cuda_module *djinn_cuda_module(void);

const struct cuda_module *djinn_cuda_module(void)
{
    static const struct cuda_module table = {.version = CUDA_MODULE_VERSION, .log_to = log_to, .look = look, .make = make};
    return &table;
}
