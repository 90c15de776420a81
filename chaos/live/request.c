// Request: reads one flat JSON object. The manual is request.h.

#include "chaos/live/request.h"

#include <stdlib.h>
#include <string.h>

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

// Reads "text" behind the opening quote; NULL when it does not end, is too long, or has an escape or a control character.
static const char *take_text(const char *at, char ret[REQUEST_TEXT_MAX])
{
    size_t length = 0;
    if (*at++ != '"')
        return NULL;
    while (*at != '"') {
        if ((unsigned char)*at < ' ' || *at == '\\' || length == REQUEST_TEXT_MAX - 1)
            return NULL;
        ret[length++] = *at++;
    }
    ret[length] = '\0';
    return at + 1;
}

static const char *take_value(const char *at, struct request_field *field)
{
    char *end;
    field->is_text = *at == '"';
    if (field->is_text)
        return take_text(at, field->text);
    if (strchr("-0123456789", *at) == NULL || *at == '\0')
        return NULL;
    field->number = strtod(at, &end);
    return end;
}

bool request_parse(const char *line, struct request *ret)
{
    struct request request = {0};
    const char *at = skip_space(line);
    if (*at++ != '{')
        return false;
    at = skip_space(at);
    while (*at != '}') {
        if (request.fields == REQUEST_FIELDS_MAX)
            return false;
        struct request_field *field = &request.field[request.fields++];
        at = take_text(at, field->name);
        if (at == NULL || *(at = skip_space(at)) != ':' || (at = take_value(skip_space(at + 1), field)) == NULL)
            return false;
        at = skip_space(at);
        if (*at == ',')
            at = skip_space(at + 1);
        else if (*at != '}')
            return false;
    }
    if (*skip_space(at + 1) != '\0')
        return false;
    *ret = request;
    return true;
}

static const struct request_field *find(const struct request *request, const char *name)
{
    for (uint32_t i = 0; i < request->fields; i++)
        if (strcmp(request->field[i].name, name) == 0)
            return &request->field[i];
    return NULL;
}

const char *request_text(const struct request *request, const char *name)
{
    const struct request_field *field = find(request, name);
    return field != NULL && field->is_text ? field->text : NULL;
}

bool request_number(const struct request *request, const char *name, uint64_t least, uint64_t most, uint64_t otherwise,
                    uint64_t *ret)
{
    const struct request_field *field = find(request, name);
    if (field == NULL) {
        *ret = otherwise;
        return true;
    }
    if (field->is_text || !(field->number >= (double)least && field->number <= (double)most) ||
        field->number != (double)(uint64_t)field->number)
        return false;
    *ret = (uint64_t)field->number;
    return true;
}
