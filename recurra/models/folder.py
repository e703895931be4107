"""Models as folders in the Hugging Face layout: config.json and model.safetensors. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import safetensors
import safetensors.torch
import torch

from recurra.files import aside, write_json

FORMAT = 1  # of config.json; another number is refused


def save_pretrained(model: Any, folder: str | os.PathLike[str], **sections: Any) -> None:
    """Write the model to `folder`: config.json (with any further JSON `sections`) and model.safetensors.

    Each file is written aside and renamed, so what was there stays whole until the new one is.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: x.detach().contiguous() for name, x in model.state_dict().items()}
    with aside(folder / "model.safetensors") as fresh:
        safetensors.torch.save_file(tensors, fresh, {"format": "pt"})
    write_json(folder / "config.json", describe(model, **sections))


def describe(model: Any, **sections: Any) -> dict[str, Any]:
    """What config.json says of a model."""
    kind = next((str(p.dtype).removeprefix("torch.") for p in model.parameters()), "float32")
    head = {"model_type": "recurra", "architectures": [type(model).__name__], "torch_dtype": kind}
    return {**head, "recurra": {"format": FORMAT}, "model": {"name": model.name, **model.config}, **sections}


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The config.json of a folder.

    Raises:
        ValueError: there is none, it is no JSON, no recurra folder, or of another version.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a run: it has no config.json; give a folder that `recurra train` wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): the folder is damaged") from error
    if not isinstance(config, dict) or config.get("model_type") != "recurra":
        raise ValueError(f"{path} is not of a recurra model (model_type must be recurra)")
    stamp = config.get("recurra")
    found = stamp.get("format") if isinstance(stamp, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{folder} was written by another version of recurra (format {found}; this one reads {FORMAT}): "
            "use that version, or train again"
        )
    return config


def load_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Load model.safetensors.

    Raises:
        ValueError: it is missing, truncated, or of another model.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: the folder holds no weights (yet)")
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): use another checkpoint") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} holds the weights of another model than its config.json says: {error}") from error


def load(folder: str | os.PathLike[str]) -> Any:
    """The model in a folder, in evaluation mode.

    Raises:
        ValueError: with one sentence that says what is wrong with the folder.
    """
    from recurra.models import MODELS

    config = read_config(folder)
    said = config.get("model")
    arguments = dict(said) if isinstance(said, dict) else {}
    name, kind = arguments.pop("name", None), getattr(torch, str(config.get("torch_dtype", "float32")), None)
    if name not in list(MODELS):
        raise ValueError(f"{folder} holds a {name!r}, which is none of {', '.join(MODELS)}")
    if not (isinstance(kind, torch.dtype) and kind.is_floating_point):
        raise ValueError(f"{folder}/config.json has torch_dtype {config['torch_dtype']!r}: it must be a float type")
    try:
        model = MODELS[name](**arguments)
    except TypeError as error:
        raise ValueError(f"{folder}/config.json does not describe a {name}: {error}") from error
    model = model.to(kind)
    load_weights(model, pathlib.Path(folder) / "model.safetensors")
    return model.eval()
