// Gemm: c = alpha * a b + beta * add in float32, cut into tiles that registers hold.
//
// a is repacked into panels of up to mr rows ([k][lanes], so that a tile reads its rows side by side), b into panels of nr columns
// ([k][nr]); a constant b is packed once and kept. k is cut into blocks that keep a panel of b in the first-level cache; every element
// of c is the sum over k in one order, whatever m and n are. Against one thread of PyTorch's library: tests/bench/kernels.py.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

#include "core/base/bits.h"

enum {
    K_BLOCK = 512,            // rows of a panel of b used between two visits to c: 512 * 32 * 4 = 64 KB
    N_TILE = 2,               // panels of b in one part
    M_TILE = 16,              // panels of a in one part
    DIRECT_PANELS_MAX = 2,    // with so few panels of a, packing b would cost more than it saves
};

struct plan {
    const struct gemm *gemm;
    const struct simd *simd;
    int64_t a_panels, b_panels, a_batches, b_batches, n_tiles, m_tiles, k_block;
    bool b_direct;
    float *a_pack, *b_pack;    // [batch][panel][k][lanes or nr]
};

static struct plan plan_of(const struct gemm *gemm)
{
    const struct simd *s = simd();
    struct plan plan = {.gemm = gemm, .simd = s};
    plan.a_panels = ceil_div(gemm->m, s->mr);
    plan.b_panels = ceil_div(gemm->n, s->nr);
    plan.a_batches = gemm->a_batch == 0 ? 1 : gemm->batch;
    plan.b_batches = gemm->b_batch == 0 ? 1 : gemm->batch;
    plan.n_tiles = ceil_div(plan.b_panels, N_TILE);
    plan.m_tiles = ceil_div(plan.a_panels, M_TILE);
    plan.k_block = ceil_div(gemm->k, i64_most(1, ceil_div(gemm->k, K_BLOCK)));
    plan.b_direct = gemm->b_n == 1 && gemm->n % s->nr == 0 && plan.a_panels <= DIRECT_PANELS_MAX;
    return plan;
}

static size_t b_pack_bytes(const struct plan *plan)
{
    return plan->b_direct ? 0 : (size_t)(plan->b_batches * plan->b_panels * plan->gemm->k * plan->simd->nr) * sizeof(float);
}

static void scratch_plan(struct plan *plan, struct scratch *scratch, bool with_b)
{
    plan->a_pack = scratch_take(scratch,
                                (size_t)(plan->a_batches * plan->a_panels * plan->gemm->k * plan->simd->lanes) * sizeof(float));
    if (with_b)
        plan->b_pack = scratch_take(scratch, b_pack_bytes(plan));
}

size_t gemm_scratch(const struct gemm *gemm)
{
    struct plan plan = plan_of(gemm);
    struct scratch scratch = {0};
    scratch_plan(&plan, &scratch, true);
    return scratch.used;
}

// Panels of a have m / panels rows, the first ones one more: no panel is much thinner than the others.
static int64_t panel_start(const struct plan *plan, int64_t panel)
{
    int64_t rows = plan->gemm->m / plan->a_panels, more = plan->gemm->m % plan->a_panels;
    return panel * rows + i64_least(panel, more);
}

static void pack_a(void *context, uint32_t part)
{
    const struct plan *plan = context;
    const struct gemm *gemm = plan->gemm;
    int64_t batch = part / plan->a_panels, panel = part % plan->a_panels;
    int64_t first = panel_start(plan, panel), lanes = plan->simd->lanes;
    int rows = (int)(panel_start(plan, panel + 1) - first);
    const float *from = gemm->a + batch * gemm->a_batch + first * gemm->a_m;
    float *to = plan->a_pack + part * gemm->k * lanes;

    if (gemm->a_k == 1) {
        plan->simd->pack(from, gemm->a_m, rows, gemm->k, to, lanes);
        return;
    }
    for (int64_t k = 0; k < gemm->k; k++)
        for (int r = 0; r < rows; r++)
            to[k * lanes + r] = from[r * gemm->a_m + k * gemm->a_k];
}

static void pack_b(void *context, uint32_t part)
{
    const struct plan *plan = context;
    const struct gemm *gemm = plan->gemm;
    const int64_t nr = plan->simd->nr, lanes = plan->simd->lanes;
    int64_t batch = part / plan->b_panels, first = part % plan->b_panels * nr;
    int64_t width = i64_least(nr, gemm->n - first);
    const float *from = gemm->b + batch * gemm->b_batch + first * gemm->b_n;
    float *to = plan->b_pack + part * gemm->k * nr;

    if (gemm->b_k == 1 && gemm->b_n != 1) {
        for (int64_t half = 0; half < nr; half += lanes) {
            int rows = (int)i64_most(0, i64_least(lanes, width - half));
            plan->simd->pack(rows > 0 ? from + half * gemm->b_n : from, gemm->b_n, rows, gemm->k, to + half, nr);
        }
        return;
    }
    for (int64_t k = 0; k < gemm->k; k++) {
        const float *row = from + k * gemm->b_k;
        if (gemm->b_n == 1)
            memcpy(to + k * nr, row, (size_t)width * sizeof(float));
        else
            for (int64_t j = 0; j < width; j++)
                to[k * nr + j] = row[j * gemm->b_n];
        if (width < nr)
            memset(to + k * nr + width, 0, (size_t)(nr - width) * sizeof(float));
    }
}

