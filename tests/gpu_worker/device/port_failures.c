// Port failures: values that a kernel cannot use are reported by every device in the same words. Every op that looks at values, with
// several wrong ones, of which the first in memory is named. Part of the port suite.

#include "tests/gpu_worker/device/port_suite.h"

#include <string.h>

enum { INPUTS = 5, SPOT_BYTES = 1 << 14, SPOTS = 12, VALUES = 24, SCRATCH_BYTES = 1 << 20, ATTRS = 10 };

// An input of small numbers, or of `value`s, which are integers and repeated as needed.
struct input {
    enum dtype dtype;
    uint32_t rank;
    int64_t size[4];
    int64_t value[VALUES];
    uint32_t values;
    bool is_turned;    // lies in memory with its last two dimensions swapped
};

struct failing {
    enum op op;
    struct input in[INPUTS];
    uint32_t n_in;
    struct attr attr[ATTRS];
    enum dj_error error;
    const char *text;
};

#define F32(...) \
    { \
        .dtype = DTYPE_F32, .rank = sizeof((int64_t[]){__VA_ARGS__}) / 8, .size = { __VA_ARGS__ } \
    }
#define LIST(...) .value = {__VA_ARGS__}, .values = sizeof((int64_t[]){__VA_ARGS__}) / 8
#define SIZE(...) .rank = sizeof((int64_t[]){__VA_ARGS__}) / 8, .size = {__VA_ARGS__}
#define I(n) \
    { \
        .kind = ATTR_INT, .i = n \
    }
#define B(n) \
    { \
        .kind = ATTR_BOOL, .i = n \
    }
static const int64_t two[2] = {2, 2}, none[2] = {0, 0}, one[2] = {1, 1};
#define INTS(list) \
    { \
        .kind = ATTR_INTS, .count = 2, .ints = list \
    }

