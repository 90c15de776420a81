// What a death costs at each durability. Of the process (kill -9 at random moments): nothing that was answered. Of the machine: the system
// calls by which bytes and names reach the disk are recorded, with what had been synced when; "the power fails" builds a folder of what a
// disk may hold then: all that was synced, and of the rest any part, in pieces of 512 bytes; names likewise. A store is opened on it.

#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "store/upkeep.h"
#include "tests/store/rig.h"

enum { PIECES_MAX = 1 << 17, NAMES_MAX = 4096, SECTOR = 512, IMAGES = 3, PATH_BYTES = 256 };

struct piece {
    ino_t inode;
    off_t offset;
    size_t bytes;
    uint8_t *data;
    bool is_synced;
};

struct name {
    char path[PATH_BYTES];    // of what appeared or went
    ino_t inode;
    bool is_gone, is_folder, is_synced;
};

// The store's thread writes it; the test looks at it while the store does nothing, or on the store's thread.
static struct {
    const char *folder;    // NULL: nothing is recorded
    uint32_t pieces, names, syncs, waits, steps, fail_at;
    struct piece piece[PIECES_MAX];
    struct name name[NAMES_MAX];
    void (*at_power_failure)(void);
} disk;

#define EXPORTED __attribute__((visibility("default")))

static bool path_of(int fd, char path[PATH_BYTES])
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_BYTES - 1);
    path[n > 0 ? n : 0] = '\0';
    return disk.folder != NULL && strstr(path, disk.folder) != NULL;
}

static void step(void)
{
    if (++disk.steps == disk.fail_at && disk.at_power_failure != NULL)
        disk.at_power_failure();
}

static void wrote(int fd, const void *data, size_t bytes, off_t offset)
{
    char path[PATH_BYTES];
    struct stat status;

    if (!path_of(fd, path) || fstat(fd, &status) != 0 || disk.pieces == PIECES_MAX)
        return;
    struct piece *piece = &disk.piece[disk.pieces++];
    *piece = (struct piece){.inode = status.st_ino, .offset = offset, .bytes = bytes, .data = malloc(bytes)};
    memcpy(piece->data, data, bytes);
    piece->is_synced = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
    disk.waits += piece->is_synced;
    step();
}

EXPORTED ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    ssize_t n = syscall(SYS_pwrite64, fd, data, bytes, offset);
    if (n > 0)
        wrote(fd, data, (size_t)n, offset);
    return n;
}
EXPORTED ssize_t write(int fd, const void *data, size_t bytes)
{
    off_t offset = disk.folder == NULL ? 0 : lseek(fd, 0, SEEK_CUR);
    ssize_t n = syscall(SYS_write, fd, data, bytes);
    if (n > 0)
        wrote(fd, data, (size_t)n, offset);
    return n;
}
EXPORTED ssize_t writev(int fd, const struct iovec *part, int parts)
{
    off_t offset = disk.folder == NULL ? 0 : lseek(fd, 0, SEEK_CUR);
    ssize_t n = syscall(SYS_writev, fd, part, parts);
    for (ssize_t i = 0, left = n; left > 0 && i < parts; left -= (ssize_t)part[i].iov_len, i++) {
        wrote(fd, part[i].iov_base, part[i].iov_len, offset);
        offset += (off_t)part[i].iov_len;
    }
    return n;
}

static void synced(int fd)
{
    char path[PATH_BYTES];
    struct stat status;

    if (!path_of(fd, path) || fstat(fd, &status) != 0)
        return;
    for (uint32_t i = 0; i < disk.pieces; i++)
        if (disk.piece[i].inode == status.st_ino)
            disk.piece[i].is_synced = true;
    for (uint32_t i = 0; i < disk.names; i++) {
        const char *cut = strrchr(disk.name[i].path, '/');
        if ((size_t)(cut - disk.name[i].path) == strlen(path) && memcmp(disk.name[i].path, path, strlen(path)) == 0)
            disk.name[i].is_synced = true;
    }
    disk.syncs++;
    disk.waits++;
    step();
}
EXPORTED int fdatasync(int fd)
{
    synced(fd);    // before the call: the power may fail right after
    return 0;
}
EXPORTED int fsync(int fd)
{
    synced(fd);
    return 0;
}
EXPORTED int syncfs(int fd)
{
    (void)fd;
    if (disk.folder == NULL)
        return 0;
    for (uint32_t i = 0; i < disk.pieces; i++)
        disk.piece[i].is_synced = true;
    for (uint32_t i = 0; i < disk.names; i++)
        disk.name[i].is_synced = true;
    disk.syncs++;
    disk.waits++;
    step();
    return 0;
}

