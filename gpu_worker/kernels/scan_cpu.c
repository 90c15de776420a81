// Scans: out[i] = in[0] + ... + in[i] along one dimension (cumsum), in the order of i, in the output's dtype (half floats and float32 in
// double, as PyTorch accumulates).

#include "gpu_worker/kernels/cpu.h"

struct scan {
    int64_t length, in_step, out_step;
    bool is_float;
    convert_function widen, narrow;
};

// Rows are independent scans; each operand steps from one scan to the next.
static void scan_row(void *context, char *const at[], const int64_t step[], int64_t n)
{
    const struct scan *scan = context;
    for (int64_t j = 0; j < n; j++) {
        char *to = at[0] + j * step[0];
        const char *from = at[1] + j * step[1];
        double f[BLOCK_ELEMENTS], total = 0;
        uint64_t w[BLOCK_ELEMENTS], whole = 0;
        for (int64_t first = 0; first < scan->length; first += BLOCK_ELEMENTS) {
            int64_t count = i64_least(BLOCK_ELEMENTS, scan->length - first);
            char *block = scan->is_float ? (char *)f : (char *)w;
            scan->widen(from + first * scan->in_step, scan->in_step, block, 8, count);
            for (int64_t i = 0; i < count; i++)
                if (scan->is_float)
                    f[i] = total += f[i];
                else
                    w[i] = whole += w[i];
            scan->narrow(block, 8, to + first * scan->out_step, scan->out_step, count);
        }
    }
}

static enum dj_error cumsum_run(const struct kernel_call *call)
{
    const struct tensor *in = &call->in[0], *out = &call->out[0];
    uint32_t dim = dim_wrap(call->attr[0].i, in->meta.rank);
    bool is_float = dtype_is_float(out->meta.dtype);
    enum dtype wide = is_float ? DTYPE_F64 : DTYPE_I64;
    struct scan scan = {.length = 1,
                        .is_float = is_float,
                        .widen = convert_find(in->meta.dtype, wide),
                        .narrow = convert_find(wide, out->meta.dtype)};
    struct tensor from = *in, to = *out;
    if (in->meta.rank > 0) {
        scan.length = in->meta.size[dim];
        scan.in_step = in->meta.stride[dim] * (int64_t)dtype_bytes(in->meta.dtype);
        scan.out_step = out->meta.stride[dim] * (int64_t)dtype_bytes(out->meta.dtype);
        from.meta.size[dim] = to.meta.size[dim] = 1;
    }
    if (scan.length == 0)
        return DJ_OK;
    struct loop loop;
    loop_begin(&loop, to.meta.rank, to.meta.size);
    loop_add(&loop, &to);
    loop_add(&loop, &from);
    loop_finish(&loop, true);
    loop_run(&loop, call->team, scan_row, &scan);
    return DJ_OK;
}

static bool cumsum_can(const struct kernel_call *call)
{
    return dtype_is_real(call->in[0].meta.dtype) && dtype_is_real(call->out[0].meta.dtype);
}

void table_scan(struct kernel *kernel)
{
    kernel[OP_CUMSUM] = (struct kernel){.run = cumsum_run, .can = cumsum_can};
}
