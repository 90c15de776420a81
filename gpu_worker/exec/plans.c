// Plans: the cache by fingerprint, and what can be known of a plan before its bindings: who owns the memory that an output shows, and
// which node needs it last.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

static void analyse_roots(struct exec_plan *plan)
{
    const struct srg_plan *srg = plan->plan;
    memset(plan->last_use, 0xff, (srg->inputs + srg->outputs) * sizeof plan->last_use[0]);
    for (uint32_t n = 0; n < srg->nodes; n++) {
        const struct srg_node *node = &srg->node[n];
        plan->op[n] = op_info(node->op);
        plan->compute[n] = DTYPE_COUNT;
        bool is_view = (plan->op[n]->flags & OP_IS_VIEW) != 0;
        for (uint32_t r = 0; r < node->refs; r++) {
            const struct srg_ref *ref = &srg->ref[node->first_ref + r];
            if (ref->kind != REF_NODE && ref->kind != REF_INPUT)
                continue;
            uint32_t root = ref->kind == REF_INPUT ? ref->index : plan->root[srg->node[ref->index].first_output + ref->output];
            plan->last_use[root] = n;
            if (is_view && r == 0)
                plan->root[node->first_output] = root;
        }
        bool has_own = !is_view || node->refs == 0 ||
                       (srg->ref[node->first_ref].kind != REF_NODE && srg->ref[node->first_ref].kind != REF_INPUT);
        for (uint32_t o = 0; has_own && o < node->outputs; o++) {
            plan->root[node->first_output + o] = srg->inputs + node->first_output + o;
            plan->last_use[srg->inputs + node->first_output + o] = n;
        }
    }
}

// Sorts the roots that have a last use by it (counting sort).
static void analyse_deaths(struct exec_plan *plan)
{
    const struct srg_plan *srg = plan->plan;
    uint32_t roots = srg->inputs + srg->outputs;
    memset(plan->first_death, 0, (srg->nodes + 2) * sizeof plan->first_death[0]);
    for (uint32_t root = 0; root < roots; root++) {
        if (plan->last_use[root] != UINT32_MAX)
            plan->first_death[plan->last_use[root] + 2]++;
    }
    for (uint32_t n = 0; n < srg->nodes; n++)
        plan->first_death[n + 2] += plan->first_death[n + 1];
    // first_death[n + 1] is now where n's begin; placing moves it to where they end, which is where n + 1's begin.
    for (uint32_t root = 0; root < roots; root++) {
        if (plan->last_use[root] != UINT32_MAX)
            plan->death[plan->first_death[plan->last_use[root] + 1]++] = root;
    }
}

static void plan_free(struct exec_plan *plan)
{
    plan_drop(plan->plan);
    free(plan->root);
    free(plan->last_use);
    free(plan->death);
    free(plan->first_death);
    free(plan->op);
    free(plan->compute);
    free(plan);
}

static struct exec_plan *plan_make(struct srg_plan *srg)
{
    struct exec_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return NULL;
    size_t roots = (size_t)srg->inputs + srg->outputs + 1;
    plan->plan = plan_hold(srg);
    plan->refs = 1;
    plan->root = calloc((size_t)srg->outputs + 1, sizeof plan->root[0]);
    plan->last_use = calloc(roots, sizeof plan->last_use[0]);
    plan->death = calloc(roots, sizeof plan->death[0]);
    plan->first_death = calloc((size_t)srg->nodes + 2, sizeof plan->first_death[0]);
    plan->op = calloc((size_t)srg->nodes + 1, sizeof plan->op[0]);
    plan->compute = calloc((size_t)srg->nodes + 1, sizeof plan->compute[0]);
    if (plan->root == NULL || plan->last_use == NULL || plan->death == NULL || plan->first_death == NULL || plan->op == NULL ||
        plan->compute == NULL) {
        plan_free(plan);
        return NULL;
    }
    analyse_roots(plan);
    analyse_deaths(plan);
    return plan;
}

static bool plan_evict(struct exec *exec)
{
    list_each (node, &exec->plan_lru) {
        struct exec_plan *plan = list_entry(node, struct exec_plan, lru);
        if (plan->refs > 1)
            continue;
        map_take(exec->plan, plan->plan->fingerprint);
        list_remove(&plan->lru);
        plan_free(plan);
        return true;
    }
    return false;
}

enum dj_error exec_plan_put(struct exec *exec, struct srg_plan *srg)
{
    if (exec_plan_find(exec, srg->fingerprint) != NULL)
        return DJ_OK;
    if (map_count(exec->plan) >= EXEC_PLANS_MAX && !plan_evict(exec))
        return DJ_E_LIMIT;
    struct exec_plan *plan = plan_make(srg);
    if (plan == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = map_put(exec->plan, srg->fingerprint, plan);
    if (error != DJ_OK) {
        plan_free(plan);
        return error;
    }
    list_push(&exec->plan_lru, &plan->lru);
    return DJ_OK;
}

struct exec_plan *exec_plan_find(struct exec *exec, struct hash128 fingerprint)
{
    struct exec_plan *plan = map_get(exec->plan, fingerprint);
    if (plan != NULL) {
        list_remove(&plan->lru);
        list_push(&exec->plan_lru, &plan->lru);
    }
    return plan;
}

void exec_plan_hold(struct exec_plan *plan)
{
    plan->refs++;
}

void exec_plan_drop(struct exec_plan *plan)
{
    if (plan == NULL)
        return;
    assert(plan->refs > 0);
    if (--plan->refs == 0)
        plan_free(plan);
}

struct srg_plan *exec_plan_structure(const struct exec_plan *plan)
{
    return plan->plan;
}
