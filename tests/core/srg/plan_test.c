// Plans: the builder, its checks, the fingerprint, and both encodings, over random plans.

#include "core/srg/plan.h"

#include "core/srg/export.h"
#include "tests/lib/case.h"
#include "tests/lib/random_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 150 };

static void free_random(void *random)
{
    random_plan_free(random);
}

static struct random_plan *make(void **state, struct prng *prng, uint32_t nodes)
{
    struct random_plan *random = arena_alloc(case_arena(state), sizeof *random);
    *random = random_plan_make(prng, (struct random_plan_options){.nodes = nodes});
    case_later(state, free_random, random);
    return random;
}

static void free_builder(void *builder)
{
    plan_builder_free(builder);
}

static struct plan_builder *builder_make(void **state)
{
    ops_init();
    struct plan_builder *builder = NULL;
    assert_ok(plan_builder_make(&builder));
    case_later(state, free_builder, builder);
    return builder;
}

static uint32_t add_input(struct plan_builder *builder, uint8_t dtype, uint8_t rank)
{
    uint32_t index;
    struct srg_input input = {.is_leaf = true, .is_contiguous = true, .dtype = dtype, .rank = rank, .device = 255};
    assert_ok(plan_add_input(builder, &input, &index));
    return index;
}

static const uint8_t F32[OP_OUTPUTS_MAX] = {DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32};

static uint32_t add_node(struct plan_builder *builder, enum op op, const struct srg_ref *ref, uint32_t refs,
                         const struct attr *attr)
{
    uint32_t index;
    assert_ok(plan_add_node(builder, op_info(op), ref, refs, attr, F32, 0, 255, &index));
    return index;
}

static void assert_same_structure(const struct srg_plan *a, const struct srg_plan *b)
{
    assert_true(hash128_equal(a->fingerprint, b->fingerprint));
    assert_int_equal(a->nodes, b->nodes);
    assert_int_equal(a->refs, b->refs);
    assert_int_equal(a->attrs, b->attrs);
    assert_int_equal(a->constants, b->constants);
    assert_int_equal(a->inputs, b->inputs);
    assert_int_equal(a->outputs, b->outputs);
    assert_int_equal(a->words, b->words);
    for (uint32_t n = 0; n < a->nodes; n++) {
        const struct srg_node *x = &a->node[n], *y = &b->node[n];
        assert_true(x->op == y->op && x->outputs == y->outputs && memcmp(x->dtype, y->dtype, sizeof x->dtype) == 0);
        assert_true(x->first_ref == y->first_ref && x->refs == y->refs && x->first_attr == y->first_attr);
        assert_true(x->first_word == y->first_word && x->first_output == y->first_output);
        assert_true(x->module == y->module && x->device == y->device);
    }
    for (uint32_t r = 0; r < a->refs; r++) {
        const struct srg_ref *x = &a->ref[r], *y = &b->ref[r];
        assert_true(x->kind == y->kind && x->dtype == y->dtype && x->output == y->output && x->index == y->index);
    }
    for (uint32_t i = 0; i < a->attrs; i++) {
        const struct srg_attr *x = &a->attr[i], *y = &b->attr[i];
        assert_true(x->kind == y->kind && x->count == y->count && x->is_bound == y->is_bound && x->first == y->first);
    }
    for (uint32_t i = 0; i < a->constants; i++)
        assert_int_equal(a->constant[i], b->constant[i]);
    for (uint32_t i = 0; i < a->inputs; i++) {
        const struct srg_input *x = &a->input[i], *y = &b->input[i];
        assert_true(x->is_leaf == y->is_leaf && x->is_contiguous == y->is_contiguous && x->dtype == y->dtype &&
                    x->rank == y->rank);
        assert_true(x->device == y->device && x->first_word == y->first_word);
    }
    assert_int_equal(a->modules, b->modules);
    for (uint32_t i = 0; i < a->modules; i++) {
        assert_string_equal(a->module[i].path, b->module[i].path);
        assert_string_equal(a->module[i].type, b->module[i].type);
        assert_int_equal(a->module[i].is_training, b->module[i].is_training);
    }
}

static void assert_same_inference(const struct random_plan *random, const struct srg_plan *plan)
{
    struct tensor_meta *out = malloc((plan->outputs + 1) * sizeof *out);
    struct fault fault = {0};
    if (plan_infer(plan, random->word, out, NULL, NULL, &fault) != DJ_OK)
        fail_msg("%s", fault.text);
    for (uint32_t o = 0; o < plan->outputs; o++) {
        assert_int_equal(out[o].dtype, random->out[o].dtype);
        assert_true(tensor_same_sizes(&out[o], &random->out[o]));
        assert_memory_equal(out[o].stride, random->out[o].stride, out[o].rank * sizeof out[o].stride[0]);
    }
    free(out);
}

