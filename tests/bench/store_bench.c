// What durability costs: commits of one small record (the size of a decode step's), one at a time and many at once, at the three levels, on
// the file system of build/. Its reference is what the disk itself takes: a write and an fdatasync.

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "core/io/blob.h"
#include "store/store.h"

enum { RECORD_BYTES = 200, ALONE = 400, TOGETHER = 40000, SYNCS = 200 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t answered, failed;

static void post(void *self, const struct io_event *event)
{
    (void)self;
    pthread_mutex_lock(&mutex);
    answered++;
    failed += event->store_done.error != DJ_OK;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
    result_free(event->store_done.result);
}

static void wait_for(uint64_t count)
{
    pthread_mutex_lock(&mutex);
    while (answered < count)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void commit(const struct store_port *port, uint64_t number)
{
    struct store_batch *batch = batch_make();
    struct store_item *item = batch_add(batch, STORE_PUT_IF_ABSENT, STORE_EXECUTION, &number, sizeof number);

    item->value = blob_make(RECORD_BYTES);
    item->value_bytes = RECORD_BYTES;
    memset(item->value->data, (int)number, RECORD_BYTES);
    port->commit(port->self, number, batch);
}

static int bench(const char *name, enum store_durability durability)
{
    static double took_s[ALONE];
    struct store_config config = {.path = "build/bench-store", .durability = durability};
    struct io_sink sink = {.post = post};
    struct store_port port;
    struct fault fault = {0};

    if (system("rm -rf build/bench-store") != 0 || store_open(&config, &sink, &port, &fault) != DJ_OK) {
        fprintf(stderr, "store_bench: %s\n", fault.text);
        return 1;
    }
    answered = failed = 0;
    for (uint64_t i = 0; i < ALONE; i++) {
        double start = now_s();
        commit(&port, i + 1);
        wait_for(i + 1);
        took_s[i] = now_s() - start;
    }
    qsort(took_s, ALONE, sizeof took_s[0], compare);
    uint64_t commits = store_stats(&port).commits;
    double start = now_s();
    for (uint64_t i = 0; i < TOGETHER; i++)
        commit(&port, ALONE + i + 1);
    wait_for(ALONE + TOGETHER);
    double seconds = now_s() - start;
    struct store_stats stats = store_stats(&port);
    printf("%-7s %10.0f %10.0f %14.0f %12.1f %8llu\n", name, took_s[ALONE / 2] * 1e6, took_s[ALONE * 95 / 100] * 1e6,
           TOGETHER / seconds, (double)TOGETHER / (double)(stats.commits - commits), (unsigned long long)stats.syncs);
    port.stop(port.self);
    if (failed > 0)
        fprintf(stderr, "store_bench: %llu commits failed\n", (unsigned long long)failed);
    return failed > 0 || system("rm -rf build/bench-store") != 0;
}

static void reference(void)
{
    static double took_s[SYNCS];
    uint8_t page[4096] = {0};
    int fd = open("build/bench-sync", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    for (int i = 0; fd >= 0 && i < SYNCS; i++) {
        double start = now_s();
        if (pwrite(fd, page, sizeof page, (off_t)i * 4096) != sizeof page || fdatasync(fd) != 0)
            break;
        took_s[i] = now_s() - start;
    }
    if (fd >= 0)
        close(fd);
    unlink("build/bench-sync");
    qsort(took_s, SYNCS, sizeof took_s[0], compare);
    printf("%-7s %10.0f %10.0f   a page written and synced\n", "fdatasync", took_s[SYNCS / 2] * 1e6,
           took_s[SYNCS * 95 / 100] * 1e6);
}

int main(void)
{
    struct utsname machine;

    uname(&machine);
    printf("store: records of %d bytes, on %s\n", RECORD_BYTES, machine.nodename);
    printf("%-7s %10s %10s %14s %12s %8s\n", "", "median us", "p95 us", "records/s", "in a commit", "syncs");
    int code = bench("memory", STORE_MEMORY) + bench("os", STORE_OS) + bench("disk", STORE_DISK);
    reference();
    return code != 0;
}
