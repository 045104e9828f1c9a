"""Runs a command as a kernel built without seccomp would: python without_seccomp.py COMMAND...

A filter of our own answers seccomp(2) with ENOSYS and prctl(PR_SET_SECCOMP) with EINVAL, as such a kernel does, and
lets everything else through. It is inherited by every descendant.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SECCOMP, PRCTL = {"x86_64": (317, 157), "aarch64": (277, 167)}[platform.machine()]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16  # offsets in struct seccomp_data
ENOSYS, EINVAL = 38, 22

PROGRAM = [  # (code, jump if true, jump if false, k)
    (LOAD, 0, 0, NUMBER_AT),
    (JUMP_IF_EQUAL, 5, 0, SECCOMP),  # to ENOSYS
    (JUMP_IF_EQUAL, 0, 2, PRCTL),  # else to ALLOW
    (LOAD, 0, 0, FIRST_ARGUMENT_AT),
    (JUMP_IF_EQUAL, 1, 0, PR_SET_SECCOMP),  # to EINVAL
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, ERRNO | EINVAL),
    (RETURN, 0, 0, ERRNO | ENOSYS),
]


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in PROGRAM))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(PROGRAM), ctypes.addressof(code)))
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*(w if isinstance(w, ctypes.Array) else ctypes.c_ulong(w) for w in words)):
            sys.exit(f"prctl{words[:2]}: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