// One panel of a times one of b; the last panel of b may be narrower than nr and goes through a tile on the stack.
static void multiply_panels(const struct plan *plan, const float *a, const float *b, int64_t ldb, int rows, int64_t width,
                            int64_t k, float *c, bool accumulate)
{
    const struct simd *s = plan->simd;
    int64_t ldc = plan->gemm->c_m;
    if (width == s->nr) {
        s->tile[rows](k, a, s->lanes, b, ldb, c, ldc, accumulate);
        return;
    }
    _Alignas(64) float tile[SIMD_MR_MAX * SIMD_NR_MAX];
    for (int r = 0; r < rows && accumulate; r++)
        memcpy(tile + r * s->nr, c + r * ldc, (size_t)width * sizeof(float));
    s->tile[rows](k, a, s->lanes, b, ldb, tile, s->nr, accumulate);
    for (int r = 0; r < rows; r++)
        memcpy(c + r * ldc, tile + r * s->nr, (size_t)width * sizeof(float));
}

void gemm_finish(const struct gemm *gemm, float *c, int64_t c_m, const float *add, int64_t m, int64_t n)
{
    if (add == NULL && gemm->alpha == 1.0f)
        return;
    float alpha = gemm->alpha, beta = gemm->beta;
    for (int64_t i = 0; i < m; i++) {
        float *row = c + i * c_m;
        const float *more = add == NULL ? NULL : add + i * gemm->add_m;
        if (more == NULL)
            simd()->scale(row, row, n, alpha, 0.0f);
        else if (gemm->add_n == 1 && alpha == 1.0f)
            simd()->axpy(row, more, beta, n);
        else
            for (int64_t j = 0; j < n; j++)
                row[j] = alpha * row[j] + beta * more[j * gemm->add_n];
    }
}

static void multiply(void *context, uint32_t part)
{
    const struct plan *plan = context;
    const struct gemm *gemm = plan->gemm;
    const int64_t nr = plan->simd->nr, lanes = plan->simd->lanes;
    int64_t tile = part % (plan->n_tiles * plan->m_tiles), batch = part / (plan->n_tiles * plan->m_tiles);
    int64_t n_first = tile / plan->m_tiles * N_TILE, n_last = i64_least(n_first + N_TILE, plan->b_panels);
    int64_t m_first = tile % plan->m_tiles * M_TILE, m_last = i64_least(m_first + M_TILE, plan->a_panels);
    const float *a = plan->a_pack + (gemm->a_batch == 0 ? 0 : batch) * plan->a_panels * gemm->k * lanes;
    const float *b = plan->b_direct ? gemm->b + batch * gemm->b_batch
                                    : plan->b_pack + (gemm->b_batch == 0 ? 0 : batch) * plan->b_panels * gemm->k * nr;
    int64_t ldb = plan->b_direct ? gemm->b_k : nr, b_panel = plan->b_direct ? nr : gemm->k * nr;
    float *c = gemm->c + batch * gemm->c_batch;

    for (int64_t k = 0; k < gemm->k; k += plan->k_block) {
        int64_t depth = i64_least(plan->k_block, gemm->k - k);
        for (int64_t j = n_first; j < n_last; j++)
            for (int64_t i = m_first; i < m_last; i++) {
                int64_t row = panel_start(plan, i);
                multiply_panels(plan, a + (i * gemm->k + k) * lanes, b + j * b_panel + k * ldb, ldb,
                                (int)(panel_start(plan, i + 1) - row), i64_least(nr, gemm->n - j * nr), depth,
                                c + row * gemm->c_m + j * nr, k > 0);
            }
    }
    int64_t row = panel_start(plan, m_first), rows = panel_start(plan, m_last) - row;
    const float *add = gemm->add == NULL ? NULL
                                         : gemm->add + batch * gemm->add_batch + row * gemm->add_m + n_first * nr * gemm->add_n;
    gemm_finish(gemm, c + row * gemm->c_m + n_first * nr, gemm->c_m, add, rows, i64_least(n_last * nr, gemm->n) - n_first * nr);
}

void gemm_run(const struct gemm *gemm, void *memory, struct team *team)
{
    struct plan plan = plan_of(gemm);
    struct scratch scratch = {.data = memory};
    struct pack_key key = {gemm->b_key,
                           (uint64_t)(uintptr_t)gemm->b,
                           {(uint64_t)gemm->k, (uint64_t)gemm->n, (uint64_t)gemm->b_k, (uint64_t)gemm->b_n}};
    struct pack *pack = NULL;
    bool must_pack = !plan.b_direct;

    if (must_pack && gemm->b_key != 0 && plan.b_batches == 1)
        pack = pack_acquire(&key, b_pack_bytes(&plan), &must_pack);
    scratch_plan(&plan, &scratch, pack == NULL);
    if (pack != NULL)
        plan.b_pack = pack_data(pack);
    team_run(team, (uint32_t)(plan.a_batches * plan.a_panels), pack_a, &plan);
    if (must_pack)
        team_run(team, (uint32_t)(plan.b_batches * plan.b_panels), pack_b, &plan);
    team_run(team, (uint32_t)(gemm->batch * plan.n_tiles * plan.m_tiles), multiply, &plan);
    if (pack != NULL)
        pack_release(pack);
}
