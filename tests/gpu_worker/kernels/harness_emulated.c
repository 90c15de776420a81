// CUDA's kernels, run on this machine by the emulator. Each call gets another order of threads. With DJINN_EMULATED_CUDNN=1 convolutions
// and attention go through graphs of cuDNN, which a fake of it computes.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"
#include "gpu_worker/kernels/cuda/libraries.h"
#include "gpu_worker/kernels/failure.h"
#include "tests/gpu_worker/kernels/harness_backend.h"
#include "tests/lib/cuda/emulator.h"
#include "tests/lib/cuda/fake_cudnn.h"

enum { WORKSPACE_BYTES = 1 << 20 };

static uint64_t seed;

// NULL: none is wanted.
static const struct cuda_libraries *libraries(void)
{
    static struct cuda_libraries made;
    static uint64_t workspace[WORKSPACE_BYTES / 8];
    const char *wanted = getenv("DJINN_EMULATED_CUDNN");
    if (wanted == NULL || strcmp(wanted, "1") != 0)
        return NULL;
    if (made.dnn != NULL)
        return &made;
    made = (struct cuda_libraries){
        .processors = 1, .capability = 90, .dnn = fake_cudnn_api(), .workspace = workspace, .workspace_bytes = sizeof workspace};
    if (made.dnn->cudnnCreate(&made.dnn_handle) != 0 || dnn_cache_make(&made.plans) != DJ_OK) {
        fprintf(stderr, "the fake of cuDNN cannot be started\n");
        exit(1);
    }
    return &made;
}

const char *backend_numerics(void)
{
    return libraries() == NULL ? "cuda emulated" : "cuda emulated cudnn";
}

bool backend_has(uint32_t op)
{
    return kernels_cuda()->entry[op].emit != NULL;
}

bool backend_can(const struct kernel_call *call)
{
    const struct cuda_entry *entry = &kernels_cuda()->entry[call->op->number];
    return entry->can == NULL || entry->can(call);
}

size_t backend_scratch(const struct kernel_call *call)
{
    const struct cuda_entry *entry = &kernels_cuda()->entry[call->op->number];
    return entry->scratch == NULL ? 0 : entry->scratch(call);
}

static enum dj_error run_step(const struct cuda_program *program, const struct cuda_step *step, struct cuda_report *report,
                              struct fault *fault)
{
    if (step->function == CUDA_FUNCTION_NONE)
        return step->call(program->context + step->args_offset, program->libraries, NULL, fault);
    struct emulator_launch launch = {.grid = {step->grid_x, step->grid_y, step->grid_z},
                                     .block = step->block,
                                     .shared_bytes = step->shared_bytes,
                                     .args = program->args + step->args_offset,
                                     .fault = &report->first,
                                     .task = step->task};
    emulator_run(emulator_find(step->function), &launch, ++seed);
    return DJ_OK;
}

enum dj_error backend_run(const struct kernel_call *call)
{
    static struct cuda_program program;
    struct cuda_report report = {0};
    struct fault fault;

    cuda_program_reset(&program);
    program.libraries = libraries();
    enum dj_error error = kernels_cuda()->entry[call->op->number].emit(call, &program);
    if (error == DJ_OK)
        error = program.error;
    for (uint32_t i = 0; i < program.steps && error == DJ_OK; i++)
        error = run_step(&program, &program.step[i], &report, &fault);
    if (error != DJ_OK || report.first == 0)
        return error;
    if (!program.may_fault)
        return DJ_E_INTERNAL;    // nobody would have looked
    return failure_say(&fault, (enum failure)(uint32_t)report.first, call->op->name, report.value, report.size);
}
