"""Integers and lists: the most reversals that sort a permutation."""


def fannkuch(n):
    count, perm, most, r = list(range(1, n + 1)), list(range(n)), 0, n
    while True:
        while r != 1:
            count[r - 1] = r
            r -= 1
        flips, p = 0, perm[:]
        while k := p[0]:
            p[:k + 1] = reversed(p[:k + 1])
            flips += 1
        most = max(most, flips)
        while r != n:
            perm.insert(r, perm.pop(0))
            count[r] -= 1
            if count[r] > 0:
                break
            r += 1
        else:
            return most


print(fannkuch(8))
