// Bits depend on values and shapes only: each family of float kernels gives the same bits when its tensors lie at other alignments, in
// larger buffers (the strides of a cache's capacity), with other numbers of threads, and with its weights kept packed or not. What lies
// between and behind the elements is NaN, and stays as it is; every buffer ends where its last element does, for the sanitizers.

#include "gpu_worker/kernels/kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/case.h"

enum { INPUTS = 5, ALIGNMENTS = 16, THREADS_MAX = 4, VECTOR_BYTES = 64 };
enum { ABSENT = 9 };    // a rank that no tensor has

static const uint32_t poison = 0x7fc0dead;    // a NaN that no kernel makes

// How a tensor lies: dense, with room in dimension -2, or with room in the rows too.
enum placing { PLACED_DENSE, PLACED_CAPACITY, PLACED_ROWS, PLACINGS };

struct shape {
    uint32_t rank;
    int64_t size[4];
};

struct subject {
    const char *name;
    enum op op;
    uint32_t n_in;
    struct shape in[INPUTS];
    uint32_t weight;    // 1 + the input that may be constant; 0: none
    struct attr attr[OP_ATTRS_MAX];
};

#define INTS(...) \
    { \
        .kind = ATTR_INTS, .count = sizeof((int64_t[]){__VA_ARGS__}) / 8, .ints = (const int64_t[]) \
        { \
            __VA_ARGS__ \
        } \
    }
#define INT(value) \
    { \
        .kind = ATTR_INT, .i = (value) \
    }
#define FLOAT(value) \
    { \
        .kind = ATTR_FLOAT, .f = (value) \
    }
#define BOOL(value) \
    { \
        .kind = ATTR_BOOL, .i = (value) \
    }
#define UNARY(name) \
    { \
#name, OP_##name, 1, {{2, {37, 1061 } } }, 0, \
        { \
            { \
                0 \
            } \
        } \
    }
#define CONV(text, channels, outputs, groups, kernel, stride, pad) \
    { \
        text, OP_CONVOLUTION, 3, \
            {{4, {2, channels, 19, 23}}, {4, {outputs, (channels) / (groups), kernel, kernel}}, {1, {outputs}}}, 2, \
        { \
            INTS(stride, stride), INTS(pad, pad), INTS(1, 1), BOOL(0), INTS(0, 0), INT(groups) \
        } \
    }
#define SDPA(text, queries, keys, causal, ...) \
    { \
        text, OP_SDPA, 4, {{4, {2, 3, queries, 37}}, {4, {2, 3, keys, 37}}, {4, {2, 3, keys, 41}}, __VA_ARGS__}, 0, \
        { \
            BOOL(causal) \
        } \
    }
#define NO_MASK \
    { \
        ABSENT, \
        { \
            0 \
        } \
    }

