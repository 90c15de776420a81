// C++ because it builds TensorImpl and StorageImpl objects.
// Between PyTorch's tensors and libdjinn's windows: making tensors around cells, and moving elements in and out. A storage keeps its
// value in one dtype; a tensor that looks at it through another (view(dtype), torch.save's bytes) makes it convert by way of
// the client, which is rare, correct and counted as the fallback "bitcast".

#include "shim.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/StorageImpl.h>
#include <ATen/ops/zeros.h>

namespace djinn
{

namespace
{

// Addresses that no process can have: dereferencing one by mistake faults instead of reading something else.
constexpr uint64_t FAKE_BASE = uint64_t{1} << 60;
constexpr uint64_t FAKE_GAP = 64;
std::atomic<uint64_t> next_address{FAKE_BASE};

constexpr c10::ScalarType TYPES[] = {c10::ScalarType::Undefined,    c10::ScalarType::Bool,   c10::ScalarType::Byte,
                                     c10::ScalarType::Char,         c10::ScalarType::Short,  c10::ScalarType::Int,
                                     c10::ScalarType::Long,         c10::ScalarType::Half,   c10::ScalarType::BFloat16,
                                     c10::ScalarType::Float,        c10::ScalarType::Double, c10::ScalarType::ComplexFloat,
                                     c10::ScalarType::ComplexDouble};
constexpr int32_t TYPES_COUNT = sizeof TYPES / sizeof *TYPES;

struct number_table {
    int8_t number[256] = {};
    constexpr number_table()
    {
        for (int i = 1; i < TYPES_COUNT; i++)
            number[static_cast<uint8_t>(TYPES[i])] = static_cast<int8_t>(i);
    }
};
constexpr number_table NUMBERS;

void storage_drop(void *context)
{
    auto *storage = static_cast<device_storage *>(context);
    dj_cell_drop(storage->cell);
    delete storage;
}

// Elements from the first to the last that the window can touch.
int64_t extent(c10::IntArrayRef size, c10::IntArrayRef stride)
{
    int64_t last = 0;
    for (size_t i = 0; i < size.size(); i++) {
        if (size[i] == 0)
            return 0;
        last += (size[i] - 1) * stride[i];
    }
    return last + 1;
}

dj_tensor whole_window(const device_storage &storage, size_t bytes, int32_t dtype)
{
    dj_tensor window = {};
    window.cell = storage.cell;
    window.dtype = dtype;
    window.rank = 1;
    window.size[0] = static_cast<int64_t>(bytes / c10::elementSize(scalar_type(dtype)));
    window.stride[0] = 1;
    return window;
}

void read_window(const dj_tensor &window, void *data, size_t bytes, const char *op)
{
    dj_fault fault = {};
    int error;
    {
        without_python_lock unlocked;
        error = dj_read(&window, data, bytes, &fault);
    }
    if (error)
        raise_fault(error, fault, op, /*is_late=*/true);
}

// The storage's bytes on the client, whatever dtype they are kept in.
at::Tensor storage_bytes(const device_storage &storage, size_t bytes)
{
    at::Tensor host = at::empty({static_cast<int64_t>(bytes)}, at::TensorOptions().dtype(at::kByte));
    if (storage.pending.defined()) {
        host.copy_(storage.pending);
    } else if (storage.dtype == 0) {
        host.zero_();
    } else {
        dj_tensor window = whole_window(storage, bytes, storage.dtype);
        size_t element = c10::elementSize(scalar_type(storage.dtype));
        size_t whole = static_cast<size_t>(window.size[0]) * element;
        if (whole < bytes)
            host.zero_();
        if (whole > 0)
            read_window(window, host.mutable_data_ptr(), whole, "storage");
    }
    return host;
}

// From now on the storage's value is kept in `dtype`, with the same bytes.
void storage_retype(c10::StorageImpl *impl, device_storage *storage, int32_t dtype)
{
    size_t element = c10::elementSize(scalar_type(dtype));
    size_t bytes = impl->nbytes() / element * element;
    if (!storage->pending.defined() && storage->dtype != 0)
        fallback_count("bitcast");
    at::Tensor host = storage_bytes(*storage, bytes);
    dj_tensor meta = whole_window(*storage, bytes, dtype), leaf;
    dj_fault fault = {};
    int error;
    {
        without_python_lock unlocked;
        error = dj_upload(dj_cell_device(storage->cell), host.const_data_ptr(), &meta, &leaf, &fault);
        if (!error) {
            error = dj_assign(storage->cell, &leaf, &fault);
            dj_cell_drop(leaf.cell);
        }
    }
    if (error)
        raise_fault(error, fault, "view");
    storage->dtype = dtype;
    storage->pending = at::Tensor();
}

}    // namespace

int32_t dtype_number(c10::ScalarType type)
{
    return NUMBERS.number[static_cast<uint8_t>(type)];
}

c10::ScalarType scalar_type(int32_t dtype)
{
    TORCH_INTERNAL_ASSERT(dtype > 0 && dtype < TYPES_COUNT, "unknown dtype number ", dtype);
    return TYPES[dtype];
}

int32_t dtype_of(const at::Tensor &tensor)
{
    int32_t number = dtype_number(tensor.scalar_type());
    TORCH_CHECK_TYPE(number != 0, "remote_accelerator does not hold tensors of dtype ", tensor.scalar_type());
    return number;
}

device_storage *storage_of(const c10::StorageImpl *storage)
{
    auto *found = static_cast<device_storage *>(
        const_cast<c10::StorageImpl *>(storage)->_mutable_data_ptr_no_checks().get_context());
    // from_blob() on an address of ours makes one.
    TORCH_CHECK(found, "this remote_accelerator storage was made from an address, which names no memory on this machine");
    return found;
}

device_storage *storage_of(const at::Tensor &tensor)
{
    return storage_of(tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl());
}

c10::Storage storage_make(dj_cell *cell, int32_t dtype, size_t bytes, c10::Device device)
{
    uint64_t span = (bytes + FAKE_GAP) & ~(FAKE_GAP - 1);
    // relaxed: only uniqueness matters
    uint64_t address = next_address.fetch_add(span, std::memory_order_relaxed);
    auto *storage = new device_storage{cell, dtype, at::Tensor()};
    return c10::Storage(
        c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), bytes,
                                              c10::DataPtr(reinterpret_cast<void *>(address), storage, &storage_drop, device),
                                              c10::GetAllocator(REMOTE), /*resizable=*/true));
}

