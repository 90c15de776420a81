// Request: one line of JSON: an object of at most REQUEST_FIELDS_MAX fields whose values are strings or numbers. Nothing else of JSON is taken.

#ifndef CHAOS_LIVE_REQUEST_H
#define CHAOS_LIVE_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

enum { REQUEST_FIELDS_MAX = 8, REQUEST_TEXT_MAX = 128 };

struct request_field { char name[REQUEST_TEXT_MAX], text[REQUEST_TEXT_MAX]; bool is_text; double number; };
struct request { struct request_field field[REQUEST_FIELDS_MAX]; uint32_t fields; };

bool request_parse(const char *line, struct request *ret);
const char *request_text(const struct request *request, const char *name);                     // NULL when there is none
// The number of that name, or `otherwise` when there is none. False when it is not a whole number from least to most.
bool request_number(const struct request *request, const char *name, uint64_t least, uint64_t most, uint64_t otherwise, uint64_t *ret);

#endif
