// C++ because PyTorch's dispatcher, allocator, guard and generator have no C interface.
// What the files of the shim share. A remote tensor is a plain TensorImpl on a StorageImpl whose address is fake and unique and whose
// context is a device_storage: a cell of libdjinn (djinn.h) and the dtype in which that cell's value is kept. Everything else (windows,
// views, strides) is PyTorch's own bookkeeping, handed to libdjinn as a dj_tensor for each op.
// Threads: any, with or without Python's lock.

#pragma once

#include <atomic>
#include <string>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/util/SmallVector.h>

#include "djinn/djinn.h"

namespace djinn {

// ------------------------------------------------------------------ dtypes

constexpr int32_t DTYPE_BOOL = 1, DTYPE_I64 = 6, DTYPE_F64 = 10, DTYPE_C64 = 11;

int32_t dtype_number(c10::ScalarType type);         // 0 when the device cannot hold it
c10::ScalarType scalar_type(int32_t dtype);
int32_t dtype_of(const at::Tensor &tensor);         // raises a TypeError for dtypes that the device cannot hold

// ------------------------------------------------------------------ errors (fault.cpp)

// Raises the Python exception that belongs to `error`. `op` is the name a user knows, e.g. "add.Tensor". An error that comes later than
// the line that caused it names that line.
[[noreturn]] void raise_fault(int error, const dj_fault &fault, const char *op, bool is_late = false);
// Numbers of core/base/errors.def that the shim itself acts on.
constexpr int ERROR_UNSUPPORTED = 5, ERROR_OP_UNKNOWN = 50, ERROR_OP_UNSUPPORTED = 51, ERROR_DTYPE = 53, ERROR_RANK = 54, ERROR_INTERRUPTED = 84;

// Tells libdjinn which Python line records what follows on this thread.
void note_site();

// Holds no Python lock while it lives; on leaving, raises nothing. For calls that can block.
class without_python_lock {
public:
    without_python_lock();
    ~without_python_lock();
    without_python_lock(const without_python_lock &) = delete;
    without_python_lock &operator=(const without_python_lock &) = delete;

private:
    void *saved_ = nullptr;
};

// ------------------------------------------------------------------ storages and windows (tensor.cpp)

struct device_storage {
    dj_cell *cell;
    int32_t dtype;                  // of the cell's value; 0 while nothing was written to it
    at::Tensor pending;             // bytes (uint8, on the CPU) written before it was known which dtype they are; else undefined
};

constexpr c10::DeviceType REMOTE = c10::DeviceType::PrivateUse1;

inline bool is_remote(const at::Tensor &tensor) { return tensor.defined() && tensor.device().type() == REMOTE; }

// What libdjinn calls the tensor's device: DJ_ANY_DEVICE while the head may choose.
int placement_of(const at::Tensor &tensor);

device_storage *storage_of(const at::Tensor &tensor);
device_storage *storage_of(const c10::StorageImpl *storage);

// A storage around `cell`, whose one holder it becomes.
c10::Storage storage_make(dj_cell *cell, int32_t dtype, size_t bytes, c10::Device device);

// The tensor's window, its storage converted to the tensor's dtype where it holds another.
void window_of(const at::Tensor &tensor, dj_tensor *ret);

at::Tensor tensor_make(const dj_tensor &window, c10::Device device);                        // takes over the cell's holder
at::Tensor tensor_view(const at::Tensor &base, const dj_tensor &window);                    // shares base's storage
at::Tensor tensor_empty(c10::IntArrayRef size, c10::IntArrayRef stride, c10::ScalarType type, c10::Device device, int placement);

// Elements and back. `read` fills row-major memory; `upload` makes a tensor of the same sizes and strides.
void tensor_read(const at::Tensor &tensor, void *data, size_t bytes, const char *op);
at::Tensor tensor_upload(const at::Tensor &cpu, c10::Device device, int placement);
void tensor_upload_window(const at::Tensor &cpu, int placement, dj_tensor *ret);            // ret's cell has one holder
at::Tensor tensor_to_cpu(const at::Tensor &tensor);
// In-place: `to`'s elements become those of `from` (broadcast, converted); `from` is not consumed.
void tensor_write(const at::Tensor &to, const dj_tensor &from, const char *op);
// Makes room for `bytes` in the storage, keeping what it holds.
void storage_grow(c10::StorageImpl *storage, size_t bytes);

// Connects with the defaults where the program has not yet; raises when it cannot.
void connect();

c10::Device device_of_index(c10::DeviceIndex index);
// The device asked for (the current one when without index) and what libdjinn is told.
c10::Device device_asked(std::optional<c10::Device> device, int *placement);
int placement_of_index(c10::DeviceIndex index);    // where work on a device index goes: DJ_ANY_DEVICE for the default
void forget_default_device();                      // a new session chooses anew

// Set while this thread is inside a kernel of the shim; what PyTorch asks of its Meta kernels meanwhile is counted.
extern thread_local bool is_recording;
uint64_t meta_dispatches();
struct recording {
    bool before = is_recording;
    recording() { is_recording = true; }
    ~recording() { is_recording = before; }
};

// ------------------------------------------------------------------ recording by hand (manual.cpp, factories.cpp, views.cpp)

struct attr_list {
    dj_attr attr[10] = {};
    uint32_t count = 0;
    attr_list &integer(int64_t value);
    attr_list &boolean(bool value);
    attr_list &real(double value);
    attr_list &ints(c10::IntArrayRef value);        // not copied: must outlive the record call
    attr_list &scalar(const c10::Scalar &value);
    attr_list &absent();
};

dj_arg arg_of(const dj_tensor *window);             // ABSENT for nullptr

// dj_record with the errors raised. `op` is a row's name, e.g. "FULL"; looked up once by the caller through op_number.
uint32_t op_number(const char *name);
void record(uint32_t op, c10::ArrayRef<dj_arg> in, const attr_list &attrs, int32_t dtype, int placement, dj_tensor *out, const char *name);

// A view op with one input.
at::Tensor record_view(uint32_t op, const at::Tensor &self, const attr_list &attrs, const char *name);
// FULL of these sizes: a fresh tensor.
at::Tensor full_make(c10::IntArrayRef size, const c10::Scalar &value, c10::ScalarType type, c10::Device device, int placement);

// ------------------------------------------------------------------ lowering and fallback

// Registers every op that has no kernel by hand: lowered if the op table has it, else computed on the client's CPU.
void register_ops();
// Ops of the table for which no ATen schema was found or whose signature does not fit it: a mistake in the table.
const std::vector<std::string> &lowering_problems();
// Names of the ATen ops that are lowered from the table.
const std::vector<std::string> &lowered_ops();

// Runs the op on the client's CPU with the arguments on the stack; counted by name.
void fallback(const c10::OperatorHandle &op, torch::jit::Stack *stack);
void fallback_count(const char *name);
std::vector<std::pair<std::string, uint64_t>> fallback_counts();
// Called once for each op name that falls back. Set once, by the Python module.
void fallback_on_first(void (*notice)(const char *name));

// ------------------------------------------------------------------ random numbers (device.cpp)

struct random_key { uint64_t seed, offset; };
// Reserves `count` positions of the generator's stream (the device's default one when none is given).
random_key random_take(const std::optional<at::Generator> &generator, c10::Device device, int64_t count);

} // namespace djinn
