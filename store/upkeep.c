// Upkeep: see upkeep.h. Checking is here, copying is in upkeep_copy.c.

#include "store/upkeep.h"

#include <stdio.h>
#include <string.h>

#include "core/io/blob.h"
#include "store/view.h"

struct check {
    struct view *view;
    const struct upkeep_watch *watch;
    struct upkeep_report report;
    uint64_t done_bytes, all_bytes;
};

static void hex_of(const MDB_val *key, char hex[2 * STORE_KEY_MAX + 1])
{
    const uint8_t *at = key->mv_data;

    hex[0] = '\0';
    for (size_t i = 0; i < key->mv_size && i < STORE_KEY_MAX; i++)
        snprintf(hex + 2 * i, 3, "%02x", at[i]);
}

static void damaged(struct check *check, const char *table, const MDB_val *key, const char *why)
{
    char hex[2 * STORE_KEY_MAX + 1];

    check->report.damaged++;
    hex_of(key, hex);
    if (check->watch != NULL && check->watch->damaged != NULL)
        check->watch->damaged(check->watch->context, table, hex, why);
}

static enum dj_error check_value(struct check *check, int table, const MDB_val *key, const MDB_val *data)
{
    struct value value;
    struct blob *blob = NULL;

    if (table == STORE_META && data->mv_size < VALUE_HEADER)
        return DJ_OK;
    if (!value_parse(data->mv_data, data->mv_size, &value)) {
        damaged(check, schema_table_name[table], key, "its form is unknown");
        return DJ_OK;
    }
    bool is_file = value_is_file(&value);
    enum dj_error error = is_file ? files_read(check->view->state, &value, &blob) : value_unpack(&value, &blob);
    if (error == DJ_OK && is_file && !schema_file_is_there(check->view->txn, &check->view->tables, value.file)) {
        damaged(check, schema_table_name[table], key, "its file is not in the table of files");
    } else if (error == DJ_OK) {
        check->report.values++;
        check->report.plain_bytes += value.plain_bytes;
        check->report.files += is_file;
        check->report.file_bytes += is_file ? value.stored_bytes : 0;
    } else if (error == DJ_E_STORE_CORRUPT) {
        damaged(check, schema_table_name[table], key,
                is_file ? "its file is absent, or not what was written" : "it is not what was written");
    }
    blob_drop(blob);
    check->done_bytes += data->mv_size + (is_file ? value.stored_bytes : 0);
    if (check->watch != NULL && check->watch->progress != NULL)
        check->watch->progress(check->watch->context, "checked", check->done_bytes, check->all_bytes);
    return error == DJ_E_STORE_CORRUPT ? DJ_OK : error;
}

static enum dj_error check_table(struct check *check, int table, struct fault *fault)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    MDB_stat stat;
    enum dj_error error = DJ_OK;

    int code = mdb_cursor_open(check->view->txn, check->view->tables.table[table], &cursor);
    if (code != 0)
        return fault_set(fault, DJ_E_STORE, "cannot read the table \"%s\": %s", schema_table_name[table], mdb_strerror(code));
    while (error == DJ_OK && (code = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == 0)
        error = check_value(check, table, &key, &data);
    mdb_cursor_close(cursor);
    if (mdb_stat(check->view->txn, check->view->tables.table[table], &stat) == 0)
        check->report.entries[table] = stat.ms_entries;
    if (error != DJ_OK)
        return fault_set(fault, error, "cannot read all of the table \"%s\": %s", schema_table_name[table], dj_error_text(error));
    if (code != MDB_NOTFOUND)
        return fault_set(fault, DJ_E_STORE_CORRUPT,
                         "the table \"%s\" cannot be gone through: %s; restore a backup (djinn store restore)",
                         schema_table_name[table], mdb_strerror(code));
    return DJ_OK;
}

static bool is_wanted(void *context, uint64_t file)
{
    const struct check *check = context;
    return schema_file_is_there(check->view->txn, &check->view->tables, file);
}

enum dj_error upkeep_check(const char *state, const struct upkeep_watch *watch, struct upkeep_report *ret, struct fault *fault)
{
    struct view view;
    struct files files = {0};
    MDB_envinfo info;
    MDB_stat stat;
    uint64_t file_count, file_bytes = 0;

    enum dj_error error = view_open(state, &view, fault);
    if (error != DJ_OK)
        return error;
    struct check check = {.view = &view, .watch = watch};
    if (mdb_env_info(view.env, &info) == 0 && mdb_env_stat(view.env, &stat) == 0)
        check.report.tree_bytes = (info.me_last_pgno + 1) * stat.ms_psize;
    (void)schema_file_sum(view.txn, &view.tables, &file_count, &file_bytes);
    check.all_bytes = check.report.tree_bytes + file_bytes;
    for (int table = 1; table < STORE_TABLES && error == DJ_OK; table++)
        error = check_table(&check, table, fault);
    snprintf(files.state, sizeof files.state, "%s", view.state);
    check.report.orphans = files_sweep(&files, is_wanted, &check, false);
    view_close(&view);
    if (error == DJ_OK)
        *ret = check.report;
    return error;
}
