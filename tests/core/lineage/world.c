// World: the generator and the oracle. The manual is world.h.

#include "tests/core/lineage/world.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(enum dj_error error, const char *what)
{
    if (error == DJ_OK)
        return;
    fprintf(stderr, "world: %s: %s\n", what, dj_error_name(error));
    abort();
}

// Plans ------------------------------------------------------------------------------------------------------------------------

static void make_plan(struct world *world, struct prng *prng, uint32_t number)
{
    struct graph *graph = graph_make();
    struct srg_ref any[1 + WORLD_INPUTS_MAX + WORLD_OUTPUTS_MAX];
    uint32_t count = 0, handles = number == 0 ? 0 : (uint32_t)prng_between(prng, 1, WORLD_INPUTS_MAX);
    for (uint32_t i = 0; i < handles; i++) {
        any[count++] = HANDLE(graph, DTYPE_F32, 4);
        if (i == 0)
            any[count++] = LEAF(graph, DTYPE_F32, 4);    // not all handles come first
    }
    if (handles == 0)
        any[count++] = LEAF(graph, DTYPE_F32, 4);
    uint32_t outputs = (uint32_t)prng_between(prng, 1, WORLD_OUTPUTS_MAX);
    for (uint32_t o = 0; o < outputs; o++) {
        graph_int(graph, "alpha", number * 8 + o);
        any[count] = OP2(graph, OP_ADD, any[prng_between(prng, 0, count - 1)], any[prng_between(prng, 0, count - 1)]);
        count++;
    }
    world->plan[number] = graph_finish(graph);
    const struct srg_plan *plan = world->plan[number].plan;
    world->alpha[number] = plan->attr[plan->node[0].first_attr].first;
    assert(plan->attr[plan->node[0].first_attr].is_bound);
}

struct hash128 world_evaluate(const struct srg_plan *plan, const int64_t *word, const struct hash128 *input, uint32_t output)
{
    uint8_t all[4096];
    size_t length = 0;
    uint32_t handles = 0;
    memcpy(all, &plan->fingerprint, sizeof plan->fingerprint);
    length += sizeof plan->fingerprint;
    memcpy(all + length, &output, sizeof output);
    length += sizeof output;
    for (uint32_t w = 0; w < plan->words; w++) {
        assert(length + 2 * sizeof *input <= sizeof all);
        const struct srg_input *handle = NULL;
        for (uint32_t i = 0; i < plan->inputs && handle == NULL; i++) {
            if (!plan->input[i].is_leaf && plan->input[i].first_word == w)
                handle = &plan->input[i];
        }
        if (handle != NULL) {
            memcpy(all + length, &input[handles++], sizeof *input);
            length += sizeof *input;
            w++;
            continue;
        }
        memcpy(all + length, &word[w], sizeof *word);
        length += sizeof *word;
    }
    return hash128(all, length);
}

int32_t world_plan_of(const struct world *world, struct hash128 fingerprint)
{
    for (int32_t i = 0; i < WORLD_PLANS; i++) {
        if (hash128_equal(world->plan[i].plan->fingerprint, fingerprint))
            return i;
    }
    return -1;
}

int32_t world_event_of(const struct world *world, uint64_t counter)
{
    for (uint32_t i = 0; i < world->events; i++) {
        if (world->event[i].counter == counter)
            return (int32_t)i;
    }
    return -1;
}

// History ----------------------------------------------------------------------------------------------------------------------

struct stream {
    int32_t last, before;    // events
};

// A random value that is live, the younger the likelier.
static bool any_live(const struct world *world, struct prng *prng, int32_t *ret_event, uint32_t *ret_output)
{
    for (int tries = 0; tries < 40; tries++) {
        uint32_t reach = prng_chance(prng, 3, 4) && world->events > 12 ? 12 : world->events;
        if (reach == 0)
            return false;
        int32_t event = (int32_t)(world->events - prng_between(prng, 1, reach));
        uint32_t output = (uint32_t)prng_between(prng, 0, WORLD_OUTPUTS_MAX - 1);
        if (!world->event[event].output[output].is_live)
            continue;
        *ret_event = event;
        *ret_output = output;
        return true;
    }
    return false;
}

