// Plans from JSON: what plan_json.c writes, and what a person or another tool wrote by hand. Fields that it does not know are ignored;
// a missing or wrong one is an error that says where. The result passes the same checks as every plan.
//
// cJSON has no bound on memory, so the text is measured first: its depth, and how many values it can contain.

#include "core/srg/export.h"
#include "core/srg/plan_internal.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Everything that can be wrong below an element is said with its name in front.
#define BAD(...) fault_set(fault, DJ_E_PLAN_INVALID, __VA_ARGS__)

// Before parsing: depth and number of values, from the punctuation outside strings. UTF-8 is checked on the way.
static enum dj_error measure(const char *text, size_t length, struct fault *fault)
{
    if (length > PLAN_JSON_BYTES_MAX)
        return BAD("%zu bytes of JSON; at most %d are read", length, PLAN_JSON_BYTES_MAX);
    size_t values = 1, depth = 0;
    bool is_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '\0')
            return BAD("a NUL in the JSON, at byte %zu", i);
        if (is_string) {
            is_string = c != '"';
            i += c == '\\';
            continue;
        }
        is_string = c == '"';
        values += c == ',' || c == '[' || c == '{';
        depth += c == '[' || c == '{';
        if (c == ']' || c == '}')
            depth -= depth > 0;
        if (depth > PLAN_JSON_DEPTH_MAX)
            return BAD("JSON nested deeper than %d, at byte %zu", PLAN_JSON_DEPTH_MAX, i);
        if (values > PLAN_JSON_VALUES_MAX)
            return fault_set(fault, DJ_E_LIMIT, "more than %d values in the JSON", PLAN_JSON_VALUES_MAX);
    }
    return DJ_OK;
}

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool take_int(const cJSON *value, int64_t *ret)
{
    if (cJSON_IsNumber(value)) {
        double number = value->valuedouble;
        if (!(number >= -9.2e18 && number <= 9.2e18) || number != trunc(number))
            return false;
        *ret = (int64_t)number;
        return true;
    }
    if (!cJSON_IsString(value) || value->valuestring[0] == '\0')
        return false;
    char *end;
    *ret = strtoll(value->valuestring, &end, 10);
    return *end == '\0';
}

static bool take_small(const cJSON *value, uint32_t max, uint32_t *ret)
{
    int64_t number;
    if (!take_int(value, &number) || number < 0 || number > (int64_t)max)
        return false;
    *ret = (uint32_t)number;
    return true;
}

static bool take_float(const cJSON *value, double *ret)
{
    if (cJSON_IsNumber(value)) {
        *ret = value->valuedouble;
        return true;
    }
    if (!cJSON_IsString(value))
        return false;
    const char *text = value->valuestring;
    *ret = strcmp(text, "nan") == 0 ? (double)NAN : strcmp(text, "inf") == 0 ? HUGE_VAL : -HUGE_VAL;
    return strcmp(text, "nan") == 0 || strcmp(text, "inf") == 0 || strcmp(text, "-inf") == 0;
}

static bool take_dtype(const cJSON *value, uint8_t *ret)
{
    enum dtype dtype;
    if (!cJSON_IsString(value) || !dtype_parse(value->valuestring, &dtype))
        return false;
    *ret = (uint8_t)dtype;
    return true;
}

static bool take_device(const cJSON *object, uint8_t *ret)
{
    const cJSON *value = member(object, "device");
    uint32_t device = UINT8_MAX;
    if (value != NULL && !cJSON_IsNull(value) && !take_small(value, UINT8_MAX - 1, &device))
        return false;
    *ret = (uint8_t)device;
    return true;
}

static enum dj_error take_input(struct plan_builder *builder, const cJSON *from, uint32_t i, struct fault *fault)
{
    struct srg_input input = {0};
    const cJSON *leaf = member(from, "leaf"), *contiguous = member(from, "contiguous");
    uint32_t rank, index;
    if (!cJSON_IsBool(leaf) || !cJSON_IsBool(contiguous))
        return BAD("input %u: \"leaf\" and \"contiguous\" must be true or false", i);
    if (!take_dtype(member(from, "dtype"), &input.dtype))
        return BAD("input %u: \"dtype\" must be the name of one, like \"float32\"", i);
    if (!take_small(member(from, "rank"), DJ_RANK_MAX, &rank))
        return BAD("input %u: \"rank\" must be 0 to %d", i, DJ_RANK_MAX);
    if (!take_device(from, &input.device))
        return BAD("input %u: \"device\" must be 0 to 254, or absent", i);
    input.is_leaf = cJSON_IsTrue(leaf);
    input.is_contiguous = cJSON_IsTrue(contiguous);
    input.rank = (uint8_t)rank;
    enum dj_error error = plan_add_input(builder, &input, &index);
    return error == DJ_OK ? DJ_OK : fault_set(fault, error, "input %u: %s", i, dj_error_text(error));
}

