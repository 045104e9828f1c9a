#ifndef PLUM_CALLS_H
#define PLUM_CALLS_H
#include <stdint.h>

#include "cpython.h"

enum { BROKEN = 70 }; /* child.py */

/* A child's descriptors, and the functions of child.py that do what is not common, each with `answers` before all. */
struct child {
    int32_t job, answers;
    Object *bound;    /* (bind, space), without `answers`: the functions that tests bind */
    Object *answer;   /* (nonce, index, call, space, bound): carry out a call and write its answer */
    Object *returned; /* (nonce, index, value, lazy): write what a call returned */
    Object *raised;   /* (nonce, index, exception): write that it raised; index -1: loading did */
};

/* Run `job` to the end of the process, where it is calls alone; else return and leave it as it is. */
void plum_calls(const struct child *child, Object *job);

#endif
