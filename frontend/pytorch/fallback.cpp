// C++ because it calls PyTorch's CPU kernels through the dispatcher.
// What no worker can do runs here, on the client's CPU, through PyTorch: inputs are read, the kernel runs, results become leaves like any
// input, and what the op writes to is written back. Correct, slow, and therefore counted by name and told once.

#include "shim.h"

#include <map>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/native/CPUFallback.h>

namespace djinn
{

namespace
{

std::mutex counts_lock;
std::map<std::string, uint64_t> counts;
void (*first_notice)(const char *name) = nullptr;

// CPU kernels draw from a CPU generator: one seeded from a position of the device's own stream, so that a seed still decides everything.
void replace_generators(const c10::FunctionSchema &schema, torch::jit::Stack *stack, c10::Device device)
{
    size_t count = schema.arguments().size(), first = stack->size() - count;
    for (size_t i = 0; i < count; i++) {
        c10::IValue &value = (*stack)[first + i];
        if (schema.arguments()[i].name() != "generator" ||
            !(value.isNone() || (value.isGenerator() && value.toGenerator().device().type() == REMOTE)))
            continue;
        std::optional<at::Generator> given = value.isNone() ? std::nullopt : std::optional<at::Generator>(value.toGenerator());
        random_key key = random_take(given, device, 1);
        // The constants of SplitMix64: neighbouring offsets get unrelated seeds.
        uint64_t mixed = key.seed + (key.offset + 1) * 0x9e3779b97f4a7c15ull;
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
        value = at::detail::createCPUGenerator(mixed ^ (mixed >> 27));
    }
}

// PyTorch would resolve these bits with an op that comes back here.
void resolve_bits(torch::jit::Stack *stack, size_t count)
{
    for (size_t i = stack->size() - count; i < stack->size(); i++) {
        c10::IValue &value = (*stack)[i];
        if (!value.isTensor() || !is_remote(value.toTensor()) || !(value.toTensor().is_conj() || value.toTensor().is_neg()))
            continue;
        at::Tensor tensor = value.toTensor();
        value = tensor_upload(tensor_to_cpu(tensor).resolve_conj().resolve_neg(), tensor.device(), placement_of(tensor));
    }
}

c10::Device device_on(const torch::jit::Stack &stack, size_t count)
{
    for (size_t i = stack.size() - count; i < stack.size(); i++) {
        if (stack[i].isTensor() && is_remote(stack[i].toTensor()))
            return stack[i].toTensor().device();
        if (stack[i].isTensorList())
            for (const c10::IValue &item : stack[i].toListRef())
                if (item.isTensor() && is_remote(item.toTensor()))
                    return item.toTensor().device();
    }
    return device_of_index(-1);
}

}    // namespace

void fallback_count(const char *name)
{
    bool is_first;
    {
        std::lock_guard<std::mutex> guard(counts_lock);
        is_first = counts[name]++ == 0;
    }
    if (is_first && first_notice)
        first_notice(name);
}

std::vector<std::pair<std::string, uint64_t>> fallback_counts()
{
    std::lock_guard<std::mutex> guard(counts_lock);
    return {counts.begin(), counts.end()};
}

void fallback_on_first(void (*notice)(const char *name))
{
    first_notice = notice;
}

void fallback(const c10::OperatorHandle &op, torch::jit::Stack *stack)
{
    const c10::FunctionSchema &schema = op.schema();
    const c10::OperatorName &name = op.operator_name();
    fallback_count(name.overload_name.empty() ? name.name.c_str() : (name.name + "." + name.overload_name).c_str());
    resolve_bits(stack, schema.arguments().size());
    replace_generators(schema, stack, device_on(*stack, schema.arguments().size()));
    at::native::cpu_fallback(op, stack);
}

}    // namespace djinn
