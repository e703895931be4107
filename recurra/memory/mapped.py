"""A table of values in a file, for tables larger than memory: what is asked for is read, what was moved is written.

The file is safetensors, so that anything reads it, and is mapped. Pages that were looked at stay with the process until
the system takes them back, so it gives them back itself; the system's own cache keeps what it has room for.
"""

import json
import math
import mmap
import os
import pathlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from recurra.files import aside
from recurra.memory.values import weighted_sum
from recurra.shapes import Float, Int, Tensor

PAGE = mmap.PAGESIZE


def create(path: str | os.PathLike[str], rows: int, size: int, blocks: Iterable[np.ndarray]) -> None:
    """Write a table, some rows at a time, and room for what an optimiser keeps: one number a row. Written aside.

    Args:
        path: of the file.
        rows: how many there will be.
        size: numbers in each (V).
        blocks: the rows in order, arrays `(_, V)`; only one is held at a time.

    Raises:
        ValueError: the blocks have another size, or other rows than were announced; nothing is left.
    """
    spans = {"values": ([rows, size], 0, 4 * rows * size), "squares": ([rows], 4 * rows * size, 4 * rows * (size + 1))}
    header = json.dumps(
        {name: {"dtype": "F32", "shape": shape, "data_offsets": [a, b]} for name, (shape, a, b) in spans.items()}
    ).encode()
    # numbers begin at a page
    header += b" " * (-(len(header) + 8) % PAGE)
    written = 0
    with aside(path) as fresh, fresh.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != size:
                raise ValueError(f"a block has the shape {block.shape}: it must be (rows, {size})")
            written += len(block)
            np.ascontiguousarray(block, dtype="<f4").tofile(file)
        if written != rows:
            raise ValueError(f"the blocks have {written} rows together: {rows} were announced")
        for some in range(0, rows, 1 << 20):
            np.zeros(min(1 << 20, rows - some), dtype="<f4").tofile(file)


class MappedValues(nn.Module):
    r"""A table in a file: sums of rows are made of those that were asked for, and training moves only them.

    .. math::  y = \sum_k w_k V_{i_k}

    With gradients, rows wait beside the table for what their gradient will be; `update` moves them and lets go. So a
    training step ends with it, and `eval()` or `torch.no_grad()` keeps nothing. It is no parameter: an optimiser,
    `state_dict` and `to` do not see it.

    Args:
        path: of a file that `create` wrote.
        resident: bytes of the file that may be looked at before all are given back to the system.

    Raises:
        ValueError: the file is not such a table, or is cut short.
    """

    def __init__(self, path: str | os.PathLike[str], *, resident: int = 1 << 28) -> None:
        super().__init__()
        self.path, self.resident, self._seen = pathlib.Path(path), resident, 0
        start, rows, size = _header(self.path)
        self.shape = rows, size
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        # neighbours of a row are not asked for next
        self._advise("MADV_RANDOM")
        self._values = np.frombuffer(self._map, "<f4", rows * size, start).reshape(rows, size)
        self._squares = np.frombuffer(self._map, "<f4", rows, start + 4 * rows * size)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def forward(self, index: Int[Tensor, "*B K"], weight: Float[Tensor, "*B K"]) -> Float[Tensor, "*B V"]:
        """The weighted sum of rows, in float32."""
        unique, inverse = index.unique(return_inverse=True)
        rows = torch.from_numpy(self._values[unique.numpy()])
        self._look(len(unique))
        if torch.is_grad_enabled() and self.training:
            self._waiting.append((unique, rows.requires_grad_()))
        return weighted_sum(rows, inverse, weight)

    @torch.no_grad()
    def update(self, learning_rate: float, epsilon: float = 1e-8) -> int:
        r"""Move the rows that have a gradient, by Adagrad with one number a row, and return how many they were.

        .. math::  n \leftarrow n + \operatorname{mean}(g^2) \qquad V \leftarrow V - \eta\, g / (\sqrt n + \epsilon)

        Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html, by row as in Naumov et al. 2019,
        https://arxiv.org/abs/1906.00091.
        """
        asked = [(index, rows.grad) for index, rows in self._waiting if rows.grad is not None]
        self._waiting = []
        if not asked:
            return 0
        unique, inverse = torch.cat([index for index, _ in asked]).unique(return_inverse=True)
        gradient = torch.zeros(len(unique), self.shape[1])
        gradient.index_add_(0, inverse, torch.cat([g for _, g in asked]))
        where = unique.numpy()
        squares = torch.from_numpy(self._squares[where]) + gradient.square().mean(-1)
        self._squares[where] = squares.numpy()
        moved = torch.from_numpy(self._values[where]) - learning_rate * gradient / (squares.sqrt() + epsilon)[:, None]
        self._values[where] = moved.numpy()
        self._look(2 * len(unique))
        return len(unique)

    def flush(self) -> None:
        """Wait until all that was moved is on the disk."""
        self._map.flush()

    def _look(self, rows: int) -> None:
        """Count the pages that rows lie on, and give all back when they are too many. What was moved is not lost."""
        self._seen += rows * (math.ceil(4 * self.shape[1] / PAGE) + 1) * PAGE
        if self._seen > self.resident:
            self._advise("MADV_DONTNEED")
            self._seen = 0

    def _advise(self, what: str) -> None:
        """Where the system takes advice."""
        if hasattr(mmap, what):
            self._map.madvise(getattr(mmap, what))


def _header(path: pathlib.Path) -> tuple[int, int, int]:
    """Where the numbers of a table begin, its rows, and the numbers in each."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length < 1 << 20 else b""
    try:
        found = json.loads(text)
        (rows, size), (begin, _) = found["values"]["shape"], found["values"]["data_offsets"]
        end = found["squares"]["data_offsets"][1]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no table of values: give a file that recurra.memory.mapped.create wrote"
        ) from error
    if begin != 0 or path.stat().st_size != 8 + length + end or end != 4 * rows * (size + 1):
        raise ValueError(f"{path} is cut short, or of another layout: write it again")
    return 8 + length, rows, size
