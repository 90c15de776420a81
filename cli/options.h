// Options: what the options of every command share: how they are parsed, and those of commands that talk to a head.

#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <argp.h>

#include "cli/command.h"

// As argp_parse, but an option that does not exist is answered with the nearest one that does. Whatever is wrong ends the process with
// EXIT_USAGE; --help, --usage and --version end it with EXIT_DONE.
void options_parse(const struct argp *argp, int argc, char **argv, void *input);

// The children of a command that talks to a head. In the parent's parser: case ARGP_KEY_INIT: state->child_inputs[0] = &options->client.
struct client_options {
    const char *address;        // NULL: head_ask's default
    const char *state;          // NULL: the default folder
    bool is_json;
};

extern const struct argp_child client_children[];           // --head, --state
extern const struct argp_child client_json_children[];      // and --json

// Ends every --help.
#define HELP_CLIENT_END \
    "\n\nEnvironment: DJINN_ADDRESS names the head, DJINN_TOKEN holds its token, XDG_STATE_HOME is where state folders lie.\n\n" \
    "Exit status: 0 done; 1 the head refused, and says why; 2 the command line is not valid; 3 no head answers at the address."

#endif
