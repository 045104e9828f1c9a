// Sixteen fp32 lanes, by the vector extensions of GCC and Clang, and bf16 as it lies in memory.
#pragma once

#include <cstdint>
#include <cstring>

typedef int64_t i64;
typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t n16 __attribute__((vector_size(64), aligned(4)));
typedef uint16_t h16 __attribute__((vector_size(32), aligned(2)));

// the upper half of an fp32, rounded to even when written
struct bf16 {
    uint16_t bits;
};

static inline v16 all(float x) { return x - (v16){}; }
static inline v16 as_real(n16 bits) {
    v16 x;
    memcpy(&x, &bits, 64);
    return x;
}
static inline n16 as_bits(v16 x) {
    n16 bits;
    memcpy(&bits, &x, 64);
    return bits;
}

static inline v16 load(const float *p) { return *(const v16 *)p; }
static inline v16 load(const bf16 *p) { return as_real(__builtin_convertvector(*(const h16 *)p, n16) << 16); }

// a quiet NaN stays one: rounding would carry some of them over to infinity
static inline n16 rounded(v16 x) {
    n16 bits = as_bits(x);
    return x == x ? (n16)((uint32_t __attribute__((vector_size(64))))(bits + 0x7fff + ((bits >> 16) & 1)) >> 16)
                  : (n16){} + 0x7fc0;
}
static inline void store(float *p, v16 x) { *(v16 *)p = x; }
static inline void store(bf16 *p, v16 x) { *(h16 *)p = __builtin_convertvector(rounded(x), h16); }

static inline float one(const float *p) { return *p; }
static inline float one(const bf16 *p) {
    uint32_t bits = (uint32_t)p->bits << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline void put(float *p, float x) { *p = x; }
static inline void put(bf16 *p, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    p->bits = x == x ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : 0x7fc0;
}

static inline float sum(v16 x) {
    float total = 0;
    for (int i = 0; i < 16; i++) total += x[i];
    return total;
}

// 2^x for x <= 127 by Cephes' polynomial (Moshier 1989), about one unit in the last place; 0 below -126
static inline v16 exp2_16(v16 x) {
    const v16 magic = all(12582912.0f);  // 1.5 * 2^23: rounds to whole numbers
    v16 held = x < -126.0f ? all(-126.0f) : x;
    v16 turned = held + magic;
    v16 f = held - (turned - magic);
    v16 p = all(1.535336188319500e-4f);
    p = p * f + 1.339887440266574e-3f;
    p = p * f + 9.618437357674640e-3f;
    p = p * f + 5.550332471162809e-2f;
    p = p * f + 2.402264791363012e-1f;
    p = p * f + 6.931472028550421e-1f;
    p = p * f + 1.0f;
    v16 grown = as_real(as_bits(p) + (as_bits(turned) << 23));  // magic's own bits leave at the top
    return x < -126.0f ? (v16){} : x == x ? grown : x;
}

// by Cephes' polynomial up to 0.625, by 2^x beyond
static inline v16 tanh_16(v16 x) {
    v16 size = x < 0.0f ? -x : x;
    v16 e = exp2_16(size * -2.8853900817779268f);  // e^(-2 |x|)
    v16 far = (1.0f - e) / (1.0f + e);
    far = x < 0.0f ? -far : far;
    v16 z = x * x;
    v16 p = all(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return size < 0.625f ? x + x * z * p : far;
}

// 16 x 16 words, each row a vector, turned over their diagonal: four rounds of exchanges between rows 8, 4, 2, 1 apart
static inline void turn(n16 *rows) {
    const n16 low[4] = {{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
                        {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
                        {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
                        {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30}};
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
        const int apart = 8 >> round;
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (!(i & apart)) {
                const n16 a = rows[i], b = rows[i + apart];
                rows[i] = __builtin_shuffle(a, b, low[round]);
                rows[i + apart] = __builtin_shuffle(a, b, low[round] + apart);
            }
    }
}
