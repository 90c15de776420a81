// Gathers on a GPU: plain[row] = indexed[where the indices say], a row being what is contiguous in both: a whole slice for embedding, one
// element for gather.
//
// Threads take units of up to 16 bytes, neighbours neighbouring ones, so that rows of any length are shared evenly. Only bytes move: one
// kernel for every dtype. Without indices it is a strided copy, without a tensor to read a fill. A row whose index is out of range is
// left alone and fails the task.

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/index.cuh"

template <typename Unit>
DJ_FN void take_units(const struct gather_args *args, const char *indexed, unsigned long long *fault, unsigned task)
{
    const struct index_walk *walk = &args->walk;
    const int64_t in_row = walk->row_bytes / (int64_t)sizeof(Unit), count = walk->rows * in_row,
                  stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        int64_t row = i, unit = in_row == 1 ? 0 : index_split(&row, in_row);
        struct index_spot spot;
        if (!index_find(walk, row, &spot)) {
            index_fail(walk, row, fault, task);
            continue;
        }
        const Unit *from = args->indexed == nullptr ? (const Unit *)indexed : (const Unit *)(indexed + spot.indexed) + unit;
        ((Unit *)((char *)args->plain + spot.plain))[unit] = *from;
    }
}

DJ_KERNEL(gather_take, struct gather_args, 256)
{
    const char *indexed = args->indexed == nullptr ? (const char *)args->value : (const char *)args->indexed;
    switch (index_unit(&args->walk, args->plain, indexed)) {
    case 16: take_units<bytes16>(args, indexed, fault, task); break;
    case 8: take_units<uint64_t>(args, indexed, fault, task); break;
    case 4: take_units<uint32_t>(args, indexed, fault, task); break;
    case 2: take_units<uint16_t>(args, indexed, fault, task); break;
    default: take_units<uint8_t>(args, indexed, fault, task); break;
    }
}

// Indices that decide nothing, since what they would move is empty, must be in range all the same.
DJ_KERNEL(gather_check, struct index_check_args, 256)
{
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    struct index_spot spot;
    for (int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; row < args->walk.rows; row += stride)
        if (!index_find(&args->walk, row, &spot))
            index_fail(&args->walk, row, fault, task);
}
