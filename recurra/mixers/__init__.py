"""The architectures, by name. To add one: write its file, add its line here, write its test."""

from recurra.mixers.base import Mixer as Mixer
from recurra.mixers.diag.lru import LRU
from recurra.mixers.diag.mamba import Mamba
from recurra.mixers.diag.mingru import MinGRU
from recurra.mixers.diag.minmax import MinMax

MIXERS: dict[str, type[Mixer]] = {
    "mingru": MinGRU,
    "lru": LRU,
    "mamba": Mamba,
    "minmax": MinMax,
}