static void inference_over_the_plan_equals_inference_op_by_op(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct prng prng = case_prng(state, seed);
        struct random_plan *random = make(state, &prng, 1 + (uint32_t)seed % 80);
        assert_same_inference(random, random->plan);
    }
}

static void a_plan_survives_protocol_buffers(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct prng prng = case_prng(state, seed);
        struct random_plan *random = make(state, &prng, (uint32_t)seed % 80);
        struct writer writer = writer_make(PLAN_BYTES_MAX);
        assert_ok(plan_encode(random->plan, &writer));
        struct srg_plan *back = NULL;
        struct fault fault = {0};
        if (plan_decode(writer.data, writer.length, &back, &fault) != DJ_OK)
            fail_msg("%s", fault.text);
        assert_same_structure(random->plan, back);
        assert_same_inference(random, back);
        plan_drop(back);
        writer_free(&writer);
    }
}

static void a_plan_survives_json(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct prng prng = case_prng(state, seed);
        struct random_plan *random = make(state, &prng, (uint32_t)seed % 80);
        struct writer writer = writer_make(PLAN_JSON_BYTES_MAX);
        if (seed % 2)
            assert_ok(plan_to_json(random->plan, &writer));
        else
            assert_ok(plan_export_json(random->plan, NULL, random->word, &writer));
        struct srg_plan *back = NULL;
        struct fault fault = {0};
        if (plan_from_json((const char *)writer.data, writer.length, &back, &fault) != DJ_OK)
            fail_msg("%s\n%.*s", fault.text, (int)writer.length, (const char *)writer.data);
        assert_same_structure(random->plan, back);
        plan_drop(back);
        writer_free(&writer);
    }
}

// Every structural field, changed alone, changes the fingerprint; a module's name and a bound value do not.
static struct hash128 fingerprint_of(void **state, int variant)
{
    struct plan_builder *builder = builder_make(state);
    uint8_t dtype[OP_OUTPUTS_MAX] = {variant == 1 ? DTYPE_F64 : DTYPE_F32};
    uint32_t a = add_input(builder, variant == 2 ? DTYPE_F64 : DTYPE_F32, variant == 3 ? 3 : 2),
             b = add_input(builder, DTYPE_F32, 2);
    struct srg_ref ref[2] = {{.kind = REF_INPUT, .index = variant == 4 ? b : a}, {.kind = REF_INPUT, .index = b}};
    if (variant == 5)
        ref[1] = (struct srg_ref){.kind = REF_SCALAR, .dtype = DTYPE_F64};
    if (variant == 6)
        ref[1] = (struct srg_ref){.kind = REF_SCALAR, .dtype = DTYPE_I64};
    uint16_t module;
    assert_ok(plan_add_module(builder, variant == 20 ? "a" : "b", "T", variant == 21, &module));
    struct attr attr[OP_ATTRS_MAX] = {{.kind = ATTR_INT, .i = variant == 22 ? 7 : 1}};
    if (variant == 7)
        attr[0] = (struct attr){.kind = ATTR_FLOAT, .f = 1};
    uint32_t index;
    uint8_t device = variant == 8 ? 0 : 255;
    assert_ok(plan_add_node(builder, op_info(variant == 9 ? OP_SUB : OP_ADD), ref, 2, attr, dtype, module, device, &index));
    struct srg_ref own = {.kind = REF_NODE, .index = index};
    struct attr dim[OP_ATTRS_MAX] = {{.kind = ATTR_INT, .i = variant == 10 ? 1 : 0}};
    assert_ok(plan_add_node(builder, op_info(OP_UNSQUEEZE), &own, 1, dim, dtype, 0, 255, &index));
    if (variant == 11)
        assert_ok(plan_add_node(builder, op_info(OP_NEG), &own, 1, NULL, dtype, 0, 255, &index));
    return plan_builder_fingerprint(builder);
}

static void the_fingerprint_covers_the_structure_and_nothing_else(void **state)
{
    struct hash128 seen[12];
    for (int variant = 0; variant <= 11; variant++) {
        seen[variant] = fingerprint_of(state, variant);
        for (int other = 0; other < variant; other++) {
            assert_int_not_equal(seen[variant].hi, seen[other].hi);    // each half alone tells them apart
            assert_int_not_equal(seen[variant].lo, seen[other].lo);
        }
    }
    for (int variant = 20; variant <= 22; variant++)
        assert_true(hash128_equal(fingerprint_of(state, variant), seen[0]));
}

