// Convolution: out[n][o][y][x] = bias[o] + sum over c, i, j of in[n][c][y*sh - ph + i*dh][x*sw - pw + j*dw] * weight[o][c][i][j].
//
// Three ways, chosen by shape alone:
//  direct  horizontal stride 1 or 2: a tile is up to mr neighbouring output pixels of a row times nr output channels. The left operand
//          is the (padded) input itself, read at a table of offsets, one for each (c, i, j); the right one is the weight packed [k][nr],
//          once when it is constant. Nothing is unfolded. The tile is transposed into the planes of the output.
//  narrow  few output channels in a group (depthwise): one multiply-add of a row for each weight.
//  rows    any other stride (patches of a vision transformer): unfolded into rows, then one gemm.
// One-dimensional convolutions have height 1.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

#include "core/base/bits.h"

enum {
    PIXEL_TILES = 16,       // tiles of pixels in one part
    CHANNEL_PANELS = 2,     // panels of output channels in one part
    NARROW_CHANNELS = 8,    // output channels of a group below which panels would be mostly padding
};

enum way { WAY_DIRECT, WAY_NARROW, WAY_ROWS };

struct conv {
    const struct simd *simd;
    enum way way;
    int64_t images, groups, channels, outputs;    // channels and outputs of one group
    int64_t in_h, in_w, out_h, out_w, kernel_h, kernel_w;
    int64_t stride_h, stride_w, pad_h, pad_w, step_h, step_w;
    int64_t padded_h, padded_w, k;    // k = channels * kernel_h * kernel_w
    bool is_flat;                     // 1x1: the plane is one row
    const float *x, *weight, *bias;
    float *y, *padded, *packed, *rows, *product;
    int32_t *offset;
    void *gemm_memory;
    uint64_t key;
    int64_t row_tiles, tiles, panels;
};

static int64_t attr_of(const struct attr *attr, bool is_flat, int axis, int64_t if_flat)
{
    if (is_flat)
        return axis == 0 ? if_flat : attr->count == 0 ? 1 : attr->ints[0];
    return attr->count == 0 ? if_flat : attr->ints[attr->count == 1 ? 0 : axis];
}

static void shape_of(const struct kernel_call *call, struct conv *p)
{
    const struct tensor_meta *x = &call->in[0].meta, *w = &call->in[1].meta, *y = &call->out[0].meta;
    bool is_1d = x->rank == 3;
    p->groups = attr_int(&call->attr[5]);
    p->images = x->size[0];
    p->channels = w->size[1];
    p->outputs = w->size[0] / p->groups;
    p->in_h = is_1d ? 1 : x->size[2];
    p->in_w = x->size[x->rank - 1];
    p->out_h = is_1d ? 1 : y->size[2];
    p->out_w = y->size[y->rank - 1];
    p->kernel_h = is_1d ? 1 : w->size[2];
    p->kernel_w = w->size[w->rank - 1];
    p->stride_h = attr_of(&call->attr[0], is_1d, 0, 1);
    p->stride_w = attr_of(&call->attr[0], is_1d, 1, 1);
    p->pad_h = attr_of(&call->attr[1], is_1d, 0, 0);
    p->pad_w = attr_of(&call->attr[1], is_1d, 1, 0);
    p->step_h = attr_of(&call->attr[2], is_1d, 0, 1);
    p->step_w = attr_of(&call->attr[2], is_1d, 1, 1);
    p->k = p->channels * p->kernel_h * p->kernel_w;
    p->padded_h = p->in_h + 2 * p->pad_h;
    p->padded_w = p->in_w + 2 * p->pad_w;
    if (p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1 && p->pad_h == 0 && p->pad_w == 0) {
        p->is_flat = true;
        p->in_w = p->out_w = p->padded_w = p->out_w * p->out_h;
        p->in_h = p->out_h = p->padded_h = 1;
    }
    p->way = p->stride_w > 2 ? WAY_ROWS : p->outputs < NARROW_CHANNELS ? WAY_NARROW : WAY_DIRECT;
}

