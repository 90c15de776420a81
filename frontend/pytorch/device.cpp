// C++ because PyTorch's device interfaces (allocator, guard, hooks, generator) are classes to derive from.
// The device `remote_accelerator`: its storages, its one stream, its hooks and its generators. Random numbers are Philox(seed, offset,
// element): a generator is only a (seed, offset) pair, and an op pins its own when it is recorded.

#include "lower.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <array>
#include <deque>

namespace djinn
{

namespace
{

constexpr int DEVICES_MAX = 64;    // that a process addresses by index
constexpr c10::DeviceIndex NOT_SET = -1;
thread_local c10::DeviceIndex current_device = NOT_SET;    // what the program set on this thread

// The pool device that the head chose for this session: what "remote_accelerator" without an index stands for. Asked for at the first
// use, which connects. Work on it is recorded for "any device", so that it moves when its worker is lost.
std::atomic<int> chosen_device{NOT_SET};

c10::DeviceIndex default_device()
{
    int chosen = chosen_device.load(std::memory_order_relaxed);
    if (chosen != NOT_SET)
        return static_cast<c10::DeviceIndex>(chosen);
    dj_fault fault = {};
    {
        without_python_lock unlocked;
        chosen = dj_default_device(&fault);
    }
    if (chosen < 0)
        raise_fault(-chosen, fault, "init");
    chosen_device.store(chosen, std::memory_order_relaxed);
    return static_cast<c10::DeviceIndex>(chosen);
}

c10::DeviceIndex device_here()
{
    return current_device == NOT_SET ? default_device() : current_device;
}
std::atomic<uint64_t> meta_count{0};

c10::DeviceIndex device_count()
{
    without_python_lock unlocked;
    int count = dj_device_count();
    return static_cast<c10::DeviceIndex>(count < 0 ? 0 : std::min(count, DEVICES_MAX));
}

void synchronize()
{
    dj_fault fault = {};
    int error;
    {
        without_python_lock unlocked;
        error = dj_synchronize(&fault);
    }
    if (error)
        raise_fault(error, fault, "synchronize", /*is_late=*/true);
}

// ------------------------------------------------------------------ allocator

struct allocator final : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override
    {
        dj_cell *cell = dj_cell_make(DJ_ANY_DEVICE);
        TORCH_CHECK(cell, "remote_accelerator: no memory for a storage's description");
        c10::Storage storage = storage_make(cell, 0, bytes, device_of_index(-1));
        return storage.set_data_ptr(c10::DataPtr(nullptr, device_of_index(-1)));
    }
    void copy_data(void *, const void *, size_t) const override
    {
        TORCH_CHECK(false, "remote_accelerator memory cannot be copied by address");
    }
};

// ------------------------------------------------------------------ guard: one stream a device, in order

struct guard final : c10::impl::DeviceGuardImplInterface {
    c10::DeviceType type() const override
    {
        return REMOTE;
    }
    c10::Device exchangeDevice(c10::Device device) const override
    {
        c10::Device old(REMOTE, device_here());
        setDevice(device);
        return old;
    }
    c10::Device getDevice() const override
    {
        return {REMOTE, device_here()};
    }
    void setDevice(c10::Device device) const override
    {
        uncheckedSetDevice(device);
    }
    void uncheckedSetDevice(c10::Device device) const noexcept override
    {
        if (device.has_index() && device.index() >= 0 && device.index() < DEVICES_MAX)
            current_device = device.index();
    }
    c10::Stream getStream(c10::Device device) const override
    {
        return c10::Stream(c10::Stream::DEFAULT, device);
    }
    c10::Stream getDefaultStream(c10::Device device) const override
    {
        return c10::Stream(c10::Stream::DEFAULT, device);
    }
    c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override
    {
        return c10::Stream(c10::Stream::DEFAULT, device);
    }
    c10::Stream getNewStream(c10::Device device, int) const override
    {
        return c10::Stream(c10::Stream::DEFAULT, device);
    }
    c10::Stream exchangeStream(c10::Stream stream) const override
    {
        return c10::Stream(c10::Stream::DEFAULT, stream.device());
    }
    // Events are positions in the one stream: waiting for one is waiting for all that was recorded.
    void destroyEvent(void *, c10::DeviceIndex) const noexcept override
    {
    }
    void record(void **event, const c10::Stream &, c10::DeviceIndex, c10::EventFlag) const override
    {
        *event = nullptr;
    }
    void block(void *, const c10::Stream &) const override
    {
    }
    bool queryEvent(void *) const override
    {
        return true;
    }
    // Autograd asks this at its first backward, even on a CPU-only graph: it must not connect or start anything.
    c10::DeviceIndex deviceCount() const noexcept override
    {
        return dj_is_initialized() ? std::max<c10::DeviceIndex>(device_count(), 1) : c10::DeviceIndex{1};
    }
    bool queryStream(const c10::Stream &) const override
    {
        return false;
    }
    void synchronizeStream(const c10::Stream &) const override
    {
        synchronize();
    }
    void synchronizeEvent(void *) const override
    {
        synchronize();
    }
    void synchronizeDevice(c10::DeviceIndex) const override
    {
        synchronize();
    }
    void recordDataPtrOnStream(const c10::DataPtr &, const c10::Stream &) const override
    {
    }
};

// ------------------------------------------------------------------ generator

struct generator final : c10::GeneratorImpl {
    uint64_t seed_ = c10::default_rng_seed_val, offset_ = 0;

