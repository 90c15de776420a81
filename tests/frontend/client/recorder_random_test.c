// Views and in-place writes mean what PyTorch means by them: random programs against a brute-force twin that has real storages.

#include "frontend/client/recorder/recorder.h"

#include <stdlib.h>
#include <string.h>

#include "tests/frontend/client/bench.h"
#include "tests/lib/case.h"

static const struct recorded_at nowhere;
static const struct dj_attr alpha_1 = {.kind = DJ_ATTR_INT, .value.i = 1};

enum { TWIN_TENSORS = 16, TWIN_STORAGES = 64, TWIN_ELEMENTS = 64, TWIN_STEPS = 80 };

struct storage {
    struct dj_cell *cell;
    double element[TWIN_ELEMENTS];
};

struct twin {
    struct bench *bench;
    struct dj_tensor tensor[TWIN_TENSORS];    // each with a hold on its cell
    uint32_t tensors;
    struct storage storage[TWIN_STORAGES];
};

static struct dj_tensor add(struct bench *bench, const struct dj_tensor *a, const struct dj_tensor *b)
{
    return bench_op(bench, OP_ADD, a, b, &alpha_1, 1);
}

static void write_to(struct bench *bench, const struct dj_tensor *to, const struct dj_tensor *from)
{
    struct fault fault = {0};
    enum dj_error error = recorder_write(bench->recorder, to, from, nowhere, &fault);
    if (error != DJ_OK)
        fail_msg("write: %s %s", dj_error_name(error), fault.text);
}

static struct storage *storage_of(struct twin *twin, const struct dj_cell *cell)
{
    for (int i = 0; i < TWIN_STORAGES; i++)
        if (twin->storage[i].cell == cell)
            return &twin->storage[i];
    return NULL;
}

static int64_t count_of(const struct dj_tensor *t)
{
    int64_t count = 1;
    for (uint32_t d = 0; d < t->rank; d++)
        count *= t->size[d];
    return count;
}

// The n-th element in row-major order.
static double *element(struct twin *twin, const struct dj_tensor *t, int64_t n)
{
    int64_t at = t->offset;
    for (uint32_t d = t->rank; d-- > 0;) {
        at += n % t->size[d] * t->stride[d];
        n /= t->size[d];
    }
    assert_true(at >= 0 && at < TWIN_ELEMENTS);
    return &storage_of(twin, t->cell)->element[at];
}

static void twin_keep(struct twin *twin, struct dj_tensor t, bool is_new)
{
    if (!is_new)
        recorder_cell_hold(t.cell);
    else if (storage_of(twin, t.cell) == NULL) {
        struct storage *storage = storage_of(twin, NULL);
        assert_non_null(storage);
        *storage = (struct storage){.cell = t.cell};
    }
    twin->tensor[twin->tensors++] = t;
}

static void twin_drop(struct twin *twin, uint32_t i)
{
    struct dj_cell *cell = twin->tensor[i].cell;
    twin->tensor[i] = twin->tensor[--twin->tensors];
    bool is_last = true;
    for (uint32_t k = 0; k < twin->tensors; k++)
        is_last = is_last && twin->tensor[k].cell != cell;
    if (is_last)
        storage_of(twin, cell)->cell = NULL;
    recorder_cell_drop(twin->bench->recorder, cell);
}

static bool same_size(const struct dj_tensor *a, const struct dj_tensor *b)
{
    return a->rank == b->rank && memcmp(a->size, b->size, a->rank * sizeof a->size[0]) == 0;
}

static void step_upload(struct twin *twin, struct prng *prng)
{
    float data[TWIN_ELEMENTS];
    int64_t size[2] = {(int64_t)prng_between(prng, 1, 4), (int64_t)prng_between(prng, 1, 4)};
    for (int i = 0; i < TWIN_ELEMENTS; i++)
        data[i] = (float)prng_between(prng, 0, 9);
    uint32_t rank = (uint32_t)prng_between(prng, 1, 2);
    struct dj_tensor t = bench_upload(twin->bench, data, rank, size);
    twin_keep(twin, t, true);
    for (int64_t n = 0; n < count_of(&t); n++)
        *element(twin, &t, n) = (double)data[n];
}

