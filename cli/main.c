// djinn: the one binary. `djinn COMMAND`; the table of commands is below, one file a command.

#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/config.h"
#include "cli/nearest.h"
#include "core/ops/op.h"

const struct command commands[] = {
    {"start", "start a head or a worker", command_start},
    {"stop", "stop the head and its workers", command_stop},
    {"status", "show workers, sessions and what the store holds", command_status},
    {"plan", "list plans, or show one with its annotations and placement", command_plan},
    {"explain", "show how a value came to be and what would bring it back", command_explain},
    {"srg", "show, export or import a plan's structure", command_srg},
    {"store", "check, back up or restore what a head has stored", command_store},
    {"config", "check a configuration, or list its keys", command_config},
    {"doctor", "say what this machine has and what is missing", command_doctor},
    {"chaos", "break a running pool on purpose, or a simulated one", command_chaos},
    {"embedded", "head and worker in one process, as clients start it by themselves", command_embedded},
    {NULL, NULL, NULL},
};

static void print_help(FILE *to)
{
    fprintf(to, "Usage: djinn COMMAND [OPTION...]\n"
                "Share a pool of remote accelerators with unmodified PyTorch programs.\n\nCommands:\n");
    for (const struct command *command = commands; command->name != NULL; command++)
        fprintf(to, "  %-10s %s\n", command->name, command->summary);
    fprintf(to, "\n'djinn help COMMAND' or 'djinn COMMAND --help' tells about one. 'djinn --version' prints the version.\n\n"
                "Begin with:\n"
                "  djinn start --head\n"
                "  djinn start --worker --head 127.0.0.1:" DJINN_PORT "\n"
                "  djinn status\n\n"
                "Environment: DJINN_ADDRESS names the head, DJINN_TOKEN holds its token, DJINN_CONFIG names a configuration.\n\n"
                "Exit codes: 0 done, 1 failed, 2 usage, 3 no head answers at the address, 4 no such device.\n");
}

static int run(const struct command *command, int argc, char **argv)
{
    char name[64];

    snprintf(name, sizeof name, "djinn %s", command->name);
    argv[0] = name;
    return command->run(argc, argv);
}

static const struct command *find(const char *name, struct nearest *nearest)
{
    for (const struct command *command = commands; command->name != NULL; command++) {
        if (strcmp(name, command->name) == 0)
            return command;
        nearest_try(nearest, command->name);
    }
    nearest_try(nearest, "help");
    return NULL;
}

static int refuse(const char *name, const struct nearest *nearest)
{
    if (nearest->best != NULL)
        return complain(EXIT_USAGE, "there is no command \"%s\"; did you mean %s? 'djinn --help' lists them", name,
                        nearest->best);
    return complain(EXIT_USAGE, "there is no command \"%s\"; 'djinn --help' lists them", name);
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

int main(int argc, char **argv)
{
    static char help_option[] = "--help";
    char *help_argv[] = {NULL, help_option, NULL};

    argp_program_version = "djinn " DJINN_VERSION;
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    bool is_help = is_one_of(argv[1], "help", "--help", "-?");
    if (is_help && argc == 2) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (is_one_of(argv[1], "--version", "-V", "version")) {
        puts("djinn " DJINN_VERSION);
        return EXIT_DONE;
    }
    ops_init();
    const char *name = is_help ? argv[2] : argv[1];
    struct nearest nearest = nearest_make(name);
    const struct command *command = find(name, &nearest);
    if (command == NULL)
        return refuse(name, &nearest);
    return is_help ? run(command, 2, help_argv) : run(command, argc - 1, argv + 1);
}
