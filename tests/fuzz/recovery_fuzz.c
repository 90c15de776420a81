// Parts of RECOVERY messages from anywhere: an error, or plans and steps; and a step that puts a value together, or copies one, is a plan
// that gives a value of the shape it says.

#include "core/base/assert.h"
#include "core/lineage/recovery.h"
#include "core/srg/bindings.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t look(const uint8_t *bytes, uint32_t length)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < length; i++)
        sum += bytes[i];
    return sum;
}

static void check_small_plan(const struct recovery_step *step)
{
    struct srg_plan *plan = NULL;
    int64_t *word = NULL;
    struct fault fault = {0};
    struct tensor_meta out[1];
    enum dj_error error = step->kind == STEP_COPY ? recovery_copy_plan(step, &plan, &word, &fault)
                                                  : recovery_restore_plan(step, (struct hash128){1, 2}, &plan, &word, &fault);
    assert(error == DJ_OK && plan->outputs == 1);
    error = plan_infer(plan, word, out, NULL, NULL, &fault);
    assert(error == DJ_OK && tensor_same_sizes(&out[0], &step->meta));
    plan_drop(plan);
    free(word);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct record_scratch scratch;
    static struct arena *arena;
    ops_init();
    if (arena == NULL) {
        enum dj_error made = record_scratch_make(&scratch);
        if (made == DJ_OK)
            made = arena_make(1 << 16, 0, &arena);
        assert(made == DJ_OK);
    }
    struct recovery_reader reader = {.reader = reader_make(data, size), .arena = arena, .scratch = &scratch};
    struct record_plan plan;
    struct recovery_step step;
    enum recovery_item item;
    uint64_t sum = 0, counter = 0, part = 0;
    while ((item = recovery_next(&reader, &plan, &step)) == RECOVERY_PLAN || item == RECOVERY_STEP) {
        if (item == RECOVERY_PLAN) {
            sum += look(plan.bytes, (uint32_t)plan.length);
            continue;
        }
        assert(step.counter > counter || (step.counter == counter && step.part > part));
        counter = step.counter;
        part = step.part;
        for (uint32_t i = 0; i < step.words; i++)
            sum += (uint64_t)step.word[i];
        for (uint32_t i = 0; i < step.releases; i++)
            assert(step.released[i].counter < step.counter);
        if (step.kind == STEP_REPLAY)
            sum += look(step.keep, step.keep_bytes) + look(step.donate, step.donate_bytes);
        if (step.kind == STEP_RESTORE || step.kind == STEP_COPY)
            check_small_plan(&step);
    }
    assert((item == RECOVERY_END) == (reader.reader.error == DJ_OK));
    __asm__ volatile("" : : "r"(sum));    // what is pointed to was read
    arena_reset(arena);
    return 0;
}