static enum dj_error take_module(struct plan_builder *builder, const cJSON *from, uint32_t i, uint16_t *ret, struct fault *fault)
{
    const cJSON *path = member(from, "path"), *type = member(from, "type"), *training = member(from, "training");
    if (!cJSON_IsString(path) || !cJSON_IsString(type) || (training != NULL && !cJSON_IsBool(training)))
        return BAD("module %u: must have \"path\" and \"type\", and \"training\" true or false", i);
    if (!text_is_utf8(path->valuestring) || !text_is_utf8(type->valuestring))
        return BAD("module %u: its names are not UTF-8", i);
    enum dj_error error = plan_add_module(builder, path->valuestring, type->valuestring, cJSON_IsTrue(training), ret);
    return error == DJ_OK ? DJ_OK : fault_set(fault, error, "module %u: %s", i, dj_error_text(error));
}

static bool take_number(const char **text, uint32_t *ret)
{
    if (**text < '0' || **text > '9')
        return false;
    uint64_t number = 0;
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        number = number * 10 + (uint64_t)(**text - '0');
        if (number > UINT32_MAX)
            return false;
    }
    *ret = (uint32_t)number;
    return true;
}

// null, "n12", "n12.1", "i3", "s:float64"
static bool take_ref(const cJSON *from, struct srg_ref *ret)
{
    *ret = (struct srg_ref){.kind = REF_ABSENT};
    if (cJSON_IsNull(from))
        return true;
    if (!cJSON_IsString(from))
        return false;
    const char *text = from->valuestring;
    enum dtype dtype;
    uint32_t output = 0;
    switch (*text++) {
    case 's':
        if (*text++ != ':' || !dtype_parse(text, &dtype))
            return false;
        *ret = (struct srg_ref){.kind = REF_SCALAR, .dtype = (uint8_t)dtype};
        return true;
    case 'i': ret->kind = REF_INPUT; return take_number(&text, &ret->index) && *text == '\0';
    case 'n':
        ret->kind = REF_NODE;
        if (!take_number(&text, &ret->index) || (*text == '.' && (text++, !take_number(&text, &output))) || output > UINT8_MAX)
            return false;
        ret->output = (uint8_t)output;
        return *text == '\0';
    default: return false;
    }
}

static bool take_kind(const cJSON *name, uint8_t *ret)
{
    static const char *const kinds[] = {[ATTR_INT] = "int", [ATTR_BOOL] = "bool", [ATTR_FLOAT] = "float", [ATTR_INTS] = "ints"};
    for (uint8_t kind = ATTR_INT; cJSON_IsString(name) && kind <= ATTR_INTS; kind++) {
        if (strcmp(name->valuestring, kinds[kind]) == 0) {
            *ret = kind;
            return true;
        }
    }
    return false;
}

static bool take_value(const cJSON *value, struct attr *attr, int64_t ints[ATTR_INTS_MAX])
{
    switch (attr->kind) {
    case ATTR_BOOL: attr->i = cJSON_IsTrue(value); return cJSON_IsBool(value);
    case ATTR_FLOAT: return take_float(value, &attr->f);
    case ATTR_INTS:
        if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) > ATTR_INTS_MAX)
            return false;
        for (const cJSON *item = value->child; item != NULL; item = item->next) {
            if (!take_int(item, &ints[attr->count++]))
                return false;
        }
        attr->ints = ints;
        return true;
    default: return take_int(value, &attr->i);
    }
}

