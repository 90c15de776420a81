// C++ because its kernels have PyTorch's signatures.
// What training adds: batch norm with the statistics of the batch, the losses, and the gradients whose ATen form has an output mask. A
// gradient is recorded only if it was asked for, so that frozen weights cost nothing. The other gradients come from the table.

#include "lower.h"

#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_native_batch_norm_legit_ops.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/add.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/native_batch_norm_backward_ops.h>
#include <ATen/ops/native_group_norm_backward_ops.h>
#include <ATen/ops/native_layer_norm_backward_ops.h>
#include <ATen/ops/nll_loss_backward.h>
#include <ATen/ops/nll_loss_forward.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/select_scatter.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

namespace djinn
{

namespace
{

using three_tensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

void fallback_boxed(const c10::OperatorHandle &op, torch::jit::Stack *stack)
{
    fallback(op, stack);
}

bool is_there(const maybe_tensor &tensor)
{
    return tensor && tensor->defined();
}

// Whether kernels that take one narrow dtype take these; an absent tensor is fine.
bool are_narrow(std::initializer_list<maybe_tensor> tensors)
{
    for (const maybe_tensor &tensor : tensors)
        if (is_there(tensor) && !dtype_is_narrow(tensor->scalar_type()))
            return false;
    return true;
}

// ------------------------------------------------------------------ norms

three_tensors batch_norm_eval(const at::Tensor &self, const maybe_tensor &weight, const maybe_tensor &bias,
                              const at::Tensor &mean, const at::Tensor &variance, double eps)
{
    static const uint32_t op = op_number("BATCH_NORM");
    auto out = record_tensors<1>(op, {self, or_none(weight), or_none(bias), mean, variance}, attr_list().real(eps),
                                 "native_batch_norm");
    at::Tensor none = at::empty({0}, self.options());
    return {out[0], none, at::empty({0}, self.options())};
}

// The running statistics move towards the batch's: running = (1 - momentum) * running + momentum * batch.
void follow(const maybe_tensor &running, const at::Tensor &batch, double momentum)
{
    if (!is_there(running))
        return;
    at::Tensor kept = *running;
    kept.mul_(1.0 - momentum).add_(batch, momentum);
}

three_tensors batch_norm_train(const at::Tensor &self, const maybe_tensor &weight, const maybe_tensor &bias,
                               const maybe_tensor &mean, const maybe_tensor &variance, double momentum, double eps)
{
    static const uint32_t op = op_number("BATCH_NORM_TRAIN");
    auto out = record_tensors<4>(op, {self, or_none(weight), or_none(bias)}, attr_list().real(eps), "native_batch_norm");
    follow(mean, out[1], momentum);
    follow(variance, out[3], momentum);
    return {out[0], out[1], out[2]};
}

three_tensors native_batch_norm(const at::Tensor &self, const maybe_tensor &weight, const maybe_tensor &bias,
                                const maybe_tensor &mean, const maybe_tensor &variance, bool training, double momentum,
                                double eps)
{
    bool is_native = are_narrow({self, weight, bias, mean, variance});
    if (is_native && training)
        return batch_norm_train(self, weight, bias, mean, variance, momentum, eps);
    if (is_native && is_there(mean) && is_there(variance))
        return batch_norm_eval(self, weight, bias, *mean, *variance, eps);
    if (!is_there(mean))
        return at::native::call_fallback_fn<&fallback_boxed, at::_ops::_native_batch_norm_legit_no_stats>::call(
            self, weight, bias, training, momentum, eps);
    // native_batch_norm changes the running statistics without saying so in its schema; this form says it, so they are written back.
    at::Tensor running_mean = *mean, running_variance = *variance;
    return at::native::call_fallback_fn<&fallback_boxed, at::_ops::_native_batch_norm_legit>::call(
        self, weight, bias, running_mean, running_variance, training, momentum, eps);
}

three_tensors batch_norm_legit(const at::Tensor &self, const maybe_tensor &weight, const maybe_tensor &bias, at::Tensor &mean,
                               at::Tensor &variance, bool training, double momentum, double eps)
{
    return native_batch_norm(self, weight, bias, mean, variance, training, momentum, eps);
}

three_tensors batch_norm_no_statistics(const at::Tensor &self, const maybe_tensor &weight, const maybe_tensor &bias,
                                       bool training, double momentum, double eps)
{
    return native_batch_norm(self, weight, bias, std::nullopt, std::nullopt, training, momentum, eps);
}

three_tensors batch_norm_no_training(const at::Tensor &self, const maybe_tensor &weight, const maybe_tensor &bias,
                                     const at::Tensor &mean, const at::Tensor &variance, double momentum, double eps)
{
    return native_batch_norm(self, weight, bias, mean, variance, false, momentum, eps);
}

three_tensors batch_norm_backward(const at::Tensor &grad, const at::Tensor &self, const maybe_tensor &weight,
                                  const maybe_tensor &mean, const maybe_tensor &variance, const maybe_tensor &batch_mean,
                                  const maybe_tensor &batch_rstd, bool training, double eps, std::array<bool, 3> mask)
{
    static const uint32_t op = op_number("BATCH_NORM_BACKWARD");
    bool has_statistics = training ? is_there(batch_mean) && is_there(batch_rstd) : is_there(mean) && is_there(variance);
    if (!has_statistics || grad.scalar_type() != self.scalar_type() || !are_narrow({self, weight, mean, variance}))
        return at::native::call_fallback_fn<&fallback_boxed, at::_ops::native_batch_norm_backward>::call(
            grad, self, weight, mean, variance, batch_mean, batch_rstd, training, eps, mask);
    at::Tensor center = training ? *batch_mean : *mean, scale = training ? *batch_rstd : at::rsqrt(at::add(*variance, eps));
    auto out = record_tensors<3>(op, {grad, self, or_none(weight), center, scale}, attr_list().boolean(training),
                                 "native_batch_norm_backward");
    for (size_t i = 0; i < 3; i++)
        if (!mask[i])
            out[i] = at::Tensor();
    return {out[0], out[1], out[2]};
}

three_tensors layer_norm_backward(const at::Tensor &grad, const at::Tensor &self, c10::IntArrayRef shape, const at::Tensor &mean,
                                  const at::Tensor &rstd, const maybe_tensor &weight, const maybe_tensor &bias,
                                  std::array<bool, 3> mask)
{
    static const uint32_t of_input = op_number("LAYER_NORM_BACKWARD"), of_parameters = op_number("LAYER_NORM_BACKWARD_PARAMS");
    if (grad.scalar_type() != self.scalar_type() || !are_narrow({self, weight}))
        return at::native::call_fallback_fn<&fallback_boxed, at::_ops::native_layer_norm_backward>::call(
            grad, self, shape, mean, rstd, weight, bias, mask);
    std::array<at::Tensor, 3> out;
    attr_list attrs;
    attrs.ints(shape);
    if (mask[0])
        out[0] = record_tensors<1>(of_input, {grad, self, mean, rstd, or_none(weight)}, attrs, "native_layer_norm_backward")[0];
    if (mask[1] || mask[2]) {
        auto made = record_tensors<2>(of_parameters, {grad, self, mean, rstd}, attrs, "native_layer_norm_backward");
        at::ScalarType type = is_there(weight) ? weight->scalar_type() : self.scalar_type();
        for (size_t i = 1; i < 3; i++)
            if (mask[i])
                out[i] = made[i - 1].to(type);
    }
    return {out[0], out[1], out[2]};
}

three_tensors group_norm_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &mean, const at::Tensor &rstd,
                                  const maybe_tensor &weight, int64_t n, int64_t c, int64_t hxw, int64_t group,
                                  std::array<bool, 3> mask)
{
    static const uint32_t op = op_number("GROUP_NORM_BACKWARD");
    if (grad.scalar_type() != self.scalar_type() || !are_narrow({self, weight}))
        return at::native::call_fallback_fn<&fallback_boxed, at::_ops::native_group_norm_backward>::call(
            grad, self, mean, rstd, weight, n, c, hxw, group, mask);
    attr_list attrs;
    attrs.integer(n).integer(c).integer(hxw).integer(group);
    auto out = record_tensors<3>(op, {grad, self, mean, rstd, or_none(weight)}, attrs, "native_group_norm_backward");
    for (size_t i = 0; i < 3; i++)
        if (!mask[i])
            out[i] = at::Tensor();
    return {out[0], out[1], out[2]};
}

// ------------------------------------------------------------------ convolution

three_tensors convolution_backward_on_cpu(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &weight,
                                          c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation,
                                          bool transposed, c10::IntArrayRef output_padding, int64_t groups,
                                          std::array<bool, 3> mask)
{
    fallback_count("aten::convolution_backward");
    auto host = at::convolution_backward(tensor_to_cpu(grad), tensor_to_cpu(self), tensor_to_cpu(weight),
                                         c10::IntArrayRef{weight.size(transposed ? 1 : 0) * (transposed ? groups : 1)}, stride,
                                         padding, dilation, transposed, output_padding, groups, mask);
    int placement = placement_of(grad);
    auto back = [&](const at::Tensor &tensor) {
        return tensor.defined() ? tensor_upload(tensor, grad.device(), placement) : tensor;
    };
    return {back(std::get<0>(host)), back(std::get<1>(host)), back(std::get<2>(host))};
}

three_tensors convolution_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &weight,
                                   c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
                                   c10::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> mask)
{
    static const uint32_t of_input = op_number("CONVOLUTION_BACKWARD_INPUT"),
                          of_weight = op_number("CONVOLUTION_BACKWARD_WEIGHT");
    if (transposed || self.dim() > 4 || !are_narrow({grad, self, weight}))
        return convolution_backward_on_cpu(grad, self, weight, stride, padding, dilation, transposed, output_padding, groups,
                                           mask);
    attr_list attrs;
    attrs.ints(stride).ints(padding).ints(dilation).boolean(transposed).ints(output_padding).integer(groups);
    at::Tensor of[3];
    if (mask[0])
        of[0] = record_tensors<1>(of_input, {grad, self, weight}, attrs, "convolution_backward")[0];
    if (mask[1])
        of[1] = record_tensors<1>(of_weight, {grad, self, weight}, attrs, "convolution_backward")[0];
    if (mask[2]) {
        c10::SmallVector<int64_t, 4> dims{0};
        for (int64_t d = 2; d < grad.dim(); d++)
            dims.push_back(d);
        of[2] = at::sum(grad, dims);
    }
    return {of[0], of[1], of[2]};
}

