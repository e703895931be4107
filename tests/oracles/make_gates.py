"""Write gates.safetensors: weights, inputs and outputs of SRU, RecurrentGemma's block, HGRN and GateLoop, in float64.

pip install sru==2.6.0 transformers==5.23.0 gateloop-transformer==0.2.5 einops; python tests/oracles/make_gates.py PATH,
of a clone of https://github.com/Doraemonzzz/hgru-pytorch at 09f4ed2c78f7a4e45b4fbe5d2beeab4c04a64779.

HGRN runs its plain loop. GateLoop's operator stands between our projections: the package's layers have others. SRU's
kernels are made on import, which is put off for ever: its plain loop needs none.
"""

import functools
import importlib.metadata
import math
import pathlib
import sys
import types
import warnings

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils import cpp_extension

warnings.simplefilter("ignore")
cpp_extension.load = lambda **_: None
torch.jit.script = lambda function: function

from sru import SRUCell  # noqa: E402
from transformers import RecurrentGemmaConfig  # noqa: E402
from transformers.models.recurrent_gemma import modeling_recurrent_gemma as gemma  # noqa: E402

WIDTH, STEPS, REMEMBERED, BOUND = 8, 30, 13, 0.4


def scattered(layer):
    """In float64, its parameters moved off their start."""
    layer = layer.double().eval()
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
    return layer


def weights(layer):
    return {f"weight.{name}": p.detach() for name, p in layer.named_parameters()}


def simple(early):
    layer = scattered(SRUCell(WIDTH, WIDTH, highway_bias=-1.0, v1=early))
    # it was made in float32
    layer.scale_x.fill_(math.sqrt(1 + 2 * math.exp(-1)))
    x, start = torch.randn(2, STEPS, WIDTH), torch.randn(2, WIDTH)
    # without gradients it would ask for a kernel
    (y, last), (after, end) = ((part.detach() for part in layer(x.transpose(0, 1), c)) for c in (None, start))
    result = {"x": x, "y": y.transpose(0, 1), "last": last, "start": start, "from": after.transpose(0, 1), "end": end}
    return weights(layer) | result


def griffin():
    units, blocks = 12, 3
    config = RecurrentGemmaConfig(hidden_size=WIDTH, lru_width=units, num_attention_heads=blocks, num_hidden_layers=1)
    # it scans in float32; numbers to compare at 1e-12 need float64
    scan = gemma.RecurrentGemmaRglru._rnn_scan
    gemma.RecurrentGemmaRglru._rnn_scan = functools.partialmethod(scan, acc_dtype=torch.float64)
    layer = gemma.RecurrentGemmaRecurrentBlock(config, 0)
    with torch.no_grad():
        for p in layer.rg_lru.parameters():
            p.zero_()
    layer = scattered(layer)
    with torch.no_grad():
        # slower than zero is, so that the last state remembers the first steps
        layer.rg_lru.recurrent_param.sub_(3)
    x = torch.randn(2, STEPS, WIDTH)
    # a sequence of thirty steps, and two of thirteen and seventeen
    positions = torch.arange(STEPS).repeat(2, 1)
    later = torch.cat([torch.arange(REMEMBERED), torch.arange(STEPS - REMEMBERED)])
    with torch.no_grad():
        y = layer(x, positions, None, use_cache=False)
        # its convolution knows no reset: only the recurrence is told of one
        inside = layer.conv_1d(layer.linear_x(x).transpose(1, 2))[..., :STEPS].transpose(1, 2)
        layer.rg_lru.recurrent_states = None
        two = layer.rg_lru(inside, later.repeat(2, 1))
    return weights(layer) | {"x": x, "y": y[0] if isinstance(y, tuple) else y, "inside": inside, "two": two}


def gated_recurrent(path):
    sys.path.insert(0, path)
    # the package's door opens all its models and their kernels; the one file that is wanted needs two words of others
    package = types.ModuleType("hgru")
    package.__path__ = [str(pathlib.Path(path) / "hgru")]
    helpers, kernel = types.ModuleType("hgru.helpers"), types.ModuleType("hgru.hgru_cuda")
    helpers.get_activation_fn, helpers.print_params = lambda name: getattr(F, name), lambda **_: None
    kernel.HgruFunction = types.SimpleNamespace(apply=None)
    sys.modules |= {"hgru": package, "hgru.helpers": helpers, "hgru.hgru_cuda": kernel}
    from hgru.hgru1d import Hgru1d

    layer = scattered(Hgru1d(WIDTH))
    x = torch.randn(2, STEPS, WIDTH)
    with torch.no_grad():
        y = layer.forward_naive(x.transpose(0, 1), BOUND).transpose(0, 1)
    return weights(layer) | {"x": x, "y": y}


def looped():
    from gateloop_transformer.gateloop_transformer import gate_loop_operator

    project, out = nn.Linear(WIDTH, 6 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
    # theirs is one head; ours of size 8
    x = torch.randn(2, STEPS, WIDTH)
    with torch.no_grad():
        query, key, value, magnitude, angle, gate = project(x).chunk(6, -1)
        decay = torch.polar(magnitude.sigmoid(), angle)[..., None]
        y = out(gate_loop_operator(query, key, value, decay) * F.silu(gate))
    return {"weight.project.weight": project.weight.detach(), "weight.out.weight": out.weight.detach(), "x": x, "y": y}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    layers = {"sru": simple(False), "sru1": simple(True), "rg_lru": griffin(), "hgrn": gated_recurrent(sys.argv[1])}
    layers |= {"gateloop": looped()}
    written = {f"{name}.{key}": v.contiguous().clone() for name, layer in layers.items() for key, v in layer.items()}
    made_by = {name: importlib.metadata.version(name) for name in ("sru", "transformers", "gateloop-transformer")}
    made_by["hgru-pytorch"] = "09f4ed2c78f7a4e45b4fbe5d2beeab4c04a64779"
    save_file(written, pathlib.Path(__file__).with_name("gates.safetensors"), made_by)