static const struct failing table[] = {
    {OP_EMBEDDING,
     {F32(5, 4), {.dtype = DTYPE_I64, SIZE(2, 3), LIST(0, 4, 5, 2, -1, 99)}},
     2,
     {{0}},
     DJ_E_INDEX,
     "EMBEDDING: index 5 is out of range for a dimension of size 5"},
    // The first in memory, not in the order of dimensions.
    {OP_EMBEDDING,
     {F32(5, 4), {.dtype = DTYPE_I32, SIZE(2, 3), LIST(0, 4, 1, -7, 2, 5), .is_turned = true}},
     2,
     {{0}},
     DJ_E_INDEX,
     "EMBEDDING: index -7 is out of range for a dimension of size 5"},
    {OP_EMBEDDING,
     {F32(5, 0), {.dtype = DTYPE_I64, SIZE(3), LIST(0, 77, 8)}},
     2,
     {{0}},
     DJ_E_INDEX,
     "EMBEDDING: index 77 is out of range for a dimension of size 5"},
    {OP_INDEX_SELECT,
     {F32(3, 6), {.dtype = DTYPE_I64, SIZE(4), LIST(5, 6, 0, -1)}},
     2,
     {I(1)},
     DJ_E_INDEX,
     "INDEX_SELECT: index 6 is out of range for a dimension of size 6"},
    {OP_GATHER,
     {F32(3, 6), {.dtype = DTYPE_I64, SIZE(2, 6), LIST(0, 1, 2, 2, 1, 0, 3, 0, 7, 0, 0, 0)}},
     2,
     {I(0)},
     DJ_E_INDEX,
     "GATHER: index 3 is out of range for a dimension of size 3"},
    {OP_INDEX,
     {F32(4, 5, 3), {.dtype = DTYPE_I64, SIZE(3), LIST(-4, 3, -4)}, {.dtype = DTYPE_I64, SIZE(3), LIST(4, -6, 5)}},
     3,
     {{0}},
     DJ_E_INDEX,
     "INDEX: index -6 is out of range for a dimension of size 5"},
    // Indices of the first tensor come before those of the second.
    {OP_INDEX,
     {F32(4, 5, 3), {.dtype = DTYPE_I64, SIZE(2, 1), LIST(0, 4)}, {.dtype = DTYPE_I64, SIZE(3), LIST(9, 0, 5)}},
     3,
     {{0}},
     DJ_E_INDEX,
     "INDEX: index 4 is out of range for a dimension of size 4"},
    {OP_SCATTER_SRC,
     {F32(3, 6), {.dtype = DTYPE_I64, SIZE(2, 3), LIST(0, 2, 6, 0, 8, 0)}, F32(2, 3)},
     3,
     {I(1)},
     DJ_E_INDEX,
     "SCATTER_SRC: index 6 is out of range for a dimension of size 6"},
    {OP_SCATTER_VALUE,
     {F32(3, 6), {.dtype = DTYPE_I64, SIZE(2, 3), LIST(0, 2, 1, 0, 3, -1)}},
     2,
     {I(0), {.kind = ATTR_FLOAT, .f = 1}},
     DJ_E_INDEX,
     "SCATTER_VALUE: index 3 is out of range for a dimension of size 3"},
    {OP_SCATTER_ADD,
     {F32(3, 6), {.dtype = DTYPE_I64, SIZE(2, 3), LIST(0, -1, 1, 0, 3, 9)}, F32(2, 3)},
     3,
     {I(0)},
     DJ_E_INDEX,
     "SCATTER_ADD: index -1 is out of range for a dimension of size 3"},
    {OP_INDEX_PUT,
     {F32(4, 5), {.dtype = DTYPE_I64, SIZE(3), LIST(1, 4, -5)}, F32(3, 5)},
     3,
     {B(0)},
     DJ_E_INDEX,
     "INDEX_PUT: index 4 is out of range for a dimension of size 4"},
    {OP_INDEX_PUT,
     {F32(4, 5), {.dtype = DTYPE_I64, SIZE(3), LIST(1, -5, 4)}, F32(3, 5)},
     3,
     {B(1)},
     DJ_E_INDEX,
     "INDEX_PUT: index -5 is out of range for a dimension of size 4"},
    {OP_INDEX_ADD,
     {F32(4, 5), {.dtype = DTYPE_I64, SIZE(3), LIST(1, 4, -1)}, F32(3, 5)},
     3,
     {I(0), {.kind = ATTR_FLOAT, .f = 2}},
     DJ_E_INDEX,
     "INDEX_ADD: index 4 is out of range for a dimension of size 4"},
    {OP_EMBEDDING_BACKWARD,
     {F32(3, 4), {.dtype = DTYPE_I64, SIZE(3), LIST(6, 7, -2)}},
     2,
     {I(7), I(-1), B(0)},
     DJ_E_INDEX,
     "EMBEDDING_BACKWARD: index 7 is out of range for a dimension of size 7"},
    {OP_NLL_LOSS,
     {F32(4, 3), {.dtype = DTYPE_I64, SIZE(4), LIST(2, -100, 3, -1)}, {.dtype = DTYPE_NONE}},
     3,
     {I(1), I(-100)},
     DJ_E_INDEX,
     "Target 3 is out of bounds."},
    {OP_NLL_LOSS_BACKWARD,
     {F32(4), F32(4, 3), {.dtype = DTYPE_I64, SIZE(4), LIST(2, 0, -4, 8)}, {.dtype = DTYPE_NONE}, {.dtype = DTYPE_F32}},
     5,
     {I(0), I(-100)},
     DJ_E_INDEX,
     "Target -4 is out of bounds."},
    {OP_MAX_POOL2D_BACKWARD,
     {F32(1, 1, 2, 2), F32(1, 1, 4, 4), {.dtype = DTYPE_I64, SIZE(1, 1, 2, 2), LIST(0, 3, 16, -1)}},
     3,
     {INTS(two), INTS(two), INTS(none), INTS(one), B(0)},
     DJ_E_INDEX,
     "MAX_POOL2D_BACKWARD: index 16 is out of range for a dimension of size 16"},
    {OP_DIV_MODE,
     {{.dtype = DTYPE_I64, SIZE(3), LIST(7, 8, 9)}, {.dtype = DTYPE_I32, SIZE(3), LIST(1, 0, 2)}},
     2,
     {I(2)},
     DJ_E_INVALID,
     "DIV_MODE: integer division by zero"},
    {OP_REMAINDER,
     {{.dtype = DTYPE_I64, SIZE(3), LIST(7, 8, 9)}, {.dtype = DTYPE_I64, SIZE(3), LIST(1, 2, 0)}},
     2,
     {{0}},
     DJ_E_INVALID,
     "REMAINDER: integer division by zero"},
    {OP_MULTINOMIAL,
     {{.dtype = DTYPE_F32, SIZE(2, 3), LIST(1, 1, 1, 0, 0, 0)}},
     1,
     {I(2), B(1), I(1), I(0)},
     DJ_E_INVALID,
     "MULTINOMIAL: probabilities must be finite, not negative and not all 0"},
};
enum { ROWS = sizeof table / sizeof table[0] };

static struct tensor_meta meta_of(const struct input *input)
{
    struct tensor_meta meta = {.dtype = input->dtype, .rank = input->rank};
    memcpy(meta.size, input->size, sizeof input->size);
    tensor_make_contiguous(&meta);
    if (input->is_turned) {
        uint32_t last = meta.rank - 1;
        meta.stride[last] = meta.size[last - 1];
        meta.stride[last - 1] = 1;
    }
    return meta;
}

