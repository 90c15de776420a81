// Pointwise on a GPU: out[i] = f(a[i], b[i], c[i]), with broadcasting and any strides, in the type that PyTorch would compute in.
//
// There is one kernel a computed type (float32 in three, by how many registers their ops take; float64; and all integers as int64,
// wrapped to their dtype when read and before they are written), not one an op: op and dtypes are in the arguments, and their switches
// are uniform branches outside of the loop over a thread's elements. A thread takes some neighbours as vectors where every tensor is
// dense along the innermost dimension, else single elements a block apart. Semantics are PyTorch's: NaN wins in minimum and maximum,
// integer arithmetic wraps, `remainder` has the sign of the divisor, bool + is or.

#include "core/base/error.h"
#include "gpu_worker/kernels/cuda/elements.cuh"
#include "gpu_worker/kernels/cuda/pointwise.h"
#include "gpu_worker/kernels/cuda/sweep.cuh"

// Reading and writing ----------------------------------------------------------------------------------------------------------

DJ_FN int64_t wrapped(int64_t value, uint32_t dtype)
{
    switch (dtype) {
    case DTYPE_BOOL: return value != 0;
    case DTYPE_U8: return (uint8_t)value;
    case DTYPE_I8: return (int8_t)value;
    case DTYPE_I16: return (int16_t)value;
    case DTYPE_I32: return (int32_t)value;
    default: return value;
    }
}

template <typename C> struct reader {
    template <typename T> static DJ_FN C read(T value, uint32_t)
    {
        return (C)dj_number(value);
    }
};
template <> struct reader<int64_t> {
    template <typename T> static DJ_FN int64_t read(T value, uint32_t as)
    {
        return as == DTYPE_BOOL ? dj_number(value) != 0 : wrapped((int64_t)dj_number(value), as);
    }
};

template <typename C, int N> struct operands {
    C a[N], b[N], c[N], y[N];
};

// N elements as they stand in memory, of at most the size of what is computed in; one of any size. In words, since these stay in registers.
template <typename C, int N> struct raw_elements {
    enum { WORDS = sizeof(C) * N < 8 ? 2 : sizeof(C) * N / 4 };
    uint32_t word[WORDS];
};

// BYTES bytes: 1, 2, 4, or a multiple.
template <int BYTES, int WORDS> DJ_FN void read_words(const char *from, uint32_t (&to)[WORDS])
{
    if constexpr (BYTES == 1) {
        to[0] = *(const uint8_t *)from;
    } else if constexpr (BYTES == 2) {
        to[0] = *(const uint16_t *)from;
    } else {
        enum { PIECE = BYTES < 16 ? BYTES / 4 : 4 };
        DJ_UNROLL
        for (int at = 0; at < BYTES / 4; at += PIECE) {
            const sweep_pack<uint32_t, PIECE> piece = *(const sweep_pack<uint32_t, PIECE> *)(from + at * 4);
            DJ_UNROLL
            for (int i = 0; i < PIECE; i++)
                to[at + i] = piece.value[i];
        }
    }
}

template <typename T, int WORDS> DJ_FN T element_of(const uint32_t (&word)[WORDS], int j)
{
    T element;
    if constexpr (sizeof(T) == 8) {
        const uint64_t bits = word[2 * j] | (uint64_t)word[2 * j + 1] << 32;
        __builtin_memcpy(&element, &bits, sizeof element);
    } else {
        const uint32_t bits = word[j * sizeof(T) / 4] >> (j * sizeof(T) % 4 * 8);
        if constexpr (sizeof(T) == 4) {
            __builtin_memcpy(&element, &bits, sizeof element);
        } else if constexpr (sizeof(T) == 2) {
            const uint16_t half = (uint16_t)bits;
            __builtin_memcpy(&element, &half, sizeof element);
        } else {
            const uint8_t byte = (uint8_t)bits;
            __builtin_memcpy(&element, &byte, sizeof element);
        }
    }
    return element;
}

