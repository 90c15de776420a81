// Room: the map grows before it is full; a full disk is a typed refusal that loses nothing, and commits work again when there is room,
// without a restart. The system calls by which bytes reach the disk are replaced by ones that fail when told to.

#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/store/rig.h"

// The test and the store's thread: set while no commit runs.
static struct {
    int error;           // what the next writes fail with; 0: they work
    uint32_t after;      // writes that work before that
    bool is_short;       // the first of them writes half
    bool only_synced;    // only writes to a descriptor with O_DSYNC: LMDB's meta pages
    uint32_t failed;
} trouble;

static bool fails(int fd)
{
    if (trouble.error == 0 || fd < 3 || (trouble.only_synced && (fcntl(fd, F_GETFL) & O_DSYNC) == 0))
        return false;
    if (trouble.after > 0) {
        trouble.after--;
        return false;
    }
    trouble.failed++;
    errno = trouble.error;
    return true;
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    if (!fails(fd))
        return syscall(SYS_pwrite64, fd, data, bytes, offset);
    return trouble.is_short && trouble.failed == 1 && bytes > 1 ? syscall(SYS_pwrite64, fd, data, bytes / 2, offset) : -1;
}
EXPORTED ssize_t write(int fd, const void *data, size_t bytes)
{
    if (!fails(fd))
        return syscall(SYS_write, fd, data, bytes);
    return trouble.is_short && trouble.failed == 1 && bytes > 1 ? syscall(SYS_write, fd, data, bytes / 2) : -1;
}
EXPORTED ssize_t writev(int fd, const struct iovec *part, int parts)
{
    if (!fails(fd))
        return syscall(SYS_writev, fd, part, parts);
    return -1;
}
EXPORTED int fdatasync(int fd)
{
    return fails(fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

static void calm(void *unused)
{
    (void)unused;
    memset(&trouble, 0, sizeof trouble);
}

static void a_map_grows_as_often_as_it_has_to(void **state)
{
    struct rig *rig = rig_make(state);
    uint8_t *data = big_bytes(state, 1);
    char key[16];

    rig->config.map_bytes = 1 << 20;
    assert_ok(open_store(rig, NULL));
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "key%d", i);
        assert_ok(commit(rig, put(STORE_PUT, key, data + i, 40000)));
        struct store_stats stats = store_stats(&rig->port);
        assert_true(stats.tree_bytes <= stats.map_bytes - stats.map_bytes / 4);    // before it is full
    }
    assert_true(store_stats(&rig->port).map_bytes >= 16 << 20);
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "key%d", i);
        assert_holds(rig, key, data + i, 40000);
    }
}

static void one_transaction_may_be_larger_than_the_whole_map(void **state)
{
    struct rig *rig = rig_make(state);
    uint8_t *data = big_bytes(state, 2);
    struct store_batch *batch = batch_make();
    char key[16];

    for (int durability = STORE_MEMORY; durability <= STORE_DISK; durability++) {
        rig->config.map_bytes = 1 << 20;
        rig->config.durability = (enum store_durability)durability;
        assert_ok(open_store(rig, NULL));
        batch = durability == STORE_MEMORY ? batch : batch_make();
        for (int i = 0; i < 100; i++) {
            snprintf(key, sizeof key, "key%d-%d", durability, i);
            struct store_item *item = batch_add(batch, STORE_PUT, STORE_LEAF, key, strlen(key));
            item->value = blob_copy(data + i, 50000);
            item->value_bytes = 50000;
        }
        assert_ok(commit(rig, batch));
        for (int i = 0; i < 100; i++) {
            snprintf(key, sizeof key, "key%d-%d", durability, i);
            assert_holds(rig, key, data + i, 50000);
        }
        close_store(rig);
    }
}

