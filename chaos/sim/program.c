// Program: the manual is program.h. A table of steps with their weights, a column for each workload.

#include "chaos/sim/program_state.h"

#include "core/base/assert.h"
#include "core/base/hash.h"

#include <stdlib.h>
#include <string.h>

static const char *const workload_names[WORKLOADS] = {"mixed", "decode", "train", "calls", "devices", "big"};

const char *program_workload_name(enum workload workload)
{
    return workload_names[workload];
}

static const struct {
    void (*step)(struct program *);
    uint32_t weight[WORKLOADS];
} steps[] = {
    //                 mixed  decode  train  calls  devices  big
    {step_leaf, {8, 3, 3, 12, 8, 4}},     {step_weight, {4, 2, 2, 6, 4, 2}},    {step_unary, {12, 6, 4, 16, 12, 6}},
    {step_binary, {12, 4, 4, 10, 10, 4}}, {step_softmax, {4, 4, 1, 3, 2, 1}},   {step_max, {3, 4, 1, 3, 1, 1}},
    {step_mm, {8, 6, 3, 8, 6, 2}},        {step_cache, {16, 50, 0, 0, 8, 2}},   {step_view, {8, 4, 2, 2, 4, 2}},
    {step_write, {8, 2, 4, 2, 4, 2}},     {step_flush, {6, 8, 8, 10, 6, 8}},    {step_to_device, {3, 1, 1, 0, 16, 1}},
    {step_release, {8, 4, 4, 8, 6, 6}},   {step_read, {14, 14, 8, 20, 14, 14}}, {step_train, {6, 0, 40, 0, 4, 4}},
    {step_big, {1, 0, 0, 1, 1, 24}},
};

struct program *program_make(struct client *client, const struct program_options *options)
{
    struct program *program = calloc(1, sizeof *program);
    assert(program != NULL);
    *program = (struct program){.client = client, .prng = prng_make(options->seed), .options = *options};
    return program;
}

void program_free(struct program *program)
{
    program_forget_all(program);
    program_drop(program, &program->wanted);
    free(program);
}

uint64_t program_step(struct program *program)
{
    const uint32_t count = sizeof steps / sizeof steps[0], column = program->options.workload;
    uint64_t total = 0;
    if (program->steps_done == program->options.steps) {
        program_forget_all(program);
        return UINT64_MAX;
    }
    if (program->steps_done++ == program->options.deviates_after) {
        // Other steps; or the same steps with other data.
        program->salt = program->options.deviant_seed;
        if (program->salt % 2 == 0)
            program->prng = prng_make(program->salt);
    }
    for (uint32_t i = 0; i < count; i++)
        total += steps[i].weight[column];
    uint64_t chosen = program_below(program, total);
    for (uint32_t i = 0; i < count; i++) {
        if (chosen < steps[i].weight[column]) {
            steps[i].step(program);
            break;
        }
        chosen -= steps[i].weight[column];
    }
    // Bursts of recording, with pauses in which everything else goes on.
    if (program_below(program, 3) != 0)
        return 0;
    uint64_t most_ns = program->options.think_ns + 1;
    return program_below(program, program_below(program, 20) == 0 ? 10 * most_ns : most_ns);
}

size_t program_read_bytes(const struct program *program)
{
    const struct dj_tensor *tensor = &program->wanted.tensor;
    size_t bytes = dtype_bytes((enum dtype)tensor->dtype);
    for (uint32_t d = 0; d < tensor->rank; d++)
        bytes *= (size_t)tensor->size[d];
    return bytes;
}

void program_read(struct program *program, const void *bytes, size_t count)
{
    size_t expected_bytes;
    uint8_t *expected = shadow_read(program->wanted.shadow, &program->wanted.tensor, &expected_bytes);
    assert(count == expected_bytes);
    size_t at = 0;
    while (at < count && expected[at] == ((const uint8_t *)bytes)[at])
        at++;
    free(expected);
    if (at < count)
        client_wrong(program->client, "one value per id: a value of %zu bytes differs from the oracle's from byte %zu on", count,
                     at);
    program_drop(program, &program->wanted);
}

// What failed is dropped with all that may stem from it, and the program begins again with fresh leaves.
void program_failed(struct program *program, enum dj_error error, const char *text)
{
    client_met_error(program->client, error, text);
    program_drop(program, &program->wanted);
    program_forget_all(program);
}

uint32_t program_steps_left(const struct program *program)
{
    return program->options.steps - program->steps_done;
}
