"""Other people's layers, each built as its package means it to be, at our layer's width and inner sizes.

Each is optional: what is not installed is listed as such. The fused GPU kernels that some of these packages take when
they find them are kept out, so that the same thing runs everywhere. A peer is the same architecture; what its layer has
beside ours, or lacks, is said where it is built.
"""

import importlib.metadata
import math
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from recurra.shapes import Tensor

KEPT_OUT = ("mamba_ssm", "causal_conv1d", "kernels", "fla", "accelerated_scan")


class Layer(NamedTuple):
    """A layer to time: x -> y, and one step (x, state) -> (y, state), from None at the start; None if it has none."""

    module: nn.Module
    sequence: Callable[[Tensor], Tensor]
    step: Callable[[Tensor, Any], tuple[Tensor, Any]] | None


# a width, the steps it will see, and the configuration of the mixer that it is to be like
Build = Callable[[int, int, dict[str, Any]], Layer]


class Peer(NamedTuple):
    """Somebody's layer: what to call it, its package on the index, and how to build it."""

    name: str
    package: str
    build: Build

    def version(self) -> str | None:
        """What is installed; None if nothing is."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


def keep_out() -> None:
    """Make the import of fused GPU kernels fail, as where they are not installed, and packages quiet about it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in KEPT_OUT:
        sys.modules[name] = None  # type: ignore[assignment]


def _torch(kind: Callable[..., nn.Module]) -> Build:
    def build(width: int, steps: int, config: dict[str, Any]) -> Layer:
        layer = kind(width, width, batch_first=True)
        return Layer(layer, lambda x: layer(x)[0], layer)

    return build


