// One decode step on a CPU: what stands between the matrix products, each part in one pass over its rows. What
// comes and goes is fp32 or bf16 (X), everything between is fp32.
//
// Plain C++ without torch's headers, compiled where it runs (build.py). Shapes and meanings: interface.py. Letters: R
// rows, H query and G key/value heads, J = H / G, E head width, S places for a prompt, C for a row's own tokens.

#include <cmath>
#include <cstdint>
#include <cstring>

typedef int64_t i64;
typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t n16 __attribute__((vector_size(64), aligned(4)));

static inline v16 load(const float *p) { return *(const v16 *)p; }
static inline void store(float *p, v16 x) { *(v16 *)p = x; }
// bf16 as it lies in memory: the upper half of an fp32, rounded to even when written
struct bf16 {
    uint16_t bits;
};
typedef uint16_t h16 __attribute__((vector_size(32), aligned(2)));

static inline v16 load(const bf16 *p) {
    n16 wide = __builtin_convertvector(*(const h16 *)p, n16) << 16;
    v16 x;
    memcpy(&x, &wide, 64);
    return x;
}

static inline void store(bf16 *p, v16 x) {
    n16 bits;
    memcpy(&bits, &x, 64);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(h16 *)p = __builtin_convertvector(bits, h16);
}

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
    p->bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

static inline v16 all(float x) { return x - (v16){}; }

typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));

static inline float sum(v16 x) {
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
    n16 bits, exponent;
    memcpy(&bits, &p, 64);
    memcpy(&exponent, &turned, 64);
    bits += exponent << 23;  // magic's own bits leave at the top
    memcpy(&p, &bits, 64);
    return p;
}

template <typename X>
static void rms_norm(const X *x, const float *weight, X *out, i64 rows, i64 width, float eps) {
    for (i64 r = 0; r < rows; r++, x += width, out += width) {
        v16 squares = {};
        float rest = 0;
        i64 i = 0;
        for (; i + 16 <= width; i += 16) squares += load(x + i) * load(x + i);
        for (i64 t = i; t < width; t++) rest += one(x + t) * one(x + t);
        const float inverse = 1.0f / sqrtf((sum(squares) + rest) / width + eps);
        for (i = 0; i + 16 <= width; i += 16) store(out + i, load(x + i) * inverse * load(weight + i));
        for (; i < width; i++) put(out + i, one(x + i) * inverse * weight[i]);
    }
}

// gate_up: (R, 2I), the gate first; out: (R, I)
template <typename X>
static void silu_mul(const X *gate_up, X *out, i64 rows, i64 inner) {
    for (i64 r = 0; r < rows; r++, gate_up += 2 * inner, out += inner) {
        const X *up = gate_up + inner;
        i64 i = 0;
        for (; i + 16 <= inner; i += 16) {
            v16 x = load(gate_up + i);
            store(out + i, x / (1.0f + exp16(-x)) * load(up + i));
        }
        for (; i < inner; i++) put(out + i, one(gate_up + i) / (1.0f + expf(-one(gate_up + i))) * one(up + i));
    }
}

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

// e^(score - maximum) in place, zeros up to the next whole vector; their sum goes on from ``total``
static inline v16 exponentials(float *s, i64 count, float maximum, v16 total) {
    for (i64 c = 0; c < count; c += 16) {
        v16 e = exp16(load(s + c) - maximum);
        if (c + 16 > count) e = first(e, count - c, 0);
        store(s + c, e);
        total += e;
    }
    return total;
}

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
        scale[t] = 1.0f / sum(exponentials(own, count, m, exponentials(prompt, length, m, (v16){})));
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
                        i64 rows, i64 heads, i64 groups, i64 width, i64 S, i64 C, float scale) {
    const i64 each = heads / groups, half = width / 2, inputs = (heads + 2 * groups) * width;
    float *q = work + 4 * (S + C), *x = q + each * width, *answer = x + inputs;
    for (i64 r = 0; r < rows; r++, qkv += inputs, out += heads * width) {
        const float *co = cos + positions[r] * width, *si = sin + positions[r] * width;
        const i64 length = lengths[r], place = positions[r] - length;
        for (i64 i = 0; i < inputs; i += 16) store(x + i, load(qkv + i));
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
        for (i64 i = 0; i < heads * width; i += 16) store(out + i, load(answer + i));
    }
}