int placement_of(const at::Tensor &tensor)
{
    return dj_cell_device(storage_of(tensor)->cell);
}

void window_of(const at::Tensor &tensor, dj_tensor *ret)
{
    c10::TensorImpl *impl = tensor.unsafeGetTensorImpl();
    c10::StorageImpl *storage_impl = impl->unsafe_storage().unsafeGetStorageImpl();
    device_storage *storage = storage_of(storage_impl);
    c10::IntArrayRef size = impl->sizes(), stride = impl->strides();
    if (C10_UNLIKELY(size.size() > DJ_MAX_RANK)) {
        dj_fault fault = {};
        snprintf(fault.text, sizeof fault.text, "the tensor has %zu dimensions; remote_accelerator takes at most %d", size.size(),
                 DJ_MAX_RANK);
        raise_fault(ERROR_RANK, fault, "tensor");
    }
    ret->cell = storage->cell;
    ret->offset = impl->storage_offset();
    ret->dtype = dtype_of(tensor);
    ret->rank = static_cast<uint32_t>(size.size());
    for (size_t i = 0; i < size.size(); i++) {
        ret->size[i] = size[i];
        ret->stride[i] = stride[i];
    }
    // No kernel makes complex zeros: they are uploaded.
    if (C10_UNLIKELY(storage->dtype != ret->dtype &&
                     (storage->dtype != 0 || storage->pending.defined() || ret->dtype >= DTYPE_C64)))
        storage_retype(storage_impl, storage, ret->dtype);
}

at::Tensor tensor_make(const dj_tensor &window, c10::Device device)
{
    c10::IntArrayRef size(window.size, window.rank), stride(window.stride, window.rank);
    c10::ScalarType type = scalar_type(window.dtype);
    size_t bytes = static_cast<size_t>(window.offset + extent(size, stride)) * c10::elementSize(type);
    at::Tensor tensor = at::detail::make_tensor_base<c10::TensorImpl>(storage_make(window.cell, window.dtype, bytes, device),
                                                                      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                                                      c10::scalarTypeToTypeMeta(type));
    if (window.rank != 1 || window.size[0] != 0 || window.offset != 0)
        tensor.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, window.offset);
    return tensor;
}

at::Tensor tensor_view(const at::Tensor &base, const dj_tensor &window)
{
    at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(base.storage()),
                                                                 base.key_set(), base.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(c10::IntArrayRef(window.size, window.rank),
                                                        c10::IntArrayRef(window.stride, window.rank), window.offset);
    return tensor;
}

