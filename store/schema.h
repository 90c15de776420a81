// Schema: the tables of lineage.mdb, their version, and how an older version becomes the present one.
//
// One LMDB database a table of core/io/store.h, and one of our own, "file": the number of a blob file -> 8 bytes of its length on disk, 1
// byte of table, the key that names it. META holds "schema" (4 bytes, no value of ours).

#ifndef STORE_SCHEMA_H
#define STORE_SCHEMA_H

#include <lmdb.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/io/store.h"
#include "store/value.h"

struct tables {
    MDB_dbi table[STORE_TABLES], file;
};

enum { SCHEMA_FILE_ROW = 9, SCHEMA_DATABASES = STORE_TABLES + 1 };

extern const char *const schema_table_name[STORE_TABLES];

// Opens the tables, makes them in a new store, migrates an older one; all in one transaction. *map_bytes is raised when the map has to grow
// for that. DJ_E_STORE_VERSION for a newer schema; the fault names both and the cure.
DJ_MUST_USE enum dj_error schema_open(MDB_env *env, const char *state, size_t *map_bytes, struct tables *ret, struct fault *fault);
// The same for a reader, which changes nothing: an older schema is refused as well.
DJ_MUST_USE enum dj_error schema_view(MDB_txn *txn, const char *state, struct tables *ret, struct fault *fault);

// The row of a blob file. LMDB's codes.
int schema_file_put(MDB_txn *txn, const struct tables *tables, const struct value *value, int table, const MDB_val *key);
int schema_file_delete(MDB_txn *txn, const struct tables *tables, uint64_t file);
bool schema_file_is_there(MDB_txn *txn, const struct tables *tables, uint64_t file);
// Adds up the rows: how many files, and their bytes.
int schema_file_sum(MDB_txn *txn, const struct tables *tables, uint64_t *ret_files, uint64_t *ret_bytes);
uint64_t schema_file_number(const MDB_val *key);

#endif
