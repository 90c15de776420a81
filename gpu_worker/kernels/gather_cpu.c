// Gathers: out[...] = self[..., index[...], ...].
//
// embedding and index_select take whole slices; gather takes one element for each index; index.Tensor takes any mix of index tensors
// and whole dimensions. All are one loop over the output whose operands are self (steps 0 where an index decides) and the index
// tensors. Indices are checked before anything is read: out of range is DJ_E_INDEX. Element type does not matter, only its size.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

#include "core/base/assert.h"
#include "gpu_worker/kernels/failure.h"
#include "gpu_worker/kernels/index.h"

struct check {
    convert_function to_i64;
    int64_t size, bad;
    const char *bad_at;    // the first in memory; NULL: none
    bool may_wrap;
};

static void check_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    struct check *check = context;
    int64_t block[BLOCK_ELEMENTS];
    for (int64_t start = 0; start < n; start += BLOCK_ELEMENTS) {
        int64_t count = i64_least(BLOCK_ELEMENTS, n - start);
        check->to_i64(at[0] + start * step[0], step[0], (char *)block, 8, count);
        for (int64_t i = 0; i < count; i++)
            if (block[i] >= check->size || block[i] < (check->may_wrap ? -check->size : 0)) {
                const char *place = at[0] + (start + i) * step[0];
                if (check->bad_at != NULL && place >= check->bad_at)
                    continue;
                check->bad_at = place;
                check->bad = block[i];
            }
    }
}

enum dj_error index_check(const struct kernel_call *call, const struct tensor *index, int64_t size, bool may_wrap)
{
    struct check check = {.to_i64 = convert_find(index->meta.dtype, DTYPE_I64), .size = size, .may_wrap = may_wrap};
    struct loop loop;
    loop_begin(&loop, index->meta.rank, index->meta.size);
    loop_add(&loop, index);
    loop_finish(&loop, true);
    loop_run(&loop, NULL, check_row, &check);
    return check.bad_at == NULL ? DJ_OK : failure_say(call->fault, FAILURE_INDEX, call->op->name, check.bad, size);
}

bool index_dtype(enum dtype dtype)
{
    return dtype == DTYPE_I64 || dtype == DTYPE_I32;
}

static inline void move_element(char *to, const char *from, size_t bytes)
{
    switch (bytes) {
    case 1: memcpy(to, from, 1); break;
    case 2: memcpy(to, from, 2); break;
    case 4: memcpy(to, from, 4); break;
    case 8: memcpy(to, from, 8); break;
    default: memcpy(to, from, 16); break;
    }
}

// Operands: output (or what is written), self, then the index tensors.
struct take {
    uint32_t indices;
    struct index_dim dim[DJ_RANK_MAX];
    size_t bytes;
};

static void take_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct take *take = context;
    bool is_fixed = true;
    for (uint32_t i = 0; i < take->indices; i++)
        is_fixed &= step[2 + i] == 0;
    if (is_fixed) {    // the row lies inside one slice
        const char *from = at[1];
        for (uint32_t i = 0; i < take->indices; i++)
            from += index_offset(&take->dim[i], at[2 + i]);
        if (step[0] == (int64_t)take->bytes && step[1] == (int64_t)take->bytes) {
            memcpy(at[0], from, (size_t)n * take->bytes);
            return;
        }
        for (int64_t j = 0; j < n; j++)
            move_element(at[0] + j * step[0], from + j * step[1], take->bytes);
        return;
    }
    for (int64_t j = 0; j < n; j++) {
        const char *from = at[1] + j * step[1];
        for (uint32_t i = 0; i < take->indices; i++)
            from += index_offset(&take->dim[i], at[2 + i] + j * step[2 + i]);
        move_element(at[0] + j * step[0], from, take->bytes);
    }
}

