"""State is a citizen: what can be done with the state of any mixer or model, written once.

A state is a nested tuple of tensors whose first axis is the batch. Nothing here knows an architecture. Files are
safetensors, never pickled; the header says whose state it is, so that a wrong one is refused before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import safetensors
import safetensors.torch
import torch

from recurra.files import aside
from recurra.shapes import State, Tensor

FORMAT = "recurra-state-3"


def leaves(state: State) -> Iterator[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, torch.Tensor):
        yield state
    else:
        for part in state:
            yield from leaves(part)


def each(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """`function` of every tensor of one state, or of the same tensor of several."""
    if isinstance(state, torch.Tensor):
        return function(state, *others)
    return tuple(each(function, *parts) for parts in zip(state, *others, strict=True))


def batch(state: State) -> int | None:
    """How many rows a state has; None for a state without tensors."""
    first = next(leaves(state), None)
    return None if first is None else len(first)


def rows(state: State, index: Tensor | slice | Sequence[int] | int) -> State:
    """Some rows of a state: of sequences that go on, in any order, any number of times."""
    index = [index] if isinstance(index, int) else index
    return each(lambda x: x[index], state)


def join(states: Sequence[State]) -> State:
    """One state of the rows of several, in order."""
    return each(lambda *xs: torch.cat(xs), *states)


def scatter(state: State, index: Tensor | Sequence[int], new: State) -> State:
    """`state` with the rows `index` replaced by those of `new`; `state` itself is not touched."""
    index = torch.as_tensor(index)
    return each(lambda x, y: x.index_copy(0, index.to(x.device), y.to(x)), state, new)


def fork(state: State, copies: int) -> State:
    """Every row `copies` times, side by side: row b becomes rows b*copies to b*copies + copies - 1."""
    return each(lambda x: x.repeat_interleave(copies, 0), state)


def detach(state: State) -> State:
    """The same numbers without their history: what truncated backpropagation hands on."""
    return each(lambda x: x.detach(), state)


def to(state: State, device: torch.device | str) -> State:
    """The state on another device. Types stay: a state's precision is not the caller's to lower."""
    return each(lambda x: x.to(device), state)


def nbytes(state: State) -> int:
    """Bytes held by all rows."""
    return sum(x.numel() * x.element_size() for x in leaves(state))


def fingerprint(name: str, config: dict[str, Any]) -> str:
    """The hash of an architecture's name and configuration; a state fits only where it is the same."""
    text = json.dumps([name, config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def owner(module: Any) -> tuple[str, str]:
    """The name and the configuration's hash of a mixer or model."""
    name = type(module).__name__
    return name, fingerprint(name, module.config)


def weights(module: Any) -> str:
    """A hash of a module's weights: of up to 256 numbers of each, spread over it, so that it costs nothing to ask."""
    digest = hashlib.sha256()
    for name, x in module.state_dict().items():
        some = x.detach().flatten()[:: max(1, x.numel() // 256)]
        digest.update(f"{name} {tuple(x.shape)} {x.dtype} ".encode())
        digest.update(_real(some).double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save(path: str | os.PathLike[str], state: State, module: Any, steps: int) -> None:
    """Write a state for `module` (a mixer or a model) after `steps` steps. Written aside and renamed."""
    name, config_hash = owner(module)
    header = {
        "format": FORMAT, "name": name, "config_hash": config_hash, "weights": weights(module), "steps": str(steps),
        "structure": json.dumps(_structure(state, iter(range(10**9)))),
    }  # fmt: skip
    tensors = {str(i): _real(x.detach()).contiguous().clone() for i, x in enumerate(leaves(state))}
    with aside(path) as fresh:
        safetensors.torch.save_file(tensors, fresh, header)


def load(path: str | os.PathLike[str], module: Any) -> tuple[State, int]:
    """Read the state of `module` and the steps it has seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no state file, or the state of something else (both names and hashes are given), or of the
            same with other weights, whose numbers mean nothing here.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give one that recurra.state.save wrote")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            _refuse(path, header, *owner(module))
            if header.get("weights") != weights(module):
                raise ValueError(
                    f"{path} was written under other weights: use the run that wrote it, or begin a new file"
                )
            tensors = {int(key): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole state file ({error})") from error
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return to(_rebuild(json.loads(header["structure"]), tensors), device), int(header["steps"])


def _refuse(path: pathlib.Path, header: dict[str, str], name: str, config_hash: str) -> None:
    """Raise, before any tensor is read, where the header is not that of a state of this owner."""
    if header.get("format") != FORMAT:
        found = header.get("format", "no format")
        raise ValueError(f"{path} is not a state file of this version ({found}; this one reads {FORMAT})")
    if header["config_hash"] != config_hash:
        raise ValueError(
            f"{path} holds the state of {header['name']} {header['config_hash']}, "
            f"not of {name} {config_hash}: use the model that wrote it"
        )


def _real(x: Tensor) -> Tensor:
    """The numbers themselves, not torch's promise to conjugate or negate them; complex ones as pairs."""
    x = x.resolve_conj().resolve_neg()
    return torch.view_as_real(x) if x.is_complex() else x


def _structure(state: State, count: Iterator[int]) -> Any:
    """Nested lists of the tensors' numbers: the shape of the tuples. A string where the tensor is complex."""
    if isinstance(state, torch.Tensor):
        return str(next(count)) if state.is_complex() else next(count)
    return [_structure(part, count) for part in state]


def _rebuild(structure: Any, tensors: dict[int, Tensor]) -> State:
    if isinstance(structure, str):
        return torch.view_as_complex(tensors[int(structure)])
    return tensors[structure] if isinstance(structure, int) else tuple(_rebuild(x, tensors) for x in structure)
