// Integer SSE2: blending pixels with widening multiplies, saturation, shuffles.
#include "../bench.h"
#include <emmintrin.h>
enum { N = 1 << 16 };
static uint8_t a[N], b[N], c[N];
int main(void) {
    uint64_t seed = 17, check = 0;
    for (int i = 0; i < N; i++) a[i] = (uint8_t)bench_random(&seed), b[i] = (uint8_t)bench_random(&seed);
    const __m128i zero = _mm_setzero_si128(), half = _mm_set1_epi16(128), nibble = _mm_set1_epi8(15);
    bench_start();
    for (int round = 0; round < 2200; round++) {
        __m128i alpha = _mm_set1_epi16((uint8_t)round), rest = _mm_set1_epi16((uint8_t)(255 - round));
        for (int i = 0; i < N; i += 16) {
            __m128i p = _mm_loadu_si128((const __m128i *)&a[i]), q = _mm_loadu_si128((const __m128i *)&b[i]);
            q = _mm_shufflehi_epi16(_mm_shufflelo_epi16(q, _MM_SHUFFLE(2, 3, 0, 1)), _MM_SHUFFLE(2, 3, 0, 1));
            __m128i low = _mm_add_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(p, zero), alpha),
                                        _mm_mullo_epi16(_mm_unpacklo_epi8(q, zero), rest));
            __m128i high = _mm_add_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(p, zero), alpha),
                                         _mm_mullo_epi16(_mm_unpackhi_epi8(q, zero), rest));
            low = _mm_srli_epi16(_mm_adds_epu16(low, half), 8);
            high = _mm_srli_epi16(_mm_adds_epu16(high, half), 8);
            __m128i mixed = _mm_packus_epi16(low, high);
            __m128i sum = _mm_adds_epu8(mixed, _mm_and_si128(_mm_srli_epi16(p, 4), nibble));
            _mm_storeu_si128((__m128i *)&c[i], sum);
        }
        check = check * 31 + c[(unsigned)round * 251 % N];
    }
    bench_end("sse_pixels", "integer", check);
}
