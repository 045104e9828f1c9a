// What a decode step needs of sixteen lanes beyond ``lanes.h``: sums and maxima over them by halves, and e^x.

#pragma once
#include <cmath>

#include "../compiled/lanes.h"

typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));

static inline float total(v16 x) {
    v8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    v4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[1]) + (b[2] + b[3]);
}

static inline float largest(v16 x) {
    v8 a = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    v8 z = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    a = a > z ? a : z;
    v4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3), y = __builtin_shufflevector(a, a, 4, 5, 6, 7);
    b = b > y ? b : y;
    float m = b[0] > b[1] ? b[0] : b[1], n = b[2] > b[3] ? b[2] : b[3];
    return m > n ? m : n;
}

// the first ``count`` places of x, ``other`` in those behind
static inline v16 first(v16 x, i64 count, float other) {
    const n16 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return places < (n16)((n16){} + (int32_t)(count < 16 ? count : 16)) ? x : all(other);
}

// e^x by Cephes' polynomial (Moshier 1989), about one unit in the last place; below -87.3 it stays at e^-87.3
static inline v16 exp16(v16 x) {
    const v16 low = all(-87.3f), high = all(88.0f), magic = all(12582912.0f);  // 1.5 * 2^23: rounds to whole numbers
    x = x > low ? x : low;
    x = x < high ? x : high;
    v16 turned = x * 1.44269504088896341f + magic;
    v16 n = turned - magic;
    v16 f = x - n * 0.693359375f;
    f = f + n * 2.12194440e-4f;
    v16 p = all(1.9875691500e-4f);
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    return as_real(as_bits(p) + (as_bits(turned) << 23));  // magic's own bits leave at the top
}

// the largest of ``best`` and of s, in its lanes
template <typename X>
static inline v16 most(const X *s, i64 count, v16 best) {
    i64 c = 0;
    for (; c + 16 <= count; c += 16) {
        v16 x = load(s + c);
        best = x > best ? x : best;
    }
    for (; c < count; c++) best = one(s + c) > best ? all(one(s + c)) : best;
    return best;
}
