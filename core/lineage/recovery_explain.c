// Explain: how a value came to be and what would bring it back, as JSON for `djinn explain`. Ids are text: they do not fit in a double.

#include "core/lineage/recovery_internal.h"

#include "core/base/assert.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { EXPLAIN_INPUTS_MAX = 256, EXPLAIN_STEPS_MAX = 256 };

static void put(struct writer *json, const char *format, ...) DJ_PRINTF(2, 3);
static void put(struct writer *json, const char *format, ...)
{
    char text[256];    // numbers and names of our tables
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert(length >= 0 && (size_t)length < sizeof text);
    write_raw(json, text, (size_t)length);
}

static void put_text(struct writer *json, const char *text)
{
    put(json, "\"");
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\')
            put(json, "\\%c", c);
        else if (c < 0x20)
            put(json, "\\u%04x", c);
        else
            write_u8(json, c);
    }
    put(json, "\"");
}

static void put_handle(const struct recovery *recovery, struct record_ref ref, struct writer *json)
{
    char text[HANDLE_TEXT];
    struct handle handle = {.execution = {.session = recovery->session, .counter = ref.counter}, .output = ref.output};
    put(json, "\"%s\"", handle_text(handle, text));
}

static void put_op(const struct srg_plan *plan, uint32_t output, struct writer *json)
{
    uint32_t n = 0;
    while (n < plan->nodes && output >= plan->node[n].first_output + plan->node[n].outputs)
        n++;
    if (n == plan->nodes)
        return;
    put(json, ",\"op\":\"%s\",\"node\":%" PRIu32 ",\"module\":", op_info(plan->node[n].op)->name, n);
    put_text(json, plan->module[plan->node[n].module].path);
}

static void put_inputs(const struct recovery *recovery, const struct known *record, struct writer *json)
{
    put(json, ",\"inputs\":[");
    for (uint32_t i = 0; i < record->inputs && i < EXPLAIN_INPUTS_MAX; i++) {
        put(json, "%s", i == 0 ? "" : ",");
        put_handle(recovery, (struct record_ref){.counter = record->input[i].counter, .output = record->input[i].output}, json);
    }
    put(json, "],\"inputs_in_all\":%" PRIu32, record->inputs);
}

static enum dj_error put_execution(struct recovery *recovery, uint32_t index, uint32_t output, struct writer *json)
{
    const struct known *record = &recovery->record[index];
    const int64_t *word = NULL;
    enum dj_error error = recovery_words(recovery, index, &word);
    if (error != DJ_OK)
        return error;
    put(json, ",\"cost_ns\":%" PRIu64 ",\"numerics\":%" PRIu32, record->cost_ns, record->numerics);
    const struct known_plan *plan = record->plan == RECOVERY_NONE ? NULL : &recovery->plan[record->plan];
    if (plan != NULL) {
        char name[HASH128_TEXT];
        hash128_text(plan->fingerprint, name);
        put(json, ",\"plan\":{\"fingerprint\":\"%s\",\"nodes\":%" PRIu32 "}", name, plan->plan == NULL ? 0 : plan->plan->nodes);
    }
    if (plan != NULL && plan->plan != NULL)
        put_op(plan->plan, output, json);
    if (record->state == KNOWN_DECODED)
        put_inputs(recovery, record, json);
    else
        put(json, ",\"not_replayable\":\"%s\"", recovery_why_text(record->why));
    return DJ_OK;
}

static enum dj_error put_origin(struct recovery *recovery, struct record_ref ref, struct writer *json)
{
    uint32_t index = recovery_record_find(recovery, ref.counter, RECOVERY_NONE);
    if (index == RECOVERY_NONE) {
        put(json, ",\"made_by\":null");
        return DJ_OK;
    }
    const struct known *record = &recovery->record[index];
    put(json, ",\"made_by\":\"%s\"", record->kind == RECORD_IMPORT ? "import" : "execution");
    if (record->kind == RECORD_EXECUTION)
        return put_execution(recovery, index, ref.output, json);
    put(json, ",\"source\":");
    put_handle(recovery, record->source, json);
    return DJ_OK;
}

static void put_places(const struct value *value, struct writer *json)
{
    put(json, ",\"locations\":[");
    for (const struct location *at = value == NULL ? NULL : value->location; at != NULL; at = at->next)
        put(json, "%s\"%" PRIu64 "\"", at == value->location ? "" : ",", at->incarnation);
    put(json, "],\"checkpoint\":");
    if (value == NULL || value->checkpoint == NULL) {
        put(json, "null");
        return;
    }
    char shape[TENSOR_TEXT_MAX];
    const struct checkpoint *checkpoint = value->checkpoint;
    put(json, "{\"value\":\"%s\",\"bytes\":%" PRIi64 ",\"pieces\":%" PRIu32 ",\"is_replica\":%s}",
        tensor_text(&checkpoint->meta, shape), tensor_bytes(&checkpoint->meta), checkpoint->pieces,
        checkpoint->is_replica ? "true" : "false");
}

static void put_steps(const struct recovery *recovery, struct writer *json)
{
    static const char *const NAME[] = {"", "replay", "restore", "fetch", "copy"};
    const struct recovery_sum *sum = &recovery->sum;
    put(json, ",\"brought_back_by\":");
    if (recovery->planned_fault.code != DJ_OK) {
        put(json, "{\"error\":\"%s\",\"text\":", dj_error_name(recovery->planned_fault.code));
        put_text(json, recovery->planned_fault.text);
        put(json, "}");
        return;
    }
    put(json, "{\"steps\":%" PRIu32 ",\"replays\":%" PRIu32 ",\"restores\":%" PRIu32 ",\"fetches\":%" PRIu32, sum->steps,
        sum->replays, sum->restores, sum->fetches);
    put(json, ",\"cost_ns\":%" PRIu64 ",\"restored_bytes\":%" PRIu64 ",\"list\":[", sum->cost_ns, sum->restored_bytes);
    for (uint32_t i = 0; i < recovery->steps && i < EXPLAIN_STEPS_MAX; i++) {
        const struct planned *step = &recovery->step[i];
        put(json, "%s{\"kind\":\"%s\",", i == 0 ? "" : ",", NAME[step->kind]);
        if (step->value != NULL) {
            put(json, "\"handle\":");
            put_handle(recovery, step->value->ref, json);
        } else {
            char text[EXEC_ID_TEXT];
            put(json, "\"execution\":\"%s\",\"cost_ns\":%" PRIu64,
                exec_id_text((struct exec_id){.session = recovery->session, .counter = step->counter}, text),
                recovery->record[step->record].cost_ns);
        }
        put(json, "}");
    }
    put(json, "]}");
}

enum dj_error recovery_explain(struct recovery *recovery, struct record_ref handle, struct writer *json)
{
    put(json, "{\"handle\":");
    put_handle(recovery, handle, json);
    put(json, ",\"session\":\"%" PRIu64 "\"", recovery->session);
    enum dj_error error = put_origin(recovery, handle, json);
    if (error != DJ_OK)
        return error;
    put_places(recovery_value_find(recovery, handle), json);
    put_steps(recovery, json);
    put(json, "}");
    return json->error;
}