static double uniform(uint64_t seed, uint64_t number) {
    uint64_t x = seed + (number + 1) * 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    x ^= x >> 31;
    return (double)(x >> 11) * 0x1p-53;
}

static const i64 BLOCK = 64;  // as draw.py's: a block's sum in fp32, sums of blocks in fp64

template <typename X>
static float block_sum(const X *z, i64 count, float maximum, float scale, float *into) {
    v16 total = {};
    for (i64 i = 0; i < count; i += 16) {
        v16 x = {};
        if (i + 16 <= count)
            x = load(z + i);
        else
            for (i64 t = i; t < count; t++) x[t - i] = one(z + t);
        x = exp16((x - maximum) * scale);
        if (i + 16 > count) x = first(x, count - i, 0);
        if (into) store(into + i, x);
        total += x;
    }
    return sum(total);
}

// the sum of e^((z - maximum) * scale), its parts in sums
template <typename X>
static double all_sums(const X *z, i64 width, float maximum, float scale, float *sums) {
    double total = 0;
    for (i64 b = 0; b * BLOCK < width; b++) {
        i64 count = width - b * BLOCK < BLOCK ? width - b * BLOCK : BLOCK;
        sums[b] = block_sum(z + b * BLOCK, count, maximum, scale, nullptr);
        total += sums[b];
    }
    return total;
}

// temperature 0 is greedy. work: a float for each block
template <typename X>
static void draw(const X *logits, const i64 *seeds, const i64 *numbers, i64 *tokens, float *logprobs, float *sampled,
                 float *work, i64 rows, i64 width, float temperature) {
    for (i64 r = 0; r < rows; r++, logits += width) {
        const float maximum = largest(most(logits, width, all(one(logits))));
        i64 token = 0;
        double total = 0;
        if (temperature == 0) {
            while (one(logits + token) != maximum && token < width - 1) token++;
            sampled[r] = 0;
        } else {
            const float scale = 1.0f / temperature;
            total = all_sums(logits, width, maximum, scale, work);
            const double target = fmin(uniform(seeds[r], numbers[r]) * total, total * (1 - 0x1p-52));
            double before = 0;
            i64 block = 0;
            const i64 last = (width - 1) / BLOCK;
            while (block < last && before + work[block] <= target) before += work[block++];
            float inside[BLOCK];
            const i64 count = width - block * BLOCK < BLOCK ? width - block * BLOCK : BLOCK;
            block_sum(logits + block * BLOCK, count, maximum, scale, inside);
            i64 place = 0;
            for (double sum = before; place < count; place++) {
                sum += inside[place];
                if (sum > target) break;
            }
            if (place == count)  // rounding may point past the last token that has any weight
                for (place = count - 1; place > 0 && inside[place] == 0; place--) {}
            token = block * BLOCK + place;
            sampled[r] = (float)((one(logits + token) - maximum) * scale - log(total));
        }
        tokens[r] = token;
        if (temperature == 1)
            logprobs[r] = sampled[r];
        else
            logprobs[r] = (float)(one(logits + token) - maximum - log(all_sums(logits, width, maximum, 1.0f, work)));
    }
}

#define FOR(X, NAME)                                                                                                   \
    extern "C" void plum_rms_norm_##NAME(const X *x, const float *w, X *out, i64 rows, i64 width, float eps) {         \
        rms_norm(x, w, out, rows, width, eps);                                                                         \
    }                                                                                                                  \
    extern "C" void plum_silu_mul_##NAME(const X *x, X *out, i64 rows, i64 inner) { silu_mul(x, out, rows, inner); }   \
    extern "C" void plum_attend_##NAME(const X *x, const float *c, const float *s, const i64 *p, const i64 *o,         \
                                       const i64 *l, const float *pk, const float *pv, float *ok, float *ov, X *out,   \
                                       float *w, i64 R, i64 H, i64 G, i64 E, i64 S, i64 C, float scale) {              \
        attend_rows(x, c, s, p, o, l, pk, pv, ok, ov, out, w, R, H, G, E, S, C, scale);                                \
    }                                                                                                                  \
    extern "C" void plum_draw_##NAME(const X *z, const i64 *seeds, const i64 *n, i64 *t, float *lp, float *sp, float *w, \
                                     i64 rows, i64 width, float temperature) {                                         \
        draw(z, seeds, n, t, lp, sp, w, rows, width, temperature);                                                     \
    }

FOR(float, float32)
FOR(bf16, bfloat16)
