// Codec: steps as they travel. A part is items one after the other: a plan (0, then its record), or a step (its kind, then its fields).
// Bindings are deltas against the last two steps of the same plan in the part, so that a thousand steps of a generation take a few bytes
// each; plans are named by their number in the part after their first step there.
//
// Reading believes nothing: everything is bounded, positions grow, and what the words of one part take is limited on both sides.

#include "core/lineage/recovery_internal.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { ITEM_PLAN = 0, STEP_BYTES_MAX = RECORD_BYTES_MAX + RECORD_DELTA_BYTES_MAX + 2 * RECORD_GONE_BYTES_MAX };

// Writing ----------------------------------------------------------------------------------------------------------------------

struct part {
    uint64_t counter;    // of the step before
    uint64_t word_bytes;
    uint32_t plans;
};

static enum dj_error put_words(struct recovery *recovery, struct part *part, const struct recovery_step *step,
                               struct writer *writer)
{
    uint32_t index = (uint32_t)(uintptr_t)map_get(recovery->plans, step->plan) - 1;
    struct known_plan *plan = &recovery->plan[index];
    if (plan->in_part == 0) {
        plan->in_part = ++part->plans;
        history_free(&plan->history);
        history_init(&plan->history, step->words);
        write_var(writer, plan->in_part - 1);
        write_hash(writer, plan->fingerprint);
        write_var(writer, step->words);
    } else {
        write_var(writer, plan->in_part - 1);
    }
    bindings_encode(&plan->history, step->word, writer);
    part->word_bytes += sizeof(int64_t) * (uint64_t)step->words;
    return history_push(&plan->history, step->word);
}

static enum dj_error put_replay(struct recovery *recovery, struct part *part, const struct recovery_step *step,
                                struct writer *writer)
{
    enum dj_error error = put_words(recovery, part, step, writer);
    struct record_bits keep = {.bits = step->keep, .bytes = step->keep_bytes};
    struct record_bits donate = {.bits = step->donate, .bytes = step->donate_bytes};
    record_bits_write(writer, &keep);
    record_bits_write(writer, &donate);
    write_var(writer, step->cost_ns);
    return error;
}

static void put_restore(const struct recovery_step *step, struct writer *writer)
{
    write_var(writer, step->output);
    record_meta_write(writer, &step->meta);
    write_u8(writer, step->fact != NULL);
    if (step->fact != NULL) {
        write_bytes(writer, step->fact, step->fact_bytes);
        return;
    }
    write_var(writer, step->dim);
    write_var(writer, step->pieces);
    write_bytes(writer, step->piece, step->piece_bytes);
}

static enum dj_error put_step(struct recovery *recovery, struct part *part, const struct recovery_step *step,
                              struct record_ref *released, struct writer *writer)
{
    enum dj_error error = DJ_OK;
    write_u8(writer, step->kind);
    write_var(writer, step->counter - part->counter);
    write_var(writer, step->part);
    part->counter = step->counter;
    switch ((enum recovery_step_kind)step->kind) {
    case STEP_REPLAY: error = put_replay(recovery, part, step, writer); break;
    case STEP_RESTORE: put_restore(step, writer); break;
    case STEP_FETCH:
        write_var(writer, step->output);
        write_var(writer, step->from);
        break;
    case STEP_COPY:
        write_var(writer, step->output);
        record_meta_write(writer, &step->meta);
        write_var(writer, step->counter - step->source.counter);
        write_var(writer, step->source.output);
        break;
    }
    struct writer refs = writer_make(RECORD_GONE_BYTES_MAX);
    record_refs_write(&refs, step->counter, released, step->releases);
    if (error == DJ_OK)
        error = refs.error;
    write_bytes(writer, refs.data, refs.length);
    writer_free(&refs);
    return error == DJ_OK ? writer->error : error;
}

static enum dj_error put_item(struct recovery *recovery, struct part *part, uint32_t index, struct writer *writer)
{
    struct planned *planned = &recovery->step[index];
    const struct recovery_step *step = recovery_step_at(recovery, index);
    if (step == NULL)
        return DJ_E_NO_MEMORY;
    if (step->kind == STEP_REPLAY) {
        const struct known_plan *plan = &recovery->plan[recovery->record[planned->record].plan];
        struct record record = {.kind = RECORD_PLAN};
        record.plan = (struct record_plan){.fingerprint = plan->fingerprint, .bytes = plan->bytes, .length = plan->length};
        if (plan->first_step == index) {
            write_u8(writer, ITEM_PLAN);
            record_write(writer, &record);
        }
    }
    return put_step(recovery, part, step, planned->released, writer);
}

