// JSON from anywhere: an error, or a plan whose JSON reads back as the same plan.

#include "core/base/assert.h"
#include "core/srg/export.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ops_init();
    struct srg_plan *plan = NULL, *again = NULL;
    struct fault fault = {0};
    enum dj_error error = plan_from_json((const char *)data, size, &plan, &fault);
    assert(error == DJ_OK || fault.code == error);
    if (error != DJ_OK)
        return 0;
    struct writer writer = writer_make(PLAN_JSON_BYTES_MAX);
    error = plan_to_json(plan, &writer);
    assert(error == DJ_OK);
    error = plan_from_json((const char *)writer.data, writer.length, &again, &fault);
    assert(error == DJ_OK && hash128_equal(plan->fingerprint, again->fingerprint));
    plan_drop(again);
    plan_drop(plan);
    writer_free(&writer);
    return 0;
}
