// Program, its steps: every step keeps the recorder's tensors and the oracle's shadows alike. The manual is program.h.

#include "chaos/sim/program_state.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

uint64_t program_below(struct program *program, uint64_t limit)
{
    return prng_between(&program->prng, 0, limit - 1);
}
static const struct recorded_at nowhere;

// Tensors -------------------------------------------------------------------------------------------------------------------

static int64_t count_of(const struct dj_tensor *tensor)
{
    int64_t count = 1;
    for (uint32_t d = 0; d < tensor->rank; d++)
        count *= tensor->size[d];
    return count;
}

void program_drop(struct program *program, struct var *var)
{
    if (var->shadow == NULL)
        return;
    recorder_cell_drop(client_recorder(program->client), var->tensor.cell);
    shadow_drop(var->shadow);
    *var = (struct var){0};
}

static struct var var_hold(const struct var *var)
{
    recorder_cell_hold(var->tensor.cell);
    shadow_hold(var->shadow);
    return *var;
}

// Takes the hold. A full table forgets one first.
static void keep(struct program *program, struct var var)
{
    if (program->vars == VARS_MAX) {
        uint32_t at = (uint32_t)program_below(program, VARS_MAX);
        program_drop(program, &program->var[at]);
        program->var[at] = var;
        return;
    }
    program->var[program->vars++] = var;
}

static void forget(struct program *program, uint32_t at)
{
    program_drop(program, &program->var[at]);
    program->var[at] = program->var[--program->vars];
    program->var[program->vars] = (struct var){0};
}

void program_forget_all(struct program *program)
{
    while (program->vars > 0)
        forget(program, program->vars - 1);
    for (uint32_t i = 0; i < CACHES; i++)
        program_drop(program, &program->cache[i]);
    for (uint32_t i = 0; i < WEIGHTS; i++)
        program_drop(program, &program->weight[i]);
    for (uint32_t i = 0; i < STATES; i++)
        program_drop(program, &program->state[i]);
}

// An op that the client could not record: its inputs may have failed, which is told when they are read; nothing else may go wrong.
static void complain(struct program *program, const char *what, enum dj_error error, const struct fault *fault)
{
    client_wrong(program->client, "%s cannot be recorded: %s (%s)", what, dj_error_name(error), fault->text);
}

static int any_device(struct program *program)
{
    if (program->options.pool_devices == 0 || program_below(program, 2) == 0)
        return DJ_ANY_DEVICE;
    return (int)program_below(program, program->options.pool_devices);
}

static bool upload(struct program *program, int device, uint32_t rank, const int64_t *size, uint64_t content, struct var *ret)
{
    struct dj_tensor meta = {.dtype = DTYPE_F32, .rank = rank};
    memcpy(meta.size, size, rank * sizeof *size);
    int64_t stride = 1;
    for (uint32_t d = rank; d-- > 0; stride *= size[d])
        meta.stride[d] = stride;
    struct prng bytes = prng_make(content ^ program->salt);
    float *data = calloc((size_t)stride + 1, sizeof *data);
    assert(data != NULL);
    for (int64_t i = 0; i < stride; i++)
        data[i] = (float)prng_between(&bytes, 0, 2000) / 16.0f;
    struct fault fault = {0};
    enum dj_error error = recorder_upload(client_recorder(program->client), device, data, &meta, nowhere, &ret->tensor, &fault);
    if (error == DJ_OK)
        ret->shadow = shadow_of(&ret->tensor, data);
    else
        complain(program, "a leaf", error, &fault);
    free(data);
    return error == DJ_OK;
}