static struct gemm gemm_of(const struct conv *p)
{
    int64_t pixels = p->out_h * p->out_w;
    return (struct gemm){.batch = 1,
                         .m = pixels,
                         .n = p->outputs,
                         .k = p->k,
                         .a = p->rows,
                         .b = p->weight,
                         .c = p->product,
                         .a_m = p->k,
                         .a_k = 1,
                         .b_k = 1,
                         .b_n = p->k,
                         .c_m = p->outputs,
                         .alpha = 1,
                         .beta = 1,
                         .b_key = p->key};
}

static struct conv plan_of(const struct kernel_call *call, struct scratch *scratch)
{
    struct conv p = {.simd = simd()};
    bool fill = scratch->data != NULL;
    shape_of(call, &p);
    p.x = dense_take(scratch, &call->in[0], DTYPE_F32, fill, call->team);
    p.weight = dense_take(scratch, &call->in[1], DTYPE_F32, fill, call->team);
    p.bias = call->n_in > 2 && is_present(&call->in[2]) ? dense_take(scratch, &call->in[2], DTYPE_F32, fill, call->team) : NULL;
    p.y = dense_take(scratch, &call->out[0], DTYPE_F32, false, call->team);
    p.key = call->in[1].is_constant && p.weight == call->in[1].data ? call->in[1].constant_key : 0;
    if (p.pad_h > 0 || p.pad_w > 0)
        p.padded = scratch_take(scratch, (size_t)(p.images * p.groups * p.channels * p.padded_h * p.padded_w) * sizeof(float));
    p.row_tiles = ceil_div(p.out_w, p.simd->mr);
    p.tiles = p.out_h * p.row_tiles;
    p.panels = ceil_div(p.outputs, p.simd->nr);
    if (p.way == WAY_DIRECT) {
        p.offset = scratch_take(scratch, (size_t)p.k * sizeof(int32_t));
        p.packed = scratch_take(scratch, (size_t)(p.groups * p.panels * p.k * p.simd->nr) * sizeof(float));
    } else if (p.way == WAY_ROWS) {
        p.rows = scratch_take(scratch, (size_t)(p.out_h * p.out_w * p.k) * sizeof(float));
        p.product = scratch_take(scratch, (size_t)(p.out_h * p.out_w * p.outputs) * sizeof(float));
        struct gemm gemm = gemm_of(&p);
        gemm.b_key = 0;
        p.gemm_memory = scratch_take(scratch, gemm_scratch(&gemm));
    }
    return p;
}

static size_t conv_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    plan_of(call, &scratch);
    return scratch.used;
}

static void pad_part(void *context, uint32_t plane)
{
    const struct conv *p = context;
    const float *from = p->x + (int64_t)plane * p->in_h * p->in_w;
    float *to = p->padded + (int64_t)plane * p->padded_h * p->padded_w;
    memset(to, 0, (size_t)(p->pad_h * p->padded_w) * sizeof(float));
    for (int64_t i = 0; i < p->in_h; i++) {
        float *row = to + (p->pad_h + i) * p->padded_w;
        for (int64_t j = 0; j < p->pad_w; j++)
            row[j] = row[p->padded_w - 1 - j] = 0.0f;
        memcpy(row + p->pad_w, from + i * p->in_w, (size_t)p->in_w * sizeof(float));
    }
    memset(to + (p->pad_h + p->in_h) * p->padded_w, 0, (size_t)(p->pad_h * p->padded_w) * sizeof(float));
}

static void pack_part(void *context, uint32_t part)
{
    const struct conv *p = context;
    const int64_t nr = p->simd->nr, lanes = p->simd->lanes;
    int64_t group = part / p->panels, first = part % p->panels * nr, width = i64_least(nr, p->outputs - first);
    const float *from = p->weight + (group * p->outputs + first) * p->k;
    float *to = p->packed + (int64_t)part * p->k * nr;
    for (int64_t half = 0; half < nr; half += lanes) {
        int rows = (int)i64_most(0, i64_least(lanes, width - half));
        p->simd->pack(rows > 0 ? from + half * p->k : from, p->k, rows, p->k, to + half, nr);
    }
}

