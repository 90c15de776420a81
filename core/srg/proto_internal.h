// What plan_proto.c and annotation_proto.c share: packing, unpacking within a byte budget, and the annotations' columns.

#ifndef CORE_SRG_PROTO_INTERNAL_H
#define CORE_SRG_PROTO_INTERNAL_H

#include "core/base/arena.h"
#include "core/srg/export.h"
#include "core/srg/srg.pb-c.h"

enum { PROTO_SCRATCH_CHUNK = 64 * 1024 };

// Points the message's columns into `arena` (or into *annotations, which must outlive the message).
DJ_MUST_USE enum dj_error proto_fill_annotations(const struct srg_annotations *annotations, struct arena *arena,
                                                 Djinn__Srg__V1__Annotations *ret);

// Appends the packed message; DJ_E_LIMIT over PLAN_BYTES_MAX.
DJ_MUST_USE enum dj_error proto_pack(const ProtobufCMessage *message, struct writer *writer);

// Unpacks within the budget of export.h. On success *ret lives in *ret_arena, which the caller frees. DJ_E_PLAN_INVALID.
DJ_MUST_USE enum dj_error proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t length,
                                       struct arena **ret_arena, ProtobufCMessage **ret, struct fault *fault);

#endif
