// Random numbers on a GPU: element e of a call is a function of (seed, offset, e) alone, the same as on a CPU (random_cpu.c says how):
// Philox4x32-10 with key = seed and counter = (block, offset); block e / 4 and word e % 4 for 32-bit draws, block e / 2 and two words
// for 64-bit ones.
//
// Uniform numbers, integers and masks have the CPU's bits: products are rounded before they are added. Normal ones go through this
// device's log, cos and sin in float64.

#include "core/base/error.h"
#include "gpu_worker/kernels/cuda/elements.cuh"
#include "gpu_worker/kernels/cuda/random.h"
#define PHILOX_FN DJ_FN
#include "gpu_worker/kernels/philox.h"

struct philox_words {
    uint32_t word[4];
};

DJ_FN philox_words philox_block(uint64_t seed, uint64_t offset, uint64_t block)
{
    philox_words words;
    philox(seed, offset, block, words.word);
    return words;
}

DJ_FN double unit_of_word(uint32_t word)
{
    return (double)(word >> 8) * 0x1p-24;
}
DJ_FN double unit_of_draw(uint64_t draw)
{
    return (double)(draw >> 11) * 0x1p-53;
}
DJ_FN uint64_t draw_of(const philox_words &words, int half)
{
    return half == 0 ? words.word[0] | (uint64_t)words.word[1] << 32 : words.word[2] | (uint64_t)words.word[3] << 32;
}

// Elements 4 t .. 4 t + 3 as 32-bit draws (`first`), or as 64-bit ones (`first` and `second`).
struct draws {
    philox_words first, second;
};

DJ_FN uint32_t word_at(const draws &draw, int j)
{
    return j == 0 ? draw.first.word[0] : j == 1 ? draw.first.word[1] : j == 2 ? draw.first.word[2] : draw.first.word[3];
}
DJ_FN uint64_t long_at(const draws &draw, int j)
{
    return j < 2 ? draw_of(draw.first, j) : draw_of(draw.second, j - 2);
}

DJ_FN double unit_at(const draws &draw, int j, bool is_wide)
{
    return is_wide ? unit_of_draw(long_at(draw, j)) : unit_of_word(word_at(draw, j));
}

// Box-Muller on pairs.
DJ_FN double normal_at(const random_args *args, const draws &draw, int j, bool is_wide)
{
    double u0 = unit_at(draw, j & ~1, is_wide), u1 = unit_at(draw, j | 1, is_wide);
    double r = sqrt(-2.0 * log(1.0 - u0)), angle = 6.283185307179586477 * u1;
    return args->a + dj_product(args->b, dj_product(r, j % 2 == 0 ? cos(angle) : sin(angle)));
}

DJ_FN double dropout_at(const random_args *args, const draws &draw, int j, int64_t index)
{
    const bool keeps = unit_of_word(word_at(draw, j)) >= args->a;
    const int64_t at = dj_at(&args->loop, 1, index);
    double value = 0;
    ((uint8_t *)args->mask)[dj_at(&args->loop, 2, index)] = keeps;
    dj_with_dtype(args->dtype, [&](auto *type) { value = (double)dj_number(((decltype(type))args->in)[at]); });
    return keeps ? value * args->b : 0.0;
}

DJ_KERNEL(random_draw, struct random_args, RANDOM_THREADS)
{
    const int64_t count = args->loop.count, step = (int64_t)gridDim.x * blockDim.x * RANDOM_ELEMENTS;
    const bool is_integer = args->kind == RANDOM_INTEGER,
               is_wide = is_integer || (args->dtype == DTYPE_F64 && args->kind <= RANDOM_NORMAL);
    for (int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * RANDOM_ELEMENTS; first < count; first += step) {
        const uint64_t block = (uint64_t)first / RANDOM_ELEMENTS;
        draws draw;
        draw.first = philox_block(args->seed, args->offset, is_wide ? 2 * block : block);
        draw.second = is_wide ? philox_block(args->seed, args->offset, 2 * block + 1) : draw.first;
        DJ_ROLLED
        for (int j = 0; j < RANDOM_ELEMENTS && first + j < count; j++) {
            const int64_t at = dj_at(&args->loop, 0, first + j);
            double real = 0;
            int64_t integer = 0;
            switch (args->kind) {
            case RANDOM_UNIFORM: real = args->a + dj_product(args->b - args->a, unit_at(draw, j, is_wide)); break;
            case RANDOM_NORMAL: real = normal_at(args, draw, j, is_wide); break;
            case RANDOM_BERNOULLI: real = unit_of_word(word_at(draw, j)) < args->a ? 1.0 : 0.0; break;
            case RANDOM_INTEGER: integer = (int64_t)((uint64_t)args->low + long_at(draw, j) % args->range); break;
            default: real = dropout_at(args, draw, j, first + j); break;
            }
            dj_with_dtype(args->dtype, [&](auto *type) {
                typedef typename dj_pointee<decltype(type)>::type T;
                ((T *)args->out)[at] = is_integer ? dj_make<T>::of(integer) : dj_make<T>::of(real);
            });
        }
    }
}

// Multinomial ------------------------------------------------------------------------------------------------------------------ A
// block a row. With replacement: the first class whose running sum of weights exceeds u * total. Without: the largest weight / -ln(1 -
// u), one after the other; among equals the lower class comes first.

