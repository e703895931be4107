"""What every model has beside its forward: the keywords that made it, and a folder that holds it."""

import inspect
import os
from typing import Any, ClassVar

from torch import nn

from recurra.models import folder


class Model(nn.Module):
    """A network with a way in and a way out, made of keywords that a folder can hold.

    A subclass is final. Its keyword-only constructor is its configuration, kept in `config`; its `name` is its row in
    `recurra.models.MODELS`. It says whether it `grows`, and has `initial_state` and `forward`.
    """

    name: ClassVar[str]
    streams: ClassVar[bool] = True  # may be called in pieces, step by step
    config: dict[str, Any]

    def __new__(cls, **keywords: Any) -> "Model":
        self = super().__new__(cls)
        if keywords:  # copying makes an empty one
            bound = inspect.signature(cls).bind(**keywords)
            bound.apply_defaults()
            # as a folder gives them back: JSON has no tuples
            config = {key: list(x) if isinstance(x, tuple) else x for key, x in bound.arguments.items()}
            object.__setattr__(self, "config", config)
        return self

    def undecayed_parameters(self) -> set[str]:
        """Names of the parameters that weight decay must leave alone.

        Vectors (biases, norms, decays, time steps), and the matrices that a part names in its `undecayed`.
        """
        names = {name for name, p in self.named_parameters() if p.ndim < 2}
        for path, module in self.named_modules():
            names |= {f"{path}.{own}" for own in getattr(module, "undecayed", ())}
        # a part may name parameters that only some of its forms have
        return names & {name for name, _ in self.named_parameters()}

    save_pretrained = folder.save_pretrained

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> Any:
        """The model of this class in a folder.

        Raises:
            ValueError: with one sentence that says what is wrong with the folder.
        """
        model = folder.load(path)
        if not isinstance(model, cls):
            raise ValueError(f"{path} holds a {model.name}, not a {cls.name}")
        return model
