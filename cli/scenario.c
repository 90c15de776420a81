// Scenario: reads the file. libyaml's nodes know their lines, which complaints name. The manual is scenario.h.

#include "cli/scenario.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { LIMIT_S_DEFAULT = 120, LIMIT_S_MAX = 3600, WORKERS_DEFAULT = 2 };

// Verbs that only a scenario has: it started the processes.
static const char *const own_verbs[] = {"start-worker", "start-head", "start-client", "sleep"};

struct reading {
    yaml_document_t *document;
    struct scenario *scenario;
    struct fault *fault;
};

static enum dj_error refuse(const struct reading *reading, const yaml_node_t *node, const char *what)
{
    return fault_set(reading->fault, DJ_E_CONFIG, "%.300s:%zu: %s", reading->scenario->path,
                     node == NULL ? 1 : node->start_mark.line + 1, what);
}

static const char *scalar(const yaml_node_t *node)
{
    return node != NULL && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static enum dj_error take_text(const struct reading *reading, const yaml_node_t *node, char *to, size_t bytes)
{
    const char *text = scalar(node);
    if (text == NULL || strlen(text) >= bytes)
        return refuse(reading, node, "this takes one plain value, and not so long a one");
    strcpy(to, text);
    return DJ_OK;
}

static enum dj_error take_whole(const struct reading *reading, const yaml_node_t *node, uint64_t most, uint64_t *ret)
{
    const char *text = scalar(node);
    char *end = NULL;
    unsigned long long value = text == NULL ? 0 : strtoull(text, &end, 10);
    if (text == NULL || text[0] < '0' || text[0] > '9' || *end != '\0' || value > most)
        return refuse(reading, node, "this takes a whole number, and not so large a one");
    *ret = value;
    return DJ_OK;
}

static enum dj_error take_words(const struct reading *reading, const yaml_node_t *node, struct scenario_words *ret)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return refuse(reading, node, "this takes a list: [word, word]");
    for (const yaml_node_item_t *at = node->data.sequence.items.start; at < node->data.sequence.items.top; at++) {
        if (ret->count == SCENARIO_WORDS_MAX)
            return refuse(reading, node, "this list is too long");
        enum dj_error error = take_text(reading, yaml_document_get_node(reading->document, *at), ret->word[ret->count++],
                                        SCENARIO_WORD_BYTES);
        if (error != DJ_OK)
            return error;
    }
    return DJ_OK;
}

static bool is_own_verb(const char *verb)
{
    for (size_t i = 0; i < sizeof own_verbs / sizeof own_verbs[0]; i++)
        if (strcmp(own_verbs[i], verb) == 0)
            return true;
    return false;
}

static enum dj_error take_event_field(const struct reading *reading, const char *key, const yaml_node_t *value,
                                      struct scenario_event *event)
{
    struct chaos_order *order = &event->order;
    const struct {
        const char *key;
        uint64_t *to, most;
    } wholes[] = {{"after", &event->after, 1000000000}, {"for", &order->for_s, 3600},
                  {"ms", &order->ms, 86400000},         {"jitter", &order->jitter_ms, 60000},
                  {"count", &order->count, 1000000},    {"rarity", &order->rarity, 1000000},
                  {"seed", &order->seed, UINT32_MAX},   {"nth-execution", &order->answer, 1000000000}};
    for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++)
        if (strcmp(wholes[i].key, key) == 0)
            return take_whole(reading, value, wholes[i].most, wholes[i].to);
    if (strcmp(key, "do") == 0)
        return take_text(reading, value, order->verb, sizeof order->verb);
    if (strcmp(key, "name") == 0)
        return take_text(reading, value, order->name, sizeof order->name);
    if (strcmp(key, "other") == 0)
        return take_text(reading, value, order->peer, sizeof order->peer);
    if (strcmp(key, "at") != 0)
        return refuse(reading, value,
                      "an event has: do, after or at, name, other, for, ms, jitter, count, rarity, seed, nth-execution");
    const char *text = scalar(value);
    char *end = NULL;
    order->at_s = text == NULL ? -1 : strtod(text, &end);
    return text != NULL && *end == '\0' && order->at_s >= 0 && order->at_s <= LIMIT_S_MAX
               ? DJ_OK
               : refuse(reading, value, "at takes seconds");
}

