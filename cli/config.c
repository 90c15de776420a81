// Config: see config.h. libyaml parses into a document whose nodes know their lines; this file walks two levels of it.

#include "cli/config.h"

#include "cli/gpus.h"
#include "cli/nearest.h"
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

struct key_info {
    const char *section, *name, *kind, *option, *text;
};

static const struct key_info key_table[CONFIG_KEYS] = {
#define KEY(section, name, kind, option, text) {#section, #name, #kind, option, text},
#include "cli/config.def"
#undef KEY
};

// What is being read, for messages.
struct place {
    const char *path;
    size_t line;
    struct fault *fault;
};

static enum dj_error refuse(const struct place *place, const char *what, const char *remedy)
{
    return fault_set(place->fault, DJ_E_CONFIG, "%.200s:%zu: %.140s; %.140s", place->path, place->line, what, remedy);
}

// "did you mean listen?" or the list of what there is: section NULL: sections.
static void suggest(const char *section, const char *word, char *remedy, size_t bytes)
{
    struct nearest nearest = nearest_make(word);
    size_t used;

    for (int i = 0; i < CONFIG_KEYS; i++) {
        const char *candidate = section == NULL ? key_table[i].section : key_table[i].name;
        if (section != NULL && strcmp(key_table[i].section, section) != 0)
            continue;
        nearest_try(&nearest, candidate);
    }
    if (nearest.best != NULL) {
        snprintf(remedy, bytes, "did you mean %s?", nearest.best);
        return;
    }
    used = (size_t)snprintf(remedy, bytes, "there are");
    for (int i = 0; i < CONFIG_KEYS && used < bytes; i++) {
        bool is_repeated = section == NULL && i > 0 && strcmp(key_table[i].section, key_table[i - 1].section) == 0;
        if (is_repeated || (section != NULL && strcmp(key_table[i].section, section) != 0))
            continue;
        used += (size_t)snprintf(remedy + used, bytes - used, " %s", section == NULL ? key_table[i].section : key_table[i].name);
    }
}

// Values -------------------------------------------------------------------------------------------------------------

static bool is_one_of(const char *value, const char *a, const char *b, const char *c)
{
    return strcmp(value, a) == 0 || strcmp(value, b) == 0 || strcmp(value, c) == 0;
}

static bool is_count(const char *value, unsigned long most)
{
    char *end;
    unsigned long number = strtoul(value, &end, 10);
    return *value >= '0' && *value <= '9' && *end == '\0' && number > 0 && number <= most;
}

static enum dj_error check_value(const struct place *place, const struct key_info *key, const char *value)
{
    char address[CLI_ADDRESS_MAX], what[160];
    struct gpus gpus;
    uint64_t bytes;

    snprintf(what, sizeof what, "%s.%s cannot be \"%.60s\"", key->section, key->name, value);
    if (strcmp(key->kind, "address") == 0 && address_parse(value, address, NULL) != DJ_OK)
        return refuse(place, what, "write HOST:PORT, for example 127.0.0.1:" DJINN_PORT);
    if (strcmp(key->kind, "durability") == 0 && !is_one_of(value, "memory", "os", "disk"))
        return refuse(place, what, "write memory, os or disk");
    if (strcmp(key->kind, "level") == 0 && !is_one_of(value, "debug", "info", "warn"))
        return refuse(place, what, "write debug, info or warn");
    if (strcmp(key->kind, "gpus") == 0 && !gpus_parse(value, &gpus))
        return refuse(place, what, "write " GPUS_TAKES);
    if (strcmp(key->kind, "count") == 0 && !is_count(value, 1024))
        return refuse(place, what, "write a number from 1 to 1024");
    if (strcmp(key->kind, "bytes") == 0 && (bytes_parse(value, &bytes) != DJ_OK || bytes < 1 << 20))
        return refuse(place, what, "write a size of at least 1M, with K, M, G or T");
    if (strcmp(key->kind, "name") == 0 && (value[0] == '\0' || strlen(value) > 63))
        return refuse(place, what, "write 1 to 63 characters");
    if (strcmp(key->kind, "switch") == 0 && !is_one_of(value, "yes", "no", "no"))
        return refuse(place, what, "write yes or no");
    if (strcmp(key->kind, "path") == 0 && value[0] == '\0')
        return refuse(place, what, "write the path of a folder");
    return DJ_OK;
}

