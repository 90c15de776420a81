// Matrix products by kernels of ours (gpu_worker/kernels/cuda/matmul.c): what decides their steps, and that they stay inside of their
// tensors, which end where inaccessible memory begins. Their numbers are compared in test_products.py and test_network.py.

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gpu_worker/kernels/cuda/cuda.h"
#include "tests/lib/case.h"
#include "tests/lib/cuda/steps.h"

enum { PAGE = 4096 };

struct product {
    struct tensor in[3], out;
    struct attr attr[2];
    struct kernel_call call;
};

// A matrix, or with is_turned its transpose stored so; no memory yet.
static struct tensor matrix(enum dtype dtype, int64_t rows, int64_t columns, bool is_turned)
{
    return (struct tensor){
        .meta = {.dtype = dtype, .rank = 2, .size = {rows, columns}, .stride = {is_turned ? 1 : columns, is_turned ? rows : 1}}};
}

static void product_make(struct product *p, enum dtype dtype, int64_t m, int64_t k, int64_t n, bool is_turned)
{
    ops_init();
    memset(p, 0, sizeof *p);
    p->in[0] = matrix(dtype, m, n, false);
    p->in[1] = matrix(dtype, m, k, false);
    p->in[2] = matrix(dtype, k, n, is_turned);
    p->out = matrix(dtype, m, n, false);
    p->attr[0] = p->attr[1] = (struct attr){.kind = ATTR_FLOAT, .f = 1};
    p->call = (struct kernel_call){.op = op_info(OP_ADDMM), .in = p->in, .n_in = 3, .out = &p->out, .n_out = 1, .attr = p->attr};
}

static struct hash128 key_of(struct product *p, struct cuda_program *program)
{
    cuda_program_reset(program);
    assert_ok(kernels_cuda()->entry[OP_ADDMM].emit(&p->call, program));
    assert_ok(program->error);
    return cuda_program_key(program);
}

static void addresses_and_factors_do_not_decide_the_steps(void **state)
{
    struct cuda_program program = {0};
    (void)state;
    for (int64_t m = 1; m <= 16; m *= 2)
        for (int turned = 0; turned < 2; turned++) {
            struct product p;
            product_make(&p, DTYPE_BF16, m, 768, 768, turned);
            struct hash128 key = key_of(&p, &program);
            for (int i = 0; i < 3; i++)
                p.in[i].data = (void *)(uintptr_t)(4098 + 16 * i);
            p.out.data = (void *)(uintptr_t)8194;
            p.attr[0].f = 0;
            p.attr[1].f = 2.5;
            assert_true(hash128_equal(key, key_of(&p, &program)));
        }
    cuda_program_free(&program);
}

static void a_cache_that_grows_by_a_token_keeps_its_steps(void **state)
{
    struct cuda_program program = {0};
    (void)state;
    int changes[2] = {0, 0};
    for (int grows_k = 0; grows_k < 2; grows_k++) {
        struct hash128 last = {0, 0};
        for (int64_t tokens = 512; tokens < 1024; tokens++) {
            struct product p;
            product_make(&p, DTYPE_F16, 1, grows_k ? tokens : 64, grows_k ? 64 : tokens, !grows_k);
            struct hash128 key = key_of(&p, &program);
            changes[grows_k] += !hash128_equal(key, last);
            last = key;
        }
    }
    assert_in_range(changes[0], 1, 4);
    assert_in_range(changes[1], 1, 4);
    cuda_program_free(&program);
}

// Memory for a tensor that ends at a page which nobody may touch; filled with `byte`.
struct fence {
    void *pages;
    size_t bytes;
};

static void fence_make(struct fence *fence, int64_t elements, enum dtype dtype, int byte, void **ret)
{
    size_t bytes = (size_t)elements * dtype_bytes(dtype), whole = (bytes + PAGE - 1) / PAGE * PAGE;
    fence->bytes = whole + PAGE;
    fence->pages = mmap(NULL, fence->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(fence->pages, MAP_FAILED);
    assert_int_equal(mprotect((char *)fence->pages + whole, PAGE, PROT_NONE), 0);
    *ret = (char *)fence->pages + whole - bytes;
    memset(*ret, byte, bytes);
}

static void run(struct cuda_program *program)
{
    struct cuda_report report = {0};
    assert_int_equal(program->context_bytes, 0);    // no library's call
    assert_ok(steps_run(program, 1, &report, NULL));
    assert_int_equal(report.first, 0);
}

static void run_fenced(enum dtype dtype, int64_t m, int64_t k, int64_t n, bool is_turned)
{
    struct cuda_program program = {0};
    struct fence fence[5];
    struct product p;
    product_make(&p, dtype, m, k, n, is_turned);
    for (int i = 0; i < 3; i++)
        fence_make(&fence[i], tensor_count(&p.in[i].meta), dtype, 0, &p.in[i].data);
    fence_make(&fence[3], tensor_count(&p.out.meta), dtype, 0x55, &p.out.data);
    size_t scratch = kernels_cuda()->entry[OP_ADDMM].scratch(&p.call);
    fence_make(&fence[4], (int64_t)scratch, DTYPE_U8, 0xff, &p.call.scratch);
    key_of(&p, &program);
    run(&program);
    for (size_t i = 0; i < (size_t)tensor_bytes(&p.out.meta); i++)
        assert_int_equal(((const uint8_t *)p.out.data)[i], 0);    // all of it is written: zeros times zeros
    for (int i = 0; i < 5; i++)
        munmap(fence[i].pages, fence[i].bytes);
    cuda_program_free(&program);
}

static void products_stay_inside_of_their_tensors(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_F64, DTYPE_I8};
    static const int64_t depths[] = {1, 33, 64, 100, 256}, widths[] = {1, 5, 32, 67};
    (void)state;
    for (size_t d = 0; d < 4; d++)
        for (size_t k = 0; k < 5; k++)
            for (size_t n = 0; n < 4; n++)
                for (int64_t m = 1; m <= 9; m += 2 + 2 * (int64_t)(k % 2))
                    run_fenced(dtypes[d], m, depths[k], widths[n], (k + n) % 2);
    run_fenced(DTYPE_F32, 1, 9001, 3, false);    // over several blocks
    run_fenced(DTYPE_BF16, 2, 8200, 3, true);
}

CASES(addresses_and_factors_do_not_decide_the_steps, a_cache_that_grows_by_a_token_keeps_its_steps,
      products_stay_inside_of_their_tensors)