DJ_FN double unit_of_element(const multinomial_args *args, uint64_t element)
{
    return unit_of_draw(draw_of(philox_block(args->seed, args->offset, element / 2), (int)(element % 2)));
}

template <typename T> struct weights {
    const multinomial_args *args;
    const T *row;
    DJ_FN double operator[](int64_t i) const
    {
        return (double)dj_number(row[i * args->class_stride]);
    }
};

// Each thread sums a run of classes; `before` gets the sum of all runs before each thread's, and the total at the end. False: weights
// that are no weights.
template <typename T> DJ_FN bool sum_weights(const weights<T> &weight, int64_t first, int64_t last, double *before)
{
    double sum = 0;
    unsigned bad = 0;
    for (int64_t i = first; i < last; i++) {
        double w = weight[i];
        bad |= !(w >= 0) || w == INFINITY;
        sum += w;
    }
    dj_sync();
    before[threadIdx.x + 1] = sum;
    bad = dj_block_all(bad, dj_add(), 0u);
    if (threadIdx.x == 0) {
        before[0] = 0;
        for (unsigned t = 1; t <= blockDim.x; t++)
            before[t] += before[t - 1];
    }
    dj_sync();
    return bad == 0 && before[blockDim.x] > 0 && before[blockDim.x] < INFINITY;
}

template <typename T> DJ_FN int64_t find_class(const weights<T> &weight, int64_t run, const double *before, double mark)
{
    // The first run whose end exceeds the mark; the last that has weight, where rounding leaves none.
    unsigned low = 0, high = blockDim.x;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (before[middle + 1] > mark)
            high = middle;
        else
            low = middle + 1;
    }
    while (low > 0 && (low == blockDim.x || !(before[low + 1] > before[low])))
        low--;
    const int64_t classes = weight.args->classes, first = low * run, last = first + run < classes ? first + run : classes;
    double sum = before[low];
    int64_t found = first;
    for (int64_t i = first; i < last; i++) {
        double w = weight[i];
        if (w == 0)
            continue;
        found = i;
        sum += w;
        if (sum > mark)
            break;
    }
    return found;
}

struct candidate {
    double value;
    int64_t at;
};
DJ_FN bool comes_before(const candidate &a, const candidate &b)
{
    return a.value > b.value || (a.value == b.value && a.at < b.at);
}

// The first candidate of all threads, for all of them.
DJ_FN candidate first_of_block(candidate own, candidate *shared)
{
    dj_sync();
    shared[threadIdx.x] = own;
    dj_sync();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half && comes_before(shared[threadIdx.x + half], shared[threadIdx.x]))
            shared[threadIdx.x] = shared[threadIdx.x + half];
        dj_sync();
    }
    return shared[0];
}

template <typename T> DJ_FN void race(const weights<T> &weight, int64_t row, candidate *shared)
{
    const multinomial_args *args = weight.args;
    candidate before = {INFINITY, -1};
    for (int64_t draw = 0; draw < args->draws; draw++) {
        candidate best = {-INFINITY, args->classes};
        for (int64_t i = threadIdx.x; i < args->classes; i += blockDim.x) {
            double w = weight[i];
            candidate own = {w == 0 ? -1.0 : w / -log1p(-unit_of_element(args, (uint64_t)(row * args->classes + i))), i};
            if (comes_before(before, own) && comes_before(own, best))
                best = own;
        }
        before = first_of_block(best, shared);
        if (threadIdx.x == 0)
            args->out[row * args->draws + draw] = before.at;
    }
}

template <typename T>
DJ_FN void multinomial_rows(const multinomial_args *args, unsigned long long *fault, unsigned task, double *before,
                            candidate *shared)
{
    const int64_t run = (args->classes + blockDim.x - 1) / blockDim.x;
    for (int64_t row = blockIdx.x; row < args->rows; row += gridDim.x) {
        weights<T> weight = {args, (const T *)args->weight + row * args->row_stride};
        int64_t first = threadIdx.x * run, last = first + run < args->classes ? first + run : args->classes;
        if (!sum_weights<T>(weight, first, last, before)) {
            if (threadIdx.x == 0)
                dj_fail(fault, task, FAILURE_PROBABILITIES, (uint64_t)row, 0, 0);
            continue;
        }
        if (!args->replaces) {
            race<T>(weight, row, shared);
            continue;
        }
        for (int64_t draw = threadIdx.x; draw < args->draws; draw += blockDim.x) {
            double mark = unit_of_element(args, (uint64_t)(row * args->draws + draw)) * before[blockDim.x];
            args->out[row * args->draws + draw] = find_class<T>(weight, run, before, mark);
        }
    }
}

DJ_KERNEL(random_multinomial, struct multinomial_args, MULTINOMIAL_THREADS)
{
    DJ_SHARED(double, before, MULTINOMIAL_THREADS + 1);
    DJ_SHARED(candidate, shared, MULTINOMIAL_THREADS);
    switch (args->dtype) {
    case DTYPE_F16: multinomial_rows<dj_half>(args, fault, task, before, shared); break;
    case DTYPE_BF16: multinomial_rows<dj_bfloat>(args, fault, task, before, shared); break;
    case DTYPE_F32: multinomial_rows<float>(args, fault, task, before, shared); break;
    default: multinomial_rows<double>(args, fault, task, before, shared); break;
    }
}
