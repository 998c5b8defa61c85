// Mandelbrot set, single precision, scalar.
#include "bench.h"
int main(void) {
    enum { W = 280, H = 200, LIMIT = 2200 };
    uint64_t sum = 0;
    bench_start();
    for (int py = 0; py < H; py++)
        for (int px = 0; px < W; px++) {
            float cx = -2.2f + 3.2f * (float)px / W, cy = -1.2f + 2.4f * (float)py / H, x = 0, y = 0;
            int n = 0;
            while (n < LIMIT && x * x + y * y < 4.0f) {
                float t = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = t;
                n++;
            }
            sum = sum * 31 + (uint64_t)n;
        }
    bench_end("mandelbrot", "fp", sum);
}
