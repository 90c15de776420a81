// C++ because its kernels have PyTorch's signatures.
// Tensors out of nothing: empty, constant, counted and random ones. A constant is one FULL node, never an empty tensor that is filled.
// Random ones carry (seed, offset), pinned here.

#include "shim.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Utils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>

namespace djinn
{

attr_list &attr_list::integer(int64_t value)
{
    attr[count].kind = DJ_ATTR_INT;
    attr[count++].value.i = value;
    return *this;
}

attr_list &attr_list::boolean(bool value)
{
    attr[count].kind = DJ_ATTR_BOOL;
    attr[count++].value.i = value;
    return *this;
}

attr_list &attr_list::real(double value)
{
    attr[count].kind = DJ_ATTR_FLOAT;
    attr[count++].value.f = value;
    return *this;
}

attr_list &attr_list::ints(c10::IntArrayRef value)
{
    TORCH_CHECK(value.size() <= 32, "remote_accelerator: a list of ", value.size(), " numbers is longer than ops take");
    attr[count].kind = DJ_ATTR_INTS;
    attr[count].count = static_cast<uint8_t>(value.size());
    attr[count++].value.ints = value.data();
    return *this;
}

attr_list &attr_list::scalar(const c10::Scalar &value)
{
    TORCH_CHECK(!value.isComplex(), "remote_accelerator does not compute with complex numbers");
    if (value.isFloatingPoint())
        return real(value.toDouble());
    return value.isBoolean() ? boolean(value.toBool()) : integer(value.toLong());
}

attr_list &attr_list::absent()
{
    attr[count++].kind = DJ_ATTR_ABSENT;
    return *this;
}

dj_arg arg_of(const dj_tensor *window)
{
    dj_arg arg = {};
    arg.kind = window ? DJ_ARG_TENSOR : DJ_ARG_ABSENT;
    arg.tensor = window;
    return arg;
}

uint32_t op_number(const char *name)
{
    const dj_op *op = dj_op_find(name);
    TORCH_CHECK(op, "this build of libdjinn has no op ", name);
    return op->number;
}

void record(uint32_t op, c10::ArrayRef<dj_arg> in, const attr_list &attrs, int32_t dtype, int placement, dj_tensor *out,
            const char *name)
{
    note_site();
    dj_fault fault;
    fault.text[0] = 0;
    fault.site = 0;
    int error = dj_record(op, in.data(), static_cast<uint32_t>(in.size()), attrs.attr, attrs.count, dtype, placement, out,
                          &fault);
    if (C10_UNLIKELY(error != 0))
        raise_fault(error, fault, name);
}

at::Tensor full_make(c10::IntArrayRef size, const c10::Scalar &value, c10::ScalarType type, c10::Device device, int placement)
{
    static const uint32_t op = op_number("FULL");
    int32_t dtype = dtype_number(type);
    TORCH_CHECK_TYPE(dtype != 0 && dtype < DTYPE_C64, "remote_accelerator does not compute with dtype ", type);
    for (int64_t length : size)
        TORCH_CHECK(length >= 0, "Trying to create tensor with negative dimension ", length, ": ", size);
    dj_tensor out;
    record(op, {}, attr_list().ints(size).scalar(value), dtype, placement, &out, "full");
    return tensor_make(out, device);
}

namespace
{

using maybe_type = std::optional<at::ScalarType>;
using maybe_layout = std::optional<at::Layout>;
using maybe_device = std::optional<at::Device>;
using maybe_bool = std::optional<bool>;
using maybe_format = std::optional<at::MemoryFormat>;
using maybe_generator = std::optional<at::Generator>;

at::ScalarType type_or_default(maybe_type type)
{
    return type ? *type : c10::get_default_dtype_as_scalartype();
}

at::Tensor empty_like_window(c10::IntArrayRef size, maybe_type type, maybe_device device, c10::IntArrayRef stride)
{
    int placement;
    c10::Device on = device_asked(device, &placement);
    return tensor_empty(size, stride, type_or_default(type), on, placement);
}

void contiguous_strides(c10::IntArrayRef size, c10::SmallVector<int64_t, 8> *stride)
{
    stride->resize(size.size());
    int64_t step = 1;
    for (size_t i = size.size(); i-- > 0;) {
        (*stride)[i] = step;
        step *= std::max<int64_t>(size[i], 1);
    }
}

at::Tensor empty(c10::IntArrayRef size, maybe_type type, maybe_layout layout, maybe_device device, maybe_bool,
                 maybe_format format)
{
    TORCH_CHECK(layout.value_or(at::kStrided) == at::kStrided, "remote_accelerator holds strided tensors only");
    c10::SmallVector<int64_t, 8> stride;
    contiguous_strides(size, &stride);
    at::Tensor made = empty_like_window(size, type, device, stride);
    if (format && *format != at::MemoryFormat::Contiguous)
        made.unsafeGetTensorImpl()->empty_tensor_restride(*format);
    return made;
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, maybe_type type, maybe_layout, maybe_device device,
                         maybe_bool)
{
    return empty_like_window(size, type, device, stride);
}

at::Tensor new_empty_strided(const at::Tensor &self, c10::IntArrayRef size, c10::IntArrayRef stride, maybe_type type,
                             maybe_layout layout, maybe_device device, maybe_bool pin)
{
    return empty_strided(size, stride, type.value_or(self.scalar_type()), layout, device.value_or(self.device()), pin);
}

// ------------------------------------------------------------------ constants

at::Tensor full_of(c10::IntArrayRef size, const c10::Scalar &value, maybe_type type, maybe_device device)
{
    int placement;
    c10::Device on = device_asked(device, &placement);
    return full_make(size, value, *type, on, placement);
}

at::Tensor full(c10::IntArrayRef size, const c10::Scalar &value, maybe_type type, maybe_layout, maybe_device device, maybe_bool)
{
    at::ScalarType inferred = value.isBoolean() ? at::kBool : value.isIntegral(false) ? at::kLong : type_or_default(std::nullopt);
    return full_of(size, value, type.value_or(inferred), device);
}

at::Tensor zeros(c10::IntArrayRef size, maybe_type type, maybe_layout, maybe_device device, maybe_bool)
{
    return full_of(size, 0, type_or_default(type), device);
}

at::Tensor ones(c10::IntArrayRef size, maybe_type type, maybe_layout, maybe_device device, maybe_bool)
{
    return full_of(size, 1, type_or_default(type), device);
}

at::Tensor scalar_tensor(const c10::Scalar &value, maybe_type type, maybe_layout, maybe_device device, maybe_bool)
{
    return full_of({}, value, type_or_default(type), device);
}

at::Tensor new_full(const at::Tensor &self, c10::IntArrayRef size, const c10::Scalar &value, maybe_type type, maybe_layout,
                    maybe_device device, maybe_bool)
{
    return full_of(size, value, type.value_or(self.scalar_type()), device.value_or(self.device()));
}

at::Tensor new_zeros(const at::Tensor &self, c10::IntArrayRef size, maybe_type type, maybe_layout, maybe_device device,
                     maybe_bool)
{
    return full_of(size, 0, type.value_or(self.scalar_type()), device.value_or(self.device()));
}

at::Tensor new_ones(const at::Tensor &self, c10::IntArrayRef size, maybe_type type, maybe_layout, maybe_device device, maybe_bool)
{
    return full_of(size, 1, type.value_or(self.scalar_type()), device.value_or(self.device()));
}

// Constants have no order of elements worth keeping, but users see strides: those that are not row-major go by way of empty_like.
at::Tensor full_like_window(const at::Tensor &self, const c10::Scalar &value, maybe_type type, maybe_layout layout,
                            maybe_device device, maybe_bool pin, maybe_format format)
{
    if (self.is_contiguous() && format.value_or(at::MemoryFormat::Preserve) <= at::MemoryFormat::Preserve &&
        device.value_or(self.device()).type() == REMOTE)
        return full_of(self.sizes(), value, type.value_or(self.scalar_type()), device.value_or(self.device()));
    return at::empty_like(self, type, layout, device, pin, format).fill_(value);
}

at::Tensor full_like(const at::Tensor &self, const c10::Scalar &value, maybe_type type, maybe_layout layout, maybe_device device,
                     maybe_bool pin, maybe_format format)
{
    return full_like_window(self, value, type, layout, device, pin, format);
}

at::Tensor zeros_like(const at::Tensor &self, maybe_type type, maybe_layout layout, maybe_device device, maybe_bool pin,
                      maybe_format format)
{
    return full_like_window(self, 0, type, layout, device, pin, format);
}

at::Tensor ones_like(const at::Tensor &self, maybe_type type, maybe_layout layout, maybe_device device, maybe_bool pin,
                     maybe_format format)
{
    return full_like_window(self, 1, type, layout, device, pin, format);
}

at::Tensor &fill_(at::Tensor &self, const c10::Scalar &value)
{
    if (self.is_complex()) {
        at::Tensor host = at::empty(self.sizes(), self.options().device(at::kCPU)).fill_(value);
        return self.copy_(host);
    }
    if (self.numel() == 0)
        return self;
    at::Tensor constant = full_make({}, value, self.scalar_type(), self.device(), placement_of(self));
    dj_tensor window;
    window_of(constant, &window);
    tensor_write(self, window, "fill_");
    return self;
}

at::Tensor &zero_(at::Tensor &self)
{
    return fill_(self, 0);
}

// ------------------------------------------------------------------ counted

at::Tensor arange_make(const c10::Scalar &start, const c10::Scalar &end, const c10::Scalar &step, at::ScalarType type,
                       maybe_device device)
{
    static const uint32_t op = op_number("ARANGE");
    double from = start.toDouble(), to = end.toDouble(), by = step.toDouble();
    TORCH_CHECK(by > 0 || by < 0, "step must be nonzero");
    TORCH_CHECK(std::isfinite(from) && std::isfinite(to), "unsupported range: ", from, " -> ", to);
    TORCH_CHECK((by > 0 && to >= from) || (by < 0 && to <= from), "upper bound and lower bound inconsistent with step sign");
    int placement;
    c10::Device on = device_asked(device, &placement);
    dj_tensor out;
    record(op, {}, attr_list().scalar(start).scalar(end).scalar(step), dtype_number(type), placement, &out, "arange");
    return tensor_make(out, on);
}

at::Tensor arange(const c10::Scalar &start, const c10::Scalar &end, const c10::Scalar &step, maybe_type type, maybe_layout,
                  maybe_device device, maybe_bool)
{
    bool all_integral = start.isIntegral(true) && end.isIntegral(true) && step.isIntegral(true);
    return arange_make(start, end, step, type.value_or(all_integral ? at::kLong : type_or_default(std::nullopt)), device);
}

at::Tensor arange_end(const c10::Scalar &end, maybe_type type, maybe_layout layout, maybe_device device, maybe_bool pin)
{
    return arange(0, end, 1, type, layout, device, pin);
}

at::Tensor arange_start(const c10::Scalar &start, const c10::Scalar &end, maybe_type type, maybe_layout layout,
                        maybe_device device, maybe_bool pin)
{
    return arange(start, end, 1, type, layout, device, pin);
}

at::Tensor &arange_out(const c10::Scalar &start, const c10::Scalar &end, const c10::Scalar &step, at::Tensor &out)
{
    at::Tensor made = arange_make(start, end, step, out.scalar_type(), out.device());
    if (out.sizes() != made.sizes())
        out.resize_(made.sizes());
    return out.copy_(made);
}

at::Tensor eye_make(int64_t rows, int64_t columns, maybe_type type, maybe_device device)
{
    static const uint32_t op = op_number("EYE");
    TORCH_CHECK(rows >= 0, "n must be greater or equal to 0, got ", rows);
    TORCH_CHECK(columns >= 0, "m must be greater or equal to 0, got ", columns);
    int64_t size[] = {rows, columns};
    int placement;
    c10::Device on = device_asked(device, &placement);
    dj_tensor out;
    record(op, {}, attr_list().ints(size), dtype_number(type_or_default(type)), placement, &out, "eye");
    return tensor_make(out, on);
}

at::Tensor eye(int64_t n, maybe_type type, maybe_layout, maybe_device device, maybe_bool)
{
    return eye_make(n, n, type, device);
}
at::Tensor eye_rectangle(int64_t n, int64_t m, maybe_type type, maybe_layout, maybe_device device, maybe_bool)
{
    return eye_make(n, m, type, device);
}

// ------------------------------------------------------------------ random

at::Tensor &random_write(at::Tensor &self, uint32_t op, attr_list &attrs, const maybe_generator &generator, const char *name)
{
    if (self.numel() == 0)
        return self;
    random_key key = random_take(generator, self.device(), self.numel());
    attrs.integer(static_cast<int64_t>(key.seed)).integer(static_cast<int64_t>(key.offset));
    dj_tensor out;
    record(op, {}, attrs, dtype_of(self), placement_of(self), &out, name);
    struct holder {
        dj_cell *cell;
        ~holder()
        {
            dj_cell_drop(cell);
        }
    } dropped{out.cell};
    tensor_write(self, out, name);
    return self;
}

at::Tensor &uniform_(at::Tensor &self, double low, double high, maybe_generator generator)
{
    static const uint32_t op = op_number("UNIFORM");
    TORCH_CHECK(low <= high, "uniform_ expects to return a [from, to) range, but found from=", low, " > to=", high);
    attr_list attrs;
    attrs.ints(self.sizes()).real(low).real(high);
    return random_write(self, op, attrs, generator, "uniform_");
}

at::Tensor &normal_(at::Tensor &self, double mean, double deviation, maybe_generator generator)
{
    static const uint32_t op = op_number("NORMAL");
    TORCH_CHECK(deviation >= 0.0, "normal expects std >= 0.0, but found std ", deviation);
    attr_list attrs;
    attrs.ints(self.sizes()).real(mean).real(deviation);
    return random_write(self, op, attrs, generator, "normal_");
}

at::Tensor &bernoulli_(at::Tensor &self, double p, maybe_generator generator)
{
    static const uint32_t op = op_number("BERNOULLI");
    TORCH_CHECK(0 <= p && p <= 1, "bernoulli_ expects p to be in [0, 1], but got p=", p);
    attr_list attrs;
    attrs.ints(self.sizes()).real(p);
    return random_write(self, op, attrs, generator, "bernoulli_");
}

at::Tensor &randint_write(at::Tensor &self, int64_t low, int64_t high, const maybe_generator &generator)
{
    static const uint32_t op = op_number("RANDINT");
    TORCH_CHECK(low < high, "random_ expects 'from' to be less than 'to', but got from=", low, " >= to=", high);
    attr_list attrs;
    attrs.ints(self.sizes()).integer(low).integer(high);
    return random_write(self, op, attrs, generator, "random_");
}

at::Tensor &random_from(at::Tensor &self, int64_t low, std::optional<int64_t> high, maybe_generator generator)
{
    return randint_write(self, low, high.value_or(std::numeric_limits<int64_t>::max()), generator);
}

at::Tensor &random_to(at::Tensor &self, int64_t high, maybe_generator generator)
{
    return randint_write(self, 0, high, generator);
}

// Integers up to what the dtype holds exactly.
at::Tensor &random_full(at::Tensor &self, maybe_generator generator)
{
    int64_t high;
    switch (self.scalar_type()) {
    case at::kBool: high = 2; break;
    case at::kByte: high = 256; break;
    case at::kChar: high = 128; break;
    case at::kShort: high = 1 << 15; break;
    case at::kInt: high = int64_t{1} << 31; break;
    case at::kHalf: high = (1 << 11) + 1; break;
    case at::kBFloat16: high = (1 << 8) + 1; break;
    case at::kFloat: high = (1 << 24) + 1; break;
    case at::kDouble: high = (int64_t{1} << 53) + 1; break;
    default: high = std::numeric_limits<int64_t>::max();
    }
    return randint_write(self, 0, high, generator);
}

}    // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library)
{
    library.impl("empty.memory_format", empty);
    library.impl("empty_strided", empty_strided);
    library.impl("new_empty_strided", new_empty_strided);
    library.impl("full", full);
    library.impl("zeros", zeros);
    library.impl("ones", ones);
    library.impl("scalar_tensor", scalar_tensor);
    library.impl("new_full", new_full);
    library.impl("new_zeros", new_zeros);
    library.impl("new_ones", new_ones);
    library.impl("full_like", full_like);
    library.impl("zeros_like", zeros_like);
    library.impl("ones_like", ones_like);
    library.impl("fill_.Scalar", fill_);
    library.impl("zero_", zero_);
    library.impl("arange", arange_end);
    library.impl("arange.start", arange_start);
    library.impl("arange.start_step", arange);
    library.impl("arange.start_out", arange_out);
    library.impl("eye", eye);
    library.impl("eye.m", eye_rectangle);
    library.impl("uniform_", uniform_);
    library.impl("normal_", normal_);
    library.impl("bernoulli_.float", bernoulli_);
    library.impl("random_.from", random_from);
    library.impl("random_.to", random_to);
    library.impl("random_", random_full);
}

}    // namespace djinn
