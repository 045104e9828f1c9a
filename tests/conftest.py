"""What every test gets: fixed seeds, one thread, no network, and poisoned memory where it asks for it."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# Hugging Face's libraries read these once, at import, and no conftest or plugin imports them earlier.
for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ[switch] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
# torch.compile's pool of processes would live on, and die as zombies, beside tests that count processes
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK_NAMES = frozenset({"", "localhost", "::", "::1", "0.0.0.0", socket.gethostname()})
UNINITIALISED = ("empty", "empty_like", "empty_strided")


def shared_data(name: str) -> Path:
    """The file or folder ``name`` of the reference data, or a skip that says what was looked for.

    They are not part of the repository: ``$PLUM_DATA`` names their folder, ``../shared/data`` is the default.
    """
    folder = Path(os.environ.get("PLUM_DATA", ROOT.parent / "shared" / "data"))
    path = folder / name
    if not path.exists():
        pytest.skip(f"no {path}: set PLUM_DATA to the folder that holds {name}")
    return path


@pytest.fixture(name="shared_data", scope="session")
def shared_data_fixture() -> Callable[[str], Path]:
    """``shared_data`` for tests that cannot import from a conftest."""
    return shared_data


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same draws whichever tests ran before, and in one thread: two workers share two cores."""
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _is_loopback(host: Any) -> bool:
    return not isinstance(host, str) or host in LOOPBACK_NAMES or host.startswith("127.")


def _refuse(host: Any) -> None:
    raise PermissionError(f"a test reached for {host!r}: tests use no network (mark it `network` if it must)")


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and addresses beyond the loopback are refused at once, not after a time-out in the dark."""
    if request.node.get_closest_marker("network"):
        return
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            _refuse(address[0])
        return connect(self, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_loopback(host):
            _refuse(host)
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)


def _poisoned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``make``, with what it left uninitialised set to NaN (floating) or the largest value of the type."""

    def allocate(*args: Any, **kwargs: Any) -> torch.Tensor:
        out = make(*args, **kwargs)
        if out.is_meta:
            return out
        with torch.no_grad():
            if out.is_floating_point() or out.is_complex():
                return out.fill_(float("nan"))
            return out.fill_(True if out.dtype == torch.bool else torch.iinfo(out.dtype).max)

    return allocate


@pytest.fixture(autouse=True)
def poison(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Under ``@pytest.mark.poison``, an element that nobody wrote is NaN: comparing it fails."""
    if request.node.get_closest_marker("poison"):
        for name in UNINITIALISED:
            monkeypatch.setattr(torch, name, _poisoned(getattr(torch, name)))
        for name in ("new_empty", "new_empty_strided"):
            monkeypatch.setattr(torch.Tensor, name, _poisoned(getattr(torch.Tensor, name)))
    yield
