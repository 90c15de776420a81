// What inference costs on the recording path: the ops of a GPT-2 decode step, in ns a call, median and p95 of 200 batches.
//
// Repeat: build/cmake/bench/ops_infer

#include "core/base/assert.h"
#include "core/ops/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCHES = 200, CALLS = 2000 };

struct bench {
    const char *what, *op;
    uint32_t n_in;
    struct tensor_meta in[4];
    struct attr attr[4];
};

static struct tensor_meta meta(uint32_t rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    struct tensor_meta ret = {.dtype = DTYPE_F32, .rank = rank, .size = {a, b, c, d}};
    tensor_make_contiguous(&ret);
    return ret;
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void run(const struct bench *bench)
{
    struct op_call call = {.op = op_find(bench->op), .in = bench->in, .n_in = bench->n_in, .attr = bench->attr};
    struct op_result result;
    double took[BATCHES];
    for (uint32_t i = 0; i < BATCHES; i++) {
        double start = now_ns();
        for (uint32_t k = 0; k < CALLS; k++) {
            enum dj_error error = op_infer(&call, &result, NULL);
            assert(error == DJ_OK);
            __asm__ volatile("" : : "r"(&result) : "memory");
        }
        took[i] = (now_ns() - start) / CALLS;
    }
    qsort(took, BATCHES, sizeof took[0], by_size);
    printf("%-34s %6.1f ns   p95 %6.1f ns\n", bench->what, took[BATCHES / 2], took[BATCHES * 95 / 100]);
}

int main(void)
{
    static const int64_t view[4] = {1, 12, 64, 1}, permuted[4] = {0, 2, 1, 3}, shape[1] = {768};
    struct attr one = {.kind = ATTR_INT, .i = 1}, zero = {.kind = ATTR_INT}, eps = {.kind = ATTR_FLOAT, .f = 1e-5};
    struct attr flag = {.kind = ATTR_BOOL};
    struct tensor_meta rows = meta(3, 1, 128, 768, 1), heads = meta(4, 1, 128, 12, 64), swapped = heads;
    swapped.size[1] = 12, swapped.size[2] = 128, swapped.stride[1] = 64, swapped.stride[2] = 768;
    struct tensor_meta vector = meta(1, 768, 1, 1, 1), step = meta(4, 1, 12, 1, 64), cache = meta(4, 1, 12, 127, 64);
    struct tensor_meta halves[2] = {meta(2, 1, 768, 1, 1), meta(2, 768, 768, 1, 1)};
    const struct bench benches[] = {
        {"add [1,128,768] + same", "ADD", 2, {rows, rows}, {one}},
        {"add [1,128,768] + [768]", "ADD", 2, {rows, vector}, {one}},
        {"mul of permuted [1,12,128,64]", "MUL", 2, {swapped, swapped}, {one}},
        {"mm [1,768] x [768,768]", "MM", 2, {halves[0], halves[1]}, {one}},
        {"addmm", "ADDMM", 3, {vector, halves[0], halves[1]}, {one, one}},
        {"view to [1,12,64,1]", "VIEW_SIZES", 1, {vector}, {{.kind = ATTR_INTS, .count = 4, .ints = view}}},
        {"permute", "PERMUTE", 1, {heads}, {{.kind = ATTR_INTS, .count = 4, .ints = permuted}}},
        {"transpose", "TRANSPOSE", 1, {heads}, {one, zero}},
        {"layer_norm [1,128,768]",
         "LAYER_NORM",
         3,
         {rows, vector, vector},
         {{.kind = ATTR_INTS, .count = 1, .ints = shape}, eps}},
        {"cat(cache, step)", "CAT", 2, {cache, step}, {{.kind = ATTR_INT, .i = -2}}},
        {"sdpa", "SDPA", 4, {step, cache, cache}, {flag, {.kind = ATTR_ABSENT}}},
        {"gelu", "GELU", 1, {rows}, {one}},
    };
    ops_init();
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++)
        run(&benches[i]);
    return 0;
}