// Dense in another order of its dimensions, as channels_last is.
static void step_upload_permuted(struct twin *twin, struct prng *prng)
{
    static const int order[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const int *dims = order[prng_between(prng, 0, 5)];
    struct dj_tensor shape = {.dtype = DTYPE_F32, .rank = 3}, t;
    int64_t stride = 1;
    for (int i = 2; i >= 0; i--) {
        shape.size[dims[i]] = (int64_t)prng_between(prng, 1, 8) / 4 + 1;
        shape.stride[dims[i]] = stride;
        stride *= shape.size[dims[i]];
    }
    float data[TWIN_ELEMENTS];
    for (int i = 0; i < TWIN_ELEMENTS; i++)
        data[i] = (float)prng_between(prng, 0, 9);
    assert_ok(recorder_upload(twin->bench->recorder, 0, data, &shape, nowhere, &t, NULL));
    twin_keep(twin, t, true);
    for (int64_t i = 0; i < stride; i++)
        storage_of(twin, t.cell)->element[i] = (double)data[i];
}

// A fresh storage becomes what a tensor sees, at the same place in it; the rest of it is zero.
static void step_assign(struct twin *twin, const struct dj_tensor *from)
{
    struct dj_tensor t = *from;
    t.cell = recorder_cell(twin->bench->recorder, 0);
    assert_ok(recorder_assign(twin->bench->recorder, t.cell, from, nowhere, NULL));
    twin_keep(twin, t, true);
    for (int64_t n = 0; n < count_of(from); n++)
        *element(twin, &t, n) = *element(twin, from, n);
}

static void step_empty(struct twin *twin, struct prng *prng)
{
    int64_t rows = (int64_t)prng_between(prng, 1, 4), columns = (int64_t)prng_between(prng, 1, 4);
    struct dj_tensor t = {.cell = recorder_cell(twin->bench->recorder, 0),
                          .dtype = DTYPE_F32,
                          .rank = 2,
                          .size = {rows, columns},
                          .stride = {columns, 1}};
    twin_keep(twin, t, true);
}

static void step_view(struct twin *twin, struct prng *prng, const struct dj_tensor *t)
{
    int64_t dim = t->rank == 0 ? 0 : (int64_t)prng_between(prng, 0, t->rank - 1), size[DJ_MAX_RANK];
    struct dj_attr attr[4];
    uint32_t op, attrs;
    switch (prng_between(prng, 0, 5)) {
    case 0: {
        if (t->rank == 0)
            return;
        int64_t start = (int64_t)prng_between(prng, 0, (uint64_t)t->size[dim] - 1);
        op = OP_SLICE, attrs = 4;
        attr[0] = BENCH_INT(dim), attr[1] = BENCH_INT(start),
        attr[2] = BENCH_INT((int64_t)prng_between(prng, (uint64_t)start + 1, (uint64_t)t->size[dim]));
        attr[3] = BENCH_INT((int64_t)prng_between(prng, 1, 2));
        break;
    }
    case 1:
        if (t->rank == 0)
            return;
        op = OP_SELECT, attrs = 2;
        attr[0] = BENCH_INT(dim), attr[1] = BENCH_INT((int64_t)prng_between(prng, 0, (uint64_t)t->size[dim] - 1));
        break;
    case 2:
        if (t->rank < 2)
            return;
        op = OP_TRANSPOSE, attrs = 2;
        attr[0] = BENCH_INT(0), attr[1] = BENCH_INT(t->rank - 1);
        break;
    case 3:
        if (t->rank > 3)
            return;
        op = OP_UNSQUEEZE, attrs = 1;
        attr[0] = BENCH_INT(dim);
        break;
    case 4: {
        if (t->rank == 0)
            return;
        // What PyTorch allows anywhere: two dimensions that lie behind each other become one.
        bool is_contiguous = true;
        int64_t expected = 0;
        for (uint32_t d = t->rank; d-- > 0;) {
            if (t->size[d] == 1)
                continue;
            is_contiguous = is_contiguous && (expected == 0 || t->stride[d] == expected);
            expected = t->stride[d] * t->size[d];
        }
        if (!is_contiguous)
            return;
        op = OP_VIEW_SIZES, attrs = 1;
        size[0] = count_of(t);
        attr[0] = BENCH_INTS(size, 1);
        break;
    }
    default: {
        // A window that no op made: every second element of what the tensor spans.
        struct dj_tensor strided = {.cell = t->cell, .dtype = t->dtype, .rank = 1, .offset = t->offset, .stride = {2}};
        int64_t last = 0;
        for (uint32_t d = 0; d < t->rank; d++)
            last += (t->size[d] - 1) * t->stride[d];
        strided.size[0] = last / 2 + 1;
        twin_keep(twin, strided, false);
        return;
    }
    }
    twin_keep(twin, bench_op(twin->bench, op, t, NULL, attr, attrs), false);
}

static void step_compute(struct twin *twin, const struct dj_tensor *a, const struct dj_tensor *b)
{
    if (!same_size(a, b))
        return;
    struct dj_tensor sum = add(twin->bench, a, b);
    twin_keep(twin, sum, true);
    for (int64_t n = 0; n < count_of(&sum); n++)
        *element(twin, &sum, n) = *element(twin, a, n) + *element(twin, b, n);
}

static void step_write(struct twin *twin, const struct dj_tensor *to, const struct dj_tensor *from)
{
    if (!same_size(to, from) && count_of(from) != 1)
        return;
    if (from->rank > to->rank)
        return;
    double copy[TWIN_ELEMENTS];
    int64_t count = count_of(to), given = count_of(from);
    for (int64_t n = 0; n < count; n++)
        copy[n] = *element(twin, from, given == 1 ? 0 : n);
    write_to(twin->bench, to, from);
    for (int64_t n = 0; n < count; n++)
        *element(twin, to, n) = copy[n];
}

static void step_read(struct twin *twin, const struct dj_tensor *t)
{
    float data[TWIN_ELEMENTS];
    bench_read(twin->bench, t, data);
    for (int64_t n = 0; n < count_of(t); n++)
        if ((double)data[n] != *element(twin, t, n))
            fail_msg("element %ld reads %g, not %g", (long)n, (double)data[n], *element(twin, t, n));
}

static void a_random_program_means_what_storages_mean(void **state)
{
    struct twin *twin = calloc(1, sizeof *twin);
    for (uint64_t seed = 1; seed <= 600; seed++) {
        struct prng prng = case_prng(state, seed);
        *twin = (struct twin){.bench = bench_make(state)};
        for (int step = 0; step < TWIN_STEPS; step++) {
            if (twin->tensors == TWIN_TENSORS)
                twin_drop(twin, (uint32_t)prng_between(&prng, 0, twin->tensors - 1));
            if (twin->tensors == 0)
                step_upload(twin, &prng);
            struct dj_tensor a = twin->tensor[prng_between(&prng, 0, twin->tensors - 1)],
                             b = twin->tensor[prng_between(&prng, 0, twin->tensors - 1)];
            switch (prng_between(&prng, 0, 13)) {
            case 12: step_upload_permuted(twin, &prng); break;
            case 13: step_assign(twin, &b); break;
            case 0: step_upload(twin, &prng); break;
            case 1: step_empty(twin, &prng); break;
            case 2:
            case 3:
            case 4: step_view(twin, &prng, &a); break;
            case 5:
            case 6: step_compute(twin, &a, &b); break;
            case 7:
            case 8:
            case 9: step_write(twin, &a, &b); break;
            case 10: prng_chance(&prng, 1, 3) ? bench_flush(twin->bench) : twin_drop(twin, 0); break;
            default: step_read(twin, &a); break;
            }
        }
        while (twin->tensors > 0) {
            step_read(twin, &twin->tensor[0]);
            twin_drop(twin, 0);
        }
        recorder_flush_releases(twin->bench->recorder);
        assert_int_equal(twin->bench->eval[0].handles, 0);
    }
    free(twin);
}

CASES(a_random_program_means_what_storages_mean)
