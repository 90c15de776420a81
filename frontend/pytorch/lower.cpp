// C++ because it registers boxed kernels with PyTorch's dispatcher.
// Lowering: one functor for each ATen op that the op table (dj_op_table) knows, as function, in place (`op_`) and with `out=`. At
// registration the row's signature and the op's schema become a short program of steps, one an argument; a call runs the steps over
// the stack, records the op, and wraps what comes back. What the program cannot express (complex numbers, an op that no worker has)
// goes to the client's CPU, with the arguments untouched.

#include "lower.h"

#include <ATen/ScalarOps.h>
#include <ATen/WrapDimUtils.h>
#include <c10/core/ScalarType.h>
#include <torch/library.h>

#include <unordered_map>

namespace djinn
{

namespace
{

std::vector<std::string> problems, lowered;

// ------------------------------------------------------------------ from the table's signature to steps

std::vector<std::string> words_of(const char *text)
{
    std::vector<std::string> words;
    for (const char *at = text; *at;) {
        while (*at == ' ')
            at++;
        const char *start = at;
        while (*at && *at != ' ')
            at++;
        if (at > start)
            words.emplace_back(start, at);
    }
    return words;
}

bool step_of(const std::string &word, const c10::Argument &argument, step *ret)
{
    *ret = {};
    if (word == "_") {
        ret->kind = argument.name() == "dtype" || argument.name() == "input_dtype" ? step::DTYPE : step::IGNORED;
        return true;
    }
    size_t colon = word.find(':');
    if (colon == std::string::npos)
        return false;
    std::string kind = word.substr(colon + 1);
    if (!kind.empty() && kind[0] == '!')
        kind.erase(0, 1);
    std::string type = argument.type()->str();
    bool is_list = type.find('[') != std::string::npos || type.find("List") != std::string::npos;
    if (kind == "T" || kind == "T?")
        ret->kind = step::TENSOR;
    else if (kind == "T[]" || kind == "T?[]")
        ret->kind = step::TENSORS;
    else if (kind == "i" || kind == "i?")
        ret->kind = step::INT;
    else if (kind == "b" || kind == "b?")
        ret->kind = step::BOOL;
    else if (kind == "f" || kind == "f?")
        ret->kind = step::FLOAT;
    else if (kind == "n" || kind == "n?")
        ret->kind = step::SCALAR;
    else if (kind == "i[]" || kind == "i[]?")
        ret->kind = step::INTS;
    else if (kind == "e" || kind == "e?")
        ret->kind = step::ENUM;
    else
        return false;
    ret->takes_cpu = kind == "T?[]";
    bool wants_list = ret->kind == step::TENSORS || ret->kind == step::INTS;
    return wants_list == is_list;
}

// ------------------------------------------------------------------ one call

int64_t int_of(const c10::IValue &value)
{
    return value.isInt() ? value.toInt() : value.toSymInt().guard_int(__FILE__, __LINE__);
}

constexpr int64_t UNKNOWN_ENUM = -1;

// core/ops/op.h: gelu_form, rounding; memory formats are PyTorch's own numbers.
int64_t enum_of(const c10::IValue &value)
{
    if (value.isInt())
        return value.toInt();
    const std::string &word = value.toStringRef();
    if (word == "none")
        return 0;
    if (word == "tanh" || word == "trunc")
        return 1;
    if (word == "floor")
        return 2;
    return UNKNOWN_ENUM;
}

bool attr_of_scalar(const c10::IValue &value, dj_attr *attr)
{
    if (value.isInt()) {
        attr->kind = DJ_ATTR_INT;
        attr->value.i = value.toInt();
    } else if (value.isDouble()) {
        attr->kind = DJ_ATTR_FLOAT;
        attr->value.f = value.toDouble();
    } else if (value.isBool()) {
        attr->kind = DJ_ATTR_BOOL;
        attr->value.i = value.toBool();
    } else if (value.isSymInt()) {
        attr->kind = DJ_ATTR_INT;
        attr->value.i = int_of(value);
    } else {
        return false;
    }
    return true;
}

}    // namespace

call_inputs::~call_inputs()
{
    for (dj_cell *cell : uploaded)
        dj_cell_drop(cell);
}

bool call_inputs::add(const at::Tensor &tensor, bool takes_cpu, const char *name, bool is_view)
{
    dj_arg arg = {};
    if (tensor.defined()) {
        if (tensor.device().type() == REMOTE) {
            if (C10_UNLIKELY(!is_view && (tensor.is_complex() || tensor.is_conj() || tensor.is_neg())))
                return false;
            window_of(tensor, &window[count]);
            if (!device.has_value()) {
                device = tensor.device();
                placement = -1;
            } else {
                TORCH_CHECK(*device == tensor.device(),
                            "Expected all tensors to be on the same device, but found at least two devices, ", *device, " and ",
                            tensor.device(), "!");
            }
            arg.kind = DJ_ARG_TENSOR;
            arg.tensor = &window[count];
        } else if (tensor.dim() == 0 && tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
            if (tensor.is_complex())
                return false;
            arg.kind = DJ_ARG_SCALAR;
            if (tensor.is_floating_point()) {
                arg.scalar_dtype = DTYPE_F64;
                double number = tensor.item().toDouble();
                memcpy(&arg.scalar, &number, sizeof number);
            } else {
                arg.scalar_dtype = tensor.scalar_type() == at::kBool ? DTYPE_BOOL : DTYPE_I64;
                arg.scalar = tensor.item().toLong();
            }
        } else {
            TORCH_CHECK(
                takes_cpu || tensor.dim() == 0, "Expected all tensors to be on the same device, but found at least two devices, ",
                device.value_or(device_of_index(-1)), " and ", tensor.device(), "! (when checking argument for ", name, ")");
            if (tensor.is_complex())
                return false;
            tensor_upload_window(tensor, device ? placement_of_index(device->index()) : DJ_ANY_DEVICE, &window[count]);
            uploaded.push_back(window[count].cell);
            arg.kind = DJ_ARG_TENSOR;
            arg.tensor = &window[count];
        }
    }
    in[count++] = arg;
    return true;
}

// Runs the steps over the arguments. False when the call is one that only the CPU can do.
bool lowering::gather(const c10::IValue *arguments, call_inputs *call, dj_attr *attr, int64_t (*ints)[DJ_ATTR_INTS_MAX],
                      int32_t *dtype) const
{
    uint32_t tensors = 0;
    for (size_t i = 0; i < steps.size(); i++)
        tensors += steps[i].kind == step::TENSOR    ? 1
                   : steps[i].kind == step::TENSORS ? static_cast<uint32_t>(arguments[i].toListRef().size())
                                                    : 0;
    call->reserve(tensors);
    uint32_t attrs = 0;
    for (size_t i = 0; i < steps.size(); i++) {
        const c10::IValue &value = arguments[i];
        const step &s = steps[i];
        if (s.kind == step::TENSOR) {
            if (!call->add(value.isNone() ? at::Tensor() : value.toTensor(), false, name.c_str(), is_view))
                return false;
            continue;
        }
        if (s.kind == step::TENSORS) {
            for (const c10::IValue &item : value.toListRef())
                if (!call->add(item.isNone() ? at::Tensor() : item.toTensor(), s.takes_cpu, name.c_str()))
                    return false;
            continue;
        }
        if (s.kind == step::IGNORED)
            continue;
        if (s.kind == step::DTYPE) {
            if (!value.isNone()) {
                *dtype = dtype_number(value.toScalarType());
                if (*dtype == 0 || *dtype >= DTYPE_C64)
                    return false;
            }
            continue;
        }
        dj_attr *a = &attr[attrs++];
        *a = {};
        if (value.isNone())
            continue;
        switch (s.kind) {
        case step::INT:
            a->kind = DJ_ATTR_INT;
            a->value.i = int_of(value);
            break;
        case step::BOOL:
            a->kind = DJ_ATTR_BOOL;
            a->value.i = value.toBool();
            break;
        case step::FLOAT:
            a->kind = DJ_ATTR_FLOAT;
            a->value.f = value.toDouble();
            break;
        case step::ENUM:
            a->kind = DJ_ATTR_INT;
            a->value.i = enum_of(value);
            if (a->value.i == UNKNOWN_ENUM)
                return false;
            break;
        case step::INTS: {
            c10::ArrayRef<c10::IValue> items = value.toListRef();
            if (items.size() > DJ_ATTR_INTS_MAX)
                return false;
            int64_t *to = ints[attrs - 1];
            for (size_t k = 0; k < items.size(); k++)
                to[k] = int_of(items[k]);
            a->kind = DJ_ATTR_INTS;
            a->count = static_cast<uint8_t>(items.size());
            a->value.ints = to;
            break;
        }
        default:
            if (!attr_of_scalar(value, a))
                return false;
        }
    }
    return true;
}

bool dtype_is_narrow(c10::ScalarType type)
{
    return type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
}

bool lowering::is_native()
{
    // Only a yes is kept: a worker that has the op may join later. relaxed: both answers of a race are right.
    if (C10_LIKELY(native.load(std::memory_order_relaxed)))
        return true;
    connect();
    bool answer;
    {
        without_python_lock unlocked;
        answer = dj_op_is_native(op) > 0;
    }
    native.store(answer, std::memory_order_relaxed);
    return answer;
}

void lowering::operator()(const c10::OperatorHandle &handle, c10::DispatchKeySet, torch::jit::Stack *stack)
{
    note_site();
    recording now;
    if (C10_UNLIKELY(!is_native()))
        return fallback(handle, stack);
    const c10::IValue *arguments = stack->data() + stack->size() - arguments_count;
    call_inputs call;
    dj_attr attr[DJ_ATTRS_MAX];
    int64_t ints[DJ_ATTRS_MAX][DJ_ATTR_INTS_MAX];
    int32_t dtype = 0;
    if (C10_UNLIKELY(is_narrow && !dtype_is_narrow(arguments[0].toTensor().scalar_type())))
        return fallback(handle, stack);
    if (C10_UNLIKELY(!gather(arguments, &call, attr, ints, &dtype)))
        return fallback(handle, stack);

    dj_tensor out[DJ_MAX_OUTPUTS];
    dj_fault fault;
    fault.text[0] = 0;
    fault.site = 0;
    int error = dj_record(op, call.in, call.count, attr, attrs_count, dtype, call.placement, out, &fault);
    if (C10_UNLIKELY(error != 0)) {
        // A dtype that no kernel takes may be one that PyTorch takes; if not, its own message is the one users know.
        if (error == ERROR_UNSUPPORTED || error == ERROR_OP_UNSUPPORTED || error == ERROR_OP_UNKNOWN || error == ERROR_DTYPE)
            return fallback(handle, stack);
        raise_fault(error, fault, name.c_str());
    }
    c10::Device device = call.device.value_or(device_of_index(-1));
    switch (form) {
    case FUNCTION: {
        at::Tensor base;
        if (is_view)
            base = arguments[0].toTensor();
        torch::jit::drop(*stack, arguments_count);
        for (uint32_t i = 0; i < outputs; i++)
            stack->emplace_back(is_view ? tensor_view(base, out[i]) : tensor_make(out[i], device));
        return;
    }
    case IN_PLACE: {
        at::Tensor self = arguments[0].toTensor();
        write_in_place(self, out[0]);
        torch::jit::drop(*stack, arguments_count);
        stack->emplace_back(std::move(self));
        return;
    }
    case OUT:
        c10::SmallVector<at::Tensor, DJ_MAX_OUTPUTS> targets;
        for (uint32_t i = 0; i < outputs; i++)
            targets.push_back(arguments[steps.size() + i].toTensor());
        for (uint32_t i = 0; i < outputs; i++)
            write_out(targets[i], is_view ? tensor_view(arguments[0].toTensor(), out[i]) : tensor_make(out[i], device),
                      name.c_str());
        torch::jit::drop(*stack, arguments_count);
        for (at::Tensor &target : targets)
            stack->emplace_back(std::move(target));
        return;
    }
}

void lowering::write_in_place(const at::Tensor &self, const dj_tensor &result) const
{
    struct holder {
        dj_cell *cell;
        ~holder()
        {
            dj_cell_drop(cell);
        }
    } dropped{result.cell};
    c10::IntArrayRef size(result.size, result.rank);
    TORCH_CHECK(self.sizes() == size, "output with shape ", self.sizes(), " doesn't match the broadcast shape ", size);
    c10::ScalarType type = scalar_type(result.dtype);
    TORCH_CHECK(c10::canCast(type, self.scalar_type()), "result type ", type, " can't be cast to the desired output type ",
                self.scalar_type());
    tensor_write(self, result, name.c_str());
}

void write_out(const at::Tensor &target, const at::Tensor &result, const char *name)
{
    TORCH_CHECK(is_remote(target), "Expected all tensors to be on the same device, but found at least two devices, ",
                result.device(), " and ", target.device(), "!");
    TORCH_CHECK(c10::canCast(result.scalar_type(), target.scalar_type()), "result type ", result.scalar_type(),
                " can't be cast to the desired output type ", target.scalar_type());
    if (target.sizes() != result.sizes())
        target.resize_(result.sizes());
    dj_tensor window;
    window_of(result, &window);
    tensor_write(target, window, name);
}

namespace
{

// ------------------------------------------------------------------ registration

using handles = std::vector<c10::OperatorHandle>;

std::unordered_map<std::string, handles> ops_by_base()
{
    std::unordered_map<std::string, handles> found;
    c10::Dispatcher &dispatcher = c10::Dispatcher::singleton();
    for (const c10::OperatorName &name : dispatcher.getAllOpNames()) {
        if (name.name.rfind("aten::", 0) != 0)
            continue;
        auto handle = dispatcher.findSchema(name);
        if (handle)
            found[name.name.substr(6)].push_back(*handle);
    }
    return found;
}

std::string full_name(const c10::OperatorHandle &handle)
{
    const c10::OperatorName &name = handle.operator_name();
    return name.overload_name.empty() ? name.name.substr(6) : name.name.substr(6) + "." + name.overload_name;
}

uint32_t out_arguments(const c10::FunctionSchema &schema)
{
    uint32_t count = 0;
    for (const c10::Argument &argument : schema.arguments())
        count += argument.is_out();
    return count;
}

bool takes_as(const c10::FunctionSchema &a, const c10::FunctionSchema &b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (*a.arguments()[i].type() != *b.arguments()[i].type())
            return false;
    return true;
}

constexpr const char *NARROW_OPS[] = {"MAX_POOL2D",          "AVG_POOL2D",          "ADAPTIVE_AVG_POOL2D",          "LAYER_NORM",
                                      "MAX_POOL2D_BACKWARD", "AVG_POOL2D_BACKWARD", "ADAPTIVE_AVG_POOL2D_BACKWARD", "GROUP_NORM"};

std::unique_ptr<lowering> lowering_make(const dj_op &row, const c10::OperatorHandle &function, const c10::OperatorHandle &target,
                                        lowering_form form)
{
    auto made = std::make_unique<lowering>();
    made->op = row.number;
    made->outputs = row.outputs;
    made->attrs_count = row.attrs;
    made->is_view = (row.flags & OP_FLAG_VIEW) != 0;
    for (const char *narrow : NARROW_OPS)
        made->is_narrow |= strcmp(row.name, narrow) == 0;
    made->form = form;
    made->name = full_name(target);
    made->arguments_count = target.schema().arguments().size();
    std::vector<std::string> words = words_of(row.signature);
    const std::vector<c10::Argument> &arguments = function.schema().arguments();
    if (words.size() > arguments.size())
        return nullptr;
    uint32_t attrs = 0;
    for (size_t i = 0; i < arguments.size(); i++) {
        step s;
        // Arguments past the signature's end (sort.stable and such never get here) are optional ones that the row leaves out.
        if (i >= words.size())
            return nullptr;
        if (!step_of(words[i], arguments[i], &s))
            return nullptr;
        attrs += s.kind != step::TENSOR && s.kind != step::TENSORS && s.kind != step::IGNORED && s.kind != step::DTYPE;
        made->steps.push_back(s);
    }
    return attrs == row.attrs ? std::move(made) : nullptr;
}

bool has_kernel(const c10::OperatorHandle &handle, c10::DispatchKey key)
{
    return handle.hasKernelForDispatchKey(key);
}

void impl(torch::Library &library, const c10::OperatorHandle &handle, std::unique_ptr<lowering> kernel)
{
    lowered.push_back(full_name(handle));
    library.impl(full_name(handle).c_str(), torch::CppFunction::makeFromBoxedFunctor(std::move(kernel)));
}

void register_row(torch::Library &library, const std::unordered_map<std::string, handles> &ops, const dj_op &row)
{
    if (!row.aten[0] || (row.flags & OP_FLAG_MANUAL))
        return;
    std::string aten = row.aten, base = aten.substr(0, aten.find('.'));
    auto function = c10::Dispatcher::singleton().findSchema({"aten::" + base, aten == base ? "" : aten.substr(base.size() + 1)});
    if (!function || !lowering_make(row, *function, *function, FUNCTION)) {
        problems.push_back(aten + ": " + row.signature);
        return;
    }
    if (!has_kernel(*function, c10::DispatchKey::PrivateUse1))
        impl(library, *function, lowering_make(row, *function, *function, FUNCTION));
    size_t count = function->schema().arguments().size();
    bool is_view = (row.flags & OP_FLAG_VIEW) != 0;
    auto in_place = ops.find(base + "_");
    if (in_place != ops.end() && !is_view && row.outputs == 1)
        for (const c10::OperatorHandle &handle : in_place->second)
            if (handle.schema().arguments().size() == count && takes_as(handle.schema(), function->schema(), count) &&
                !has_kernel(handle, c10::DispatchKey::PrivateUse1) &&
                !has_kernel(handle, c10::DispatchKey::CompositeImplicitAutograd))
                impl(library, handle, lowering_make(row, *function, handle, IN_PLACE));
    auto same_base = ops.find(base);
    for (const c10::OperatorHandle &handle : same_base->second)
        if (out_arguments(handle.schema()) == row.outputs && handle.schema().arguments().size() == count + row.outputs &&
            takes_as(handle.schema(), function->schema(), count) && !has_kernel(handle, c10::DispatchKey::PrivateUse1))
            impl(library, handle, lowering_make(row, *function, handle, OUT));
}

bool returns_view(const c10::FunctionSchema &schema)
{
    for (const c10::Argument &result : schema.returns())
        if (result.alias_info() && !result.alias_info()->isWrite())
            return true;
    return false;
}

void fallback_kernel(const c10::OperatorHandle &op, torch::jit::Stack *stack)
{
    note_site();
    recording now;
    fallback(op, stack);
}

}    // namespace

void register_ops()
{
    static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
    auto ops = ops_by_base();
    uint32_t rows = 0;
    const dj_op *table = dj_op_table(&rows);
    for (uint32_t i = 0; i < rows; i++)
        register_row(library, ops, table[i]);
    for (const auto &[base, list] : ops)
        for (const c10::OperatorHandle &handle : list) {
            bool is_cpu_only = has_kernel(handle, c10::DispatchKey::CPU) ||
                               has_kernel(handle, c10::DispatchKey::CompositeExplicitAutogradNonFunctional);
            if (is_cpu_only && !has_kernel(handle, c10::DispatchKey::PrivateUse1) &&
                !has_kernel(handle, c10::DispatchKey::CompositeImplicitAutograd) && !returns_view(handle.schema()))
                library.impl(full_name(handle).c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback_kernel>());
        }
}

const std::vector<std::string> &lowering_problems()
{
    return problems;
}
const std::vector<std::string> &lowered_ops()
{
    return lowered;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library)
{
    library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback_kernel>());
}

}    // namespace djinn