// Tile t is a stretch of one output row; stretches of a row differ by at most one pixel.
static void direct_tile(const struct conv *p, const float *planes, int64_t t, int64_t group, int64_t image, int64_t panel)
{
    const int64_t nr = p->simd->nr, lanes = p->simd->lanes;
    _Alignas(64) float tile[SIMD_MR_MAX * SIMD_NR_MAX];
    int64_t row = t / p->row_tiles, within = t % p->row_tiles;
    int64_t first = within * p->out_w / p->row_tiles, count = (within + 1) * p->out_w / p->row_tiles - first;
    const float *at = planes + row * p->stride_h * p->padded_w + first * p->stride_w;
    const float *weights = p->packed + (group * p->panels + panel) * p->k * nr;
    p->simd->pixels[p->stride_w - 1][count](p->k, at, p->offset, weights, tile, nr);

    int64_t width = i64_least(nr, p->outputs - panel * nr), channel = group * p->outputs + panel * nr,
            plane = p->out_h * p->out_w;
    for (int64_t i = 0; i < count && p->bias != NULL; i++)
        p->simd->axpy(tile + i * nr, p->bias + channel, 1.0f, width);
    float *out = p->y + (image * p->groups * p->outputs + channel) * plane + row * p->out_w + first;
    (void)lanes;
    p->simd->unpack(tile, nr, (int)count, (int)width, out, plane);
}

static void direct_part(void *context, uint32_t part)
{
    const struct conv *p = context;
    int64_t tile_parts = ceil_div(p->tiles, PIXEL_TILES), panel_parts = ceil_div(p->panels, CHANNEL_PANELS);
    int64_t tile_part = part % tile_parts, panel_part = part / tile_parts % panel_parts;
    int64_t group = part / tile_parts / panel_parts % p->groups, image = part / tile_parts / panel_parts / p->groups;
    const float *source = p->padded != NULL ? p->padded : p->x;
    const float *planes = source + (image * p->groups + group) * p->channels * p->padded_h * p->padded_w;
    int64_t last_tile = i64_least((tile_part + 1) * PIXEL_TILES, p->tiles);
    int64_t last_panel = i64_least((panel_part + 1) * CHANNEL_PANELS, p->panels);

    for (int64_t panel = panel_part * CHANNEL_PANELS; panel < last_panel; panel++)
        for (int64_t t = tile_part * PIXEL_TILES; t < last_tile; t++)
            direct_tile(p, planes, t, group, image, panel);
}

static void run_direct(struct conv *p, struct team *team)
{
    struct pack_key key = {
        p->key, (uint64_t)(uintptr_t)p->weight, {(uint64_t)p->k, (uint64_t)p->outputs, (uint64_t)p->groups, UINT64_MAX}};
    struct pack *pack = NULL;
    bool must_pack = true;
    if (p->key != 0)
        pack = pack_acquire(&key, (size_t)(p->groups * p->panels * p->k * p->simd->nr) * sizeof(float), &must_pack);
    if (pack != NULL)
        p->packed = pack_data(pack);
    if (must_pack)
        team_run(team, (uint32_t)(p->groups * p->panels), pack_part, p);

    int64_t k = 0;
    for (int64_t c = 0; c < p->channels; c++)
        for (int64_t i = 0; i < p->kernel_h; i++)
            for (int64_t j = 0; j < p->kernel_w; j++)
                p->offset[k++] = (int32_t)((c * p->padded_h + i * p->step_h) * p->padded_w + j * p->step_w);
    int64_t parts = p->images * p->groups * ceil_div(p->tiles, PIXEL_TILES) * ceil_div(p->panels, CHANNEL_PANELS);
    team_run(team, (uint32_t)parts, direct_part, p);
    if (pack != NULL)
        pack_release(pack);
}

// One output plane.
static void narrow_part(void *context, uint32_t plane)
{
    const struct conv *p = context;
    int64_t image = plane / (p->groups * p->outputs), output = plane % (p->groups * p->outputs), group = output / p->outputs;
    const float *source = p->padded != NULL ? p->padded : p->x, *weight = p->weight + output * p->k;
    const float *planes = source + (image * p->groups + group) * p->channels * p->padded_h * p->padded_w;
    float *out = p->y + (int64_t)plane * p->out_h * p->out_w;
    for (int64_t y = 0; y < p->out_h; y++) {
        float *row = out + y * p->out_w;
        for (int64_t x = 0; x < p->out_w; x++)
            row[x] = p->bias == NULL ? 0.0f : p->bias[output];
        const float *w = weight;
        for (int64_t c = 0; c < p->channels; c++)
            for (int64_t i = 0; i < p->kernel_h; i++)
                for (int64_t j = 0; j < p->kernel_w; j++, w++) {
                    const float *from = planes + (c * p->padded_h + y * p->stride_h + i * p->step_h) * p->padded_w +
                                        j * p->step_w;
                    if (p->stride_w == 1)
                        p->simd->axpy(row, from, *w, p->out_w);
                    else
                        for (int64_t x = 0; x < p->out_w; x++)
                            row[x] += *w * from[x * p->stride_w];
                }
    }
}

