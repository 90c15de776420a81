// Sorting: sort, topk, isin and multinomial.
//
// A row is read as keys: 64-bit unsigned integers in the order of the values (sign flipped; NaN above everything, as PyTorch orders),
// with their positions. Every order is stable: among equals the lower position comes first, in topk too.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>
#include <string.h>

#include "gpu_worker/kernels/failure.h"
#include "gpu_worker/kernels/philox.h"

struct entry {
    uint64_t key;
    int64_t at;
};

static uint64_t key_of_integer(int64_t x)
{
    return (uint64_t)x ^ (uint64_t)1 << 63;
}

static uint64_t key_of_double(double x)
{
    uint64_t bits;
    if (x != x)
        return UINT64_MAX;
    x += 0.0;    // -0 becomes 0: they are equal
    memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

// Reads n elements with a step as keys; a descending order is the ascending one of the complement.
static void read_keys(enum dtype dtype, const char *from, int64_t step, int64_t n, bool is_descending, struct entry *ret)
{
    bool is_float = dtype_is_float(dtype);
    convert_function convert = convert_find(dtype, is_float ? DTYPE_F64 : DTYPE_I64);
    double f[256];
    int64_t w[256];
    for (int64_t first = 0; first < n; first += 256) {
        int64_t count = i64_least(256, n - first);
        convert(from + first * step, step, is_float ? (char *)f : (char *)w, 8, count);
        for (int64_t i = 0; i < count; i++) {
            uint64_t key = is_float ? key_of_double(f[i]) : key_of_integer(w[i]);
            ret[first + i] = (struct entry){is_descending ? ~key : key, first + i};
        }
    }
}

static bool comes_before(struct entry a, struct entry b)
{
    return a.key < b.key || (a.key == b.key && a.at < b.at);
}

// Bottom-up merge sort; `spare` has room for n.
static void sort_entries(struct entry *row, struct entry *spare, int64_t n)
{
    struct entry *from = row, *to = spare;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t left = 0; left < n; left += 2 * width) {
            int64_t middle = i64_least(left + width, n), right = i64_least(left + 2 * width, n), i = left, j = middle;
            for (int64_t k = left; k < right; k++)
                to[k] = i < middle && (j >= right || !comes_before(from[j], from[i])) ? from[i++] : from[j++];
        }
        struct entry *swap = from;
        from = to;
        to = swap;
    }
    if (from != row)
        memcpy(row, from, (size_t)n * sizeof *row);
}

// Leaves the k first entries of the order, sorted, at the front: a heap with the last of them on top.
static void sift(struct entry *heap, int64_t k, int64_t i)
{
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= k)
            return;
        if (child + 1 < k && comes_before(heap[child], heap[child + 1]))
            child++;
        if (!comes_before(heap[i], heap[child]))
            return;
        struct entry swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
        i = child;
    }
}

static void select_entries(struct entry *row, struct entry *spare, int64_t n, int64_t k)
{
    if (k == 0)
        return;
    for (int64_t i = k / 2; i-- > 0;)
        sift(row, k, i);
    for (int64_t i = k; i < n; i++)
        if (comes_before(row[i], row[0])) {
            row[0] = row[i];
            sift(row, k, 0);
        }
    sort_entries(row, spare, k);
}

struct rows {
    int64_t length, k, in_step, value_step, index_step, bytes;
    enum dtype dtype;
    bool is_descending, is_selection;
    struct entry *entry, *spare;
    convert_function move;
};

// Operands: values, indices, input, one step from row to row each.
static void order_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct rows *r = context;
    for (int64_t j = 0; j < n; j++) {
        char *values = at[0] + j * step[0], *indices = at[1] + j * step[1];
        const char *in = at[2] + j * step[2];
        read_keys(r->dtype, in, r->in_step, r->length, r->is_descending, r->entry);
        if (r->is_selection)
            select_entries(r->entry, r->spare, r->length, r->k);
        else
            sort_entries(r->entry, r->spare, r->length);
        for (int64_t i = 0; i < r->k; i++) {
            r->move(in + r->entry[i].at * r->in_step, 0, values + i * r->value_step, 0, 1);
            memcpy(indices + i * r->index_step, &r->entry[i].at, sizeof(int64_t));
        }
    }
}

static uint32_t order_dim(const struct kernel_call *call)
{
    return dim_wrap(call->attr[call->op->number == OP_TOPK ? 1 : 0].i, call->in[0].meta.rank);
}

static int64_t order_length(const struct kernel_call *call)
{
    return call->in[0].meta.rank == 0 ? 1 : call->in[0].meta.size[order_dim(call)];
}