static const struct subject subjects[] = {
    {"gemv, a row", OP_MM, 2, {{2, {1, 517}}, {2, {517, 301}}}, 2, {{0}}},
    {"gemv, four rows", OP_ADDMM, 3, {{1, {133}}, {2, {4, 70}}, {2, {70, 133}}}, 3, {INT(1), INT(1)}},
    {"gemm", OP_ADDMM, 3, {{1, {143}}, {2, {61, 701}}, {2, {701, 143}}}, 3, {INT(1), INT(1)}},
    {"gemm of whole panels", OP_MM, 2, {{2, {33, 96}}, {2, {96, 128}}}, 2, {{0}}},
    {"gemm of few rows", OP_MM, 2, {{2, {9, 130}}, {2, {130, 64}}}, 2, {{0}}},
    {"gemm with factors", OP_BADDBMM, 3, {{3, {3, 21, 45}}, {3, {3, 21, 33}}, {3, {3, 33, 45}}}, 0, {FLOAT(0.5), FLOAT(1.25)}},
    {"bmm", OP_BMM, 2, {{3, {5, 17, 64}}, {3, {5, 64, 29}}}, 0, {{0}}},
    {"mv", OP_MV, 2, {{2, {97, 203}}, {1, {203}}}, 0, {{0}}},
    CONV("conv, 3 x 3", 5, 37, 1, 3, 1, 1),
    CONV("conv, stride 2", 5, 40, 1, 3, 2, 1),
    CONV("conv, 1 x 1", 21, 37, 1, 1, 1, 0),
    CONV("conv, depthwise", 6, 6, 6, 3, 1, 1),
    CONV("conv, depthwise, stride 2", 6, 6, 6, 3, 2, 1),
    CONV("conv, groups", 6, 32, 2, 3, 1, 1),
    CONV("conv, patches", 3, 37, 1, 4, 4, 0),
    SDPA("attention, a query", 1, 131, 0, NO_MASK),
    SDPA("attention, a masked query", 3, 67, 0, {4, {2, 1, 3, 67}}),
    SDPA("attention", 45, 251, 0, NO_MASK),
    SDPA("attention, masked", 45, 251, 0, {4, {1, 1, 45, 251}}),
    SDPA("attention, one mask for all", 45, 251, 0, {4, {2, 1, 1, 251}}),
    SDPA("attention, causal", 70, 70, 1, NO_MASK),
    {"layer norm", OP_LAYER_NORM, 3, {{3, {3, 29, 771}}, {1, {771}}, {1, {771}}}, 0, {INTS(771), FLOAT(1e-5)}},
    {"layer norm of long rows", OP_LAYER_NORM, 3, {{2, {3, 9001}}, {1, {9001}}, {ABSENT, {0}}}, 0, {INTS(9001), FLOAT(1e-5)}},
    {"group norm",
     OP_GROUP_NORM,
     3,
     {{4, {2, 6, 11, 13}}, {1, {6}}, {1, {6}}},
     0,
     {INT(2), INT(6), INT(143), INT(3), FLOAT(1e-5)}},
    {"batch norm", OP_BATCH_NORM, 5, {{4, {2, 5, 11, 13}}, {1, {5}}, {1, {5}}, {1, {5}}, {1, {5}}}, 0, {FLOAT(1e-5)}},
    {"gradient of layer norm",
     OP_LAYER_NORM_BACKWARD,
     5,
     {{2, {87, 771}}, {2, {87, 771}}, {2, {87, 1}}, {2, {87, 1}}, {1, {771}}},
     0,
     {INTS(771)}},
    {"gradient of layer norm's weights",
     OP_LAYER_NORM_BACKWARD_PARAMS,
     4,
     {{2, {287, 771}}, {2, {287, 771}}, {2, {287, 1}}, {2, {287, 1}}},
     0,
     {INTS(771)}},
    {"gradient of group norm",
     OP_GROUP_NORM_BACKWARD,
     5,
     {{4, {2, 6, 11, 13}}, {4, {2, 6, 11, 13}}, {2, {2, 3}}, {2, {2, 3}}, {1, {6}}},
     0,
     {INT(2), INT(6), INT(143), INT(3)}},
    {"batch norm in training", OP_BATCH_NORM_TRAIN, 3, {{4, {3, 5, 41, 43}}, {1, {5}}, {1, {5}}}, 0, {FLOAT(1e-5)}},
    {"gradient of batch norm",
     OP_BATCH_NORM_BACKWARD,
     5,
     {{4, {3, 5, 41, 43}}, {4, {3, 5, 41, 43}}, {1, {5}}, {1, {5}}, {1, {5}}},
     0,
     {BOOL(1)}},
    {"gradient of softmax", OP_SOFTMAX_BACKWARD, 2, {{3, {5, 67, 203}}, {3, {5, 67, 203}}}, 0, {INT(-1)}},
    {"gradient of log softmax", OP_LOG_SOFTMAX_BACKWARD, 2, {{2, {67, 4099}}, {2, {67, 4099}}}, 0, {INT(-1)}},
    {"gradient of conv's input",
     OP_CONVOLUTION_BACKWARD_INPUT,
     3,
     {{4, {2, 37, 10, 12}}, {4, {2, 6, 19, 23}}, {4, {37, 6, 3, 3}}},
     0,
     {INTS(2, 2), INTS(1, 1), INTS(1, 1), BOOL(0), INTS(0, 0), INT(1)}},
    {"gradient of conv's weight",
     OP_CONVOLUTION_BACKWARD_WEIGHT,
     3,
     {{4, {3, 36, 19, 23}}, {4, {3, 6, 19, 23}}, {4, {36, 3, 3, 3}}},
     0,
     {INTS(1, 1), INTS(1, 1), INTS(1, 1), BOOL(0), INTS(0, 0), INT(2)}},
    {"gradient of avg pool",
     OP_AVG_POOL2D_BACKWARD,
     2,
     {{4, {2, 9, 10, 12}}, {4, {2, 9, 19, 23}}},
     0,
     {INTS(3, 3), INTS(2, 2), INTS(1, 1), BOOL(0), BOOL(1)}},
    {"gradient of gelu", OP_GELU_BACKWARD, 2, {{2, {37, 1061}}, {2, {37, 1061}}}, 0, {INT(GELU_NONE)}},
    {"gradient of gelu, tanh", OP_GELU_BACKWARD, 2, {{2, {37, 1061}}, {2, {37, 1061}}}, 0, {INT(GELU_TANH)}},
    {"gradient of silu", OP_SILU_BACKWARD, 2, {{2, {37, 1061}}, {2, {37, 1061}}}, 0, {{0}}},
    {"softmax", OP_SOFTMAX, 1, {{3, {5, 67, 203}}}, 0, {INT(-1), BOOL(0)}},
    {"softmax of columns", OP_SOFTMAX, 1, {{3, {5, 67, 203}}}, 0, {INT(1), BOOL(0)}},
    {"log softmax", OP_LOG_SOFTMAX, 1, {{2, {67, 4099}}}, 0, {INT(-1), BOOL(0)}},
    {"sum", OP_SUM, 1, {{3, {5, 67, 1203}}}, 0, {{0}}},
    {"sum of rows", OP_SUM_DIM, 1, {{3, {5, 67, 1203}}}, 0, {INTS(-1), BOOL(0)}},
    {"sum of columns", OP_SUM_DIM, 1, {{3, {5, 67, 203}}}, 0, {INTS(1), BOOL(1)}},
    {"sum of two dimensions", OP_SUM_DIM, 1, {{3, {5, 67, 203}}}, 0, {INTS(0, 1), BOOL(0)}},
    {"mean of planes", OP_MEAN_DIM, 1, {{4, {2, 5, 67, 103}}}, 0, {INTS(2, 3), BOOL(0)}},
    {"variance", OP_VAR, 1, {{3, {5, 67, 203}}}, 0, {INTS(-1), INT(1), BOOL(0)}},
    {"cumsum", OP_CUMSUM, 1, {{3, {5, 67, 203}}}, 0, {INT(2)}},
    UNARY(EXP),
    UNARY(TANH),
    UNARY(SIGMOID),
    UNARY(SILU),
    UNARY(ERF),
    UNARY(LOG),
    UNARY(SIN),
    UNARY(RSQRT),
    UNARY(EXP2),
    {"gelu", OP_GELU, 1, {{2, {37, 1061}}}, 0, {INT(GELU_NONE)}},
    {"gelu, tanh", OP_GELU, 1, {{2, {37, 1061}}}, 0, {INT(GELU_TANH)}},
    {"add", OP_ADD, 2, {{3, {3, 37, 1061}}, {1, {1061}}}, 0, {FLOAT(0.3)}},
    {"addcmul", OP_ADDCMUL, 3, {{2, {37, 1061}}, {2, {37, 1061}}, {2, {37, 1061}}}, 0, {FLOAT(0.7)}},
    {"lerp", OP_LERP_SCALAR, 2, {{2, {37, 1061}}, {2, {37, 1061}}}, 0, {FLOAT(0.3)}},
};

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float value_at(uint32_t input, int64_t index)
{
    uint64_t x = ((uint64_t)index + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)(input + 1) * 0xd1342543de82ef95u;
    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    float value = (float)(x >> 40) * 0x1p-22f - 2.0f;
    return input == 4 ? fabsf(value) + 0.1f : value;    // a variance, where there are as many inputs
}

