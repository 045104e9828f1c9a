/* Few, large pages for the zygote: a fork copies, and an exit drops, an entry for each page that is mapped.
 *
 * Preloaded into the interpreter, so that its heap begins at a huge page's boundary and Python's arenas lie side by
 * side. When the zygote is warm, plum_pack asks the kernel to make huge pages of both, and of the interpreter's text,
 * which else each child maps anew. All of this may fail, and costs time alone.
 */
#include "pages.h"

#include "cpython.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { ARENA = 1 << 20, POOL = 16 << 10, POOL_HEADER = 48, ALIGNMENT = 16, SMALL = 512 }; /* pycore_obmalloc.h */
enum { BLOCKS = 32, HEAP = 4 << 20, THRESHOLD = 128 << 10 }; /* HEAP: what the zygote takes; THRESHOLD: glibc's own */
static const uintptr_t HUGE = 2 << 20;

static char *blocks[BLOCKS], *heap; /* of two arenas each; where the C heap begins */
static char taken[BLOCKS][2];
static int count, open; /* blocks; whether there may be more */

static uintptr_t up(const void *at) { return ((uintptr_t)at + HUGE - 1) & ~(HUGE - 1); }
static uintptr_t down(const void *at) { return (uintptr_t)at & ~(HUGE - 1); }

static char *mapped(size_t size) {
    char *made = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

/* `size` bytes from a huge page's boundary on, and nothing beside them: programs have a limit of address space. */
static char *aligned(size_t size) {
    char *made = mapped(size + HUGE);
    if (made == NULL) return NULL;
    char *from = (char *)up(made), *end = made + size + HUGE;
    if (from > made) munmap(made, (size_t)(from - made));
    if (end > from + size) munmap(from + size, (size_t)(end - from) - size);
    return from;
}

static void *arena(void *context, size_t size) {
    (void)context;
    if (size != ARENA) return mapped(size);
    for (int i = 0; i < 2 * count; i++)
        if (!taken[i / 2][i % 2]) {
            taken[i / 2][i % 2] = 1;
            return blocks[i / 2] + (i % 2) * ARENA;
        }
    if (!open || count == BLOCKS || (blocks[count] = aligned(HUGE)) == NULL) return mapped(size);
    taken[count][0] = 1;
    return blocks[count++];
}

static void arena_is_free(void *context, void *at, size_t size) {
    (void)context;
    for (int i = 0; i < count; i++)
        if (down(at) == (uintptr_t)blocks[i]) {
            madvise(at, size, MADV_DONTNEED);
            taken[i][at != blocks[i]] = 0;
            return;
        }
    munmap(at, size);
}

__attribute__((constructor)) static void begin(void) {
    if (PyObject_SetArenaAllocator == NULL) return; /* some other program */
    plum_open();
    PyObject_SetArenaAllocator(&(ArenaAllocator){NULL, arena, arena_is_free});
    free(malloc(1)); /* malloc's cache, which every child writes to, stays outside of the huge pages */
    char *top = sbrk(0), *boundary = (char *)up(top);
    if (boundary > top && sbrk(boundary - top) != (void *)-1) {
        munmap((void *)(((uintptr_t)top + 4095) & ~4095UL), (size_t)(boundary - top) & ~4095UL);
        heap = boundary;
    }
    mallopt(M_TRIM_THRESHOLD, 2 * HEAP); /* whoever sets one of these sets all: they no longer adapt themselves */
    mallopt(M_MMAP_THRESHOLD, ARENA);
    mallopt(M_TOP_PAD, HEAP); /* at once, so that it is one mapping */
}

void plum_open(void) { open = 1; }

void plum_close(void) {
    open = 0;
    mallopt(M_TRIM_THRESHOLD, THRESHOLD);
    mallopt(M_MMAP_THRESHOLD, THRESHOLD);
    mallopt(M_TOP_PAD, THRESHOLD);
}

/* Whether nothing else has come from the pool of `made`: the word before its end is where its untouched part begins. */
static int is_first_of_pool(const char *made, size_t size) {
    if ((uintptr_t)made % POOL != POOL_HEADER) return 0;
    uint32_t untouched;
    memcpy(&untouched, made - 8, sizeof untouched);
    return untouched == POOL_HEADER + 2 * size;
}

/* Use up what is free between objects that stay. What a child makes then lies together in pages that it writes anyway:
 * in CPython's pools, one size of object each, from the page of a pool's header on, and at the top of the C heap. */
static void fill_holes(void) {
    int known = 1; /* whether pools look as above */
    for (size_t size = ALIGNMENT; known && size <= SMALL; size += ALIGNMENT) {
        char *made;
        size_t spent = 0;
        do made = PyObject_Malloc(size), spent += size;
        while (made != NULL && !is_first_of_pool(made, size) && spent < ARENA);
        known = made != NULL && spent < ARENA;
    }
    for (size_t size = 64 << 10; size >= ALIGNMENT; size /= 2)
        for (;;) {
            char *top = (char *)sbrk(0) - mallinfo2().keepcost, *made = malloc(size);
            if (made == NULL) return;
            if (made >= top) {
                free(made);
                break;
            }
        }
}

static void collapse(const void *from, const void *to) {
    uintptr_t first = up(from), last = down(to);
    if (first < last) madvise((void *)first, last - first, MADV_COLLAPSE);
}

/* The text and constants of the object that holds `data`'s symbol, as one anonymous mapping in huge pages. */
static int move_text(struct dl_phdr_info *object, size_t size, void *data) {
    (void)size;
    uintptr_t symbol = (uintptr_t)data, from = UINTPTR_MAX, to = 0, page = (uintptr_t)getpagesize();
    int holds = 0, whole = 1; /* readable, and without a gap */
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || part->p_flags & PF_W) continue;
        uintptr_t begin = object->dlpi_addr + part->p_vaddr, end = begin + part->p_memsz;
        whole &= part->p_flags & PF_R && (to == 0 || begin <= ((to + page - 1) & ~(page - 1)));
        if (begin < from) from = begin;
        if (end > to) to = end;
        holds |= begin <= symbol && symbol < end;
    }
    if (!holds) return 0;
    from = up((void *)from), to = down((void *)to);
    if (!whole || from >= to) return 1;
    size_t length = to - from;
    char *copy = aligned(length);
    if (copy == NULL) return 1;
    madvise(copy, length, MADV_HUGEPAGE);
    memcpy(copy, (void *)from, length);
    __builtin___clear_cache(copy, copy + length);
    if (mprotect(copy, length, PROT_READ | PROT_EXEC) < 0 ||
        mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)from) == MAP_FAILED)
        munmap(copy, length); /* some systems let nobody make memory executable that was written to */
    return 1;
}

