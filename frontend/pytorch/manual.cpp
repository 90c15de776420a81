// C++ because its kernels have PyTorch's signatures.
// Ops whose ATen form and table row differ by more than names: attention, convolution, dropout, sampling, indexing with masks; and ops that
// are two or three rows of the table, so that they need no kernel of their own.

#include "lower.h"

#include <ATen/ScalarOps.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/add.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/masked_fill.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/sgn_ops.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/var.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

namespace djinn
{

namespace
{

void fallback_boxed(const c10::OperatorHandle &op, torch::jit::Stack *stack)
{
    fallback(op, stack);
}

// ------------------------------------------------------------------ attention

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor, at::Tensor, at::Tensor>
attention(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const maybe_tensor &bias, double dropout_p,
          bool is_causal, bool, std::optional<double> scale)
{
    static const uint32_t op = op_number("SDPA");
    TORCH_CHECK(dropout_p == 0.0, "remote_accelerator's fused attention has no dropout");    // attention_choice keeps these away
    attr_list attrs;
    attrs.boolean(is_causal);
    if (scale)
        attrs.real(*scale);
    else
        attrs.absent();
    auto out = record_tensors<2>(op, {query, key, value, or_none(bias)}, attrs, "scaled_dot_product_attention");
    return {out[0], out[1], at::Tensor(), at::Tensor(), query.size(2), key.size(2), at::Tensor(), at::Tensor(), at::Tensor()};
}

// ------------------------------------------------------------------ convolution

at::Tensor convolution(const at::Tensor &self, const at::Tensor &weight, const maybe_tensor &bias, c10::IntArrayRef stride,
                       c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed, c10::IntArrayRef output_padding,
                       int64_t groups)
{
    static const uint32_t op = op_number("CONVOLUTION");
    if (transposed || self.dim() > 4 || !dtype_is_narrow(self.scalar_type())) {
        fallback_count("aten::convolution");
        at::Tensor host_bias = bias && bias->defined() ? tensor_to_cpu(*bias) : at::Tensor();
        at::Tensor host = at::convolution(tensor_to_cpu(self), tensor_to_cpu(weight), host_bias, stride, padding, dilation,
                                          transposed, output_padding, groups);
        return tensor_upload(host, self.device(), placement_of(self));
    }
    attr_list attrs;
    attrs.ints(stride).ints(padding).ints(dilation).boolean(transposed).ints(output_padding).integer(groups);
    return record_tensors<1>(op, {self, weight, or_none(bias)}, attrs, "convolution")[0];
}

// ------------------------------------------------------------------ dropout, sampling

std::tuple<at::Tensor, at::Tensor> native_dropout(const at::Tensor &self, double p, std::optional<bool> train)
{
    static const uint32_t op = op_number("DROPOUT");
    if (!train.value_or(true) || self.numel() == 0)
        return {self.clone(), at::ones_like(self, self.options().dtype(at::kBool))};
    if (p == 1.0)
        return {at::zeros_like(self), at::zeros_like(self, self.options().dtype(at::kBool))};
    random_key random = random_take(std::nullopt, self.device(), self.numel());
    attr_list attrs;
    attrs.real(p).integer(static_cast<int64_t>(random.seed)).integer(static_cast<int64_t>(random.offset));
    auto out = record_tensors<2>(op, {self}, attrs, "native_dropout");
    return {out[0], out[1]};
}

at::Tensor multinomial(const at::Tensor &self, int64_t count, bool replacement, std::optional<at::Generator> generator)
{
    static const uint32_t op = op_number("MULTINOMIAL");
    TORCH_CHECK(self.dim() == 1 || self.dim() == 2, "prob_dist must be 1 or 2 dim");
    TORCH_CHECK(self.is_floating_point(), "multinomial only supports floating-point dtypes for input, got: ", self.scalar_type());
    TORCH_CHECK(count > 0, "cannot sample n_sample <= 0 samples");
    TORCH_CHECK(replacement || count <= self.size(-1), "cannot sample n_sample > prob_dist.size(-1) samples without replacement");
    random_key random = random_take(generator, self.device(), std::max(self.numel(), count));
    attr_list attrs;
    attrs.integer(count)
        .boolean(replacement)
        .integer(static_cast<int64_t>(random.seed))
        .integer(static_cast<int64_t>(random.offset));
    return record_tensors<1>(op, {self}, attrs, "multinomial")[0];
}

std::tuple<at::Tensor, at::Tensor> sort_stable(const at::Tensor &self, std::optional<bool>, int64_t dim, bool descending)
{
    static const uint32_t op = op_number("SORT");    // whose order is always stable
    auto out = record_tensors<2>(op, {self}, attr_list().integer(dim).boolean(descending), "sort");
    return {out[0], out[1]};
}

// ------------------------------------------------------------------ indexing

using index_list = c10::List<std::optional<at::Tensor>>;

bool is_mask(const at::Tensor &index)
{
    return index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
}

// Masks become the positions where they are true: how many there are depends on data, so this waits for the answer.
std::vector<at::Tensor> positions_of(const index_list &indices)
{
    std::vector<at::Tensor> positions;
    for (const std::optional<at::Tensor> &item : indices) {
        if (!item || !item->defined()) {
            positions.emplace_back();
        } else if (!is_mask(*item)) {
            positions.push_back(*item);
        } else {
            at::Tensor found = at::nonzero(*item);
            for (int64_t i = 0; i < item->dim(); i++)
                positions.push_back(found.select(1, i));
        }
    }
    return positions;
}

at::Tensor index_record(uint32_t op, const at::Tensor &self, const index_list &indices, const at::Tensor *values,
                        const attr_list &attrs, const char *name)
{
    std::vector<at::Tensor> positions = positions_of(indices);
    TORCH_CHECK_INDEX(static_cast<int64_t>(positions.size()) <= self.dim(), "too many indices for tensor of dimension ",
                      self.dim(), " (got ", positions.size(), ")");
    call_inputs call;
    call.reserve(static_cast<uint32_t>(positions.size()) + 2);
    bool is_real = call.add(self, false, name);
    for (const at::Tensor &position : positions)
        is_real = is_real && call.add(position, true, name);
    if (values)
        is_real = is_real && call.add(*values, false, name);
    TORCH_CHECK(is_real, "remote_accelerator does not compute with complex numbers (", name, ")");
    dj_tensor out;
    record(op, {call.in, call.count}, attrs, 0, DJ_ANY_DEVICE, &out, name);
    return tensor_make(out, *call.device);
}

at::Tensor index(const at::Tensor &self, const index_list &indices)
{
    static const uint32_t op = op_number("INDEX");
    return index_record(op, self, indices, nullptr, attr_list(), "index");
}

// `x[mask] = number` needs no positions and no answer.
bool is_masked_fill(const at::Tensor &self, const index_list &indices, const at::Tensor &values, bool accumulate)
{
    if (accumulate || values.numel() != 1 || indices.size() != 1)
        return false;
    std::optional<at::Tensor> mask = indices.get(0);
    return mask && mask->defined() && mask->scalar_type() == at::kBool && is_remote(*mask) && mask->dim() <= self.dim() &&
           mask->sizes() == self.sizes().slice(0, static_cast<size_t>(mask->dim()));
}

at::Tensor put_at(const at::Tensor &self, const index_list &indices, const at::Tensor &values, bool accumulate)
{
    static const uint32_t op = op_number("INDEX_PUT");
    TORCH_CHECK_INDEX(self.scalar_type() == values.scalar_type(),
                      "Index put requires the source and destination dtypes match, got ", self.scalar_type(),
                      " for the destination and ", values.scalar_type(), " for the source.");
    if (is_masked_fill(self, indices, values, accumulate)) {
        at::Tensor mask = *indices.get(0);
        while (mask.dim() < self.dim())
            mask = mask.unsqueeze(-1);
        return at::masked_fill(self, mask, values.reshape({}));
    }
    return index_record(op, self, indices, &values, attr_list().boolean(accumulate), "index_put_");
}

at::Tensor &put_at_(at::Tensor &self, const index_list &indices, const at::Tensor &values, bool accumulate)
{
    at::Tensor made = put_at(self, indices, values, accumulate);
    dj_tensor window;
    window_of(made, &window);
    tensor_write(self, window, "index_put_");
    return self;
}

at::Tensor &index_put_impl_(at::Tensor &self, const index_list &indices, const at::Tensor &values, bool accumulate, bool)
{
    return put_at_(self, indices, values, accumulate);
}

// ------------------------------------------------------------------ two or three rows of the table

at::Tensor isneginf(const at::Tensor &self)
{
    return at::eq(self, -std::numeric_limits<double>::infinity());
}
at::Tensor isposinf(const at::Tensor &self)
{
    return at::eq(self, std::numeric_limits<double>::infinity());
}

at::Tensor sgn(const at::Tensor &self)
{
    return self.is_complex() ? at::native::call_fallback_fn<&fallback_boxed, at::_ops::sgn>::call(self) : at::sign(self);
}

// log(1 / (1 + e^-x)) = min(x, 0) - log(1 + e^-|x|). The buffer that PyTorch's CPU kernel keeps for its gradient is not needed.
std::tuple<at::Tensor, at::Tensor> log_sigmoid_forward(const at::Tensor &self)
{
    at::Tensor tail = at::log1p(at::exp(at::neg(at::abs(self))));
    return {at::sub(at::clamp(self, std::nullopt, 0), tail), at::empty({0}, self.options())};
}

at::Tensor log_sigmoid_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &)
{
    return at::mul(grad, at::sigmoid(at::neg(self)));
}

// log(1 + e^(beta x)) / beta, and x itself where beta x exceeds the threshold.
at::Tensor softplus(const at::Tensor &self, const at::Scalar &beta, const at::Scalar &threshold)
{
    at::Tensor scaled = at::mul(self, beta);
    return at::where(at::gt(scaled, threshold), self, at::div(at::log1p(at::exp(scaled)), beta));
}

at::Tensor softplus_backward(const at::Tensor &grad, const at::Tensor &self, const at::Scalar &beta, const at::Scalar &threshold)
{
    at::Tensor scaled = at::mul(self, beta);
    return at::where(at::gt(scaled, threshold), grad, at::mul(grad, at::sigmoid(scaled)));
}

// log(x / (1 - x)), x kept eps away from both ends.
at::Tensor logit(const at::Tensor &self, std::optional<double> eps)
{
    at::Tensor inner = eps ? at::clamp(self, *eps, 1 - *eps) : self;
    return at::log(at::div(inner, at::rsub(inner, 1)));
}

// 0 where x is 0, but NaN where y is.
at::Tensor xlogy(const at::Tensor &self, const at::Tensor &other)
{
    at::Tensor product = at::mul(self, at::log(other));
    return at::masked_fill(product, at::logical_and(at::eq(self, 0), at::logical_not(at::isnan(other))), 0);
}

at::Tensor clamp_min_tensor(const at::Tensor &self, const at::Tensor &low)
{
    return at::maximum(self, low);
}
at::Tensor &clamp_min_tensor_(at::Tensor &self, const at::Tensor &low)
{
    return self.copy_(at::maximum(self, low));
}
at::Tensor clamp_max_tensor(const at::Tensor &self, const at::Tensor &high)
{
    return at::minimum(self, high);
}
at::Tensor &clamp_max_tensor_(at::Tensor &self, const at::Tensor &high)
{
    return self.copy_(at::minimum(self, high));
}

at::Tensor rsub(const at::Tensor &self, const at::Tensor &other, const at::Scalar &alpha)
{
    return at::sub(other, self, alpha);
}

at::Tensor pow_of_scalar(const at::Scalar &base, const at::Tensor &exponent)
{
    static const uint32_t op = op_number("POW");
    at::Tensor number = c10::scalar_to_tensor(base);
    number.unsafeGetTensorImpl()->set_wrapped_number(true);
    return record_tensors<1>(op, {number, exponent}, attr_list(), "pow")[0];
}

at::Tensor floor_divide(const at::Tensor &self, const at::Tensor &other)
{
    return at::div(self, other, "floor");
}
at::Tensor &floor_divide_(at::Tensor &self, const at::Tensor &other)
{
    return self.div_(other, "floor");
}
at::Tensor clamp_max(const at::Tensor &self, const at::Scalar &high)
{
    return at::clamp(self, std::nullopt, high);
}
at::Tensor &clamp_max_(at::Tensor &self, const at::Scalar &high)
{
    return self.clamp_(std::nullopt, high);
}

at::Tensor std_of(const at::Tensor &self, at::OptionalIntArrayRef dims, const std::optional<at::Scalar> &correction, bool keepdim)
{
    return at::var(self, dims, correction, keepdim).sqrt_();
}

std::tuple<at::Tensor, at::Tensor> var_mean(const at::Tensor &self, at::OptionalIntArrayRef dims,
                                            const std::optional<at::Scalar> &correction, bool keepdim)
{
    return {at::var(self, dims, correction, keepdim), at::mean(self, dims, keepdim)};
}

std::tuple<at::Tensor, at::Tensor> std_mean(const at::Tensor &self, at::OptionalIntArrayRef dims,
                                            const std::optional<at::Scalar> &correction, bool keepdim)
{
    return {std_of(self, dims, correction, keepdim), at::mean(self, dims, keepdim)};
}

// ------------------------------------------------------------------ recurrent cells, above autograd: the pieces have gradients

at::Tensor plus(const at::Tensor &gates, const maybe_tensor &bias)
{
    return bias && bias->defined() ? at::add(gates, *bias) : gates;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(const at::Tensor &input, const at::Tensor &hidden,
                                                         const at::Tensor &cell, const maybe_tensor &input_bias,
                                                         const maybe_tensor &hidden_bias)
{
    at::Tensor sum = at::add(plus(input, input_bias), plus(hidden, hidden_bias));
    std::vector<at::Tensor> gates = sum.chunk(4, 1);
    at::Tensor next = at::add(at::mul(at::sigmoid(gates[1]), cell), at::mul(at::sigmoid(gates[0]), at::tanh(gates[2])));
    return {at::mul(at::sigmoid(gates[3]), at::tanh(next)), next, sum};
}

std::tuple<at::Tensor, at::Tensor> gru_cell(const at::Tensor &input, const at::Tensor &hidden, const at::Tensor &state,
                                            const maybe_tensor &input_bias, const maybe_tensor &hidden_bias)
{
    std::vector<at::Tensor> in = plus(input, input_bias).chunk(3, 1), old = plus(hidden, hidden_bias).chunk(3, 1);
    at::Tensor reset = at::sigmoid(at::add(old[0], in[0])), update = at::sigmoid(at::add(old[1], in[1]));
    at::Tensor fresh = at::tanh(at::add(in[2], at::mul(old[2], reset)));
    return {at::add(at::mul(at::sub(state, fresh), update), fresh), at::Tensor()};
}

}    // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library)
{
    library.impl("_scaled_dot_product_fused_attention_overrideable", attention);
    library.impl("convolution_overrideable", convolution);
    library.impl("native_dropout", native_dropout);
    library.impl("multinomial", multinomial);
    library.impl("sort.stable", sort_stable);
    library.impl("index.Tensor", index);
    library.impl("index_put", put_at);
    library.impl("index_put_", put_at_);
    library.impl("_index_put_impl_", index_put_impl_);
    library.impl("rsub.Tensor", rsub);
    library.impl("pow.Scalar", pow_of_scalar);
    library.impl("floor_divide", floor_divide);
    library.impl("floor_divide_.Tensor", floor_divide_);
    library.impl("sgn", sgn);
    library.impl("log_sigmoid_forward", log_sigmoid_forward);
    library.impl("log_sigmoid_backward", log_sigmoid_backward);
    library.impl("logit", logit);
    library.impl("xlogy.Tensor", xlogy);
    library.impl("softplus", softplus);
    library.impl("softplus_backward", softplus_backward);
    library.impl("isneginf", isneginf);
    library.impl("isposinf", isposinf);
    library.impl("clamp_min.Tensor", clamp_min_tensor);
    library.impl("clamp_min_.Tensor", clamp_min_tensor_);
    library.impl("clamp_max.Tensor", clamp_max_tensor);
    library.impl("clamp_max_.Tensor", clamp_max_tensor_);
    library.impl("clamp_max", clamp_max);
    library.impl("clamp_max_", clamp_max_);
    library.impl("std.correction", std_of);
    library.impl("var_mean.correction", var_mean);
    library.impl("std_mean.correction", std_mean);
    library.impl("_thnn_fused_lstm_cell", lstm_cell);
    library.impl("_thnn_fused_gru_cell", gru_cell);
}

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, library)
{
    library.impl("_thnn_fused_lstm_cell", lstm_cell);
    library.impl("_thnn_fused_gru_cell", gru_cell);
}

}    // namespace djinn
