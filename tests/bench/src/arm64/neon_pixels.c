// Integer NEON: blending pixels with widening multiplies, saturation, table look-ups.
#include "../bench.h"
#include <arm_neon.h>
enum { N = 1 << 16 };
static uint8_t a[N], b[N], c[N];
int main(void) {
    uint64_t seed = 17, check = 0;
    for (int i = 0; i < N; i++) a[i] = (uint8_t)bench_random(&seed), b[i] = (uint8_t)bench_random(&seed);
    static const uint8_t order[16] = {2, 1, 0, 3, 6, 5, 4, 7, 10, 9, 8, 11, 14, 13, 12, 15};
    uint8x16_t swap = vld1q_u8(order);
    bench_start();
    for (int round = 0; round < 2200; round++) {
        uint8x8_t alpha = vdup_n_u8((uint8_t)round), rest = vdup_n_u8((uint8_t)(255 - round));
        for (int i = 0; i < N; i += 16) {
            uint8x16_t p = vld1q_u8(&a[i]), q = vqtbl1q_u8(vld1q_u8(&b[i]), swap);
            uint16x8_t low = vmlal_u8(vmull_u8(vget_low_u8(p), alpha), vget_low_u8(q), rest);
            uint16x8_t high = vmlal_u8(vmull_u8(vget_high_u8(p), alpha), vget_high_u8(q), rest);
            uint8x16_t mixed = vcombine_u8(vqrshrn_n_u16(low, 8), vqrshrn_n_u16(high, 8));
            vst1q_u8(&c[i], vqaddq_u8(mixed, vshrq_n_u8(p, 4)));
        }
        check = check * 31 + c[(unsigned)round * 251 % N];
    }
    bench_end("neon_pixels", "integer", check);
}
