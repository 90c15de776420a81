// Annotations as Protocol Buffers (srg.proto), and the two ends of protobuf-c for this folder.
//
// protobuf-c does not bound memory (one byte on the wire can become 64 in it), so its allocator is an arena with a limit.

#include "core/srg/proto_internal.h"

#include "core/base/assert.h"

enum dj_error proto_pack(const ProtobufCMessage *message, struct writer *writer)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    if (bytes > PLAN_BYTES_MAX)
        return DJ_E_LIMIT;
    uint8_t *at = writer_reserve(writer, bytes);
    if (at == NULL)
        return writer->error;
    size_t packed = protobuf_c_message_pack(message, at);
    assert(packed == bytes);
    return DJ_OK;
}

static void *budget_alloc(void *arena, size_t bytes)
{
    return arena_alloc(arena, bytes);
}

static void budget_free(void *arena, void *block)
{
    (void)arena, (void)block;    // all goes with the arena
}

enum dj_error proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t length,
                           struct arena **ret_arena, ProtobufCMessage **ret, struct fault *fault)
{
    if (length > PLAN_BYTES_MAX)
        return fault_set(fault, DJ_E_PLAN_INVALID, "%zu bytes; an encoded plan has at most %d", length, PLAN_BYTES_MAX);
    struct arena *arena;
    if (arena_make(length < 1024 ? 4096 : 4 * length, PLAN_UNPACK_RATIO * length + PLAN_UNPACK_FLOOR, &arena) != DJ_OK)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory to decode a plan of %zu bytes", length);
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = arena};
    static const uint8_t nothing[1];
    *ret = protobuf_c_message_unpack(descriptor, &allocator, length, length == 0 ? nothing : bytes);
    if (*ret == NULL) {
        arena_free(arena);
        return fault_set(fault, DJ_E_PLAN_INVALID,
                         "these %zu bytes are not a message of srg.proto, or one that unpacks to more than %d "
                         "times their length",
                         length, PLAN_UNPACK_RATIO);
    }
    *ret_arena = arena;
    return DJ_OK;
}

enum dj_error proto_fill_annotations(const struct srg_annotations *annotations, struct arena *arena,
                                     Djinn__Srg__V1__Annotations *ret)
{
    djinn__srg__v1__annotations__init(ret);
    size_t n = annotations->nodes, inputs = annotations->inputs;
    uint32_t *column = arena_alloc(arena, (7 * n + inputs) * sizeof *column);
    float *criticality = arena_alloc(arena, n * sizeof *criticality);
    double *cost = arena_alloc(arena, 2 * n * sizeof *cost);
    if (column == NULL || criticality == NULL || cost == NULL)
        return DJ_E_NO_MEMORY;
    ret->phase = annotations->phase;
    ret->modality = annotations->modality;
    ret->confidence = annotations->confidence;
    ret->n_node_phase = ret->n_node_residency = ret->n_node_modality = ret->n_node_role = ret->n_node_priority = n;
    ret->n_node_confidence = ret->n_node_colocation = ret->n_node_criticality = ret->n_node_flops = ret->n_node_bytes = n;
    ret->n_input_residency = inputs;
    ret->node_phase = column;
    ret->node_residency = column + n;
    ret->node_modality = column + 2 * n;
    ret->node_role = column + 3 * n;
    ret->node_priority = column + 4 * n;
    ret->node_confidence = column + 5 * n;
    ret->node_colocation = column + 6 * n;
    ret->input_residency = column + 7 * n;
    ret->node_criticality = criticality;
    ret->node_flops = cost;
    ret->node_bytes = cost + n;
    for (size_t i = 0; i < n; i++) {
        const struct srg_annotation *node = &annotations->node[i];
        ret->node_phase[i] = node->phase;
        ret->node_residency[i] = node->residency;
        ret->node_modality[i] = node->modality;
        ret->node_role[i] = node->role;
        ret->node_priority[i] = node->priority;
        ret->node_confidence[i] = node->confidence;
        ret->node_colocation[i] = node->colocation;
        ret->node_criticality[i] = node->criticality;
        ret->node_flops[i] = node->flops;
        ret->node_bytes[i] = node->bytes;
    }
    for (size_t i = 0; i < inputs; i++)
        ret->input_residency[i] = annotations->input_residency[i];
    return DJ_OK;
}

