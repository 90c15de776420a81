// Lower: a plan with its bindings becomes tasks. One pass over the nodes in order: views move metadata, everything else becomes a kernel
// with memory for its outputs; what dies at a node gives its memory to what comes after.
//
// Two metadata of each tensor: the logical one, inferred, equal to the client's; and the physical one, where its elements really lie.
// They differ behind buffers that grow (strides of the capacity) and behind outputs whose logical strides are not dense.
//
// Hot: a growing cache gives new sizes with every token. 100 us for 484 nodes is the aim; the tensors' metadata are most of it.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/srg/bindings.h"

#include <string.h>

bool lower_bit(const uint8_t *bits, uint32_t bytes, uint32_t index)
{
    return index / 8 < bytes && bit_get(bits, index);
}

static inline void meta_copy(struct tensor_meta *to, const struct tensor_meta *from)
{
    to->dtype = from->dtype;
    to->rank = from->rank;
    size_t half = from->rank <= 4 ? 4 : DJ_RANK_MAX;
    memcpy(to->size, from->size, half * sizeof to->size[0]);
    memcpy(to->stride, from->stride, half * sizeof to->stride[0]);
}

// Equal sizes, and equal strides where they matter.
static bool same_layout(const struct tensor_meta *a, const struct tensor_meta *b)
{
    if (a->rank != b->rank)
        return false;
    for (uint32_t d = 0; d < a->rank; d++) {
        if (a->size[d] != b->size[d] || (a->size[d] > 1 && a->stride[d] != b->stride[d]))
            return false;
    }
    return true;
}

