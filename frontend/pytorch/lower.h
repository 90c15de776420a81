// C++ because it serves the shim. The lowering of one ATen op from its row of the op table: see lower.cpp.

#pragma once

#include "shim.h"

namespace djinn {

constexpr uint32_t DJ_ATTRS_MAX = 10, DJ_ATTR_INTS_MAX = 32;        // of an op, of a list attribute: as in djinn.h
constexpr uint32_t OP_FLAG_VIEW = 2, OP_FLAG_MANUAL = 16;

enum lowering_form { FUNCTION, IN_PLACE, OUT };

// Whether kernels that accumulate in float32 take the dtype. Workers publish which ops they have, not for which dtypes: the ops that have
// such kernels only (convolution, pooling, the norms, attention) are listed in lower.cpp and manual.cpp, and wider dtypes go another way.
bool dtype_is_narrow(c10::ScalarType type);

struct step {
    enum kind_of { TENSOR, TENSORS, INT, BOOL, FLOAT, SCALAR, INTS, ENUM, DTYPE, IGNORED } kind;
    bool takes_cpu;             // index lists may hold tensors of the CPU
};

// The tensor arguments of one call, flattened; drops what it uploaded.
struct call_inputs {
    static constexpr uint32_t FEW = 6;
    dj_arg few_in[FEW];
    dj_tensor few_window[FEW];
    std::unique_ptr<dj_arg[]> many_in;
    std::unique_ptr<dj_tensor[]> many_window;
    dj_arg *in = few_in;
    dj_tensor *window = few_window;
    uint32_t count = 0;
    int placement = DJ_ANY_DEVICE;
    std::optional<c10::Device> device;
    c10::SmallVector<dj_cell *, 2> uploaded;

    call_inputs() = default;
    call_inputs(const call_inputs &) = delete;
    call_inputs &operator=(const call_inputs &) = delete;
    ~call_inputs();
    void reserve(uint32_t tensors)
    {
        if (tensors <= FEW)
            return;
        many_in.reset(new dj_arg[tensors]);
        many_window.reset(new dj_tensor[tensors]);
        in = many_in.get();
        window = many_window.get();
    }
    // False when the tensor is one that only the CPU computes with (complex); views of those are fine.
    bool add(const at::Tensor &tensor, bool takes_cpu, const char *name, bool is_view = false);
};

struct lowering final : c10::OperatorKernel {
    uint32_t op = 0, outputs = 1, attrs_count = 0;
    bool is_view = false;
    bool is_narrow = false;                 // see dtype_is_narrow
    lowering_form form = FUNCTION;
    size_t arguments_count = 0;             // on the stack, out arguments included
    std::string name;
    c10::SmallVector<step, 12> steps;
    std::atomic<bool> native{false};        // some worker has the op; false also before asking

    void operator()(const c10::OperatorHandle &handle, c10::DispatchKeySet keys, torch::jit::Stack *stack);

private:
    bool is_native();
    bool gather(const c10::IValue *arguments, call_inputs *call, dj_attr *attr, int64_t (*ints)[DJ_ATTR_INTS_MAX], int32_t *dtype) const;
    void write_in_place(const at::Tensor &self, const dj_tensor &result) const;
};

using maybe_tensor = std::optional<at::Tensor>;

inline at::Tensor or_none(const maybe_tensor &tensor) { return tensor ? *tensor : at::Tensor(); }

// Records with tensor arguments that may be absent or on the CPU; the outputs as tensors.
template <size_t OUTPUTS>
std::array<at::Tensor, OUTPUTS> record_tensors(uint32_t op, std::initializer_list<at::Tensor> tensors, const attr_list &attrs,
                                               const char *name)
{
    call_inputs call;
    call.reserve(static_cast<uint32_t>(tensors.size()));
    for (const at::Tensor &tensor : tensors)
        TORCH_CHECK(call.add(tensor, false, name), "remote_accelerator does not compute with complex numbers (", name, ")");
    dj_tensor out[DJ_MAX_OUTPUTS];
    record(op, {call.in, call.count}, attrs, 0, DJ_ANY_DEVICE, out, name);
    std::array<at::Tensor, OUTPUTS> made;
    for (size_t i = 0; i < OUTPUTS; i++)
        made[i] = tensor_make(out[i], *call.device);
    return made;
}

// out=: `target` gets `result`'s shape and values.
void write_out(const at::Tensor &target, const at::Tensor &result, const char *name);

} // namespace djinn