// Every write of a commit fails in its turn, whole or half: the commit is refused, nothing that was acknowledged is lost, nothing of the
// refused one is there, and the next one works.
static void a_full_disk_refuses_at_every_write_and_works_again_when_there_is_room(void **state)
{
    struct rig *rig = rig_make(state);
    uint8_t *big = big_bytes(state, 3);
    uint32_t refused = 0;
    char key[16];

    case_later(state, calm, rig);
    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "before", big, BIG_BYTES)));
    for (uint32_t after = 0; after < 8; after++)
        for (int is_short = 0; is_short < 2; is_short++) {
            snprintf(key, sizeof key, "key%u%d", after, is_short);
            struct store_batch *batch = put(STORE_PUT, key, big, BIG_BYTES);
            struct store_item *item = batch_add(batch, STORE_PUT, STORE_LEAF, "before", 6);
            item->value = blob_copy("replaced", 8);
            item->value_bytes = 8;
            item = batch_add(batch, STORE_PUT, STORE_LEAF, "inline", 6);
            item->value = blob_copy(big, 30000);
            item->value_bytes = 30000;
            trouble = (typeof(trouble)){.error = ENOSPC, .after = after, .is_short = is_short != 0};
            enum dj_error error = commit(rig, batch);
            bool is_met = trouble.failed > 0;
            calm(NULL);
            if (is_met) {
                refused++;
                // A write that ends early is told from other failures by the room that is left, which a test cannot take away.
                assert_true(error == DJ_E_STORE_FULL || (is_short != 0 && error == DJ_E_STORE));
                assert_int_equal(entries_of(rig, key), 0);
                assert_holds(rig, "before", big, BIG_BYTES);
                assert_int_equal(blob_files(rig->folder), 1);
            } else {
                assert_ok(error);
                assert_ok(commit(rig, delete_of(key)));
                assert_ok(commit(rig, put(STORE_PUT, "before", big, BIG_BYTES)));
            }
            assert_ok(commit(rig, put(STORE_PUT, "after", key, strlen(key))));
            assert_holds(rig, "after", key, strlen(key));
        }
    assert_true(refused >= 8);
    assert_true(store_stats(&rig->port).full >= 4);
    close_store(rig);
    assert_ok(open_store(rig, NULL));
    assert_holds(rig, "before", big, BIG_BYTES);
}

// LMDB refuses everything after a meta page that could not be written; the store opens it again.
static void a_meta_page_that_cannot_be_written_is_no_end(void **state)
{
    struct rig *rig = rig_make(state);

    case_later(state, calm, rig);
    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "before", "kept", 4)));
    trouble = (typeof(trouble)){.error = ENOSPC, .only_synced = true};
    enum dj_error error = commit(rig, put(STORE_PUT, "refused", "x", 1));
    uint32_t failed = trouble.failed;
    calm(NULL);
    assert_true(failed > 0);
    assert_error(DJ_E_STORE_FULL, error);
    assert_ok(commit(rig, put(STORE_PUT, "after", "works", 5)));
    assert_holds(rig, "before", "kept", 4);
    assert_holds(rig, "after", "works", 5);
}

// The system's own refusal: a limit on file sizes is answered as a full disk is, also when a write ends early.
static void a_limit_on_file_sizes_is_a_full_disk(void **state)
{
    struct rig *rig = rig_make(state);
    struct rlimit before, limit;
    uint8_t *big = big_bytes(state, 4);
    enum dj_error error = DJ_OK;
    char key[16], path[160];
    struct stat status;
    int committed = 0;

    signal(SIGXFSZ, SIG_IGN);
    assert_ok(open_store(rig, NULL));
    assert_ok(commit(rig, put(STORE_PUT, "before", "kept", 4)));
    snprintf(path, sizeof path, "%s/lineage.mdb", rig->folder);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)status.st_size + 100000 + 1234;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (; committed < 100 && error == DJ_OK; committed += error == DJ_OK) {
        snprintf(key, sizeof key, "key%d", committed);
        error = commit(rig, put(STORE_PUT, key, big + committed, 30000));
    }
    enum dj_error again = commit(rig, put(STORE_PUT, "again", big, 60000));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_error(DJ_E_STORE_FULL, error);
    assert_error(DJ_E_STORE_FULL, again);
    assert_holds(rig, "before", "kept", 4);
    assert_ok(commit(rig, put(STORE_PUT, "after", "works", 5)));
    for (int i = 0; i < committed; i++) {
        snprintf(key, sizeof key, "key%d", i);
        assert_holds(rig, key, big + i, 30000);
    }
}

CASES(a_map_grows_as_often_as_it_has_to, one_transaction_may_be_larger_than_the_whole_map,
      a_full_disk_refuses_at_every_write_and_works_again_when_there_is_room, a_meta_page_that_cannot_be_written_is_no_end,
      a_limit_on_file_sizes_is_a_full_disk)
