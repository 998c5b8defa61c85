// Sieve of Eratosthenes over bytes.
#include "bench.h"
enum { N = 1 << 20 };
int main(void) {
    uint8_t *composite = bench_memory(N);
    uint64_t count = 0;
    bench_start();
    for (int round = 0; round < 75; round++) {
        memset(composite, 0, N);
        for (unsigned i = 2; i < N; i++) {
            if (composite[i]) continue;
            count++;
            for (uint64_t j = (uint64_t)i * i; j < N; j += i) composite[j] = 1;
        }
    }
    bench_end("sieve", "integer", count);
}
