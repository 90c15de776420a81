// Schema: see schema.h.

#include "store/schema.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "store/files.h"
#include "store/store.h"

const char *const schema_table_name[STORE_TABLES] = {
    [STORE_META] = "meta",       [STORE_PLAN] = "plan", [STORE_ANNOTATION] = "annotation", [STORE_EXECUTION] = "execution",
    [STORE_SESSION] = "session", [STORE_LEAF] = "leaf", [STORE_WORKER] = "worker",         [STORE_CHECKPOINT] = "checkpoint",
    [STORE_TAG] = "tag",
};
static const char file_table[] = "file";

// The files' rows -----------------------------------------------------------------------------------------------------

static void number_key(uint64_t file, uint8_t key[8])
{
    for (int i = 0; i < 8; i++)
        key[i] = (uint8_t)(file >> (56 - 8 * i));
}

uint64_t schema_file_number(const MDB_val *key)
{
    const uint8_t *at = key->mv_data;
    uint64_t file = 0;

    for (size_t i = 0; i < key->mv_size && i < 8; i++)
        file = file << 8 | at[i];
    return file;
}

int schema_file_put(MDB_txn *txn, const struct tables *tables, const struct value *value, int table, const MDB_val *key)
{
    uint8_t number[8], row[SCHEMA_FILE_ROW + STORE_KEY_MAX];
    MDB_val file = {.mv_size = sizeof number, .mv_data = number},
            data = {.mv_size = SCHEMA_FILE_ROW + key->mv_size, .mv_data = row};

    number_key(value->file, number);
    memcpy(row, &value->stored_bytes, 8);
    row[8] = (uint8_t)table;
    memcpy(row + SCHEMA_FILE_ROW, key->mv_data, key->mv_size);
    return mdb_put(txn, tables->file, &file, &data, MDB_NOOVERWRITE);
}

int schema_file_delete(MDB_txn *txn, const struct tables *tables, uint64_t file)
{
    uint8_t number[8];
    MDB_val key = {.mv_size = sizeof number, .mv_data = number};

    number_key(file, number);
    return mdb_del(txn, tables->file, &key, NULL);
}

bool schema_file_is_there(MDB_txn *txn, const struct tables *tables, uint64_t file)
{
    uint8_t number[8];
    MDB_val key = {.mv_size = sizeof number, .mv_data = number}, value;

    number_key(file, number);
    return mdb_get(txn, tables->file, &key, &value) == 0;
}

int schema_file_sum(MDB_txn *txn, const struct tables *tables, uint64_t *ret_files, uint64_t *ret_bytes)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t files = 0, bytes = 0, one;

    int code = mdb_cursor_open(txn, tables->file, &cursor);
    if (code != 0)
        return code;
    while ((code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (value.mv_size < SCHEMA_FILE_ROW)
            continue;
        memcpy(&one, value.mv_data, 8);
        bytes += one;
        files++;
    }
    mdb_cursor_close(cursor);
    *ret_files = files;
    *ret_bytes = bytes;
    return code == MDB_NOTFOUND ? 0 : code;
}

// From version 1 to 2 -------------------------------------------------------------------------------------------------
// The records of executions, sessions and workers got another layout, which the old ones cannot be given: they are dropped. Blob files,
// which had been named after their keys, get numbers: each keeps its old name until the transaction has committed, after which the sweep
// removes it.

static void old_path(const char *state, const MDB_val *key, char path[FILES_NAME_MAX + 2 * STORE_KEY_MAX])
{
    const uint8_t *at = key->mv_data;
    char hex[2 * STORE_KEY_MAX + 1] = "";

    for (size_t i = 0; i < key->mv_size && i < STORE_KEY_MAX; i++)
        snprintf(hex + 2 * i, 3, "%02x", at[i]);
    snprintf(path, FILES_NAME_MAX + 2 * STORE_KEY_MAX, "%s/blobs/%c%c/%s", state, hex[0], hex[1], hex);
}

static int link_file(const char *state, const MDB_val *key, uint64_t file)
{
    char from[FILES_NAME_MAX + 2 * STORE_KEY_MAX], to[FILES_NAME_MAX], folder[FILES_NAME_MAX];

    old_path(state, key, from);
    files_path(state, file, to);
    snprintf(folder, sizeof folder, "%s", to);
    *strrchr(folder, '/') = '\0';
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return errno;
    unlink(to);    // of a migration that was cut short
    if (link(from, to) == 0)
        return files_sync_folder(folder);
    // One that is gone was damage before; it stays damage, which its reader is told.
    return errno == ENOENT ? 0 : errno;
}

