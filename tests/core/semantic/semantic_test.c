// What annotation says of plans whose meaning is known: the models of tests/lib/graph.h, and what looks like one of them but is not.

#include "core/semantic/semantic.h"

#include "core/semantic/pattern.h"
#include "tests/lib/case.h"
#include "tests/lib/graph.h"

#include <string.h>

static void free_result(void *result)
{
    graph_result_free(result);
}

static struct graph_result *finish(void **state, struct graph *graph)
{
    struct graph_result *result = arena_alloc(case_arena(state), sizeof *result);
    *result = graph_finish(graph);
    case_later(state, free_result, result);
    return result;
}

static struct srg_annotations annotate(void **state, const struct graph_result *graph, char *warning)
{
    struct semantic_input input = {.plan = graph->plan, .word = graph->word, .out = graph->out, .keep = graph->keep};
    struct srg_annotations notes = {0};
    struct fault fault = {0};
    if (semantic_annotate(&input, case_arena(state), &notes, warning, &fault) != DJ_OK)
        fail_msg("%s", fault.text);
    return notes;
}

static uint32_t count_role(const struct srg_annotations *notes, enum srg_role role)
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < notes->nodes; n++)
        count += notes->node[n].role == role;
    return count;
}

static uint32_t count_inputs(const struct srg_annotations *notes, enum srg_residency residency)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < notes->inputs; i++)
        count += notes->input_residency[i] == residency;
    return count;
}

#define assert_phase(notes, expected) assert_string_equal(phase_name((notes).phase), phase_name(expected))
#define assert_modality(notes, expected) assert_string_equal(modality_name((notes).modality), modality_name(expected))

static void one_token_against_a_cache_is_decode(void **state)
{
    for (int is_fused = 0; is_fused < 2; is_fused++) {
        struct graph *graph = graph_make();
        graph_gpt2(graph, 3, 64, 4, /*past*/ 9, /*tokens*/ 1, true, is_fused);
        struct graph_result *result = finish(state, graph);
        struct srg_annotations notes = annotate(state, result, NULL);
        assert_phase(notes, PHASE_LLM_DECODE);
        assert_modality(notes, MODALITY_TEXT);
        assert_true(notes.confidence >= 90);
        assert_int_equal(count_role(&notes, ROLE_KV_APPEND), 6);
        assert_int_equal(count_inputs(&notes, RESIDENCY_STATEFUL_KV_CACHE), 6);
        // 2 tables, 12 weights and biases a block, the last norm; without the fused op also a mask's value, too small to matter.
        assert_int_equal(count_inputs(&notes, RESIDENCY_PERSISTENT_WEIGHT), 2 + 3 * 12 + 2);
        assert_true(count_role(&notes, ROLE_EMBEDDING) >= 2);
        assert_true(count_role(&notes, ROLE_NORM) == 7);
        assert_int_equal(count_role(&notes, ROLE_SAMPLING), 1);
        assert_true(count_role(&notes, ROLE_MLP) >= 3 * 10);
        assert_int_equal(notes.node[notes.nodes - 2].role, ROLE_OUTPUT_HEAD);
    }
}

static void a_cache_stays_with_the_attention_that_reads_it(void **state)
{
    for (int is_fused = 0; is_fused < 2; is_fused++) {
        struct graph *graph = graph_make();
        graph_gpt2(graph, 3, 64, 4, 9, 1, true, is_fused);
        struct graph_result *result = finish(state, graph);
        struct srg_annotations notes = annotate(state, result, NULL);
        uint16_t last = 0;
        uint32_t groups = 0;
        for (uint32_t n = 0; n < notes.nodes; n++) {
            if (notes.node[n].role != ROLE_KV_APPEND)
                continue;
            assert_int_equal(notes.node[n].residency, RESIDENCY_STATEFUL_KV_CACHE);
            assert_int_not_equal(notes.node[n].colocation, 0);
            groups += notes.node[n].colocation != last;
            last = notes.node[n].colocation;
        }
        assert_int_equal(groups, 3);
    }
}

