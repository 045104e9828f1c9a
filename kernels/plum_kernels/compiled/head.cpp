// Log-probs of targets under a large vocabulary, and their gradients, on a CPU: blocks of logits that are made,
// exponentiated and consumed in cache, from fp32 or bf16 (X) with fp32 sums.
//
// The plain form is plum_kernels/logprob/blocked.py and frozen.py, the formulas are in kernels/README.md, "From Python"
// in engine.py. Letters: N rows, D width, V vocabulary, C columns of a span. The vocabulary is the outer loop: a span
// of the weight is packed once, all rows meet it, its gradient is one product over all rows and is written once. Threads
// share each span's rows and then its tiles; who does what changes no sum, so any number of them gives the same bits.

#include <cfloat>
#include <cmath>

#include "parallel.h"
#include "product.h"

static const i64 ROWS = 64;  // of a block
// columns of a block where N is small enough: a wider one adds to dx less often, but packs more of the weight at once and
// sums longer without a break, which fp32's error budget does not allow
static const i64 FORWARD = 512;
template <typename X>
static const i64 BACKWARD = sizeof(X) == 2 ? 1024 : 512;
static const i64 HELD = 1 << 23;  // elements of a span's gradient at most: N * C
static const float LN_2 = 0.693147180559945309f;

struct Problem {
    const void *x, *weight;
    const i64 *targets;
    const float *bias;  // or null
    i64 rows, stride, width, vocabulary, threads;
    float inner, outer, gain;  // Transform's; outer 0 where there is no cap
};

static i64 span_of(i64 rows, i64 columns) {
    while (columns > PANEL && columns * rows > HELD) columns /= 2;
    return columns;
}

// Pieces of one buffer, each on its own cache line.
struct Arena {
    char *at;
    i64 used = 0;
    template <typename X>
    X *take(i64 count) {
        X *got = at ? (X *)(at + used) : nullptr;
        used += up(count * (i64)sizeof(X), 64);
        return got;
    }
};

template <typename X>
struct Head {
    const Problem &p;
    const X *x, *weight;
    const i64 columns, padded, deep;  // C, N and D as the products count them
    // strides of a block's rows and of x turned: rows a power of two apart would share a few sets of the cache
    const i64 lead, tall;
    Head(const Problem &p, i64 span)
        : p(p), x((const X *)p.x), weight((const X *)p.weight), columns(span_of(p.rows, span)), padded(up(p.rows, 2)),
          deep(depth(x, p.width)), lead(columns + 16), tall(padded + 32) {}

    i64 blocks() const { return (p.rows + ROWS - 1) / ROWS; }
    i64 width_at(i64 v) const { return least(columns, p.vocabulary - v); }
    i64 transposed_size() const { return columns * deep; }
    i64 straight_size() const { return up(p.width, PANEL) * columns; }

    void pack(i64 v, X *transposed, X *straight, i64 member, i64 team) const {
        const i64 c = width_at(v);
        for (i64 j = member * PANEL; j < c; j += team * PANEL)
            pack_transposed(weight + (v + j) * p.width, p.width, least(PANEL, c - j), p.width, transposed + j * deep);
        if (straight)
            for (i64 d = member * PANEL; d < p.width; d += team * PANEL)
                pack_rows(weight + v * p.width + d, p.width, c, least(PANEL, p.width - d), straight + d * columns);
    }

    // u (rows, columns) of a block: what lies behind the vocabulary is -inf up to the next 16
    void logits(i64 r, i64 count, i64 v, const X *transposed, float *u) const {
        const i64 c = width_at(v);
        for (i64 j = 0; j < c; j += PANEL)
            multiply(count, PANEL, deep, p.stride, lead, false, x + r * p.stride, transposed + j * deep, u + j);
        for (i64 i = 0; i < count; i++, u += lead) {
            for (i64 j = 0; j < c; j += 16) {
                v16 a = load(u + j) * p.inner;
                if (p.bias) a += beyond(v + j) * p.inner;
                store(u + j, p.outer ? tanh_16(a) * p.outer : a);
            }
            for (i64 j = c; j < up(c, 16); j++) u[j] = -INFINITY;
        }
    }

    v16 beyond(i64 v) const {  // sixteen biases, of which the last may not exist
        if (v + 16 <= p.vocabulary) return load(p.bias + v);
        v16 b = {};
        for (i64 j = 0; v + j < p.vocabulary; j++) b[j] = p.bias[v + j];
        return b;
    }

