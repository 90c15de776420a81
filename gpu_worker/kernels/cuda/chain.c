// Chain: see chain.h.

#include "gpu_worker/kernels/cuda/chain.h"

#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"

// A tensor's dimensions without those of size 1, neighbours merged: equal for tensors whose elements lie alike.
static struct loop layout_of(const struct tensor_meta *meta)
{
    const struct tensor_meta *tensor[1] = {meta};
    struct loop loop = {.count = 0};

    (void)cuda_loop_make(meta, tensor, 1, &loop);    // one tensor is never too many
    return loop;
}

static bool is_same_layout(const struct loop *a, const struct loop *b)
{
    return a->count == b->count && a->rank == b->rank && memcmp(a->size, b->size, a->rank * sizeof a->size[0]) == 0 &&
           memcmp(a->stride[0], b->stride[0], a->rank * sizeof a->stride[0][0]) == 0;
}

struct chain_place chain_place_of(const struct loop *loop, uint32_t which, const void *data, uint32_t item_bytes, bool is_written)
{
    uint64_t above = 0, below = 0;

    for (uint32_t d = 0; d < loop->rank; d++) {
        int64_t stride = loop->stride[which][d];
        uint64_t reach = (uint64_t)(loop->size[d] - 1) * (uint64_t)(stride < 0 ? -stride : stride) * item_bytes;
        *(stride < 0 ? &below : &above) += reach;
    }
    return (struct chain_place){.from = (uint64_t)(uintptr_t)data - below,
                                .to = (uint64_t)(uintptr_t)data + above + item_bytes,
                                .item_bytes = (uint8_t)item_bytes,
                                .is_written = is_written};
}

static struct chain_place place_of(const struct chain *chain, const struct tensor *tensor, bool is_written)
{
    struct loop layout = layout_of(&tensor->meta);
    struct chain_place place = chain_place_of(&layout, 0, tensor->data, (uint32_t)dtype_bytes(tensor->meta.dtype), is_written);

    place.has_layout = is_same_layout(&layout, &chain->layout);
    return place;
}

static uint32_t places_of(const struct chain *chain, const struct tensor *out, const struct tensor *in, uint32_t inputs,
                          struct chain_place *ret)
{
    uint32_t places = 0;

    for (uint32_t i = 0; i < inputs; i++)
        if (!in[i].is_scalar)
            ret[places++] = place_of(chain, &in[i], false);
    ret[places++] = place_of(chain, out, true);
    return places;
}

// Whether no thread meets in one of the places what another thread writes in the other.
static bool can_meet(const struct chain_place *a, const struct chain_place *b)
{
    if (!a->is_written && !b->is_written)
        return true;
    if (a->to <= b->from || b->to <= a->from)
        return true;
    return a->has_layout && b->has_layout && a->from == b->from && a->item_bytes == b->item_bytes;
}

// Takes the places that stand behind the chain's if they can meet those of its parts.
static bool take(struct chain *chain, uint32_t places)
{
    const struct chain_place *more = chain->place + chain->places;

    for (uint32_t i = 0; i < places; i++)
        for (uint32_t earlier = 0; earlier < chain->places; earlier++)
            if (!can_meet(&more[i], &chain->place[earlier]))
                return false;
    chain->places += places;
    chain->parts++;
    return true;
}

static bool has_room(const struct chain *chain, enum chain_kind kind, uint32_t places)
{
    return chain->kind == kind && chain->parts < CHAIN_PARTS_MAX && chain->places + places <= CHAIN_PLACES_MAX;
}

void chain_begin(struct chain *chain, uint32_t step, const struct tensor *out, const struct tensor *in, uint32_t inputs)
{
    chain->kind = CHAIN_ALIKE;
    chain->step = step;
    chain->parts = 1;
    chain->layout = layout_of(&out->meta);
    chain->places = places_of(chain, out, in, inputs, chain->place);
}

bool chain_join(struct chain *chain, const struct tensor *out, const struct tensor *in, uint32_t inputs)
{
    if (!has_room(chain, CHAIN_ALIKE, inputs + 1))
        return false;
    uint32_t places = places_of(chain, out, in, inputs, chain->place + chain->places);
    return chain->place[chain->places + places - 1].has_layout && take(chain, places);
}

void chain_begin_apart(struct chain *chain, uint32_t step, const struct chain_place *place, uint32_t places)
{
    chain->kind = places <= CHAIN_PLACES_MAX ? CHAIN_APART : CHAIN_NONE;
    chain->step = step;
    chain->parts = 1;
    chain->places = chain->kind == CHAIN_NONE ? 0 : places;
    memcpy(chain->place, place, chain->places * sizeof *place);
}

bool chain_join_apart(struct chain *chain, const struct chain_place *place, uint32_t places)
{
    if (!has_room(chain, CHAIN_APART, places))
        return false;
    memcpy(chain->place + chain->places, place, places * sizeof *place);
    return take(chain, places);
}
