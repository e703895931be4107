"""Memories that are no recurrence over tokens, by name: layers `y = memory(x)`, the same at every step.

Each takes the width first and keywords only, and ends in a linear map `out`, so that it can stand where a feed-forward
layer stands.
"""

from torch import nn

from recurra.memory.hopfield import Hopfield
from recurra.memory.product_key_memory import ProductKeyMemory

MEMORIES: dict[str, type[nn.Module]] = {
    "hopfield": Hopfield,
    "product_key_memory": ProductKeyMemory,
}
