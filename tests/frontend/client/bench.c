// The bench of the recorder's tests. The manual is bench.h.

#include "tests/frontend/client/bench.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/bits.h"
#include "core/io/blob.h"
#include "core/srg/bindings.h"
#include "tests/lib/case.h"

static uint32_t port_place(void *self, int device)
{
    (void)self;
    return device <= 0 ? 0 : (uint32_t)device;
}

static uint32_t bits_count(const uint8_t *bits, uint32_t count)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += bit_get(bits, i);
    return n;
}

static void port_submit(void *self, const struct submission *to)
{
    struct bench *bench = self;
    assert_true(bench->outs < BENCH_OUT_MAX && to->answers_count <= BENCH_ANSWERS_MAX);
    struct bench_out *out = &bench->out[bench->outs++];
    out->tag = to->tag;
    out->answers = to->answers_count;
    eval_run(&bench->eval[to->place], to, out->answer);
    struct tensor_meta *meta = calloc(to->plan->outputs, sizeof *meta);
    assert_ok(plan_infer(to->plan, to->word, meta, NULL, NULL, NULL));
    for (uint32_t i = 0; i < to->answers_count; i++) {
        out->output[i] = to->answers[i];
        out->meta[i] = meta[to->answers[i]];
    }
    free(meta);
    bench->fingerprint = to->plan->fingerprint;
    bench->nodes = to->plan->nodes;
    bench->inputs = to->plan->inputs;
    bench->donated = bits_count(to->donated, to->plan->inputs);
    bench->kept = bits_count(to->kept, to->plan->outputs);
    bench->answers = to->answers_count;
    bench->submissions++;
    plan_drop(bench->plan);
    bench->plan = plan_hold(to->plan);
    bench->words = to->plan->words;
    bench->word = realloc(bench->word, (bench->words + 1) * sizeof *bench->word);
    memcpy(bench->word, to->word, bench->words * sizeof *bench->word);
}

static void port_import(void *self, uint32_t place, uint64_t counter, uint32_t from_place, uint64_t from_counter,
                        uint32_t from_output, void *tag)
{
    struct bench *bench = self;
    const struct eval_handle *from = eval_find(&bench->eval[from_place], from_counter, from_output);
    assert_non_null(from);
    bench->eval[place].handle[bench->eval[place].handles++] = (struct eval_handle){.counter = counter, .value = from->value};
    bench->out[bench->outs++] = (struct bench_out){.tag = tag};
}

static void port_release(void *self, uint32_t place, const struct released *released, uint32_t count)
{
    struct bench *bench = self;
    eval_release(&bench->eval[place], released, count);
}

static void bench_end(void *object)
{
    struct bench *bench = object;
    if (recorder_stats(bench->recorder).cells_live > 0)
        return;    // the test failed half-way: let it say so
    recorder_free(bench->recorder);
    plan_drop(bench->plan);
    free(bench->word);
    free(bench);
}

struct bench *bench_make(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->eval[0].arena = bench->eval[1].arena = bench->eval[2].arena = case_arena(state);
    struct recorder_port port = {
        .self = bench, .place = port_place, .submit = port_submit, .import = port_import, .release = port_release};
    assert_ok(recorder_make(&port, &bench->recorder));
    case_later(state, bench_end, bench);
    return bench;
}

static struct blob *blob_of(const double *data, const struct tensor_meta *meta)
{
    int64_t count = tensor_count(meta);
    struct blob *blob = blob_make((size_t)tensor_bytes(meta) + 1);
    for (int64_t i = 0; i < count; i++)
        if (meta->dtype == DTYPE_F32)
            ((float *)(void *)blob->data)[i] = (float)data[i];
        else
            ((int64_t *)(void *)blob->data)[i] = (int64_t)data[i];
    return blob;
}

void bench_deliver(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->outs; i++) {
        struct bench_out *out = &bench->out[i];
        for (uint32_t k = 0; k < out->answers; k++) {
            struct blob *blob = blob_of(out->answer[k], &out->meta[k]);
            recorder_answered(bench->recorder, out->tag, out->output[k], blob, 0, (uint64_t)tensor_bytes(&out->meta[k]));
            blob_drop(blob);
        }
        recorder_executed(bench->recorder, out->tag);
    }
    bench->outs = 0;
}

void bench_flush(struct bench *bench)
{
    struct fault fault = {0};
    enum dj_error error = recorder_flush(bench->recorder, &fault);
    if (error != DJ_OK)
        fail_msg("flush: %s %s", dj_error_name(error), fault.text);
    if (!bench->is_holding)
        bench_deliver(bench);
}

struct dj_tensor bench_upload(struct bench *bench, const float *data, uint32_t rank, const int64_t *size)
{
    struct tensor_meta meta = {.dtype = DTYPE_F32, .rank = rank};
    memcpy(meta.size, size, rank * sizeof *size);
    tensor_make_contiguous(&meta);
    struct dj_tensor in = {.dtype = DTYPE_F32, .rank = rank}, out = {0};
    memcpy(in.size, meta.size, sizeof in.size);
    memcpy(in.stride, meta.stride, sizeof in.stride);
    assert_ok(recorder_upload(bench->recorder, 0, data, &in, (struct recorded_at){0}, &out, NULL));
    return out;
}

struct dj_tensor bench_op(struct bench *bench, uint32_t op, const struct dj_tensor *a, const struct dj_tensor *b,
                          const struct dj_attr *attr, uint32_t n_attr)
{
    struct dj_arg in[2] = {{.kind = DJ_ARG_TENSOR, .tensor = a}, {.kind = DJ_ARG_TENSOR, .tensor = b}};
    struct dj_tensor out[DJ_MAX_OUTPUTS] = {0};
    struct fault fault = {0};
    enum dj_error error = recorder_record(bench->recorder, op, in,
                                          b != NULL   ? 2
                                          : a != NULL ? 1
                                                      : 0,
                                          attr, n_attr, 0, 0, (struct recorded_at){0}, out, &fault);
    if (error != DJ_OK)
        fail_msg("%s: %s %s", op_info(op)->name, dj_error_name(error), fault.text);
    return out[0];
}

void bench_read(struct bench *bench, const struct dj_tensor *tensor, float *data)
{
    struct value *value;
    struct fault fault = {0};
    enum dj_error error = recorder_want(bench->recorder, tensor, (struct recorded_at){0}, &value, &fault);
    if (error != DJ_OK)
        fail_msg("read: %s %s", dj_error_name(error), fault.text);
    size_t bytes = 4;
    for (uint32_t d = 0; d < tensor->rank; d++)
        bytes *= (size_t)tensor->size[d];
    if (recorder_value_state(bench->recorder, value) == VALUE_RECORDED)
        bench_flush(bench);
    if (recorder_value_state(bench->recorder, value) == VALUE_AT_WORKER) {
        assert_false(recorder_value_is_coming(value));
        uint32_t place, output;
        uint64_t counter;
        recorder_value_handle(value, &place, &counter, &output);
        const struct eval_handle *handle = eval_find(&bench->eval[place], counter, output);
        assert_non_null(handle);
        struct blob *blob = blob_of(eval_row_major(&bench->eval[place], &handle->value), &handle->value.meta);
        recorder_value_answer(bench->recorder, value, blob, 0, bytes);
        blob_drop(blob);
        bench->fetches++;
    }
    assert_ok(recorder_copy(bench->recorder, value, data, bytes, NULL));
    recorder_unwant(bench->recorder, value);
}

void bench_drop(struct bench *bench, const struct dj_tensor *tensor)
{
    recorder_cell_drop(bench->recorder, tensor->cell);
}