struct unfold {
    const struct conv *conv;
    int64_t image, group;
};

// The rows of one output row: k values for each pixel.
static void unfold_part(void *context, uint32_t y)
{
    const struct unfold *u = context;
    const struct conv *p = u->conv;
    const float *source = p->padded != NULL ? p->padded : p->x;
    const float *planes = source + (u->image * p->groups + u->group) * p->channels * p->padded_h * p->padded_w;
    for (int64_t x = 0; x < p->out_w; x++) {
        float *to = p->rows + (y * p->out_w + x) * p->k;
        for (int64_t c = 0; c < p->channels; c++)
            for (int64_t i = 0; i < p->kernel_h; i++) {
                const float *from = planes + (c * p->padded_h + y * p->stride_h + i * p->step_h) * p->padded_w + x * p->stride_w;
                for (int64_t j = 0; j < p->kernel_w; j++)
                    *to++ = from[j * p->step_w];
            }
    }
}

static void run_rows(const struct conv *p, struct team *team)
{
    int64_t plane = p->out_h * p->out_w;
    for (int64_t image = 0; image < p->images; image++)
        for (int64_t group = 0; group < p->groups; group++) {
            struct unfold unfold = {.conv = p, .image = image, .group = group};
            struct gemm gemm = gemm_of(p);
            gemm.b += group * p->outputs * p->k;
            if (p->bias != NULL) {
                gemm.add = p->bias + group * p->outputs;
                gemm.add_n = 1;
            }
            team_run(team, (uint32_t)p->out_h, unfold_part, &unfold);
            gemm_run(&gemm, p->gemm_memory, team);
            struct tensor from = {
                .data = p->product,
                .meta = {.dtype = DTYPE_F32, .rank = 2, .size = {p->outputs, plane}, .stride = {1, p->outputs}}};
            struct tensor to = from;
            to.data = p->y + (image * p->groups + group) * p->outputs * plane;
            tensor_make_contiguous(&to.meta);
            (void)convert_tensor(&from, &to, team);
        }
}

static enum dj_error conv_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct conv p = plan_of(call, &scratch);
    if (tensor_count(&call->out[0].meta) == 0)
        return DJ_OK;

    if (p.padded != NULL)
        team_run(call->team, (uint32_t)(p.images * p.groups * p.channels), pad_part, &p);
    if (p.way == WAY_DIRECT)
        run_direct(&p, call->team);
    else if (p.way == WAY_NARROW)
        team_run(call->team, (uint32_t)(p.images * p.groups * p.outputs), narrow_part, &p);
    else
        run_rows(&p, call->team);
    dense_return(p.y, DTYPE_F32, &call->out[0], call->team);
    return DJ_OK;
}

static bool conv_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < call->n_in; i++)
        if (is_present(&call->in[i]) && (!dtype_is_float(call->in[i].meta.dtype) || call->in[i].meta.dtype == DTYPE_F64))
            return false;
    const struct tensor_meta *x = &call->in[0].meta, *w = &call->in[1].meta;
    if ((x->rank != 3 && x->rank != 4) || w->rank != x->rank || attr_int(&call->attr[3]) != 0 || attr_int(&call->attr[5]) < 1)
        return false;
    struct conv p = {0};
    int64_t plane, all;
    shape_of(call, &p);
    return i64_mul(p.padded_h, p.padded_w, &plane) && i64_mul(plane, i64_most(1, p.channels), &all) && all <= INT32_MAX;
}

void table_conv(struct kernel *kernel)
{
    kernel[OP_CONVOLUTION] = (struct kernel){.run = conv_run, .scratch = conv_scratch, .can = conv_can};
}
