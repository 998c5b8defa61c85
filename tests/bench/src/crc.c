// CRC-32 by table, a byte at a time.
#include "bench.h"
static uint32_t table[256];
int main(void) {
    enum { N = 1 << 18 };
    uint8_t *data = bench_memory(N);
    uint64_t seed = 3;
    for (unsigned i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (int i = 0; i < N; i++) data[i] = (uint8_t)bench_random(&seed);
    uint32_t crc = ~0u;
    bench_start();
    for (int round = 0; round < 600; round++)
        for (int i = 0; i < N; i++) crc = table[(crc ^ data[i]) & 0xff] ^ (crc >> 8);
    bench_end("crc", "integer", ~crc);
}
