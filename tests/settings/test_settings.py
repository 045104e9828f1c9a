"""Files, then flags; what is not known or not of its type is refused in one sentence that names the place."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from plum_core import settings
from tests.conftest import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """How to draw."""

    temperature: float = 1.0
    """Softmax temperature; 0 is greedy."""
    n: int = 16  # samples an instruction
    kind: Literal["dpo", "kto"] = "dpo"
    stops: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be >= 1, got {self.n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    out: Path
    policy: Path | None = None
    quiet: bool = False
    sampling: Inner = field(default_factory=lambda: Inner(n=8))


def toml(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(*argv: str) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        settings.parse(Outer, argv)
    message = settings.sentence(caught.value)
    assert "\n" not in message and "│" not in message
    return message


def test_defaults_then_files_then_flags(tmp_path: Path) -> None:
    first = toml(tmp_path / "a.toml", 'out = "a"\n[sampling]\ntemperature = 1\nkind = "kto"\n')
    second = toml(tmp_path / "b.toml", "quiet = true\n[sampling]\ntemperature = 0.5\nstops = [3]\n")
    config = settings.parse(Outer, ["--config", first, f"--config={second}", "--sampling.stops", "4", "5"])
    inner = Inner(temperature=0.5, n=8, kind="kto", stops=(4, 5))
    assert config == Outer(out=Path("a"), quiet=True, sampling=inner)
    assert settings.parse(Outer, ["--out", "a"]).sampling.n == 8


def test_a_required_field_may_come_from_a_file_or_a_flag_but_not_from_nowhere(tmp_path: Path) -> None:
    path = toml(tmp_path / "a.toml", "[sampling]\nn = 2\n")
    assert settings.parse(Outer, ["--config", path, "--out", "x"]).out == Path("x")
    assert "--out" in refused("--config", path)


def test_a_preset_is_a_file_by_name(tmp_path: Path) -> None:
    preset = Path(toml(tmp_path / "smoke.toml", "[sampling]\nn = 2\n"))
    argv = ["--out", "x", "--smoke", "--sampling.kind", "kto"]
    config = settings.parse(Outer, argv, presets={"smoke": preset})
    assert (config.sampling.n, config.sampling.kind) == (2, "kto")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[sampling]\ntemprature = 1\n", "unknown key sampling.temprature; did you mean sampling.temperature?"),
        ("zzz = 1\n", "unknown key zzz; known here: out, policy, quiet, sampling"),
        ('[sampling]\nn = "four"\n', "sampling.n wants an integer, got 'four'"),
        ("[sampling]\nn = true\n", "sampling.n wants an integer, got True"),
        ('[sampling]\nkind = "ppo"\n', "sampling.kind wants one of dpo, kto, got 'ppo'"),
        ("sampling = 3\n", "sampling wants a table [sampling], got 3"),
        ("[sampling]\nstops = 3\n", "sampling.stops wants a list, got 3"),
        ('[sampling]\nstops = [1, "x"]\n', "sampling.stops[1] wants an integer"),
        ("[sampling\n", "is not TOML"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    path = toml(tmp_path / "bad.toml", text)
    message = refused("--config", path, "--out", "x")
    assert path in message and complaint in message


def test_a_flag_that_is_wrong_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path / "one.toml", "[sampling]\nn = 1\n")
    message = refused("--config", path, "--out", "x", "--sampling.n", "0")
    assert "n must be >= 1, got 0" in message and path not in message


def test_what_a_file_gets_wrong_a_flag_may_mend(tmp_path: Path) -> None:
    path = toml(tmp_path / "zero.toml", "[sampling]\nn = 0\n")
    message = refused("--config", path, "--out", "x")
    assert "n must be >= 1, got 0" in message and f"sampling.n is set in {path}" in message
    assert settings.parse(Outer, ["--config", path, "--out", "x", "--sampling.n", "1"]).sampling.n == 1


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--sampling.temprature", "1"], "unknown flag --sampling.temprature; did you mean --sampling.temperature?"),
        (["--qqq"], "unknown flag --qqq; see --help"),
        (["--sampling.n", "four"], "sampling.n"),
        (["--sampling.kind", "ppo"], "invalid choice 'ppo'"),
        (["stray"], "stray"),
        (["--config"], "--config needs the path"),
        (["--config", "no/such.toml"], "no/such.toml does not exist"),
    ],
)
def test_a_bad_flag_is_refused(argv: list[str], complaint: str) -> None:
    assert complaint in refused("--out", "x", *argv)


def test_flags_know_dashes_and_negations() -> None:
    assert settings.parse(Outer, ["--out", "x", "--quiet"]).quiet
    assert not settings.parse(Outer, ["--out=x", "--no-quiet"]).quiet


def test_help_shows_every_field_with_its_default_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        settings.parse(Outer, ["--help"], doc="Draws.", presets={"smoke": Path("s.toml")})
    shown = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    for name in settings.flag_names(Outer):
        assert f"--{name}" in shown
    for words in ("Draws.", "(default: 1.0)", "0 is greedy", "samples an instruction", "--dry-run", "--smoke"):
        assert words in shown


def test_dry_run_prints_what_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--out", 'odd "name"', "--sampling.n", "3"]
    with pytest.raises(SystemExit) as stop:
        settings.parse(Outer, [*argv, "--dry-run"])
    assert stop.value.code == 0
    path = toml(tmp_path / "again.toml", capsys.readouterr().out)
    assert settings.parse(Outer, ["--config", path]) == settings.parse(Outer, argv)


def test_main_turns_the_callers_mistakes_into_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    class Unavailable(RuntimeError):
        pass

    def fail(error: Exception) -> int:
        def run(config: Outer) -> None:
            raise error

        return settings.main(run, Outer, ["--out", "x"], errors=(Unavailable,))

    assert fail(ValueError("a\nb")) == 2 and capsys.readouterr().err == "error: a b\n"
    assert fail(FileNotFoundError(2, "No such file", "f")) == 2
    assert capsys.readouterr().err == "error: f: No such file\n"
    assert fail(Unavailable("no seccomp")) == 2
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    assert settings.main(lambda config: 3, Outer, ["--out", "x"]) == 3


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings.main(lambda config: None, Outer, ["--debug", "--nope"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_under_torchrun_one_rank_speaks_of_a_bad_config() -> None:
    code = (
        "from dataclasses import dataclass\nfrom plum_core import settings\n"
        "@dataclass(frozen=True)\nclass C:\n    n: int = 1\n"
        "raise SystemExit(settings.main(lambda c: 0, C, ['--m', '1']))\n"
    )
    spoken = []
    for rank in "01":
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"RANK": rank}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        spoken.append(done.stderr)
    assert spoken == ["error: unknown flag --m; see --help\n", ""]