static enum dj_error out_of_memory(struct lowering *lowering)
{
    return fault_set(lowering->fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
}

static const struct place *place_of(const struct lowering *lowering, const struct srg_ref *ref)
{
    const struct srg_plan *srg = lowering->plan->plan;
    uint32_t number = ref->kind == REF_INPUT ? ref->index : srg->inputs + srg->node[ref->index].first_output + ref->output;
    return &lowering->exec->bench.place[number];
}

enum dj_error lower_take(struct lowering *lowering, uint32_t number, uint64_t bytes, bool in_buffer)
{
    struct root *root = &lowering->exec->bench.root[number];
    root->bytes = bytes;
    root->is_owned = true;
    if (!in_buffer) {
        root->storage = STORAGE_WORKSPACE;
        root->is_span = true;
        return spans_take(&lowering->exec->bench.spans, bytes, &root->offset) ? DJ_OK : out_of_memory(lowering);
    }
    struct buffer *buffer = exec_buffer_make(lowering->exec, bytes);
    if (buffer == NULL)
        return out_of_memory(lowering);
    root->offset = 0;
    root->is_span = false;
    if (exec_run_pin(lowering->run, buffer, &root->storage) == DJ_OK)
        return DJ_OK;
    exec_buffer_drop(lowering->exec, buffer);
    return out_of_memory(lowering);
}

static void put_tensor(struct lowering *lowering, struct device_tensor *tensor, const struct place *place)
{
    struct run *run = lowering->run;
    run->storage[tensor - run->tensor] = place->storage;
    tensor->offset = place->offset;
    meta_copy(&tensor->meta, place->meta);
    tensor->is_scalar = false;
    tensor->is_constant = place->constant_key != 0;
    tensor->constant_key = place->constant_key;
    tensor->scalar = 0;
}

// Asks the device about the last task: can it, and what scratch does it need.
static enum dj_error ask_device(struct lowering *lowering, struct device_task *task)
{
    struct run *run = lowering->run;
    const struct device_port *port = lowering->exec->port;
    struct task_part *part = &run->part[task - run->task];
    task->in = &run->tensor[part->tensor];
    task->out = task->in + task->n_in;
    task->attr = &run->attr[part->attr];
    if (!port->can(port->self, task))
        return fault_set(lowering->fault, DJ_E_OP_UNSUPPORTED, "%s has no kernel for %s with these dtypes and shapes",
                         port->info->name, task->op->name);
    task->bytes = port->scratch_bytes(port->self, task);
    if (task->bytes == 0)
        return DJ_OK;
    part->storage = STORAGE_WORKSPACE;
    if (!spans_take(&lowering->exec->bench.spans, task->bytes, &task->offset))
        return out_of_memory(lowering);
    spans_give(&lowering->exec->bench.spans, task->offset, task->bytes);    // only this task's
    return DJ_OK;
}

enum dj_error lower_copy(struct lowering *lowering, const struct place *from, const struct place *to)
{
    struct run *run = lowering->run;
    const struct op_info *clone = op_info(OP_CLONE);
    struct device_task *task = exec_run_task(run, DEVICE_KERNEL);
    uint32_t first_attr = 0, first = 0;
    struct attr *attr = task == NULL ? NULL : exec_run_attrs(run, clone->attrs, &first_attr);
    struct device_tensor *tensor = attr == NULL ? NULL : exec_run_tensors(run, 2, &first);
    if (tensor == NULL)
        return out_of_memory(lowering);
    memset(attr, 0, clone->attrs * sizeof *attr);
    run->part[run->tasks - 1].tensor = first;
    run->part[run->tasks - 1].attr = first_attr;
    put_tensor(lowering, &tensor[0], from);
    put_tensor(lowering, &tensor[1], to);
    task->op = clone;
    task->n_in = task->n_out = 1;
    task->compute = (uint8_t)from->meta->dtype;
    task->node = lowering->node < 0 ? 0 : (uint32_t)lowering->node;
    return ask_device(lowering, task);
}

// A view that the physical layout does not allow: the input is copied into a layout that does.
static enum dj_error view_of_copy(struct lowering *lowering, const struct srg_node *node, const struct op_info *op,
                                  const struct place *from)
{
    struct bench *bench = &lowering->exec->bench;
    const struct srg_plan *srg = lowering->plan->plan;
    uint32_t flat = node->first_output, number = srg->inputs + flat;
    const struct srg_ref *ref = &srg->ref[node->first_ref];
    const struct tensor_meta *logical_in = ref->kind == REF_INPUT ? &bench->in[ref->index]
                                                                  : &bench->out[srg->node[ref->index].first_output + ref->output];
    struct tensor_meta target = *logical_in;
    bool is_reshape = op->number == OP_VIEW_SIZES || op->number == OP_UNSAFE_VIEW;
    if (is_reshape)
        tensor_make_contiguous(&target);
    else if (!tensor_is_dense(&target))
        return fault_set(lowering->fault, DJ_E_UNSUPPORTED, "%s of a view whose memory was laid out anew cannot be formed",
                         op->name);

    bool in_buffer = bench->root[from->root].is_kept;
    enum dj_error error = lower_take(lowering, number, (uint64_t)tensor_bytes(&target), in_buffer);
    if (error != DJ_OK)
        return error;
    struct place to = {.storage = bench->root[number].storage, .offset = bench->root[number].offset, .meta = &target};
    error = lower_copy(lowering, from, &to);
    if (error != DJ_OK)
        return error;
    lowering->exec->stats.view_copies++;
    struct place *place = &bench->place[number];
    *place = (struct place){.storage = to.storage, .offset = to.offset, .root = number};
    if (is_reshape) {
        meta_copy(&bench->physical[number], &bench->out[flat]);
        tensor_make_contiguous(&bench->physical[number]);
        place->meta = &bench->physical[number];
        place->is_logical = same_layout(place->meta, &bench->out[flat]);
        return DJ_OK;
    }
    place->meta = &bench->out[flat];
    place->is_logical = true;
    place->offset += (uint64_t)bench->view[flat] * dtype_bytes(target.dtype);
    return DJ_OK;
}

static enum dj_error lower_view(struct lowering *lowering, uint32_t n)
{
    struct bench *bench = &lowering->exec->bench;
    const struct srg_plan *srg = lowering->plan->plan;
    const struct srg_node *node = &srg->node[n];
    const struct op_info *op = lowering->plan->op[n];
    const struct srg_ref *ref = &srg->ref[node->first_ref];
    if (node->refs == 0 || (ref->kind != REF_NODE && ref->kind != REF_INPUT))
        return fault_set(lowering->fault, DJ_E_UNSUPPORTED, "%s of a number is not a view", op->name);
    const struct place *from = place_of(lowering, ref);
    uint32_t flat = node->first_output, number = srg->inputs + flat;
    struct place *place = &bench->place[number];
    int64_t offset = bench->view[flat];
    if (from->is_logical) {
        place->meta = &bench->out[flat];
        place->is_logical = true;
    } else {
        if (op->number == OP_AS_STRIDED)
            return view_of_copy(lowering, node, op, from);
        struct attr attr[OP_ATTRS_MAX];
        binding_attrs(srg, lowering->run->word, n, attr);
        struct op_call call = {.op = op, .in = from->meta, .n_in = 1, .attr = attr, .dtype = node->dtype[0]};
        struct op_result result;
        if (op_infer(&call, &result, NULL) != DJ_OK)
            return view_of_copy(lowering, node, op, from);
        meta_copy(&bench->physical[number], &result.out[0]);
        place->meta = &bench->physical[number];
        place->is_logical = same_layout(place->meta, &bench->out[flat]);
        offset = result.view_offset[0];
    }
    place->storage = from->storage;
    place->root = from->root;
    place->offset = from->offset + (uint64_t)offset * dtype_bytes(place->meta->dtype);
    place->constant_key = from->constant_key == 0 || offset == 0 ? from->constant_key
                                                                 : hash_mix(from->constant_key, (uint64_t)offset);
    return DJ_OK;
}

// Ops whose kernels may write their output over an input: each element depends on its own place only (kernel.h).
static bool is_pointwise(const struct op_info *op)
{
    return op->number <= OP_CLAMP_MIN && op->outputs == 1 && op->number != OP_NONE;
}

// Whether the operand's memory can become the output's: it dies here, nobody else can see it, and the views are the same.
static bool can_take_over(const struct lowering *lowering, uint32_t n, uint32_t r, uint32_t number)
{
    const struct bench *bench = &lowering->exec->bench;
    const struct srg_plan *srg = lowering->plan->plan;
    const struct srg_node *node = &srg->node[n];
    const struct srg_ref *ref = &srg->ref[node->first_ref];
    if (ref[r].kind != REF_NODE && ref[r].kind != REF_INPUT)
        return false;
    const struct place *from = place_of(lowering, &ref[r]);
    const struct root *root = &bench->root[from->root];
    const struct tensor_meta *out = &bench->out[node->first_output];
    if (!root->is_owned || root->holds || lowering->plan->last_use[from->root] != n)
        return false;
    if (bench->root[number].is_kept && root->storage == STORAGE_WORKSPACE)
        return false;
    if (from->meta->dtype != out->dtype || from->offset != root->offset || !same_layout(from->meta, out) ||
        root->bytes != (uint64_t)tensor_bytes(out))
        return false;
    for (uint32_t other = 0; other < node->refs; other++) {
        if (other == r || (ref[other].kind != REF_NODE && ref[other].kind != REF_INPUT))
            continue;
        const struct place *beside = place_of(lowering, &ref[other]);
        if (beside->root == from->root &&
            (beside->offset != from->offset || beside->meta->dtype != out->dtype || !same_layout(beside->meta, out)))
            return false;
    }
    return true;
}

static bool take_over(struct lowering *lowering, uint32_t n, uint32_t number)
{
    struct bench *bench = &lowering->exec->bench;
    const struct srg_node *node = &lowering->plan->plan->node[n];
    for (uint32_t r = 0; r < node->refs; r++) {
        if (!can_take_over(lowering, n, r, number))
            continue;
        struct root *from = &bench->root[place_of(lowering, &lowering->plan->plan->ref[node->first_ref + r])->root];
        struct root *to = &bench->root[number];
        to->storage = from->storage;
        to->offset = from->offset;
        to->bytes = from->bytes;
        to->is_span = from->is_span;
        to->is_owned = true;
        from->is_span = from->is_owned = false;
        lowering->exec->stats.in_place++;
        if (to->storage != STORAGE_WORKSPACE) {
            lowering->run->buffer[to->storage - 1]->serial = ++lowering->exec->next_serial;
            lowering->exec->stats.donated++;
        }
        return true;
    }
    return false;
}

// Memory for output o of node n.
static enum dj_error place_output(struct lowering *lowering, uint32_t n, uint32_t o)
{
    struct bench *bench = &lowering->exec->bench;
    const struct srg_plan *srg = lowering->plan->plan;
    uint32_t flat = srg->node[n].first_output + o, number = srg->inputs + flat;
    const struct tensor_meta *logical = &bench->out[flat];
    struct place *place = &bench->place[number];
    place->is_logical = true;
    place->meta = logical;
    place->root = number;
    place->constant_key = 0;
    bool is_dense = tensor_is_contiguous(logical) || tensor_is_dense(logical);
    if (!is_dense) {
        meta_copy(&bench->physical[number], logical);
        tensor_make_contiguous(&bench->physical[number]);
        place->meta = &bench->physical[number];
        place->is_logical = same_layout(place->meta, logical);
    }
    if (!(is_dense && is_pointwise(lowering->plan->op[n]) && take_over(lowering, n, number))) {
        enum dj_error error = lower_take(lowering, number, (uint64_t)tensor_bytes(logical), bench->root[number].is_kept);
        if (error != DJ_OK)
            return error;
    }
    place->storage = bench->root[number].storage;
    place->offset = bench->root[number].offset;
    return DJ_OK;
}

static enum dtype compute_of(struct lowering *lowering, uint32_t n, const struct device_tensor *in, const struct attr *attr)
{
    const struct srg_node *node = &lowering->plan->plan->node[n];
    if (lowering->plan->compute[n] != DTYPE_COUNT)
        return lowering->plan->compute[n];
    if (node->refs > 16)
        return node->dtype[0];    // not a pointwise op: nobody asks
    struct tensor_meta meta[16];
    bool is_scalar[16];
    for (uint32_t r = 0; r < node->refs; r++) {
        meta[r] = in[r].meta;
        is_scalar[r] = in[r].is_scalar;
    }
    struct op_call call = {.op = lowering->plan->op[n],
                           .in = meta,
                           .in_is_scalar = is_scalar,
                           .n_in = node->refs,
                           .attr = attr,
                           .dtype = node->dtype[0]};
    enum dtype compute = op_compute_dtype(&call);
    lowering->plan->compute[n] = (uint8_t)compute;
    return compute;
}

static void put_operands(struct lowering *lowering, uint32_t n, struct device_tensor *in)
{
    const struct srg_plan *srg = lowering->plan->plan;
    const struct srg_node *node = &srg->node[n];
    struct run *run = lowering->run;
    for (uint32_t r = 0; r < node->refs; r++) {
        const struct srg_ref *ref = &srg->ref[node->first_ref + r];
        if (ref->kind == REF_NODE || ref->kind == REF_INPUT) {
            put_tensor(lowering, &in[r], place_of(lowering, ref));
            continue;
        }
        memset(&in[r], 0, sizeof in[r]);
        run->storage[&in[r] - run->tensor] = STORAGE_NONE;
        if (ref->kind == REF_SCALAR) {
            in[r].is_scalar = true;
            in[r].meta.dtype = ref->dtype;
            in[r].scalar = binding_scalar(srg, run->word, n, r);
        }
    }
}

enum dj_error lower_kernel(struct lowering *lowering, uint32_t n)
{
    const struct srg_plan *srg = lowering->plan->plan;
    const struct srg_node *node = &srg->node[n];
    const struct op_info *op = lowering->plan->op[n];
    struct run *run = lowering->run;
    uint32_t first = 0, first_attr = 0;
    struct device_task *task = exec_run_task(run, DEVICE_KERNEL);
    struct attr *attr = task == NULL ? NULL : exec_run_attrs(run, op->attrs, &first_attr);
    struct device_tensor *tensor = attr == NULL && op->attrs > 0 ? NULL
                                                                 : exec_run_tensors(run, node->refs + node->outputs, &first);
    if (tensor == NULL)
        return out_of_memory(lowering);
    run->part[run->tasks - 1].tensor = first;
    run->part[run->tasks - 1].attr = first_attr;
    struct attr full[OP_ATTRS_MAX];
    binding_attrs(srg, run->word, n, full);
    if (op->attrs > 0)
        memcpy(attr, full, op->attrs * sizeof *attr);
    put_operands(lowering, n, tensor);
    for (uint32_t o = 0; o < node->outputs; o++) {
        enum dj_error error = place_output(lowering, n, o);
        if (error != DJ_OK)
            return error;
        put_tensor(lowering, &tensor[node->refs + o], &lowering->exec->bench.place[srg->inputs + node->first_output + o]);
    }
    task->op = op;
    task->node = n;
    task->n_in = node->refs;
    task->n_out = node->outputs;
    task->compute = (uint8_t)compute_of(lowering, n, tensor, attr);
    return ask_device(lowering, task);
}

static void bury(struct lowering *lowering, uint32_t n)
{
    struct bench *bench = &lowering->exec->bench;
    const struct exec_plan *plan = lowering->plan;
    for (uint32_t i = plan->first_death[n]; i < plan->first_death[n + 1]; i++) {
        struct root *root = &bench->root[plan->death[i]];
        if (!root->is_span || root->holds)
            continue;
        root->is_span = false;
        spans_give(&bench->spans, root->offset, root->bytes);
    }
}

// The outputs that this execution answers: made contiguous, then read.
static enum dj_error lower_answers(struct lowering *lowering)
{
    struct bench *bench = &lowering->exec->bench;
    struct run *run = lowering->run;
    uint32_t inputs = lowering->plan->plan->inputs;
    for (uint32_t i = 0; i < lowering->request->answers; i++) {
        uint32_t flat = lowering->request->answer[i];
        if (!exec_run_add_answer(run, flat, &bench->out[flat]))
            return out_of_memory(lowering);
    }
    if (exec_run_place_answers(run) != DJ_OK)
        return out_of_memory(lowering);
    for (uint32_t i = 0; i < run->face.answers; i++) {
        const struct exec_answer *answer = &run->answer[i];
        struct place from = bench->place[inputs + answer->output];
        if (answer->bytes == 0)
            continue;
        if (!tensor_is_contiguous(from.meta)) {
            struct place to = {.storage = STORAGE_WORKSPACE, .meta = &answer->meta};
            if (!spans_take(&bench->spans, answer->bytes, &to.offset))
                return out_of_memory(lowering);
            enum dj_error error = lower_copy(lowering, &from, &to);
            if (error != DJ_OK)
                return error;
            from = to;
        }
        struct device_task *task = exec_run_task(run, DEVICE_READ);
        if (task == NULL)
            return out_of_memory(lowering);
        task->offset = from.offset;
        task->bytes = answer->bytes;
        task->blob_offset = answer->offset;
        run->part[run->tasks - 1].storage = from.storage;
    }
    return DJ_OK;
}

enum dj_error lower_plan(struct lowering *lowering)
{
    const struct exec_plan *plan = lowering->plan;
    for (uint32_t n = 0; n < plan->plan->nodes; n++) {
        lowering->node = n;
        bool is_done = false;
        enum dj_error error = DJ_OK;
        if ((plan->op[n]->flags & OP_IS_VIEW) != 0) {
            error = lower_view(lowering, n);
            is_done = true;
        } else if (plan->op[n]->number == OP_CAT) {
            error = lower_cat(lowering, n, &is_done);
        }
        if (error == DJ_OK && !is_done)
            error = lower_kernel(lowering, n);
        if (error != DJ_OK)
            return error;
        bury(lowering, n);
    }
    lowering->node = -1;
    return lower_answers(lowering);
}
