// Op table: ops.def as arrays, its signatures parsed once. A malformed row aborts at start-up: it is a bug in the build, and
// every program and test calls ops_init.

#include "core/ops/infer.h"

#include <string.h>

static struct op_info infos[] = {
#define OP(number_, NAME_, aten_, signature_, outputs_, shape_, dtype_, cost_, flags_) \
    {.number = number_, .flags = flags_, .outputs = outputs_, .name = #NAME_, .aten = aten_, .signature = signature_},
#include "core/ops/ops.def"
#undef OP
};

enum { OP_ROWS = sizeof infos / sizeof infos[0] };

struct op_row op_rows[OP_LIMIT] = {
#define OP(number_, NAME_, aten_, signature_, outputs_, shape_, dtype_, cost_, flags_) \
    [number_] = {.infer = infer_##shape_, .dtype_rule = RULE_##dtype_, .cost_rule = COST_##cost_},
#include "core/ops/ops.def"
#undef OP
};

#define OP(number_, NAME_, aten_, signature_, outputs_, shape_, dtype_, cost_, flags_) \
    _Static_assert(number_ > 0 && number_ < OP_LIMIT && outputs_ >= 1 && outputs_ <= OP_OUTPUTS_MAX, #NAME_);
#include "core/ops/ops.def"
#undef OP

static const struct op_info *by_number[OP_LIMIT];
static bool is_ready;

// Enumerations are told apart by their argument's name; how many numbers each has.
static uint8_t enum_limit(const char *name)
{
    static const struct {
        const char *name;
        uint8_t limit;
    } limits[] = {
        {"format", FORMAT_CHANNELS_LAST_3D + 1},
        {"approximate", GELU_TANH + 1},
        {"rounding", ROUND_FLOOR + 1},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (strcmp(limits[i].name, name) == 0)
            return limits[i].limit;
    assert(!"an enumeration has a known name");
    return 0;
}

static enum arg_kind parse_kind(const char *text, size_t length, bool *is_optional)
{
    static const struct {
        const char *text;
        enum arg_kind kind;
        bool is_optional;
    } kinds[] = {
        {"T", ARG_TENSOR, false}, {"T?", ARG_TENSOR_OPT, true}, {"T[]", ARG_TENSORS, false}, {"T?[]", ARG_TENSORS_OPT, true},
        {"i", ARG_INT, false},    {"i?", ARG_INT, true},        {"b", ARG_BOOL, false},      {"b?", ARG_BOOL, true},
        {"f", ARG_FLOAT, false},  {"f?", ARG_FLOAT, true},      {"n", ARG_SCALAR, false},    {"n?", ARG_SCALAR, true},
        {"i[]", ARG_INTS, false}, {"i[]?", ARG_INTS, true},     {"e", ARG_ENUM, false},      {"e?", ARG_ENUM, true},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strlen(kinds[i].text) == length && memcmp(kinds[i].text, text, length) == 0) {
            *is_optional = kinds[i].is_optional;
            return kinds[i].kind;
        }
    }
    assert(!"a signature has a known kind");
    return ARG_IGNORED;
}

static uint8_t attr_kinds(const struct op_arg *arg)
{
    uint8_t kinds = arg->is_optional ? 1u << ATTR_ABSENT : 0;
    switch ((enum arg_kind)arg->kind) {
    case ARG_INT:
    case ARG_ENUM: return (uint8_t)(kinds | 1u << ATTR_INT);
    case ARG_BOOL: return (uint8_t)(kinds | 1u << ATTR_BOOL);
    case ARG_FLOAT: return (uint8_t)(kinds | 1u << ATTR_FLOAT);
    case ARG_SCALAR: return (uint8_t)(kinds | 1u << ATTR_INT | 1u << ATTR_BOOL | 1u << ATTR_FLOAT);
    case ARG_INTS: return (uint8_t)(kinds | 1u << ATTR_INTS);
    default: return 0;
    }
}

static void add_input(struct op_info *info, struct op_row *row, const struct op_arg *arg)
{
    if (arg->kind == ARG_TENSORS || arg->kind == ARG_TENSORS_OPT) {
        assert(row->list < 0);
        row->list = (int8_t)row->fixed;
        row->list_is_optional = arg->kind == ARG_TENSORS_OPT;
    } else {
        if (arg->kind == ARG_TENSOR_OPT)
            row->optional |= 1u << row->fixed;
        row->fixed++;
    }
    info->inputs_min++;
}

static void add_attr(struct op_info *info, struct op_row *row, struct op_arg *arg)
{
    assert(info->attrs < OP_ATTRS_MAX);
    row->attr_kinds[info->attrs] = attr_kinds(arg);
    row->attr_limit[info->attrs] = arg->kind == ARG_ENUM ? enum_limit(arg->name) : 0;
    arg->attr = (int8_t)info->attrs++;
}

// One argument: `_`, or name:kind, or name:!kind.
static void parse_arg(struct op_info *info, struct op_row *row, const char *text, size_t length)
{
    assert(info->args < OP_ARGS_MAX);
    struct op_arg *arg = &info->arg[info->args++];
    arg->attr = -1;
    arg->kind = ARG_IGNORED;
    if (length == 1 && text[0] == '_') {
        arg->name[0] = '_';
        return;
    }
    const char *colon = memchr(text, ':', length);
    assert(colon != NULL && colon > text && (size_t)(colon - text) < sizeof arg->name);
    memcpy(arg->name, text, (size_t)(colon - text));
    const char *kind = colon + 1, *end = text + length;
    if (kind < end && *kind == '!') {
        arg->is_static = true;
        kind++;
    }
    bool is_optional = false;
    arg->kind = (uint8_t)parse_kind(kind, (size_t)(end - kind), &is_optional);
    arg->is_optional = is_optional;
    if (arg->kind <= ARG_TENSORS_OPT)
        add_input(info, row, arg);
    else
        add_attr(info, row, arg);
}

void ops_init(void)
{
    if (is_ready)
        return;
    for (uint32_t i = 0; i < OP_ROWS; i++) {
        struct op_info *info = &infos[i];
        struct op_row *row = &op_rows[info->number];
        assert(by_number[info->number] == NULL);
        by_number[info->number] = info;
        row->list = -1;
        for (const char *text = info->signature; *text != '\0';) {
            size_t length = strcspn(text, " ");
            parse_arg(info, row, text, length);
            text += length + (text[length] == ' ');
        }
    }
    is_ready = true;
}

const struct op_info *op_info(uint32_t number)
{
    return number < OP_LIMIT ? by_number[number] : NULL;
}

const struct op_info *op_find(const char *name)
{
    if (name[0] == '\0')    // rows without an ATen name have an empty one
        return NULL;
    for (uint32_t i = 0; i < OP_ROWS; i++)
        if (strcmp(infos[i].name, name) == 0 || strcmp(infos[i].aten, name) == 0)
            return &infos[i];
    return NULL;
}

uint32_t op_count(void)
{
    return OP_ROWS;
}

const struct op_info *op_at(uint32_t row)
{
    assert(row < OP_ROWS);
    return &infos[row];
}
