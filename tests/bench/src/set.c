// memset of 16 MiB blocks with zero and another value.
#include "bench.h"
int main(void) {
    enum { N = 16 << 20 };
    uint8_t *a = bench_memory(N);
    uint64_t sum = 0;
    memset(a, 1, N);
    bench_start();
    for (int round = 0; round < 180; round++) {
        bench_hide(a);
        memset(a, round & 1 ? round : 0, N);
        sum += a[round * 4099];
    }
    bench_end("set", "memory", sum);
}
