// Linked list: build, reverse, merge sort, sum; the nodes fit the second-level cache.
#include "bench.h"
struct node {
    struct node *next;
    uint64_t key;
};
enum { N = 1 << 14 };
static struct node nodes[N];
static struct node *merge(struct node *a, struct node *b) {
    struct node head, *tail = &head;
    while (a && b) {
        struct node **least = a->key <= b->key ? &a : &b;
        tail->next = *least;
        tail = *least;
        *least = (*least)->next;
    }
    tail->next = a ? a : b;
    return head.next;
}
static struct node *sort(struct node *list) {
    if (!list || !list->next) return list;
    struct node *slow = list, *fast = list->next;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    struct node *second = slow->next;
    slow->next = NULL;
    return merge(sort(list), sort(second));
}
int main(void) {
    uint64_t seed = 7, sum = 0;
    bench_start();
    for (int round = 0; round < 180; round++) {
        struct node *list = NULL;
        for (int i = 0; i < N; i++) {
            nodes[i] = (struct node){list, bench_random(&seed) >> 20};
            list = &nodes[i];
        }
        struct node *reversed = NULL;
        while (list) {
            struct node *next = list->next;
            list->next = reversed;
            reversed = list;
            list = next;
        }
        list = sort(reversed);
        for (uint64_t i = 1; list; list = list->next) sum += list->key * i++;
    }
    bench_end("list", "integer", sum);
}
