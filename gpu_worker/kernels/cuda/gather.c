// Gather, host half: embedding and index_select take slices, gather takes one element for each index, index any mix of index tensors and
// whole dimensions. Each becomes a space of the output with self's and the indices' steps in it. Element type does not matter, only its
// size.

#include "gpu_worker/kernels/cuda/index.h"

static enum dj_error take(const struct index_space *space, const struct tensor *self, const struct tensor *out,
                          struct cuda_program *program)
{
    struct gather_args args = {.plain = out->data, .indexed = self->data};
    index_walk_make(space, WALK_ALL, true, &args.walk);
    program->may_fault = program->may_fault || space->indices > 0;
    cuda_emit(program, CUDA_gather_take, index_shape(index_units(&args.walk)), &args, sizeof args);
    return DJ_OK;
}

static int64_t index_bytes(const struct tensor *index)
{
    return (int64_t)dtype_bytes(index->meta.dtype);
}

// embedding: rows of weight; index_select: slices along dim. The output's dimensions are self's with `dim` replaced by the index's.
static enum dj_error slices(const struct kernel_call *call, uint32_t dim, struct cuda_program *program)
{
    const struct tensor *self = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    int64_t bytes = (int64_t)dtype_bytes(self->meta.dtype), extent = self->meta.rank == 0 ? 1 : self->meta.size[dim];
    if (tensor_count(&out->meta) == 0) {
        index_emit_check(program, index, extent);
        return DJ_OK;
    }

    struct index_space space = {.rank = out->meta.rank, .indices = 1, .bytes = bytes, .index = {index}, .extent = {extent}};
    space.index_step[0] = self->meta.rank == 0 ? 0 : self->meta.stride[dim] * bytes;
    for (uint32_t d = 0; d < out->meta.rank; d++) {
        space.size[d] = out->meta.size[d];
        space.plain[d] = out->meta.stride[d] * bytes;
        space.is_free[d] = true;
    }
    uint32_t at = 0;
    for (uint32_t d = 0; d < dim; d++)
        space.indexed[at++] = self->meta.stride[d] * bytes;
    for (uint32_t d = 0; d < index->meta.rank && at < out->meta.rank; d++) {
        space.is_free[at] = false;
        space.step[0][at++] = index->meta.stride[d] * index_bytes(index);
    }
    // An index without dimensions leaves its place in index_select's result, of size 1.
    at += call->op->number == OP_INDEX_SELECT && index->meta.rank == 0 ? 1 : 0;
    for (uint32_t d = dim + 1; d < self->meta.rank && at < out->meta.rank; d++)
        space.indexed[at++] = self->meta.stride[d] * bytes;
    return take(&space, self, out, program);
}

static enum dj_error emit_embedding(const struct kernel_call *call, struct cuda_program *program)
{
    return slices(call, 0, program);
}

static enum dj_error emit_index_select(const struct kernel_call *call, struct cuda_program *program)
{
    return slices(call, cuda_dim_wrap(call->attr[0].i, call->in[0].meta.rank), program);
}

// out[i] = self[i with i[dim] = index[i]]
static enum dj_error emit_gather(const struct kernel_call *call, struct cuda_program *program)
{
    const struct tensor *self = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    uint32_t dim = cuda_dim_wrap(call->attr[0].i, self->meta.rank);
    int64_t bytes = (int64_t)dtype_bytes(self->meta.dtype);
    struct index_space space = {.rank = out->meta.rank, .indices = 1, .bytes = bytes, .index = {index}};

    if (tensor_count(&out->meta) == 0)
        return DJ_OK;
    space.extent[0] = self->meta.rank == 0 ? 1 : self->meta.size[dim];
    space.index_step[0] = self->meta.rank == 0 ? 0 : self->meta.stride[dim] * bytes;
    for (uint32_t d = 0; d < out->meta.rank; d++) {
        space.size[d] = out->meta.size[d];
        space.plain[d] = out->meta.stride[d] * bytes;
        space.indexed[d] = d == dim || d >= self->meta.rank ? 0 : self->meta.stride[d] * bytes;
        space.step[0][d] = index->meta.stride[d] * index_bytes(index);
        space.is_free[d] = space.step[0][d] == 0;
    }
    return take(&space, self, out, program);
}

static enum dj_error emit_index(const struct kernel_call *call, struct cuda_program *program)
{
    struct index_space space;
    if (tensor_count(&call->out[0].meta) == 0)
        return DJ_OK;
    index_space_make(&call->in[0], call->in + 1, call->n_in - 1, &call->out[0], &space);
    return take(&space, &call->in[0], &call->out[0], program);
}

static bool one_index_can(const struct kernel_call *call)
{
    return !call->in[0].is_scalar && cuda_index_dtypes(&call->in[1], 1);
}

static bool index_can(const struct kernel_call *call)
{
    return call->n_in >= 1 && call->n_in - 1 <= call->in[0].meta.rank && !call->in[0].is_scalar &&
           cuda_index_dtypes(call->in + 1, call->n_in - 1);
}

void cuda_table_gather(struct cuda_entry *entry)
{
    entry[OP_EMBEDDING] = (struct cuda_entry){.emit = emit_embedding, .can = one_index_can};
    entry[OP_INDEX_SELECT] = (struct cuda_entry){.emit = emit_index_select, .can = one_index_can};
    entry[OP_GATHER] = (struct cuda_entry){.emit = emit_gather, .can = one_index_can};
    entry[OP_INDEX] = (struct cuda_entry){.emit = emit_index, .can = index_can};
}
