// Read-modify-write with a stride of a page and a cache line: exercises the TLB.
#include "bench.h"
int main(void) {
    enum { PAGES = 4096, SIZE = PAGES * 4096 };
    uint8_t *a = bench_memory(SIZE);
    uint64_t sum = 0;
    memset(a, 1, SIZE);
    bench_start();
    for (int round = 0; round < 1500; round++) {
        uint8_t *p = a + (round % 64) * 64;
        for (int i = 0; i < PAGES; i++, p += 4096) sum += (*p += 3);
    }
    bench_end("stride", "memory", sum);
}
