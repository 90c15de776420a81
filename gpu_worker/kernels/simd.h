// Simd: the inner loops that decide speed, compiled once for each instruction set (simd_base.c, simd_avx2.c, simd_avx512.c include
// the same simd_*.inc) and chosen at run time. All work on float32 in plain memory; every one of them gives each element a value
// that depends on its own inputs only, never on its place in a vector, so tails and cuts do not change bits.

#ifndef GPU_WORKER_KERNELS_SIMD_H
#define GPU_WORKER_KERNELS_SIMD_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_worker/kernels/pointwise.h"

enum { SIMD_MR_MAX = 14, SIMD_NR_MAX = 32, SIMD_LANES_MAX = 16 };

// c[m][n] (+)= sum over k of a[k * a_step + m] * b[k * ldb + n], for mr rows (the index of the table) and all nr columns of c.
typedef void (*simd_tile)(int64_t k, const float *a, int64_t a_step, const float *b, int64_t ldb, float *c, int64_t ldc, bool accumulate);
// The same with a read at a[offset[k] + m * stride]: pixels of a plane, for convolutions. Stride 1 or 2 (the table's first index + 1).
typedef void (*simd_pixels)(int64_t k, const float *a, const int32_t *offset, const float *b, float *c, int64_t ldc);

struct simd {
    const char *name;
    int lanes, mr, nr;                              // nr == 2 * lanes
    simd_tile tile[SIMD_MR_MAX + 1];
    simd_pixels pixels[2][SIMD_MR_MAX + 1];
    block_function pointwise[POINTWISE_OPS];        // NULL where the general float32 loop serves

    // dst[c * step + r] = src[r * ld + c] for rows <= lanes and any cols; lanes rows..lanes-1 of dst get 0.
    void (*pack)(const float *src, int64_t ld, int rows, int64_t cols, float *dst, int64_t step);
    // dst[c * dst_ld + r] = tile[r * ld + c] for rows <= lanes and cols <= nr; writes nothing else.
    void (*unpack)(const float *tile, int64_t ld, int rows, int cols, float *dst, int64_t dst_ld);

    // acc[m][n] += sum over k < rows of x[m * ldx + k] * w[k * ldw + n]; m <= 4.
    void (*gemv_kn)(int m, int64_t rows, int64_t n, const float *x, int64_t ldx, const float *w, int64_t ldw, float *acc, int64_t lda);
    // out[m][j] = sum over i < k of x[m * ldx + i] * w[j * ldw + i]; m <= 4, j < rows.
    void (*gemv_nk)(int m, int64_t rows, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw, float *out, int64_t ldo);

    float (*dot)(const float *a, const float *b, int64_t n);
    void (*axpy)(float *y, const float *x, float a, int64_t n);
    double (*sum)(const float *x, int64_t n);
    float (*max)(const float *x, int64_t n);                            // NaN if there is one; -inf when empty
    float (*exp_sum)(const float *x, float *y, int64_t n, float shift); // y = exp(x - shift), returns the sum; y may be x
    void (*scale)(const float *x, float *y, int64_t n, float scale, float shift);   // y = x * scale + shift
    void (*softmax)(const float *x, float *y, int64_t n, bool is_log);
    // y = (x - mean) * rstd * w + b; w and b may be NULL.
    void (*layer_norm)(const float *x, const float *w, const float *b, double eps, float *y, int64_t n, float *mean, float *rstd);
    // dx = (g - sum of g y) y, or g - e^y sum of g for log softmax; dx may be g.
    void (*softmax_backward)(const float *g, const float *y, float *dx, int64_t n, bool is_log);
    // dx = rstd * (h - mean of h - xhat * mean of h xhat), with h = g w (w may be NULL) and xhat = (x - mean) * rstd.
    void (*layer_norm_backward)(const float *g, const float *x, const float *w, float mean, float rstd, float *dx, int64_t n);
    // For each of n columns, over `rows` rows in order: dw[j] += sum of g xhat, db[j] += sum of g; mean and rstd are of the rows.
    void (*norm_columns)(const float *g, const float *x, int64_t ld, const float *mean, const float *rstd, int64_t rows, int64_t n,
                         double *dw, double *db);
    // One block of `keys` keys of attention, scores[key][nr queries] in, weights out: s = exp(s * scale - max), with running max and
    // sum per query column and the factor by which what was accumulated before must be scaled.
    void (*attend)(float *scores, int64_t keys, float scale, float *max, float *sum, float *factor);
    // Where x[j * stride] beats best[j] (or is NaN): best[j] = it, index[j] = first + j * stride; j < n.
    void (*pool)(const float *x, int64_t stride, int64_t n, int32_t first, float *best, int32_t *index);
};

const struct simd *simd(void);                      // the best that this processor runs; never changes in a process
extern const struct simd simd_base, simd_avx2, simd_avx512;

#endif
