// List: intrusive, doubly linked, circular around a head. An unlinked node points to itself.

#ifndef CORE_BASE_LIST_H
#define CORE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list { struct list *next, *prev; };

static inline void list_init(struct list *list) { list->next = list->prev = list; }
static inline bool list_is_empty(const struct list *list) { return list->next == list; }

static inline void list_push(struct list *head, struct list *node)           // at the tail
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;    // NOLINT(clang-analyzer-unix.Malloc): what is freed was taken out of its list
    node->next->prev = node->prev;
    list_init(node);
}

#define list_entry(node, type, member) ((type *)(void *)((char *)(node) - offsetof(type, member)))
#define list_each(node, head) for (struct list *node = (head)->next, *node##_next = node->next; node != (head); \
                                   node = node##_next, node##_next = node->next)

#endif
