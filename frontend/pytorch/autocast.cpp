// C++ because autocast is a key of PyTorch's dispatcher.
// torch.autocast("remote_accelerator"): which ops run in the lower dtype, which in float32, as PyTorch's own lists for devices say. All
// other ops pass through.

#include "shim.h"

#include <ATen/autocast_mode.h>
#include <torch/library.h>

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library)
{
    library.fallback(torch::CppFunction::makeFallthrough());
}

// The macros of the lists are PyTorch's, and register with `m`.
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m)
{
    using namespace at;
#define DJINN_LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define DJINN_FP32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define DJINN_FP32_OPT(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define DJINN_PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
    AT_FORALL_LOWER_PRECISION_FP(DJINN_LOWER)
    AT_FORALL_FP32(DJINN_FP32)
    AT_FORALL_FP32_SET_OPT_DTYPE(DJINN_FP32_OPT)
    AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
    AT_FORALL_PROMOTE(DJINN_PROMOTE)
}