struct placed {
    struct tensor tensor;
    float *memory;
    int64_t elements;    // up to the last one, the shift included
    uint32_t shift;
};

static struct placed place(const struct tensor_meta *meta, enum placing placing, uint32_t shift)
{
    struct placed p = {.tensor = {.meta = *meta}, .shift = shift};
    int64_t step = 1, last = shift;
    for (uint32_t d = meta->rank; d-- > 0;) {
        p.tensor.meta.stride[d] = step;
        last += (meta->size[d] - 1) * step;
        bool has_room = (placing == PLACED_ROWS && d + 1 == meta->rank) || (placing != PLACED_DENSE && d + 2 == meta->rank);
        step *= meta->size[d] + (has_room ? 7 : 0);
    }
    p.elements = last + 1;
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, VECTOR_BYTES, (size_t)p.elements * sizeof(float)), 0);
    p.memory = memory;
    for (int64_t i = 0; i < p.elements; i++)
        memcpy(&p.memory[i], &poison, sizeof poison);
    p.tensor.data = p.memory + shift;
    return p;
}

// The element with this logical index.
static float *element(const struct placed *p, int64_t index)
{
    float *at = p->tensor.data;
    for (uint32_t d = p->tensor.meta.rank; d-- > 0; index /= p->tensor.meta.size[d])
        at += index % p->tensor.meta.size[d] * p->tensor.meta.stride[d];
    return at;
}