// The document -------------------------------------------------------------------------------------------------------

static const char *scalar(const yaml_node_t *node)
{
    return node != NULL && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static enum dj_error read_pair(struct place *place, const char *section, const yaml_node_t *name_node,
                               const yaml_node_t *value_node, struct config *config)
{
    const char *name = scalar(name_node), *value = scalar(value_node);
    char what[160], remedy[256];

    place->line = name_node->start_mark.line + 1;
    if (name == NULL || value == NULL) {
        snprintf(what, sizeof what, "%s takes lines of the form key: value", section);
        return refuse(place, what, "give each key one plain value");
    }
    for (int i = 0; i < CONFIG_KEYS; i++) {
        if (strcmp(key_table[i].section, section) != 0 || strcmp(key_table[i].name, name) != 0)
            continue;
        if (config->is_set[i]) {
            snprintf(what, sizeof what, "%s.%s is given twice", section, name);
            return refuse(place, what, "remove one of them");
        }
        if (strlen(value) >= CONFIG_VALUE_MAX) {
            snprintf(what, sizeof what, "the value of %s.%s is too long", section, name);
            return refuse(place, what, "at most 511 bytes are taken");
        }
        enum dj_error error = check_value(place, &key_table[i], value);
        if (error != DJ_OK)
            return error;
        memcpy(config->value[i], value, strlen(value) + 1);
        config->is_set[i] = true;
        return DJ_OK;
    }
    snprintf(what, sizeof what, "there is no key \"%.60s\" in %s", name, section);
    suggest(section, name, remedy, sizeof remedy);
    return refuse(place, what, remedy);
}

static enum dj_error read_section(struct place *place, yaml_document_t *document, const yaml_node_pair_t *pair,
                                  struct config *config)
{
    const yaml_node_t *name_node = yaml_document_get_node(document, pair->key),
                      *body = yaml_document_get_node(document, pair->value);
    const char *name = scalar(name_node);
    char what[160], remedy[256];
    bool is_known = false;

    place->line = name_node->start_mark.line + 1;
    for (int i = 0; i < CONFIG_KEYS && name != NULL; i++)
        is_known |= strcmp(key_table[i].section, name) == 0;
    if (!is_known) {
        snprintf(what, sizeof what, "there is no section \"%.60s\"", name != NULL ? name : "?");
        suggest(NULL, name != NULL ? name : "", remedy, sizeof remedy);
        return refuse(place, what, remedy);
    }
    if (body->type != YAML_MAPPING_NODE) {
        snprintf(what, sizeof what, "%s is a section and takes keys", name);
        return refuse(place, what, "write them on lines of their own, indented");
    }
    for (const yaml_node_pair_t *at = body->data.mapping.pairs.start; at < body->data.mapping.pairs.top; at++) {
        enum dj_error error = read_pair(place, name, yaml_document_get_node(document, at->key),
                                        yaml_document_get_node(document, at->value), config);
        if (error != DJ_OK)
            return error;
    }
    return DJ_OK;
}

static enum dj_error read_document(struct place *place, yaml_document_t *document, struct config *config)
{
    const yaml_node_t *root = yaml_document_get_root_node(document);

    if (root == NULL)
        return DJ_OK;
    place->line = root->start_mark.line + 1;
    if (root->type != YAML_MAPPING_NODE)
        return refuse(place, "the file is not a mapping of sections", "begin with a section, for example \"head:\"");
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++) {
        enum dj_error error = read_section(place, document, pair, config);
        if (error != DJ_OK)
            return error;
    }
    return DJ_OK;
}

static enum dj_error read_file(FILE *file, struct config *config, struct fault *fault)
{
    struct place place = {.path = config->path, .fault = fault};
    yaml_parser_t parser;
    yaml_document_t document;
    enum dj_error error;

