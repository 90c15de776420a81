// Steps: a program's, run on the emulator without a device: launches on this machine's memory, library calls on their fakes.

#ifndef TESTS_LIB_CUDA_STEPS_H
#define TESTS_LIB_CUDA_STEPS_H

#include "gpu_worker/kernels/cuda/program.h"
#include "tests/lib/cuda/emulator.h"

// Until a library's call fails: its error, with `fault`. The order of threads comes from the seed; *report must be zero.
static inline enum dj_error steps_run(const struct cuda_program *program, uint64_t seed, struct cuda_report *report, struct fault *fault)
{
    for (uint32_t i = 0; i < program->steps; i++) {
        const struct cuda_step *step = &program->step[i];
        if (step->function == CUDA_FUNCTION_NONE) {
            enum dj_error error = step->call(program->context + step->args_offset, program->libraries, NULL, fault);
            if (error != DJ_OK)
                return error;
            continue;
        }
        struct emulator_launch launch = {.grid = {step->grid_x, step->grid_y, step->grid_z},
                                         .block = step->block,
                                         .shared_bytes = step->shared_bytes,
                                         .args = program->args + step->args_offset,
                                         .fault = &report->first,
                                         .task = step->task};
        emulator_run(emulator_find(step->function), &launch, seed + i);
    }
    return DJ_OK;
}

#endif
