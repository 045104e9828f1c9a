"""What an escaped program could hurt, and programs that try: run as a script, it prints what became of them.

    python canaries.py {"uid": 65534, "container": false, "shared": "attacks.jsonl", "folder": "/tmp/x"}

The canaries are a process, files, a shared memory segment and listening sockets, all of the same user as the programs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plum_core.execution import Executor, Limits
from plum_core.records.types import Program
from tests.execution.attacks import ATTACKS, _leak, _syscall

CONTENT = "the canary sings\n"
KEY = 0x506C  # of what the programs would leave behind
# numbers of x86_64: the acts that Python itself does not offer
_PTRACE, _VM_READ, _SHMCTL, _PRIORITY = 101, 310, 31, 141


def acts(folder: str, pid: int, shm: int, port: int) -> list[tuple[str, str]]:
    """Name and source of what is tried on the canaries; each raises when it is refused."""
    file = f"{folder}/canary"
    return [
        ("file_read", f"assert open({file!r}).read()"),
        ("file_write", f"open({file!r}, 'w').write('dead')"),
        ("file_append", f"import os\nos.write(os.open({file!r}, os.O_WRONLY | os.O_APPEND), b'dead')"),
        ("file_truncate", f"import os\nos.truncate({file!r}, 0)"),
        ("file_unlink", f"import os\nos.unlink({file!r})"),
        ("file_rename", f"import os\nos.rename({file!r}, {file + '2'!r})"),
        ("file_link", f"import os\nos.link({file!r}, {file + '3'!r})"),
        ("file_symlink", f"import os\nos.symlink({file!r}, {file + '4'!r})"),
        ("file_chmod", f"import os\nos.chmod({file!r}, 0)"),
        ("file_times", f"import os\nos.utime({file!r}, (1, 1))"),
        ("file_fifo", f"import os\nos.mkfifo({file + '5'!r})"),
        ("file_xattr", f"import os\nos.setxattr({file!r}, 'user.x', b'dead')"),
        ("kill", f"import os\nos.kill({pid}, 9)"),
        ("pidfd", f"import os, signal\nsignal.pidfd_send_signal(os.pidfd_open({pid}), 9)"),
        ("ptrace", _syscall(_PTRACE, 16, pid, 0, 0)),
        ("vm_read", _syscall(_VM_READ, pid, 0, 0, 0, 0, 0)),
        ("proc_mem", f"open('/proc/{pid}/mem', 'r+b', 0)"),
        ("proc_environ", f"open('/proc/{pid}/environ', 'rb').read()"),
        ("affinity", f"import os\nos.sched_setaffinity({pid}, {{0}})"),
        ("priority", _syscall(_PRIORITY, 0, pid, 19)),
        ("limits", f"import resource\nresource.prlimit({pid}, resource.RLIMIT_CPU, (1, 1))"),
        ("shared_memory", _syscall(_SHMCTL, shm, 0, 0)),
        ("tcp_connect", f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"),
        ("unix_connect", f"import socket\nsocket.socket(socket.AF_UNIX).connect({folder + '/socket'!r})"),
        ("abstract_connect", f"import socket\nsocket.socket(socket.AF_UNIX).connect('\\0plum-{pid}')"),
        ("socketpair_bind", "import socket\na, b = socket.socketpair()\na.bind('\\0plum-x')"),
        ("message_queue", _syscall(68, KEY, 0o1666)),
        ("semaphores", _syscall(64, KEY, 1, 0o1666)),
        ("new_shared_memory", _syscall(29, KEY, 4096, 0o1666)),
    ]


class Canaries:
    """Made before the programs run, looked at after them."""

    def __init__(self, folder: Path) -> None:
        import ctypes

        self.folder = folder
        self.file = folder / "canary"
        self.file.write_text(CONTENT)
        self.process = subprocess.Popen([sys.executable, "-S", "-c", "import time\nwhile True: time.sleep(1)"])
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.shm = self.libc.shmget(0, 4096, 0o1600)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix.bind(str(folder / "socket"))
        self.abstract.bind(f"\0plum-{self.process.pid}")
        for listener in (self.unix, self.abstract, self.tcp):
            listener.listen()
            listener.setblocking(False)
        self.before = self.world()

    def acts(self) -> list[tuple[str, str]]:
        return acts(str(self.folder), self.process.pid, self.shm, self.tcp.getsockname()[1])

    def world(self) -> dict[str, Any]:
        """What must be the same afterwards."""
        meta = self.file.stat() if self.file.exists() else None
        places = [self.folder, Path("/dev/shm"), Path("/dev/mqueue")]
        status = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        ids = [Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:] for kind in ("shm", "msg", "sem")]
        return {
            "content": self.file.read_text() if meta else None,
            "meta": [meta.st_mode, meta.st_mtime_ns, meta.st_nlink] if meta else None,
            "files": sorted(str(path) for place in places if place.is_dir() for path in place.iterdir()),
            "alive": self.process.poll() is None and status[0] != "T",
            "nice": status[16],
            "affinity": sorted(os.sched_getaffinity(self.process.pid)),
            "ipc": sorted(line.split()[1] + ":" + line.split()[0] for kind in ids for line in kind),
        }

    def visitors(self) -> int:
        """Connections that reached a listener."""
        count = 0
        for listener in (self.tcp, self.unix, self.abstract):
            try:
                listener.accept()
                count += 1
            except BlockingIOError:
                pass
        return count

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.libc.shmctl(self.shm, 0, None)
        for get, remove in (("shmget", "shmctl"), ("semget", "semctl"), ("msgget", "msgctl")):
            number = getattr(self.libc, get)(KEY, 0, 0)
            getattr(self.libc, remove)(number, *((0, 0, None) if get == "semget" else (0, None)))


def main(options: dict[str, Any]) -> None:
    """Become the user, run everything, print one JSON object."""
    if os.getuid() != options["uid"]:
        os.setgroups([])
        os.setgid(options["uid"])
        os.setuid(options["uid"])
    canaries = Canaries(Path(options["folder"]))
    if options["container"]:
        exec(options["container"], {})
    attacks = [*ATTACKS, *(_leak(f"canary_{name}", name, act) for name, act in canaries.acts())]
    programs = [Program(id=a.name, code=a.code, tests=a.tests) for a in attacks]
    expected: dict[str, Any] = {a.name: a.expected for a in attacks}
    if options["shared"]:
        for line in Path(options["shared"]).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "numpy" in row["code"] and not find_spec("numpy"):
                continue
            programs.append(Program(id="shared " + row["id"], code=row["code"], tests=tuple(row["tests"])))
            expected["shared " + row["id"]] = row["expected"]
    with Executor(workers=2, limits=Limits(cpu_s=1, wall_s=1, memory_mib=1024)) as executor:
        layers = executor.layers
        verdicts = list(executor.run(programs))
    wrong = [(v.id, v.outcome.value, v.detail) for v in verdicts if v.outcome.value not in expected[v.id]]
    after = canaries.world()
    changed = {key: [canaries.before[key], after[key]] for key in after if canaries.before[key] != after[key]}
    told = {"uid": os.getuid(), "layers": layers, "programs": len(programs), "verdicts": len(verdicts), "wrong": wrong}
    print(json.dumps({**told, "changed": changed, "visitors": canaries.visitors()}))
    canaries.end()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
