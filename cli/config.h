// Config: the YAML configuration: sections of keys (config.def), each with one value. What is not valid is refused with file, line, key
// and remedy. The command line goes before it.

#ifndef CLI_CONFIG_H
#define CLI_CONFIG_H

#include "cli/command.h"

enum { CONFIG_VALUE_MAX = 512, CONFIG_FILE_BYTES_MAX = 1 << 20 };

enum config_key {
#define KEY(section, name, kind, option, text) CONFIG_##section##_##name,
#include "cli/config.def"
#undef KEY
    CONFIG_KEYS
};

struct config {
    char path[CLI_PATH_MAX];                        // of the file that was read; empty: none
    bool is_set[CONFIG_KEYS];
    char value[CONFIG_KEYS][CONFIG_VALUE_MAX];
};

// Reads `given`, else $DJINN_CONFIG, else $XDG_CONFIG_HOME/djinn/config.yaml (~/.config) if there is one; no file is an empty
// configuration. DJ_E_CONFIG with the words a person needs.
DJ_MUST_USE enum dj_error config_load(const char *given, struct config *ret, struct fault *fault);
const char *config_get(const struct config *config, enum config_key key);       // NULL when not set
void config_print_keys(void);                                                   // the table, for --help

int command_config(int argc, char **argv);

#endif
