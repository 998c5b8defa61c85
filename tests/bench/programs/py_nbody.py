"""Floating point in objects: bodies that draw each other."""


def advance(bodies, dt, steps):
    for _ in range(steps):
        for i, a in enumerate(bodies):
            for b in bodies[i + 1:]:
                d = [a[0][k] - b[0][k] for k in range(3)]
                far = dt / (sum(x * x for x in d) ** 1.5)
                for k in range(3):
                    a[1][k] -= d[k] * b[2] * far
                    b[1][k] += d[k] * a[2] * far
        for place, speed, _ in bodies:
            for k in range(3):
                place[k] += dt * speed[k]


bodies = [[[float(n), n * 0.5, 1.0 / (n + 1)], [0.0, 0.1 * n, 0.0], 1.0 / (n + 1)] for n in range(5)]
advance(bodies, 0.001, 1500)
print(bodies)