// Records op on vars (and scalars: shadow NULL) and on the oracle. ret[o] get holds of fresh tensors.
static bool record(struct program *program, uint32_t number, const struct var *in, uint32_t n_in, const struct dj_attr *attr,
                   uint32_t n_attr, struct var ret[OP_OUTPUTS_MAX])
{
    const struct op_info *op = op_info(number);
    struct dj_arg arg[8] = {0};
    struct oracle_input input[8] = {0};
    for (uint32_t i = 0; i < n_in; i++) {
        arg[i] = (struct dj_arg){.kind = DJ_ARG_TENSOR, .tensor = &in[i].tensor};
        input[i] = (struct oracle_input){.shadow = in[i].shadow, .window = &in[i].tensor};
        if (in[i].shadow == NULL) {
            double value = 1.5;
            arg[i] = (struct dj_arg){.kind = DJ_ARG_SCALAR, .scalar_dtype = DTYPE_F64};
            memcpy(&arg[i].scalar, &value, sizeof value);
            input[i] = (struct oracle_input){.scalar_dtype = DTYPE_F64, .scalar = arg[i].scalar};
        }
    }
    struct dj_tensor out[DJ_MAX_OUTPUTS];
    struct fault fault = {0};
    enum dj_error error = recorder_record(client_recorder(program->client), number, arg, n_in, attr, n_attr, 0, DJ_ANY_DEVICE,
                                          nowhere, out, &fault);
    if (error != DJ_OK) {
        complain(program, op->name, error, &fault);
        return false;
    }
    struct shadow *shadow[OP_OUTPUTS_MAX];
    oracle_run(op, input, n_in, attr, out, shadow);
    for (uint32_t o = 0; o < op->outputs; o++)
        ret[o] = (struct var){.tensor = out[o], .shadow = shadow[o]};
    return true;
}

static bool record_view(struct program *program, uint32_t number, const struct var *in, const struct dj_attr *attr,
                        uint32_t n_attr, struct var *ret)
{
    struct dj_arg arg = {.kind = DJ_ARG_TENSOR, .tensor = &in->tensor};
    struct fault fault = {0};
    struct dj_tensor out;
    enum dj_error error = recorder_record(client_recorder(program->client), number, &arg, 1, attr, n_attr, 0, DJ_ANY_DEVICE,
                                          nowhere, &out, &fault);
    if (error != DJ_OK) {
        complain(program, op_info(number)->name, error, &fault);
        return false;
    }
    recorder_cell_hold(out.cell);
    *ret = (struct var){.tensor = out, .shadow = shadow_hold(in->shadow)};
    return true;
}

// Choosing ------------------------------------------------------------------------------------------------------------------

static struct var *any_var(struct program *program)
{
    uint64_t at = program_below(program, VARS_MAX + WEIGHTS + CACHES + STATES);
    struct var *var = at < VARS_MAX                      ? &program->var[at]
                      : at < VARS_MAX + WEIGHTS          ? &program->weight[at - VARS_MAX]
                      : at < VARS_MAX + WEIGHTS + CACHES ? &program->cache[at - VARS_MAX - WEIGHTS]
                                                         : &program->state[at - VARS_MAX - WEIGHTS - CACHES];
    if (var->shadow == NULL && program->vars > 0)
        var = &program->var[program_below(program, program->vars)];
    return var->shadow == NULL ? NULL : var;
}

static struct var *any_float(struct program *program)
{
    for (uint32_t tries = 0; tries < 8; tries++) {
        struct var *var = any_var(program);
        if (var != NULL && var->tensor.dtype == DTYPE_F32 && var->tensor.rank > 0 && count_of(&var->tensor) > 0 &&
            count_of(&var->tensor) <= ELEMENTS_MAX)
            return var;
    }
    return NULL;
}

static bool same_sizes(const struct var *a, const struct var *b)
{
    if (a->tensor.rank != b->tensor.rank || recorder_cell_device(a->tensor.cell) != recorder_cell_device(b->tensor.cell))
        return false;
    return a->tensor.dtype == b->tensor.dtype &&
           memcmp(a->tensor.size, b->tensor.size, a->tensor.rank * sizeof a->tensor.size[0]) == 0;
}

static struct var *another_like(struct program *program, const struct var *like)
{
    for (uint32_t tries = 0; tries < 12; tries++) {
        struct var *var = any_float(program);
        if (var != NULL && same_sizes(var, like))
            return var;
    }
    return NULL;
}

static struct dj_attr attr_of(uint8_t kind, int64_t value)
{
    return (struct dj_attr){.kind = kind, .value.i = value};
}

// Steps ---------------------------------------------------------------------------------------------------------------------

