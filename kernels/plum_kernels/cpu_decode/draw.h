// A token a row by inverse CDF: from logits, or from states with the output head's product inside, so that no logit is
// written. Two levels: sums of blocks first, then inside the one block that was chosen.

#pragma once
#include "product.h"
#include "threads.h"
#include "vectors.h"

static double uniform(uint64_t seed, uint64_t number) {
    uint64_t x = seed + (number + 1) * 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    x ^= x >> 31;
    return (double)(x >> 11) * 0x1p-53;
}

static const i64 BLOCK = 64;  // as draw.py's: a block's sum in fp32, sums of blocks in fp64
static_assert(BLOCK == PANEL, "a panel of the head is a block of the draw");

// of e^((z - maximum) * scale) over a block of ``count``, each in ``into`` where that is given
template <typename X>
static float block_sum(const X *z, i64 count, float maximum, float scale, float *into) {
    v16 sums = {};
    for (i64 i = 0; i < count; i += 16) {
        v16 x = {};
        if (i + 16 <= count)
            x = load(z + i);
        else
            for (i64 t = i; t < count; t++) x[t - i] = one(z + t);
        x = exp16((x - maximum) * scale);
        if (i + 16 > count) x = first(x, count - i, 0);
        if (into) store(into + i, x);
        sums += x;
    }
    return total(sums);
}

// a quantile of the sums of blocks: which block holds it, and what is before that block
struct Quantile {
    double target, before;
    i64 block;
};

static Quantile quantile(const float *sums, i64 blocks, double whole, uint64_t seed, uint64_t number) {
    Quantile q = {fmin(uniform(seed, number) * whole, whole * (1 - 0x1p-52)), 0, 0};
    while (q.block < blocks - 1 && q.before + sums[q.block] <= q.target) q.before += sums[q.block++];
    return q;
}

// its place inside the block z
template <typename X>
static i64 place_of(Quantile q, const X *z, i64 count, float maximum, float scale) {
    float inside[BLOCK];
    block_sum(z, count, maximum, scale, inside);
    i64 place = 0;
    for (double sum = q.before; place < count; place++) {
        sum += inside[place];
        if (sum > q.target) return place;
    }
    for (place = count - 1; place > 0 && inside[place] == 0;) place--;  // rounding may point past the last with weight
    return place;
}

// the sum of e^((z - maximum) * scale), its parts in sums
template <typename X>
static double all_sums(const X *z, i64 width, float maximum, float scale, float *sums) {
    double whole = 0;
    for (i64 b = 0; b * BLOCK < width; b++) {
        i64 count = width - b * BLOCK < BLOCK ? width - b * BLOCK : BLOCK;
        sums[b] = block_sum(z + b * BLOCK, count, maximum, scale, nullptr);
        whole += sums[b];
    }
    return whole;
}

// temperature 0 is greedy. work: a float for each block and row
template <typename X>
static void draw(const X *logits, const i64 *seeds, const i64 *numbers, i64 *tokens, float *logprobs, float *sampled,
                 float *work, i64 rows, i64 width, i64 threads, float temperature) {
    const i64 blocks = (width + BLOCK - 1) / BLOCK;
    share(rows, threads, [&](i64 top, i64 end, i64) {
        for (i64 r = top; r < end; r++) {
            const X *z = logits + r * width;
            float *sums = work + r * blocks;
            const float maximum = largest(most(z, width, all(one(z))));
            i64 token = 0;
            if (temperature == 0) {
                while (one(z + token) != maximum && token < width - 1) token++;
                sampled[r] = 0;
            } else {
                const float scale = 1.0f / temperature;
                const double whole = all_sums(z, width, maximum, scale, sums);
                const Quantile q = quantile(sums, blocks, whole, seeds[r], numbers[r]);
                const i64 from = q.block * BLOCK, count = width - from < BLOCK ? width - from : BLOCK;
                token = from + place_of(q, z + from, count, maximum, scale);
                sampled[r] = (float)((one(z + token) - maximum) * scale - log(whole));
            }
            tokens[r] = token;
            if (temperature == 1)
                logprobs[r] = sampled[r];
            else
                logprobs[r] = (float)(one(z + token) - maximum - log(all_sums(z, width, maximum, 1.0f, sums)));
        }
    });
}

