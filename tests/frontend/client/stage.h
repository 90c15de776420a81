// Stage: a protocol between a scripted head and scripted workers: what it sends is looked at message by message, what it is told is written
// down by tag.

#ifndef TESTS_FRONTEND_CLIENT_STAGE_H
#define TESTS_FRONTEND_CLIENT_STAGE_H

#include "core/io/blob.h"
#include "core/lineage/recovery.h"
#include "core/srg/bindings.h"
#include "core/wire/wire.h"
#include "frontend/client/protocol/protocol.h"
#include "tests/lib/case.h"

enum { LIVE_MAX = 64, SENT_MAX = 4096, TAGS_MAX = 2048, HEAD_LINK = 1000, WORKER_LINK = 2000, INCARNATION = 77, SESSION = 5 };
#define MS ((uint64_t)1000000)

struct sent {
    uint64_t link;
    uint16_t message;
    struct blob *body, *bulk;
    uint64_t bulk_offset, bulk_bytes;
};
struct outcome {
    uint32_t executed, failed, answers, fetched, told;
    enum dj_error error;
    char text[200];
    uint8_t data[16];
};

struct stage {
    struct protocol *protocol;
    struct leaf_table *leaves;
    struct arena *arena;
    uint64_t now_ns, requests, opened;    // opened: the last request to open a link
    char address[IO_ADDRESS_MAX];
    uint64_t closed;    // the last link closed
    struct sent sent[SENT_MAX];
    uint32_t sents, seen;    // seen: the script has looked at
    struct outcome outcome[TAGS_MAX];
    uint32_t places_lost;
    struct srg_plan *plan, *next_plan;    // of a leaf; of a handle
    struct leaf *leaf;
    uint64_t link;           // the worker's current one
    uint64_t incarnation;    // of the worker whose grant was given last
    uint32_t epoch, stream;  // stream: of the last ATTACH
    struct released live[LIVE_MAX];    // what the recorder would say is alive, at every place
    uint32_t lives;
    struct protocol_recovery recovered;
    uint32_t recoveries;
    bool is_silent;    // submissions want no answers
};

#define DECODE(name, from, ret) \
    do { \
        const struct blob *body = (from)->body; \
        assert_ok(wire_##name##_decode(body->data, body->bytes, stage->arena, (ret))); \
    } while (0)
#define RECEIVE(link, NAME, name, ...) \
    receive(stage, (link), WIRE_##NAME, wire_##name##_encode(&(struct wire_##name){__VA_ARGS__}), NULL)


void stage_end(void *stage);
struct stage *stage_begin(void **state, const char *name);    // named session; the head is being dialled
struct stage *stage_make(void **state);
struct stage *stage_ready(void **state);    // attached to the first worker
void stage_up(struct stage *stage, uint64_t link);
void stage_down(struct stage *stage, uint64_t link);    // 0: the dial that is under way
void receive(struct stage *stage, uint64_t link, uint16_t message, struct blob *body, struct blob *bulk);
void pass(struct stage *stage, uint64_t ns);
const struct sent *next(struct stage *stage, uint16_t message);    // the next message sent, which must be of this kind
void nothing_more(struct stage *stage);
void grant(struct stage *stage, uint64_t request, uint64_t incarnation);
void session(struct stage *stage, uint64_t request, uint64_t incarnation, uint64_t journalled);
void open_head(struct stage *stage);
void open_head_again(struct stage *stage, uint64_t link);    // it resumes the session
void open_worker(struct stage *stage, uint64_t link, uint64_t last_counter);
void submit(struct stage *stage, uint64_t counter);           // of a leaf
void submit_from(struct stage *stage, uint64_t counter, uint64_t from, bool donates);    // of output 0 of that one
void answer(struct stage *stage, uint64_t counter);
void answer_part(struct stage *stage, uint64_t counter, uint32_t part);
void watermark(struct stage *stage, uint64_t link, uint64_t first, uint64_t last);    // these are durable
struct wire_execute execute_of(struct stage *stage);
struct wire_grant_ask lose_worker(struct stage *stage);    // the head says so; returns what is asked then
struct wire_recover recover_of(struct stage *stage);
// A plan made from what this client journalled, and the message that says it.
void say_recovery(struct stage *stage, uint64_t link, const struct wire_recover *recover);
void plan_recovery(struct stage *stage, const struct wire_recover *recover, struct wire_recovery *ret, struct writer *encoded);
int64_t alpha_of(const struct stage *stage, const struct srg_plan *plan, const int64_t *word);

#endif