static void adorn(struct world_value *value, struct prng *prng)
{
    value->exists = value->is_live = true;
    value->is_fact = prng_chance(prng, 1, 12);
    value->is_checkpoint = prng_chance(prng, 1, 15);
    value->is_replica = value->is_checkpoint && prng_chance(prng, 1, 2);
    value->has_leaves = prng_chance(prng, 1, 2);
    for (uint32_t worker = 0; worker < WORLD_WORKERS; worker++) {
        if (prng_chance(prng, 1, 14))
            value->at = (uint8_t)(value->at | 1u << worker);
    }
    for (uint32_t left = 4; left > 0; value->pieces++) {
        value->rows[value->pieces] = (uint8_t)prng_between(prng, 1, left);
        left -= value->rows[value->pieces];
    }
}

static bool make_import(struct world *world, struct world_event *event, struct prng *prng)
{
    event->is_import = true;
    event->inputs = 1;
    if (!any_live(world, prng, &event->input[0].event, &event->input[0].output))
        return false;
    struct world_value *value = &event->output[prng_between(prng, 0, WORLD_OUTPUTS_MAX - 1)];
    value->bits = world->event[event->input[0].event].output[event->input[0].output].bits;
    adorn(value, prng);
    value->is_fact = false;
    return true;
}

// Chooses inputs, donates some, and writes the words.
static bool bind(struct world *world, struct world_event *event, struct prng *prng, struct hash128 *values)
{
    const struct srg_plan *plan = world->plan[event->plan].plan;
    event->word = malloc(plan->words * sizeof *event->word);
    assert(event->word != NULL);
    memcpy(event->word, world->plan[event->plan].word, plan->words * sizeof *event->word);
    uint64_t number = exec_number(event->counter);    // squares: no extrapolation from other vectors hits it by chance
    event->word[world->alpha[event->plan]] = (int64_t)(number * number + exec_epoch(event->counter) * 7919u);
    for (uint32_t i = 0; i < plan->inputs; i++) {
        if (plan->input[i].is_leaf)
            continue;
        uint32_t k = event->inputs++;
        if (!any_live(world, prng, &event->input[k].event, &event->input[k].output))
            return false;
        const struct world_event *from = &world->event[event->input[k].event];
        binding_set_handle(plan, event->word, i, event->counter - from->counter, event->input[k].output);
        values[k] = from->output[event->input[k].output].bits;
    }
    for (uint32_t k = 0; k < event->inputs; k++) {
        struct world_value *value = &world->event[event->input[k].event].output[event->input[k].output];
        event->input[k].is_donated = value->is_live && prng_chance(prng, 1, 2);
        if (event->input[k].is_donated)
            value->is_live = false;
    }
    return true;
}

static bool make_execution(struct world *world, struct world_event *event, struct prng *prng, bool is_narrow)
{
    struct hash128 values[WORLD_INPUTS_MAX];
    event->plan = is_narrow && prng_chance(prng, 9, 10) ? 1 : (uint32_t)prng_between(prng, 0, WORLD_PLANS - 1);
    if (!bind(world, event, prng, values)) {
        free(event->word);
        event->word = NULL;
        return false;
    }
    const struct srg_plan *plan = world->plan[event->plan].plan;
    for (uint32_t o = 0; o < plan->outputs; o++) {
        event->output[o].bits = world_evaluate(plan, event->word, values, o);
        if (o == 0 || prng_chance(prng, 2, 3))
            adorn(&event->output[o], prng);
    }
    event->cost_ns = prng_between(prng, 1, 1000);
    return true;
}

// What the record will say. A stream begins anew now and then (alone); or its link does in the middle, and what was sent again is in the
// records already (the base is known, what was before it not); or the store has the client's record of it, which stands alone.
static void record_it(struct world_event *event, struct stream *stream, struct prng *prng, struct world_options options)
{
    bool begins = prng_chance(prng, 1, 15);
    if (begins)
        *stream = (struct stream){-1, -1};
    else if (stream->last >= 0 && prng_chance(prng, 1, 20))
        stream->before = -1;
    event->base = stream->last;
    event->before = stream->before;
    bool is_clients = prng_chance(prng, 1, options.is_narrow ? 4 : 15);
    event->is_alone = event->base < 0 || is_clients;
    event->stored_base = event->is_alone ? -1 : event->base;
    if (event->is_alone)
        event->base = event->before = -1;
    event->numerics = WORLD_NUMERICS;
    if (options.is_whole)
        return;
    event->is_dropped = prng_chance(prng, 1, 40);
    event->is_damaged = prng_chance(prng, 1, 60);
    event->numerics += prng_chance(prng, 1, 40);
}

// Stored form ------------------------------------------------------------------------------------------------------------------

