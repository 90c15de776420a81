// C++ because its kernels have PyTorch's signatures.
// Values that enter, leave and move: copy_ in all directions, _to_copy, and the reads that make a program wait.

#include "shim.h"

#include <ATen/ExpandUtils.h>
#include <ATen/ops/_to_copy_native.h>
#include <ATen/ops/all.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/from_blob.h>
#include <torch/library.h>

namespace djinn
{

namespace
{

bool looks_at_whole_storage(const at::Tensor &tensor)
{
    return tensor.storage_offset() == 0 && tensor.is_non_overlapping_and_dense() && tensor.nbytes() == tensor.storage().nbytes();
}

bool is_untouched(const device_storage *storage)
{
    return storage->dtype == 0 && !storage->pending.defined();
}

void assign(const at::Tensor &self, const dj_tensor &from)
{
    dj_fault fault = {};
    device_storage *storage = storage_of(self);
    int error = dj_assign(storage->cell, &from, &fault);
    if (error)
        raise_fault(error, fault, "copy_");
    storage->dtype = from.dtype;
    storage->pending = at::Tensor();
}

void copy_in(const at::Tensor &self, const at::Tensor &source)
{
    device_storage *storage = storage_of(self);
    bool is_whole = looks_at_whole_storage(self);
    at::Tensor host = source.expand(self.sizes());
    if (host.scalar_type() != self.scalar_type())
        host = host.to(self.scalar_type());
    // What is stored is what self's bits make of it.
    if (self.is_conj() != host.is_conj())
        host = host.conj().resolve_conj();
    if (self.is_neg() != host.is_neg())
        host = host.neg();
    if (is_whole && is_untouched(storage) && self.scalar_type() == at::kByte && self.dim() == 1) {
        // A storage that is being loaded: the dtype of its bytes is not known before a tensor looks at them.
        storage->pending = host.clone();
        return;
    }
    if (is_whole && host.strides() != self.strides()) {
        at::Tensor dense = at::empty_strided(self.sizes(), self.strides(), host.options());
        dense.copy_(host);
        host = dense;
    }
    dj_tensor leaf;
    tensor_upload_window(host, dj_cell_device(storage->cell), &leaf);
    struct holder {
        dj_cell *cell;
        ~holder()
        {
            dj_cell_drop(cell);
        }
    } dropped{leaf.cell};
    if (is_whole)
        assign(self, leaf);
    else
        tensor_write(self, leaf, "copy_");
}

void copy_out(const at::Tensor &self, const at::Tensor &source)
{
    if (self.scalar_type() == source.scalar_type() && self.is_contiguous() && self.sizes() == source.sizes() &&
        !source.is_conj() && !source.is_neg())
        return tensor_read(source, self.mutable_data_ptr(), self.nbytes(), "copy_");
    self.copy_(tensor_to_cpu(source));
}

void copy_bytes(const at::Tensor &self, const at::Tensor &source)
{
    device_storage *from = storage_of(source);
    if (from->pending.defined()) {
        storage_of(self)->pending = from->pending;
        return;
    }
    static const uint32_t op = op_number("CLONE");
    dj_tensor window = {}, copy;
    window.cell = from->cell;
    window.dtype = from->dtype;
    window.rank = 1;
    window.size[0] = static_cast<int64_t>(source.storage().nbytes() / c10::elementSize(scalar_type(from->dtype)));
    window.stride[0] = 1;
    dj_arg arg = arg_of(&window);
    record(op, arg, attr_list().absent(), 0, DJ_ANY_DEVICE, &copy, "clone");
    assign(self, copy);
    dj_cell_drop(copy.cell);
}

void copy_within(const at::Tensor &self, const at::Tensor &source)
{
    device_storage *from = storage_of(source);
    bool are_bytes = self.scalar_type() == at::kByte && source.scalar_type() == at::kByte && self.dim() == 1 &&
                     source.dim() == 1 && self.numel() == source.numel() &&
                     (from->dtype != dtype_of(source) && !is_untouched(from));
    if (are_bytes && self.device() == source.device() && looks_at_whole_storage(self) && looks_at_whole_storage(source) &&
        is_untouched(storage_of(self)))
        return copy_bytes(self, source);
    // No kernel converts to or from complex numbers, or resolves their bits.
    if ((self.is_complex() || source.is_complex()) &&
        (self.scalar_type() != source.scalar_type() || source.is_conj() || self.is_conj() || source.is_neg()))
        return copy_in(self, tensor_to_cpu(source).resolve_conj().resolve_neg());
    dj_tensor window;
    window_of(source, &window);
    if (self.device() == source.device())
        return tensor_write(self, window, "copy_");
    dj_tensor moved;
    dj_fault fault = {};
    int error = dj_to_device(&window, placement_of_index(self.device().index()), &moved, &fault);
    if (error)
        raise_fault(error, fault, "copy_");
    struct holder {
        dj_cell *cell;
        ~holder()
        {
            dj_cell_drop(cell);
        }
    } dropped{moved.cell};
    tensor_write(self, moved, "copy_");
}

at::Tensor &copy_(at::Tensor &self, const at::Tensor &source, bool)
{
    note_site();
    if (self.unsafeGetTensorImpl() == source.unsafeGetTensorImpl())
        return self;
    TORCH_CHECK(at::is_expandable_to(source.sizes(), self.sizes()), "The size of tensor a ", self.sizes(),
                " must match the size of tensor b ", source.sizes(), " for copy_");
    if (self.numel() == 0)
        return self;
    if (!is_remote(self))
        copy_out(self, source);
    else if (!is_remote(source))
        copy_in(self, source);
    else
        copy_within(self, source);
    return self;
}

at::Tensor copy_from(const at::Tensor &self, const at::Tensor &target, bool non_blocking)
{
    at::Tensor to = target;
    return copy_(to, self, non_blocking);
}

at::Tensor copy_from_and_resize(const at::Tensor &self, const at::Tensor &target)
{
    at::Tensor to = target;
    if (to.sizes() != self.sizes())
        to.resize_(self.sizes());
    return copy_(to, self, false);
}

at::Tensor to_copy(const at::Tensor &self, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                   std::optional<at::Device> device, std::optional<bool> pin_memory, bool non_blocking,
                   std::optional<at::MemoryFormat> format)
{
    note_site();
    bool stays = is_remote(self) &&
                 (!device || (device->type() == REMOTE &&
                              device_of_index(device->has_index() ? device->index() : c10::DeviceIndex{-1}) == self.device()));
    int32_t number = dtype_number(dtype.value_or(self.scalar_type()));
    if (!stays || layout.value_or(self.layout()) != at::kStrided || number == 0 || number >= DTYPE_C64 || self.is_complex())
        return at::native::_to_copy(self, dtype, layout, device, pin_memory, non_blocking, format);
    static const uint32_t op = op_number("TO_COPY");
    dj_tensor in, out;
    window_of(self, &in);
    dj_arg arg = arg_of(&in);
    attr_list attrs;
    if (format)
        attrs.integer(static_cast<int64_t>(*format));
    else
        attrs.absent();
    record(op, arg, attrs, number, DJ_ANY_DEVICE, &out, "_to_copy");
    return tensor_make(out, self.device());
}

at::Scalar local_scalar_dense(const at::Tensor &self)
{
    note_site();
    // Room for the widest element (complex128).
    alignas(16) char element[16];
    tensor_read(self, element, c10::elementSize(self.scalar_type()), "item");
    at::Tensor host = at::from_blob(element, {}, at::TensorOptions().dtype(self.scalar_type()));
    return host.item();
}

bool equal(const at::Tensor &self, const at::Tensor &other)
{
    TORCH_CHECK(is_remote(self) && is_remote(other), "Cannot compare two tensors on different devices. Got: ", self.device(),
                " and ", other.device());
    TORCH_CHECK(self.scalar_type() == other.scalar_type(), "Expected object of data type ", self.scalar_type(),
                " but got data type ", other.scalar_type(), " for argument 'other' in call to equal");
    if (self.sizes() != other.sizes())
        return false;
    return self.numel() == 0 || at::all(at::eq(self, other)).item().toBool();
}

}    // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library)
{
    library.impl("copy_", copy_);
    library.impl("_copy_from", copy_from);
    library.impl("_copy_from_and_resize", copy_from_and_resize);
    library.impl("_to_copy", to_copy);
    library.impl("_local_scalar_dense", local_scalar_dense);
    library.impl("equal", equal);
}

}    // namespace djinn
