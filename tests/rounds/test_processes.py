"""The loop in real processes: SIGKILL anywhere, two ranks, a launcher that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plum_core.rounds.compare import differences
from plum_core.rounds.process import die_with_parent
from tests.conftest import ROOT
from tests.rounds.fakes import FakeEngine, FakeSource, make_config
from tests.rounds.test_loop import Rounds

pytestmark = pytest.mark.timeout(300)  # a dozen processes each, maybe beside another worker's

PATHS = {"PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("", "models", "kernels", "runners"))}
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2"),
    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=ROOT, env=os.environ | PATHS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0, out
    return out


@pytest.mark.parametrize(("kind", "how"), [("fake", "kill"), ("ahead", "kill"), ("real", "kill"), ("real", "term")])
def test_kill_at_any_write_changes_no_byte(tmp_path: Path, kind: str, how: str) -> None:
    """Runs are killed at their n-th rename, sync or removal, some twice; then the same run goes on to its end.

    fake: many moments of two rounds over fakes. ahead: the same with samples drawn beside training. real: a few of one
    round with a policy, the sandbox and training.
    term: SIGTERM, after which a sitting has to end with status 0.
    """
    each = {"fake": 3, "ahead": 2, "real": 1}[kind]
    out = finish(start(sys.executable, "-m", "tests.rounds.kill_driver", str(tmp_path), str(each), kind, how))
    report = json.loads(out.splitlines()[-1])
    assert report["different"] == [] and report["kills"] >= 6 * each
    assert set(report["stages"]) >= {"tests", "samples", "verdicts", "preferences", "training", "evaluation"}


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(what: object, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_two_ranks_share_the_work_and_die_with_their_launcher(tmp_path: Path) -> None:
    make_config(tmp_path)
    folder = tmp_path / "ranks"
    folder.mkdir()
    driver = str(ROOT / "tests/rounds/rank_driver.py")
    launcher = start(*TORCHRUN, driver, str(folder), "0.02")
    wait_for((folder / "run/round-001/verdicts.parts").exists)
    pids = [int((folder / f"pid-{rank}").read_text()) for rank in (0, 1)]
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    wait_for(lambda: not any(map(alive, pids)), 20)
    assert not (folder / "run/round-002").exists()

    finish(start(*TORCHRUN, driver, str(folder), "0"))
    assert all(int((folder / f"judged-{rank}").read_text()) > 0 for rank in (0, 1))
    alone = make_config(tmp_path / "alone", policy=tmp_path / "policy")
    Rounds(alone, FakeSource(), FakeEngine(), argv=["plum"]).go()
    assert differences(tmp_path / "alone/run", folder / "run") == []


def test_a_process_without_torchrun_outlives_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert die_with_parent() is False
