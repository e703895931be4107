"""What every model has beside its forward: the keywords that made it, and a folder that holds it."""

import inspect
from typing import Any, ClassVar

from torch import nn

from recurra.models import folder
from recurra.models.backbone import undecayed_parameters as _undecayed_parameters


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

    undecayed_parameters = _undecayed_parameters
    save_pretrained = folder.save_pretrained
    from_pretrained = classmethod(folder.from_pretrained)
