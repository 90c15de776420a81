// Bindings: reading and writing the words of a binding vector. The layout is in plan.h; the manual is bindings.h.

#include "core/srg/bindings.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <string.h>

enum { IDENTITY_WORDS = 2 };

static const struct srg_input *input_at(const struct srg_plan *plan, uint32_t input)
{
    assert(input < plan->inputs);
    return &plan->input[input];
}

struct hash128 binding_leaf(const struct srg_plan *plan, const int64_t *word, uint32_t input)
{
    const struct srg_input *in = input_at(plan, input);
    assert(in->is_leaf);
    return (struct hash128){.hi = (uint64_t)word[in->first_word], .lo = (uint64_t)word[in->first_word + 1]};
}

void binding_set_leaf(const struct srg_plan *plan, int64_t *word, uint32_t input, struct hash128 content)
{
    const struct srg_input *in = input_at(plan, input);
    assert(in->is_leaf);
    word[in->first_word] = (int64_t)content.hi;
    word[in->first_word + 1] = (int64_t)content.lo;
}

void binding_handle(const struct srg_plan *plan, const int64_t *word, uint32_t input, uint64_t *ret_distance,
                    uint32_t *ret_output)
{
    const struct srg_input *in = input_at(plan, input);
    assert(!in->is_leaf);
    *ret_distance = (uint64_t)word[in->first_word];
    // A number that is no output becomes one that no plan has, so that whoever looks it up finds nothing.
    uint64_t output = (uint64_t)word[in->first_word + 1];
    *ret_output = output > UINT32_MAX ? UINT32_MAX : (uint32_t)output;
}

void binding_set_handle(const struct srg_plan *plan, int64_t *word, uint32_t input, uint64_t distance, uint32_t output)
{
    const struct srg_input *in = input_at(plan, input);
    assert(!in->is_leaf);
    word[in->first_word] = (int64_t)distance;
    word[in->first_word + 1] = output;
}

void binding_set_meta(const struct srg_plan *plan, int64_t *word, uint32_t input, const struct tensor_meta *meta)
{
    const struct srg_input *in = input_at(plan, input);
    assert(meta->rank == in->rank && meta->dtype == in->dtype);
    int64_t *at = &word[in->first_word + IDENTITY_WORDS];
    memcpy(at, meta->size, in->rank * sizeof *at);
    if (!in->is_contiguous)
        memcpy(at + in->rank, meta->stride, in->rank * sizeof *at);
}

enum dj_error binding_meta(const struct srg_plan *plan, const int64_t *word, uint32_t input, struct tensor_meta *ret,
                           struct fault *fault)
{
    const struct srg_input *in = input_at(plan, input);
    const int64_t *at = &word[in->first_word + IDENTITY_WORDS];
    struct tensor_meta meta;    // only the first `rank` of its sizes and strides are looked at
    meta.dtype = in->dtype;
    meta.rank = in->rank;
    // Row-major strides by hand: tensor_make_contiguous asks for checked sizes.
    int64_t stride = 1;
    bool fits = true;
    for (uint32_t d = in->rank; d-- > 0;) {
        meta.size[d] = at[d];
        if (!in->is_contiguous) {
            meta.stride[d] = at[in->rank + d];
            continue;
        }
        if (!fits)
            return fault_set(fault, DJ_E_OVERFLOW, "input %u: its strides do not fit in 63 bits", input);
        meta.stride[d] = stride;
        fits = i64_mul(stride, at[d] > 1 ? at[d] : 1, &stride);
    }
    enum dj_error error = tensor_check(&meta, fault);
    if (error != DJ_OK)
        return fault == NULL ? error : fault_wrap(fault, "input %u", input);
    ret->dtype = meta.dtype;
    ret->rank = meta.rank;
    memcpy(ret->size, meta.size, in->rank * sizeof meta.size[0]);
    memcpy(ret->stride, meta.stride, in->rank * sizeof meta.stride[0]);
    return DJ_OK;
}

void binding_attrs(const struct srg_plan *plan, const int64_t *word, uint32_t node, struct attr *attr)
{
    assert(node < plan->nodes);
    uint32_t first = plan->node[node].first_attr;
    uint32_t end = node + 1 < plan->nodes ? plan->node[node + 1].first_attr : plan->attrs;
    for (uint32_t a = first; a < end; a++, attr++) {
        const struct srg_attr *from = &plan->attr[a];
        const int64_t *value = (from->is_bound ? word : plan->constant) + from->first;
        attr->kind = from->kind;
        attr->count = from->count;
        if (from->kind == ATTR_INTS)
            attr->ints = value;
        else if (from->kind == ATTR_BOOL)
            attr->i = *value != 0;
        else
            attr->i = from->kind == ATTR_ABSENT ? 0 : *value;    // a float's bits too
    }
}

int64_t binding_scalar(const struct srg_plan *plan, const int64_t *word, uint32_t node, uint32_t ref)
{
    assert(node < plan->nodes && ref < plan->node[node].refs);
    const struct srg_node *at = &plan->node[node];
    assert(plan->ref[at->first_ref + ref].kind == REF_SCALAR);
    uint32_t scalar = 0;
    for (uint32_t r = 0; r < ref; r++)
        scalar += plan->ref[at->first_ref + r].kind == REF_SCALAR;
    return word[at->first_word + scalar];
}

void binding_set_node(const struct srg_plan *plan, int64_t *word, uint32_t node, const struct attr *attr, const int64_t *scalars)
{
    assert(node < plan->nodes);
    const struct srg_node *at = &plan->node[node];
    int64_t *to = &word[at->first_word];
    for (uint32_t r = 0; r < at->refs; r++) {
        if (plan->ref[at->first_ref + r].kind == REF_SCALAR)
            *to++ = *scalars++;
    }
    uint32_t end = node + 1 < plan->nodes ? plan->node[node + 1].first_attr : plan->attrs;
    for (uint32_t a = at->first_attr; a < end; a++, attr++) {
        const struct srg_attr *shape = &plan->attr[a];
        if (!shape->is_bound)
            continue;
        assert(attr->kind == shape->kind);
        if (shape->kind == ATTR_INTS) {
            assert(attr->count == shape->count);
            memcpy(&word[shape->first], attr->ints, shape->count * sizeof *word);
        } else {
            word[shape->first] = attr->i;
        }
    }
}
