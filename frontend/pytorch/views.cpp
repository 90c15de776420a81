// C++ because its kernels have PyTorch's signatures.
// Views whose arguments need work before they are ops of the table (sizes with -1, many outputs), and the ops that change what storage a
// tensor looks at. The other views come from the table (lower.cpp); those that are nothing but another window (detach, alias,
// transpose_) stay PyTorch's own.

#include "shim.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/select.h>
#include <ATen/ops/slice.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <torch/library.h>

namespace djinn
{

namespace
{

// The window as a view op with explicit sizes, where PyTorch would accept it.
at::Tensor view(const at::Tensor &self, c10::IntArrayRef asked)
{
    static const uint32_t op = op_number("VIEW_SIZES");
    at::DimVector size = at::infer_size_dv(asked, self.numel());
    TORCH_CHECK(
        at::detail::computeStride(self.sizes(), self.strides(), size).has_value(),
        "view size is not compatible with input tensor's size and stride (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead.");
    return record_view(op, self, attr_list().ints(size), "view");
}

// The op counts its offset from its input's first element, PyTorch from the storage's: so its input is the whole storage.
at::Tensor strided_view(const at::Tensor &self, c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<int64_t> offset)
{
    static const uint32_t op = op_number("AS_STRIDED");
    TORCH_CHECK(size.size() == stride.size(), "mismatch in length of strides and shape");
    dj_tensor in, out;
    window_of(self, &in);
    in.offset = 0;
    in.rank = 1;
    in.size[0] = static_cast<int64_t>(self.storage().nbytes() / self.dtype().itemsize());
    in.stride[0] = 1;
    dj_arg arg = arg_of(&in);
    record(op, arg, attr_list().ints(size).ints(stride).integer(offset.value_or(self.storage_offset())), 0, DJ_ANY_DEVICE, &out,
           "as_strided");
    return tensor_view(self, out);
}

at::Tensor reshape_alias(const at::Tensor &self, c10::IntArrayRef size, c10::IntArrayRef stride)
{
    auto computed = at::detail::computeStride(self.sizes(), self.strides(), at::DimVector(size));
    if (computed && c10::IntArrayRef(*computed) == stride)
        return view(self, size);
    return strided_view(self, size, stride, self.storage_offset());
}

std::vector<at::Tensor> split(const at::Tensor &self, int64_t length, int64_t dim)
{
    TORCH_CHECK(self.dim() != 0, "split expects at least a 1-dimensional tensor");
    TORCH_CHECK(length >= 0, "split expects split_size be non-negative, but got split_size=", length);
    int64_t size = self.size(dim);
    TORCH_CHECK(length > 0 || size == 0, "split_size can only be 0 if dimension size is 0, but got dimension size of ", size);
    int64_t count = length ? std::max<int64_t>((size + length - 1) / length, 1) : 1;
    std::vector<at::Tensor> parts;
    parts.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; i++)
        parts.push_back(at::slice(self, dim, i * length, std::min((i + 1) * length, size), 1));
    return parts;
}

std::vector<at::Tensor> split_with_sizes(const at::Tensor &self, c10::IntArrayRef lengths, int64_t dim)
{
    TORCH_CHECK(self.dim() != 0, "split expects at least a 1-dimensional tensor");
    int64_t size = self.size(dim), start = 0;
    std::vector<at::Tensor> parts;
    parts.reserve(lengths.size());
    for (int64_t length : lengths) {
        TORCH_CHECK(length >= 0,
                    "split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes=", lengths);
        parts.push_back(at::slice(self, dim, start, start + length, 1));
        start += length;
    }
    TORCH_CHECK(start == size, "split_with_sizes expects split_sizes to sum exactly to ", size,
                " (input tensor's size at dimension ", dim, "), but got split_sizes=", lengths);
    return parts;
}

std::vector<at::Tensor> unbind(const at::Tensor &self, int64_t dim)
{
    dim = at::maybe_wrap_dim(dim, self.dim());
    std::vector<at::Tensor> parts(static_cast<size_t>(self.size(dim)));
    for (size_t i = 0; i < parts.size(); i++)
        parts[i] = at::select(self, dim, static_cast<int64_t>(i));
    return parts;
}

// ------------------------------------------------------------------ what storage a tensor looks at

size_t bytes_needed(const c10::TensorImpl *impl)
{
    return at::detail::computeStorageNbytes(impl->sizes(), impl->strides(), impl->dtype().itemsize(),
                                            static_cast<size_t>(impl->storage_offset()));
}

void fit_storage(c10::TensorImpl *impl)
{
    c10::StorageImpl *storage = impl->unsafe_storage().unsafeGetStorageImpl();
    size_t needed = bytes_needed(impl);
    if (needed > storage->nbytes())
        storage_grow(storage, needed);
}

const at::Tensor &resize_(const at::Tensor &self, c10::IntArrayRef size, std::optional<c10::MemoryFormat> format)
{
    c10::TensorImpl *impl = self.unsafeGetTensorImpl();
    if (self.sizes() != size) {
        for (int64_t length : size)
            TORCH_CHECK(length >= 0, "Trying to create tensor with negative dimension ", length, ": ", size);
        impl->generic_set_sizes_contiguous(size);
        fit_storage(impl);
    }
    if (format) {
        TORCH_CHECK(*format != c10::MemoryFormat::Preserve, "Unsupported memory format ", *format);
        impl->empty_tensor_restride(*format);
    }
    return self;
}

at::Tensor &set_storage(at::Tensor &self, at::Storage source, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride)
{
    TORCH_CHECK(source.device().type() == REMOTE, "Attempted to set the storage of a tensor on device \"", self.device(),
                "\" to a storage on different device \"", source.device(),
                "\". This is no longer allowed; the devices must match.");
    c10::TensorImpl *impl = self.unsafeGetTensorImpl();
    impl->set_storage_keep_dtype(std::move(source));
    if (stride.size() == size.size() && !(stride.empty() && !size.empty()))
        impl->set_sizes_and_strides(size, stride, offset);
    else {
        impl->generic_set_sizes_contiguous(size);
        impl->set_storage_offset(offset);
    }
    fit_storage(impl);
    return self;
}

const at::Tensor &restride(const at::Tensor &self, c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<int64_t> offset)
{
    at::native::setStrided(self, size, stride, offset.value_or(self.storage_offset()));
    return self;
}

at::Tensor &set_whole_storage(at::Tensor &self, at::Storage source)
{
    int64_t elements = static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
    return set_storage(self, std::move(source), 0, {elements}, {1});
}

at::Tensor &set_tensor(at::Tensor &self, const at::Tensor &source)
{
    if (self.unsafeGetTensorImpl() == source.unsafeGetTensorImpl())
        return self;
    return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

at::Tensor &set_nothing(at::Tensor &self)
{
    at::Tensor empty = at::empty({0}, self.options());
    return set_storage(self, empty.storage(), 0, {0}, {1});
}

bool is_set_to(const at::Tensor &self, const at::Tensor &other)
{
    return is_remote(self) && is_remote(other) &&
           self.storage().unsafeGetStorageImpl() == other.storage().unsafeGetStorageImpl() &&
           self.storage_offset() == other.storage_offset() && self.sizes() == other.sizes() && self.strides() == other.strides();
}

}    // namespace

at::Tensor record_view(uint32_t op, const at::Tensor &self, const attr_list &attrs, const char *name)
{
    dj_tensor in, out;
    window_of(self, &in);
    dj_arg arg = arg_of(&in);
    record(op, arg, attrs, 0, DJ_ANY_DEVICE, &out, name);
    return tensor_view(self, out);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library)
{
    library.impl("view", view);
    library.impl("_unsafe_view", view);
    library.impl("as_strided", strided_view);
    library.impl("_reshape_alias", reshape_alias);
    library.impl("split.Tensor", split);
    library.impl("split_with_sizes", split_with_sizes);
    library.impl("unbind.int", unbind);
    // Other windows on the same bytes: the storage converts itself when it is next read or written (tensor.cpp).
    library.impl("view_as_real", at::native::view_as_real);
    library.impl("view_as_complex", at::native::view_as_complex);
    library.impl("resize_", resize_);
    library.impl("as_strided_", restride);
    library.impl("set_.source_Storage_storage_offset", set_storage);
    library.impl("set_.source_Storage", set_whole_storage);
    library.impl("set_.source_Tensor", set_tensor);
    library.impl("set_", set_nothing);
    library.impl("is_set_to", is_set_to);
}

}    // namespace djinn