struct variant {
    enum placing placing;
    uint32_t shift, threads;
    uint64_t key;
    bool is_packed;
};

struct result {
    uint32_t outputs;
    float *values[OP_OUTPUTS_MAX];
    int64_t counts[OP_OUTPUTS_MAX];
};

static struct team *teams[THREADS_MAX + 1];

// Runs the kernel; the outputs' values in logical order go to `ret`.
static void run(const struct subject *s, const struct variant *v, struct result *ret)
{
    struct placed in[INPUTS], out[OP_OUTPUTS_MAX];
    struct tensor_meta meta[INPUTS] = {{0}};
    struct tensor ins[INPUTS] = {{0}}, outs[OP_OUTPUTS_MAX] = {{0}};
    struct op_result inferred;
    memset(in, 0, sizeof in);
    struct fault fault = {0};
    const struct kernel *kernel = &kernels_cpu()->kernel[s->op];

    for (uint32_t i = 0; i < s->n_in; i++) {
        if (s->in[i].rank == ABSENT)
            continue;
        meta[i] = (struct tensor_meta){.dtype = DTYPE_F32, .rank = s->in[i].rank};
        memcpy(meta[i].size, s->in[i].size, s->in[i].rank * sizeof(int64_t));
        tensor_make_contiguous(&meta[i]);
        bool is_weight = s->weight == i + 1;
        in[i] = place(&meta[i], is_weight ? PLACED_DENSE : v->placing, (v->shift + 5 * i) % ALIGNMENTS);
        for (int64_t e = 0; e < tensor_count(&meta[i]); e++)
            *element(&in[i], e) = value_at(i, e);
        ins[i] = in[i].tensor;
        ins[i].is_constant = is_weight && v->is_packed;
        ins[i].constant_key = ins[i].is_constant ? v->key : 0;
    }
    struct op_call op_call = {
        .op = op_info(s->op), .in = meta, .in_is_scalar = (const bool[INPUTS]){0}, .n_in = s->n_in, .attr = s->attr};
    if (op_infer(&op_call, &inferred, &fault) != DJ_OK)
        fail_msg("%s: %s", s->name, fault.text);
    ret->outputs = op_call.op->outputs;
    for (uint32_t i = 0; i < ret->outputs; i++) {
        out[i] = place(&inferred.out[i], v->placing, (v->shift + 3 * i + 1) % ALIGNMENTS);
        outs[i] = out[i].tensor;
    }
    struct kernel_call call = {.op = op_call.op,
                               .in = ins,
                               .n_in = s->n_in,
                               .out = outs,
                               .n_out = ret->outputs,
                               .attr = s->attr,
                               .compute = DTYPE_F32,
                               .team = teams[v->threads],
                               .fault = &fault};
    if (kernel->can != NULL && !kernel->can(&call))
        fail_msg("%s: refused", s->name);
    call.scratch_bytes = kernel->scratch == NULL ? 0 : kernel->scratch(&call);
    if (call.scratch_bytes > 0) {
        assert_int_equal(posix_memalign(&call.scratch, VECTOR_BYTES, call.scratch_bytes), 0);
        memset(call.scratch, 0xff, call.scratch_bytes);    // NaNs
    }
    assert_ok(kernel->run(&call));

    free(call.scratch);
    for (uint32_t i = 0; i < ret->outputs; i++) {
        int64_t untouched = 0;
        ret->counts[i] = tensor_count(&inferred.out[i]);
        ret->values[i] = malloc((size_t)ret->counts[i] * sizeof(float));
        assert_non_null(ret->values[i]);
        for (int64_t e = 0; e < ret->counts[i]; e++)
            ret->values[i][e] = *element(&out[i], e);
        for (int64_t e = 0; e < out[i].elements; e++)
            untouched += bits_of(out[i].memory[e]) == poison;
        if (untouched != out[i].elements - ret->counts[i])
            fail_msg("%s: output %u: %lld elements besides its own are not as they were, or some of its own are", s->name, i,
                     (long long)(out[i].elements - ret->counts[i] - untouched));
        free(out[i].memory);
    }
    for (uint32_t i = 0; i < s->n_in; i++)
        free(in[i].memory);
}

