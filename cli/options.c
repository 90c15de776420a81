// Options: argp with suggestions, and the options of commands that talk to a head. The manual is options.h.

#include "cli/options.h"

#include <stdlib.h>
#include <string.h>

#include "cli/nearest.h"

enum { NAME_MAX_BYTES = 64 };

// What argp adds by itself.
static const struct argp_option built_in[] = {
    {"help", '?', NULL, 0, NULL, 0}, {"usage", 'u', NULL, 0, NULL, 0}, {"version", 'V', NULL, 0, NULL, 0}, {0}};

static bool is_end(const struct argp_option *option)
{
    return option->name == NULL && option->key == 0 && option->doc == NULL && option->group == 0;
}

// Looks for `name`, which like getopt's may be the beginning of an option's name.
static const struct argp_option *find(const struct argp_option *option, const char *name, struct nearest *nearest)
{
    for (; option != NULL && !is_end(option); option++) {
        if (option->name == NULL)
            continue;
        if (strncmp(option->name, name, strlen(name)) == 0)
            return option;
        nearest_try(nearest, option->name);
    }
    return NULL;
}

static const struct argp_option *find_anywhere(const struct argp *argp, const char *name, struct nearest *nearest)
{
    const struct argp_option *found = find(argp->options, name, nearest);

    for (const struct argp_child *child = argp->children; found == NULL && child != NULL && child->argp != NULL; child++)
        found = find(child->argp->options, name, nearest);
    return found != NULL ? found : find(built_in, name, nearest);
}

static void refuse(const char *command, const char *name, const struct nearest *nearest)
{
    if (nearest->best != NULL)
        complain(EXIT_USAGE, "there is no option --%s; did you mean --%s? '%s --help' lists them", name, nearest->best, command);
    else
        complain(EXIT_USAGE, "there is no option --%s; '%s --help' lists them", name, command);
    exit(EXIT_USAGE);
}

static void check_names(const struct argp *argp, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        char name[NAME_MAX_BYTES];
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        size_t length = strcspn(argv[i] + 2, "=");
        if (length >= sizeof name)
            continue;    // longer than any: argp says so
        memcpy(name, argv[i] + 2, length);
        name[length] = '\0';
        struct nearest nearest = nearest_make(name);
        const struct argp_option *found = find_anywhere(argp, name, &nearest);
        if (found == NULL)
            refuse(argv[0], name, &nearest);
        else if (found->arg != NULL && (found->flags & OPTION_ARG_OPTIONAL) == 0 && argv[i][length + 2] == '\0')
            i++;    // the next word is its value, whatever it looks like
    }
}

void options_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    argp_err_exit_status = EXIT_USAGE;
    check_names(argp, argc, argv);
    if (argp_parse(argp, argc, argv, 0, NULL, input) != 0)
        exit(EXIT_USAGE);
}

// Commands that talk to a head ---------------------------------------------------------------------------------------

// NOLINTNEXTLINE(readability-non-const-parameter): argp's type
static error_t parse_client(int key, char *argument, struct argp_state *state)
{
    struct client_options *options = state->input;

    switch (key) {
    case 'H': options->address = argument; return 0;
    case 's': options->state = argument; return 0;
    case 'j': options->is_json = true; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

#define CLIENT_OPTIONS \
    {"head", 'H', "HOST:PORT", 0, "the head's address (default: $DJINN_ADDRESS, else 127.0.0.1:" DJINN_PORT ")", 0}, \
    { \
        "state", 's', "DIR", 0, "folder with the head's token (default: $XDG_STATE_HOME/djinn); $DJINN_TOKEN goes before it", 0 \
    }

static const struct argp_option client_table[] = {CLIENT_OPTIONS, {0}};
static const struct argp_option json_table[] = {CLIENT_OPTIONS, {"json", 'j', NULL, 0, "print the whole answer as JSON", 0}, {0}};
static const struct argp client_argp = {client_table, parse_client, NULL, NULL, NULL, NULL, NULL};
static const struct argp json_argp = {json_table, parse_client, NULL, NULL, NULL, NULL, NULL};

const struct argp_child client_children[] = {{&client_argp, 0, NULL, 0}, {0}};
const struct argp_child client_json_children[] = {{&json_argp, 0, NULL, 0}, {0}};