// embedding: the rows of weight; index_select: slices along dim. The output's dimensions are self's with `dim` replaced by the
// index's dimensions.
static enum dj_error slices(const struct kernel_call *call, const struct tensor *self, uint32_t dim, const struct tensor *index,
                            bool may_wrap)
{
    const struct tensor *out = &call->out[0];
    enum dj_error error = index_check(call, index, self->meta.rank == 0 ? 1 : self->meta.size[dim], may_wrap);
    if (error != DJ_OK)
        return error;

    int64_t self_step[DJ_RANK_MAX] = {0}, index_step[DJ_RANK_MAX] = {0}, bytes = (int64_t)dtype_bytes(self->meta.dtype);
    struct take take = {.indices = 1, .bytes = (size_t)bytes};
    take.dim[0] = (struct index_dim){.is_wide = index->meta.dtype == DTYPE_I64,
                                     .size = self->meta.rank == 0 ? 1 : self->meta.size[dim],
                                     .step = self->meta.rank == 0 ? 0 : self->meta.stride[dim] * bytes};
    uint32_t at = 0;
    for (uint32_t d = 0; d < dim; d++)
        self_step[at++] = self->meta.stride[d] * bytes;
    for (uint32_t d = 0; d < index->meta.rank && at < out->meta.rank; d++)
        index_step[at++] = index->meta.stride[d] * (int64_t)dtype_bytes(index->meta.dtype);
    // index_select keeps a dimension of size 1 for an index without dimensions, embedding none.
    if (self->meta.rank > 0)
        at = out->meta.rank - (self->meta.rank - dim - 1);
    for (uint32_t d = dim + 1; d < self->meta.rank; d++)
        self_step[at++] = self->meta.stride[d] * bytes;

    struct loop loop;
    loop_begin(&loop, out->meta.rank, out->meta.size);
    loop_add(&loop, out);
    loop_add_raw(&loop, self->data, self_step);
    loop_add_raw(&loop, index->data, index_step);
    loop_finish(&loop, true);
    loop_run(&loop, call->team, take_row, &take);
    return DJ_OK;
}

static enum dj_error embedding_run(const struct kernel_call *call)
{
    return slices(call, &call->in[0], 0, &call->in[1], false);
}

static enum dj_error index_select_run(const struct kernel_call *call)
{
    return slices(call, &call->in[0], dim_wrap(call->attr[0].i, call->in[0].meta.rank), &call->in[1], false);
}

static bool slices_can(const struct kernel_call *call)
{
    return index_dtype(call->in[1].meta.dtype);
}

// out[i] = self[i with i[dim] = index[i]]
static enum dj_error gather_run(const struct kernel_call *call)
{
    const struct tensor *self = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    uint32_t dim = dim_wrap(call->attr[0].i, self->meta.rank);
    int64_t bytes = (int64_t)dtype_bytes(self->meta.dtype), step[DJ_RANK_MAX] = {0};
    struct take take = {.indices = 1, .bytes = (size_t)bytes};
    take.dim[0] = (struct index_dim){.is_wide = index->meta.dtype == DTYPE_I64,
                                     .size = self->meta.rank == 0 ? 1 : self->meta.size[dim],
                                     .step = self->meta.rank == 0 ? 0 : self->meta.stride[dim] * bytes};
    enum dj_error error = index_check(call, index, take.dim[0].size, false);
    if (error != DJ_OK)
        return error;
    for (uint32_t d = 0; d < self->meta.rank && d < out->meta.rank; d++)
        step[d] = d == dim ? 0 : self->meta.stride[d] * bytes;

    struct loop loop;
    loop_begin(&loop, out->meta.rank, out->meta.size);
    loop_add(&loop, out);
    loop_add_raw(&loop, self->data, step);
    loop_add(&loop, index);
    loop_finish(&loop, true);
    loop_run(&loop, call->team, take_row, &take);
    return DJ_OK;
}

