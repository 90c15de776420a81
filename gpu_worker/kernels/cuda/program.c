// Program: see program.h.

#include "gpu_worker/kernels/cuda/program.h"

#include <stdlib.h>
#include <string.h>

const struct cuda_kernel_name cuda_kernel_names[CUDA_FUNCTIONS_END] = {
#define KERNEL(family, name) [CUDA_##name] = {#name, CUDA_FAMILY_##family},
#include "gpu_worker/kernels/cuda/kernels.def"
};

void cuda_program_reset(struct cuda_program *program)
{
    program->steps = program->args_bytes = program->context_bytes = program->task = 0;
    program->may_fault = false;
    program->chain.kind = CHAIN_NONE;
    program->error = DJ_OK;
}

void cuda_program_free(struct cuda_program *program)
{
    free(program->step);
    free(program->args);
    free(program->context);
    *program = (struct cuda_program){.libraries = program->libraries};
}

// Room for `more` further items of `item` bytes. On failure the program's error is set.
static bool make_room(struct cuda_program *program, void **items, uint32_t count, uint32_t *capacity, uint32_t more, size_t item,
                      uint32_t most)
{
    if (program->error != DJ_OK)
        return false;
    if (more > most || count > most - more) {
        program->error = DJ_E_LIMIT;
        return false;
    }
    if (count + more <= *capacity)
        return true;
    uint32_t larger = *capacity < 64 ? 64 : *capacity;
    while (larger < count + more)
        larger *= 2;
    void *grown = realloc(*items, larger * item);
    if (grown == NULL) {
        program->error = DJ_E_NO_MEMORY;
        return false;
    }
    *items = grown;
    *capacity = larger;
    return true;
}

static uint32_t aligned(uint32_t bytes)
{
    return (bytes + CUDA_ARGS_ALIGNMENT - 1) & ~(uint32_t)(CUDA_ARGS_ALIGNMENT - 1);
}

// Copies bytes behind the others; what fills up to the alignment is zero, since keys are taken over it.
static bool append(struct cuda_program *program, uint8_t **bytes, uint32_t *length, uint32_t *capacity, const void *data,
                   uint32_t count)
{
    void *memory = *bytes;
    uint32_t whole = aligned(count);
    if (count > CUDA_ARGS_MAX || !make_room(program, &memory, *length, capacity, whole, 1, CUDA_ARGS_MAX))
        return false;
    *bytes = memory;
    memcpy(*bytes + *length, data, count);
    memset(*bytes + *length + count, 0, whole - count);
    *length += whole;
    return true;
}

static struct cuda_step *add(struct cuda_program *program)
{
    void *steps = program->step;
    if (!make_room(program, &steps, program->steps, &program->step_capacity, 1, sizeof *program->step, CUDA_STEPS_MAX))
        return NULL;
    program->step = steps;
    struct cuda_step *step = &program->step[program->steps++];
    memset(step, 0, sizeof *step);
    step->task = program->task;
    return step;
}

static void be_launch(struct cuda_step *step, enum cuda_function function, struct cuda_shape shape)
{
    step->function = (uint16_t)function;
    step->grid_x = shape.grid_x;
    step->grid_y = shape.grid_y;
    step->grid_z = shape.grid_z;
    step->block = (uint16_t)shape.block;
    step->shared_bytes = shape.shared_bytes;
}

void cuda_emit(struct cuda_program *program, enum cuda_function function, struct cuda_shape shape, const void *args,
               uint32_t bytes)
{
    uint32_t at = program->args_bytes;
    if (!append(program, &program->args, &program->args_bytes, &program->args_capacity, args, bytes))
        return;
    struct cuda_step *step = add(program);
    if (step == NULL)
        return;
    be_launch(step, function, shape);
    step->args_offset = at;
    step->args_bytes = bytes;
}

bool cuda_goes_on(const struct cuda_program *program)
{
    return program->error == DJ_OK && program->chain.kind != CHAIN_NONE && program->chain.step + 1 == program->steps;
}

void cuda_emit_more(struct cuda_program *program, enum cuda_function function, struct cuda_shape shape, const void *args,
                    uint32_t bytes)
{
    uint32_t at = program->args_bytes;
    if (!append(program, &program->args, &program->args_bytes, &program->args_capacity, args, bytes))
        return;
    struct cuda_step *step = &program->step[program->steps - 1];
    be_launch(step, function, shape);
    step->args_bytes = at + bytes - step->args_offset;
}

void cuda_emit_call(struct cuda_program *program, cuda_call call, const void *context, uint32_t bytes)
{
    uint32_t at = program->context_bytes;
    if (!append(program, &program->context, &program->context_bytes, &program->context_capacity, context, bytes))
        return;
    struct cuda_step *step = add(program);
    if (step == NULL)
        return;
    step->call = call;
    step->args_offset = at;
    step->args_bytes = bytes;
}

uint32_t cuda_bucket(uint32_t n)
{
    uint32_t power = 1;
    while (power < n && power < 1u << 30)
        power *= 2;
    uint32_t between = power / 4 * 3;
    return between >= n && between > 0 ? between : power;
}

uint32_t cuda_blocks(int64_t count, int64_t per_block, uint32_t most)
{
    int64_t blocks = count <= 0 ? 1 : (count - 1) / per_block + 1;
    if (blocks >= most)
        return most;
    uint32_t bucket = cuda_bucket((uint32_t)blocks);
    return bucket > most ? most : bucket;
}

struct hash128 cuda_program_key(const struct cuda_program *program)
{
    // Steps hold no padding that is not zeroed (add), contexts neither (cuda_emit_call's contract).
    struct hash128 steps = hash128(program->step, program->steps * sizeof *program->step);
    struct hash128 contexts = hash128(program->context, program->context_bytes);
    struct hash128 both[2] = {steps, contexts};
    return hash128(both, sizeof both);
}