static struct stored *store(struct world *world, const struct record *record, int32_t event, uint32_t output)
{
    struct writer writer = writer_make(1 << 20);
    record_write(&writer, record);
    must(writer.error, "a record");
    assert(world->records < sizeof world->stored / sizeof world->stored[0]);
    struct stored *stored = &world->stored[world->records++];
    *stored = (struct stored){.bytes = writer.data, .length = writer.length, .event = event, .output = output};
    return stored;
}

static struct hash128 leaf_name(int32_t event, uint32_t output, uint32_t piece)
{
    return (struct hash128){.hi = (uint64_t)event << 16 | output << 8 | piece, .lo = 0xBEEF};
}

bool world_leaf(const struct world *world, struct hash128 content, uint8_t *ret, uint64_t *ret_bytes)
{
    uint32_t output = (content.hi >> 8) & 0xFF, piece = content.hi & 0xFF;
    if (content.lo != 0xBEEF || content.hi >> 16 >= world->events || output >= WORLD_OUTPUTS_MAX)
        return false;
    const struct world_value *value = &world->event[content.hi >> 16].output[output];
    uint32_t first = 0;
    for (uint32_t i = 0; i < piece; i++)
        first += value->rows[i];
    *ret_bytes = value->rows[piece] * 4u;
    memcpy(ret, (const uint8_t *)&value->bits + first * 4u, *ret_bytes);
    return true;
}

bool world_has_leaf(void *context, struct hash128 content)
{
    const struct world *world = context;
    return world->event[content.hi >> 16].output[content.hi >> 8 & 0xFF].has_leaves;
}

static void store_checkpoint(struct world *world, int32_t index, uint32_t output)
{
    const struct world_value *value = &world->event[index].output[output];
    struct writer pieces = writer_make(4096);
    for (uint32_t i = 0; i < value->pieces; i++) {
        struct record_piece piece = {
            .content = leaf_name(index, output, i), .rows = value->rows[i], .bytes = value->rows[i] * 4u};
        record_piece_write(&pieces, &piece);
    }
    struct record record = {.kind = RECORD_CHECKPOINT};
    record.checkpoint = (struct record_checkpoint){
        .handle = {.execution = {.session = WORLD_SESSION, .counter = world->event[index].counter}, .output = output},
        .meta = {.dtype = DTYPE_F32, .rank = 1, .size = {4}, .stride = {1}},
        .is_replica = value->is_replica,
        .pieces = value->pieces,
        .piece = pieces.data,
        .piece_bytes = (uint32_t)pieces.length};
    store(world, &record, index, output);
    writer_free(&pieces);
}

static void fill_delta(const struct world *world, const struct world_event *event, struct writer *delta)
{
    uint32_t words = world->plan[event->plan].plan->words;
    struct binding_history history;
    history_init(&history, words);
    if (event->before >= 0)
        must(history_push(&history, world->event[event->before].word), "history");
    if (event->base >= 0)
        must(history_push(&history, world->event[event->base].word), "history");
    bindings_encode(&history, event->word, delta);
    history_free(&history);
}

static void store_execution(struct world *world, int32_t index)
{
    const struct world_event *event = &world->event[index];
    const struct srg_plan *plan = world->plan[event->plan].plan;
    struct writer delta = writer_make(1 << 16);
    fill_delta(world, event, &delta);
    uint8_t keep = 0, donate = 0;
    struct record record = {.kind = RECORD_EXECUTION};
    struct record_execution *said = &record.execution;
    for (uint32_t o = 0; o < plan->outputs; o++) {
        const struct world_value *value = &event->output[o];
        keep = (uint8_t)(keep | value->exists << o);
        if (value->exists && value->is_fact)
            said->answer[said->answers++] = (struct record_answer){
                .output = o, .length = sizeof value->bits, .bytes = (const uint8_t *)&value->bits};
    }
    for (uint32_t i = 0, k = 0; i < plan->inputs; i++) {
        if (!plan->input[i].is_leaf)
            donate = (uint8_t)(donate | event->input[k++].is_donated << i);
    }
    said->id = (struct exec_id){.session = WORLD_SESSION, .counter = event->counter};
    said->plan = plan->fingerprint;
    said->base = event->stored_base < 0 ? 0 : world->event[event->stored_base].counter;
    said->before = event->before < 0 ? 0 : world->event[event->before].counter;
    said->delta = delta.data;
    said->delta_length = (uint32_t)delta.length;
    said->check = record_words_check(event->word, plan->words) ^ event->is_damaged;
    said->keep = (struct record_bits){.bits = &keep, .bytes = 1};
    said->donate = (struct record_bits){.bits = &donate, .bytes = 1};
    said->numerics = event->numerics;
    said->cost_ns = event->cost_ns;
    store(world, &record, index, 0);
    writer_free(&delta);
}

