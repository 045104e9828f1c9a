// Rotation, and attention over a shared prompt and a row's own tokens under one softmax. Letters: R rows, H query and G
// key/value heads, J = H / G, E head width, S places for a prompt, C for a row's own tokens.

#pragma once
#include "threads.h"
#include "vectors.h"

// scores of T query heads and 16 * B keys; keys: (E, places), transposed
template <int T, int B>
static inline void score(const float *q, const float *keys, i64 places, i64 width, float *out, i64 ld) {
    v16 acc[T][B] = {};
    for (i64 e = 0; e < width; e++) {
        v16 k[B];
        for (int b = 0; b < B; b++) k[b] = load(keys + e * places + 16 * b);
        for (int t = 0; t < T; t++)
            for (int b = 0; b < B; b++) acc[t][b] += q[t * width + e] * k[b];
    }
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++) store(out + t * ld + 16 * b, acc[t][b]);
}

template <int T>
static void scores(const float *q, const float *keys, i64 places, i64 width, i64 count, float *out, i64 ld) {
    i64 c = 0;
    for (; c + 16 < count; c += 32) score<T, 2>(q, keys + c, places, width, out + c, ld);
    for (; c < count; c += 16) score<T, 1>(q, keys + c, places, width, out + c, ld);
}

// out (T, E) += weights (T, count) @ values (count, E), 16 * B channels at a time
template <int T, int B>
static inline void gather(const float *weights, i64 ld, const float *values, i64 width, i64 count, float *out) {
    v16 acc[T][B];
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++) acc[t][b] = load(out + t * width + 16 * b);
    for (i64 c = 0; c < count; c++) {
        v16 v[B];
        for (int b = 0; b < B; b++) v[b] = load(values + c * width + 16 * b);
        for (int t = 0; t < T; t++)
            for (int b = 0; b < B; b++) acc[t][b] += weights[t * ld + c] * v[b];
    }
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++) store(out + t * width + 16 * b, acc[t][b]);
}

template <int T>
static void gathers(const float *weights, i64 ld, const float *values, i64 width, i64 count, float *out) {
    i64 e = 0;
    for (; e + 32 <= width; e += 32) gather<T, 2>(weights, ld, values + e, width, count, out + e);
    for (; e < width; e += 16) gather<T, 1>(weights, ld, values + e, width, count, out + e);
}

// e^(score - maximum) in place, zeros up to the next whole vector; their sums go on from ``before``
static inline v16 exponentials(float *s, i64 count, float maximum, v16 before) {
    for (i64 c = 0; c < count; c += 16) {
        v16 e = exp16(load(s + c) - maximum);
        if (c + 16 > count) e = first(e, count - c, 0);
        store(s + c, e);
        before += e;
    }
    return before;
}

// T heads of one group over the prompt's and the row's own tokens under one softmax
template <int T>
static void attend(const float *q, const float *pk, const float *pv, const float *ok, const float *ov, float *out,
                   float *work, i64 width, i64 S, i64 C, i64 length, i64 count) {
    const i64 ld = S + C;
    scores<T>(q, pk, S, width, length, work, ld);
    scores<T>(q, ok, C, width, count, work + S, ld);
    float scale[T];
    for (int t = 0; t < T; t++) {
        float *own = work + t * ld + S, *prompt = work + t * ld;
        for (i64 c = length; c % 16; c++) prompt[c] = -1e30f;  // whole vectors, so that none is taken apart
        for (i64 c = count; c % 16; c++) own[c] = -1e30f;
        const i64 p = (length + 15) / 16 * 16, o = (count + 15) / 16 * 16;
        const float m = largest(most(own, o, most(prompt, p, all(own[0]))));
        scale[t] = 1.0f / total(exponentials(own, count, m, exponentials(prompt, length, m, (v16){})));
    }
    memset(out, 0, T * width * sizeof(float));
    gathers<T>(work, ld, pv, width, length, out);
    gathers<T>(work + S, ld, ov, width, count, out);
    for (int t = 0; t < T; t++)
        for (i64 e = 0; e < width; e++) out[t * width + e] *= scale[t];
}

template <typename X>
static void attend_rows(const X *qkv, const float *cos, const float *sin, const i64 *positions, const i64 *owners,
                        const i64 *lengths, const float *pk, const float *pv, float *ok, float *ov, X *out, float *work,
                        i64 top, i64 end, i64 heads, i64 groups, i64 width, i64 S, i64 C, float scale) {
    const i64 each = heads / groups, half = width / 2, inputs = (heads + 2 * groups) * width;
    float *q = work + 4 * (S + C), *x = q + each * width, *answer = x + inputs;
    for (i64 r = top; r < end; r++) {
        const float *co = cos + positions[r] * width, *si = sin + positions[r] * width;
        const i64 length = lengths[r], place = positions[r] - length;
        for (i64 i = 0; i < inputs; i += 16) store(x + i, load(qkv + r * inputs + i));
        for (i64 g = 0; g < groups; g++) {
            float *keys = ok + (r * groups + g) * width * C, *values = ov + (r * groups + g) * C * width;
            const float *k = x + (heads + g) * width;
            for (i64 e = 0; e < half; e++) {
                keys[e * C + place] = k[e] * co[e] + k[e + half] * si[e];
                keys[(e + half) * C + place] = k[e + half] * co[e + half] + k[e] * si[e + half];
            }
            memcpy(values + place * width, x + (heads + groups + g) * width, width * sizeof(float));
            for (i64 j = 0; j < each; j++) {
                const float *from = x + (g * each + j) * width;
                float *to = q + j * width;
                for (i64 e = 0; e < half; e++) {
                    to[e] = (from[e] * co[e] + from[e + half] * si[e]) * scale;
                    to[e + half] = (from[e + half] * co[e + half] + from[e] * si[e + half]) * scale;
                }
            }
            const i64 prompt = owners[r] * groups + g;
            const float *shared_k = pk + prompt * width * S, *shared_v = pv + prompt * S * width;
            float *a = answer + g * each * width;
            i64 j = 0;
            for (; j + 4 <= each; j += 4)
                attend<4>(q + j * width, shared_k, shared_v, keys, values, a + j * width, work, width, S, C, length,
                          place + 1);
            for (; j + 2 <= each; j += 2)
                attend<2>(q + j * width, shared_k, shared_v, keys, values, a + j * width, work, width, S, C, length,
                          place + 1);
            for (; j < each; j++)
                attend<1>(q + j * width, shared_k, shared_v, keys, values, a + j * width, work, width, S, C, length,
                          place + 1);
        }
        for (i64 i = 0; i < heads * width; i += 16) store(out + r * heads * width + i, load(answer + i));
    }
}

// work: ``size`` floats for each thread
template <typename X>
static void attend_all(const X *qkv, const float *cos, const float *sin, const i64 *positions, const i64 *owners,
                       const i64 *lengths, const float *pk, const float *pv, float *ok, float *ov, X *out, float *work,
                       i64 rows, i64 heads, i64 groups, i64 width, i64 S, i64 C, i64 size, i64 threads, float scale) {
    share(rows, threads, [&](i64 top, i64 end, i64 thread) {
        attend_rows(qkv, cos, sin, positions, owners, lengths, pk, pv, ok, ov, out, work + thread * size, top, end,
                    heads, groups, width, S, C, scale);
    });
}
