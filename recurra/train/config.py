"""All that a run depends on, in one frozen value: two runs with equal settings end with equal weights.

It is plain JSON, so that a run's folder says how to make it again, and settings that differ can be named one by one.
"""

import dataclasses
from typing import Any

from recurra.models.backbone import nearest
from recurra.tasks import PIPE
from recurra.train.errors import RunError

PRECISIONS = ("float32", "bfloat16")


def _small() -> dict[str, Any]:
    return {"width": 192, "depth": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run. The defaults suit a small language model on a CPU.

    Args:
        source: what to learn from: a text file or folder, a CSV or Parquet series, a task's name, or "-", a pipe.
        task: further keywords for the task, such as `tokenizer`.
        model: a row of `recurra.models.MODELS`; None: the one that the task asks for.
        arguments: the model's keywords (`width`, `depth`, `pattern`, ...); what the task dictates is added to them.
        batch: rows of a batch; of a pipe 1, each of its columns counting as a part of it.
        length: steps of each row of a batch; with `tbptt`, the window that gradients flow through.
        steps: updates of the weights.
        learning_rate: the highest, reached after `warmup` steps.
        final_learning_rate: the lowest, reached by a cosine at the last step.
        warmup: steps of a linear rise from 0.
        weight_decay: of AdamW, for matrices only (see `recurra.train.optimisers`).
        betas: AdamW's forgetting of the gradient's mean and square.
        clip: the longest that the gradient of all parameters together may be.
        precision: "float32", or "bfloat16" (autocast: weights, states and sums stay float32).
        rule: how it learns: a row of `recurra.train.rules.RULES`.
        rule_arguments: the rule's keywords.
        mask: which weights there are and how that changes, a row of `recurra.train.masks.MASKS`; None: all are there.
        mask_arguments: the mask's keywords.
        tbptt: carry the state from batch to batch, without its history: truncated backpropagation through time.
        endless: meet every step once, never reset, and score before learning (`recurra.train.stream`); needs `tbptt`.
            The learning rate stays at its highest.
        seed: of the weights, of the order of the data and of dropout.
        evaluate_every: steps between evaluations on held-out data; there is always one at the end.
        evaluation_tokens: how much held-out data; the same, whatever the seed.
        evaluation_length: steps of each row of held-out data; 0: as in training.
        checkpoint_every: steps between checkpoints.
        threads: of the CPU; 0: all of its cores, or OMP_NUM_THREADS. Another number may round differently.
        device: "cpu", "cuda", ...
    """

    source: str
    task: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: str | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=_small)
    batch: int = 16
    length: int = 256
    steps: int = 1000
    learning_rate: float = 6e-3
    final_learning_rate: float = 2e-4
    warmup: int = 50
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    precision: str = "float32"
    rule: str = "bptt"
    rule_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    mask: str | None = None
    mask_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    tbptt: bool = False
    endless: bool = False
    seed: int = 0
    evaluate_every: int = 200
    evaluation_tokens: int = 65536
    evaluation_length: int = 0
    checkpoint_every: int = 200
    threads: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        at_least(self, 1, "batch", "length", "steps", "evaluate_every", "evaluation_tokens", "checkpoint_every")
        at_least(self, 0, "warmup", "weight_decay", "final_learning_rate", "seed", "evaluation_length", "threads")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise RunError(f"{name} is {getattr(self, name)}: it must be greater than 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise RunError(f"betas are {self.betas}: each must be at least 0 and less than 1")
        if self.endless and not self.tbptt:
            raise RunError("endless carries the state on for ever: it needs tbptt")
        if self.source == PIPE and not self.endless:
            raise RunError("a pipe is read once and cannot be gone back to: add --endless, or give a file")
        if self.source == PIPE and self.batch != 1:
            raise RunError(f"batch is {self.batch}: a pipe is one stream, and its batch must be 1")
        if self.mask is None and self.mask_arguments:
            raise RunError(f"no mask is named, and {', '.join(self.mask_arguments)} would be its keyword")
        if self.precision not in PRECISIONS:
            raise RunError(f"precision is {self.precision!r}: it must be {' or '.join(PRECISIONS)}")

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` writes and `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> "Config":
        """The settings in a dictionary.

        Raises:
            RunError: a key that is no setting (the nearest that is one is named), or a value that cannot be.
        """
        return from_json(cls, settings)


def at_least(config: Any, least: int, *names: str) -> None:
    """Refuse settings that are less than they must be."""
    for name in names:
        if not getattr(config, name) >= least:
            raise RunError(f"{name} is {getattr(config, name)}: it must be at least {least}")


def from_json(cls: Any, settings: dict[str, Any]) -> Any:
    """A dataclass of settings from JSON; keys that are no field, and fields that are missing, raise RunError."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in settings:
        if name not in fields:
            raise RunError(f"there is no setting {name!r}{nearest(name, fields)}")
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in settings and not optional:
            raise RunError(f"the setting {name!r} is missing")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def to_json(config: Any) -> dict[str, Any]:
    """A dataclass of settings as JSON has it: tuples are lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed between two settings in JSON, field by field, those of nested dictionaries with their path."""
    changed = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "absent"), after.get(name, "absent")
        if isinstance(old, dict) and isinstance(new, dict):
            changed += [f"{name}.{line}" for line in differences(old, new)]
        elif old != new:
            changed.append(f"{name} was {old!r} and is {new!r}")
    return changed
