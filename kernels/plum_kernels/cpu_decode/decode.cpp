// One decode step on a CPU: what each of its parts is called outside, for fp32 and bf16. What comes and goes is of that
// type (X), everything between is fp32. Shapes and meanings: interface.py and product.py.
//
// Plain C++ without torch's headers, compiled where it runs (build.py).

#include "attend.h"
#include "draw.h"
#include "product.h"
#include "rows.h"

#define FOR(X, NAME)                                                                                                   \
    extern "C" void plum_rms_norm_##NAME(const X *x, const float *w, X *out, i64 R, i64 D, i64 t, float eps) {         \
        rms_norm(x, w, out, R, D, t, eps);                                                                             \
    }                                                                                                                  \
    extern "C" void plum_silu_mul_##NAME(const X *x, X *out, i64 R, i64 I, i64 t) { silu_mul(x, out, R, I, t); }       \
    extern "C" void plum_attend_##NAME(const X *x, const float *c, const float *s, const i64 *p, const i64 *o,         \
                                       const i64 *l, const float *pk, const float *pv, float *ok, float *ov, X *out,   \
                                       float *w, i64 R, i64 H, i64 G, i64 E, i64 S, i64 C, i64 size, i64 t, float f) { \
        attend_all(x, c, s, p, o, l, pk, pv, ok, ov, out, w, R, H, G, E, S, C, size, t, f);                            \
    }                                                                                                                  \
    extern "C" void plum_draw_##NAME(const X *z, const i64 *seeds, const i64 *n, i64 *tokens, float *lp, float *sp,    \
                                     float *w, i64 R, i64 V, i64 t, float temperature) {                               \
        draw(z, seeds, n, tokens, lp, sp, w, R, V, t, temperature);                                                    \
    }                                                                                                                  \
    extern "C" void plum_pack_##NAME(const X *w, X *panels, i64 N, i64 K, i64 t) { pack(w, panels, N, K, t); }         \
    extern "C" void plum_linear_##NAME(const X *x, const X *w, const float *b, const X *added, X *out, i64 R, i64 K,   \
                                       i64 N, i64 t) {                                                                 \
        linear(x, w, b, added, out, R, K, N, t);                                                                       \
    }                                                                                                                  \
    extern "C" void plum_head_draw_##NAME(const X *x, const X *w, const i64 *seeds, const i64 *n, i64 *tokens,         \
                                          float *lp, float *sp, float *work, i64 R, i64 D, i64 V, i64 stride, i64 t,   \
                                          float temperature) {                                                         \
        head_draw(x, w, seeds, n, tokens, lp, sp, work, R, D, V, stride, t, temperature);                              \
    }

FOR(float, float32)
FOR(bf16, bfloat16)

// the instructions that ``product`` is written for were compiled in
extern "C" int plum_wide_float32() {
#ifdef __AVX512F__
    return 1;
#else
    return 0;
#endif
}

extern "C" int plum_wide_bfloat16() {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}
