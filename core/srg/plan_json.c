// Plans as JSON, for people and other tools: the same as srg.proto in words, one line an input, module and node (docs/srg.md).
// What reads it is plan_json_read.c; what is only there for people (annotations, sizes, bindings) is ignored when read.

#include "core/srg/bindings.h"
#include "core/srg/export.h"
#include "core/srg/plan_internal.h"

#include "core/base/assert.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const KIND_NAME[] = {"absent", "int", "bool", "float", "ints"};

static void put(struct writer *writer, const char *format, ...) DJ_PRINTF(2, 3);
static void put(struct writer *writer, const char *format, ...)
{
    char text[256];    // callers pass numbers and names of our tables; program text goes through put_text
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert(length >= 0 && (size_t)length < sizeof text);
    write_raw(writer, text, (size_t)length);
}

static void put_text(struct writer *writer, const char *text)
{
    put(writer, "\"");
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\')
            put(writer, "\\%c", c);
        else if (c < 0x20)
            put(writer, "\\u%04x", c);
        else
            write_u8(writer, c);
    }
    put(writer, "\"");
}

// JSON's numbers are doubles to most readers: what does not fit is a string.
static void put_int(struct writer *writer, int64_t value)
{
    const int64_t exact = (int64_t)1 << 53;
    bool fits = value >= -exact && value <= exact;
    put(writer, fits ? "%" PRId64 : "\"%" PRId64 "\"", value);
}

