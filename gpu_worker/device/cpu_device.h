// Cpu device: the device port (core/io/device.h) on this machine's cores, with the kernels of gpu_worker/kernels.
//
// One thread carries out lists in the order of submission, both streams together, so `after` holds by itself; kernels spread over a team.
// The region is address space: memory comes when it is first written and goes back by trim, so an idle worker is small. Besides it,
// weights that kernels keep in a layout of their own (kernels_cpu_pack_limit, one limit a process) may take a quarter of its size.

#ifndef GPU_WORKER_DEVICE_CPU_DEVICE_H
#define GPU_WORKER_DEVICE_CPU_DEVICE_H

#include <stdint.h>

#include "core/base/error.h"
#include "core/io/device.h"
#include "core/io/io.h"

struct cpu_device_config {
    uint32_t index;                     // comes back in IO_DEVICE_DONE
    uint32_t threads;                   // of the team, the device's own thread included; 0: as many as this process may run on
    uint64_t memory_bytes;              // of the region; 0: 64 % of the machine's memory
    const struct io_sink *sink;         // gets IO_DEVICE_DONE; must outlive the device
};

// Starts the device. port->stop ends and frees it, *ret included. DJ_E_SYSTEM, DJ_E_NO_MEMORY with words.
DJ_MUST_USE enum dj_error cpu_device_make(const struct cpu_device_config *config, struct device_port **ret, struct fault *fault);

// The threads and memory that 0 stands for in the configuration.
uint32_t cpu_device_default_threads(void);
uint64_t cpu_device_default_memory_bytes(void);

#endif
