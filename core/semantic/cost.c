// Cost: flops and bytes of every node by the op table, and criticality from the longest path, where a node takes the longer of its
// compute and its memory traffic on a machine of round numbers. Only the ratio of the two rates matters here; the placement has the
// workers' real ones.

#include "core/semantic/pattern.h"

#include "core/base/assert.h"
#include "core/srg/bindings.h"

#include <string.h>

static const double FLOPS_PER_S = 100e9, BYTES_PER_S = 20e9, NODE_S = 1e-6;

static void cost_of(struct survey *survey, uint32_t n, struct tensor_meta *in, bool *is_scalar)
{
    const struct srg_node *node = &survey->plan->node[n];
    struct attr attr[OP_ATTRS_MAX];
    binding_attrs(survey->plan, survey->word, n, attr);
    for (uint32_t r = 0; r < node->refs; r++) {
        const struct srg_ref *ref = &survey->plan->ref[node->first_ref + r];
        const struct tensor_meta *meta = survey_meta(survey, ref);
        in[r] = meta != NULL ? *meta : (struct tensor_meta){.dtype = ref->kind == REF_SCALAR ? ref->dtype : DTYPE_NONE};
        is_scalar[r] = ref->kind == REF_SCALAR;
    }
    struct op_call call = {
        .op = op_info(node->op), .in = in, .in_is_scalar = is_scalar, .n_in = node->refs, .attr = attr, .dtype = node->dtype[0]};
    struct op_result result = {0};
    memcpy(result.out, &survey->out[node->first_output], node->outputs * sizeof result.out[0]);
    struct op_cost cost = op_cost(&call, &result);
    survey->notes->node[n].flops = cost.flops;
    survey->notes->node[n].bytes = cost.bytes_read + cost.bytes_written;
}

static double seconds_of(const struct srg_annotation *note)
{
    double compute = note->flops / FLOPS_PER_S, traffic = note->bytes / BYTES_PER_S;
    return NODE_S + (compute > traffic ? compute : traffic);
}

static void find_criticality(struct survey *survey, double *to, double *from)
{
    const struct srg_plan *plan = survey->plan;
    double longest = 0;
    for (uint32_t n = 0; n < plan->nodes; n++) {
        const struct srg_node *node = &plan->node[n];
        double before = 0;
        for (uint32_t r = node->first_ref; r < node->first_ref + node->refs; r++) {
            if (plan->ref[r].kind == REF_NODE && to[plan->ref[r].index] > before)
                before = to[plan->ref[r].index];
        }
        to[n] = before + seconds_of(&survey->notes->node[n]);
        longest = to[n] > longest ? to[n] : longest;
    }
    for (uint32_t n = plan->nodes; n-- > 0;) {    // all readers of n come later, so from[n] is complete
        const struct srg_node *node = &plan->node[n];
        double through = to[n] + from[n];
        survey->notes->node[n].criticality = (float)(through / longest);
        double rest = from[n] + seconds_of(&survey->notes->node[n]);
        for (uint32_t r = node->first_ref; r < node->first_ref + node->refs; r++) {
            if (plan->ref[r].kind == REF_NODE && from[plan->ref[r].index] < rest)
                from[plan->ref[r].index] = rest;
        }
    }
}

enum dj_error survey_cost(struct survey *survey, struct arena *arena, struct fault *fault)
{
    uint32_t nodes = survey->plan->nodes, most = 1;
    for (uint32_t n = 0; n < nodes; n++)
        most = survey->plan->node[n].refs > most ? survey->plan->node[n].refs : most;
    struct tensor_meta *in = arena_alloc(arena, most * sizeof *in);
    bool *is_scalar = arena_alloc(arena, most * sizeof *is_scalar);
    double *path = arena_zero(arena, 2 * (size_t)nodes * sizeof *path);
    if (in == NULL || is_scalar == NULL || path == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to annotate a plan of %u nodes", nodes);
    for (uint32_t n = 0; n < nodes; n++)
        cost_of(survey, n, in, is_scalar);
    find_criticality(survey, path, path + nodes);
    return DJ_OK;
}