static void put_float(struct writer *writer, double value)
{
    if (isfinite(value))
        put(writer, "%.17g", value);
    else
        put(writer, "\"%s\"", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
}

static void put_device(struct writer *writer, uint8_t device)
{
    if (device != UINT8_MAX)
        put(writer, ",\"device\":%u", device);
}

static void put_ref(struct writer *writer, const struct srg_ref *ref)
{
    switch (ref->kind) {
    case REF_NODE:
        if (ref->output == 0)
            put(writer, "\"n%u\"", ref->index);
        else
            put(writer, "\"n%u.%u\"", ref->index, ref->output);
        break;
    case REF_INPUT: put(writer, "\"i%u\"", ref->index); break;
    case REF_SCALAR: put(writer, "\"s:%s\"", dtype_name(ref->dtype)); break;
    default: put(writer, "null");
    }
}

static void put_static(struct writer *writer, const struct srg_plan *plan, const struct srg_attr *attr)
{
    const int64_t *value = plan->constant + attr->first;
    double number;
    switch (attr->kind) {
    case ATTR_BOOL: put(writer, *value ? "true" : "false"); break;
    case ATTR_FLOAT:
        memcpy(&number, value, sizeof number);
        put_float(writer, number);
        break;
    case ATTR_INTS:
        put(writer, "[");
        for (uint32_t i = 0; i < attr->count; i++) {
            put(writer, i == 0 ? "" : ",");
            put_int(writer, value[i]);
        }
        put(writer, "]");
        break;
    default: put_int(writer, *value);
    }
}

static void put_attrs(struct writer *writer, const struct srg_plan *plan, const struct srg_node *node, const struct op_info *op)
{
    bool is_first = true;
    for (uint32_t i = 0; i < op->args; i++) {
        const struct op_arg *arg = &op->arg[i];
        if (arg->attr < 0)
            continue;
        const struct srg_attr *attr = &plan->attr[node->first_attr + (uint8_t)arg->attr];
        if (attr->kind == ATTR_ABSENT)
            continue;
        put(writer, is_first ? ",\"attrs\":{\"%s\":" : ",\"%s\":", arg->name);
        is_first = false;
        if (attr->is_bound && attr->kind == ATTR_INTS) {
            put(writer, "{\"bound\":\"ints\",\"count\":%u}", attr->count);
        } else if (attr->is_bound) {
            put(writer, "{\"bound\":\"%s\"}", KIND_NAME[attr->kind]);
        } else if (arg->kind == ARG_SCALAR) {    // its kind is part of the structure and cannot be told from the value
            put(writer, "{\"static\":\"%s\",\"value\":", KIND_NAME[attr->kind]);
            put_static(writer, plan, attr);
            put(writer, "}");
        } else {
            put_static(writer, plan, attr);
        }
    }
    if (!is_first)
        put(writer, "}");
}

static void put_annotation(struct writer *writer, const struct srg_annotation *a)
{
    put(writer, ",\"annotation\":{\"phase\":\"%s\",\"residency\":\"%s\",\"modality\":\"%s\",\"role\":\"%s\"",
        phase_name(a->phase), residency_name(a->residency), modality_name(a->modality), role_name(a->role));
    put(writer, ",\"priority\":%u,\"confidence\":%u,\"colocation\":%u,\"criticality\":", a->priority, a->confidence,
        a->colocation);
    put_float(writer, (double)a->criticality);
    put(writer, ",\"flops\":");
    put_float(writer, a->flops);
    put(writer, ",\"bytes\":");
    put_float(writer, a->bytes);
    put(writer, "}");
}

static void put_node(struct writer *writer, const struct srg_plan *plan, uint32_t n, const struct srg_annotations *annotations,
                     const struct tensor_meta *out)
{
    const struct srg_node *node = &plan->node[n];
    const struct op_info *op = op_info(node->op);
    put(writer, n == 0 ? "\n  {\"op\":\"%s\",\"in\":[" : ",\n  {\"op\":\"%s\",\"in\":[", op->name);
    for (uint32_t r = 0; r < node->refs; r++) {
        put(writer, r == 0 ? "" : ",");
        put_ref(writer, &plan->ref[node->first_ref + r]);
    }
    put(writer, "]");
    put_attrs(writer, plan, node, op);
    put(writer, ",\"out\":[");
    for (uint32_t o = 0; o < node->outputs; o++)
        put(writer, o == 0 ? "\"%s\"" : ",\"%s\"", dtype_name(node->dtype[o]));
    put(writer, "]");
    if (node->module != 0)
        put(writer, ",\"module\":%u", node->module);
    put_device(writer, node->device);
    for (uint32_t o = 0; out != NULL && o < node->outputs; o++) {
        char text[TENSOR_TEXT_MAX];
        put(writer, o == 0 ? ",\"shape\":[\"%s\"" : ",\"%s\"", tensor_text(&out[node->first_output + o], text));
    }
    put(writer, out != NULL ? "]" : "");
    if (annotations != NULL)
        put_annotation(writer, &annotations->node[n]);
    put(writer, "}");
}

static void put_inputs(struct writer *writer, const struct srg_plan *plan, const struct srg_annotations *annotations,
                       const int64_t *words)
{
    put(writer, " \"inputs\":[");
    for (uint32_t i = 0; i < plan->inputs; i++) {
        const struct srg_input *input = &plan->input[i];
        put(writer, "%s\n  {\"leaf\":%s,\"dtype\":\"%s\",\"rank\":%u,\"contiguous\":%s", i == 0 ? "" : ",",
            input->is_leaf ? "true" : "false", dtype_name(input->dtype), input->rank, input->is_contiguous ? "true" : "false");
        put_device(writer, input->device);
        struct tensor_meta meta;
        char text[TENSOR_TEXT_MAX];
        if (words != NULL && binding_meta(plan, words, i, &meta, NULL) == DJ_OK)
            put(writer, ",\"shape\":\"%s\"", tensor_text(&meta, text));
        if (annotations != NULL)
            put(writer, ",\"residency\":\"%s\"", residency_name(annotations->input_residency[i]));
        put(writer, "}");
    }
    put(writer, "],\n");
}

static void put_modules(struct writer *writer, const struct srg_plan *plan)
{
    put(writer, " \"modules\":[");
    for (uint32_t i = 0; i < plan->modules; i++) {
        const struct srg_module *module = &plan->module[i];
        put(writer, "%s\n  {\"path\":", i == 0 ? "" : ",");
        put_text(writer, module->path);
        put(writer, ",\"type\":");
        put_text(writer, module->type);
        put(writer, ",\"training\":%s}", module->is_training ? "true" : "false");
    }
    put(writer, "],\n");
}

static void put_plan(struct writer *writer, const struct srg_plan *plan, const struct srg_annotations *annotations,
                     const int64_t *words, const struct tensor_meta *out)
{
    char fingerprint[HASH128_TEXT];
    hash128_text(plan->fingerprint, fingerprint);
    put(writer, "{\"schema\":\"djinn.srg.v1\",\n \"fingerprint\":\"%s\",\n", fingerprint);
    if (annotations != NULL)
        put(writer, " \"annotation\":{\"phase\":\"%s\",\"modality\":\"%s\",\"confidence\":%u},\n", phase_name(annotations->phase),
            modality_name(annotations->modality), annotations->confidence);
    put_inputs(writer, plan, annotations, words);
    put_modules(writer, plan);
    put(writer, " \"nodes\":[");
    for (uint32_t n = 0; n < plan->nodes; n++)
        put_node(writer, plan, n, annotations, out);
    put(writer, "]");
    if (words != NULL) {
        put(writer, ",\n \"bindings\":[");
        for (uint32_t i = 0; i < plan->words; i++) {
            put(writer, i == 0 ? "" : ",");
            put_int(writer, words[i]);
        }
        put(writer, "]");
    }
    put(writer, "}\n");
}

enum dj_error plan_export_json(const struct srg_plan *plan, const struct srg_annotations *annotations, const int64_t *words,
                               struct writer *writer)
{
    assert(annotations == NULL || (annotations->nodes == plan->nodes && annotations->inputs == plan->inputs));

    struct tensor_meta *out = NULL;
    if (words != NULL) {
        out = malloc((plan->outputs + 1) * sizeof *out);
        if (out == NULL)
            return DJ_E_NO_MEMORY;
        enum dj_error error = plan_infer(plan, words, out, NULL, NULL, NULL);
        if (error != DJ_OK) {
            free(out);
            return error;
        }
    }
    put_plan(writer, plan, annotations, words, out);
    free(out);
    return writer->error;
}

enum dj_error plan_to_json(const struct srg_plan *plan, struct writer *writer)
{
    return plan_export_json(plan, NULL, NULL, writer);
}