    explicit generator(c10::DeviceIndex index)
        : c10::GeneratorImpl(c10::Device(REMOTE, index), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1))
    {
    }
    void set_current_seed(uint64_t seed) override
    {
        seed_ = seed;
        offset_ = 0;
    }
    void set_offset(uint64_t offset) override
    {
        offset_ = offset;
    }
    uint64_t get_offset() const override
    {
        return offset_;
    }
    uint64_t current_seed() const override
    {
        return seed_;
    }
    uint64_t seed() override
    {
        set_current_seed(c10::detail::getNonDeterministicRandom());
        return seed_;
    }
    // The state is 16 bytes: seed, offset.
    void set_state(const c10::TensorImpl &state) override
    {
        TORCH_CHECK_TYPE(state.device().type() == c10::DeviceType::CPU && state.dtype() == caffe2::TypeMeta::Make<uint8_t>(),
                         "RNG state must be a torch.ByteTensor");
        TORCH_CHECK(state.numel() == 16, "RNG state of remote_accelerator is 16 bytes long, not ", state.numel());
        memcpy(&seed_, static_cast<const char *>(state.data()), 8);
        memcpy(&offset_, static_cast<const char *>(state.data()) + 8, 8);
    }
    c10::intrusive_ptr<c10::TensorImpl> get_state() const override
    {
        at::Tensor state = at::empty({16}, at::TensorOptions().dtype(at::kByte));
        memcpy(state.mutable_data_ptr(), &seed_, 8);
        memcpy(static_cast<char *>(state.mutable_data_ptr()) + 8, &offset_, 8);
        return state.getIntrusivePtr();
    }
    static c10::DeviceType device_type()
    {
        return REMOTE;
    }

  private:
    generator *clone_impl() const override
    {
        auto *copy = new generator(device_.index());
        copy->seed_ = seed_;
        copy->offset_ = offset_;
        return copy;
    }
};

at::Generator &default_generator(c10::DeviceIndex index)
{
    static std::array<at::Generator, DEVICES_MAX> *generators = [] {
        auto *made = new std::array<at::Generator, DEVICES_MAX>;
        for (int i = 0; i < DEVICES_MAX; i++)
            (*made)[static_cast<size_t>(i)] = at::make_generator<generator>(static_cast<c10::DeviceIndex>(i));
        return made;
    }();
    if (index < 0)
        index = device_here();
    TORCH_CHECK(index < DEVICES_MAX, "remote_accelerator: device index ", int(index), " is out of range");
    return (*generators)[static_cast<size_t>(index)];
}

// ------------------------------------------------------------------ hooks

struct hooks final : at::PrivateUse1HooksInterface {
    bool isBuilt() const override
    {
        return true;
    }
    // Whether the package is usable, not whether a worker answers: asking must neither connect nor start anything.
    bool isAvailable() const override
    {
        return true;
    }
    bool hasPrimaryContext(c10::DeviceIndex) const override
    {
        return dj_is_initialized() != 0;
    }
    void init() const override
    {
        connect();
    }
    c10::DeviceIndex deviceCount() const override
    {
        return device_count();
    }
    void setCurrentDevice(c10::DeviceIndex index) const override
    {
        guard().setDevice({REMOTE, index});
    }
    c10::DeviceIndex getCurrentDevice() const override
    {
        return device_here();
    }
    c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override
    {
        return guard().exchangeDevice({REMOTE, index}).index();
    }
    c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override
    {
        return guard().exchangeDevice({REMOTE, index}).index();
    }
    const at::Generator &getDefaultGenerator(c10::DeviceIndex index) const override
    {
        return default_generator(index);
    }
    at::Generator getNewGenerator(c10::DeviceIndex index) const override
    {
        return at::make_generator<generator>(index < 0 ? device_here() : index);
    }
    at::Device getDeviceFromPtr(void *) const override
    {
        return {REMOTE, device_here()};
    }
    at::Allocator *getPinnedMemoryAllocator() const override
    {
        return c10::GetAllocator(c10::DeviceType::CPU);
    }
    void resizePrivateUse1Bytes(const c10::Storage &storage, size_t bytes) const override
    {
        storage_grow(storage.unsafeGetStorageImpl(), bytes);
    }
};

}    // namespace

