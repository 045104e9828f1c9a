// Matrix products of small tiles by oneDNN's micro-kernels as torch exports them (AVX-512, AVX-512 bf16 or AMX, decided
// there), and the layouts that they read. Sums are fp32.
#pragma once

#include "lanes.h"

namespace c10 {
struct BFloat16;
}
namespace at::native::cpublas {  // ATen/native/CPUBlas.h, whose headers would take half a minute to compile
void brgemm(i64 m, i64 n, i64 k, i64 lda, i64 ldb, i64 ldc, bool add, const float *a, const float *b, float *c, bool);
void brgemm(i64 m, i64 n, i64 k, i64 lda, i64 ldb, i64 ldc, bool add, const c10::BFloat16 *a, const c10::BFloat16 *b,
            float *c, bool);
void brgemm_release(bool);
}  // namespace at::native::cpublas

static const i64 PANEL = 64;  // columns of B that lie together

// c (m, n) = or += a (m, k) b (k, n), b as one packed panel of PANEL columns
static inline void multiply(i64 m, i64 n, i64 k, i64 lda, i64 ldc, bool add, const float *a, const float *b, float *c) {
    at::native::cpublas::brgemm(m, n, k, lda, PANEL, ldc, add, a, b, c, false);
}
static inline void multiply(i64 m, i64 n, i64 k, i64 lda, i64 ldc, bool add, const bf16 *a, const bf16 *b, float *c) {
    at::native::cpublas::brgemm(m, n, k, lda, PANEL, ldc, add, (const c10::BFloat16 *)a, (const c10::BFloat16 *)b, c,
                                true);
}

static inline i64 least(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 up(i64 n, i64 step) { return (n + step - 1) / step * step; }

// A panel holds element (k, j) of B at k * PANEL + j, and in bf16, whose micro-kernels read two rows at a time, at
// (k / 2 * PANEL + j) * 2 + k % 2. K is even in bf16 and what B does not have is 0.
static inline i64 place(const float *, i64 k, i64 j) { return k * PANEL + j; }
static inline i64 place(const bf16 *, i64 k, i64 j) { return (k / 2 * PANEL + j) * 2 + k % 2; }
static inline i64 depth(const float *, i64 k) { return k; }
static inline i64 depth(const bf16 *, i64 k) { return up(k, 2); }

// B = the transpose of ``count`` rows of source (row stride ``stride``, ``width`` wide): one panel, whose words are one
// fp32 or two bf16
template <typename X>
static void pack_transposed(const X *source, i64 stride, i64 count, i64 width, X *panel) {
    const i64 each = 4 / sizeof(X), deep = depth(source, width), whole = width / (16 * each) * (16 * each);
    if (count < PANEL || deep != width) memset((void *)panel, 0, deep * PANEL * sizeof(X));
    for (i64 j0 = 0; j0 < count; j0 += 16) {
        const i64 rows = least(16, count - j0);
        for (i64 k = 0; k < whole; k += 16 * each) {
            n16 words[16] = {};
            for (i64 j = 0; j < rows; j++) memcpy(&words[j], source + (j0 + j) * stride + k, 64);
            turn(words);
            for (i64 i = 0; i < 16; i++) memcpy((void *)(panel + place(panel, k + i * each, j0)), &words[i], 64);
        }
        for (i64 j = j0; j < j0 + rows; j++)
            for (i64 k = whole; k < width; k++) panel[place(panel, k, j)] = source[j * stride + k];
    }
}

// B = ``count`` rows of source, ``width`` columns from its first: one panel of at most PANEL columns
static void pack_rows(const float *source, i64 stride, i64 count, i64 width, float *panel) {
    for (i64 k = 0; k < count; k++) {
        memcpy(panel + k * PANEL, source + k * stride, width * sizeof(float));
        if (width < PANEL) memset(panel + k * PANEL + width, 0, (PANEL - width) * sizeof(float));
    }
}
static void pack_rows(const bf16 *source, i64 stride, i64 count, i64 width, bf16 *panel) {
    for (i64 k = 0; k < count; k += 2) {
        const bf16 *a = source + k * stride, *b = a + stride;
        bf16 *to = panel + k * PANEL;
        i64 j = 0;
        for (; k + 1 < count && j + 16 <= width; j += 16) {
            const n16 low = __builtin_convertvector(*(const h16 *)(a + j), n16);
            *(n16 *)(to + 2 * j) = low | __builtin_convertvector(*(const h16 *)(b + j), n16) << 16;
        }
        for (; j < width; j++) {
            to[2 * j] = a[j];
            to[2 * j + 1] = k + 1 < count ? b[j] : bf16{0};
        }
        for (j = 2 * width; j < 2 * PANEL; j++) to[j] = bf16{0};
    }
}