enum dj_error recovery_encode(struct recovery *recovery, uint32_t *from, size_t max_bytes, struct writer *writer,
                              uint32_t *ret_steps)
{
    struct part part = {0};
    struct writer item = writer_make(STEP_BYTES_MAX);
    size_t before = writer->length;
    uint32_t steps = 0;
    enum dj_error error = DJ_OK;
    for (uint32_t i = 0; i < recovery->known_plans; i++)
        recovery->plan[i].in_part = 0;
    while (*from + steps < recovery->steps && part.word_bytes <= RECOVERY_PART_WORD_BYTES / 2) {
        writer_reset(&item);
        error = put_item(recovery, &part, *from + steps, &item);
        if (error != DJ_OK || (steps > 0 && item.length > max_bytes - (writer->length - before)))
            break;
        write_raw(writer, item.data, item.length);
        steps++;
        if (writer->length - before >= max_bytes)
            break;
    }
    writer_free(&item);
    if (error == DJ_OK)
        error = writer->error;
    if (error != DJ_OK)
        return error;
    *from += steps;
    *ret_steps = steps;
    return DJ_OK;
}

// Reading ----------------------------------------------------------------------------------------------------------------------

struct part_plan {
    struct hash128 fingerprint;
    struct binding_history history;    // its vectors are those of the steps before, in the arena
};

struct recovery_reading {
    struct part_plan *plan;
    uint64_t counter, word_bytes;
    uint32_t plans, capacity, part;
};

static void *take(struct recovery_reader *reader, size_t bytes)
{
    void *block = arena_zero(reader->arena, bytes == 0 ? 1 : bytes);
    if (block == NULL)
        reader_fail(&reader->reader, DJ_E_NO_MEMORY);
    return block;
}

static void bad(struct recovery_reader *reader)
{
    reader_fail(&reader->reader, DJ_E_MALFORMED);
}

// At least one byte: an empty mask means something else to whoever sends it on.
static const uint8_t *take_bits(struct recovery_reader *reader, uint8_t *to, uint32_t *used, uint32_t *ret_bytes)
{
    struct record_bits bits = record_bits_read(&reader->reader, to, used);
    uint8_t *copy = take(reader, bits.bytes);
    if (copy != NULL && bits.bytes > 0)
        memcpy(copy, bits.bits, bits.bytes);
    *ret_bytes = bits.bytes == 0 ? 1 : bits.bytes;
    return copy;
}

static struct part_plan *new_plan(struct recovery_reader *reader, struct recovery_reading *part)
{
    if (part->plans == RECOVERY_PLANS_MAX)
        bad(reader);
    if (part->plans == part->capacity && reader->reader.error == DJ_OK) {
        uint32_t capacity = part->capacity == 0 ? 8 : part->capacity * 2;
        struct part_plan *plan = take(reader, capacity * sizeof *plan);
        if (plan == NULL)
            return NULL;
        if (part->plans > 0)
            memcpy(plan, part->plan, part->plans * sizeof *plan);
        part->plan = plan;
        part->capacity = capacity;
    }
    struct hash128 fingerprint = read_hash(&reader->reader);
    uint32_t words = (uint32_t)read_var_max(&reader->reader, PLAN_WORDS_MAX);
    if (reader->reader.error != DJ_OK)
        return NULL;
    struct part_plan *plan = &part->plan[part->plans++];
    *plan = (struct part_plan){.fingerprint = fingerprint};
    history_init(&plan->history, words);
    return plan;
}

static void get_replay(struct recovery_reader *reader, struct recovery_reading *part, struct recovery_step *step)
{
    uint64_t index = read_var_max(&reader->reader, part->plans);
    struct part_plan *plan = reader->reader.error != DJ_OK ? NULL
                             : index < part->plans         ? &part->plan[index]
                                                           : new_plan(reader, part);
    if (plan == NULL)
        return;
    part->word_bytes += sizeof(int64_t) * (uint64_t)plan->history.words;
    if (part->word_bytes > RECOVERY_PART_WORD_BYTES) {
        bad(reader);
        return;
    }
    int64_t *word = take(reader, plan->history.words * sizeof *word);
    if (word == NULL)
        return;
    if (bindings_decode(&plan->history, &reader->reader, word) != DJ_OK) {
        bad(reader);
        return;
    }
    plan->history.before = plan->history.last;
    plan->history.last = word;
    plan->history.depth = (uint8_t)(plan->history.depth + (plan->history.depth < 2));
    step->plan = plan->fingerprint;
    step->words = plan->history.words;
    step->word = word;
    step->keep = take_bits(reader, reader->scratch->keep, &reader->scratch->keep_bytes, &step->keep_bytes);
    step->donate = take_bits(reader, reader->scratch->donate, &reader->scratch->donate_bytes, &step->donate_bytes);
    step->cost_ns = read_var(&reader->reader);
}