static void it_does_not_matter_when_an_input_was_added(void **state)
{
    struct hash128 fingerprint[2];
    for (int late = 0; late < 2; late++) {
        struct plan_builder *builder = builder_make(state);
        uint32_t a = add_input(builder, DTYPE_F32, 1), b = 0;
        if (!late)
            b = add_input(builder, DTYPE_F32, 2);
        struct srg_ref one = {.kind = REF_INPUT, .index = a};
        uint32_t n = add_node(builder, OP_NEG, &one, 1, NULL);
        if (late)
            b = add_input(builder, DTYPE_F32, 2);
        struct srg_ref two[2] = {{.kind = REF_NODE, .index = n}, {.kind = REF_INPUT, .index = b}};
        add_node(builder, OP_MUL, two, 2, NULL);
        fingerprint[late] = plan_builder_fingerprint(builder);
    }
    assert_true(hash128_equal(fingerprint[0], fingerprint[1]));
}

static void a_reset_builder_builds_the_same_again_without_allocating(void **state)
{
    struct plan_builder *builder = builder_make(state);
    struct hash128 first = {0};
    uint64_t allocations = 0;
    for (int round = 0; round < 3; round++) {
        plan_builder_reset(builder);
        uint32_t last = add_input(builder, DTYPE_F32, 1);
        struct srg_ref ref = {.kind = REF_INPUT, .index = last};
        for (int n = 0; n < 500; n++) {
            last = add_node(builder, OP_NEG, &ref, 1, NULL);
            ref = (struct srg_ref){.kind = REF_NODE, .index = last};
        }
        struct hash128 fingerprint = plan_builder_fingerprint(builder);
        if (round == 0)
            first = fingerprint;
        assert_true(hash128_equal(first, fingerprint));
        if (round == 1)
            allocations = alloc_count();
    }
    assert_int_equal(alloc_count(), allocations);
}

static void equal_modules_are_one_and_many_fit(void **state)
{
    struct plan_builder *builder = builder_make(state);
    uint16_t index, again;
    for (int i = 0; i < 3000; i++) {
        char path[32];
        snprintf(path, sizeof path, "layer.%d", i);
        assert_ok(plan_add_module(builder, path, "Block", false, &index));
        assert_ok(plan_add_module(builder, path, "Block", false, &again));
        assert_int_equal(index, i + 1);
        assert_int_equal(again, index);
    }
    assert_ok(plan_add_module(builder, "layer.7", "Block", false, &index));
    assert_int_equal(index, 8);
    assert_ok(plan_add_module(builder, "layer.7", "Block", true, &index));
    assert_int_equal(index, 3001);
    assert_ok(plan_add_module(builder, "", "", false, &index));
    assert_int_equal(index, 0);
}