    if (!yaml_parser_initialize(&parser))
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to read %s", config->path);
    yaml_parser_set_input_file(&parser, file);
    if (yaml_parser_load(&parser, &document)) {
        error = read_document(&place, &document, config);
        yaml_document_delete(&document);
    } else {
        place.line = parser.problem_mark.line + 1;
        error = refuse(&place, parser.problem != NULL ? parser.problem : "this is not YAML",
                       "check indentation, quotes and colons there");
    }
    yaml_parser_delete(&parser);
    return error;
}

static bool find_file(const char *given, char path[CLI_PATH_MAX])
{
    const char *named = given != NULL ? given : getenv("DJINN_CONFIG"), *config_home = getenv("XDG_CONFIG_HOME"),
               *home = getenv("HOME");

    if (named != NULL && named[0] != '\0') {
        snprintf(path, CLI_PATH_MAX, "%s", named);
        return true;
    }
    if (config_home != NULL && config_home[0] == '/')
        snprintf(path, CLI_PATH_MAX, "%s/djinn/config.yaml", config_home);
    else
        snprintf(path, CLI_PATH_MAX, "%s/.config/djinn/config.yaml", home != NULL ? home : "/root");
    return access(path, F_OK) == 0;
}

enum dj_error config_load(const char *given, struct config *ret, struct fault *fault)
{
    memset(ret, 0, sizeof *ret);
    if (!find_file(given, ret->path)) {
        ret->path[0] = '\0';
        return DJ_OK;
    }
    FILE *file = fopen(ret->path, "re");
    if (file == NULL)
        return fault_set(fault, DJ_E_CONFIG, "cannot read the configuration %s: %s; name another one with --config", ret->path,
                         strerror(errno));
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    rewind(file);
    enum dj_error error = bytes > CONFIG_FILE_BYTES_MAX
                              ? fault_set(fault, DJ_E_CONFIG, "the configuration %s has over %d bytes; this is not one",
                                          ret->path, CONFIG_FILE_BYTES_MAX)
                              : read_file(file, ret, fault);
    fclose(file);
    return error;
}

const char *config_get(const struct config *config, enum config_key key)
{
    return config->is_set[key] ? config->value[key] : NULL;
}

void config_print_keys(void)
{
    const char *section = "";

    for (int i = 0; i < CONFIG_KEYS; i++) {
        if (strcmp(section, key_table[i].section) != 0)
            printf("%s:\n", section = key_table[i].section);
        printf("  %-12s %s (%s)\n", key_table[i].name, key_table[i].text, key_table[i].option);
    }
}

// djinn config -------------------------------------------------------------------------------------------------------

struct options {
    const char *verb, *path;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (options->verb == NULL)
        options->verb = argument;
    else if (options->path == NULL)
        options->path = argument;
    else
        argp_error(state, "'%s' is one argument too many", argument);
    return 0;
}

int command_config(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse,
        "check [FILE]\nkeys",
        "Check a configuration, or list the keys that there are.\v"
        "FILE defaults to $DJINN_CONFIG, else $XDG_CONFIG_HOME/djinn/config.yaml, else ~/.config/djinn/config.yaml. 'check' prints what is set; what is not "
        "valid it refuses with file, line, key and remedy, as the servers do when they start. The command line goes before the configuration.\n\n"
        "Examples:\n  djinn config keys\n  djinn config check /etc/djinn.yaml\n\n"
        "Exit status: 0 the configuration is valid; 2 it is not, or the command line is not.",
        NULL,
        NULL,
        NULL};
    struct options options = {0};
    struct config config;
    struct fault fault = {0};

    options_parse(&argp, argc, argv, &options);
    if (options.verb != NULL && strcmp(options.verb, "keys") == 0) {
        config_print_keys();
        return EXIT_DONE;
    }
    if (options.verb == NULL || strcmp(options.verb, "check") != 0)
        return complain(EXIT_USAGE, "say 'djinn config check [FILE]' or 'djinn config keys'");
    enum dj_error error = config_load(options.path, &config, &fault);
    if (error != DJ_OK)
        return complain_fault(EXIT_USAGE, error, &fault);
    printf("%s: valid\n", config.path[0] != '\0' ? config.path : "no configuration file");
    for (int i = 0; i < CONFIG_KEYS; i++)
        if (config.is_set[i])
            printf("%s.%s: %s\n", key_table[i].section, key_table[i].name, config.value[i]);
    return EXIT_DONE;
}