static void get_restore(struct recovery_reader *reader, struct recovery_step *step)
{
    size_t length;
    struct reader *in = &reader->reader;
    step->output = (uint32_t)read_var_max(in, UINT32_MAX);
    record_meta_read(in, &step->meta);
    bool is_fact = read_u8(in) != 0;
    if (in->error != DJ_OK)
        return;
    bool fits;
    if (is_fact) {
        step->fact = read_bytes(in, RECORD_ANSWER_BYTES_MAX, &length);
        step->fact_bytes = (uint32_t)length;
        fits = length == (uint64_t)tensor_bytes(&step->meta);
    } else {
        step->dim = (uint32_t)read_var_max(in, DJ_RANK_MAX);
        step->pieces = (uint32_t)read_var_max(in, RECORD_PIECES_MAX);
        step->piece = read_bytes(in, (size_t)RECORD_PIECES_MAX * 36, &length);
        step->piece_bytes = (uint32_t)length;
        fits = in->error == DJ_OK && step->pieces > 0 &&
               record_pieces_fit(&step->meta, step->dim, step->pieces, step->piece, step->piece_bytes);
    }
    if (!fits || !tensor_is_contiguous(&step->meta))
        bad(reader);
}

static void get_copy(struct recovery_reader *reader, struct recovery_step *step)
{
    step->output = (uint32_t)read_var_max(&reader->reader, UINT32_MAX);
    record_meta_read(&reader->reader, &step->meta);
    uint64_t distance = read_var(&reader->reader);
    step->source.output = (uint32_t)read_var_max(&reader->reader, UINT32_MAX);
    if (distance == 0 || distance >= step->counter || !tensor_is_contiguous(&step->meta))
        bad(reader);
    else
        step->source.counter = step->counter - distance;
}

static void get_released(struct recovery_reader *reader, struct recovery_step *step)
{
    size_t length;
    const uint8_t *bytes = read_bytes(&reader->reader, RECORD_GONE_BYTES_MAX, &length);
    struct record_refs refs = record_refs_open(bytes, (uint32_t)length, step->counter);
    struct record_ref ref, *released;
    uint32_t count = 0;
    while (record_refs_next(&refs, &ref))
        count++;
    if (refs.reader.error != DJ_OK || count > RECORD_GONE_MAX) {
        bad(reader);
        return;
    }
    released = take(reader, count * sizeof *released);
    if (released == NULL)
        return;
    refs = record_refs_open(bytes, (uint32_t)length, step->counter);
    while (step->releases < count && record_refs_next(&refs, &released[step->releases]))
        step->releases++;
    step->released = released;
}

static void get_step(struct recovery_reader *reader, struct recovery_reading *part, struct recovery_step *step)
{
    struct reader *in = &reader->reader;
    uint64_t distance = read_var(in);
    step->part = (uint32_t)read_var_max(in, UINT32_MAX);
    step->counter = part->counter + distance;
    if (step->counter < part->counter || step->counter == 0 ||
        (part->counter != 0 && distance == 0 && step->part <= part->part)) {
        bad(reader);
        return;
    }
    switch (step->kind) {
    case STEP_REPLAY: get_replay(reader, part, step); break;
    case STEP_RESTORE: get_restore(reader, step); break;
    case STEP_FETCH:
        step->output = (uint32_t)read_var_max(in, UINT32_MAX);
        step->from = read_var(in);
        break;
    case STEP_COPY: get_copy(reader, step); break;
    default: bad(reader);
    }
    if (in->error == DJ_OK)
        get_released(reader, step);
    part->counter = step->counter;
    part->part = step->part;
}

enum recovery_item recovery_next(struct recovery_reader *reader, struct record_plan *ret_plan, struct recovery_step *ret_step)
{
    struct reader *in = &reader->reader;
    if (in->error != DJ_OK)
        return RECOVERY_BAD;
    if (reader_left(in) == 0)
        return RECOVERY_END;
    if (reader->part == NULL)
        reader->part = take(reader, sizeof *reader->part);
    uint8_t kind = read_u8(in);
    if (in->error != DJ_OK)
        return RECOVERY_BAD;
    if (kind == ITEM_PLAN) {
        if (read_u8(in) != RECORD_PLAN)
            bad(reader);
        struct record_plan plan = {.fingerprint = read_hash(in)};
        plan.bytes = read_bytes(in, PLAN_BYTES_MAX, &plan.length);
        *ret_plan = plan;
        return in->error == DJ_OK ? RECOVERY_PLAN : RECOVERY_BAD;
    }
    struct recovery_step step = {.kind = kind};
    get_step(reader, reader->part, &step);
    *ret_step = step;
    return in->error == DJ_OK ? RECOVERY_STEP : RECOVERY_BAD;
}