static void named(const char *path, bool is_gone, bool is_folder)
{
    struct stat status = {0};

    if (disk.folder == NULL || disk.names == NAMES_MAX || strstr(path, disk.folder) == NULL)
        return;
    struct name *name = &disk.name[disk.names++];
    *name = (struct name){.is_gone = is_gone, .is_folder = is_folder};
    if (path[0] != '/') {
        char here[PATH_BYTES];
        assert_non_null(getcwd(here, sizeof here));
        snprintf(name->path, sizeof name->path, "%.120s/%.120s", here, path);
    } else {
        snprintf(name->path, sizeof name->path, "%s", path);
    }
    if (!is_gone && stat(path, &status) == 0)
        name->inode = status.st_ino;
    step();
}

EXPORTED int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    bool was_there = access(path, F_OK) == 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) != 0 && !was_there)
        named(path, false, false);
    // A file that is cut off is a write of nothing that takes its old pieces away; only `unsynced.new` is, before it is renamed.
    return fd;
}
EXPORTED int mkdir(const char *path, mode_t mode)
{
    int code = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (code == 0)
        named(path, false, true);
    return code;
}
EXPORTED int unlink(const char *path)
{
    int code = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (code == 0)
        named(path, true, false);
    return code;
}
EXPORTED int rename(const char *from, const char *to)
{
    int code = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (code == 0) {
        named(from, true, false);
        named(to, false, false);
    }
    return code;
}

// The image -----------------------------------------------------------------------------------------------------------

static struct {
    struct rig *rig;
    struct prng prng;
    char folder[IMAGES][80];
    uint32_t acknowledged;    // answered when the power failed
    uint32_t synced_then;     // answered before the last sync behind the answers began
    _Atomic bool is_made;
} power;

static void write_pieces(const char *path, ino_t inode, struct prng *prng)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return;    // the name of its folder was lost
    for (uint32_t i = 0; i < disk.pieces; i++) {
        const struct piece *piece = &disk.piece[i];
        if (piece->inode != inode)
            continue;
        for (size_t at = 0; at < piece->bytes; at += SECTOR) {
            size_t bytes = piece->bytes - at < SECTOR ? piece->bytes - at : SECTOR;
            if (piece->is_synced || prng_chance(prng, 1, 2))
                assert_int_equal(syscall(SYS_pwrite64, fd, piece->data + at, bytes, piece->offset + (off_t)at), bytes);
        }
    }
    close(fd);
}

static void make_image(const char *image, struct prng *prng)
{
    const char *folder = disk.folder;
    char path[PATH_BYTES * 2];

    disk.folder = NULL;    // this is no disk of theirs
    assert_int_equal(mkdir(image, 0700), 0);
    for (uint32_t i = 0; i < disk.names; i++) {
        const struct name *name = &disk.name[i];
        const char *inside = strstr(name->path, folder) + strlen(folder);
        if (inside[0] == '\0' || (!name->is_synced && prng_chance(prng, 1, 2)))
            continue;
        snprintf(path, sizeof path, "%s%s", image, inside);
        if (name->is_gone)
            unlink(path);
        else if (name->is_folder)
            mkdir(path, 0700);
        else if (strstr(path, "-lock") == NULL)    // LMDB makes that one anew
            write_pieces(path, name->inode, prng);
    }
    snprintf(path, sizeof path, "%s/lineage.mdb-lock", image);
    unlink(path);
    disk.folder = folder;
}

static void power_fails(void)
{
    for (int i = 0; i < IMAGES; i++)
        make_image(power.folder[i], &power.prng);
    power.acknowledged = __atomic_load_n(&power.rig->answers.good, __ATOMIC_RELAXED);
    power.is_made = true;
}

static void forget_disk(void *unused)
{
    char command[200];

    (void)unused;
    for (uint32_t i = 0; i < disk.pieces; i++)
        free(disk.piece[i].data);
    disk.folder = NULL;
    disk.pieces = disk.names = disk.syncs = disk.waits = disk.steps = disk.fail_at = 0;
    for (int i = 0; i < IMAGES; i++) {
        snprintf(command, sizeof command, "rm -rf %s", power.folder[i]);
        if (power.folder[i][0] != '\0' && system(command) != 0)
            print_message("could not remove %s\n", power.folder[i]);
    }
}

// Commit number n puts a key of its own, small or a file; every third replaces one, every fifth deletes one.
static size_t bytes_of(uint32_t n)
{
    return n % 4 == 3 ? STORE_INLINE_BYTES + 500 : 20 + n * 7 % 3000;
}

