// x @ weight.T for few rows, from a weight that is laid out in panels of 64 outputs: a panel's numbers lie in the order
// in which they are read, one word (an fp32, or two bf16 of neighbouring inputs) of each of its outputs after the
// other. Sums are fp32 and run over the inputs in order, whatever the rows: a row's bits do not depend on the others.

#pragma once
#include "threads.h"
#include "vectors.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

static const i64 PANEL = 64;  // outputs, four vectors
static const i64 TILE = 6;    // rows at a time: 24 sums and 4 vectors of the weight fill the 32 registers
static const i64 LINES = 4;   // of 64 bytes, that a word of all outputs takes
static const i64 DEPTH = 96;  // words of a panel that stay in the first cache for all rows: 24 KiB
static const i64 ROWS = 96;   // whose sums of a panel are kept: as much again

template <typename X>
static constexpr i64 PER_WORD = 4 / sizeof(X);

// sums + x * w in each lane, x one word for all: two bf16 products are one sum
#ifdef __AVX512F__
static inline v16 multiply_add(v16 sums, const float *x, const float *w) {
    return (v16)_mm512_fmadd_ps(_mm512_set1_ps(*x), _mm512_loadu_ps(w), (__m512)sums);
}
#else
static inline v16 multiply_add(v16 sums, const float *x, const float *w) { return sums + *x * load(w); }
#endif

#ifdef __AVX512BF16__
static inline v16 multiply_add(v16 sums, const bf16 *x, const bf16 *w) {
    int32_t pair;
    memcpy(&pair, x, 4);
    return (v16)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_loadu_si512(w));
}
#else
static inline v16 multiply_add(v16 sums, const bf16 *x, const bf16 *w) {
    n16 pairs;
    memcpy(&pairs, w, 64);
    return sums + one(x) * as_real(pairs << 16) + one(x + 1) * as_real(pairs & (int32_t)0xffff0000);
}
#endif

// out (T, PANEL) (+)= x (T, words) @ words of a panel, whose sum is made first: its rounding errors are its own
template <typename X, int T>
static void tile(const X *x, i64 ld, const X *panel, i64 words, float *out, bool fresh) {
    v16 sums[T][4] = {};
    for (i64 u = 0; u < words; u++, x += PER_WORD<X>, panel += PANEL * PER_WORD<X>)
        for (int t = 0; t < T; t++)
            for (int b = 0; b < 4; b++)
                sums[t][b] = multiply_add(sums[t][b], x + t * ld, panel + 16 * b * PER_WORD<X>);
    for (int t = 0; t < T; t++)
        for (int b = 0; b < 4; b++) {
            float *to = out + t * PANEL + 16 * b;
            store(to, fresh ? sums[t][b] : load(to) + sums[t][b]);
        }
}

// out (rows, PANEL) = x (rows, inputs) @ a panel, ROWS at most
template <typename X>
static void panel_product(const X *x, i64 rows, i64 inputs, const X *panel, float *out) {
    static_assert(TILE == 6, "a case for each number of rows");
    const i64 words = inputs / PER_WORD<X>, tiles = (rows + TILE - 1) / TILE;
    for (i64 k = 0; k < words; k += DEPTH) {
        const i64 depth = words - k < DEPTH ? words - k : DEPTH;
        const X *w = panel + k * PANEL * PER_WORD<X>;
        for (i64 i = 0; i < tiles; i++) {
            const i64 first = rows * i / tiles, count = rows * (i + 1) / tiles - first;
            const X *from = x + first * inputs + k * PER_WORD<X>;
            float *to = out + first * PANEL;
            for (i64 l = LINES * depth * i / tiles; l < LINES * depth * (i + 1) / tiles; l++)  // what comes next
                __builtin_prefetch((const char *)w + 64 * (LINES * depth + l), 0, 2);
            switch (count) {
                case 1: tile<X, 1>(from, inputs, w, depth, to, k == 0); break;
                case 2: tile<X, 2>(from, inputs, w, depth, to, k == 0); break;
                case 3: tile<X, 3>(from, inputs, w, depth, to, k == 0); break;
                case 4: tile<X, 4>(from, inputs, w, depth, to, k == 0); break;
                case 5: tile<X, 5>(from, inputs, w, depth, to, k == 0); break;
                default: tile<X, 6>(from, inputs, w, depth, to, k == 0);
            }
        }
    }
}

