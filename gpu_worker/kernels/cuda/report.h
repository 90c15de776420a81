// Report: what kernels leave behind about the values of a list that they could not use. It lies in device memory before a program's
// arguments, zero at first; dj_fail (device.cuh) writes it, the host reads it when the list has run.
//
// The one that stays is that of the earliest task and, within the task, of the lowest position: the same from run to run, whatever the
// order of blocks.

#ifndef GPU_WORKER_KERNELS_CUDA_REPORT_H
#define GPU_WORKER_KERNELS_CUDA_REPORT_H

#include <stdint.h>

// Kernels get its address as that of its first word.
struct cuda_report {
    unsigned long long first;           // (task + 1) << 32 | enum failure; 0: nothing to report
    unsigned long long lock;            // 1: somebody is writing the rest
    uint64_t position;                  // of the value, as its kernel counts
    int64_t value, size;
    uint64_t pad;                       // arguments that follow are aligned to 16 bytes
};

static inline uint32_t cuda_report_task(const struct cuda_report *report) { return (uint32_t)(report->first >> 32) - 1; }

#endif