// N neighbours from element `index` on, or the one that is broadcast along them. Conversions come after the reads of two inputs, so that
// these are on their way together: what decides here is only how large elements are.
template <typename C, int N>
DJ_FN void read_raw(const struct pointwise_args *args, int input, int64_t index, raw_elements<C, N> *raw)
{
    const uint32_t bytes = args->in_bytes[input];
    const char *from = (const char *)(args->in[input] != nullptr ? args->in[input] : &args->number[input]) +
                       sweep_at(&args->sweep, (uint32_t)input + 1, index) * bytes;
    const bool is_one = N == 1 || args->is_one[input];
    switch (is_one ? bytes : bytes * N) {
    case 1: read_words<1>(from, raw->word); break;
    case 2: read_words<2>(from, raw->word); break;
    case 4: read_words<4>(from, raw->word); break;
    case 8: read_words<8>(from, raw->word); break;
    case 16:
        if constexpr (sizeof(C) * N >= 16)
            read_words<16>(from, raw->word);
        break;
    default:
        if constexpr (sizeof(C) * N >= 32)
            read_words<32>(from, raw->word);
        break;
    }
}

template <typename C, int N>
DJ_FN void convert(const struct pointwise_args *args, int input, const raw_elements<C, N> &raw, C (&value)[N])
{
    const uint32_t as = args->in_as[input];
    const bool is_one = N == 1 || args->is_one[input];
    dj_with_dtype(args->in_dtype[input], [&](auto *type) {
        typedef typename dj_pointee<decltype(type)>::type T;
        enum { HAS_ALL = sizeof(T) * N <= sizeof raw.word };    // larger elements are read one by one
        const C first = reader<C>::read(element_of<T>(raw.word, 0), as);
        DJ_UNROLL
        for (int j = 0; j < N; j++)
            value[j] = j == 0 || !HAS_ALL || is_one ? first : reader<C>::read(element_of<T>(raw.word, HAS_ALL ? j : 0), as);
    });
}

template <typename C, int N> DJ_FN void write_elements(const struct pointwise_args *args, int64_t index, const C (&value)[N])
{
    const int64_t offset = sweep_at(&args->sweep, 0, index);
    dj_with_dtype(args->out_dtype, [&](auto *type) {
        typedef typename dj_pointee<decltype(type)>::type T;
        sweep_pack<T, N> pack;
        for (int j = 0; j < N; j++)
            pack.value[j] = dj_make<T>::of(value[j]);
        *(sweep_pack<T, N> *)((T *)args->out + offset) = pack;
    });
}

template <typename C, int N, typename Compute>
DJ_FN void pointwise_step(const struct pointwise_args *args, int64_t index, Compute compute)
{
    operands<C, N> x;
    raw_elements<C, N> a{}, b{};
    read_raw<C, N>(args, 0, index, &a);
    if (args->inputs > 1)
        read_raw<C, N>(args, 1, index, &b);
    convert<C, N>(args, 0, a, x.a);
    if (args->inputs > 1)
        convert<C, N>(args, 1, b, x.b);
    if (args->inputs > 2) {    // few ops have one, and all registers are taken
        read_raw<C, N>(args, 2, index, &a);
        convert<C, N>(args, 2, a, x.c);
    }
    compute(x);
    write_elements<C, N>(args, index, x.y);
}

// `compute` takes operands of N elements and of one.
template <typename C, int N, typename Compute> DJ_FN void pointwise_run(const struct pointwise_args *args, Compute compute)
{
    const int64_t count = args->sweep.loop.count, tile = (int64_t)blockDim.x * N;
    for (int64_t start = blockIdx.x * tile; start < count; start += gridDim.x * tile) {
        int64_t first = start + threadIdx.x, step = blockDim.x;
        if (N > 1 && args->is_vector) {
            first = start + (int64_t)threadIdx.x * N;
            step = 1;
            if (first + N <= count) {
                pointwise_step<C, N>(args, first, compute);
                continue;
            }
        }
        DJ_ROLLED
        for (int j = 0; j < N && first + j * step < count; j++)
            pointwise_step<C, 1>(args, first + j * step, compute);
    }
}