static bool take_attr(const cJSON *value, const struct op_arg *arg, struct attr *attr, int64_t ints[ATTR_INTS_MAX])
{
    static const uint8_t kind_of[] = {
        [ARG_INT] = ATTR_INT,       [ARG_ENUM] = ATTR_INT,  [ARG_BOOL] = ATTR_BOOL,     [ARG_FLOAT] = ATTR_FLOAT,
        [ARG_SCALAR] = ATTR_ABSENT, [ARG_INTS] = ATTR_INTS, [ARG_IGNORED] = ATTR_ABSENT};
    *attr = (struct attr){.kind = ATTR_ABSENT};
    if (value == NULL || cJSON_IsNull(value))
        return true;
    if (!arg->is_static) {
        uint32_t count = 0;
        if (!take_kind(member(value, "bound"), &attr->kind))
            return false;
        if (attr->kind == ATTR_INTS && !take_small(member(value, "count"), ATTR_INTS_MAX, &count))
            return false;
        static const int64_t zeros[ATTR_INTS_MAX];
        attr->count = (uint8_t)count;
        if (attr->kind == ATTR_INTS)
            attr->ints = zeros;
        return true;
    }
    if (arg->kind == ARG_SCALAR) {
        if (!take_kind(member(value, "static"), &attr->kind))
            return false;
        value = member(value, "value");
        return value != NULL && take_value(value, attr, ints);
    }
    attr->kind = kind_of[arg->kind];
    return take_value(value, attr, ints);
}

static enum dj_error take_attrs(const cJSON *from, const struct op_info *op, uint32_t n, struct attr *attr,
                                int64_t ints[OP_ATTRS_MAX][ATTR_INTS_MAX], struct fault *fault)
{
    if (from != NULL && !cJSON_IsObject(from))
        return BAD("node %u (%s): \"attrs\" must be an object", n, op->name);
    for (uint32_t i = 0; i < op->args; i++) {
        const struct op_arg *arg = &op->arg[i];
        if (arg->attr >= 0 && !take_attr(member(from, arg->name), arg, &attr[arg->attr], ints[arg->attr]))
            return BAD("node %u (%s): attribute \"%s\" does not fit the signature \"%s\"", n, op->name, arg->name, op->signature);
    }
    for (const cJSON *item = from == NULL ? NULL : from->child; item != NULL; item = item->next) {
        uint32_t i = 0;
        while (i < op->args && (op->arg[i].attr < 0 || strcmp(op->arg[i].name, item->string) != 0))
            i++;
        if (i == op->args)
            return BAD("node %u (%s): has no attribute \"%.40s\"", n, op->name, item->string);
    }
    return DJ_OK;
}

static enum dj_error take_node(struct plan_builder *builder, const cJSON *from, uint32_t n, const uint16_t *modules,
                               uint32_t n_modules, struct fault *fault)
{
    const cJSON *name = member(from, "op"), *in = member(from, "in"), *out = member(from, "out");
    if (!cJSON_IsString(name) || !cJSON_IsArray(in) || !cJSON_IsArray(out))
        return BAD("node %u: must have \"op\", \"in\" and \"out\"", n);
    const struct op_info *op = op_find(name->valuestring);
    if (op == NULL)
        return fault_set(fault, DJ_E_OP_UNKNOWN, "node %u: there is no op \"%.60s\"", n, name->valuestring);

    struct srg_ref ref[OP_INPUTS_MAX];
    uint32_t refs = 0, outputs = 0, module = 0, index;
    for (const cJSON *item = in->child; item != NULL; item = item->next, refs++) {
        if (refs == OP_INPUTS_MAX || !take_ref(item, &ref[refs]))
            return BAD("node %u (%s): operand %u must be null, \"n<node>\", \"n<node>.<output>\", \"i<input>\" or \"s:<dtype>\"",
                       n, op->name, refs);
    }
    uint8_t dtype[OP_OUTPUTS_MAX] = {0}, device;
    for (const cJSON *item = out->child; item != NULL; item = item->next, outputs++) {
        if (outputs == op->outputs || !take_dtype(item, &dtype[outputs]))
            return BAD("node %u (%s): \"out\" must name %u dtypes", n, op->name, op->outputs);
    }
    struct attr attr[OP_ATTRS_MAX];
    int64_t ints[OP_ATTRS_MAX][ATTR_INTS_MAX];
    enum dj_error error = take_attrs(member(from, "attrs"), op, n, attr, ints, fault);
    if (error != DJ_OK)
        return error;
    const cJSON *where = member(from, "module");
    if (where != NULL && (!take_small(where, UINT32_MAX, &module) || module >= n_modules))
        return BAD("node %u (%s): \"module\" must be 0 to %u", n, op->name, n_modules == 0 ? 0 : n_modules - 1);
    if (!take_device(from, &device))
        return BAD("node %u (%s): \"device\" must be 0 to 254, or absent", n, op->name);
    error = plan_add_node(builder, op, ref, refs, attr, dtype, where == NULL ? 0 : modules[module], device, &index);
    return error == DJ_OK ? DJ_OK : fault_set(fault, error, "node %u (%s): %s", n, op->name, dj_error_text(error));
}

