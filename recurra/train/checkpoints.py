"""Checkpoints: folders that are whole or absent, and a resumed run that goes on to the same numbers, bit for bit.

Everything is written to a folder aside, flushed, and renamed; the rename is what makes it a checkpoint. It lists the
hash of each file, so that one which was cut short or changed is refused before anything is read from it. Tensors are
safetensors, never pickled. The last two are kept: if the newest is damaged, the one before it still stands.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch

from recurra import state as states
from recurra.files import flush, write_json
from recurra.shapes import Tensor
from recurra.train.config import Config
from recurra.train.errors import RunError
from recurra.train.run import Run

FORMAT = "recurra-checkpoint-1"
KEPT = 2


def save(folder: pathlib.Path, run: Run, config: Config) -> pathlib.Path:
    """Write the checkpoint of a run into its folder, and remove all but the last two.

    Raises:
        OSError, safetensors.SafetensorError: the disk would not take it; earlier checkpoints are as they were.
    """
    path = folder / "checkpoints" / f"step-{run.step:09d}"
    aside = path.with_name(f".{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write(aside, run, config)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(aside, path)
        flush(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in found(folder)[KEPT:]:
        shutil.rmtree(old)
    return path


def found(folder: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints of a run, newest first."""
    return sorted((folder / "checkpoints").glob("step-*"), reverse=True)


def resume(folder: pathlib.Path, run: Run, say: Callable[[str], None]) -> pathlib.Path:
    """Set a run to its newest checkpoint that is whole, saying so where an earlier one must do.

    Those that could not be used are renamed, so that they never count among the last two.

    Raises:
        RunError: there are checkpoints and none can be used; each one's reason is given.
    """
    reasons = {}
    for path in found(folder):
        try:
            restore(path, run)
        except RunError as error:
            reasons[path] = str(error)
            say(f"{error}; trying the checkpoint before it")
        else:
            for refused in reasons:
                os.replace(refused, refused.with_name(f"refused-{refused.name}"))
            return path
    raise RunError(f"no checkpoint of {folder} can be used: {'; '.join(reasons.values())}")


def restore(path: pathlib.Path, run: Run) -> None:
    """Set a run to a checkpoint; nothing is touched unless all of it is whole.

    Raises:
        RunError: it is truncated, changed, of another model or of another version.
    """
    listed = _check(path, run)
    weights = safetensors.torch.load_file(path / "model.safetensors")
    mine = _weights(run.model)
    if {k: (x.shape, x.dtype) for k, x in weights.items()} != {k: (x.shape, x.dtype) for k, x in mine.items()}:
        raise RunError(f"{path} holds other weights than this model has")
    connections = safetensors.torch.load_file(path / "mask.safetensors") if run.masking is not None else {}
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(weights[name])
    if run.masking is not None:
        run.masking.mask.load(connections)
    _restore_optimiser(run, safetensors.torch.load_file(path / "optimiser.safetensors"))
    _restore_random(safetensors.torch.load_file(path / "random.safetensors"))
    run.step, run.tokens, run.seconds = listed["step"], listed["tokens"], listed["seconds"]
    run.source, run.state = listed.get("source"), None
    if "state.safetensors" in listed["files"]:
        state, _ = states.load(path / "state.safetensors", run.model)
        # memory of its own: a file's is aligned differently, which may change how sums are taken
        run.state = states.each(torch.clone, state)


def _write(aside: pathlib.Path, run: Run, config: Config) -> None:
    _save(aside / "model.safetensors", _weights(run.model))
    _save(aside / "optimiser.safetensors", _averages(run))
    _save(aside / "random.safetensors", _random())
    if run.masking is not None:
        _save(aside / "mask.safetensors", run.masking.mask.connections)
    if run.state is not None:
        states.save(aside / "state.safetensors", run.state, run.model, run.step)
    name, config_hash = states.owner(run.model)
    files = {path.name: _hash(path) for path in sorted(aside.iterdir())}
    listed = {
        "format": FORMAT, "model": name, "config_hash": config_hash, "step": run.step, "tokens": run.tokens,
        "seconds": run.seconds, "source": run.source, "training": config.to_json(), "files": files,
    }  # fmt: skip
    write_json(aside / "checkpoint.json", listed)
    flush(aside)


def _check(path: pathlib.Path, run: Run) -> dict[str, Any]:
    """What a checkpoint says of itself, once all of it is known to be whole and of this model."""
    try:
        listed = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
        version = listed["format"]
        if version != FORMAT:
            raise RunError(f"{path} is of another version of recurra ({version}; this one reads {FORMAT})")
        for name, digest in listed["files"].items():
            if _hash(path / name) != digest:
                raise RunError(f"{path}/{name} is truncated or was changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path} is not a whole checkpoint ({error})") from error
    name, config_hash = states.owner(run.model)
    if (listed["model"], listed["config_hash"]) != (name, config_hash):
        raise RunError(f"{path} is of a {listed['model']} {listed['config_hash']}, not of this {name} {config_hash}")
    return listed


def _weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and the buffers that are saved, each once however many names it has."""
    saved = model.state_dict()
    buffers = {name: x for name, x in model.named_buffers() if name in saved}
    return {**{name: p.detach() for name, p in model.named_parameters()}, **buffers}


def _averages(run: Run) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter: "weight/exp_avg"."""
    averages = {}
    for name, parameter in run.model.named_parameters():
        for key, tensor in run.optimiser.state.get(parameter, {}).items():
            averages[f"{name}/{key}"] = tensor
    return averages


def _restore_optimiser(run: Run, averages: dict[str, Tensor]) -> None:
    parameters = dict(run.model.named_parameters())
    run.optimiser.state.clear()
    for key, tensor in averages.items():
        name, _, part = key.rpartition("/")
        run.optimiser.state[parameters[name]][part] = tensor.to(parameters[name].device, copy=True)


def _random() -> dict[str, Tensor]:
    """The states of torch's generators: what dropout draws next."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{i}": x for i, x in enumerate(cuda)}}


def _restore_random(saved: dict[str, Tensor]) -> None:
    torch.set_rng_state(saved["cpu"])
    for i in range(torch.cuda.device_count()):
        if f"cuda{i}" in saved:
            torch.cuda.set_rng_state(saved[f"cuda{i}"], i)


def _save(path: pathlib.Path, tensors: dict[str, Tensor]) -> None:
    safetensors.torch.save_file({name: x.contiguous() for name, x in tensors.items()}, path)
    flush(path)


def _hash(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
