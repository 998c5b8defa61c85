// LZ77-style compression with a hash of three bytes, and decompression.
#include "bench.h"
enum { N = 1 << 18 };
static uint8_t in[N], packed[2 * N], out[N];
static uint32_t head[1 << 14];
static size_t compress(void) {
    size_t o = 0, i = 0;
    memset(head, 0xff, sizeof head);
    while (i + 4 < N) {
        uint32_t key = in[i] | in[i + 1] << 8 | (uint32_t)in[i + 2] << 16;
        uint32_t *slot = &head[key * 2654435761u >> 18];
        uint32_t at = *slot, n = 0;
        *slot = (uint32_t)i;
        if (at != ~0u && i - at < 65535)
            while (n < 255 && i + n < N && in[at + n] == in[i + n]) n++;
        if (n >= 4) {
            packed[o++] = 1;
            packed[o++] = (uint8_t)n;
            packed[o++] = (uint8_t)(i - at);
            packed[o++] = (uint8_t)((i - at) >> 8);
            i += n;
        } else {
            packed[o++] = 0;
            packed[o++] = in[i++];
        }
    }
    while (i < N) {
        packed[o++] = 0;
        packed[o++] = in[i++];
    }
    return o;
}
static void expand(size_t n) {
    size_t o = 0;
    for (size_t i = 0; i < n;) {
        if (packed[i]) {
            size_t len = packed[i + 1], back = packed[i + 2] | packed[i + 3] << 8;
            for (size_t k = 0; k < len; k++, o++) out[o] = out[o - back];
            i += 4;
        } else {
            out[o++] = packed[i + 1];
            i += 2;
        }
    }
}
int main(void) {
    static const char *const words[] = {"the ", "guest ", "machine ", "reads ", "memory ", "and ",
                                        "writes ", "pages ", "of ", "a ", "table ", "again. "};
    uint64_t seed = 5, sum = 0;
    for (size_t i = 0; i < N;) {
        const char *w = words[bench_random(&seed) % 12];
        while (*w && i < N) in[i++] = (uint8_t)*w++;
        if (i < N && bench_random(&seed) % 4 == 0) in[i++] = (uint8_t)bench_random(&seed);
    }
    bench_start();
    for (int round = 0; round < 150; round++) {
        size_t n = compress();
        expand(n);
        sum = sum * 31 + n + (memcmp(in, out, N) == 0);
        in[(size_t)round * 997 % N] ^= 1;
    }
    bench_end("lz", "integer", sum);
}
