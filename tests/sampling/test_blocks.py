"""The block manager against a model that writes every token: no leak, no double free, no alias, no stale contents."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.sampling.blocks import BlockManager, OutOfBlocks

steps = st.lists(
    st.tuples(
        st.sampled_from(["open", "fork", "append", "append", "append", "shrink", "close", "forget"]),
        st.integers(0, 20),
        st.lists(st.integers(0, 1), min_size=1, max_size=11),
    ),
    max_size=60,
)


class Memory:
    """Tables and the tokens that stand in the blocks, written as an engine would write keys and values."""

    def __init__(self, blocks: int, size: int) -> None:
        self.manager, self.size = BlockManager(blocks, size), size
        self.cells: dict[tuple[int, int], object] = {}
        self.live: list[tuple[object, list[object]]] = []
        self.epoch = self.fresh = 0  # of the weights; of tokens that no other sequence can have

    def open(self, ids):
        table, found = self.manager.open(ids)
        assert found < len(ids) and found % self.size == 0
        contents = [(self.epoch, *ids[: i + 1]) for i in range(len(ids))]  # a key depends on all before it
        for i in range(found, len(ids)):
            self.cells[table.blocks[i // self.size], i % self.size] = contents[i]
        self.manager.publish(table, ids)
        self.live.append((table, contents))

    def append(self, which):
        table, contents = self.live[which]
        copied = self.manager.append(table)
        if copied:
            for i in range(self.size):
                self.cells[copied[1], i] = self.cells.get((copied[0], i))
        self.fresh += 1
        contents.append(("own", self.fresh))
        at = table.length - 1
        self.cells[table.blocks[at // self.size], at % self.size] = contents[-1]

    def shrink(self, which, number):
        table, contents = self.live[which]
        own = sum(token[0] == "own" for token in contents)
        length = len(contents) - number % (own + 1)
        self.manager.shrink(table, length)
        del contents[length:]

    def check(self):
        held = Counter(block for table, _ in self.live for block in table.blocks)
        assert self.manager.holders == [held[b] for b in range(len(self.manager.holders))]
        assert self.manager.free == len(self.manager.holders) - len(held)
        for table, contents in self.live:
            assert table.length == len(contents) <= len(table.blocks) * self.size < table.length + self.size
            assert contents == [self.cells[table.blocks[i // self.size], i % self.size] for i in range(len(contents))]


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(1, 12), st.integers(1, 4))
def test_every_sequence_reads_what_it_wrote_and_all_blocks_come_back(steps, blocks, size):
    memory = Memory(blocks, size)
    for what, number, ids in steps:
        which = number % len(memory.live) if memory.live else None
        try:
            if what == "open":
                memory.open(ids)
            elif what == "forget":
                memory.manager.forget()
                memory.epoch += 1
            elif which is not None and what == "append":
                memory.append(which)
            elif which is not None and what == "shrink":
                memory.shrink(which, number)
            elif which is not None and what == "fork":
                table, contents = memory.live[which]
                memory.live.append((memory.manager.fork(table), list(contents)))
            elif which is not None:
                table, _ = memory.live.pop(which)
                memory.manager.close(table)
                memory.manager.close(table)
        except OutOfBlocks:
            assert what in ("open", "append")
        memory.check()
    for table, _ in memory.live:
        memory.manager.close(table)
    assert memory.manager.free == blocks and not any(memory.manager.holders)


def test_a_prompt_finds_the_beginning_that_another_computed_until_the_weights_change():
    manager = BlockManager(8, 2)
    first, found = manager.open([1, 2, 3, 4, 5])
    assert found == 0
    manager.publish(first, [1, 2, 3, 4, 5])
    second, found = manager.open([1, 2, 3, 4, 9])
    assert found == 4 and second.blocks[:2] == first.blocks[:2] and second.blocks[2] != first.blocks[2]
    assert manager.open([3, 4, 3, 4, 5])[1] == 0  # the same tokens behind others are not the same block
    manager.close(first)
    manager.close(second)
    assert manager.open([1, 2, 3, 4])[1] == 2  # the last token's state is always computed
    manager.forget()
    assert manager.open([1, 2, 3])[1] == 0


def test_a_full_memory_refuses_and_changes_nothing():
    manager = BlockManager(2, 2)
    table, _ = manager.open([1, 2, 3])
    twin = manager.fork(table)
    with pytest.raises(OutOfBlocks):
        manager.append(twin)
    assert twin.blocks == table.blocks and twin.length == 3 and manager.holders == [2, 2]
    manager.close(table)
    assert manager.append(twin) is None
