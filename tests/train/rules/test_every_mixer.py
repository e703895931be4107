"""Real-time recurrent learning equals backpropagation through time on every architecture that it accepts.

Which those are is this file's table: all rows of MIXERS but these. Architectures whose state times parameters is
large are refused here by a lower limit than the library's, so that the table stays cheap.
"""

import pytest
from train.rules import one

from recurra import MIXERS
from recurra.train import RunError
from recurra.train.rules import structure
from recurra.train.rules.forward_mode import RTRL

CHEAP = 300_000
ITEM, GROWS, MADE, LARGE = (
    "no slopes row by row",
    "its state grows",
    "made of its parameters",
    "product must be at most",
)
REFUSED = {
    **dict.fromkeys(("attention", "rsa"), GROWS),
    **dict.fromkeys(("ttt_linear", "ttt_mlp", "titans", "miras", "moneta", "yaad", "memora"), MADE),
    **dict.fromkeys(("titans_mac", "titans_mag", "titans_mal"), MADE),
    **dict.fromkeys(("rmt", "block_recurrent", "temporal_latent_bottleneck"), MADE),
    **dict.fromkeys(("cosformer", "hippo", "lmu", "mesanet", "transformer_xl", "infini_attention"), ITEM),
    **dict.fromkeys(("mamba", "mamba2", "mamba3", "flash_gau", "sliding_window", "dss", "s4d", "h3", "s4"), LARGE),
    **dict.fromkeys(("mega", "hyena", "lssl", "dnc", "ntm", "liquid_s4", "lm2", "armt", "trc2"), LARGE),
}


@pytest.mark.parametrize("name", MIXERS)
def test_real_time_recurrent_learning_is_backpropagation(monkeypatch, name):
    monkeypatch.setattr(structure, "MOST", CHEAP)
    mixer, some = one.build(name), one.batch(T=6)
    if name in REFUSED:
        with pytest.raises(RunError, match=REFUSED[name]):
            one.taught(RTRL, mixer, some)
        return
    found, _ = one.taught(RTRL, mixer, some)
    wanted = one.whole(mixer, some)
    scale = max(float(x.abs().max()) for x in wanted.values())
    assert scale > 0
    for key, slope in wanted.items():
        error = float((found[key] - slope).abs().max()) / scale
        assert error < 1e-12, f"{key}: {error:.1e}"