static void store_import(struct world *world, int32_t index)
{
    const struct world_event *event = &world->event[index];
    struct record record = {.kind = RECORD_IMPORT};
    record.import.id = (struct exec_id){.session = WORLD_SESSION, .counter = event->counter};
    while (!event->output[record.import.output].exists)
        record.import.output++;
    record.import.source = (struct record_ref){.counter = world->event[event->input[0].event].counter,
                                               .output = event->input[0].output};
    record.import.bytes = WORLD_VALUE_BYTES;
    store(world, &record, index, record.import.output);
}

static void store_all(struct world *world)
{
    for (uint32_t i = 0; i < WORLD_PLANS; i++) {
        struct writer writer = writer_make(1 << 20);
        must(plan_encode(world->plan[i].plan, &writer), "a plan");
        struct record record = {.kind = RECORD_PLAN};
        record.plan = (struct record_plan){
            .fingerprint = world->plan[i].plan->fingerprint, .bytes = writer.data, .length = writer.length};
        store(world, &record, -1, 0);
        writer_free(&writer);
    }
    for (int32_t i = 0; i < (int32_t)world->events; i++) {
        if (world->event[i].is_dropped)
            continue;
        if (world->event[i].is_import)
            store_import(world, i);
        else
            store_execution(world, i);
    }
    for (int32_t i = 0; i < (int32_t)world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            if (world->event[i].output[o].is_checkpoint)
                store_checkpoint(world, i, o);
        }
    }
}

struct world *world_make(struct prng *prng, struct world_options options)
{
    struct world *world = calloc(1, sizeof *world);
    assert(world != NULL && options.events <= WORLD_EVENTS_MAX);
    for (uint32_t i = 0; i < WORLD_PLANS; i++)
        make_plan(world, prng, i);
    struct stream stream[2][WORLD_PLANS];
    memset(stream, -1, sizeof stream);
    uint64_t counter = 0;
    uint32_t place = 0;
    for (uint32_t tries = 0; world->events < options.events && tries < 10 * options.events; tries++) {
        struct world_event *event = &world->event[world->events];
        *event = (struct world_event){.base = -1, .before = -1, .stored_base = -1};
        counter += prng_chance(prng, 1, 10) ? prng_between(prng, 1, 5) : 1;
        if (prng_chance(prng, 1, 100))
            counter = exec_counter(exec_epoch(counter) + 1, 1);
        event->counter = counter;
        place = prng_chance(prng, 1, options.is_narrow ? 12 : 2) ? 1 - place : place;
        event->place = place;
        bool is_import = prng_chance(prng, 1, 12);
        if (!(is_import ? make_import(world, event, prng) : make_execution(world, event, prng, options.is_narrow)))
            continue;
        if (!is_import) {
            struct stream *in = &stream[event->place][event->plan];
            record_it(event, in, prng, options);
            *in = (struct stream){.last = (int32_t)world->events, .before = in->last};
        } else {
            event->is_dropped = !options.is_whole && prng_chance(prng, 1, 40);
        }
        world->events++;
        int32_t dead;
        uint32_t output;
        if (prng_chance(prng, 1, 4) && any_live(world, prng, &dead, &output))
            world->event[dead].output[output].is_live = false;    // released
    }
    store_all(world);
    return world;
}

void world_free(void *object)
{
    struct world *world = object;
    for (uint32_t i = 0; i < WORLD_PLANS; i++)
        graph_result_free(&world->plan[i]);
    for (uint32_t i = 0; i < world->events; i++)
        free(world->event[i].word);
    for (uint32_t i = 0; i < world->records; i++)
        free(world->stored[i].bytes);
    free(world);
}

void world_load(const struct world *world, struct recovery *recovery)
{
    for (uint32_t i = 0; i < world->records; i++)
        must(recovery_add(recovery, world->stored[i].bytes, world->stored[i].length), "adding a record");
    for (uint32_t i = 0; i < world->events; i++) {
        for (uint32_t o = 0; o < WORLD_OUTPUTS_MAX; o++) {
            for (uint32_t worker = 0; worker < WORLD_WORKERS; worker++) {
                if (world->event[i].output[o].at & 1u << worker)
                    must(recovery_add_location(recovery, (struct record_ref){world->event[i].counter, o}, worker + 1),
                         "a location");
            }
        }
    }
}