    void add_rows(i64 count, i64 c, const X *a, const X *straight, float *out) const {  // out (count, D) += a W
        for (i64 d = 0; d < p.width; d += PANEL)
            multiply(count, least(PANEL, p.width - d), depth(a, c), lead, p.width, true, a, straight + d * columns,
                     out + d);
    }

    // ---- forward: the target's u, m, s and t of every row, and sum_j 2^(u - m) slope W_j where it is asked for ----

    i64 forward_work(Arena &arena, bool mean, X **transposed, X **straight, float **u, X **e) const {
        for (int k = 0; k < 2; k++) transposed[k] = arena.take<X>(transposed_size());
        for (int k = 0; k < 2; k++) straight[k] = mean ? arena.take<X>(straight_size()) : nullptr;
        for (i64 t = 0; t < p.threads; t++) {
            u[t] = arena.take<float>(ROWS * lead);
            e[t] = mean ? arena.take<X>(ROWS * lead) : nullptr;
        }
        return arena.used;
    }

    void forward(char *work, float *picked, float *m, float *s, float *t, float *mean) const {
        Arena arena{work};
        X *transposed[2], *straight[2];
        std::vector<float *> u(p.threads);
        std::vector<X *> e(p.threads);
        forward_work(arena, mean, transposed, straight, u.data(), e.data());
        for (i64 r = 0; r < p.rows; r++) m[r] = -FLT_MAX, s[r] = picked[r] = 0;
        Team team(p.threads);
        team.run([&](i64 member) {
            const i64 from = blocks() * member / team.size, to = blocks() * (member + 1) / team.size;
            int turn = 0;  // two packed spans in turn, so that nobody packs what another still reads
            for (i64 v = 0; v < p.vocabulary; v += columns, turn ^= 1) {
                pack(v, transposed[turn], straight[turn], member, team.size);
                team.wait();
                for (i64 b = from; b < to; b++) {
                    const i64 r = b * ROWS, count = least(ROWS, p.rows - r);
                    logits(r, count, v, transposed[turn], u[member]);
                    for (i64 i = 0; i < count; i++)
                        statistics(r + i, v, u[member] + i * lead, picked, m, s, t, mean, e[member] + i * lead);
                    if (mean) add_rows(count, width_at(v), e[member], straight[turn], mean + r * p.width);
                }
            }
            at::native::cpublas::brgemm_release(true);
        });
    }

    void statistics(i64 r, i64 v, const float *u, float *picked, float *m, float *s, float *t, float *mean, X *e) const {
        const i64 c = width_at(v), own = p.targets[r] - v;
        if (own >= 0 && own < c) picked[r] = u[own];
        v16 tops = all(m[r]);
        for (i64 j = 0; j < c; j += 16) tops = tops > load(u + j) ? tops : load(u + j);
        float top = m[r];
        for (int i = 0; i < 16; i++) top = top > tops[i] ? top : tops[i];
        v16 total = {}, entropic = {};
        for (i64 j = 0; j < c; j += 16) {
            const v16 raw = load(u + j), shifted = raw - top, power = exp2_16(shifted);
            total += power;
            if (t) entropic += power == 0.0f ? (v16){} : power * shifted;
            if (mean) store(e + j, p.outer ? power * slope(raw) : power);
        }
        if (mean && depth(e, c) > c) put(e + c, 0);
        const float shift = m[r] - top, scale = exp2_16(all(shift))[0];
        if (t) t[r] = scale * (t[r] + (s[r] ? shift * LN_2 * s[r] : 0)) + sum(entropic) * LN_2;
        s[r] = scale * s[r] + sum(total);
        m[r] = top;
        if (mean && scale != 1) rescale(mean + r * p.width, scale);
    }

    void rescale(float *row, float scale) const {
        i64 d = 0;
        for (; d + 16 <= p.width; d += 16) store(row + d, load(row + d) * scale);
        for (; d < p.width; d++) row[d] *= scale;
    }

    v16 slope(v16 u) const {  // 1 - tanh^2
        const v16 turned = u * (1 / p.outer);
        return 1.0f - turned * turned;
    }

    // ---- backward: from m, s and the entropy to the gradients ----

    struct Held {
        X *transposed, *straight, *turned, *panels;  // packed span, x transposed (D, N), the span's da in panels
        float *sums;                                 // of da's columns, a row a block
        std::vector<float *> u, tile;
        std::vector<X *> da;
    };