// Ops --------------------------------------------------------------------------------------------------------------------------

// One op: `expression` of a, b, c and of the attributes p, q, r.
#define EACH(expression) \
    for (int j = 0; j < N; j++) { \
        [[maybe_unused]] const C a = x.a[j], b = x.b[j], c = x.c[j]; \
        x.y[j] = (C)(expression); \
    } \
    break
#define ON(name, expression) \
    case POINTWISE_##name: EACH(expression)

// What integers and floats have in common. True: done.
template <typename C, int N> DJ_FN bool compare(const struct pointwise_args *args, operands<C, N> &x, C p)
{
    switch (args->op) {
        ON(IDENTITY, a);
        ON(EQ, a == b);
        ON(NE, a != b);
        ON(LT, a < b);
        ON(LE, a <= b);
        ON(GT, a > b);
        ON(GE, a >= b);
        ON(EQ_SCALAR, a == p);
        ON(NE_SCALAR, a != p);
        ON(LT_SCALAR, a < p);
        ON(LE_SCALAR, a <= p);
        ON(GT_SCALAR, a > p);
        ON(GE_SCALAR, a >= p);
        ON(LOGICAL_NOT, a == 0);
        ON(LOGICAL_AND, a != 0 && b != 0);
        ON(LOGICAL_OR, a != 0 || b != 0);
        ON(SIGN, (a > 0) - (a < 0));
        ON(RELU, a <= 0 ? 0 : a);
        ON(ISNAN, a != a);
        ON(MINIMUM, a != a || a < b ? a : b);
        ON(MAXIMUM, a != a || a > b ? a : b);
        ON(WHERE, a != 0 ? b : c);
        ON(MASKED_FILL, b != 0 ? p : a);
        ON(MASKED_FILL_TENSOR, b != 0 ? c : a);
        ON(THRESHOLD_BACKWARD, b <= p ? 0 : a);
    default: return false;
    }
    return true;
}

// An absent bound bounds nothing. Where the lower is above the upper the upper wins, as in PyTorch; a NaN bound gives NaN.
template <typename C> DJ_FN C bounded(C x, bool has_low, C low, bool has_high, C high)
{
    x = has_low && (x < low || low != low) ? low : x;
    return has_high && (x > high || high != high) ? high : x;
}

template <typename C, int N> DJ_FN bool simple(const struct pointwise_args *args, operands<C, N> &x)
{
    const C p = (C)args->f[0], q = (C)args->f[1];
    const bool has_low = args->has[0], has_high = args->has[1];
    if (compare<C, N>(args, x, p))
        return true;
    switch (args->op) {
        ON(ADD, a + b * p);
        ON(SUB, a - b * p);
        ON(MUL, a * b);
        ON(DIV, a / b);
        ON(RSUB_SCALAR, p - a * q);
        ON(NEG, -a);
        ON(ABS, fabs(a));
        ON(SQRT, sqrt(a));
        ON(RSQRT, 1 / sqrt(a));
        ON(RECIPROCAL, 1 / a);
        ON(FLOOR, floor(a));
        ON(CEIL, ceil(a));
        ON(ROUND, rint(a));
        ON(TRUNC, trunc(a));
        ON(LEAKY_RELU, a > 0 ? a : a * p);
        ON(ADDCMUL, a + p * b * c);
        ON(ADDCDIV, a + p * (b / c));
        ON(LERP_SCALAR, fabs(p) < (C)0.5 ? a + p * (b - a) : b - (b - a) * (1 - p));
        ON(TANH_BACKWARD, a * (1 - b * b));
        ON(SIGMOID_BACKWARD, a * (1 - b) * b);
        ON(HARDTANH_BACKWARD, b > p && b < q ? a : 0);
        ON(LEAKY_RELU_BACKWARD, b > 0 ? a : a * p);
        ON(DROPOUT_BACKWARD, a * (b != 0 ? p : 0));
    case POINTWISE_CLAMP:
    case POINTWISE_CLAMP_MIN:
    case POINTWISE_HARDTANH: EACH(bounded(a, has_low, p, has_high, q));
    default: return false;
    }
    return true;
}

