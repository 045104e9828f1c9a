"""A finished run whose policy writes what a browser would obey, and Chromium where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plum_core.rounds.folder import RunFolder
from plum_core.rounds.loop import Rounds
from tests.reporting.browser import Browser
from tests.rounds.fakes import FakeEngine, FakePolicy, FakeSource, make_config

# All in a comment, so that the program compiles: U+2028 ends a line in JavaScript, U+202E turns the reading order.
NASTY = (
    "</pre></script><script>document.title='owned'</script><!--<script>&amp;\u2028\u202e\x1b[2J<img src=x onerror=x>"
)


class NastyPolicy(FakePolicy):
    tail = f"  # {NASTY}"


class NastyEngine(FakeEngine):
    def policy(self, folder: Path) -> FakePolicy:
        return NastyPolicy(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = make_config(tmp_path_factory.mktemp("report"))
    return Rounds(config, FakeSource(heldout=30), NastyEngine(), argv=["plum"]).go()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()