// Of each block of a row: its maximum, and the sums of e^(z - maximum) and of e^((z - maximum) / temperature), which
// lie in one place where they are the same.
struct Blocks {
    float *maxima, *plain, *tempered;
};

static inline void note(Blocks of, i64 at, const float *z, i64 count, float temperature) {
    v16 x[4], plain = {}, tempered = {};
    // what the vocabulary does not have weighs e^-87 beside the maximum's 1
    for (int b = 0; b < 4; b++) x[b] = first(load(z + 16 * b), count - 16 * b, -INFINITY);
    const v16 high = x[0] > x[1] ? x[0] : x[1], low = x[2] > x[3] ? x[2] : x[3];
    const float maximum = of.maxima[at] = largest(high > low ? high : low);
    for (int b = 0; b < 4; b++) plain += exp16(x[b] - maximum);
    of.plain[at] = total(plain);
    if (of.tempered == of.plain) return;
    for (int b = 0; b < 4; b++) tempered += exp16((x[b] - maximum) * (1.0f / temperature));
    of.tempered[at] = total(tempered);
}

// sums of blocks relative to their own maxima become relative to one maximum; their sum
static double joined(const float *maxima, float *sums, i64 blocks, float maximum, float scale) {
    double whole = 0;
    for (i64 b = 0; b < blocks; b += 16)  // what is behind the last block is room
        store(sums + b, load(sums + b) * exp16((load(maxima + b) - maximum) * scale));
    for (i64 b = 0; b < blocks; b++) whole += sums[b];
    return whole;
}

// work: 3 * stride floats a row, stride a multiple of 16 and at least the blocks
template <typename X>
static void head_draw(const X *hidden, const X *weight, const i64 *seeds, const i64 *numbers, i64 *tokens,
                      float *logprobs, float *sampled, float *work, i64 rows, i64 inputs, i64 outputs, i64 stride,
                      i64 threads, float temperature) {
    const i64 blocks = (outputs + BLOCK - 1) / BLOCK, size = rows * stride;
    const bool one_sum = temperature == 0 || temperature == 1;
    const Blocks of = {work, work + size, work + (one_sum ? 1 : 2) * size};
    const float scale = temperature == 0 ? 1 : 1.0f / temperature;
    product(hidden, weight, rows, inputs, outputs, threads, [&](i64 p, i64 top, i64 count, const float *sums) {
        const i64 width = outputs - p * BLOCK < BLOCK ? outputs - p * BLOCK : BLOCK;
        for (i64 r = 0; r < count; r++) note(of, (top + r) * stride + p, sums + r * PANEL, width, temperature);
    });
    share(rows, threads, [&](i64 top, i64 end, i64) {
        for (i64 r = top; r < end; r++) {
            const float *maxima = of.maxima + r * stride;
            float *sums = of.tempered + r * stride, z[BLOCK];
            const float maximum = largest(most(maxima, blocks, all(maxima[0])));
            const double whole = joined(maxima, sums, blocks, maximum, scale);
            Quantile q = {0, 0, 0};
            if (temperature == 0)
                while (q.block < blocks - 1 && maxima[q.block] != maximum) q.block++;
            else
                q = quantile(sums, blocks, whole, seeds[r], numbers[r]);
            const i64 from = q.block * BLOCK, count = outputs - from < BLOCK ? outputs - from : BLOCK;
            panel_product(hidden + r * inputs, 1, inputs, weight + from * inputs, z);  // the same bits as before
            i64 place = 0;
            if (temperature == 0)
                while (place < count - 1 && z[place] != maximum) place++;
            else
                place = place_of(q, z, count, maximum, scale);
            tokens[r] = from + place;
            const float chosen = z[place] - maximum;
            const double plain = one_sum ? whole : joined(maxima, of.plain + r * stride, blocks, maximum, 1);
            sampled[r] = temperature == 0 ? 0 : (float)(chosen * scale - log(whole));
            logprobs[r] = (float)(chosen - log(plain));
        }
    });
}
