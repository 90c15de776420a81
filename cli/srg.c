// djinn srg: a plan's structure as JSON (export), from JSON back into the portable form (import), or readable (show).

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "core/srg/plan.h"

enum { FILE_BYTES_MAX = 64 << 20 };

struct options {
    struct client_options client;
    const char *verb, *subject, *output;
};

static const struct argp_option option_table[] = {
    {"output", 'o', "FILE", 0, "write there instead of to standard output", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->client; return 0;
    case 'o': options->output = argument; return 0;
    case ARGP_KEY_ARG:
        if (options->verb == NULL)
            options->verb = argument;
        else if (options->subject == NULL)
            options->subject = argument;
        else
            argp_error(state, "'%s' is one argument too many", argument);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int write_out(const struct options *options, const void *data, size_t bytes)
{
    FILE *file = options->output == NULL ? stdout : fopen(options->output, "we");

    if (file == NULL)
        return complain(EXIT_FAILED, "cannot write %s: %s", options->output, strerror(errno));
    bool is_written = fwrite(data, 1, bytes, file) == bytes;
    if ((file == stdout ? fflush(file) : fclose(file)) != 0)
        is_written = false;
    return is_written ? EXIT_DONE
                      : complain(EXIT_FAILED, "cannot write all of %s: %s", options->output == NULL ? "it" : options->output,
                                 strerror(errno));
}

static char *read_whole(const char *path, size_t *ret_bytes)
{
    FILE *file = fopen(path, "re");
    char *data = NULL;

    if (file == NULL)
        return NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long bytes = ftell(file);
        rewind(file);
        if (bytes >= 0 && bytes <= FILE_BYTES_MAX && (data = malloc((size_t)bytes + 1)) != NULL) {
            *ret_bytes = fread(data, 1, (size_t)bytes, file);
            data[*ret_bytes] = '\0';
        }
    }
    fclose(file);
    return data;
}

// A file (JSON or Protocol Buffers), or a plan that the head knows.
static int load(const struct options *options, struct srg_plan **ret)
{
    struct fault fault = {0};
    size_t bytes = 0;
    enum dj_error error;
    char *data = read_whole(options->subject, &bytes);
    bool is_file = data != NULL;

    if (!is_file && (error = head_ask(options->client.address, options->client.state, "srg", options->subject, &data, &bytes,
                                      &fault)) != DJ_OK)
        return ask_failed(error, &fault);
    if (is_file && bytes > 0 && data[0] == '{')
        error = plan_from_json(data, bytes, ret, &fault);
    else
        error = plan_decode(data, bytes, ret, &fault);
    free(data);
    return error == DJ_OK
               ? EXIT_DONE
               : complain(EXIT_FAILED, "%s: %s", options->subject, fault.text[0] != '\0' ? fault.text : dj_error_text(error));
}

static int show(const struct srg_plan *plan)
{
    char id[HASH128_TEXT];

    hash128_text(plan->fingerprint, id);
    printf("plan %s: %u nodes, %u inputs, %u outputs, %u words of bindings\n", id, plan->nodes, plan->inputs, plan->outputs,
           plan->words);
    for (uint32_t n = 0; n < plan->nodes; n++) {
        const struct srg_node *node = &plan->node[n];
        printf("%%%u = %s(", n, op_info(node->op)->name);
        for (uint32_t r = 0; r < node->refs; r++) {
            const struct srg_ref *ref = &plan->ref[node->first_ref + r];
            const char *comma = r == 0 ? "" : ", ";
            if (ref->kind == REF_NODE)
                printf(ref->output == 0 ? "%s%%%u" : "%s%%%u.%u", comma, ref->index, ref->output);
            else if (ref->kind == REF_INPUT)
                printf("%s$%u", comma, ref->index);
            else
                printf("%s%s", comma, ref->kind == REF_SCALAR ? dtype_name((enum dtype)ref->dtype) : "none");
        }
        printf(") %s  %s\n", dtype_name((enum dtype)node->dtype[0]), plan->module[node->module].path);
    }
    return EXIT_DONE;
}

static int convert(const struct options *options, const struct srg_plan *plan, bool to_json)
{
    struct writer writer = writer_make(FILE_BYTES_MAX);
    enum dj_error error = to_json ? plan_to_json(plan, &writer) : plan_encode(plan, &writer);
    int code = error == DJ_OK ? write_out(options, writer.data, writer.length)
                              : complain(EXIT_FAILED, "%s", dj_error_text(error));

    writer_free(&writer);
    return code;
}

int command_srg(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse,
        "show|export|import ID|FILE",
        "Show, export or import the structure of a plan (SRG, schema v1).\v"
        "ID is a plan the head knows ('djinn plan' lists them) or the beginning of it; FILE is a plan as JSON or Protocol Buffers. A file of that name goes "
        "before a plan.\n\n"
        "  show    prints the nodes\n  export  writes JSON\n  import  reads and checks a plan and writes Protocol Buffers; its name is printed to standard error\n\n"
        "Examples:\n  djinn srg show 3f2a\n  djinn srg export 3f2a -o plan.json\n  djinn srg import plan.json -o plan.srg" HELP_CLIENT_END,
        client_children,
        NULL,
        NULL};
    struct options options = {0};
    struct srg_plan *plan = NULL;
    char id[HASH128_TEXT];

    options_parse(&argp, argc, argv, &options);
    bool is_show = options.verb != NULL && strcmp(options.verb, "show") == 0,
         is_export = options.verb != NULL && strcmp(options.verb, "export") == 0;
    bool is_import = options.verb != NULL && strcmp(options.verb, "import") == 0;
    if (options.subject == NULL || !(is_show || is_export || is_import))
        return complain(EXIT_USAGE, "say 'djinn srg show|export|import ID|FILE'; 'djinn srg --help' tells more");
    int code = load(&options, &plan);
    if (code != EXIT_DONE)
        return code;
    if (is_show) {
        code = show(plan);
    } else {
        code = convert(&options, plan, is_export);
        hash128_text(plan->fingerprint, id);
        if (is_import && code == EXIT_DONE)
            fprintf(stderr, "plan %s: valid, %u nodes\n", id, plan->nodes);
    }
    plan_drop(plan);
    return code;
}