static size_t order_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    scratch_take(&scratch, (size_t)order_length(call) * sizeof(struct entry));
    scratch_take(&scratch, (size_t)order_length(call) * sizeof(struct entry));
    return scratch.used;
}

static int64_t step_along(const struct tensor_meta *meta, uint32_t dim)
{
    return meta->rank == 0 ? 0 : meta->stride[dim] * (int64_t)dtype_bytes(meta->dtype);
}

static enum dj_error order_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    uint32_t dim = order_dim(call);
    bool is_topk = call->op->number == OP_TOPK;
    struct tensor in = call->in[0], values = call->out[0], indices = call->out[1];
    struct rows r = {.length = order_length(call),
                     .dtype = in.meta.dtype,
                     .is_selection = is_topk,
                     .in_step = step_along(&in.meta, dim),
                     .value_step = step_along(&values.meta, dim),
                     .index_step = step_along(&indices.meta, dim),
                     .move = convert_find(in.meta.dtype, values.meta.dtype)};
    r.k = is_topk ? attr_int(&call->attr[0]) : r.length;
    r.is_descending = attr_int(&call->attr[is_topk ? 2 : 1]) != 0;
    r.entry = scratch_take(&scratch, (size_t)r.length * sizeof(struct entry));
    r.spare = scratch_take(&scratch, (size_t)r.length * sizeof(struct entry));
    if (r.k > r.length || r.k < 0)
        return fault_set(call->fault, DJ_E_INDEX, "TOPK: k is %lld but the dimension has %lld", (long long)r.k,
                         (long long)r.length);
    if (tensor_count(&values.meta) == 0)
        return DJ_OK;
    if (in.meta.rank > 0)
        in.meta.size[dim] = values.meta.size[dim] = indices.meta.size[dim] = 1;

    struct loop loop;
    loop_begin(&loop, in.meta.rank, in.meta.size);
    loop_add(&loop, &values);
    loop_add(&loop, &indices);
    loop_add(&loop, &in);
    loop_finish(&loop, true);
    loop_run(&loop, NULL, order_row, &r);
    return DJ_OK;
}

static bool order_can(const struct kernel_call *call)
{
    return dtype_is_real(call->in[0].meta.dtype);
}

// isin: are elements among the test elements? NaN equals nothing.
struct among {
    const struct entry *sorted;
    int64_t n;
    enum dtype dtype;
    bool is_inverted;
};

static bool is_among(const struct among *a, uint64_t key)
{
    int64_t low = 0, high = a->n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (a->sorted[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < a->n && a->sorted[low].key == key && !(key == UINT64_MAX && dtype_is_float(a->dtype));
}

static void isin_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct among *a = context;
    for (int64_t j = 0; j < n; j++) {
        struct entry entry;
        read_keys(a->dtype, at[1] + j * step[1], 0, 1, false, &entry);
        at[0][j * step[0]] = (char)(is_among(a, entry.key) != a->is_inverted);
    }
}

static enum dtype isin_dtype(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype) || dtype_is_float(call->in[1].meta.dtype) ? DTYPE_F64 : DTYPE_I64;
}

static size_t isin_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    int64_t n = tensor_count(&call->in[1].meta);
    dense_take(&scratch, &call->in[0], isin_dtype(call), false, NULL);
    dense_take(&scratch, &call->in[1], isin_dtype(call), false, NULL);
    scratch_take(&scratch, (size_t)n * sizeof(struct entry));
    scratch_take(&scratch, (size_t)n * sizeof(struct entry));
    return scratch.used;
}

static enum dj_error isin_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    enum dtype dtype = isin_dtype(call);
    int64_t n = tensor_count(&call->in[1].meta);
    struct tensor elements = call->in[0];
    elements.data = dense_take(&scratch, &call->in[0], dtype, true, call->team);
    elements.meta.dtype = dtype;
    tensor_make_contiguous(&elements.meta);
    const char *tests = dense_take(&scratch, &call->in[1], dtype, true, call->team);
    struct entry *sorted = scratch_take(&scratch, (size_t)n * sizeof *sorted),
                 *spare = scratch_take(&scratch, (size_t)n * sizeof *sorted);
    if (n > 0) {
        read_keys(dtype, tests, 8, n, false, sorted);
        sort_entries(sorted, spare, n);
    }
    struct among among = {.sorted = sorted, .n = n, .dtype = dtype, .is_inverted = attr_int(&call->attr[0]) != 0};
    struct loop loop;
    loop_begin(&loop, call->out[0].meta.rank, call->out[0].meta.size);
    loop_add(&loop, &call->out[0]);
    loop_add(&loop, &elements);
    loop_finish(&loop, true);
    loop_run(&loop, call->team, isin_row, &among);
    return DJ_OK;
}