def _attention(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """Without rotary positions, and without a step: torch keeps no keys."""
    layer = nn.MultiheadAttention(width, config["heads"], bias=False, batch_first=True)

    def sequence(x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]

    return Layer(layer, sequence, None)


def _min_rnn(name: str) -> Build:
    def build(width: int, steps: int, config: dict[str, Any]) -> Layer:
        module = importlib.import_module(f"minGRU_pytorch.{name}")
        layer = getattr(module, name)(width)
        return Layer(layer, layer, lambda x, state: layer(x, state, return_next_prev_hidden=True))

    return build


def _lru(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """A Python loop over rows and steps; its state ends with every call, so there is no step."""
    from LRU_pytorch import LRU

    layer = LRU(width, width, config["units"] or width)
    return Layer(layer, layer, None)


def _s5(width: int, steps: int, config: dict[str, Any]) -> Layer:
    from s5 import S5

    layer = S5(width, config["units"] or width, block_count=config["blocks"])

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        # its own initial_state() reads an attribute that is no longer there
        state = torch.zeros(len(x), config["units"] or width, dtype=torch.complex64) if state is None else state
        return layer(x, state=state, return_state=True)

    return Layer(layer, layer, step)


def _mambapy(width: int, steps: int, config: dict[str, Any]) -> Layer:
    from mambapy.mamba import MambaBlock, MambaConfig

    sizes = MambaConfig(
        width, 1, dt_rank=config["rank"] or "auto", d_state=config["units"], expand_factor=config["expand"],
        d_conv=config["conv"],
    )  # fmt: skip
    layer = MambaBlock(sizes)

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = (None, x.new_zeros(len(x), sizes.d_inner, sizes.d_conv - 1)) if state is None else state
        return layer.step(x[:, 0], state)

    return Layer(layer, layer, step)


def _cached(layer: nn.Module, config: Any) -> Layer:
    """A layer of transformers whose state is a cache that it changes in place."""
    from transformers import DynamicCache

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = DynamicCache(config=config) if state is None else state
        return _first(layer(x, state)), state

    return Layer(layer, lambda x: _first(layer(x)), step)


def _fill(module: nn.Module) -> None:
    """Small numbers for what a model fills and a layer alone leaves as it was in memory."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.1)


def _first(y: Any) -> Tensor:
    return y[0] if isinstance(y, tuple) else y


def _mamba(width: int, steps: int, config: dict[str, Any]) -> Layer:
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    sizes = MambaConfig(
        hidden_size=width, state_size=config["units"], expand=config["expand"], conv_kernel=config["conv"],
        time_step_rank=config["rank"] or "auto", num_hidden_layers=1,
    )  # fmt: skip
    return _cached(MambaMixer(sizes, 0), sizes)


def _mamba2(width: int, steps: int, config: dict[str, Any]) -> Layer:
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    sizes = Mamba2Config(
        hidden_size=width, state_size=config["state_size"], expand=config["expand"], conv_kernel=config["conv_size"],
        num_heads=config["heads"], head_dim=config["expand"] * width // config["heads"], n_groups=config["groups"],
        num_hidden_layers=1,
    )  # fmt: skip
    return _cached(Mamba2Mixer(sizes, 0), sizes)


def _qwen3_next(width: int, steps: int, config: dict[str, Any]) -> Layer:
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    heads = config["heads"]
    key = config["head_size"] or width // heads
    sizes = Qwen3NextConfig(
        hidden_size=width, linear_num_key_heads=heads, linear_num_value_heads=heads, linear_key_head_dim=key,
        linear_value_head_dim=config["expand"] * key, linear_conv_kernel_dim=config["conv_size"], num_hidden_layers=1,
        layer_types=["linear_attention"],
    )  # fmt: skip
    return _cached(Qwen3NextGatedDeltaNet(sizes, 0), sizes)


def _kimi(width: int, steps: int, config: dict[str, Any]) -> Layer:
    from transformers import KimiLinearConfig
    from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

    heads = config["heads"]
    sizes = KimiLinearConfig(
        hidden_size=width, linear_num_heads=heads, linear_head_dim=config["head_size"] or width // heads,
        linear_conv_kernel_dim=config["conv_size"], num_hidden_layers=1, layer_types=["linear_attention"],
        mlp_layer_types=["dense"],
    )  # fmt: skip
    layer = KimiLinearDeltaAttention(sizes, 0)
    _fill(layer.forget_gate)
    return _cached(layer, sizes)


def _rwkv(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """Time mixing alone, as ours. Its state lies in tensors of all layers: a step is the model's, not the layer's."""
    from transformers import RwkvConfig
    from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention

    layer = RwkvSelfAttention(RwkvConfig(hidden_size=width, num_hidden_layers=1))
    _fill(layer)
    return Layer(layer, lambda x: layer(x)[0], None)


def _griffin(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """The loop over steps of Hawk's block. Its state is an attribute of the layer, so it is not stepped."""
    from transformers import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    sizes = RecurrentGemmaConfig(hidden_size=width, lru_width=width, num_attention_heads=4, num_hidden_layers=1)
    layer = RecurrentGemmaRecurrentBlock(sizes, 0)
    _fill(layer.rg_lru)

    def sequence(x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])[None]
        return layer(x, places, torch.ones(x.shape[:2]), use_cache=False)[0]

    return Layer(layer, sequence, None)


def _xlstm_mlstm(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """In the parallel form that the package trains with: quadratic in T."""
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    sizes = mLSTMLayerConfig(
        embedding_dim=width, num_heads=config["heads"], proj_factor=float(config["expand"]), context_length=steps,
        qkv_proj_blocksize=config["block"], conv1d_kernel_size=config["conv"],
    )  # fmt: skip
    sizes._inner_embedding_dim = config["expand"] * width
    layer = mLSTMLayer(sizes)

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return layer.step(x, **(state or {}))

    return Layer(layer, layer, step)


def _mlstm_kernels(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """The layer of xLSTM 7B over the chunkwise torch kernel: full maps for queries, keys and values, no convolution."""
    from mlstm_kernels.torch.backend_module import mLSTMBackendConfig
    from xlstm.xlstm_large.model import mLSTMLayer, mLSTMLayerConfig

    def built(mode: Any) -> mLSTMLayer:
        # training takes whole chunks; the layer that pads loses the batch
        chunk = math.gcd(64, steps)
        backend = mLSTMBackendConfig(mode=mode, chunk_size=chunk, autocast_kernel_dtype="float32")
        expand = float(config["expand"])
        return mLSTMLayer(
            mLSTMLayerConfig(width, config["heads"], qk_dim_factor=expand, v_dim_factor=expand, mlstm_backend=backend)
        )

    layer, stepped = built("train"), built("inference")
    stepped.load_state_dict(layer.state_dict())
    return Layer(layer, lambda x: layer(x)[0], stepped)


def _xlstm_slstm(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """With the plain backend: the other one needs CUDA."""
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    sizes = sLSTMLayerConfig(
        embedding_dim=width, num_heads=config["heads"], conv1d_kernel_size=config["conv"], backend="vanilla",
        dtype="float32",
    )  # fmt: skip
    layer = sLSTMLayer(sizes)
    layer.reset_parameters()

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return layer.step(x, **(state or {}))

    return Layer(layer, layer, step)


def _liquid(name: str, **more: Any) -> Build:
    def build(width: int, steps: int, config: dict[str, Any]) -> Layer:
        import ncps.torch

        layer = getattr(ncps.torch, name)(width, width, **more)
        return Layer(layer, lambda x: layer(x)[0], layer)

    return build


def _sru(width: int, steps: int, config: dict[str, Any]) -> Layer:
    """Compiled by torch's extension loader at its first import, which may take a minute."""
    from sru import SRUCell

    layer = SRUCell(width, width)

    def sequence(x: Tensor) -> Tensor:
        return layer(x.transpose(0, 1))[0].transpose(0, 1)

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return layer(x[:, 0], state)

    return Layer(layer, sequence, step)


def _titans(**more: Any) -> Build:
    def build(width: int, steps: int, config: dict[str, Any]) -> Layer:
        from titans_pytorch import NeuralMemory

        heads, size = config["heads"], width // config["heads"]
        layer = NeuralMemory(width, heads=heads, dim_head=size, **more)
        return Layer(layer, lambda x: layer(x)[0], lambda x, state: layer(x, state=state))

    return build


# one update a step, in batches of C, is our rule; its chunks make one update of 64 gradients, which is less
SAME_RULE = {"chunk_size": 1, "batch_size": 16, "mem_model_norm_add_residual": False}


# mixer -> the same layer elsewhere
PEERS: dict[str, tuple[Peer, ...]] = {
    "elman": (Peer("nn.RNN", "torch", _torch(nn.RNN)),),
    "gru": (Peer("nn.GRU", "torch", _torch(nn.GRU)),),
    "attention": (Peer("nn.MultiheadAttention", "torch", _attention),),
    "mingru": (Peer("minGRU-pytorch", "minGRU-pytorch", _min_rnn("minGRU")),),
    "minlstm": (Peer("minGRU-pytorch minLSTM", "minGRU-pytorch", _min_rnn("minLSTM")),),
    "lru": (Peer("LRU-pytorch", "LRU-pytorch", _lru),),
    "s5": (Peer("s5-pytorch", "s5-pytorch", _s5),),
    "mamba": (Peer("mambapy", "mambapy", _mambapy), Peer("transformers Mamba", "transformers", _mamba)),
    "mamba2": (Peer("transformers Mamba-2", "transformers", _mamba2),),
    "gated_deltanet": (Peer("transformers Qwen3-Next", "transformers", _qwen3_next),),
    "kda": (Peer("transformers Kimi Linear", "transformers", _kimi),),
    "rwkv4": (Peer("transformers RWKV", "transformers", _rwkv),),
    "rg_lru": (Peer("transformers RecurrentGemma", "transformers", _griffin),),
    "mlstm": (Peer("xlstm", "xlstm", _xlstm_mlstm), Peer("mlstm_kernels", "mlstm_kernels", _mlstm_kernels)),
    "slstm": (Peer("xlstm", "xlstm", _xlstm_slstm),),
    "cfc": (Peer("ncps", "ncps", _liquid("CfC", backbone_layers=0)),),
    "ltc": (Peer("ncps", "ncps", _liquid("LTC")),),
    "sru": (Peer("sru", "sru", _sru),),
    "titans": (
        Peer("titans-pytorch", "titans-pytorch", _titans(**SAME_RULE)),
        Peer("titans-pytorch chunks of 64", "titans-pytorch", _titans(chunk_size=64)),
    ),
}
BASELINE = Peer("nn.LSTM", "torch", _torch(nn.LSTM))