at::Tensor select_backward(const at::Tensor &grad, c10::IntArrayRef size, int64_t dim, int64_t index)
{
    return at::select_scatter(at::zeros(size, grad.options()), grad, dim, index);
}

// ------------------------------------------------------------------ losses, from rows of the table

at::Tensor reduced(const at::Tensor &each, int64_t reduction)
{
    return reduction == at::Reduction::Mean ? at::mean(each) : reduction == at::Reduction::Sum ? at::sum(each) : each;
}

// The gradient that comes in, with the mean's share in it.
at::Tensor share(const at::Tensor &grad, const at::Tensor &self, int64_t reduction)
{
    return reduction == at::Reduction::Mean ? at::mul(grad, 1.0 / static_cast<double>(self.numel())) : grad;
}

at::Tensor mse_loss(const at::Tensor &self, const at::Tensor &target, int64_t reduction)
{
    at::Tensor off = at::sub(self, target);
    return reduced(at::mul(off, off), reduction);
}

at::Tensor mse_loss_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &target, int64_t reduction)
{
    return at::mul(at::mul(at::sub(self, target), 2.0), share(grad, self, reduction));
}

// Losses of images: each pixel is a row.
at::Tensor pixels_of(const at::Tensor &self)
{
    return self.permute({0, 2, 3, 1}).reshape({-1, self.size(1)});
}

