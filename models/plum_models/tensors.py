"""safetensors files by memory map: a header of names, types, shapes and offsets, then the tensors' bytes.

The format is 8 bytes of header length (little endian), the header in JSON, the data. A tensor that is asked for in
the type it has stays a view of the map, which the system fills as pages are touched and copies where they are
written to; any other is converted straight into its own memory and its pages are given back. So at no time does a
second copy of the file lie in memory.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MOST_HEADER_BYTES = 100_000_000  # the format's own limit
CHUNK_BYTES = 2**24  # converted between two returns of pages


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its type, shape, and where its bytes stand in the file, as [begin, end)."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """An open safetensors file. ``entries``: every tensor by name.

    The file must not be overwritten in place while its tensors are in use; replacing it by renaming, as ``save``
    does, is fine. Raises ValueError, with the file and what was expected, where it is truncated or malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little") if size >= 8 else 0
            if not 2 <= length <= min(MOST_HEADER_BYTES, size - 8):
                raise self._broken(f"its header of {length} bytes does not fit into the file's {size}")
            header = file.read(length)
            self.entries = self._parse(header, 8 + length, size)
            self._map = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)

    def _broken(self, what: str) -> ValueError:
        return ValueError(
            f"{self.path} is truncated or not a safetensors file ({what}): copy it again or save the checkpoint again"
        )

    def _parse(self, header: bytes, data: int, size: int) -> dict[str, Entry]:
        try:
            raw = json.loads(header)
            tensors = {name: entry for name, entry in raw.items() if name != "__metadata__"}
            found = {name: self._entry(name, entry, data) for name, entry in tensors.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ValueError) and str(error).startswith(str(self.path)):
                raise
            raise self._broken(f"its header cannot be read: {error}") from error
        for name, entry in found.items():
            if entry.end > size:
                raise self._broken(f"tensor {name} ends at byte {entry.end}, the file at {size}")
        end = max((entry.end for entry in found.values()), default=data)
        if end != size:
            raise self._broken(f"its tensors end at byte {end}, the file at {size}")
        return found

    def _entry(self, name: str, raw: dict[str, object], data: int) -> Entry:
        kind, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
        if kind not in DTYPES:
            raise ValueError(f"{self.path}: tensor {name} has type {kind!r}, which is not one of {', '.join(DTYPES)}")
        assert isinstance(kind, str) and isinstance(shape, list) and isinstance(offsets, list)
        dtype, (first, last) = DTYPES[kind], offsets
        if last - first != math.prod(shape) * dtype.itemsize or first < 0 or min(shape, default=0) < 0:
            raise self._broken(f"tensor {name}, {kind} {tuple(shape)}, has {last - first} bytes")
        return Entry(dtype, tuple(shape), data + first, data + last)

    def read(self, name: str, dtype: torch.dtype | None, device: torch.device) -> Tensor:
        """The tensor ``name`` in ``dtype`` (None: as stored) on ``device``; of its stored shape."""
        entry = self.entries[name]
        count = math.prod(entry.shape)
        wanted = dtype or entry.dtype
        if not count:
            return torch.empty(entry.shape, dtype=wanted, device=device)
        aligned = entry.begin % entry.dtype.itemsize == 0
        if aligned and wanted == entry.dtype and device.type == "cpu":
            return torch.frombuffer(self._map, dtype=wanted, count=count, offset=entry.begin).view(entry.shape)
        out = torch.empty(count, dtype=wanted, device=device)
        step = CHUNK_BYTES // entry.dtype.itemsize
        for start in range(0, count, step):
            here, many = entry.begin + start * entry.dtype.itemsize, min(step, count - start)
            if aligned:
                part = torch.frombuffer(self._map, dtype=entry.dtype, count=many, offset=here)
            else:  # a view must be aligned, a copy need not
                part = torch.frombuffer(bytearray(self._map[here : here + many * entry.dtype.itemsize]), dtype=entry.dtype)
            out[start : start + many] = part
            self._give_back(here, many * entry.dtype.itemsize)
        return out.view(entry.shape)

    def _give_back(self, begin: int, length: int) -> None:
        """Drop whole pages inside the range from this process; nobody writes to them, so the file still has them."""
        first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, (begin + length) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
