"""Who holds which block of key/value memory: counts and tables, no tensors, no policy of who is served.

A sequence holds a table of blocks, each for ``block_size`` tokens. Full blocks of a prompt are known by their tokens
and all that stands before them, so that a later prompt with the same beginning takes them instead of computing them.
A block that nobody holds keeps its contents, and can be found again, until its room is needed (oldest first).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

Prefix = tuple[int | None, tuple[int, ...]]  # the number of the block's predecessor in the index, its own tokens


class OutOfBlocks(Exception):
    """No block is free. Nothing was changed; the caller may preempt a sequence and try again."""


@dataclass(slots=True)
class Table:
    """blocks: of one sequence, in order. length: tokens in them."""

    blocks: list[int] = field(default_factory=list)
    length: int = 0


class BlockManager:
    """``blocks`` blocks of ``block_size`` tokens, counted by holders."""

    def __init__(self, blocks: int, block_size: int) -> None:
        if blocks < 1 or block_size < 1:
            raise ValueError(f"a block manager needs blocks and block_size of at least 1, got {blocks}, {block_size}")
        self.block_size = block_size
        self.holders = [0] * blocks
        self._blank = list(range(blocks))[::-1]
        self._idle: OrderedDict[int, None] = OrderedDict()  # held by nobody, contents still known
        self._known: dict[Prefix, int] = {}
        self._prefix: dict[int, tuple[Prefix, int]] = {}  # by block: its key and its number in the index
        self._numbers = 0  # never used twice, so that a reused block is no false predecessor

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._blank) + len(self._idle)

    def open(self, token_ids: Sequence[int]) -> tuple[Table, int]:
        """Blocks for a prompt, and how many of its tokens are in them already.

        The last token is never found: its state is what the first draw needs. Raises OutOfBlocks.
        """
        found = self._find(token_ids)
        wanted = -(-len(token_ids) // self.block_size) - len(found)
        if wanted > self.free - sum(block in self._idle for block in found):
            raise OutOfBlocks(f"{wanted} blocks wanted for a prompt of {len(token_ids)} tokens, {self.free} free")
        for block in found:
            self._hold(block)
        return Table(found + [self._take() for _ in range(wanted)], len(token_ids)), len(found) * self.block_size

    def publish(self, table: Table, token_ids: Sequence[int]) -> None:
        """The prompt's full blocks are computed: from now on ``open`` may find them."""
        before: int | None = None
        for i in range(min(len(token_ids), table.length) // self.block_size):
            key = (before, tuple(token_ids[i * self.block_size : (i + 1) * self.block_size]))
            block = table.blocks[i]
            if key not in self._known and block not in self._prefix:
                self._numbers += 1
                self._known[key], self._prefix[block] = block, (key, self._numbers)
            known = self._known.get(key)
            if known is None:
                return
            before = self._prefix[known][1]

    def fork(self, table: Table) -> Table:
        """Another holder of the same blocks; it is given its own last block when it first writes there."""
        for block in table.blocks:
            self._hold(block)
        return Table(list(table.blocks), table.length)

    def append(self, table: Table) -> tuple[int, int] | None:
        """Room for one more token. (from, to) where the caller must copy a shared block before writing.

        Raises OutOfBlocks, with the table as it was.
        """
        copied = None
        if table.length == len(table.blocks) * self.block_size:
            table.blocks.append(self._take())
        elif self.holders[table.blocks[-1]] > 1:
            shared, mine = table.blocks[-1], self._take()
            self._drop(shared)
            table.blocks[-1] = mine
            copied = shared, mine
        table.length += 1
        return copied

    def shrink(self, table: Table, length: int) -> None:
        """Forget the sequence's tokens from ``length`` on, all of them after its prompt."""
        assert 0 < length <= table.length, f"a table of {table.length} tokens cannot shrink to {length}"
        keep = -(-length // self.block_size)
        for block in reversed(table.blocks[keep:]):
            self._drop(block)
        del table.blocks[keep:]
        table.length = length

    def close(self, table: Table) -> None:
        """Give the sequence's blocks back; the table is empty afterwards, so that closing twice gives nothing twice."""
        for block in reversed(table.blocks):  # the ends are forgotten first: a beginning serves more prompts
            self._drop(block)
        table.blocks.clear()
        table.length = 0

    def forget(self) -> None:
        """The weights have changed: no computed block may be found again."""
        self._known.clear()
        self._prefix.clear()
        self._blank += self._idle
        self._idle.clear()

    def _find(self, token_ids: Sequence[int]) -> list[int]:
        found: list[int] = []
        before: int | None = None
        for i in range((len(token_ids) - 1) // self.block_size):
            key = (before, tuple(token_ids[i * self.block_size : (i + 1) * self.block_size]))
            block = self._known.get(key)
            if block is None:
                break
            found.append(block)
            before = self._prefix[block][1]
        return found

    def _hold(self, block: int) -> None:
        self._idle.pop(block, None)
        self.holders[block] += 1

    def _take(self) -> int:
        if self._blank:
            block = self._blank.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            key, _ = self._prefix.pop(block)
            del self._known[key]
        else:
            raise OutOfBlocks(f"all {len(self.holders)} blocks are held")
        self.holders[block] = 1
        return block

    def _drop(self, block: int) -> None:
        assert self.holders[block] > 0, f"block {block} was given back twice"
        self.holders[block] -= 1
        if not self.holders[block]:
            if block in self._prefix:
                self._idle[block] = None
            else:
                self._blank.append(block)
