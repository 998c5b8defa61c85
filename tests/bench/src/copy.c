// memcpy of 16 MiB blocks and of small ones.
#include "bench.h"
int main(void) {
    enum { N = 16 << 20 };
    uint8_t *a = bench_memory(N), *b = bench_memory(N);
    uint64_t sum = 0;
    for (int i = 0; i < N; i++) a[i] = (uint8_t)(i * 7), b[i] = 0;
    bench_start();
    for (int round = 0; round < 150; round++) {
        bench_hide(a);
        memcpy(b, a, N);
        sum += b[round * 4099];
    }
    for (int i = 0; i < 4000000; i++) {
        size_t n = 1 + (unsigned)i % 200;
        bench_hide(n);
        memcpy(b + i % 4096, a + i % 5000, n);
        sum += b[i % 4096];
    }
    bench_end("copy", "memory", sum);
}