std::tuple<at::Tensor, at::Tensor> nll_loss2d(const at::Tensor &self, const at::Tensor &target, const maybe_tensor &weight,
                                              int64_t reduction, int64_t ignored)
{
    TORCH_CHECK(self.dim() == 4 && target.dim() == 3 && target.size(0) == self.size(0) && target.size(1) == self.size(2) &&
                    target.size(2) == self.size(3),
                "size mismatch (got input: ", self.sizes(), ", target: ", target.sizes(), ")");
    auto [loss, total] = at::nll_loss_forward(pixels_of(self), target.reshape({-1}), weight, reduction, ignored);
    return {reduction == at::Reduction::None ? loss.view(target.sizes()) : loss, total};
}

at::Tensor nll_loss2d_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &target,
                               const maybe_tensor &weight, int64_t reduction, int64_t ignored, const at::Tensor &total)
{
    at::Tensor each = reduction == at::Reduction::None ? grad.reshape({-1}) : grad;
    at::Tensor rows = at::nll_loss_backward(each, pixels_of(self), target.reshape({-1}), weight, reduction, ignored, total);
    return rows.view({self.size(0), self.size(2), self.size(3), self.size(1)}).permute({0, 3, 1, 2}).contiguous();
}

// Quadratic within `beta` of the target: 0.5 d^2 * slope; beyond it linear, beta * slope * (|d| - 0.5 beta).
at::Tensor bent_loss(const at::Tensor &self, const at::Tensor &target, double beta, double slope, int64_t reduction)
{
    at::Tensor off = at::abs(at::sub(self, target));
    at::Tensor near = at::mul(at::mul(off, off), 0.5 * slope), far = at::mul(at::sub(off, 0.5 * beta), beta * slope);
    return reduced(at::where(at::lt(off, beta), near, far), reduction);
}