static struct store_batch *batch_of(const uint8_t *data, uint32_t n)
{
    char key[16];
    snprintf(key, sizeof key, "key%u", n);
    struct store_batch *batch = put(STORE_PUT, key, data + n, bytes_of(n));
    if (n % 3 == 2) {
        struct store_item *item = batch_add(batch, STORE_PUT, STORE_LEAF, "same", 4);
        item->value_bytes = STORE_INLINE_BYTES + n;
        item->value = blob_copy(data, item->value_bytes);
    }
    if (n % 5 == 4) {
        snprintf(key, sizeof key, "key%u", n - 2);
        batch_add(batch, STORE_DELETE, STORE_LEAF, key, strlen(key));
    }
    return batch;
}

static bool is_deleted_by(uint32_t n, uint32_t commits)
{
    return (n + 2) % 5 == 4 && n + 2 < commits;
}

// All of the first `sure` commits are there; what is there of later ones is right.
static void assert_image_holds(const char *folder, enum store_durability durability, const uint8_t *data, uint32_t sure,
                               uint32_t all)
{
    struct rig *rig = calloc(1, sizeof *rig);
    struct upkeep_report report;
    char key[16];

    snprintf(rig->folder, sizeof rig->folder, "%s", folder);
    pthread_mutex_init(&rig->answers.mutex, NULL);
    pthread_cond_init(&rig->answers.changed, NULL);
    rig->sink = (struct io_sink){.post = post, .self = &rig->answers};
    rig->config = (struct store_config){.path = rig->folder, .durability = durability};
    assert_ok(open_store(rig, NULL));
    for (uint32_t n = 0; n < all; n++) {
        struct store_result *result;
        snprintf(key, sizeof key, "key%u", n);
        assert_ok(get(rig, key, &result));
        if (n < sure && !is_deleted_by(n, all))
            assert_int_equal(result->entries, 1);
        if (n < sure && is_deleted_by(n, sure))
            assert_int_equal(result->entries, 0);
        if (result->entries == 1) {
            assert_int_equal(result->entry[0].value->bytes, bytes_of(n));
            assert_memory_equal(result->entry[0].value->data, data + n, bytes_of(n));
        }
        result_free(result);
    }
    assert_ok(commit(rig, put(STORE_PUT, "after", data, BIG_BYTES)));
    assert_holds(rig, "after", data, BIG_BYTES);
    close_store(rig);
    assert_ok(upkeep_check(folder, NULL, &report, NULL));
    assert_int_equal(report.damaged, 0);
    free(rig);
}

// Another boot of the machine: what the store wrote down of this one is changed.
static void boot_again(const char *folder)
{
    char path[160];
    snprintf(path, sizeof path, "%s/unsynced", folder);
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
        assert_int_equal(syscall(SYS_pwrite64, fd, "00000000-another-boot-of-the-machine", 36, 0), 36);
        close(fd);
    }
}

static struct rig *rig_with_power(void **state, enum store_durability durability, uint32_t fail_at, uint64_t seed)
{
    struct rig *rig = rig_make(state);

    forget_disk(NULL);
    case_later(state, forget_disk, rig);
    // The folder itself is there for good; all in it is the store's.
    power = (typeof(power)){.rig = rig, .prng = prng_make(seed)};
    for (int i = 0; i < IMAGES; i++)
        snprintf(power.folder[i], sizeof power.folder[i], "%.60s-power%d", rig->folder, i);
    rig->config.durability = durability;
    disk.folder = rig->folder;
    disk.at_power_failure = power_fails;
    disk.fail_at = fail_at;
    return rig;
}

static uint32_t lose_power(void **state, enum store_durability durability, uint32_t fail_at, uint32_t commits,
                           useconds_t pause_us)
{
    struct rig *rig = rig_with_power(state, durability, fail_at, 1000 + fail_at);
    const uint8_t *data = big_bytes(state, 77);
    uint64_t last_sync_ns = 0;

    assert_ok(open_store(rig, NULL));
    for (uint32_t n = 0; n < commits && !power.is_made; n++) {
        assert_ok(commit(rig, batch_of(data, n)));
        struct store_stats stats = store_stats(&rig->port);
        if (stats.last_sync_ns != last_sync_ns && !power.is_made)
            power.synced_then = n;    // what was answered before this commit was asked for is in that sync
        last_sync_ns = stats.last_sync_ns;
        if (pause_us > 0)
            usleep(pause_us);
    }
    bool is_made = power.is_made;
    close_store(rig);
    disk.folder = NULL;
    return is_made ? power.acknowledged : UINT32_MAX;
}

static void at_disk_nothing_answered_is_lost_when_the_power_fails_at_any_moment(void **state)
{
    const uint8_t *data = big_bytes(state, 77);
    uint32_t moments = 0, most = 0;

    for (uint32_t fail_at = 1; fail_at < 260; fail_at += 9) {
        uint32_t sure = lose_power(state, STORE_DISK, fail_at, 25, 0);
        if (sure == UINT32_MAX)
            break;
        moments++;
        most = sure > most ? sure : most;
        for (int i = 0; i < IMAGES; i++)
            assert_image_holds(power.folder[i], STORE_DISK, data, sure, 25);
    }
    assert_true(moments >= 10 && most >= 10);
}