void step_leaf(struct program *program)
{
    // Multiples of 64 bytes, so that leaf bytes and used bytes can be compared at the end.
    const int64_t sizes[][2] = {{2, WIDTH}, {6, WIDTH}, {4, WIDTH}, {WIDTH, WIDTH}, {40, WIDTH}, {4, 4}};
    uint64_t which = program_below(program, sizeof sizes / sizeof sizes[0]);
    struct var var = {0};
    // Few contents: the same bytes are met again, by this client and by others.
    if (upload(program, any_device(program), 2, sizes[which], program_below(program, 12), &var))
        keep(program, var);
}

void step_weight(struct program *program)
{
    const int64_t size[2] = {WIDTH, WIDTH + (int64_t)program_below(program, 2) * 40};
    uint64_t at = program_below(program, WEIGHTS);
    program_drop(program, &program->weight[at]);
    if (!upload(program, DJ_ANY_DEVICE, 2, size, 100 + program_below(program, 6), &program->weight[at]))
        program->weight[at] = (struct var){0};
}

void step_unary(struct program *program)
{
    static const uint16_t ops[] = {OP_NEG, OP_EXP, OP_TANH, OP_RELU, OP_SIGMOID, OP_SILU};
    struct var *in = any_float(program), out[OP_OUTPUTS_MAX];
    if (in == NULL || !record(program, ops[program_below(program, sizeof ops / sizeof ops[0])], in, 1, NULL, 0, out))
        return;
    // Often the only use: the result may then take over the memory, if nobody else reads it.
    bool is_table = in >= program->var && in < program->var + program->vars;
    if (program_below(program, 3) == 0 && is_table)
        forget(program, (uint32_t)(in - program->var));
    else if (program_below(program, 3) == 0 && !is_table)
        program_drop(program, in);
    keep(program, out[0]);
}

void step_binary(struct program *program)
{
    static const uint16_t ops[] = {OP_MUL, OP_DIV, OP_MAXIMUM, OP_MINIMUM, OP_ATAN2};
    struct var *a = any_float(program), out[OP_OUTPUTS_MAX];
    struct var *b = a == NULL ? NULL : another_like(program, a);
    if (b == NULL)
        return;
    struct var in[2] = {*a, *b};
    if (program_below(program, 6) == 0)
        in[1] = (struct var){0};    // a Python number
    if (record(program, ops[program_below(program, in[1].shadow == NULL ? 2 : 5)], in, 2, NULL, 0, out))
        keep(program, out[0]);
}

void step_softmax(struct program *program)
{
    struct var *in = any_float(program), out[OP_OUTPUTS_MAX];
    const struct dj_attr attr[2] = {attr_of(DJ_ATTR_INT, -1), attr_of(DJ_ATTR_BOOL, 0)};
    if (in != NULL && record(program, OP_SOFTMAX, in, 1, attr, 2, out))
        keep(program, out[0]);
}

void step_max(struct program *program)
{
    struct var *in = any_float(program), out[OP_OUTPUTS_MAX];
    const struct dj_attr attr[2] = {attr_of(DJ_ATTR_INT, 0), attr_of(DJ_ATTR_BOOL, (int64_t)program_below(program, 2))};
    if (in == NULL || !record(program, OP_MAX_DIM, in, 1, attr, 2, out))
        return;
    keep(program, out[0]);
    if (program_below(program, 2) == 0)
        keep(program, out[1]);
    else
        program_drop(program, &out[1]);
}

void step_mm(struct program *program)
{
    struct var *a = any_float(program), *b = &program->weight[program_below(program, WEIGHTS)], out[OP_OUTPUTS_MAX];
    if (a == NULL || b->shadow == NULL || a->tensor.rank != 2 || a->tensor.size[1] != b->tensor.size[0] ||
        a->tensor.size[0] > 64 || recorder_cell_device(a->tensor.cell) != recorder_cell_device(b->tensor.cell))
        return;
    struct var in[2] = {*a, *b};
    if (record(program, OP_MM, in, 2, NULL, 0, out))
        keep(program, out[0]);
}

