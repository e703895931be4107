"""Whether somebody listens to a module: what takes its numbers in place of calling it would pass them over."""

from torch import nn


def hooked(module: nn.Module) -> bool:
    """Whether a call of it is heard, or may do other than its class says: it has hooks, or a forward of its own."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
