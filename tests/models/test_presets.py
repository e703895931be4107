"""Presets have as many parameters as what was published, counted on the meta device: no memory is taken."""

import pytest
import torch
from torch.testing import assert_close

from recurra.mixers.window.attention import Attention
from recurra.models import MODELS
from recurra.models.budget import size
from recurra.models.presets import PRESETS
from recurra.parts.experts import Experts

# parameters, and how far ours may be from them, with the reason
SAME = 0.0
NORMS = 1e-3  # the authors' norms have biases, or weights where the paper has none, and there is one more of them
ROUNDED = 2e-3  # three digits are published
ONE_KEY = 0.04  # theirs has one key and value for all heads, ours one for each
# what ours has more of, or less, where all else is the same: keys and values of each head, in four layers
JAMBA = 4 * 2 * 4096 * (4096 - 8 * 128) - 28 * (256 + 16 + 16)  # and no norms of time steps, B and C
GRANITE = 4 * 2 * 1536 * (1536 - 4 * 128)
NEMOTRON = 4 * 2 * 4096 * (4096 - 8 * 128)
# the shared block reads one width and not two, also its norm, and there are no maps at the 13 depths
ZAMBA = 4 * 3712**2 - (3 * 7424**2 + 7424 * 3712) - 3712 - 13 * 3712**2


def samba(width, layers, hidden):
    """The parameters that the authors' code makes, with one embedding: half of the layers are Mamba."""
    mamba = width * (4 * width + 2 * width) + 2 * width * (5 + width // 16 + 32 + 1 + 16 + 1) + width // 16 * 2 * width
    each = 2 * width + 3 * width * hidden
    return 32000 * width + width + layers * each + layers // 2 * (mamba + 4 * width**2)


PUBLISHED = {
    # the released weights
    "mamba_130m": (129_135_360, SAME),
    "mamba_370m": (371_516_416, SAME),
    "mamba2_130m": (128_989_632, SAME),
    # the papers' formulas: 2 D V + 13 D^2 L + D (11 L + 4), and 13 D^2 L + (14 or 464) D L + 4 D + 2 D V
    "rwkv4_169m": (169_342_464, NORMS),
    "rwkv5_400m": (461_721_600, NORMS),
    "rwkv6_1b6": (1_599_873_024, NORMS),
    # 2 D V + 4 D + L D (12 D + 2 (64 + 64 + 32 + 128) + 19) - (2 * 32 D + D)
    "rwkv7_190m": (191_034_624, NORMS),
    # flash-linear-attention's own models of those configurations
    "retnet_1b3": (1_351_727_104, NORMS),
    "gla_340m": (374_475_776, SAME),
    "deltanet_340m": (374_362_112, SAME),
    "gated_deltanet_340m": (512_272_124, SAME),
    # the paper's table
    "xlstm_350m": (409_000_000, ROUNDED),
    # transformers' model of the released configuration
    "griffin_2b": (2_682_862_080, ONE_KEY),
    "jamba_52b": (51_570_323_328 + JAMBA, SAME),
    "zamba_7b": (7_232_490_496 + ZAMBA, SAME),
    "granite4_h_tiny": (6_939_037_248 + GRANITE, SAME),
    "nemotron_h_8b": (8_100_852_736 + NEMOTRON, SAME),
    # the names say 421M and 1.3B
    "samba_421m": (samba(1536, 12, 4096), SAME),
    "samba_1b3": (samba(2304, 18, 6144), SAME),
}

HYBRIDS = ["jamba_52b", "zamba_7b", "granite4_h_tiny", "nemotron_h_8b", "samba_421m"]


@pytest.mark.parametrize("name", PRESETS)
def test_it_has_as_many_parameters_as_the_published_one(name):
    published, tolerance = PUBLISHED[name]
    ours = size(MODELS["language_model"], PRESETS[name])
    assert abs(ours - published) <= tolerance * published, f"{ours:,} and not {published:,}"


def test_every_preset_is_counted():
    assert PRESETS.keys() == PUBLISHED.keys()


def test_a_hybrid_is_laid_out_as_published():
    """The letters of Nemotron-H's configuration, and where Jamba, Granite and Zamba attend."""
    with torch.device("meta"):
        stacks = {name: MODELS["language_model"](**PRESETS[name]).backbone.stack for name in HYBRIDS}
    letters = {"Mamba2": "M", "Attention": "*"}
    found = "".join(letters[type(b.mixer).__name__] + "-" * (b.mlp is not None) for b in stacks["nemotron_h_8b"])
    assert found == "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
    at = {name: [i for i, b in enumerate(stack) if isinstance(b.mixer, Attention)] for name, stack in stacks.items()}
    assert at["jamba_52b"] == [4, 12, 20, 28] and at["granite4_h_tiny"] == [5, 15, 25, 35]
    # before these of the 76 Mamba layers
    assert [i - n for n, i in enumerate(at["zamba_7b"])] == [2, *range(7, 74, 6)]
    assert len({id(stacks["zamba_7b"][i]) for i in at["zamba_7b"]}) == 1
    assert [isinstance(b.mlp, Experts) for b in stacks["jamba_52b"]] == [False, True] * 16


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_hybrid_says_that_its_state_grows(name):
    with torch.device("meta"):
        assert MODELS["language_model"](**PRESETS[name]).grows == (not name.startswith("samba"))


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_small_hybrid_trains_and_streams(name):
    """The same stack with fewer features: every parameter is reached, and a cut changes nothing."""
    torch.manual_seed(0)
    small = {"mamba2": {"heads": 4}, "attention": {"heads": 2}, "sliding_window": {"heads": 2, "window": 3}}
    own = {**PRESETS[name], "vocabulary": 7, "width": 16, "hidden": 8}
    own["mixers"] = {key: small[key] for key in own["mixers"]}
    own["memories"] = {key: {**more, "hidden": 4, "experts": 6} for key, more in own.get("memories", {}).items()}
    model = MODELS["language_model"](**own).double()
    tokens = torch.randint(7, (2, 6))
    whole, _ = model(tokens)
    whole.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    first, state = model(tokens[:, :2])
    assert_close(torch.cat([first, model(tokens[:, 2:], state)[0]], 1), whole, rtol=1e-9, atol=1e-9)