// One step of decoding: a new row, made from something, goes behind the cache; the old cache usually goes, now and then a branch keeps it.
void step_cache(struct program *program)
{
    struct var *cache = &program->cache[program_below(program, CACHES)], row = {0}, out[OP_OUTPUTS_MAX];
    // Mostly one row, as a decoder does; now and then many, so that some caches are long enough to be kept in several pieces.
    const int64_t size[3] = {2, program_below(program, 5) == 0 ? 1 + (int64_t)program_below(program, 80) : 1, WIDTH};
    if (cache->shadow != NULL && cache->tensor.size[1] > 240)
        program_drop(program, cache);
    if (!upload(program, DJ_ANY_DEVICE, 3, size, prng_next(&program->prng), &row))
        return;
    if (program_below(program, 2) == 0 && record(program, OP_TANH, &row, 1, NULL, 0, out)) {
        program_drop(program, &row);
        row = out[0];
    }
    if (cache->shadow == NULL) {
        *cache = row;
        return;
    }
    struct var in[2] = {*cache, row};
    const struct dj_attr dim = attr_of(DJ_ATTR_INT, -2);
    if (record(program, OP_CAT, in, 2, &dim, 1, out)) {
        if (program_below(program, 4) == 0)
            keep(program, var_hold(cache));
        if (program_below(program, 10) == 0) {
            struct var branch[OP_OUTPUTS_MAX], both[2] = {*cache, row};
            if (record(program, OP_CAT, both, 2, &dim, 1, branch))
                keep(program, branch[0]);
        }
        program_drop(program, cache);
        *cache = out[0];
    }
    program_drop(program, &row);
}

// A view of a view now and then: *ret is a hold.
static bool view_of(struct program *program, const struct var *in, bool is_for_writing, struct var *ret)
{
    int64_t dim = (int64_t)program_below(program, in->tensor.rank), size = in->tensor.size[dim];
    int64_t start = (int64_t)program_below(program, (uint64_t)size),
            end = start + 1 + (int64_t)program_below(program, (uint64_t)(size - start));
    switch (program_below(program, is_for_writing ? 2 : 5)) {
    case 0: {
        const struct dj_attr attr[4] = {attr_of(DJ_ATTR_INT, dim), attr_of(DJ_ATTR_INT, start), attr_of(DJ_ATTR_INT, end),
                                        attr_of(DJ_ATTR_INT, 1)};
        return record_view(program, OP_SLICE, in, attr, 4, ret);
    }
    case 1: {
        const struct dj_attr attr[2] = {attr_of(DJ_ATTR_INT, dim), attr_of(DJ_ATTR_INT, start)};
        return record_view(program, OP_SELECT, in, attr, 2, ret);
    }
    case 2: {
        const struct dj_attr attr[2] = {attr_of(DJ_ATTR_INT, 0), attr_of(DJ_ATTR_INT, (int64_t)in->tensor.rank - 1)};
        return record_view(program, OP_TRANSPOSE, in, attr, 2, ret);
    }
    case 3: {
        const struct dj_attr attr = attr_of(DJ_ATTR_INT, 0);
        return in->tensor.rank < 4 && record_view(program, OP_UNSQUEEZE, in, &attr, 1, ret);
    }
    default: {
        const int64_t flat[1] = {count_of(&in->tensor)};
        const struct dj_attr attr = {.kind = DJ_ATTR_INTS, .count = 1, .value.ints = flat};
        int64_t stride = 1;
        for (uint32_t d = in->tensor.rank; d-- > 0; stride *= in->tensor.size[d])
            if (in->tensor.stride[d] != stride)
                return false;
        return record_view(program, OP_VIEW_SIZES, in, &attr, 1, ret);
    }
    }
}

void step_view(struct program *program)
{
    struct var *in = any_float(program), out;
    if (in != NULL && view_of(program, in, false, &out))
        keep(program, out);
}

