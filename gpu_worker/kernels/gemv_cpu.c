// Gemv: the product of up to GEMV_M_MAX rows with a matrix, where reading the matrix is all the time there is. It is read once, in long
// runs, never repacked.
//
// Weights in rows of n ([k][n]): a part takes some of k and a stretch of columns and leaves partial sums; a second step adds the parts'
// sums in order. Weights in columns ([n][k]): a part takes some rows and finishes their dot products. Parts depend on the shape only.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

#include "core/base/bits.h"

enum {
    GEMV_M_MAX = 4,
    COLUMNS = 8192,              // of [k][n] in one part: 32 KB of partial sums
    K_PARTS = 16,                // of [k][n]
    K_LEAST = 32,                // rows of [k][n] in one part
    SMALL_ELEMENTS = 1 << 15,    // a matrix so small is one part
    PART_OF_NK = 1 << 16,        // elements of [n][k] in one part
};

struct plan {
    const struct gemm *gemm;
    int64_t k_rows, k_parts, column_parts;    // [k][n]
    int64_t n_rows, n_parts;                  // [n][k]
    float *partial;                           // [batch][k part][m][n]
};

bool gemv_fits(const struct gemm *gemm)
{
    return gemm->m <= GEMV_M_MAX && gemm->a_k == 1 && (gemm->b_n == 1 || gemm->b_k == 1);
}

static struct plan plan_of(const struct gemm *gemm)
{
    struct plan plan = {.gemm = gemm, .k_rows = gemm->k};
    if (gemm->k * gemm->n > SMALL_ELEMENTS)
        plan.k_rows = (int64_t)size_round_up((size_t)i64_most(K_LEAST, ceil_div(gemm->k, K_PARTS)), 8);
    plan.k_parts = ceil_div(gemm->k, plan.k_rows);
    plan.column_parts = ceil_div(gemm->n, COLUMNS);
    plan.n_rows = (int64_t)size_round_up((size_t)i64_most(4, PART_OF_NK / gemm->k), 4);
    plan.n_parts = ceil_div(gemm->n, plan.n_rows);
    return plan;
}

// A matrix with n == 1 or k == 1 is both; rows of n first.
static bool is_kn(const struct gemm *gemm)
{
    return gemm->b_n == 1;
}

size_t gemv_scratch(const struct gemm *gemm)
{
    if (!is_kn(gemm))
        return 0;
    struct plan plan = plan_of(gemm);
    return plan.k_parts == 1 ? 0 : (size_t)(gemm->batch * plan.k_parts * gemm->m * gemm->n) * sizeof(float);
}

static void kn_part(void *context, uint32_t part)
{
    const struct plan *plan = context;
    const struct gemm *gemm = plan->gemm;
    int64_t column = part % plan->column_parts * COLUMNS, width = i64_least(COLUMNS, gemm->n - column);
    int64_t k_part = part / plan->column_parts % plan->k_parts, batch = part / plan->column_parts / plan->k_parts;
    int64_t k = k_part * plan->k_rows, rows = i64_least(plan->k_rows, gemm->k - k);
    bool is_whole = plan->k_parts == 1;
    float *sums = is_whole ? gemm->c + batch * gemm->c_batch + column
                           : plan->partial + ((batch * plan->k_parts + k_part) * gemm->m) * gemm->n + column;
    int64_t ld = is_whole ? gemm->c_m : gemm->n;

    for (int64_t i = 0; i < gemm->m; i++)
        memset(sums + i * ld, 0, (size_t)width * sizeof(float));
    simd()->gemv_kn((int)gemm->m, rows, width, gemm->a + batch * gemm->a_batch + k, gemm->a_m,
                    gemm->b + batch * gemm->b_batch + k * gemm->b_k + column, gemm->b_k, sums, ld);
}

static void kn_finish(void *context, uint32_t part)
{
    const struct plan *plan = context;
    const struct gemm *gemm = plan->gemm;
    int64_t column = part % plan->column_parts * COLUMNS, width = i64_least(COLUMNS, gemm->n - column);
    int64_t batch = part / plan->column_parts;
    float *c = gemm->c + batch * gemm->c_batch + column;

    if (plan->k_parts > 1)
        for (int64_t i = 0; i < gemm->m; i++) {
            const float *sums = plan->partial + (batch * plan->k_parts * gemm->m + i) * gemm->n + column;
            memcpy(c + i * gemm->c_m, sums, (size_t)width * sizeof(float));
            for (int64_t p = 1; p < plan->k_parts; p++)
                simd()->axpy(c + i * gemm->c_m, sums + p * gemm->m * gemm->n, 1.0f, width);
        }
    const float *add = gemm->add == NULL ? NULL : gemm->add + batch * gemm->add_batch + column * gemm->add_n;
    gemm_finish(gemm, c, gemm->c_m, add, gemm->m, width);
}

static void nk_part(void *context, uint32_t part)
{
    const struct plan *plan = context;
    const struct gemm *gemm = plan->gemm;
    int64_t batch = part / plan->n_parts, first = part % plan->n_parts * plan->n_rows;
    int64_t rows = i64_least(plan->n_rows, gemm->n - first);
    float *c = gemm->c + batch * gemm->c_batch + first;
    const float *add = gemm->add == NULL ? NULL : gemm->add + batch * gemm->add_batch + first * gemm->add_n;

    simd()->gemv_nk((int)gemm->m, rows, gemm->k, gemm->a + batch * gemm->a_batch, gemm->a_m,
                    gemm->b + batch * gemm->b_batch + first * gemm->b_n, gemm->b_n, c, gemm->c_m);
    gemm_finish(gemm, c, gemm->c_m, add, gemm->m, rows);
}

void gemv_run(const struct gemm *gemm, void *scratch, struct team *team)
{
    struct plan plan = plan_of(gemm);
    plan.partial = scratch;
    if (!is_kn(gemm)) {
        team_run(team, (uint32_t)(gemm->batch * plan.n_parts), nk_part, &plan);
        return;
    }
    team_run(team, (uint32_t)(gemm->batch * plan.k_parts * plan.column_parts), kn_part, &plan);
    if (plan.k_parts == 1 && gemm->add == NULL && gemm->alpha == 1.0f)
        return;
    team_run(team, (uint32_t)(gemm->batch * plan.column_parts), kn_finish, &plan);
}
