// djinn: the one binary. `djinn COMMAND`; the table of commands is below, one file a command.

#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/config.h"
#include "core/ops/op.h"

const struct command commands[] = {
    {"start", "start a head or a worker", command_start},
    {"stop", "stop the head and its workers", command_stop},
    {"status", "show workers, sessions and what the store holds", command_status},
    {"plan", "list plans, or show one with its annotations and placement", command_plan},
    {"srg", "show, export or import a plan's structure", command_srg},
    {"config", "check a configuration, or list its keys", command_config},
    {"doctor", "say what this machine has and what is missing", command_doctor},
    {"embedded", "head and worker in one process, as clients start it by themselves", command_embedded},
    {NULL, NULL, NULL},
};

static void print_help(FILE *to)
{
    fprintf(to, "Usage: djinn COMMAND [OPTION...]\n"
                "Share a pool of remote accelerators with unmodified PyTorch programs.\n\nCommands:\n");
    for (const struct command *command = commands; command->name != NULL; command++)
        fprintf(to, "  %-10s %s\n", command->name, command->summary);
    fprintf(to, "\n'djinn COMMAND --help' tells about one. 'djinn --version' prints the version.\n"
                "Exit codes: 0 done, 1 failed, 2 usage, 3 no head at the address, 4 no such device.\n");
}

int main(int argc, char **argv)
{
    char name[64];

    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("djinn " DJINN_VERSION);
        return EXIT_DONE;
    }
    ops_init();
    for (const struct command *command = commands; command->name != NULL; command++)
        if (strcmp(argv[1], command->name) == 0) {
            snprintf(name, sizeof name, "djinn %s", command->name);
            argv[1] = name;
            return command->run(argc - 1, argv + 1);
        }
    return complain(EXIT_USAGE, "there is no command \"%s\"; 'djinn --help' lists them", argv[1]);
}