static enum dj_error take_event(const struct reading *reading, const yaml_node_t *node)
{
    struct scenario *scenario = reading->scenario;
    enum dj_error error = DJ_OK;
    if (node->type != YAML_MAPPING_NODE || scenario->events == SCENARIO_EVENTS_MAX)
        return refuse(reading, node, "an event is a mapping, and there are at most 64");
    struct scenario_event *event = &scenario->event[scenario->events++];
    event->line = (uint32_t)node->start_mark.line + 1;
    for (const yaml_node_pair_t *at = node->data.mapping.pairs.start; error == DJ_OK && at < node->data.mapping.pairs.top; at++) {
        const char *key = scalar(yaml_document_get_node(reading->document, at->key));
        error = take_event_field(reading, key == NULL ? "" : key, yaml_document_get_node(reading->document, at->value), event);
    }
    if (error == DJ_OK && !chaos_verb_is_known(event->order.verb) && !is_own_verb(event->order.verb))
        return refuse(reading, node,
                      "an event says what to do: a verb of djinn chaos, start-worker, start-head, start-client or sleep");
    return error;
}

static enum dj_error take_events(const struct reading *reading, const yaml_node_t *node)
{
    enum dj_error error = node->type == YAML_SEQUENCE_NODE ? DJ_OK : refuse(reading, node, "events is a list");
    if (error != DJ_OK)
        return error;
    for (const yaml_node_item_t *at = node->data.sequence.items.start; error == DJ_OK && at < node->data.sequence.items.top; at++)
        error = take_event(reading, yaml_document_get_node(reading->document, *at));
    return error;
}

static enum dj_error take_pair(const struct reading *reading, const yaml_node_t *key_node, const yaml_node_t *value)
{
    struct scenario *scenario = reading->scenario;
    const char *key = scalar(key_node);
    if (key == NULL)
        return refuse(reading, key_node, "a key is a plain word");
    if (strcmp(key, "name") == 0)
        return take_text(reading, value, scenario->name, sizeof scenario->name);
    if (strcmp(key, "text") == 0)
        return take_text(reading, value, scenario->text, sizeof scenario->text);
    if (strcmp(key, "expects") == 0)
        return take_text(reading, value, scenario->expects, sizeof scenario->expects);
    if (strcmp(key, "workers") == 0)
        return take_whole(reading, value, SCENARIO_WORKERS_MAX, &scenario->workers);
    if (strcmp(key, "limit") == 0)
        return take_whole(reading, value, LIMIT_S_MAX, &scenario->limit_s);
    if (strcmp(key, "program") == 0)
        return take_words(reading, value, &scenario->program);
    if (strcmp(key, "head") == 0)
        return take_words(reading, value, &scenario->head);
    if (strcmp(key, "worker") == 0)
        return take_words(reading, value, &scenario->worker);
    if (strcmp(key, "events") == 0)
        return take_events(reading, value);
    return refuse(reading, key_node, "a scenario has: name, text, program, workers, head, worker, expects, limit, events");
}

static enum dj_error take_document(const struct reading *reading)
{
    const yaml_node_t *root = yaml_document_get_root_node(reading->document);
    enum dj_error error = DJ_OK;
    if (root == NULL || root->type != YAML_MAPPING_NODE)
        return refuse(reading, root, "a scenario is a mapping");
    for (const yaml_node_pair_t *at = root->data.mapping.pairs.start; error == DJ_OK && at < root->data.mapping.pairs.top; at++)
        error = take_pair(reading, yaml_document_get_node(reading->document, at->key),
                          yaml_document_get_node(reading->document, at->value));
    if (error == DJ_OK && (reading->scenario->name[0] == '\0' || reading->scenario->program.count == 0))
        return refuse(reading, root, "a scenario has at least a name and a program");
    return error;
}

enum dj_error scenario_load(const char *path, struct scenario *ret, struct fault *fault)
{
    yaml_parser_t parser;
    yaml_document_t document;
    *ret = (struct scenario){.workers = WORKERS_DEFAULT, .limit_s = LIMIT_S_DEFAULT, .expects = "same"};
    struct reading reading = {.document = &document, .scenario = ret, .fault = fault};
    if (strlen(path) >= sizeof ret->path)
        return fault_set(fault, DJ_E_CONFIG, "the path of a scenario is at most %zu bytes long", sizeof ret->path - 1);
    strcpy(ret->path, path);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return fault_set(fault, DJ_E_CONFIG, "cannot read %.300s: %s", path, strerror(errno));
    enum dj_error error = DJ_OK;
    if (!yaml_parser_initialize(&parser)) {
        fclose(file);
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to read %.300s", path);
    }
    yaml_parser_set_input_file(&parser, file);
    if (yaml_parser_load(&parser, &document)) {
        error = take_document(&reading);
        yaml_document_delete(&document);
    } else {
        error = fault_set(fault, DJ_E_CONFIG, "%.300s:%zu: %s", path, parser.problem_mark.line + 1,
                          parser.problem == NULL ? "this is not YAML" : parser.problem);
    }
    yaml_parser_delete(&parser);
    fclose(file);
    return error;
}
