// Effects: an array that grows and keeps its memory; and what events and effects hold. The manual is io.h.

#include "core/io/io.h"

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "core/io/store.h"

#include <stdlib.h>

enum { EFFECTS_FIRST = 64 };

void effects_init(struct io_effects *effects)
{
    *effects = (struct io_effects){0};
}

void effects_free(struct io_effects *effects)
{
    for (uint32_t i = 0; i < effects->count; i++)
        effect_drop(&effects->effect[i]);
    free(effects->effect);
    effects_init(effects);
}

struct io_effect *effects_add(struct io_effects *effects, enum io_effect_kind kind)
{
    if (effects->count == effects->capacity) {
        uint32_t capacity = effects->capacity == 0 ? EFFECTS_FIRST : effects->capacity * 2;
        struct io_effect *effect = realloc(effects->effect, capacity * sizeof *effect);
        // A step that cannot say what it decided has no way back: its state has already changed.
        assert(effect != NULL);
        effects->effect = effect;
        effects->capacity = capacity;
    }
    struct io_effect *added = &effects->effect[effects->count++];
    *added = (struct io_effect){.kind = kind};
    return added;
}

void event_drop(struct io_event *event)
{
    if (event->kind == IO_RECV) {
        blob_drop(event->recv.body);
        blob_drop(event->recv.bulk);
        event->recv.body = event->recv.bulk = NULL;
    } else if (event->kind == IO_STORE_DONE) {
        result_free(event->store_done.result);
        event->store_done.result = NULL;
    }
}

void effect_drop(struct io_effect *effect)
{
    if (effect->kind == IO_SEND) {
        blob_drop(effect->send.body);
        blob_drop(effect->send.bulk);
        effect->send.body = effect->send.bulk = NULL;
    } else if (effect->kind == IO_STORE_COMMIT) {
        batch_free(effect->store_commit.batch);
        effect->store_commit.batch = NULL;
    } else if (effect->kind == IO_STORE_READ) {
        batch_free(effect->store_read.batch);
        effect->store_read.batch = NULL;
    }
}