static void many_tokens_into_a_cache_are_prefill(void **state)
{
    for (int past = 0; past <= 8; past += 8) {    // an empty cache, and a second turn
        struct graph *graph = graph_make();
        graph_gpt2(graph, 2, 64, 4, past, 5, true, true);
        struct srg_annotations notes = annotate(state, finish(state, graph), NULL);
        assert_phase(notes, PHASE_LLM_PREFILL);
        assert_int_equal(count_role(&notes, ROLE_KV_APPEND), 4);
    }
}

static void without_a_cache_text_is_a_forward(void **state)
{
    struct graph *graph = graph_make();
    graph_gpt2(graph, 2, 64, 4, 0, 1, false, true);
    struct srg_annotations notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_FORWARD);
    assert_modality(notes, MODALITY_TEXT);

    graph = graph_make();
    graph_bert(graph, 2, 64, 4, 7);
    notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_FORWARD);
    assert_modality(notes, MODALITY_TEXT);
    assert_int_equal(count_inputs(&notes, RESIDENCY_STATEFUL_KV_CACHE), 0);
}

static void a_cat_that_nobody_keeps_is_no_cache(void **state)
{
    struct graph *graph = graph_make();
    graph_gpt2(graph, 2, 64, 4, 9, 1, true, true);
    struct graph_result *result = finish(state, graph);
    memset(result->keep, 0, result->plan->outputs / 8 + 1);
    struct srg_annotations notes = annotate(state, result, NULL);
    assert_phase(notes, PHASE_FORWARD);
    assert_int_equal(count_role(&notes, ROLE_KV_APPEND), 0);
}

static void convolutions_with_norms_and_patches_with_attention_are_vision(void **state)
{
    struct graph *graph = graph_make();
    graph_resnet(graph, 4);
    struct srg_annotations notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_VISION_ENCODING);
    assert_modality(notes, MODALITY_VISION);
    assert_true(count_role(&notes, ROLE_CONV_STAGE) >= 9 + 5 + 4);
    assert_int_equal(notes.input_residency[0], RESIDENCY_EPHEMERAL_ACTIVATION);    // the image, 48 KB, is no weight
    assert_int_equal(count_inputs(&notes, RESIDENCY_EPHEMERAL_ACTIVATION), 1);

    graph = graph_make();
    graph_vit(graph, 2, 64, 4);
    notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_VISION_ENCODING);
    assert_modality(notes, MODALITY_VISION);
}

static void tables_beside_dense_layers_are_a_forward_of_no_modality(void **state)
{
    struct graph *graph = graph_make();
    graph_dlrm(graph, 4);
    struct srg_annotations notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_FORWARD);
    assert_modality(notes, MODALITY_UNKNOWN);
    assert_int_equal(count_role(&notes, ROLE_EMBEDDING), 4);
}

static void what_matches_nothing_is_unknown_and_says_so(void **state)
{
    struct graph *graph = graph_make();
    OP1(graph, OP_NEG, LEAF(graph, DTYPE_F32, 4));
    char warning[SEMANTIC_WARNING_MAX];
    struct srg_annotations notes = annotate(state, finish(state, graph), warning);
    assert_phase(notes, PHASE_UNKNOWN);
    assert_true(notes.confidence < CONFIDENCE_SURE);
    assert_non_null(strstr(warning, "no pattern"));

    graph = graph_make();
    graph_bert(graph, 1, 64, 4, 3);
    annotate(state, finish(state, graph), warning);
    assert_string_equal(warning, "");

    graph = graph_make();
    notes = annotate(state, finish(state, graph), warning);    // no nodes at all
    assert_phase(notes, PHASE_UNKNOWN);
}

