// A recorder with an interpreter behind its port, for tests of the recorder.

#ifndef TESTS_FRONTEND_CLIENT_BENCH_H
#define TESTS_FRONTEND_CLIENT_BENCH_H

#include "frontend/client/recorder/recorder.h"
#include "tests/frontend/client/plan_eval.h"

enum { BENCH_OUT_MAX = 64, BENCH_ANSWERS_MAX = 64 };

struct bench_out {
    void *tag;
    uint32_t answers;
    uint32_t output[BENCH_ANSWERS_MAX];
    double *answer[BENCH_ANSWERS_MAX];
    struct tensor_meta meta[BENCH_ANSWERS_MAX];
};

struct bench {
    struct recorder *recorder;
    struct eval eval[3];                // one per place
    struct bench_out out[BENCH_OUT_MAX];
    uint32_t outs;
    // The last submission, as it was.
    struct hash128 fingerprint;
    uint32_t nodes, inputs, donated, kept, answers, submissions, fetches;
    int64_t *word;
    uint32_t words;
    struct srg_plan *plan;
    bool is_holding;                    // outcomes are not delivered
};

struct bench *bench_make(void **state);
void bench_deliver(struct bench *bench);                                            // tells the recorder how everything went
void bench_flush(struct bench *bench);                                              // flush and deliver
struct dj_tensor bench_upload(struct bench *bench, const float *data, uint32_t rank, const int64_t *size);
struct dj_tensor bench_op(struct bench *bench, uint32_t op, const struct dj_tensor *a, const struct dj_tensor *b, const struct dj_attr *attr,
                          uint32_t n_attr);
void bench_read(struct bench *bench, const struct dj_tensor *tensor, float *data);  // flushes and fetches as needed
void bench_drop(struct bench *bench, const struct dj_tensor *tensor);               // its cell

#define BENCH_INT(n) ((struct dj_attr){.kind = DJ_ATTR_INT, .value.i = (n)})
#define BENCH_INTS(p, n) ((struct dj_attr){.kind = DJ_ATTR_INTS, .count = (uint8_t)(n), .value.ints = (p)})
#define BENCH_ABSENT ((struct dj_attr){.kind = DJ_ATTR_ABSENT})

#endif
