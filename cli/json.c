// Json: see json.h.

#include "cli/json.h"

#include <stdio.h>
#include <stdlib.h>

const cJSON *json_at(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

double json_number(const cJSON *object, const char *key)
{
    const cJSON *item = json_at(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

const char *json_text(const cJSON *object, const char *key)
{
    const cJSON *item = json_at(object, key);
    return cJSON_IsString(item) ? item->valuestring : "";
}

bool json_is_true(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(json_at(object, key));
}

int json_ask(const struct client_options *options, const char *verb, const char *argument, void (*print)(const cJSON *answer))
{
    struct fault fault = {0};
    char *answer;
    size_t bytes;
    int code = EXIT_DONE;

    enum dj_error error = head_ask(options->address, options->state, verb, argument, &answer, &bytes, &fault);
    if (error != DJ_OK)
        return ask_failed(error, &fault);
    cJSON *json = cJSON_ParseWithLength(answer, bytes);
    if (json == NULL)
        code = complain(EXIT_FAILED, "the head's answer is not JSON; is it another version of djinn?");
    else if (options->is_json)
        puts(answer);
    else
        print(json);
    cJSON_Delete(json);
    free(answer);
    return code;
}