// Adds the gradient of a tanh of its own, which makes no difference to what else is in the plan.
static void add_gradient(struct graph *graph)
{
    OP2(graph, OP_TANH_BACKWARD, LEAF(graph, DTYPE_F32, 8), LEAF(graph, DTYPE_F32, 8));
}

static void a_plan_with_a_gradient_is_training_whatever_its_forward_is(void **state)
{
    struct graph *graph = graph_make();
    graph_gpt2(graph, 2, 64, 4, 0, 7, false, true);
    add_gradient(graph);
    struct srg_annotations notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_TRAINING);
    assert_modality(notes, MODALITY_TEXT);

    graph = graph_make();
    graph_gpt2(graph, 2, 64, 4, 9, 1, true, true);    // also when it keeps a cache
    add_gradient(graph);
    notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_TRAINING);

    graph = graph_make();
    graph_resnet(graph, 4);
    add_gradient(graph);
    notes = annotate(state, finish(state, graph), NULL);
    assert_phase(notes, PHASE_TRAINING);
    assert_modality(notes, MODALITY_VISION);
}

static void gradients_are_the_ops_whose_names_say_so(void **state)
{
    (void)state;
    uint32_t gradients = 0;
    for (uint32_t op = 1; op < OP_LIMIT; op++) {
        const struct op_info *info = op_info(op);
        if (info == NULL)
            continue;
        bool is_named = strstr(info->name, "BACKWARD") != NULL || strstr(info->name, "backward") != NULL;
        if (is_named != survey_is_gradient(op))
            fail_msg("%s", info->name);
        gradients += is_named;
    }
    assert_true(gradients >= 22);
}

static void the_critical_path_is_the_long_branch(void **state)
{
    struct graph *graph = graph_make();
    struct srg_ref a = LEAF(graph, DTYPE_F32, 256, 256), b = LEAF(graph, DTYPE_F32, 256, 256);
    struct srg_ref product = OP2(graph, OP_MM, a, b);
    struct srg_ref cheap = OP1(graph, OP_NEG, a);
    OP2(graph, OP_MUL, product, cheap);
    struct graph_result *result = finish(state, graph);
    struct srg_annotations notes = annotate(state, result, NULL);
    assert_float_equal(notes.node[product.index].criticality, 1.0, 1e-6);
    assert_true(notes.node[cheap.index].criticality < 0.9f);
    assert_float_equal(notes.node[2].criticality, 1.0, 1e-6);
    assert_float_equal(notes.node[product.index].flops, 2.0 * 256 * 256 * 256, 1.0);
}

static void out_of_memory_is_an_answer(void **state)
{
    struct graph *graph = graph_make();
    graph_gpt2(graph, 1, 64, 4, 9, 1, true, false);
    struct graph_result *result = finish(state, graph);
    struct semantic_input input = {.plan = result->plan, .word = result->word, .out = result->out, .keep = result->keep};
    for (uint64_t n = 0, more = 1; more; n++) {
        struct arena *arena = NULL;
        struct srg_annotations notes = {0};
        alloc_fail_after(n);
        enum dj_error error = arena_make(256, 0, &arena);
        if (error == DJ_OK)
            error = semantic_annotate(&input, arena, &notes, NULL, NULL);
        more = alloc_fail_stop();
        assert_error(more ? DJ_E_NO_MEMORY : DJ_OK, error);
        arena_free(arena);
    }
}

CASES(one_token_against_a_cache_is_decode, a_cache_stays_with_the_attention_that_reads_it, many_tokens_into_a_cache_are_prefill,
      without_a_cache_text_is_a_forward, a_cat_that_nobody_keeps_is_no_cache,
      convolutions_with_norms_and_patches_with_attention_are_vision, tables_beside_dense_layers_are_a_forward_of_no_modality,
      what_matches_nothing_is_unknown_and_says_so, a_plan_with_a_gradient_is_training_whatever_its_forward_is,
      gradients_are_the_ops_whose_names_say_so, the_critical_path_is_the_long_branch, out_of_memory_is_an_answer)