static bool isin_can(const struct kernel_call *call)
{
    return dtype_is_real(call->in[0].meta.dtype) && dtype_is_real(call->in[1].meta.dtype);
}

// multinomial: u is uniform in [0, 1) of 53 bits, Philox(seed, offset) at element row * count + draw with replacement, and at
// row * classes + class without. With: the first class whose running sum of weights exceeds u * total. Without: the `count` largest
// weight / -ln(1 - u) (exponential race), largest first.
static double unit_at(uint64_t seed, uint64_t offset, uint64_t element)
{
    uint32_t word[4];
    philox(seed, offset, element / 2, word);
    uint64_t draw = word[element % 2 * 2] | (uint64_t)word[element % 2 * 2 + 1] << 32;
    return (double)(draw >> 11) * 0x1p-53;
}

static size_t multinomial_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    const struct tensor_meta *meta = &call->in[0].meta;
    int64_t classes = meta->rank == 0 ? 1 : meta->size[meta->rank - 1];
    dense_take(&scratch, &call->in[0], DTYPE_F64, false, NULL);
    scratch_take(&scratch, (size_t)classes * sizeof(struct entry));
    scratch_take(&scratch, (size_t)classes * sizeof(struct entry));
    return scratch.used;
}

static bool weights_are_valid(const double *weight, int64_t n, double *total)
{
    *total = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(weight[i] >= 0) || isinf(weight[i]))
            return false;
        *total += weight[i];
    }
    return *total > 0;
}

static void draw_row(const struct kernel_call *call, const double *weight, int64_t classes, double total, int64_t row,
                     struct entry *entry, struct entry *spare, int64_t *drawn)
{
    int64_t count = attr_int(&call->attr[0]);
    uint64_t seed = (uint64_t)attr_int(&call->attr[2]), offset = (uint64_t)attr_int(&call->attr[3]);
    if (attr_int(&call->attr[1]) == 0) {
        for (int64_t c = 0; c < classes; c++) {
            double race = -log1p(-unit_at(seed, offset, (uint64_t)(row * classes + c)));
            entry[c] = (struct entry){~key_of_double(weight[c] == 0 ? -1.0 : weight[c] / race), c};
        }
        select_entries(entry, spare, classes, count);
        for (int64_t i = 0; i < count; i++)
            drawn[i] = entry[i].at;
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        double mark = unit_at(seed, offset, (uint64_t)(row * count + i)) * total, sum = 0;
        int64_t last = 0;
        for (int64_t c = 0; c < classes; c++) {
            if (weight[c] == 0)
                continue;
            last = c;
            sum += weight[c];
            if (sum > mark)
                break;
        }
        drawn[i] = last;
    }
}

static enum dj_error multinomial_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    const struct tensor_meta *meta = &call->in[0].meta;
    int64_t classes = meta->rank == 0 ? 1 : meta->size[meta->rank - 1], count = attr_int(&call->attr[0]);
    int64_t rows = meta->rank == 2 ? meta->size[0] : 1;
    const double *weight = dense_take(&scratch, &call->in[0], DTYPE_F64, true, call->team);
    struct entry *entry = scratch_take(&scratch, (size_t)classes * sizeof *entry),
                 *spare = scratch_take(&scratch, (size_t)classes * sizeof *entry);
    const struct tensor *out = &call->out[0];
    if (count < 0 || (attr_int(&call->attr[1]) == 0 && count > classes))
        return fault_set(call->fault, DJ_E_INDEX, "MULTINOMIAL: cannot draw %lld of %lld without replacement", (long long)count,
                         (long long)classes);

    for (int64_t row = 0; row < rows; row++) {
        double total;
        if (!weights_are_valid(weight + row * classes, classes, &total))
            return failure_say(call->fault, FAILURE_PROBABILITIES, call->op->name, 0, 0);
        draw_row(call, weight + row * classes, classes, total, row, entry, spare, (int64_t *)out->data + row * count);
    }
    return DJ_OK;
}

static bool multinomial_can(const struct kernel_call *call)
{
    return dtype_is_float(call->in[0].meta.dtype) && call->in[0].meta.rank <= 2 && tensor_is_contiguous(&call->out[0].meta);
}

void table_sort(struct kernel *kernel)
{
    kernel[OP_SORT] = kernel[OP_TOPK] = (struct kernel){.run = order_run, .scratch = order_scratch, .can = order_can};
    kernel[OP_ISIN] = (struct kernel){.run = isin_run, .scratch = isin_scratch, .can = isin_can};
    kernel[OP_MULTINOMIAL] = (struct kernel){.run = multinomial_run, .scratch = multinomial_scratch, .can = multinomial_can};
}
