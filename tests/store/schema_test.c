// An older store becomes a present one in one step, or stays what it was; a newer one is refused with both versions and the cure.
// The version 1 store is written here with LMDB itself, as version 1 wrote it: form 0 or 1, XXH3, bytes or length; files named by key.

#include <lmdb.h>

#include "core/base/hash.h"
#include "tests/store/rig.h"

static const char *const old_table[] = {"meta", "plan", "annotation", "execution", "session", "leaf", "worker"};

static void old_put(MDB_txn *txn, const char *table, const char *name, const void *data, size_t bytes, bool is_file)
{
    uint8_t row[256];
    uint64_t check = hash64(data, bytes), length = bytes;
    MDB_dbi dbi;
    MDB_val key = {.mv_size = strlen(name), .mv_data = (void *)name}, value = {.mv_data = row};

    row[0] = is_file;
    memcpy(row + 1, &check, 8);
    memcpy(row + 9, is_file ? (const void *)&length : data, is_file ? 8 : bytes);
    value.mv_size = 9 + (is_file ? 8 : bytes);
    assert_int_equal(mdb_dbi_open(txn, table, MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &key, &value, 0), 0);
}

static void write_version(MDB_txn *txn, uint32_t version)
{
    MDB_dbi dbi;
    MDB_val key = {.mv_size = 6, .mv_data = (void *)"schema"}, value = {.mv_size = sizeof version, .mv_data = &version};

    assert_int_equal(mdb_dbi_open(txn, "meta", MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &key, &value, 0), 0);
}

static MDB_env *open_tree(const struct rig *rig, MDB_txn **txn)
{
    MDB_env *env;
    char path[160];

    snprintf(path, sizeof path, "%s/lineage.mdb", rig->folder);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 20), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, txn), 0);
    return env;
}

static void make_old_store(struct rig *rig, const uint8_t *big)
{
    MDB_txn *txn;
    char path[160];

    MDB_env *env = open_tree(rig, &txn);
    for (size_t i = 0; i < sizeof old_table / sizeof old_table[0]; i++)
        old_put(txn, old_table[i], "key", old_table[i], strlen(old_table[i]), false);
    old_put(txn, "leaf", "big", big, BIG_BYTES, true);
    old_put(txn, "leaf", "lost", big, BIG_BYTES, true);    // its file is gone
    write_version(txn, 1);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    snprintf(path, sizeof path, "%s/blobs", rig->folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/blobs/62", rig->folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/blobs/62/626967", rig->folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, big, BIG_BYTES), BIG_BYTES);
    close(fd);
}

static uint32_t holds(struct rig *rig, enum store_table table, const char *expected)
{
    struct store_batch *batch = batch_make();
    uint64_t ticket = ++rig->ticket;

    batch_add(batch, STORE_GET, table, "key", 3);
    rig->port.read(rig->port.self, ticket, batch);
    struct store_result *result = wait_answer(rig, ticket).store_done.result;
    uint32_t entries = result->entries;
    if (entries == 1)
        assert_memory_equal(result->entry[0].value->data, expected, strlen(expected));
    result_free(result);
    return entries;
}

static void a_store_of_version_1_is_migrated_and_keeps_what_can_still_be_read(void **state)
{
    struct rig *rig = rig_make(state);
    uint8_t *big = big_bytes(state, 1);
    struct store_result *result;
    char path[160];

    make_old_store(rig, big);
    for (int opened = 0; opened < 2; opened++) {
        assert_ok(open_store(rig, NULL));
        assert_int_equal(holds(rig, STORE_META, "meta"), 1);    // the generation is there
        assert_int_equal(holds(rig, STORE_PLAN, "plan"), 1);
        assert_int_equal(holds(rig, STORE_ANNOTATION, "annotation"), 1);
        assert_int_equal(holds(rig, STORE_LEAF, "leaf"), 1);
        assert_int_equal(holds(rig, STORE_EXECUTION, ""), 0);
        assert_int_equal(holds(rig, STORE_SESSION, ""), 0);
        assert_int_equal(holds(rig, STORE_WORKER, ""), 0);
        assert_holds(rig, "big", big, BIG_BYTES);
        assert_error(DJ_E_STORE_CORRUPT, get(rig, "lost", &result));
        result_free(result);
        assert_int_equal(blob_files(rig->folder), 1);
        close_store(rig);
    }
    snprintf(path, sizeof path, "%s/blobs/62/626967", rig->folder);
    assert_int_equal(access(path, F_OK), -1);
}

// What a crash in the middle leaves: links, and a tree that is still of version 1.
static void a_migration_that_was_cut_short_is_done_again(void **state)
{
    struct rig *rig = rig_make(state);
    uint8_t *big = big_bytes(state, 2);
    char from[160], to[160];

    make_old_store(rig, big);
    snprintf(to, sizeof to, "%s/blobs/01", rig->folder);
    assert_int_equal(mkdir(to, 0700), 0);
    snprintf(from, sizeof from, "%s/blobs/62/626967", rig->folder);
    snprintf(to, sizeof to, "%s/blobs/01/0000000000000001", rig->folder);
    assert_int_equal(link(from, to), 0);
    assert_ok(open_store(rig, NULL));
    assert_holds(rig, "big", big, BIG_BYTES);
    assert_int_equal(blob_files(rig->folder), 1);
}

static void a_newer_store_is_refused_with_both_versions_and_the_cure_and_stays_as_it_was(void **state)
{
    struct rig *rig = rig_make(state);
    struct fault fault = {0};
    MDB_txn *txn;

    MDB_env *env = open_tree(rig, &txn);
    write_version(txn, 7);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    assert_error(DJ_E_STORE_VERSION, open_store(rig, &fault));
    assert_non_null(strstr(fault.text, "version 7"));
    assert_non_null(strstr(fault.text, "uses 2"));
    assert_non_null(strstr(fault.text, "use the djinn that wrote it"));
    env = open_tree(rig, &txn);
    MDB_dbi dbi;
    assert_int_equal(mdb_dbi_open(txn, "plan", 0, &dbi), MDB_NOTFOUND);
    mdb_txn_abort(txn);
    mdb_env_close(env);
}

CASES(a_store_of_version_1_is_migrated_and_keeps_what_can_still_be_read, a_migration_that_was_cut_short_is_done_again,
      a_newer_store_is_refused_with_both_versions_and_the_cure_and_stays_as_it_was)