// done(panel, first row, rows, sums (rows, PANEL)) for all panels and rows of a product, shared among threads: by
// panels where reading the weight is the work, by rows where it is small and stays in each core's cache
template <typename X, typename Done>
static void product(const X *x, const X *weight, i64 rows, i64 inputs, i64 outputs, i64 threads, Done done) {
    const i64 panels = (outputs + PANEL - 1) / PANEL, small = 1 << 19;
    const bool by_rows = panels * PANEL * inputs * (i64)sizeof(X) <= small && rows >= TILE * threads;
    share(by_rows ? rows : panels, threads, [&](i64 first, i64 last, i64) {
        alignas(64) float sums[ROWS * PANEL];
        const i64 top = by_rows ? first : 0, end = by_rows ? last : rows;
        for (i64 p = by_rows ? 0 : first; p < (by_rows ? panels : last); p++)
            for (i64 r = top; r < end; r += ROWS) {
                const i64 count = end - r < ROWS ? end - r : ROWS;
                panel_product(x + r * inputs, count, inputs, weight + p * PANEL * inputs, sums);
                done(p, r, count, sums);
            }
    });
}

// a weight is read from end to end in every step: fewer pages are fewer faults when it is made and fewer misses after
static inline void ask_for_large_pages(void *at, i64 bytes) {
#ifdef __linux__
    const i64 page = 1 << 21, first = ((i64)at + page - 1) / page * page, end = ((i64)at + bytes) / page * page;
    if (end > first) madvise((void *)first, end - first, MADV_HUGEPAGE);  // where it is refused nothing is lost
#endif
}

// weight (outputs, inputs) to panels, zeros behind the last output; 16 outputs by 16 words at a time
template <typename X>
static void pack(const X *weight, X *panels, i64 outputs, i64 inputs, i64 threads) {
    const i64 words = inputs / PER_WORD<X>;
    ask_for_large_pages(panels, (outputs + PANEL - 1) / PANEL * PANEL * inputs * sizeof(X));
    share((outputs + PANEL - 1) / PANEL, threads, [&](i64 first, i64 last, i64) {
        for (i64 p = first; p < last; p++)
            for (i64 k = 0; k < words; k += 16)
                for (i64 c = 0; c < PANEL; c += 16) {
                    const i64 wide = words - k < 16 ? words - k : 16;
                    n16 square[16] = {};
                    for (i64 j = 0, output = p * PANEL + c; j < 16 && output < outputs; j++, output++)
                        memcpy(&square[j], weight + output * inputs + k * PER_WORD<X>, 4 * wide);
                    turn(square);
                    for (i64 u = 0; u < wide; u++)
                        memcpy((int32_t *)panels + (p * words + k + u) * PANEL + c, &square[u], 64);
                }
    });
}

// out (rows, outputs) = x @ weight.T + bias + residual, rounded once. bias: fp32, outputs padded to whole panels, or
// null; residual: as out, and may be out itself, or null
template <typename X>
static void linear(const X *x, const X *weight, const float *bias, const X *residual, X *out, i64 rows, i64 inputs,
                   i64 outputs, i64 threads) {
    product(x, weight, rows, inputs, outputs, threads, [&](i64 p, i64 first, i64 count, const float *sums) {
        const i64 width = outputs - p * PANEL < PANEL ? outputs - p * PANEL : PANEL;
        for (i64 r = 0; r < count; r++, sums += PANEL) {
            const i64 at = (first + r) * outputs + p * PANEL;
            i64 i = 0;
            for (; i + 16 <= width; i += 16) {
                v16 y = load(sums + i);
                if (bias) y += load(bias + p * PANEL + i);
                if (residual) y += load(residual + at + i);
                store(out + at + i, y);
            }
            for (; i < width; i++)
                put(out + at + i, sums[i] + (bias ? bias[p * PANEL + i] : 0) + (residual ? one(residual + at + i) : 0));
        }
    });
}
