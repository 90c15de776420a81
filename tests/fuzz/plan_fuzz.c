// Encoded plans from anywhere: an error, or a plan that encodes and decodes to itself. What is a plan is also inferred with whatever
// bindings the same bytes make, so that inference meets hostile sizes on valid structures.

#include "core/base/assert.h"
#include "core/srg/bindings.h"
#include "core/srg/export.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUTPUTS_MAX = 1 << 14 };

static void infer(const struct srg_plan *plan, const uint8_t *data, size_t size)
{
    if (plan->outputs > OUTPUTS_MAX || size == 0)
        return;
    int64_t *word = malloc((plan->words + 1) * sizeof *word);
    struct tensor_meta *out = malloc((plan->outputs + 1) * sizeof *out);
    assert(word != NULL && out != NULL);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < plan->words; i++) {
            uint8_t byte = data[(i * 7 + round * 13) % size];
            word[i] = round == 0 ? byte % 5 : round == 1 ? (int8_t)byte : (int64_t)((uint64_t)byte << byte % 63);
        }
        struct fault fault = {0};
        enum dj_error error = plan_infer(plan, word, out, NULL, NULL, &fault);
        assert(error == DJ_OK || fault.code == error);
        for (uint32_t o = 0; error == DJ_OK && o < plan->outputs; o++)
            assert(tensor_check(&out[o], NULL) == DJ_OK);
    }
    free(word);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ops_init();
    struct srg_plan *plan = NULL, *again = NULL;
    struct fault fault = {0};
    enum dj_error error = plan_decode(data, size, &plan, &fault);
    assert(error == DJ_OK || fault.code == error);
    if (error != DJ_OK)
        return 0;
    struct writer writer = writer_make(PLAN_BYTES_MAX);
    error = plan_encode(plan, &writer);
    assert(error == DJ_OK);
    error = plan_decode(writer.data, writer.length, &again, &fault);
    assert(error == DJ_OK && hash128_equal(plan->fingerprint, again->fingerprint));
    infer(plan, data, size);
    plan_drop(again);
    plan_drop(plan);
    writer_free(&writer);
    return 0;
}