static void result_free(struct result *result)
{
    for (uint32_t i = 0; i < result->outputs; i++)
        free(result->values[i]);
}

static void compare(const struct subject *s, const struct variant *v, const struct result *expected)
{
    struct result result;
    run(s, v, &result);
    for (uint32_t i = 0; i < result.outputs; i++)
        for (int64_t e = 0; e < result.counts[i]; e++)
            if (bits_of(result.values[i][e]) != bits_of(expected->values[i][e]))
                fail_msg("%s: output %u element %lld is %.9g and not %.9g (placing %d, shift %u, threads %u, packed %d)", s->name,
                         i, (long long)e, (double)result.values[i][e], (double)expected->values[i][e], v->placing, v->shift,
                         v->threads, v->is_packed);
    result_free(&result);
}

static void free_teams(void *unused)
{
    (void)unused;
    for (uint32_t threads = 0; threads <= THREADS_MAX; threads++) {
        team_free(teams[threads]);
        teams[threads] = NULL;
    }
}

static void make_teams(void **state)
{
    ops_init();
    case_later(state, free_teams, NULL);
    for (uint32_t threads = 2; threads <= THREADS_MAX; threads++)
        assert_ok(team_make(threads, &teams[threads]));
}

static void bits_do_not_depend_on_alignment_strides_or_threads(void **state)
{
    make_teams(state);
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        struct result expected;
        run(&subjects[i], &(struct variant){.threads = 1}, &expected);
        for (uint32_t shift = 0; shift < ALIGNMENTS; shift++)
            compare(&subjects[i],
                    &(struct variant){.placing = shift % PLACINGS, .shift = shift, .threads = 1 + shift / PLACINGS % THREADS_MAX},
                    &expected);
        result_free(&expected);
    }
}

// With room for every pack, for one small one, and for none.
static void bits_do_not_depend_on_packing(void **state)
{
    static const size_t limits[] = {(size_t)1 << 30, 1 << 16, 0};
    uint64_t key = 1000;
    make_teams(state);
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        if (subjects[i].weight == 0)
            continue;
        struct result expected;
        run(&subjects[i], &(struct variant){.threads = 1}, &expected);
        for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
            kernels_cpu_pack_limit(limits[l]);
            for (uint32_t round = 0; round < 4; round++)
                compare(&subjects[i],
                        &(struct variant){.threads = 1 + round % 2, .shift = round, .key = key++, .is_packed = true}, &expected);
        }
        result_free(&expected);
        kernels_cpu_pack_limit((size_t)1 << 30);
    }
}

CASES(bits_do_not_depend_on_alignment_strides_or_threads, bits_do_not_depend_on_packing)
