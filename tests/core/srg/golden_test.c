// Plans written by earlier versions are read as what they were: the fingerprint computed today is the one computed then.

#include "core/srg/export.h"
#include "tests/lib/case.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_LEAST = 5 };

static const char FOLDER[] = "tests/core/srg/golden";    // tests run in the root

static struct writer slurp(const char *name, const char *ending)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s.%s", FOLDER, name, ending);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s is missing", path);
    struct writer bytes = writer_make(PLAN_BYTES_MAX);
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        write_raw(&bytes, block, n);
    fclose(file);
    return bytes;
}

static void check(const char *name)
{
    struct writer text = slurp(name, "fingerprint"), proto = slurp(name, "bin"), json = slurp(name, "json");
    write_u8(&text, 0);
    struct hash128 then;
    assert_true(hash128_parse((const char *)text.data, &then));
    struct srg_plan *from_proto = NULL, *from_json = NULL;
    struct fault fault = {0};
    if (plan_decode(proto.data, proto.length, &from_proto, &fault) != DJ_OK)
        fail_msg("%s.bin: %s", name, fault.text);
    if (plan_from_json((const char *)json.data, json.length, &from_json, &fault) != DJ_OK)
        fail_msg("%s.json: %s", name, fault.text);
    assert_true(hash128_equal(from_proto->fingerprint, then));
    assert_true(hash128_equal(from_json->fingerprint, then));
    assert_true(from_proto->nodes > 0 && from_proto->nodes == from_json->nodes);

    // Written again today, it is byte for byte what it was (without the annotations, which may improve).
    struct writer again = writer_make(PLAN_BYTES_MAX);
    assert_ok(plan_encode(from_proto, &again));
    assert_true(again.length <= proto.length);
    assert_memory_equal(again.data, proto.data, again.length);
    writer_free(&again);
    plan_drop(from_proto);
    plan_drop(from_json);
    writer_free(&text);
    writer_free(&proto);
    writer_free(&json);
}

static void every_golden_plan_is_still_read(void **state)
{
    (void)state;
    ops_init();
    DIR *folder = opendir(FOLDER);
    assert_non_null(folder);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char *dot = strrchr(entry->d_name, '.');
        if (dot == NULL || strcmp(dot, ".fingerprint") != 0)
            continue;
        *dot = '\0';
        check(entry->d_name);
        files++;
    }
    closedir(folder);
    assert_true(files >= FILES_LEAST);
}

CASES(every_golden_plan_is_still_read)