// What is written at the input's place. Values are given in the order of memory.
static struct blob *bytes_of(const struct input *input)
{
    struct blob *blob = blob_make(SPOT_BYTES);
    for (uint32_t i = 0; i < SPOT_BYTES / 8; i++) {
        int64_t value = input->values > 0 ? input->value[i % input->values] : (int64_t)(i % 3);
        if (input->dtype == DTYPE_I64)
            memcpy(blob->data + i * 8, &value, 8);
        else if (input->dtype == DTYPE_I32)
            memcpy(blob->data + i * 4, &(int32_t){(int32_t)value}, 4);
        else
            memcpy(blob->data + i * 4, &(float){(float)value}, 4);
    }
    return blob;
}

static struct device_list run_case(struct device_port *port, const struct failing *failing)
{
    struct tensor_meta meta[INPUTS] = {{0}};
    struct device_tensor in[INPUTS], out[OP_OUTPUTS_MAX];
    struct device_task task[INPUTS + 2];
    struct blob *blob[INPUTS];
    struct op_result result;
    struct fault fault = {0};

    for (uint32_t i = 0; i < failing->n_in; i++) {
        meta[i] = failing->in[i].dtype == DTYPE_NONE ? (struct tensor_meta){.dtype = DTYPE_NONE} : meta_of(&failing->in[i]);
        in[i] = (struct device_tensor){.offset = i * SPOT_BYTES, .meta = meta[i]};
        blob[i] = bytes_of(&failing->in[i]);
        task[i] = (struct device_task){.kind = DEVICE_WRITE, .offset = i * SPOT_BYTES, .bytes = SPOT_BYTES, .blob = blob[i]};
    }
    const struct op_info *op = op_info(failing->op);
    struct op_call call = {.op = op, .in = meta, .n_in = failing->n_in, .attr = failing->attr};
    assert_int_equal(op_infer(&call, &result, &fault), DJ_OK);
    for (uint32_t i = 0; i < op->outputs; i++)
        out[i] = (struct device_tensor){.offset = (INPUTS + i) * SPOT_BYTES, .meta = result.out[i]};
    struct device_task *kernel = &task[failing->n_in];
    *kernel = (struct device_task){.kind = DEVICE_KERNEL,
                                   .n_in = failing->n_in,
                                   .n_out = (uint8_t)op->outputs,
                                   .compute = (uint8_t)op_compute_dtype(&call),
                                   .op = op,
                                   .in = in,
                                   .out = out,
                                   .attr = failing->attr,
                                   .offset = SPOTS * SPOT_BYTES};
    assert_true(port->can(port->self, kernel));
    kernel->bytes = port->scratch_bytes(port->self, kernel);
    task[failing->n_in + 1] = *kernel;    // fails too, later
    struct device_list list = {.tasks = failing->n_in + 2, .task = task};
    port_run(port, &list);
    for (uint32_t i = 0; i < failing->n_in; i++)
        blob_drop(blob[i]);
    return list;
}

PORT_CASE(values_that_no_kernel_can_use_are_named_in_the_same_words)
{
    struct device_port *port = port_make(state);
    for (uint32_t i = 0; i < ROWS; i++) {
        struct device_list list = run_case(port, &table[i]);
        assert_string_equal(list.fault.text, table[i].text);
        assert_error(table[i].error, list.error);
        assert_error(table[i].error, list.fault.code);
        assert_int_equal(list.failed_task, table[i].n_in);
    }
}

// However many look at them at once, and as a graph too, which the device makes of lists that recur.
PORT_CASE(of_thousands_of_wrong_indices_the_first_is_named)
{
    enum { COUNT = 8192, FIRST = 5003, ROUNDS = 5 };
    struct device_port *port = port_make(state);
    struct blob *index = blob_make(COUNT * 8);
    int64_t *value = (int64_t *)(void *)index->data;
    for (int64_t i = 0; i < COUNT; i++)
        value[i] = i < FIRST ? 1 : 1000 + i;
    struct device_tensor tensor[3] = {
        {.offset = 0, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {4, 2}, .stride = {2, 1}}},
        {.offset = 1 << 16, .meta = {.dtype = DTYPE_I64, .rank = 1, .size = {COUNT}, .stride = {1}}},
        {.offset = 1 << 18, .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {COUNT, 2}, .stride = {2, 1}}},
    };
    struct attr attr[ATTRS] = {{0}};
    struct device_task task[3] = {{.kind = DEVICE_WRITE, .offset = 1 << 16, .bytes = COUNT * 8, .blob = index},
                                  {.kind = DEVICE_KERNEL,
                                   .op = op_info(OP_EMBEDDING),
                                   .n_in = 2,
                                   .n_out = 1,
                                   .in = tensor,
                                   .out = &tensor[2],
                                   .attr = attr}};
    task[2] = task[1];
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct device_list list = {.tasks = 3, .task = task};
        port_run(port, &list);
        assert_error(DJ_E_INDEX, list.error);
        assert_int_equal(list.failed_task, 1);
        assert_string_equal(list.fault.text, "EMBEDDING: index 6003 is out of range for a dimension of size 4");
    }
    blob_drop(index);
}
