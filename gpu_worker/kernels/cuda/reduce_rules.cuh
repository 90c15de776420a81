// Rules of reductions: a rule is a state, its neutral value, how an element (with its position in the reduced space) and how a later state
// goes into it, and its result. Part of reduce.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_REDUCE_RULES_CUH
#define GPU_WORKER_KERNELS_CUDA_REDUCE_RULES_CUH

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/reduce.h"

template <typename Number> struct rule_sum {
    struct State {
        Number sum;
    };
    DJ_FN static State start(const struct reduce_args *)
    {
        return {0};
    }
    DJ_FN static void fold(State &s, Number x, int64_t, const struct reduce_args *)
    {
        s.sum += x;
    }
    DJ_FN static void join(State &s, const State &other, const struct reduce_args *)
    {
        s.sum += other.sum;
    }
    DJ_FN static Number finish(const State &s, const struct reduce_args *args)
    {
        return args->is_mean ? s.sum / (Number)args->length : s.sum;
    }
    DJ_FN static int64_t at(const State &)
    {
        return 0;
    }
};
// Sums of integers wrap; a mean of them is not asked for.
template <> DJ_FN int64_t rule_sum<int64_t>::finish(const State &s, const struct reduce_args *)
{
    return s.sum;
}
template <> DJ_FN void rule_sum<int64_t>::fold(State &s, int64_t x, int64_t, const struct reduce_args *)
{
    s.sum = (int64_t)((uint64_t)s.sum + (uint64_t)x);
}
template <> DJ_FN void rule_sum<int64_t>::join(State &s, const State &other, const struct reduce_args *)
{
    s.sum = (int64_t)((uint64_t)s.sum + (uint64_t)other.sum);
}

DJ_FN float product(float a, float b)
{
    return a * b;
}
DJ_FN double product(double a, double b)
{
    return a * b;
}
DJ_FN int64_t product(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

template <typename Number> struct rule_prod {
    struct State {
        Number product;
    };
    DJ_FN static State start(const struct reduce_args *)
    {
        return {1};
    }
    DJ_FN static void fold(State &s, Number x, int64_t, const struct reduce_args *)
    {
        s.product = product(s.product, x);
    }
    DJ_FN static void join(State &s, const State &other, const struct reduce_args *)
    {
        s.product = product(s.product, other.product);
    }
    DJ_FN static Number finish(const State &s, const struct reduce_args *)
    {
        return s.product;
    }
    DJ_FN static int64_t at(const State &)
    {
        return 0;
    }
};

// The first NaN, else the first of the best. Nothing yet: at < 0.
template <typename Number> struct rule_best {
    struct State {
        Number best;
        int64_t at;
    };
    DJ_FN static State start(const struct reduce_args *)
    {
        return {0, -1};
    }
    DJ_FN static void fold(State &s, Number x, int64_t at, const struct reduce_args *args)
    {
        join(s, State{x, at}, args);
    }
    DJ_FN static void join(State &s, const State &other, const struct reduce_args *args)
    {
        if (other.at < 0)
            return;
        bool is_nan = s.best != s.best, other_is_nan = other.best != other.best, is_better;
        if (is_nan || other_is_nan)
            is_better = other_is_nan && (!is_nan || other.at < s.at);
        else if (other.best == s.best)
            is_better = other.at < s.at;
        else
            is_better = args->rule == REDUCE_MAX ? other.best > s.best : other.best < s.best;
        if (s.at < 0 || is_better)
            s = other;
    }
    DJ_FN static Number finish(const State &s, const struct reduce_args *)
    {
        return s.best;
    }
    DJ_FN static int64_t at(const State &s)
    {
        return s.at;
    }
};

template <typename Number> struct rule_logic {
    struct State {
        int32_t is_true;
    };
    DJ_FN static State start(const struct reduce_args *args)
    {
        return {args->rule == REDUCE_ALL};
    }
    DJ_FN static void fold(State &s, Number x, int64_t, const struct reduce_args *args)
    {
        join(s, State{x != (Number)0}, args);
    }
    DJ_FN static void join(State &s, const State &other, const struct reduce_args *args)
    {
        s.is_true = args->rule == REDUCE_ALL ? s.is_true & other.is_true : s.is_true | other.is_true;
    }
    DJ_FN static Number finish(const State &s, const struct reduce_args *)
    {
        return (Number)s.is_true;
    }
    DJ_FN static int64_t at(const State &)
    {
        return 0;
    }
};

// Welford's update and Chan's join, so that a large mean costs no digits.
template <typename Number> struct rule_var {
    struct State {
        Number mean, squares;
        int64_t count;
    };
    DJ_FN static State start(const struct reduce_args *)
    {
        return {0, 0, 0};
    }
    DJ_FN static void fold(State &s, Number x, int64_t, const struct reduce_args *)
    {
        Number difference = x - s.mean;
        s.count++;
        s.mean += difference / (Number)s.count;
        s.squares += difference * (x - s.mean);
    }
    DJ_FN static void join(State &s, const State &other, const struct reduce_args *)
    {
        if (other.count == 0)
            return;
        int64_t count = s.count + other.count;
        Number difference = other.mean - s.mean, share = (Number)other.count / (Number)count;
        s.squares += other.squares + difference * difference * ((Number)s.count * share);
        s.mean += difference * share;
        s.count = count;
    }
    DJ_FN static Number finish(const State &s, const struct reduce_args *args)
    {
        double freedom = (double)args->length - args->parameter;
        return s.squares / (Number)(freedom > 0 ? freedom : 0);
    }
    DJ_FN static int64_t at(const State &)
    {
        return 0;
    }
};

template <typename Number> DJ_COLD Number norm_power(Number x, double order)
{
    return pow(x, (Number)order);
}

// Orders 0, 1, 2 and both infinities as such, others by powers.
template <typename Number> struct rule_norm {
    struct State {
        Number sum;
        int32_t is_started;
    };
    DJ_FN static State start(const struct reduce_args *)
    {
        return {0, 0};
    }
    DJ_FN static void fold(State &s, Number x, int64_t, const struct reduce_args *args)
    {
        double order = args->parameter;
        Number size = fabs(x), term = order == 2 ? size * size : order == 0 ? (Number)(size != 0) : size;
        if (order != 0 && order != 1 && order != 2 && !isinf(order))
            term = norm_power(size, order);
        join(s, State{term, 1}, args);
    }
    DJ_FN static void join(State &s, const State &other, const struct reduce_args *args)
    {
        if (!other.is_started)
            return;
        if (!isinf(args->parameter))
            s.sum += other.sum;
        else if (!s.is_started || other.sum != other.sum ||
                 (s.sum == s.sum && (args->parameter > 0 ? other.sum > s.sum : other.sum < s.sum)))
            s.sum = other.sum;
        s.is_started = 1;
    }
    DJ_FN static Number finish(const State &s, const struct reduce_args *args)
    {
        double order = args->parameter;
        return order == 2 ? sqrt(s.sum) : order == 0 || order == 1 || isinf(order) ? s.sum : norm_power(s.sum, 1 / order);
    }
    DJ_FN static int64_t at(const State &)
    {
        return 0;
    }
};

#endif
