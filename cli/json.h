// Json: a head's answer to one question, and reading it without caring what is absent.

#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <cjson/cJSON.h>

#include "cli/options.h"

// Asks the head and prints its answer: as it came with --json, else through `print`. The exit code; what failed was said.
int json_ask(const struct client_options *options, const char *verb, const char *argument, void (*print)(const cJSON *answer));

double json_number(const cJSON *object, const char *key);          // 0 when it is not there
const char *json_text(const cJSON *object, const char *key);       // "" when it is not there
bool json_is_true(const cJSON *object, const char *key);
const cJSON *json_at(const cJSON *object, const char *key);        // NULL when it is not there, which cJSON's functions take

#endif