template <typename C> DJ_FN C gelu(C x, bool is_tanh)
{
    C inner = (C)0.79788456080286535588 * (x + (C)0.044715 * x * x * x);
    return is_tanh ? (C)0.5 * x * (1 + tanh(inner)) : (C)0.5 * x * (1 + erf(x * (C)0.70710678118654752440));
}

// Of two products that are added the compiler would choose one to fuse, perhaps not the same one for vectors and for single elements.
template <typename C> DJ_FN C gelu_slope(C x, bool is_tanh)
{
    if (is_tanh) {
        C t = tanh((C)0.79788456080286535588 * (x + (C)0.044715 * x * x * x));
        return fma((C)0.5 * x * (1 - t * t) * (C)0.79788456080286535588, 1 + (C)0.134145 * x * x, (C)0.5 * (1 + t));
    }
    return fma(x * (C)0.39894228040143267794, exp((C)-0.5 * x * x), (C)0.5 * (1 + erf(x * (C)0.70710678118654752440)));
}

template <typename C> DJ_FN C sigmoid(C x)
{
    return 1 / (1 + exp(-x));
}
template <typename C> DJ_FN C silu_slope(C x)
{
    C y = sigmoid(x);
    return y * (1 + x * (1 - y));
}

// From the result, its exponential is what it says less the lower end. `low` is alpha * scale.
template <typename C> DJ_FN C elu_slope(C x, bool is_result, C low, C scale, C in_scale)
{
    return x > 0 ? scale : is_result ? in_scale * (x + low) : in_scale * low * exp(x * in_scale);
}

template <typename C, int N> DJ_FN bool smooth(const struct pointwise_args *args, operands<C, N> &x)
{
    const C p = (C)args->f[0], q = (C)args->f[1], r = (C)args->f[2];
    const bool is_tanh = args->mode == POINTWISE_GELU_TANH, is_result = args->i[3] != 0;
    switch (args->op) {
        ON(EXP, exp(a));
        ON(LOG, log(a));
        ON(TANH, tanh(a));
        ON(SIGMOID, sigmoid(a));
        ON(ERF, erf(a));
        ON(SILU, a / (1 + exp(-a)));
        ON(GELU, gelu(a, is_tanh));
        ON(EXP2, exp2(a));
        ON(LOG1P, log1p(a));
        ON(ELU, a <= 0 ? expm1(a * r) * (p * q) : a * q);
        ON(ELU_BACKWARD, a * elu_slope(b, is_result, p * q, q, r));
        ON(GELU_BACKWARD, a * gelu_slope(b, is_tanh));
        ON(SILU_BACKWARD, a * silu_slope(b));
    default: return false;
    }
    return true;
}

template <typename C> DJ_FN C floor_of_quotient(C a, C b)
{
    if (b == 0)
        return a / b;
    C rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0 && (b < 0) != (rest < 0))
        quotient -= 1;
    if (quotient == 0)
        return copysign((C)0, a / b);
    C whole = floor(quotient);
    return quotient - whole > (C)0.5 ? whole + 1 : whole;
}

template <typename C> DJ_FN C rest_of_quotient(C a, C b)
{
    C rest = fmod(a, b);
    return rest != 0 && (b < 0) != (rest < 0) ? rest + b : rest;
}

// Exponents that PyTorch computes without pow (pointwise.c has the same list).
template <typename C, int N> DJ_FN bool power_by_products(operands<C, N> &x, C p)
{
    int form = p == 2 ? 1 : p == 3 ? 2 : p == (C)0.5 ? 3 : p == (C)-0.5 ? 4 : p == -1 ? 5 : p == -2 ? 6 : 0;
    switch (form) {
    case 1: EACH(a * a);
    case 2: EACH(a * a * a);
    case 3: EACH(sqrt(a));
    case 4: EACH(1 / sqrt(a));
    case 5: EACH(1 / a);
    case 6: EACH(1 / (a * a));
    default: return false;
    }
    return true;
}

