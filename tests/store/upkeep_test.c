// Checking and copying beside a store that is being written: a backup is one moment, whole, whatever is replaced and deleted meanwhile.

#include <sys/file.h>
#include <sys/wait.h>

#include "store/upkeep.h"
#include "tests/store/rig.h"

enum { KEYS = 8, BLOB_BYTES = 200 << 10, BACKUPS = 4 };

static void name_of(uint32_t n, char key[16])
{
    snprintf(key, 16, "key%u", n % KEYS);
}

// One transaction replaces two values by the same bytes: a moment has both or neither.
static struct store_batch *pair(const uint8_t *data, uint32_t n)
{
    char key[16];
    name_of(n, key);
    struct store_batch *batch = put(STORE_PUT, key, data + n % 500, BLOB_BYTES);
    struct store_item *item = batch_add(batch, STORE_PUT, STORE_LEAF, "twin", 4);
    item->value = blob_copy(data + n % 500, BLOB_BYTES);
    item->value_bytes = BLOB_BYTES;
    if (n % 3 == 0) {
        name_of(n + 3, key);
        batch_add(batch, STORE_DELETE, STORE_LEAF, key, strlen(key));
    }
    return batch;
}

struct writing {
    struct rig *rig;
    const uint8_t *data;
    bool is_over;
    uint32_t commits;
};

static void *write_on(void *context)
{
    struct writing *writing = context;
    for (uint32_t n = 0; !__atomic_load_n(&writing->is_over, __ATOMIC_RELAXED) && n < 3000; n++) {
        if (commit(writing->rig, pair(writing->data, n)) != DJ_OK)
            abort();
        writing->commits++;
    }
    return NULL;
}

static uint8_t *noise(void **state, size_t bytes)
{
    uint8_t *data = arena_alloc(case_arena(state), bytes);
    struct prng prng = prng_make(12);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)prng_next(&prng);
    return data;
}

static void remove_folder(const char *folder)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf %.100s %.100s.part", folder, folder);
    assert_int_equal(system(command), 0);
}

// A process of its own, as `djinn store backup` is: LMDB's locks are the process', and closing one of two environments in one process would
// end those of both. It is made before there are threads, and copies whenever it is sent a byte.
struct copier {
    pid_t pid;
    int ask, answer;
};

static bool is_copied_whole(const char *folder, const char *copy)
{
    struct upkeep_report report = {0};
    struct fault fault = {0};

    enum dj_error error = upkeep_backup(folder, copy, NULL, &report, &fault);
    bool is_whole = error == DJ_OK && report.damaged == 0 && report.files > 0;
    if (!is_whole)
        dprintf(STDOUT_FILENO, "%s %s; %u damaged\n", dj_error_name(error), fault.text, (unsigned)report.damaged);
    return is_whole;
}

static struct copier copier_make(const char *folder, const char *copy)
{
    int ask[2], answer[2];
    char byte;

    assert_int_equal(pipe(ask), 0);
    assert_int_equal(pipe(answer), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ask[1]);
        while (read(ask[0], &byte, 1) == 1) {
            byte = is_copied_whole(folder, copy) ? 'y' : 'n';
            if (write(answer[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    assert_true(pid > 0);
    close(ask[0]);
    close(answer[1]);
    return (struct copier){.pid = pid, .ask = ask[1], .answer = answer[0]};
}

static bool copier_copies(const struct copier *copier)
{
    char byte = 0;
    return write(copier->ask, "c", 1) == 1 && read(copier->answer, &byte, 1) == 1 && byte == 'y';
}

static void copier_end(struct copier *copier)
{
    close(copier->ask);
    close(copier->answer);
    waitpid(copier->pid, NULL, 0);
}

static void a_backup_beside_a_writer_is_whole(void **state)
{
    struct rig *rig = rig_make(state);
    char copy[96];

    rig->config.durability = STORE_MEMORY;    // as fast as it can be
    snprintf(copy, sizeof copy, "%s-copy", rig->folder);
    struct copier copier = copier_make(rig->folder, copy);
    assert_ok(open_store(rig, NULL));
    struct writing writing = {.rig = rig, .data = noise(state, BLOB_BYTES + 500)};
    assert_ok(commit(rig, pair(writing.data, 1)));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_on, &writing), 0);
    uint32_t whole = 0;
    for (int i = 0; i < BACKUPS; i++) {
        whole += copier_copies(&copier);
        remove_folder(copy);
    }
    __atomic_store_n(&writing.is_over, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    copier_end(&copier);
    assert_int_equal(whole, BACKUPS);
    assert_true(writing.commits > 0);
    // What was kept for the copies has gone since.
    assert_ok(commit(rig, pair(writing.data, 2)));
    assert_int_equal(blob_files(rig->folder), store_stats(&rig->port).files);
}

static void nothing_is_removed_while_somebody_copies(void **state)
{
    struct rig *rig = rig_make(state);
    const uint8_t *data = noise(state, BLOB_BYTES + 500);
    char path[128];

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, pair(data, 1)));
    snprintf(path, sizeof path, "%s/pin", rig->folder);
    int fd = open(path, O_RDWR);
    assert_int_equal(flock(fd, LOCK_SH), 0);
    assert_ok(commit(rig, delete_of("twin")));
    assert_int_equal(blob_files(rig->folder), 2);
    close_store(rig);
    assert_ok(open_store(rig, NULL));    // nor by the sweep
    assert_int_equal(blob_files(rig->folder), 2);
    close_store(rig);
    close(fd);
    assert_ok(open_store(rig, NULL));
    assert_int_equal(blob_files(rig->folder), 1);
    assert_holds(rig, "key1", data + 1, BLOB_BYTES);
}

static void a_copy_that_was_cut_short_is_made_anew(void **state)
{
    struct rig *rig = rig_make(state);
    struct upkeep_report report;
    char copy[96], path[160];

    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, pair(noise(state, BLOB_BYTES + 500), 1)));
    snprintf(copy, sizeof copy, "%s-copy", rig->folder);
    snprintf(path, sizeof path, "%s.part", copy);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s.part/lineage.mdb", copy);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "half", 4), 4);
    close(fd);
    assert_ok(upkeep_backup(rig->folder, copy, NULL, &report, NULL));
    assert_int_equal(report.values, 2);
    assert_int_equal(report.damaged, 0);
    snprintf(path, sizeof path, "%s.part", copy);
    assert_int_equal(access(path, F_OK), -1);
    remove_folder(copy);
}

CASES(a_backup_beside_a_writer_is_whole, nothing_is_removed_while_somebody_copies, a_copy_that_was_cut_short_is_made_anew)
