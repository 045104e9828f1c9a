#ifndef PLUM_PAGES_H
#define PLUM_PAGES_H

/* Fewer mappings. Before a fork, after which the kernel takes neighbours for strangers; plum_pack sees to the rest. */
void plum_join(void);

/* Fewer and fuller pages: in a warm zygote, as the last thing before it forks, for what Python frees opens new holes. */
void plum_pack(void);

/* More arenas of CPython's are to come, side by side: until plum_pack, and again before the library zygote imports. */
void plum_open(void);

/* None are: in the judge, which lives long and gives back what one program's answers took. */
void plum_close(void);

#endif
