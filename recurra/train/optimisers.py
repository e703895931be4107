"""AdamW as recurrences need it: what sets a memory's length is not pulled towards zero.

Weight decay is a prior that matrices are small. A decay, a time constant, a gate's bias or a norm's scale is no such
thing: pulled to zero it changes how long the model remembers. So vectors and whatever the model itself names are left
alone. The fused update is one pass over each tensor, and gives the same bits every time.
"""

import torch
from torch import nn

from recurra.shapes import Tensor


def groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The parameters in two groups: those that decay, and those that do not."""
    alone = model.undecayed_parameters()  # type: ignore[operator]
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if name not in alone and p.ndim > 1]
    undecayed = [p for name, p in named if name in alone or p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]


def adamw(model: nn.Module, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW over the groups of a model; the learning rate is set at each step."""
    some = [group for group in groups(model, weight_decay) if group["params"]]
    return torch.optim.AdamW(some, lr=0.0, betas=betas, fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """The learning rate of every group for the next update."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate


def clip(parameters: list[Tensor], longest: float) -> float:
    """Shorten the gradient of all parameters together to `longest`; returns its norm before, summed in float32.

    g <- g min(1, longest / |g|): Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
    2013, https://arxiv.org/abs/1211.5063
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    nn.utils.clip_grads_with_norm_(parameters, longest, norm)
    return float(norm)
