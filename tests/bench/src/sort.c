// The C library's qsort with a comparison through a function pointer.
#include "bench.h"
static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
int main(void) {
    enum { N = 200000 };
    uint32_t *v = bench_memory(sizeof(uint32_t) * 200704);
    uint64_t seed = 11, sum = 0;
    bench_start();
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < N; i++) v[i] = (uint32_t)bench_random(&seed);
        qsort(v, N, sizeof *v, compare);
        for (int i = 0; i < N; i++) sum = sum * 31 + v[i];
    }
    bench_end("sort", "integer", sum);
}