    i64 backward_work(Arena &arena, bool want_x, bool want_w, bool want_b, Held &held) const {
        held.transposed = arena.take<X>(transposed_size());
        held.straight = want_x ? arena.take<X>(straight_size()) : nullptr;
        held.turned = want_w ? arena.take<X>(p.width * tall) : nullptr;
        held.panels = want_w ? arena.take<X>(columns * padded) : nullptr;
        held.sums = want_b ? arena.take<float>(blocks() * columns) : nullptr;
        for (i64 t = 0; t < p.threads; t++) {
            held.u.push_back(arena.take<float>(ROWS * lead));
            held.da.push_back(want_x ? arena.take<X>(ROWS * lead) : nullptr);
            held.tile.push_back(want_w ? arena.take<float>(PANEL * PANEL) : nullptr);
        }
        return arena.used;
    }

    struct Known {
        const float *m, *s, *h;                      // h may be null
        const float *of_target, *of_lse, *of_entropy;  // upstream; the last null with h
    };

    void backward(char *work, const Known &known, float *dx, X *dw, float *db) const {
        Arena arena{work};
        Held held;
        backward_work(arena, dx, dw, db, held);
        Team team(p.threads);
        team.run([&](i64 member) {
            const i64 from = blocks() * member / team.size, to = blocks() * (member + 1) / team.size;
            if (dw)
                for (i64 d = p.width * member / team.size; d < p.width * (member + 1) / team.size; d++)
                    for (i64 r = 0; r < padded; r++)
                        held.turned[d * tall + r] = r < p.rows ? x[r * p.stride + d] : X{};
            for (i64 v = 0; v < p.vocabulary; v += columns) {
                pack(v, held.transposed, held.straight, member, team.size);
                team.wait();
                for (i64 b = from; b < to; b++) {
                    const i64 r = b * ROWS, count = least(ROWS, p.rows - r);
                    logits(r, count, v, held.transposed, held.u[member]);
                    for (i64 i = 0; i < count; i++) to_gradient(r + i, v, held.u[member] + i * lead, known);
                    hand_on(b, count, width_at(v), held, member);
                    if (dx) add_rows(count, width_at(v), held.da[member], held.straight, dx + r * p.width);
                }
                team.wait();
                if (dw) weight_tiles(v, held, dw, member, team.size);
                if (db)
                    for (i64 j = member; j < width_at(v); j += team.size) {
                        float total = 0;
                        for (i64 b = 0; b < blocks(); b++) total += held.sums[b * columns + j];
                        db[v + j] = total;
                    }
            }
            at::native::cpublas::brgemm_release(true);
        });
    }

    // in place: a row of u to da, the gradient of the raw logits
    void to_gradient(i64 r, i64 v, float *u, const Known &known) const {
        const i64 c = width_at(v), own = p.targets[r] - v;
        const float m = known.m[r], share = p.gain / known.s[r];
        const float flow = (known.of_lse[r] - known.of_target[r]) * share;
        const float entropic = known.h ? known.of_entropy[r] * share : 0;
        const float level = known.h ? known.h[r] - logf(known.s[r]) : 0;
        const float at_target = own >= 0 && own < c ? u[own] : 0;
        for (i64 j = 0; j < c; j += 16) {
            const v16 raw = load(u + j), shifted = raw - m, power = exp2_16(shifted);
            v16 da = power * flow;
            if (known.h) da = power == 0.0f ? da : da - power * ((shifted * LN_2 + level) * entropic);
            store(u + j, p.outer ? da * slope(raw) : da);
        }
        if (own >= 0 && own < c) u[own] += known.of_target[r] * p.gain * (p.outer ? slope(all(at_target))[0] : 1.0f);
    }

    // a block of da to where the products read it: as rows, and in panels of all rows; its columns' sums
    void hand_on(i64 b, i64 count, i64 c, Held &held, i64 member) const {
        float *u = held.u[member];
        const i64 r = b * ROWS;
        if (X *da = held.da[member])
            for (i64 i = 0; i < count; i++, da += lead) {
                for (i64 j = 0; j < c; j += 16) store(da + j, load(u + i * lead + j));
                if (depth(da, c) > c) put(da + c, 0);
            }
        if (held.sums)
            for (i64 j = 0; j < c; j += 16) {
                v16 total = {};
                for (i64 i = 0; i < count; i++) total += load(u + i * lead + j);
                store(held.sums + b * columns + j, total);
            }
        if (held.panels)
            for (i64 j = 0; j < c; j += PANEL) fill(r, count, c - j, u + j, held.panels + j * padded);
    }

