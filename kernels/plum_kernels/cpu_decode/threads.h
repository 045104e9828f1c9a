// Work shared among OpenMP's threads, in contiguous parts. Nothing computed depends on how many there are.

#pragma once
#include <cstdint>
#ifdef _OPENMP
#include <omp.h>
#endif

// work(first, last, thread) for parts that make up [0, items)
template <typename Work>
static inline void share(int64_t items, int64_t threads, Work work) {
#ifdef _OPENMP
    if (threads > 1 && items > 1) {
#pragma omp parallel num_threads(threads)
        {
            const int64_t n = omp_get_num_threads(), i = omp_get_thread_num();
            work(items * i / n, items * (i + 1) / n, i);
        }
        return;
    }
#endif
    work((int64_t)0, items, (int64_t)0);
}