void connect()
{
    if (dj_is_initialized())
        return;
    dj_fault fault = {};
    int error;
    {
        without_python_lock unlocked;
        error = dj_init(nullptr, &fault);
    }
    if (error)
        raise_fault(error, fault, "init");
}

c10::Device device_of_index(c10::DeviceIndex index)
{
    return {REMOTE, index < 0 ? device_here() : index};
}

c10::Device device_asked(std::optional<c10::Device> device, int *placement)
{
    bool has_index = device && device->has_index();
    c10::Device on = device_of_index(has_index ? device->index() : c10::DeviceIndex{-1});
    *placement = placement_of_index(on.index());
    return on;
}

// PyTorch fills in the index before it asks for a tensor, so the default's own index stands for "any" too.
int placement_of_index(c10::DeviceIndex index)
{
    return index == default_device() ? DJ_ANY_DEVICE : index;
}

void forget_default_device()
{
    chosen_device.store(NOT_SET, std::memory_order_relaxed);
}

random_key random_take(const std::optional<at::Generator> &given, c10::Device device, int64_t count)
{
    at::Generator source = given && given->defined() ? *given : default_generator(device.index());
    TORCH_CHECK(source.device().type() == REMOTE, "Expected a 'remote_accelerator' device type for generator but found '",
                source.device().type(), "'");
    auto *impl = static_cast<generator *>(source.unsafeGetGeneratorImpl());
    std::lock_guard<std::mutex> lock(impl->mutex_);
    random_key key{impl->seed_, impl->offset_};
    impl->offset_ += static_cast<uint64_t>(std::max<int64_t>(count, 1));
    return key;
}

namespace
{

// Attention is recorded whole, but when its gradient will be wanted: then PyTorch's own decomposition gives ops that all have one.
int64_t attention_choice(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value,
                         const std::optional<at::Tensor> &mask, double dropout_p, bool, std::optional<double>, bool)
{
    bool wants_gradient = c10::GradMode::is_enabled() && (query.requires_grad() || key.requires_grad() || value.requires_grad() ||
                                                          (mask && mask->defined() && mask->requires_grad()));
    bool is_whole = !wants_gradient && dtype_is_narrow(query.scalar_type()) && dropout_p == 0.0 && query.dim() == 4 &&
                    key.dim() == 4 && value.dim() == 4;
    return static_cast<int64_t>(is_whole ? sdp::SDPBackend::overrideable : sdp::SDPBackend::math);
}

allocator the_allocator;

// Counts the meta tensors that PyTorch makes while this thread records an op: there should be none, shapes come from the op table.
struct meta_allocator final : c10::Allocator {
    c10::Allocator *inner = nullptr;
    c10::DataPtr allocate(size_t bytes) override
    {
        if (is_recording)
            meta_count.fetch_add(1, std::memory_order_relaxed);    // relaxed: a statistic
        return inner->allocate(bytes);
    }
    c10::DeleterFnPtr raw_deleter() const override
    {
        return inner->raw_deleter();
    }
    void copy_data(void *to, const void *from, size_t bytes) const override
    {
        inner->copy_data(to, from, bytes);
    }
};

}    // namespace

REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &the_allocator)
C10_REGISTER_GUARD_IMPL(PrivateUse1, guard)

thread_local bool is_recording = false;

uint64_t meta_dispatches()
{
    return meta_count.load(std::memory_order_relaxed);
}

void device_register()
{
    constexpr uint8_t OVER_PYTORCHS_OWN = 1;
    static meta_allocator counted;
    counted.inner = c10::GetAllocator(c10::DeviceType::Meta);
    c10::SetAllocator(c10::DeviceType::Meta, &counted, OVER_PYTORCHS_OWN);
    at::RegisterPrivateUse1HooksInterface(new hooks);
    c10::register_privateuse1_backend("remote_accelerator");
}

}    // namespace djinn

namespace at::native
{
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &djinn::attention_choice)
}
