// Cuda device: the device port (core/io/device.h) on one GPU.
//
// One thread. It turns each list into a program (kernels/cuda/program.h), gives it to the list's stream with one copy of all
// arguments, and posts IO_DEVICE_DONE when the list's event has come. The region is one cudaMalloc, made with everything else
// that is ever needed (staging, arguments, workspace) before the device says that it is there: running out is a typed error at
// the start, and the device allocates nothing later. What CUDA itself makes later (code that is loaded, graphs, plans of cuDNN) lives in what
// the region leaves free.
//
// WRITE and READ go through pinned memory in chunks, so that copying to and from it overlaps with the bus. A list's READs are
// copied out of it when its event has come. Recurring programs (equal steps, three times) are captured as CUDA graphs; least
// recently used ones go beyond CUDA_GRAPHS_MAX.
//
// An error that CUDA calls sticky loses the device with all that it holds: lists of that incarnation fail with DJ_E_DEVICE_LOST
// (core/io/device.h). Before they come back the device was made anew for another, with the same region's size and a new context of CUDA's;
// where CUDA gives no other context to this process, it is gone.

#ifndef GPU_WORKER_DEVICE_CUDA_CUDA_DEVICE_H
#define GPU_WORKER_DEVICE_CUDA_CUDA_DEVICE_H

#include <stdint.h>

#include "core/base/error.h"
#include "core/io/device.h"
#include "core/io/io.h"
#include "gpu_worker/kernels/cuda/api.h"

struct cublaslt_api;
struct cudnn_api;

enum { CUDA_PEERS_MAX = 16 };           // other processes' regions that are open at a time: the one used longest ago makes room
enum { CUDA_GRAPHS_MAX = 64, CUDA_GRAPH_AFTER = 3, CUDA_STAGING_BYTES = 64 << 20, CUDA_CHUNK_BYTES = 4 << 20 };

// Device code by family (enum cuda_family): fatbins; the module's images, or those of a test's fake.
struct cuda_image { const void *data; size_t bytes; };

// Faults on request (`djinn chaos`), asked for once a list; NULL: there are none.
struct cuda_chaos { bool (*is_full)(void), (*loses_all)(void); };

struct cuda_device_config {
    uint32_t index;                     // comes back in IO_DEVICE_DONE
    int ordinal;                        // the GPU, as CUDA counts
    uint64_t memory_bytes;              // of the region; 0: 90 % of what is free
    bool allows_tf32;
    const struct cuda_api *api;
    const struct cublaslt_api *blas;    // NULL: absent
    const struct cudnn_api *dnn;        // NULL: absent
    const struct cuda_image *image;     // CUDA_FAMILIES of them
    struct cuda_chaos chaos;
    const char *timing_file;            // timing.h; NULL: nothing is timed. Must outlive the start
    bool times_launches;                // each one, and no graphs
    const struct io_sink *sink;         // gets IO_DEVICE_DONE; must outlive the device
};

struct cuda_device_stats {
    uint64_t lists, launches, graph_launches, graph_captures, graphs, bytes_in, bytes_out, peer_copies, peer_bytes;
};

// Starts the device. port->stop ends and frees it. DJ_E_NO_DEVICE (too old a GPU), DJ_E_DEVICE_MEMORY, DJ_E_DEVICE, DJ_E_NO_MEMORY with
// words.
DJ_MUST_USE enum dj_error cuda_device_make(const struct cuda_device_config *config, struct device_port **ret, struct fault *fault);
struct cuda_device_stats cuda_device_stats(const struct device_port *port);
bool cuda_device_is_lost(const struct device_port *port);

#endif