// Writes something of the right sizes through a window, for all who share the storage.
void step_write(struct program *program)
{
    struct var *base = any_float(program), window, *from;
    if (base == NULL)
        return;
    if (program_below(program, 3) == 0)
        window = var_hold(base);
    else if (!view_of(program, base, true, &window))
        return;
    from = another_like(program, &window);
    if (from != NULL && from->shadow != window.shadow) {
        struct fault fault = {0};
        enum dj_error error = recorder_write(client_recorder(program->client), &window.tensor, &from->tensor, nowhere, &fault);
        if (error == DJ_OK) {
            size_t bytes;
            uint8_t *dense = shadow_read(from->shadow, &from->tensor, &bytes);
            shadow_write(window.shadow, &window.tensor, dense);
            free(dense);
        } else {
            complain(program, "a write", error, &fault);
        }
    }
    program_drop(program, &window);
}

void step_to_device(struct program *program)
{
    struct var *in = any_float(program), out = {0}, used[OP_OUTPUTS_MAX];
    if (in == NULL || program->options.pool_devices < 2)
        return;
    struct fault fault = {0};
    enum dj_error error = recorder_to_device(client_recorder(program->client), &in->tensor,
                                             (int)program_below(program, program->options.pool_devices), nowhere, &out.tensor,
                                             &fault);
    if (error != DJ_OK) {
        complain(program, "a copy to another device", error, &fault);
        return;
    }
    size_t bytes;
    uint8_t *dense = shadow_read(in->shadow, &in->tensor, &bytes);
    out.shadow = shadow_of(&out.tensor, dense);
    free(dense);
    // What is used there has to go there.
    if (program->options.workload == WORKLOAD_DEVICES && record(program, OP_NEG, &out, 1, NULL, 0, used))
        keep(program, used[0]);
    keep(program, out);
}

void step_release(struct program *program)
{
    for (uint64_t count = 1 + program_below(program, 4); count > 0 && program->vars > 0; count--)
        forget(program, (uint32_t)program_below(program, program->vars));
    if (program_below(program, 4) == 0)
        recorder_flush_releases(client_recorder(program->client));
}

void step_flush(struct program *program)
{
    client_begin_flush(program->client);
}

void step_read(struct program *program)
{
    struct var *var = any_var(program);
    struct fault fault = {0};
    struct value *value;
    if (var == NULL)
        return;
    enum dj_error error = recorder_want(client_recorder(program->client), &var->tensor, nowhere, &value, &fault);
    if (error != DJ_OK) {
        complain(program, "a read", error, &fault);
        return;
    }
    program->wanted = var_hold(var);
    client_begin_read(program->client, value);
}

// One step of training: all of the state is replaced by functions of the old one and of a fresh batch, so that every old value can be donated.
void step_train(struct program *program)
{
    const int64_t size[2] = {WIDTH, WIDTH};
    struct var batch = {0}, gradient[OP_OUTPUTS_MAX], next[OP_OUTPUTS_MAX];
    for (uint32_t i = 0; i < STATES; i++)
        if (program->state[i].shadow == NULL && !upload(program, DJ_ANY_DEVICE, 2, size, 200 + i, &program->state[i]))
            return;
    if (!upload(program, DJ_ANY_DEVICE, 2, size, prng_next(&program->prng), &batch))
        return;
    struct var forward[2] = {batch, program->state[0]};
    bool has_gradient = record(program, OP_MM, forward, 2, NULL, 0, gradient);
    program_drop(program, &batch);
    for (uint32_t i = 0; i < STATES && has_gradient; i++) {
        struct var in[2] = {program->state[i], gradient[0]};
        if (!record(program, OP_ATAN2, in, 2, NULL, 0, next))
            break;
        program_drop(program, &program->state[i]);
        program->state[i] = next[0];
    }
    if (has_gradient)
        program_drop(program, &gradient[0]);
    if (program_below(program, 2) == 0)
        step_flush(program);
}

// Values that travel as bulks, and caches of them.
void step_big(struct program *program)
{
    const int64_t size[2] = {64, 8 * (1 + (int64_t)program_below(program, 8))};
    struct var var = {0}, out[OP_OUTPUTS_MAX];
    if (!upload(program, any_device(program), 2, size, 300 + program_below(program, 20), &var))
        return;
    if (program_below(program, 2) == 0 && record(program, OP_EXP, &var, 1, NULL, 0, out))
        keep(program, out[0]);
    keep(program, var);
}
