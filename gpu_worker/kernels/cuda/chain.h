// Chain: ops that follow each other in a program, as one launch. It saves launches and reads, changes no bit, and asks for nothing but the
// tensors' places: what a launch of each would write is written.
//
// There are no barriers between a chain's parts, so a part joins only if no thread meets what another one writes or has written. Executors reuse
// memory, so this is looked at by address, for every tensor. Two kinds of parts:
//
//   CHAIN_ALIKE  pointwise ops over the same elements. A thread takes its elements through every part, so tensors may share memory where they
//                are the same elements at the same places; the output has the layout of the chain's other outputs.
//   CHAIN_APART  copies, each by blocks of its own: nothing that one writes may be read or written by another.

#ifndef GPU_WORKER_KERNELS_CUDA_CHAIN_H
#define GPU_WORKER_KERNELS_CUDA_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"

enum { CHAIN_PARTS_MAX = 16, CHAIN_PLACES_MAX = 64 };
enum chain_kind { CHAIN_NONE, CHAIN_ALIKE, CHAIN_APART };

struct tensor;

struct chain_place {
    uint64_t from, to;                  // addresses: first byte, end
    uint8_t item_bytes;
    bool has_layout;                    // the chain's: element i lies where it lies in the outputs
    bool is_written;
};

struct chain {
    enum chain_kind kind;
    uint32_t step;                      // of the program; the chain goes on only while it is the last one
    uint32_t parts, places;
    struct loop layout;                 // ALIKE: of the outputs; sizes, and strides of tensor 0
    struct chain_place place[CHAIN_PLACES_MAX];
};

// A chain of one part, the op with these tensors, which is the step `step`. Scalars (is_scalar) have no place.
void chain_begin(struct chain *chain, uint32_t step, const struct tensor *out, const struct tensor *in, uint32_t inputs);
// Whether such an op can be the next part: then it is taken for it.
bool chain_join(struct chain *chain, const struct tensor *out, const struct tensor *in, uint32_t inputs);

// What tensor `which` of a loop takes, in items of `item_bytes` at `data`.
struct chain_place chain_place_of(const struct loop *loop, uint32_t which, const void *data, uint32_t item_bytes, bool is_written);
// The same for copies, of which the chain knows the places. With more than CHAIN_PLACES_MAX nothing will join them.
void chain_begin_apart(struct chain *chain, uint32_t step, const struct chain_place *place, uint32_t places);
bool chain_join_apart(struct chain *chain, const struct chain_place *place, uint32_t places);

#endif
