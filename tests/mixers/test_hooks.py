"""Linear maps of every architecture: hooks on them are heard, and what changes them or stands for them counts.

Many are read in place of called, joined, folded or handed to a kernel; where none can be called it is said.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from recurra import MIXERS
from recurra.mixers import Mixer

WIDTH, STEPS = 16, 34  # more than two segments, and than the steps from which gates are folded
READ = "reads the weights of its"  # as parts/linear.py says where nothing can be called
NEVER_CALLED = {"jordan", "ntm", "dnc"}
each_mixer = pytest.mark.parametrize("name", MIXERS)


class Louder(nn.Linear):
    """What may stand in a map's place."""

    def forward(self, input):
        return 2 * super().forward(input)


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


def build(name: str) -> tuple[Mixer, dict[str, nn.Linear]]:
    torch.manual_seed(0)
    mixer = MIXERS[name](WIDTH).double()
    return mixer, {path: x for path, x in mixer.named_modules() if type(x) is nn.Linear}


def run(mixer: Mixer) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return mixer(torch.randn(2, STEPS, WIDTH, dtype=torch.float64))[0]


@each_mixer
def test_a_hook_on_a_linear_map_is_heard_or_refused(name):
    mixer, maps = build(name)
    heard = set()
    for path, x in maps.items():
        x.register_forward_pre_hook(lambda *_, path=path: heard.add(("before", path)))
        x.register_forward_hook(lambda *_, path=path: heard.add(("after", path)))
    if name in NEVER_CALLED:
        with pytest.raises(RuntimeError, match=READ):
            run(mixer)
    else:
        run(mixer)
        assert heard == {(when, path) for when in ("before", "after") for path in maps}


@each_mixer
def test_weights_that_are_parametrised_and_maps_that_are_replaced_count(name):
    expected, maps = build(name)
    with torch.no_grad():
        for x in maps.values():
            for p in x.parameters():
                p.mul_(2)
    expected = run(expected)
    mixer, maps = build(name)
    for x in maps.values():
        for own in dict(x.named_parameters(recurse=False)):
            parametrize.register_parametrization(x, own, Twice())
    assert_close(run(mixer), expected)
    mixer, maps = build(name)
    for x in maps.values():
        x.__class__ = Louder
    if name in NEVER_CALLED:
        with pytest.raises(RuntimeError, match=READ):
            run(mixer)
    else:
        assert_close(run(mixer), expected)
