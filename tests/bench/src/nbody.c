// Gravity of five bodies, double precision.
#include "bench.h"
#include <math.h>
struct body { double x, y, z, vx, vy, vz, m; };
static struct body bodies[] = {
    {0, 0, 0, 0, 0, 0, 39.47841760435743},
    {4.84143144246472090, -1.16032004402742839, -0.103622044471123109, 0.606326392995832, 2.81198684491626, -0.02521836165988763, 0.03769367487038949},
    {8.34336671824457987, 4.12479856412430479, -0.403523417114321381, -1.01077434617879, 1.82566237123041, 0.008415761376584154, 0.011286326131968767},
    {12.8943695621391310, -15.1111514016986312, -0.223307578892655734, 1.08279100644153, 0.868713018169608, -0.010832637401363636, 0.0017237240570597112},
    {15.3796971148509165, -25.9193146099879641, 0.179258772950371181, 0.979090732243898, 0.594698998647676, -0.034755955504078104, 0.0020336868699246304},
};
int main(void) {
    enum { N = sizeof bodies / sizeof *bodies };
    bench_start();
    for (int step = 0; step < 600000; step++) {
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++) {
                struct body *a = &bodies[i], *b = &bodies[j];
                double x = a->x - b->x, y = a->y - b->y, z = a->z - b->z;
                double d = x * x + y * y + z * z, f = 0.01 / (d * sqrt(d));
                a->vx -= x * b->m * f, a->vy -= y * b->m * f, a->vz -= z * b->m * f;
                b->vx += x * a->m * f, b->vy += y * a->m * f, b->vz += z * a->m * f;
            }
        for (int i = 0; i < N; i++) {
            struct body *a = &bodies[i];
            a->x += 0.01 * a->vx, a->y += 0.01 * a->vy, a->z += 0.01 * a->vz;
        }
    }
    bench_end("nbody", "fp", bench_bits(bodies[0].x) ^ bench_bits(bodies[4].vz));
}