at::Tensor bent_loss_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &target, double beta, double slope,
                              int64_t reduction)
{
    at::Tensor bent = at::mul(at::clamp(at::sub(self, target), -beta, beta), slope);
    return at::mul(bent, share(grad, self, reduction));
}

at::Tensor smooth_l1_loss(const at::Tensor &self, const at::Tensor &target, int64_t reduction, double beta)
{
    if (beta == 0)
        return reduced(at::abs(at::sub(self, target)), reduction);
    return bent_loss(self, target, beta, 1.0 / beta, reduction);
}

at::Tensor smooth_l1_loss_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &target, int64_t reduction,
                                   double beta)
{
    if (beta == 0)
        return at::mul(at::sub(self, target).sign_(), share(grad, self, reduction));
    return bent_loss_backward(grad, self, target, beta, 1.0 / beta, reduction);
}

at::Tensor huber_loss(const at::Tensor &self, const at::Tensor &target, int64_t reduction, double delta)
{
    return bent_loss(self, target, delta, 1.0, reduction);
}

at::Tensor huber_loss_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &target, int64_t reduction,
                               double delta)
{
    return bent_loss_backward(grad, self, target, delta, 1.0, reduction);
}

// Logarithms stop at -100, as PyTorch has it, so that a sure and wrong answer costs much and not infinity.
at::Tensor binary_cross_entropy(const at::Tensor &self, const at::Tensor &target, const maybe_tensor &weight, int64_t reduction)
{
    constexpr double LEAST_LOGARITHM = -100;
    at::Tensor yes = at::clamp(at::log(self), LEAST_LOGARITHM), no = at::clamp(at::log(at::rsub(self, 1)), LEAST_LOGARITHM);
    at::Tensor each = at::sub(at::mul(at::sub(target, 1), no), at::mul(target, yes));
    return reduced(is_there(weight) ? at::mul(each, *weight) : each, reduction);
}

at::Tensor binary_cross_entropy_backward(const at::Tensor &grad, const at::Tensor &self, const at::Tensor &target,
                                         const maybe_tensor &weight, int64_t reduction)
{
    constexpr double LEAST_SLOPE = 1e-12;
    at::Tensor slope = at::clamp(at::mul(at::rsub(self, 1), self), LEAST_SLOPE);
    at::Tensor each = at::mul(at::sub(self, target).div_(slope), share(grad, self, reduction));
    return is_there(weight) ? at::mul(each, *weight) : each;
}

}    // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library)
{
    library.impl("native_batch_norm", native_batch_norm);
    library.impl("_native_batch_norm_legit", batch_norm_legit);
    library.impl("_native_batch_norm_legit.no_stats", batch_norm_no_statistics);
    library.impl("_native_batch_norm_legit_no_training", batch_norm_no_training);
    library.impl("native_batch_norm_backward", batch_norm_backward);
    library.impl("native_layer_norm_backward", layer_norm_backward);
    library.impl("native_group_norm_backward", group_norm_backward);
    library.impl("convolution_backward_overrideable", convolution_backward);
    library.impl("select_backward", select_backward);
    library.impl("nll_loss2d_forward", nll_loss2d);
    library.impl("nll_loss2d_backward", nll_loss2d_backward);
    library.impl("mse_loss", mse_loss);
    library.impl("mse_loss_backward", mse_loss_backward);
    library.impl("smooth_l1_loss", smooth_l1_loss);
    library.impl("smooth_l1_loss_backward", smooth_l1_loss_backward);
    library.impl("huber_loss", huber_loss);
    library.impl("huber_loss_backward", huber_loss_backward);
    library.impl("binary_cross_entropy", binary_cross_entropy);
    library.impl("binary_cross_entropy_backward", binary_cross_entropy_backward);
}

}    // namespace djinn
