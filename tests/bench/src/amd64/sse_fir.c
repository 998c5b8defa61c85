// Single-precision FIR filter and saxpy with SSE intrinsics.
#include "../bench.h"
#include <emmintrin.h>
enum { N = 8192, TAPS = 32 };
static float x[N + TAPS], y[N], h[TAPS];
int main(void) {
    for (int i = 0; i < N + TAPS; i++) x[i] = (float)((i * 37) % 101) * 0.01f;
    for (int i = 0; i < TAPS; i++) h[i] = 1.0f / (float)(i + 2);
    bench_start();
    for (int round = 0; round < 360; round++) {
        for (int i = 0; i < N; i += 4) {
            __m128 sum = _mm_setzero_ps();
            for (int k = 0; k < TAPS; k++) sum = _mm_add_ps(sum, _mm_mul_ps(_mm_loadu_ps(&x[i + k]), _mm_set1_ps(h[k])));
            _mm_storeu_ps(&y[i], sum);
        }
        for (int i = 0; i < N; i += 4)
            _mm_storeu_ps(&x[i], _mm_add_ps(_mm_mul_ps(_mm_loadu_ps(&x[i]), _mm_set1_ps(0.5f)),
                                            _mm_mul_ps(_mm_loadu_ps(&y[i]), _mm_set1_ps(0.125f))));
    }
    uint64_t check = 0;
    for (int i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], 4);
        check = check * 31 + bits;
    }
    bench_end("sse_fir", "fp", check);
}