enum dj_error annotations_encode(const struct srg_annotations *annotations, struct writer *writer)
{
    struct arena *arena;
    enum dj_error error = arena_make(PROTO_SCRATCH_CHUNK, 0, &arena);
    if (error != DJ_OK)
        return error;
    Djinn__Srg__V1__Annotations message;
    error = proto_fill_annotations(annotations, arena, &message);
    if (error == DJ_OK)
        error = proto_pack(&message.base, writer);
    arena_free(arena);
    return error;
}

static bool column_is_below(const uint32_t *column, size_t n, uint32_t limit)
{
    for (size_t i = 0; i < n; i++) {
        if (column[i] >= limit)
            return false;
    }
    return true;
}

static bool is_valid(const Djinn__Srg__V1__Annotations *from, size_t nodes, size_t inputs)
{
    bool has_lengths = from->n_node_phase == nodes && from->n_node_residency == nodes && from->n_node_modality == nodes &&
                       from->n_node_role == nodes && from->n_node_priority == nodes && from->n_node_confidence == nodes &&
                       from->n_node_colocation == nodes && from->n_node_criticality == nodes && from->n_node_flops == nodes &&
                       from->n_node_bytes == nodes && from->n_input_residency == inputs;
    return has_lengths && from->phase < PHASE_COUNT && from->modality < MODALITY_COUNT && from->confidence <= 100 &&
           column_is_below(from->node_phase, nodes, PHASE_COUNT) &&
           column_is_below(from->node_residency, nodes, RESIDENCY_COUNT) &&
           column_is_below(from->node_modality, nodes, MODALITY_COUNT) && column_is_below(from->node_role, nodes, ROLE_COUNT) &&
           column_is_below(from->node_priority, nodes, 256) && column_is_below(from->node_confidence, nodes, 101) &&
           column_is_below(from->node_colocation, nodes, 1 << 16) &&
           column_is_below(from->input_residency, inputs, RESIDENCY_COUNT);
}

static enum dj_error take(const Djinn__Srg__V1__Annotations *from, uint32_t nodes, uint32_t inputs, struct arena *arena,
                          struct srg_annotations *ret, struct fault *fault)
{
    if (!is_valid(from, nodes, inputs))
        return fault_set(fault, DJ_E_PLAN_INVALID,
                         "annotations of another plan (not %u nodes and %u inputs), or numbers out of range", nodes, inputs);
    struct srg_annotation *node = arena_alloc(arena, nodes * sizeof *node);
    uint8_t *residency = arena_alloc(arena, inputs);
    if (node == NULL || residency == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the annotations of %u nodes", nodes);
    for (size_t i = 0; i < nodes; i++) {
        node[i] = (struct srg_annotation){
            .phase = (uint8_t)from->node_phase[i],
            .residency = (uint8_t)from->node_residency[i],
            .modality = (uint8_t)from->node_modality[i],
            .role = (uint8_t)from->node_role[i],
            .priority = (uint8_t)from->node_priority[i],
            .confidence = (uint8_t)from->node_confidence[i],
            .colocation = (uint16_t)from->node_colocation[i],
            .criticality = from->node_criticality[i],
            .flops = from->node_flops[i],
            .bytes = from->node_bytes[i],
        };
    }
    for (size_t i = 0; i < inputs; i++)
        residency[i] = (uint8_t)from->input_residency[i];
    *ret = (struct srg_annotations){
        .nodes = nodes,
        .inputs = inputs,
        .phase = (uint8_t)from->phase,
        .modality = (uint8_t)from->modality,
        .confidence = (uint8_t)from->confidence,
        .node = node,
        .input_residency = residency,
    };
    return DJ_OK;
}

enum dj_error annotations_decode(const void *bytes, size_t length, uint32_t nodes, uint32_t inputs, struct arena *arena,
                                 struct srg_annotations *ret, struct fault *fault)
{
    struct arena *scratch;
    ProtobufCMessage *message;
    enum dj_error error = proto_unpack(&djinn__srg__v1__annotations__descriptor, bytes, length, &scratch, &message, fault);
    if (error != DJ_OK)
        return error;
    error = take((const Djinn__Srg__V1__Annotations *)message, nodes, inputs, arena, ret, fault);
    arena_free(scratch);
    return error;
}
