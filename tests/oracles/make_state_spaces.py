"""Write state_spaces.safetensors: small layers of the authors' own code, weights, inputs and outputs, in float64.

    for name in state-spaces/s4 ag1988/dss HazyResearch/safari facebookresearch/mega; do
        git clone https://github.com/$name repositories/$(basename $name)
    done
    pip install s5-pytorch==0.2.1 gated-state-spaces-pytorch==0.1.0 einops==0.8.2
    python tests/oracles/make_state_spaces.py repositories

What those repositories need for training, logging and GPUs is replaced by as little as lets the layers run.
"""

import importlib
import importlib.metadata
import pathlib
import subprocess
import sys
import types

import torch
from safetensors.torch import save_file

COMMITS = ("s4", "dss", "safari", "mega")
PACKAGES = ("s5-pytorch", "gated-state-spaces-pytorch")


def module(name, **contents):
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    sys.modules[name] = made


def packages(root, *names):
    """Packages without their __init__, so that only the file asked for is run."""
    for name in [x for x in sys.modules if x.split(".")[0] in ("src", "models", "fairseq")]:
        del sys.modules[name]
    for name in names:
        module(name, __path__=[str(root / name.replace(".", "/"))])


class OptimModule(torch.nn.Module):
    def register(self, name, tensor, lr=None, wd=0.0):
        self.register_parameter(name, torch.nn.Parameter(tensor))


class Same(torch.nn.Identity):
    """No dropout and no norm, whatever else is said."""

    def forward(self, x, **_):
        return x


def s4d(root, x):
    packages(root, "models", "models.s4", "src", "src.models")
    module("src.models.nn", DropoutNd=torch.nn.Dropout)
    layer = importlib.import_module("models.s4.s4d").S4D(4, d_state=6, transposed=False)
    return layer, layer(x)[0]


def dss(root, x, version):
    packages(root, *("src.models.sequence.ss.standalone".rsplit(".", i)[0] for i in (4, 3, 2, 1)))
    module("src.models.sequence.ss.standalone", __path__=[str(root / "src/models/sequence/ss/standalone")])
    file = importlib.import_module("src.models.sequence.ss.standalone.dss")
    layer = file.DSS(4, d_state=3, version=version, sep_dt_re_im=False, transposed=False)
    return layer, layer(x)[0]


def safari(root):
    names = ("src", "src.models", "src.models.sequence", "src.models.sequence.ssm", "src.ops", "src.utils")
    packages(root, *names)
    logger = types.SimpleNamespace(info=print, warning=lambda *_: None)
    module("src.utils.train", OptimModule=OptimModule, get_logger=lambda _: logger)
    module("src.utils.config", instantiate=lambda registry, name, **_: registry[name], auto_assign_attrs=assign)
    module("src.utils.registry", layer={})
    sys.modules["src.utils"].registry = sys.modules["src.utils.registry"]
    module("src.models.nn", Activation=lambda _: torch.nn.Identity())
    module("src.ops.krylov", power=None)


def assign(layer, **values):
    for name, value in values.items():
        setattr(layer, name, value)


def h3(root, x):
    safari(root)
    vandermonde = importlib.import_module("src.ops.vandermonde")
    vandermonde.log_vandermonde_fast = None
    file = importlib.import_module("src.models.sequence.h3")
    layer = file.H3(4, d_state=6, head_dim=2, mode="diag", measure="diag-lin", disc="zoh")
    return layer, layer(x)


def hyena(root, x):
    safari(root)
    file = importlib.import_module("src.models.sequence.hyena")
    file.instantiate = lambda registry, name, partial: file.HyenaFilter
    layer = file.HyenaOperator(4, x.shape[1], order=3, filter_order=5, emb_dim=5, w=1, num_inner_mlps=2)
    return layer, layer(x)


def mega(root, x, chunk):
    packages(root, "fairseq", "fairseq.modules")
    module("fairseq.incremental_decoding_utils", with_incremental_state=lambda cls: cls)
    utils = {
        "get_activation_fn": lambda activation: getattr(torch.nn.functional, activation),
        "softmax": lambda x, dim, onnx_trace: x.softmax(dim),
    }
    module("fairseq.utils", **utils)
    sys.modules["fairseq"].utils = sys.modules["fairseq.utils"]
    module("fairseq.modules.fairseq_dropout", FairseqDropout=Same, FairseqFeatureDropout=Same)
    module("fairseq.modules.sequence_norm", SequenceNorm=Same)
    file = importlib.import_module("fairseq.modules.moving_average_gated_attention")
    layer = file.MovingAverageGatedAttention(4, zdim=3, hdim=8, ndim=5, chunk_size=chunk, max_positions=x.shape[1])
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.5 * torch.randn_like(p))
    steps = x.shape[1]
    size = chunk if chunk > 0 else steps
    mask = torch.full((size, size), -torch.inf).triu(1)
    return layer, layer(x.transpose(0, 1), attn_mask=mask)[0].transpose(0, 1)


def s5(x, dt):
    from s5.s5_model import S5

    layer = S5(4, state_width=6)
    lines = [layer.seq(*row) for row in zip(x, dt, strict=True)]
    return layer.seq, layer(x), torch.stack(lines)


def gss(x):
    from gated_state_spaces_pytorch.gss import GSS

    layer = GSS(dim=4, dim_expansion_factor=2, dss_kernel_N=3, dss_kernel_H=2)
    layer.norm = torch.nn.Identity()
    return layer, layer(x) - x


def numbers(name, layer, **values):
    weights = {f"weight.{key}": p for key, p in layer.named_parameters()}
    return {f"{name}.{key}": value for key, value in (weights | values).items()}


def real(x):
    x = x.detach()
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).double().contiguous().clone()


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1])
    # everything that is cast to float32 inside is cast to float64
    torch.Tensor.float, torch.float, torch.cfloat = torch.Tensor.double, torch.double, torch.cdouble
    torch.float32, torch.complex64 = torch.float64, torch.complex128
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    contract = types.SimpleNamespace(contract=torch.einsum, contract_expression=None)
    module("opt_einsum", **vars(contract))
    module("pytorch_lightning", __path__=[])
    module("pytorch_lightning.utilities", rank_zero_only=lambda f: f)
    module("omegaconf", DictConfig=type("DictConfig", (dict,), {"__getattr__": dict.__getitem__}))
    x, dt = torch.randn(2, 12, 4), 0.5 + torch.rand(2, 12)
    stored = {"x": x, "dt": dt}
    for name, (layer, y) in {
        "s4d": s4d(root / "s4", x),
        "dss-exp": dss(root / "dss", x, "exp"),
        "dss-softmax": dss(root / "dss", x, "softmax"),
        "h3": h3(root / "safari", x),
        "hyena": hyena(root / "safari", x),
        "mega-chunk": mega(root / "mega", x, 4),
        "mega-whole": mega(root / "mega", x, -1),
        "gss": gss(x),
    }.items():
        stored |= numbers(name, layer, y=y)
    layer, y, irregular = s5(x, dt)
    stored |= numbers("s5", layer, y=y, irregular=irregular)
    here = pathlib.Path(__file__).with_name("state_spaces.safetensors")
    made_by = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name in COMMITS:
        read = subprocess.run(["git", "-C", root / name, "rev-parse", "HEAD"], capture_output=True, text=True)
        made_by[name] = read.stdout.strip() or (root / name / "COMMIT").read_text().strip()
    save_file(
        {k: real(v) for k, v in stored.items()},
        here,
        made_by,
    )