static void protect(const ElfW(Phdr) *part, uintptr_t base, int protection) {
    uintptr_t page = (uintptr_t)getpagesize(), from = (base + part->p_vaddr) & ~(page - 1);
    uintptr_t to = base + part->p_vaddr + part->p_memsz;
    to = part->p_type == PT_GNU_RELRO ? to & ~(page - 1) : (to + page - 1) & ~(page - 1);
    if (from < to) mprotect((void *)from, to - from, protection);
}

/* Constants like text, and relocated constants like data: the kernel joins neighbours, and a fork copies two mappings
 * for a library and not five. A program may map executable memory anyway: what it can do is bounded by its calls. */
static int join(struct dl_phdr_info *object, size_t size, void *data) {
    (void)size, (void)data;
    if (object->dlpi_addr == getauxval(AT_SYSINFO_EHDR)) return 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_GNU_RELRO) protect(part, object->dlpi_addr, PROT_READ | PROT_WRITE);
        if (part->p_type == PT_LOAD && !(part->p_flags & PF_W)) protect(part, object->dlpi_addr, PROT_READ | PROT_EXEC);
    }
    return 0;
}

void plum_join(void) { dl_iterate_phdr(join, NULL); }

void plum_pack(void) {
    PyGC_Enable(); /* for the children: nothing here makes an object from now on */
    PyGC_Collect(); /* empties the lists of spare objects too, which lie anywhere */
    if (count == 0) return;
    fill_holes();
    mallopt(M_TOP_PAD, THRESHOLD);
    for (int i = 0; i < count; i++) collapse(blocks[i], blocks[i] + HUGE);
    if (heap != NULL) collapse(heap, sbrk(0));
    plum_join();
    static int text_is_moved; /* in the base zygote, for the library zygote too */
    if (!text_is_moved++) dl_iterate_phdr(move_text, (void *)(uintptr_t)PyObject_SetArenaAllocator);
    open = 0;
}