at::Tensor tensor_empty(c10::IntArrayRef size, c10::IntArrayRef stride, c10::ScalarType type, c10::Device device, int placement)
{
    TORCH_CHECK_TYPE(dtype_number(type) != 0, "remote_accelerator does not hold tensors of dtype ", type);
    for (int64_t length : size)
        TORCH_CHECK(length >= 0, "Trying to create tensor with negative dimension ", length, ": ", size);
    dj_cell *cell = dj_cell_make(placement);
    TORCH_CHECK(cell, "remote_accelerator: no memory for a tensor's description");
    size_t bytes = at::detail::computeStorageNbytes(size, stride, c10::elementSize(type));
    at::Tensor tensor = at::detail::make_tensor_base<c10::TensorImpl>(storage_make(cell, 0, bytes, device),
                                                                      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                                                      c10::scalarTypeToTypeMeta(type));
    if (size.size() != 1 || size[0] != 0)
        tensor.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, 0);
    return tensor;
}

void tensor_read(const at::Tensor &tensor, void *data, size_t bytes, const char *op)
{
    if (bytes == 0)
        return;
    device_storage *storage = storage_of(tensor);
    // Bytes of a storage that holds something else, read without converting it: torch.save looks at every storage this way.
    if (storage->dtype != dtype_of(tensor) && (storage->dtype != 0 || storage->pending.defined())) {
        at::Tensor host = storage_bytes(*storage, tensor.storage().nbytes());
        at::Tensor typed = at::empty({0}, tensor.options().device(at::kCPU))
                               .set_(host.storage(), tensor.storage_offset(), tensor.sizes(), tensor.strides());
        memcpy(data, typed.contiguous().const_data_ptr(), bytes);
        return;
    }
    dj_tensor window;
    window_of(tensor, &window);
    read_window(window, data, bytes, op);
}

at::Tensor tensor_to_cpu(const at::Tensor &tensor)
{
    at::Tensor host = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).memory_format(at::MemoryFormat::Contiguous));
    tensor_read(tensor, host.mutable_data_ptr(), host.nbytes(), "to_cpu");
    // Conjugation and negation are bits of the tensor, not of its bytes.
    host._set_conj(tensor.is_conj());
    host._set_neg(tensor.is_neg());
    return host;
}

void tensor_upload_window(const at::Tensor &cpu, int placement, dj_tensor *ret)
{
    at::Tensor dense = cpu.is_non_overlapping_and_dense() ? cpu : cpu.contiguous();
    dj_tensor meta = {};
    TORCH_CHECK(dense.dim() <= DJ_MAX_RANK, "remote_accelerator takes tensors of at most ", DJ_MAX_RANK, " dimensions, not ",
                dense.dim());
    meta.dtype = dtype_of(dense);
    meta.rank = static_cast<uint32_t>(dense.dim());
    for (uint32_t i = 0; i < meta.rank; i++) {
        meta.size[i] = dense.size(i);
        meta.stride[i] = dense.stride(i);
    }
    dj_fault fault = {};
    int error;
    {
        without_python_lock unlocked;
        error = dj_upload(placement, dense.const_data_ptr(), &meta, ret, &fault);
    }
    if (error)
        raise_fault(error, fault, "upload");
}

at::Tensor tensor_upload(const at::Tensor &cpu, c10::Device device, int placement)
{
    dj_tensor window;
    tensor_upload_window(cpu, placement, &window);
    return tensor_make(window, device);
}

void tensor_write(const at::Tensor &to, const dj_tensor &from, const char *op)
{
    dj_tensor window;
    window_of(to, &window);
    dj_fault fault = {};
    int error = dj_write(&window, &from, &fault);
    if (error)
        raise_fault(error, fault, op);
    storage_of(to)->dtype = window.dtype;
}

void storage_grow(c10::StorageImpl *impl, size_t bytes)
{
    device_storage *storage = storage_of(impl);
    if (storage->pending.defined()) {
        at::Tensor longer = at::zeros({static_cast<int64_t>(bytes)}, at::TensorOptions().dtype(at::kByte));
        int64_t kept = std::min<int64_t>(storage->pending.numel(), longer.numel());
        longer.narrow(0, 0, kept).copy_(storage->pending.narrow(0, 0, kept));
        storage->pending = longer;
    } else if (storage->dtype != 0 && bytes > impl->nbytes()) {
        c10::ScalarType type = scalar_type(storage->dtype);
        int64_t elements = static_cast<int64_t>(bytes / c10::elementSize(type));
        at::Tensor longer = full_make({elements}, 0, type, impl->device(), dj_cell_device(storage->cell));
        dj_tensor old = whole_window(*storage, impl->nbytes(), storage->dtype);
        tensor_write(longer.narrow(0, 0, old.size[0]), old, "resize_");
        dj_tensor window;
        window_of(longer, &window);
        dj_fault fault = {};
        int error = dj_assign(storage->cell, &window, &fault);
        if (error)
            raise_fault(error, fault, "resize_");
    }
    impl->set_nbytes(bytes);
}

}    // namespace djinn
