// mmap, a touch, mprotect and munmap of small areas.
#include "bench.h"
#include <sys/mman.h>
int main(void) {
    uint64_t sum = 0;
    bench_start();
    for (int i = 0; i < 7000; i++) {
        uint8_t *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return 1;
        p[i & 16383] = 1;
        if (mprotect(p, 4096, PROT_READ)) return 1;
        sum += p[i & 16383];
        munmap(p, 16384);
    }
    bench_end("maps", "system", sum);
}
