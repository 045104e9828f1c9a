// RMSNorm and SwiGLU, row by row.

#pragma once
#include "threads.h"
#include "vectors.h"

template <typename X>
static void rms_norm(const X *from, const float *weight, X *to, i64 rows, i64 width, i64 threads, float eps) {
    share(rows, threads, [&](i64 top, i64 end, i64) {
        for (i64 r = top; r < end; r++) {
            const X *x = from + r * width;
            X *out = to + r * width;
            v16 squares = {};
            float rest = 0;
            i64 i = 0;
            for (; i + 16 <= width; i += 16) squares += load(x + i) * load(x + i);
            for (i64 t = i; t < width; t++) rest += one(x + t) * one(x + t);
            const float inverse = 1.0f / sqrtf((total(squares) + rest) / width + eps);
            for (i = 0; i + 16 <= width; i += 16) store(out + i, load(x + i) * inverse * load(weight + i));
            for (; i < width; i++) put(out + i, one(x + i) * inverse * weight[i]);
        }
    });
}

// gate_up: (R, 2I), the gate first; out: (R, I)
template <typename X>
static void silu_mul(const X *from, X *to, i64 rows, i64 inner, i64 threads) {
    share(rows, threads, [&](i64 top, i64 end, i64) {
        for (i64 r = top; r < end; r++) {
            const X *gate = from + 2 * r * inner, *up = gate + inner;
            X *out = to + r * inner;
            i64 i = 0;
            for (; i + 16 <= inner; i += 16) {
                v16 x = load(gate + i);
                store(out + i, x / (1.0f + exp16(-x)) * load(up + i));
            }
            for (; i < inner; i++) put(out + i, one(gate + i) / (1.0f + expf(-one(gate + i))) * one(up + i));
        }
    });
}