template <typename C, int N> DJ_FN void power(operands<C, N> &x, C p)
{
    if (power_by_products<C, N>(x, p))
        return;
    for (int j = 0; j < N; j++)
        x.y[j] = pow(x.a[j], p);
}

template <typename C, int N> DJ_FN void rare(const struct pointwise_args *args, operands<C, N> &x)
{
    const uint32_t mode = args->mode;
    switch (args->op) {
        ON(SIN, sin(a));
        ON(COS, cos(a));
        ON(ATAN2, atan2(a, b));
        ON(POW, pow(a, b));
        ON(REMAINDER, rest_of_quotient(a, b));
        ON(DIV_MODE, mode == POINTWISE_ROUND_FLOOR   ? floor_of_quotient(a, b)
                     : mode == POINTWISE_ROUND_TRUNC ? trunc(a / b)
                                                     : a / b);
    default: power<C, N>(x, (C)args->f[0]); break;
    }
}

// INT64_MIN / -1 overflows in C; PyTorch's result wraps.
DJ_FN int64_t quotient_of(int64_t a, int64_t b, uint32_t mode)
{
    if (b == 0)
        return 0;
    if (b == -1)
        return (int64_t)(0 - (uint64_t)a);
    int64_t quotient = a / b;
    return mode == POINTWISE_ROUND_FLOOR && a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

DJ_FN int64_t rest_of_quotient(int64_t a, int64_t b)
{
    if (b == 0 || b == -1)
        return 0;
    int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

DJ_FN int64_t power_of(int64_t a, int64_t p)
{
    if (p < 0)
        return a == 1 ? 1 : a == -1 ? (p % 2 == 0 ? 1 : -1) : 0;
    uint64_t result = 1, base = (uint64_t)a;
    for (; p > 0; p >>= 1, base *= base)
        if (p & 1)
            result *= base;
    return (int64_t)result;
}

// Unsigned arithmetic wraps; bools are 0 and 1, and what comes out is != 0: + is or, - exclusive or, * and.
template <int N> DJ_FN void whole(const struct pointwise_args *args, operands<int64_t, N> &x)
{
    typedef int64_t C;
    typedef uint64_t U;
    const C p = args->i[0], q = args->i[1];
    const bool has_low = args->has[0], has_high = args->has[1], is_bool = args->out_as == DTYPE_BOOL;
    const uint32_t mode = args->mode;
    if (compare<C, N>(args, x, p))
        return;
    switch (args->op) {
        ON(ADD, (U)a + (U)b * (U)p);
        ON(SUB, (U)a - (U)b * (U)p);
        ON(MUL, (U)a * (U)b);
        ON(RSUB_SCALAR, (U)p - (U)a * (U)q);
        ON(ADDCMUL, (U)a + (U)p * (U)b * (U)c);
        ON(NEG, 0 - (U)a);
        ON(ABS, a < 0 ? 0 - (U)a : (U)a);
        ON(BITWISE_NOT, is_bool ? a == 0 : ~a);
        ON(BITWISE_AND, a & b);
        ON(BITWISE_OR, a | b);
        ON(BITWISE_XOR, a ^ b);
        ON(DIV_MODE, quotient_of(a, b, mode));
        ON(REMAINDER, rest_of_quotient(a, b));
        ON(POW, power_of(a, b));
        ON(POW_SCALAR, power_of(a, p));
    case POINTWISE_CLAMP:
    case POINTWISE_CLAMP_MIN:
    case POINTWISE_HARDTANH: EACH(bounded(a, has_low, p, has_high, q));
    default: EACH(a);    // floor, ceil, round, trunc
    }
    for (int j = 0; j < N; j++)
        x.y[j] = wrapped(x.y[j], args->out_as);
}

// A kernel's op, for as many elements as it is given.
struct simple_f32 {
    const struct pointwise_args *args;
    template <int N> DJ_FN void operator()(operands<float, N> &x) const
    {
        simple<float, N>(args, x);
    }
};
struct smooth_f32 {
    const struct pointwise_args *args;
    template <int N> DJ_FN void operator()(operands<float, N> &x) const
    {
        smooth<float, N>(args, x);
    }
};
struct rare_f32 {
    const struct pointwise_args *args;
    template <int N> DJ_FN void operator()(operands<float, N> &x) const
    {
        rare<float, N>(args, x);
    }
};
// What chains are made of: `rare` has exponents that need no pow there.
struct chain_f32 {
    const struct pointwise_args *args;
    template <int N> DJ_FN void operator()(operands<float, N> &x) const
    {
        if (!simple<float, N>(args, x) && !smooth<float, N>(args, x))
            (void)power_by_products<float, N>(x, (float)args->f[0]);
    }
};
struct all_f64 {
    const struct pointwise_args *args;
    template <int N> DJ_FN void operator()(operands<double, N> &x) const
    {
        if (!simple<double, N>(args, x) && !smooth<double, N>(args, x))
            rare<double, N>(args, x);
    }
};
struct all_whole {
    const struct pointwise_args *args;
    unsigned long long *fault;
    unsigned task;
    template <int N> DJ_FN void operator()(operands<int64_t, N> &x) const
    {
        const bool divides = args->op == POINTWISE_DIV_MODE || args->op == POINTWISE_REMAINDER;
        for (int j = 0; divides && j < N; j++)
            if (x.b[j] == 0)
                dj_fail(fault, task, FAILURE_DIVISOR, 0, 0, 0);
        whole<N>(args, x);
    }
};

// The parts of a chain, one after the other: a thread's elements are the same neighbours in each (chain.h).
template <int N> DJ_FN void pointwise_chain(const struct pointwise_args *args)
{
    const int64_t count = args->sweep.loop.count, tile = (int64_t)blockDim.x * N;
    for (int64_t start = blockIdx.x * tile; start < count; start += gridDim.x * tile) {
        const int64_t first = start + (int64_t)threadIdx.x * N;
        DJ_ROLLED
        for (uint32_t part = 0; part < args->parts; part++) {
            const struct pointwise_args *own = args + part;
            if (part + 1 < args->parts && dj_fetch_all(own + 1, sizeof *own) != 0)    // the next part's, while this one computes
                return;
            if (own->is_vector && first + N <= count) {
                pointwise_step<float, N>(own, first, chain_f32{own});
                continue;
            }
            DJ_ROLLED
            for (int j = 0; j < N && first + j < count; j++)
                pointwise_step<float, 1>(own, first + j, chain_f32{own});
        }
    }
}

DJ_KERNEL_OF(pointwise_simple_f32, struct pointwise_args, POINTWISE_THREADS, POINTWISE_BLOCKS)
{
    pointwise_run<float, POINTWISE_WIDE>(args, simple_f32{args});
}
DJ_KERNEL_OF(pointwise_smooth_f32, struct pointwise_args, POINTWISE_THREADS, POINTWISE_BLOCKS)
{
    pointwise_run<float, POINTWISE_NARROW>(args, smooth_f32{args});
}
DJ_KERNEL(pointwise_rare_f32, struct pointwise_args, POINTWISE_THREADS)
{
    pointwise_run<float, POINTWISE_LONE>(args, rare_f32{args});
}
DJ_KERNEL(pointwise_chain_f32, struct pointwise_args, POINTWISE_THREADS)
{
    pointwise_chain<POINTWISE_NARROW>(args);
}
DJ_KERNEL(pointwise_f64, struct pointwise_args, POINTWISE_THREADS)
{
    pointwise_run<double, POINTWISE_LONE>(args, all_f64{args});
}
DJ_KERNEL(pointwise_whole, struct pointwise_args, POINTWISE_THREADS)
{
    pointwise_run<int64_t, POINTWISE_NARROW>(args, all_whole{args, fault, task});
}