void index_plan(const struct tensor *self, const struct tensor *index, uint32_t n_index, const struct tensor *shaped,
                struct index_plan *ret)
{
    memset(ret, 0, sizeof *ret);
    int64_t bytes = (int64_t)dtype_bytes(self->meta.dtype);
    uint32_t first = DJ_RANK_MAX, last = 0, count = 0, index_rank = 0;
    for (uint32_t d = 0; d < n_index; d++)
        if (is_present(&index[d])) {
            first = d < first ? d : first;
            last = d;
            ret->index[count] = &index[d];
            ret->dim[count++] = (struct index_dim){
                .is_wide = index[d].meta.dtype == DTYPE_I64, .size = self->meta.size[d], .step = self->meta.stride[d] * bytes};
            index_rank = index[d].meta.rank > index_rank ? index[d].meta.rank : index_rank;
        }
    ret->indices = count;
    bool is_adjacent = count == 0 || last - first + 1 == count;
    uint32_t where = count == 0 ? 0 : is_adjacent ? first : 0;    // the position of the index dimensions in the result

    uint32_t at = 0, free_dims = 0;
    for (uint32_t d = 0; d <= self->meta.rank; d++) {
        if (free_dims == where && at == where) {
            for (uint32_t i = 0; i < count; i++) {
                const struct tensor_meta *meta = &ret->index[i]->meta;
                for (uint32_t e = 0; e < meta->rank; e++)
                    ret->index_step[i][at + index_rank - meta->rank + e] =
                        meta->size[e] == 1 ? 0 : meta->stride[e] * (int64_t)dtype_bytes(meta->dtype);
            }
            at += index_rank;
        }
        if (d < self->meta.rank && !(d < n_index && is_present(&index[d]))) {
            free_dims++;
            ret->self_step[at++] = self->meta.stride[d] * bytes;
        }
    }
    assert(at == shaped->meta.rank);
}

enum dj_error index_check_all(const struct kernel_call *call, const struct index_plan *plan)
{
    for (uint32_t i = 0; i < plan->indices; i++) {
        enum dj_error error = index_check(call, plan->index[i], plan->dim[i].size, true);
        if (error != DJ_OK)
            return error;
    }
    return DJ_OK;
}

static enum dj_error index_run(const struct kernel_call *call)
{
    const struct tensor *self = &call->in[0], *out = &call->out[0];
    struct index_plan plan;
    index_plan(self, call->in + 1, call->n_in - 1, out, &plan);
    if (tensor_count(&out->meta) == 0)
        return DJ_OK;
    enum dj_error error = index_check_all(call, &plan);
    if (error != DJ_OK)
        return error;

    struct take take = {.indices = plan.indices, .bytes = dtype_bytes(self->meta.dtype)};
    memcpy(take.dim, plan.dim, sizeof take.dim);
    struct loop loop;
    loop_begin(&loop, out->meta.rank, out->meta.size);
    loop_add(&loop, out);
    loop_add_raw(&loop, self->data, plan.self_step);
    for (uint32_t i = 0; i < plan.indices; i++)
        loop_add_raw(&loop, plan.index[i]->data, plan.index_step[i]);
    loop_finish(&loop, true);
    loop_run(&loop, call->team, take_row, &take);
    return DJ_OK;
}

// Masks have a size that depends on data: the recorder turns them into indices first.
bool indices_can(const struct tensor *index, uint32_t n)
{
    if (n > DJ_RANK_MAX)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (is_present(&index[i]) && !index_dtype(index[i].meta.dtype))
            return false;
    return true;
}

static bool index_can(const struct kernel_call *call)
{
    return call->n_in >= 1 && call->n_in - 1 <= call->in[0].meta.rank && indices_can(call->in + 1, call->n_in - 1);
}

void table_gather(struct kernel *kernel)
{
    kernel[OP_EMBEDDING] = (struct kernel){.run = embedding_run, .can = slices_can};
    kernel[OP_INDEX_SELECT] = (struct kernel){.run = index_select_run, .can = slices_can};
    kernel[OP_GATHER] = (struct kernel){.run = gather_run, .can = slices_can};
    kernel[OP_INDEX] = (struct kernel){.run = index_run, .can = index_can};
}
