// Handles: text forms, map keys, bytes.

#include "core/lineage/handle.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct hash128 exec_id_key(struct exec_id id)
{
    return (struct hash128){.hi = hash_mix(0, id.session), .lo = id.counter};
}

struct hash128 handle_key(struct handle handle)
{
    struct hash128 key = exec_id_key(handle.execution);
    key.hi = hash_mix(key.hi, handle.output + UINT64_C(1));
    return key;
}

const char *exec_id_text(struct exec_id id, char text[EXEC_ID_TEXT])
{
    snprintf(text, EXEC_ID_TEXT, "%" PRIu64 ".%" PRIu32 ".%" PRIu64, id.session, exec_epoch(id.counter), exec_number(id.counter));
    return text;
}

const char *handle_text(struct handle handle, char text[HANDLE_TEXT])
{
    char id[EXEC_ID_TEXT];
    snprintf(text, HANDLE_TEXT, "%s:%" PRIu32, exec_id_text(handle.execution, id), handle.output);
    return text;
}

// Decimal digits without a leading zero, so that a value has one text.
static bool take_number(const char **text, uint64_t max, uint64_t *ret)
{
    const char *at = *text;
    uint64_t number = 0;
    if (*at < '0' || *at > '9' || (at[0] == '0' && at[1] >= '0' && at[1] <= '9'))
        return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (number > (max - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *text = at;
    *ret = number;
    return true;
}

static bool take_exec_id(const char **text, struct exec_id *ret)
{
    uint64_t session, epoch, number;
    if (!take_number(text, UINT64_MAX, &session) || *(*text)++ != '.' || !take_number(text, EPOCHS_MAX, &epoch) || epoch == 0 ||
        *(*text)++ != '.' || !take_number(text, exec_number(UINT64_MAX), &number))
        return false;
    *ret = (struct exec_id){.session = session, .counter = exec_counter((uint32_t)epoch, number)};
    return true;
}

bool exec_id_parse(const char *text, struct exec_id *ret)
{
    struct exec_id id;
    if (!take_exec_id(&text, &id) || *text != '\0')
        return false;
    *ret = id;
    return true;
}

bool handle_parse(const char *text, struct handle *ret)
{
    struct exec_id id;
    uint64_t output;
    if (!take_exec_id(&text, &id) || *text++ != ':' || !take_number(&text, UINT32_MAX, &output) || *text != '\0')
        return false;
    *ret = (struct handle){.execution = id, .output = (uint32_t)output};
    return true;
}

void exec_id_write(struct writer *writer, struct exec_id id)
{
    write_var(writer, id.session);
    write_var(writer, id.counter);
}

struct exec_id exec_id_read(struct reader *reader)
{
    struct exec_id id;
    id.session = read_var(reader);
    id.counter = read_var(reader);
    return id;
}

void handle_write(struct writer *writer, struct handle handle)
{
    exec_id_write(writer, handle.execution);
    write_var(writer, handle.output);
}

struct handle handle_read(struct reader *reader)
{
    struct handle handle;
    handle.execution = exec_id_read(reader);
    handle.output = (uint32_t)read_var_max(reader, UINT32_MAX);
    return handle;
}
