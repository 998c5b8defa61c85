// Pointer chase through 64 MiB in random order.
#include "bench.h"
int main(void) {
    enum { N = (64 << 20) / 64 };
    struct line { struct line *next; uint64_t pad[7]; } *lines = bench_memory((size_t)N * 64);
    uint32_t *order = bench_memory(N * sizeof *order);
    uint64_t seed = 19;
    for (uint32_t i = 0; i < N; i++) order[i] = i;
    for (uint32_t i = N - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(bench_random(&seed) % (i + 1)), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < N; i++) lines[order[i]].next = &lines[order[(i + 1) % N]];
    struct line *p = lines;
    bench_start();
    for (int i = 0; i < 4000000; i++) p = p->next;
    bench_end("chase", "memory", (uint64_t)(p - lines));
}
