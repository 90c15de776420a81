// Fuzzer: the input's first half says which reads to make on its second half. Nothing may be read outside it, whatever both say.

#include "core/base/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_one(struct reader *reader, uint8_t what)
{
    char text[32];
    size_t bytes = 0;
    const uint8_t *at = NULL;
    switch (what % 9) {
    case 0: (void)read_u8(reader); break;
    case 1: (void)read_u32(reader); break;
    case 2: (void)read_u64(reader); break;
    case 3: (void)read_var(reader); break;
    case 4: (void)read_zig(reader); break;
    case 5: (void)read_hash(reader); break;
    case 6: at = read_bytes(reader, what, &bytes); break;
    case 7: at = read_raw(reader, bytes = what / 8); break;
    default: read_text(reader, text, sizeof text); break;
    }
    if (at != NULL && bytes != 0 && memchr(at, 0xA5, bytes) == at + bytes)    // touches every byte
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t half = size / 2;
    struct reader reader = reader_make(data + half, size - half);
    for (size_t i = 0; i < half; i++) {
        read_one(&reader, data[i]);
        if (reader_left(&reader) > size - half)
            abort();
    }
    return 0;
}