    void fill(i64 r, i64 count, i64 c, const float *u, float *panel) const {
        for (i64 i = 0; i < count; i++)
            for (i64 j = 0; j < PANEL; j += 16)
                store(panel + place(panel, r + i, j), j < c ? load(u + i * lead + j) : (v16){});
        if (r + count == p.rows && padded > p.rows) memset(panel + p.rows * PANEL, 0, PANEL * sizeof(float));
    }
    void fill(i64 r, i64 count, i64 c, const float *u, bf16 *panel) const {
        for (i64 i = 0; i < count; i += 2)
            for (i64 j = 0; j < PANEL; j += 16) {
                n16 pair = {};
                if (j < c) pair = rounded(load(u + i * lead + j));
                if (j < c && i + 1 < count) pair |= rounded(load(u + (i + 1) * lead + j)) << 16;
                *(n16 *)(panel + place(panel, r + i, j)) = pair;
            }
    }

    // a tile (wide, PANEL) to ``count`` rows of the weight's gradient, turned
    void turned_out(const float *tile, i64 wide, i64 count, X *to) const {
        const i64 whole = wide / 16 * 16;
        for (i64 i0 = 0; i0 < count; i0 += 16)
            for (i64 k0 = 0; k0 < whole; k0 += 16) {
                n16 words[16];
                for (i64 k = 0; k < 16; k++) memcpy(&words[k], tile + (k0 + k) * PANEL + i0, 64);
                turn(words);
                for (i64 i = 0; i < least(16, count - i0); i++) store(to + (i0 + i) * p.width + k0, as_real(words[i]));
            }
        for (i64 i = 0; i < count; i++)
            for (i64 k = whole; k < wide; k++) put(to + i * p.width + k, tile[k * PANEL + i]);
    }

    // rows v.. of the weight's gradient: tiles of its transpose, x^T da, turned as they are written
    void weight_tiles(i64 v, Held &held, X *dw, i64 member, i64 team) const {
        const i64 c = width_at(v), across = (c + PANEL - 1) / PANEL, down = (p.width + PANEL - 1) / PANEL;
        float *tile = held.tile[member];
        for (i64 n = across * down * member / team; n < across * down * (member + 1) / team; n++) {
            const i64 j = n / down * PANEL, d = n % down * PANEL, wide = least(PANEL, p.width - d);
            multiply(wide, PANEL, padded, tall, PANEL, false, held.turned + d * tall, held.panels + j * padded, tile);
            turned_out(tile, wide, least(PANEL, c - j), dw + (v + j) * p.width + d);
        }
    }
};

template <typename X>
static i64 work_bytes(const Problem *p, i64 want_mean, i64 want_x, i64 want_w, i64 want_b) {
    const bool back = want_x || want_w || want_b;
    const Head<X> head(*p, back ? BACKWARD<X> : FORWARD);
    Arena forward{nullptr}, backward{nullptr};
    X *packed[4];
    std::vector<float *> u(p->threads);
    std::vector<X *> e(p->threads);
    typename Head<X>::Held held;
    if (back) return head.backward_work(backward, want_x, want_w, want_b, held) + 64;
    return head.forward_work(forward, want_mean, packed, packed + 2, u.data(), e.data()) + 64;
}

static char *aligned(void *work) { return (char *)(((uintptr_t)work + 63) / 64 * 64); }

#define FOR(X, NAME)                                                                                                   \
    extern "C" i64 plum_head_work_##NAME(const Problem *p, i64 mean, i64 x, i64 w, i64 b) {                            \
        return work_bytes<X>(p, mean, x, w, b);                                                                        \
    }                                                                                                                  \
    extern "C" void plum_head_forward_##NAME(const Problem *p, void *work, float *picked, float *m, float *s,         \
                                             float *t, float *mean) {                                                  \
        Head<X>(*p, FORWARD).forward(aligned(work), picked, m, s, t, mean);                                                     \
    }                                                                                                                  \
    extern "C" void plum_head_backward_##NAME(const Problem *p, void *work, const float *m, const float *s,           \
                                              const float *h, const float *of_target, const float *of_lse,             \
                                              const float *of_entropy, float *dx, void *dw, float *db) {               \
        Head<X>(*p, BACKWARD<X>).backward(aligned(work), {m, s, h, of_target, of_lse, of_entropy}, dx, (X *)dw, db);                \
    }                                                                                                                  \
    extern "C" int plum_head_probe_##NAME() {                                                                          \
        alignas(64) X a[PANEL * 2] = {}, b[PANEL * 2] = {};                                                            \
        alignas(64) float c[PANEL];                                                                                    \
        try {                                                                                                          \
            multiply(1, PANEL, 2, 2, PANEL, false, a, b, c);                                                           \
            at::native::cpublas::brgemm_release(true);                                                                 \
        } catch (...) {                                                                                                \
            return 0;                                                                                                  \
        }                                                                                                              \
        return 1;                                                                                                      \
    }
FOR(float, float32)
FOR(bf16, bfloat16)