// Each row breaks one rule of plan_check.
static void what_contradicts_itself_is_refused_with_the_node_named(void **state)
{
    static const struct {
        int breaks;
        enum dj_error error;
        const char *says;
    } rows[] = {
        {0, DJ_OK, ""},
        {1, DJ_E_PLAN_INVALID, "does not come before it"},
        {2, DJ_E_PLAN_INVALID, "output 3 of node 0"},
        {3, DJ_E_PLAN_INVALID, "input 9 of 2"},
        {4, DJ_E_PLAN_INVALID, "absent but not optional"},
        {5, DJ_E_PLAN_INVALID, "kind 7"},
        {6, DJ_E_PLAN_INVALID, "has 1 operands"},
        {7, DJ_E_PLAN_INVALID, "attribute alpha is nothing"},
        {8, DJ_E_PLAN_INVALID, "attribute alpha is ints"},
        {9, DJ_E_PLAN_INVALID, "module 5"},
        {10, DJ_E_PLAN_INVALID, "dtype number 99"},
        {11, DJ_E_PLAN_INVALID, "a scalar of float32"},
        {12, DJ_E_PLAN_INVALID, "has 9 dimensions"},
        {13, DJ_E_PLAN_INVALID, "input 1 has dtype number 77"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int breaks = rows[i].breaks;
        struct plan_builder *builder = builder_make(state);
        add_input(builder, DTYPE_F32, breaks == 12 ? 9 : 2);
        add_input(builder, breaks == 13 ? 77 : DTYPE_F32, 2);
        struct srg_ref one = {.kind = REF_INPUT};
        add_node(builder, OP_NEG, &one, 1, NULL);
        struct srg_ref two[2] = {{.kind = REF_NODE}, {.kind = REF_INPUT, .index = 1}};
        if (breaks == 1)
            two[0].index = 1;
        if (breaks == 2)
            two[0].output = 3;
        if (breaks == 3)
            two[1].index = 9;
        if (breaks == 4)
            two[1].kind = REF_ABSENT;
        if (breaks == 5)
            two[1].kind = 7;
        if (breaks == 11)
            two[1] = (struct srg_ref){.kind = REF_SCALAR, .dtype = DTYPE_F32};
        int64_t ints[1] = {1};
        struct attr attr[OP_ATTRS_MAX] = {{.kind = ATTR_INT, .i = 1}};
        if (breaks == 7)
            attr[0].kind = ATTR_ABSENT;
        if (breaks == 8)
            attr[0] = (struct attr){.kind = ATTR_INTS, .count = 1, .ints = ints};
        uint8_t dtype[OP_OUTPUTS_MAX] = {breaks == 10 ? 99 : DTYPE_F32};
        uint32_t index;
        assert_ok(
            plan_add_node(builder, op_info(OP_ADD), two, breaks == 6 ? 1 : 2, attr, dtype, breaks == 9 ? 5 : 0, 255, &index));
        struct srg_plan *plan = NULL;
        struct fault fault = {0};
        assert_error(rows[i].error, plan_finish(builder, &plan, &fault));
        if (strstr(fault.text, rows[i].says) == NULL)
            fail_msg("row %d says \"%s\", not \"%s\"", breaks, fault.text, rows[i].says);
        plan_drop(plan);
    }
}

static void limits_are_refusals(void **state)
{
    struct plan_builder *builder = builder_make(state);
    uint32_t index, added = 0;
    struct srg_input input = {.dtype = DTYPE_F32, .is_contiguous = true};
    enum dj_error error = DJ_OK;
    while ((error = plan_add_input(builder, &input, &index)) == DJ_OK)
        added++;
    assert_int_equal(error, DJ_E_LIMIT);
    assert_int_equal(added, PLAN_INPUTS_MAX);

    static struct srg_ref many[OP_INPUTS_MAX + 1];
    assert_error(DJ_E_LIMIT, plan_add_node(builder, op_info(OP_CAT), many, OP_INPUTS_MAX + 1, NULL, F32, 0, 255, &index));
    struct attr attr[OP_ATTRS_MAX] = {{.kind = ATTR_INTS, .count = ATTR_INTS_MAX + 1}};
    struct srg_ref one = {.kind = REF_INPUT};
    assert_error(DJ_E_INVALID, plan_add_node(builder, op_info(OP_PERMUTE), &one, 1, attr, F32, 0, 255, &index));
}

static void every_allocation_may_fail(void **state)
{
    struct prng prng = case_prng(state, 7);
    struct random_plan *random = make(state, &prng, 40);
    struct writer proto = writer_make(PLAN_BYTES_MAX), json = writer_make(PLAN_JSON_BYTES_MAX);
    assert_ok(plan_encode(random->plan, &proto));
    assert_ok(plan_to_json(random->plan, &json));
    for (uint64_t n = 0, more = 1; more; n++) {
        struct srg_plan *plan = NULL;
        struct writer writer = writer_make(PLAN_BYTES_MAX);
        alloc_fail_after(n);
        enum dj_error error = plan_decode(proto.data, proto.length, &plan, NULL);
        if (error == DJ_OK)
            error = plan_encode(plan, &writer);
        more = alloc_fail_stop();
        assert_int_equal(error != DJ_OK, more);
        plan_drop(plan);
        writer_free(&writer);
    }
    writer_free(&proto);
    writer_free(&json);
}

static void a_plan_lives_until_its_last_holder_drops_it(void **state)
{
    struct plan_builder *builder = builder_make(state);
    add_input(builder, DTYPE_F32, 0);
    struct srg_plan *plan = NULL;
    assert_ok(plan_finish(builder, &plan, NULL));
    assert_ptr_equal(plan_hold(plan), plan);
    plan_drop(plan);
    assert_int_equal(plan->inputs, 1);
    plan_drop(plan);
    plan_drop(NULL);
}

CASES(inference_over_the_plan_equals_inference_op_by_op, a_plan_survives_protocol_buffers, a_plan_survives_json,
      the_fingerprint_covers_the_structure_and_nothing_else, it_does_not_matter_when_an_input_was_added,
      a_reset_builder_builds_the_same_again_without_allocating, equal_modules_are_one_and_many_fit,
      what_contradicts_itself_is_refused_with_the_node_named, limits_are_refusals, every_allocation_may_fail,
      a_plan_lives_until_its_last_holder_drops_it)
