// Tile: a product of matrices that exist only as functions: C(m, n) = sum over k of A(m, k) B(n, k), in tiles of 64 x 64 through shared memory, 256 threads, 4 x 4
// results a thread. The sum's order is that of k, whatever the grid. Blocks: x over tiles of m, y over tiles of n; both loop.
//
//     struct A { typedef ... Row; Row row(int64_t m) const; float at(const Row &, int64_t k) const; }     row() is asked once a tile and thread
//     struct B { float at(int64_t n, int64_t k) const; }
//     struct C { void put(int64_t m, int64_t n, float sum) const; }

#ifndef GPU_WORKER_KERNELS_CUDA_TILE_CUH
#define GPU_WORKER_KERNELS_CUDA_TILE_CUH

#include "gpu_worker/kernels/cuda/device.cuh"

enum { TILE = 64, TILE_K = 16, TILE_THREADS = 256, TILE_ROW = TILE + 4 };

template <typename A, typename B, typename C> DJ_FN void dj_tiles(int64_t rows, int64_t columns, int64_t depth, const A &a, const B &b, const C &c)
{
    DJ_SHARED(float, shared_a, TILE_K * TILE_ROW);
    DJ_SHARED(float, shared_b, TILE_K * TILE_ROW);
    const int thread = (int)threadIdx.x, at_m = thread / 16 * 4, at_n = thread % 16 * 4;
    for (int64_t first_m = (int64_t)blockIdx.x * TILE; first_m < rows; first_m += (int64_t)gridDim.x * TILE)
        for (int64_t first_n = (int64_t)blockIdx.y * TILE; first_n < columns; first_n += (int64_t)gridDim.y * TILE) {
            float sum[4][4];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    sum[i][j] = 0;
            const int64_t own_m = first_m + thread % TILE;
            const typename A::Row row = a.row(own_m < rows ? own_m : rows - 1);
            for (int64_t first_k = 0; first_k < depth; first_k += TILE_K) {
                dj_sync();    // the step before is used up
                for (int i = 0; i < TILE * TILE_K / TILE_THREADS; i++) {
                    int k = thread / TILE + i * (TILE_THREADS / TILE);
                    shared_a[k * TILE_ROW + thread % TILE] = own_m < rows && first_k + k < depth ? a.at(row, first_k + k) : 0.0f;
                    int n = thread / TILE_K + i * (TILE_THREADS / TILE_K), kb = thread % TILE_K;
                    shared_b[kb * TILE_ROW + n] = first_n + n < columns && first_k + kb < depth ? b.at(first_n + n, first_k + kb) : 0.0f;
                }
                dj_sync();
                for (int k = 0; k < TILE_K; k++) {
                    float left[4], right[4];
                    for (int i = 0; i < 4; i++) {
                        left[i] = shared_a[k * TILE_ROW + at_m + i];
                        right[i] = shared_b[k * TILE_ROW + at_n + i];
                    }
                    for (int i = 0; i < 4; i++)
                        for (int j = 0; j < 4; j++)
                            sum[i][j] += left[i] * right[j];
                }
            }
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    if (first_m + at_m + i < rows && first_n + at_n + j < columns)
                        c.put(first_m + at_m + i, first_n + at_n + j, sum[i][j]);
        }
}

#endif
