// What the SRG costs on a GPT-2 124M decode plan: record, fingerprint, encode, decode, infer, delta, annotate. Best and median of
// repeated runs, in microseconds; asserts nothing about time. Run: srg_bench

#include "core/semantic/semantic.h"
#include "core/srg/bindings.h"
#include "core/srg/export.h"
#include "tests/lib/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 300 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static struct graph_result plan;
static struct plan_builder *builder;
static struct writer writer, encoded;
static struct tensor_meta *out;
static struct binding_history history;
static int64_t *words;
static struct arena *arena;

// What the recorder asks of the builder for each op.
static void record(void)
{
    plan_builder_reset(builder);
    uint32_t index;
    for (uint32_t i = 0; i < plan.plan->inputs; i++)
        (void)!plan_add_input(builder, &plan.plan->input[i], &index);
    for (uint32_t n = 0; n < plan.plan->nodes; n++) {
        const struct srg_node *node = &plan.plan->node[n];
        struct attr attr[OP_ATTRS_MAX];
        binding_attrs(plan.plan, plan.word, n, attr);
        (void)!plan_add_node(builder, op_info(node->op), &plan.plan->ref[node->first_ref], node->refs, attr, node->dtype, 0, 255,
                             &index);
    }
}

static void encode(void)
{
    writer_reset(&writer);
    (void)!plan_encode(plan.plan, &writer);
}

static void decode(void)
{
    struct srg_plan *back = NULL;
    (void)!plan_decode(encoded.data, encoded.length, &back, NULL);
    plan_drop(back);
}

static void infer(void)
{
    (void)!plan_infer(plan.plan, plan.word, out, NULL, NULL, NULL);
}

static void delta(void)
{
    writer_reset(&writer);
    bindings_encode(&history, plan.word, &writer);
}

static void undelta(void)
{
    struct reader reader = reader_make(writer.data, writer.length);
    (void)!bindings_decode(&history, &reader, words);
}

static void annotate(void)
{
    struct semantic_input input = {.plan = plan.plan, .word = plan.word, .out = plan.out, .keep = plan.keep};
    struct srg_annotations notes;
    arena_reset(arena);
    (void)!semantic_annotate(&input, arena, &notes, NULL, NULL);
}

static void measure(const char *name, void (*run)(void))
{
    static double us[RUNS];
    run();
    for (int i = 0; i < RUNS; i++) {
        double start = now_us();
        run();
        us[i] = now_us() - start;
    }
    qsort(us, RUNS, sizeof us[0], compare);
    printf("%-24s best %8.1f us   median %8.1f us   p95 %8.1f us\n", name, us[0], us[RUNS / 2], us[RUNS * 95 / 100]);
}

int main(void)
{
    struct graph *graph = graph_make();
    graph_gpt2(graph, 12, 768, 12, 128, 1, true, true);
    plan = graph_finish(graph);
    writer = writer_make(PLAN_BYTES_MAX);
    encoded = writer_make(PLAN_BYTES_MAX);
    out = calloc(plan.plan->outputs, sizeof *out);
    words = calloc(plan.plan->words, sizeof *words);
    history_init(&history, plan.plan->words);
    if (out == NULL || words == NULL || plan_builder_make(&builder) != DJ_OK || arena_make(4 << 20, 0, &arena) != DJ_OK ||
        plan_encode(plan.plan, &encoded) != DJ_OK || history_push(&history, plan.word) != DJ_OK ||
        history_push(&history, plan.word) != DJ_OK)
        return 1;
    printf("GPT-2 124M decode: %u nodes, %u inputs, %u words, %zu bytes encoded\n", plan.plan->nodes, plan.plan->inputs,
           plan.plan->words, encoded.length);
    measure("record all nodes", record);
    measure("encode plan", encode);
    measure("decode plan", decode);
    measure("infer", infer);
    measure("encode bindings delta", delta);
    measure("decode bindings delta", undelta);
    measure("annotate", annotate);
    graph_result_free(&plan);
    plan_builder_free(builder);
    writer_free(&writer);
    writer_free(&encoded);
    history_free(&history);
    arena_free(arena);
    free(out);
    free(words);
    return 0;
}