static int number_files(MDB_txn *txn, const struct tables *tables, int table, const char *state, uint64_t *file)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    struct value value;

    int code = mdb_cursor_open(txn, tables->table[table], &cursor);
    if (code != 0)
        return code;
    while ((code = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == 0) {
        uint8_t name[STORE_KEY_MAX], row[VALUE_FILE_BYTES];
        if (!value_parse(data.mv_data, data.mv_size, &value) || value.form != VALUE_FILE_BY_KEY || key.mv_size > sizeof name)
            continue;
        memcpy(name, key.mv_data, key.mv_size);
        key.mv_data = name;
        value.form = VALUE_FILE;
        value.file = (*file)++;
        value_write(&value, row);
        data = (MDB_val){.mv_size = sizeof row, .mv_data = row};
        if ((code = link_file(state, &key, value.file)) != 0 || (code = mdb_cursor_put(cursor, &key, &data, MDB_CURRENT)) != 0 ||
            (code = schema_file_put(txn, tables, &value, table, &key)) != 0)
            break;
    }
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

static int from_1_to_2(MDB_txn *txn, const struct tables *tables, const char *state)
{
    static const enum store_table dropped[] = {STORE_EXECUTION, STORE_SESSION, STORE_WORKER};
    uint64_t file = 1;
    int code = 0;

    for (size_t i = 0; i < sizeof dropped / sizeof dropped[0] && code == 0; i++)
        code = mdb_drop(txn, tables->table[dropped[i]], 0);
    for (int table = 1; table < STORE_TABLES && code == 0; table++)
        code = number_files(txn, tables, table, state, &file);
    return code;
}

// By the version that each starts from; a new version adds a row.
static int (*const migration[STORE_SCHEMA_VERSION])(MDB_txn *txn, const struct tables *tables, const char *state) = {
    [1] = from_1_to_2,
};

// Opening ------------------------------------------------------------------------------------------------------------

static int open_databases(MDB_txn *txn, unsigned flags, struct tables *tables)
{
    int code = mdb_dbi_open(txn, file_table, flags, &tables->file);

    for (int table = 1; table < STORE_TABLES && code == 0; table++)
        code = mdb_dbi_open(txn, schema_table_name[table], flags, &tables->table[table]);
    return code;
}

// 0 when there is none.
static int read_version(MDB_txn *txn, const struct tables *tables, uint32_t *ret)
{
    MDB_val key = {.mv_size = 6, .mv_data = (void *)"schema"}, value;

    int code = mdb_get(txn, tables->table[STORE_META], &key, &value);
    if (code == MDB_NOTFOUND) {
        *ret = 0;
        return 0;
    }
    if (code == 0 && value.mv_size != sizeof *ret)
        return MDB_CORRUPTED;
    if (code == 0)
        memcpy(ret, value.mv_data, sizeof *ret);
    return code;
}

static int write_version(MDB_txn *txn, const struct tables *tables)
{
    uint32_t version = STORE_SCHEMA_VERSION;
    MDB_val key = {.mv_size = 6, .mv_data = (void *)"schema"}, value = {.mv_size = sizeof version, .mv_data = &version};

    return mdb_put(txn, tables->table[STORE_META], &key, &value, 0);
}

static enum dj_error refuse(const char *state, uint32_t found, struct fault *fault)
{
    const char *cure = found > STORE_SCHEMA_VERSION ? "use the djinn that wrote it, or name another folder with --state"
                                                    : "start a head on it once, which migrates it";
    return fault_set(fault, DJ_E_STORE_VERSION, "the store in %s was written with schema version %u, this program uses %d; %s",
                     state, found, STORE_SCHEMA_VERSION, cure);
}

static int migrate(MDB_txn *txn, const struct tables *tables, const char *state, uint32_t found)
{
    int code = 0;

    if (found == STORE_SCHEMA_VERSION)
        return 0;
    for (uint32_t version = found; version != 0 && version < STORE_SCHEMA_VERSION && code == 0; version++) {
        log_write(LOG_INFO, "store", "migrates the store from schema version %u to %u path=%s", version, version + 1, state);
        code = migration[version](txn, tables, state);
    }
    return code == 0 ? write_version(txn, tables) : code;
}

static int open_once(MDB_env *env, const char *state, struct tables *tables, uint32_t *ret_found)
{
    MDB_txn *txn;

    int code = mdb_txn_begin(env, NULL, 0, &txn);
    if (code != 0)
        return code;
    code = open_databases(txn, MDB_CREATE, tables);
    if (code == 0)
        code = read_version(txn, tables, ret_found);
    if (code == 0 && *ret_found <= STORE_SCHEMA_VERSION)
        code = migrate(txn, tables, state, *ret_found);
    if (code != 0 || *ret_found > STORE_SCHEMA_VERSION) {
        mdb_txn_abort(txn);
        return code;
    }
    return mdb_txn_commit(txn);
}

enum dj_error schema_open(MDB_env *env, const char *state, size_t *map_bytes, struct tables *ret, struct fault *fault)
{
    struct tables tables = {0};
    uint32_t found = 0;
    int code;

    while ((code = open_once(env, state, &tables, &found)) == MDB_MAP_FULL) {
        *map_bytes *= 2;
        if (mdb_env_set_mapsize(env, *map_bytes) != 0)
            break;
    }
    if (code != 0)
        return fault_set(fault, code == ENOSPC || code == EDQUOT || code == EFBIG ? DJ_E_STORE_FULL : DJ_E_STORE,
                         "cannot write to the store in %s: %s; make room there, or name another folder with --state", state,
                         mdb_strerror(code));
    if (found > STORE_SCHEMA_VERSION)
        return refuse(state, found, fault);
    *ret = tables;
    return DJ_OK;
}

enum dj_error schema_view(MDB_txn *txn, const char *state, struct tables *ret, struct fault *fault)
{
    struct tables tables = {0};
    uint32_t found = 0;

    // A store of an older schema may lack tables: its version is read first.
    int code = mdb_dbi_open(txn, schema_table_name[STORE_META], 0, &tables.table[STORE_META]);
    if (code == 0)
        code = read_version(txn, &tables, &found);
    if (code == 0 && found != STORE_SCHEMA_VERSION)
        return refuse(state, found, fault);
    if (code == 0)
        code = open_databases(txn, 0, &tables);
    if (code != 0)
        return fault_set(fault, code == MDB_NOTFOUND ? DJ_E_NOT_FOUND : DJ_E_STORE_CORRUPT,
                         "%s/lineage.mdb is no store of Djinn: %s", state, mdb_strerror(code));
    *ret = tables;
    return DJ_OK;
}
