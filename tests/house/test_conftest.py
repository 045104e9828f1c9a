"""The guards of tests/conftest.py bite: without this, a guard that stopped working would go unseen."""

from __future__ import annotations

import os
import random
import socket

import numpy as np
import pytest
import torch


def test_a_name_beyond_the_loopback_is_refused() -> None:
    with pytest.raises(PermissionError, match=r"example\.org"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_an_address_beyond_the_loopback_is_refused() -> None:
    with socket.socket() as s, pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        s.connect(("192.0.2.1", 80))  # TEST-NET-1 of RFC 5737: nobody's


def test_the_loopback_still_works() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
        server.accept()[0] as peer,
    ):
        client.sendall(b"x")
        assert peer.recv(1) == b"x"


def test_hub_libraries_are_told_to_stay_offline() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.poison
def test_poison_reaches_every_way_to_allocate() -> None:
    base = torch.zeros(3)
    for out in (torch.empty(3), torch.empty_like(base), base.new_empty(3), torch.empty_strided((3,), (1,))):
        assert out.isnan().all()
    assert (torch.empty(3, dtype=torch.int32) == torch.iinfo(torch.int32).max).all()
    assert torch.empty(3, dtype=torch.bool).all()


@pytest.mark.parametrize("again", [1, 2])
def test_draws_do_not_depend_on_earlier_tests(again: int) -> None:
    first = (random.random(), float(np.random.rand()), float(torch.rand(())))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    assert first == (random.random(), float(np.random.rand()), float(torch.rand(())))


def test_one_thread() -> None:
    assert torch.get_num_threads() == 1
