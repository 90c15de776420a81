// Loop: see cpu.h. Sorting dimensions by the first operand's steps (the output's) makes the row the dimension in which the output is
// dense, whatever order its strides have; merging makes two contiguous tensors one row.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

#include "core/base/assert.h"

void loop_begin(struct loop *loop, uint32_t rank, const int64_t *size)
{
    memset(loop, 0, sizeof *loop);
    loop->rank = rank;
    for (uint32_t d = 0; d < rank; d++) {
        loop->size[d] = size[d];
        loop->is_empty |= size[d] == 0;
    }
}

void loop_add(struct loop *loop, const struct tensor *tensor)
{
    const struct tensor_meta *meta = &tensor->meta;
    assert(loop->operands < LOOP_OPERANDS_MAX);
    assert(meta->rank <= loop->rank);

    int64_t bytes = (int64_t)dtype_bytes(meta->dtype);
    uint32_t at = loop->operands++, skip = loop->rank - meta->rank;
    loop->base[at] = tensor->data;
    for (uint32_t d = 0; d < meta->rank; d++) {
        assert(meta->size[d] == 1 || meta->size[d] == loop->size[d + skip]);    // op_infer has seen to it
        loop->step[at][d + skip] = meta->size[d] == 1 ? 0 : meta->stride[d] * bytes;
    }
}

void loop_add_raw(struct loop *loop, void *data, const int64_t *step_bytes)
{
    assert(loop->operands < LOOP_OPERANDS_MAX);

    uint32_t at = loop->operands++;
    loop->base[at] = data;
    for (uint32_t d = 0; d < loop->rank; d++)
        loop->step[at][d] = step_bytes[d];
}

static void swap_dims(struct loop *loop, uint32_t d, uint32_t e)
{
    int64_t size = loop->size[d];
    loop->size[d] = loop->size[e];
    loop->size[e] = size;
    for (uint32_t i = 0; i < loop->operands; i++) {
        int64_t step = loop->step[i][d];
        loop->step[i][d] = loop->step[i][e];
        loop->step[i][e] = step;
    }
}

static void move_dim(struct loop *loop, uint32_t from, uint32_t to)
{
    loop->size[to] = loop->size[from];
    for (uint32_t i = 0; i < loop->operands; i++)
        loop->step[i][to] = loop->step[i][from];
}

static bool can_merge(const struct loop *loop, uint32_t outer, uint32_t inner)
{
    for (uint32_t i = 0; i < loop->operands; i++)
        if (loop->step[i][outer] != loop->step[i][inner] * loop->size[inner])
            return false;
    return true;
}

void loop_finish(struct loop *loop, bool may_reorder)
{
    uint32_t kept = 0;
    for (uint32_t d = 0; d < loop->rank; d++)
        if (loop->size[d] != 1)
            move_dim(loop, d, kept++);
    if (may_reorder)
        for (uint32_t i = 1; i < kept; i++)
            for (uint32_t j = i; j > 0 && loop->step[0][j] > loop->step[0][j - 1]; j--)
                swap_dims(loop, j, j - 1);

    uint32_t merged = 0;
    for (uint32_t d = 0; d < kept; d++) {
        if (merged > 0 && can_merge(loop, merged - 1, d)) {
            loop->size[d] *= loop->size[merged - 1];
            move_dim(loop, d, merged - 1);
        } else {
            move_dim(loop, d, merged++);
        }
    }
    if (merged == 0) {
        loop->size[0] = 1;
        for (uint32_t i = 0; i < loop->operands; i++)
            loop->step[i][0] = 0;
        merged = 1;
    }
    loop->rank = merged;
}

struct walk {
    const struct loop *loop;
    loop_row row;
    void *context;
    int64_t pieces_per_row, piece, pieces, pieces_per_part;
};

static void walk_pieces(const struct walk *walk, int64_t first, int64_t last)
{
    const struct loop *loop = walk->loop;
    uint32_t outer = loop->rank - 1;
    int64_t index[DJ_RANK_MAX], step[LOOP_OPERANDS_MAX];
    char *at[LOOP_OPERANDS_MAX], *here[LOOP_OPERANDS_MAX];

    int64_t rest = first / walk->pieces_per_row, within = first % walk->pieces_per_row;
    for (uint32_t i = 0; i < loop->operands; i++) {
        at[i] = loop->base[i];
        step[i] = loop->step[i][outer];
    }
    for (uint32_t d = outer; d-- > 0;) {
        index[d] = rest % loop->size[d];
        rest /= loop->size[d];
        for (uint32_t i = 0; i < loop->operands; i++)
            at[i] += index[d] * loop->step[i][d];
    }
    for (int64_t piece = first; piece < last; piece++) {
        int64_t start = within * walk->piece;
        for (uint32_t i = 0; i < loop->operands; i++)
            here[i] = at[i] + start * step[i];
        walk->row(walk->context, here, step, i64_least(walk->piece, loop->size[outer] - start));
        if (++within < walk->pieces_per_row)
            continue;
        within = 0;
        for (uint32_t d = outer; d-- > 0;) {
            for (uint32_t i = 0; i < loop->operands; i++)
                at[i] += loop->step[i][d];
            if (++index[d] < loop->size[d])
                break;
            for (uint32_t i = 0; i < loop->operands; i++)
                at[i] -= loop->step[i][d] * loop->size[d];
            index[d] = 0;
        }
    }
}

static void walk_part(void *context, uint32_t part)
{
    const struct walk *walk = context;
    int64_t first = part * walk->pieces_per_part;
    walk_pieces(walk, first, i64_least(first + walk->pieces_per_part, walk->pieces));
}

void loop_run(const struct loop *loop, struct team *team, loop_row row, void *context)
{
    if (loop->is_empty)
        return;

    int64_t length = loop->size[loop->rank - 1], rows = 1;
    for (uint32_t d = 0; d + 1 < loop->rank; d++)
        rows *= loop->size[d];
    struct walk walk = {.loop = loop, .row = row, .context = context, .piece = i64_least(length, PART_ELEMENTS)};
    walk.pieces_per_row = ceil_div(length, walk.piece);
    walk.pieces = rows * walk.pieces_per_row;
    walk.pieces_per_part = i64_most(1, PART_ELEMENTS / walk.piece);
    int64_t parts = ceil_div(walk.pieces, walk.pieces_per_part);
    if (parts > UINT32_MAX / 2) {
        walk.pieces_per_part *= ceil_div(parts, UINT32_MAX / 2);
        parts = ceil_div(walk.pieces, walk.pieces_per_part);
    }
    if (parts == 1)
        walk_pieces(&walk, 0, walk.pieces);
    else
        team_run(team, (uint32_t)parts, walk_part, &walk);
}
