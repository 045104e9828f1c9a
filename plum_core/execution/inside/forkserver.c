/* The zygote's loop and a child's first moments: fork, confinement, the job. Reference: zygote.py, confine.py.
 *
 * After a fork each page that is written is copied, in the child and in the zygote, and a Python statement writes to a
 * page for nearly every object that it touches. Here no object of Python's is touched: the zygote goes on with the
 * pages that it has, and a child begins with its job. Plain C without Python.h: one library serves every CPython.
 */
#include "calls.h"
#include "pages.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern pid_t _Fork(void); /* fork without handlers: this process has one thread */

enum { LIBRARY = -1, STILL_ALIVE = -1, GRACE_MS = 200 }; /* zygote.py */
static const struct timespec PAUSE = {0, 500000};

/* The messages of the judge and to it, REQUEST and ANSWER of zygote.py. */
struct __attribute__((packed)) answer {
    int32_t status;
    double cpu_s;
    int64_t peak_kib, pid;
};

/* What the zygote prepared, native.py. `filter`: the child's, whose words `pids` are the child's own pid. */
struct zygote {
    int32_t pid, control, open_files, pid_words;
    struct child child;
    uint32_t *filter;
    const uint32_t *pids;
    struct sock_fprog *program;
};

/* Confine this process, a fresh fork: the number of the step that failed (confine.py has their names), 0 for none. */
int plum_enter(const struct zygote *zygote) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) return 1;
    if (getppid() != zygote->pid) return 2;
    if (setsid() < 0) return 3;
    uint32_t own = (uint32_t)getpid();
    for (int i = 0; i < zygote->pid_words; i++) zygote->filter[zygote->pids[i]] = own;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, zygote->program, 0, 0) < 0) return 4;
    if (syscall(SYS_close_range, zygote->child.answers + 1, ~0U, 0) < 0)
        for (int fd = zygote->child.answers + 1; fd < zygote->open_files; fd++) close(fd);
    return 0;
}

static void read_exactly(int fd, char *to, size_t size) {
    while (size > 0) {
        ssize_t got = read(fd, to, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) _exit(BROKEN);
        to += got;
        size -= (size_t)got;
    }
}

/* The job, as the judge wrote it: a new reference. Not a byte more is read, for descriptors may follow. */
static Object *read_job(int fd) {
    uint32_t size; /* little-endian, as are the machines that the filter is written for */
    read_exactly(fd, (char *)&size, sizeof size);
    char *bytes = malloc(size);
    if (bytes == NULL) _exit(BROKEN);
    read_exactly(fd, bytes, size);
    Object *job = PyMarshal_ReadObjectFromString(bytes, size);
    free(bytes);
    return job;
}

static int waited(pid_t pid, int options, struct answer *answer) {
    struct rusage usage;
    int status;
    pid_t done;
    do done = wait4(pid, &status, options, &usage);
    while (done < 0 && errno == EINTR);
    if (done != pid) return 0;
    answer->status = status;
    answer->cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec);
    answer->cpu_s += 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    answer->peak_kib = usage.ru_maxrss;
    return 1;
}

/* Collect child `old`, which is killed if it lives; `-old` has a moment to die first. */
static void collect(int64_t old, struct answer *answer) {
    pid_t pid = (pid_t)(old < 0 ? -old : old);
    if (old < 0)
        for (int tries = 0; tries < GRACE_MS * 2; tries++) {
            if (waited(pid, WNOHANG, answer)) return;
            nanosleep(&PAUSE, NULL);
        }
    if (kill(pid, SIGKILL) < 0 || !waited(pid, 0, answer)) abort();
    if (old < 0) answer->status = STILL_ALIVE;
}

/* One request and its descriptors, which take the numbers of a child's; 0 when the judge is gone. */
static int receive(const struct zygote *zygote, int64_t *number, int *descriptors) {
    char space[CMSG_SPACE(2 * sizeof(int))];
    struct iovec packet = {number, sizeof *number};
    struct msghdr message = {.msg_iov = &packet, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    ssize_t got;
    do got = recvmsg(zygote->control, &message, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof *number) return 0;
    *descriptors = CMSG_FIRSTHDR(&message) != NULL;
    return 1;
}

/* Serve the judge. Returns in a child, confined, with its job, where that is not calls alone; and in the zygote, with
 * None, for the request LIBRARY, whose descriptor is open as `job`: that one is served in Python. */
Object *plum_serve(const struct zygote *zygote) {
    plum_pack();
    for (;;) {
        int64_t number;
        int descriptors;
        struct answer answer = {0, 0.0, 0, 0};
        if (!receive(zygote, &number, &descriptors)) _exit(0);
        if (number == LIBRARY) return Py_BuildValue("");
        if (number != 0) collect(number, &answer);
        if (descriptors) {
            answer.pid = _Fork();
            if (answer.pid == 0) {
                if (plum_enter(zygote) != 0) {
                    kill(getpid(), SIGKILL); /* no confined child can send that: our failure */
                    _exit(BROKEN);
                }
                Object *job = read_job(zygote->child.job);
                if (job != NULL) plum_calls(&zygote->child, job);
                return job;
            }
            close(zygote->child.job);
            close(zygote->child.answers);
        }
        if (send(zygote->control, &answer, sizeof answer, MSG_NOSIGNAL) < 0) _exit(0);
    }
}