static enum dj_error take_parts(struct plan_builder *builder, const cJSON *root, struct fault *fault)
{
    const cJSON *inputs = member(root, "inputs"), *modules = member(root, "modules"), *nodes = member(root, "nodes");
    if (!cJSON_IsArray(inputs) || !cJSON_IsArray(nodes) || (modules != NULL && !cJSON_IsArray(modules)))
        return BAD("the plan must have the lists \"inputs\" and \"nodes\", and may have \"modules\"");
    enum dj_error error = DJ_OK;
    uint32_t i = 0;
    for (const cJSON *item = inputs->child; item != NULL && error == DJ_OK; item = item->next)
        error = take_input(builder, item, i++, fault);

    uint32_t n_modules = modules == NULL ? 0 : (uint32_t)cJSON_GetArraySize(modules);
    uint16_t *module = malloc((n_modules + 1) * sizeof *module);
    if (module == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for %u modules", n_modules);
    i = 0;
    for (const cJSON *item = modules == NULL ? NULL : modules->child; item != NULL && error == DJ_OK; item = item->next, i++)
        error = take_module(builder, item, i, &module[i], fault);
    i = 0;
    for (const cJSON *item = nodes->child; item != NULL && error == DJ_OK; item = item->next)
        error = take_node(builder, item, i++, module, n_modules, fault);
    free(module);
    return error;
}

// A text that names its fingerprint must have it: so a copy that was damaged or changed on its way is noticed.
static enum dj_error check_fingerprint(const cJSON *root, const struct srg_plan *plan, struct fault *fault)
{
    const cJSON *claim = member(root, "fingerprint");
    struct hash128 claimed;
    if (claim == NULL)
        return DJ_OK;
    if (cJSON_IsString(claim) && hash128_parse(claim->valuestring, &claimed) && hash128_equal(claimed, plan->fingerprint))
        return DJ_OK;
    char text[HASH128_TEXT];
    hash128_text(plan->fingerprint, text);
    return BAD("\"fingerprint\" is not that of the contents, %s; remove it if the plan was edited on purpose", text);
}

static enum dj_error take_plan(const cJSON *root, struct srg_plan **ret, struct fault *fault)
{
    const cJSON *schema = member(root, "schema");
    if (!cJSON_IsString(schema) || strcmp(schema->valuestring, "djinn.srg.v1") != 0)
        return BAD("\"schema\" must be \"djinn.srg.v1\"");
    struct plan_builder *builder;
    enum dj_error error = plan_builder_make(&builder);
    if (error != DJ_OK)
        return fault_set(fault, error, "no memory to read a plan");
    struct srg_plan *plan = NULL;
    error = take_parts(builder, root, fault);
    if (error == DJ_OK)
        error = plan_finish(builder, &plan, fault);
    plan_builder_free(builder);
    if (error == DJ_OK)
        error = check_fingerprint(root, plan, fault);
    if (error == DJ_OK)
        *ret = plan;
    else
        plan_drop(plan);
    return error;
}

enum dj_error plan_from_json(const char *text, size_t length, struct srg_plan **ret, struct fault *fault)
{
    enum dj_error error = measure(text, length, fault);
    if (error != DJ_OK)
        return error;
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, length, &end, false);
    if (root == NULL)
        return BAD("not JSON: it cannot be read on from byte %td", end == NULL ? 0 : end - text);
    while (end < text + length && strchr(" \t\r\n", *end) != NULL)
        end++;
    error = end == text + length ? take_plan(root, ret, fault) : BAD("something follows the JSON, at byte %td", end - text);
    cJSON_Delete(root);
    return error;
}
