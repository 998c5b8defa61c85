// Single-precision FIR filter and saxpy with NEON intrinsics.
#include "../bench.h"
#include <arm_neon.h>
enum { N = 8192, TAPS = 32 };
static float x[N + TAPS], y[N], h[TAPS];
int main(void) {
    for (int i = 0; i < N + TAPS; i++) x[i] = (float)((i * 37) % 101) * 0.01f;
    for (int i = 0; i < TAPS; i++) h[i] = 1.0f / (float)(i + 2);
    bench_start();
    for (int round = 0; round < 360; round++) {
        for (int i = 0; i < N; i += 4) {
            float32x4_t sum = vdupq_n_f32(0);
            for (int k = 0; k < TAPS; k++) sum = vfmaq_n_f32(sum, vld1q_f32(&x[i + k]), h[k]);
            vst1q_f32(&y[i], sum);
        }
        float32x4_t scale = vdupq_n_f32(0.125f);
        for (int i = 0; i < N; i += 4)
            vst1q_f32(&x[i], vmlaq_f32(vmulq_n_f32(vld1q_f32(&x[i]), 0.5f), vld1q_f32(&y[i]), scale));
    }
    uint64_t check = 0;
    for (int i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], 4);
        check = check * 31 + bits;
    }
    bench_end("neon_fir", "fp", check);
}