static void at_os_the_store_is_whole_and_as_it_was_at_its_last_sync(void **state)
{
    const uint8_t *data = big_bytes(state, 77);
    uint32_t sync_kept = 0;

    for (uint32_t fail_at = 150; fail_at <= 900; fail_at += 350) {
        uint32_t answered = lose_power(state, STORE_OS, fail_at, 120, 15000);
        if (answered == UINT32_MAX)
            break;
        sync_kept += power.synced_then;
        print_message("at os: %u answered, the power failed, at least %u of them were synced\n", answered, power.synced_then);
        for (int i = 0; i < IMAGES; i++) {
            boot_again(power.folder[i]);
            assert_image_holds(power.folder[i], STORE_OS, data, power.synced_then, 120);
        }
    }
    assert_true(sync_kept > 0);
}

static void at_memory_a_store_is_refused_when_the_power_has_failed(void **state)
{
    struct fault fault = {0};
    struct store_port port;

    assert_true(lose_power(state, STORE_MEMORY, 150, 100, 0) != UINT32_MAX);
    boot_again(power.folder[0]);
    struct store_config config = {.path = power.folder[0], .durability = STORE_MEMORY};
    assert_error(DJ_E_STORE_CORRUPT, store_open(&config, &power.rig->sink, &port, &fault));
    assert_non_null(strstr(fault.text, "memory"));
    assert_non_null(strstr(fault.text, "djinn store restore"));
}

static uint32_t waits_of(void **state, enum store_durability durability)
{
    struct rig *rig = rig_with_power(state, durability, 0, 1);
    const uint8_t *data = big_bytes(state, 77);

    assert_ok(open_store(rig, NULL));
    uint32_t before = disk.waits;
    for (uint32_t n = 0; n < 20; n++) {
        uint32_t waits = disk.waits;
        assert_ok(commit(rig, batch_of(data, n)));
        if (durability == STORE_DISK)
            assert_true(disk.waits > waits);    // before it was answered
    }
    uint32_t during = disk.waits - before;
    close_store(rig);
    disk.folder = NULL;
    return during;
}

static void only_disk_waits_for_the_disk_before_it_answers(void **state)
{
    assert_true(waits_of(state, STORE_DISK) >= 40);
    assert_int_equal(waits_of(state, STORE_MEMORY), 0);
    assert_true(waits_of(state, STORE_OS) <= 6);    // one sync behind the answers, at most
}

// Kill -9 -------------------------------------------------------------------------------------------------------------

enum { KILLED_COMMITS = 1000 };    // a key each: none is put twice, so what must be there is known at any moment

// The child commits as fast as it can and says each through a pipe only after it was answered; it is killed at a random moment.
static uint32_t kill_at(struct rig *rig, enum store_durability durability, const uint8_t *data, useconds_t after_us)
{
    int ends[2], status;
    uint32_t number, told = 0;

    rig->config.durability = durability;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        if (open_store(rig, NULL) != DJ_OK)
            _exit(1);
        for (number = 0; number < KILLED_COMMITS; number++)
            if (commit(rig, batch_of(data, number)) != DJ_OK || write(ends[1], &number, sizeof number) != sizeof number)
                _exit(1);
        pause();
    }
    close(ends[1]);
    told += read(ends[0], &number, sizeof number) == sizeof number;
    usleep(after_us);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    while (read(ends[0], &number, sizeof number) == sizeof number)
        told++;
    close(ends[0]);
    return told;
}

static void nothing_answered_is_lost_when_the_process_is_killed_at_any_durability(void **state)
{
    const uint8_t *data = big_bytes(state, 78);
    struct prng prng = case_prng(state, 79);
    uint32_t told = 0;

    for (int round = 0; round < 12; round++) {
        struct rig *rig = rig_make(state);
        enum store_durability durability = (enum store_durability)(round % 3);
        uint32_t sure = kill_at(rig, durability, data, (useconds_t)prng_between(&prng, 0, 150000));
        told += sure;
        assert_image_holds(rig->folder, durability, data, sure, sure < KILLED_COMMITS ? sure + 1 : sure);
    }
    assert_true(told > 30);
}

CASES(at_disk_nothing_answered_is_lost_when_the_power_fails_at_any_moment,
      at_os_the_store_is_whole_and_as_it_was_at_its_last_sync, at_memory_a_store_is_refused_when_the_power_has_failed,
      only_disk_waits_for_the_disk_before_it_answers, nothing_answered_is_lost_when_the_process_is_killed_at_any_durability)
