// Writes the golden files: plans that every later version must still read. Made once for each version of the schema; a file that exists
// is never written again (delete it first, and only before its first release). Usage: golden_make tests/core/srg/golden

#include "core/semantic/semantic.h"
#include "core/srg/export.h"
#include "tests/lib/graph.h"
#include "tests/lib/random_plan.h"

#include <stdio.h>
#include <stdlib.h>

static void write_file(const char *folder, const char *name, const char *ending, const struct writer *writer)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, ending);
    FILE *file = fopen(path, "wx");
    if (file == NULL || fwrite(writer->data, 1, writer->length, file) != writer->length || fclose(file) != 0) {
        fprintf(stderr, "golden_make: cannot make %s (it may exist)\n", path);
        exit(1);
    }
    printf("%s: %zu bytes\n", path, writer->length);
}

static void must(enum dj_error error)
{
    if (error == DJ_OK)
        return;
    fprintf(stderr, "golden_make: %s\n", dj_error_name(error));
    exit(1);
}

static void save(const char *folder, const char *name, const struct srg_plan *plan, const int64_t *word,
                 const struct tensor_meta *out, bool is_annotated)
{
    struct arena *arena;
    struct srg_annotations notes;
    struct semantic_input input = {.plan = plan, .word = word, .out = out};
    must(arena_make(1 << 16, 0, &arena));
    must(semantic_annotate(&input, arena, &notes, NULL, NULL));
    struct writer proto = writer_make(PLAN_BYTES_MAX), json = writer_make(PLAN_JSON_BYTES_MAX), text = writer_make(64);
    must(plan_export(plan, is_annotated ? &notes : NULL, &proto));
    must(plan_export_json(plan, is_annotated ? &notes : NULL, is_annotated ? word : NULL, &json));
    char fingerprint[HASH128_TEXT];
    hash128_text(plan->fingerprint, fingerprint);
    write_raw(&text, fingerprint, HASH128_TEXT - 1);
    write_file(folder, name, "bin", &proto);
    write_file(folder, name, "json", &json);
    write_file(folder, name, "fingerprint", &text);
    writer_free(&proto);
    writer_free(&json);
    writer_free(&text);
    arena_free(arena);
}

static void save_graph(const char *folder, const char *name, struct graph *graph)
{
    struct graph_result result = graph_finish(graph);
    save(folder, name, result.plan, result.word, result.out, true);
    graph_result_free(&result);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: golden_make FOLDER\n");
        return 2;
    }
    struct graph *graph = graph_make();
    graph_gpt2(graph, 1, 64, 4, 9, 1, true, true);
    save_graph(argv[1], "v1_decode", graph);
    graph = graph_make();
    graph_resnet(graph, 1);
    save_graph(argv[1], "v1_resnet", graph);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        char name[32];
        struct prng prng = prng_make(seed);
        struct random_plan random = random_plan_make(&prng, (struct random_plan_options){.nodes = 40});
        snprintf(name, sizeof name, "v1_random%d", (int)seed);
        save(argv[1], name, random.plan, random.word, random.out, false);
        random_plan_free(&random);
    }
    return 0;
}
