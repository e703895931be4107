"""Write segment.safetensors: memories over segments by code that others wrote, in float64.

    pip install infini-transformer-pytorch==0.2.1 rotary-embedding-torch==0.9.1 loguru einops \
        recurrent-memory-transformer-pytorch==0.7.0 hyper-connections block-recurrent-transformer-pytorch==0.4.4
    git -C associative-recurrent-memory-transformer show aa145de:modeling_amt/language_modeling.py > armt.py
    git -C transformer-xl show 44781ed:pytorch/mem_transformer.py > xl.py
    python tests/oracles/make_segment.py armt.py xl.py

What in them is not the paper is taken back where it is said: infini-transformer-pytorch does not gate a segment
without memory (here it gets an empty one); recurrent-memory-transformer-pytorch has a key that belongs to no step (it
is cut off) and keeps steps 10,000 places from memory tokens (they are moved back); block-recurrent-transformer-pytorch
shares keys among heads (here there is one head) and normalises steps in its attention layer, which is not called.
"""

import importlib.metadata
import pathlib
import sys
import types

import torch
from block_recurrent_transformer_pytorch.block_recurrent_transformer_pytorch import StateContainer
from infini_transformer_pytorch.infini_transformer import CausalAttention, Memories
from recurrent_memory_transformer_pytorch import recurrent_memory_transformer as rmt
from safetensors.torch import save_file
from torch import nn

torch.set_default_dtype(torch.float64)
torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
WIDTH, HEADS, SEGMENT, STEPS = 8, 2, 5, 20


def shaken(module):
    """The module with every parameter off its start."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module.eval()


def written(layer, **more):
    return {f"weight.{name}": p.detach() for name, p in layer.named_parameters()} | more


def angles_of(base, size):
    """Theirs are rounded to float32."""
    return base ** -(torch.arange(0, size, 2) / size)


def infini(delta):
    layer = shaken(CausalAttention(WIDTH, dim_head=WIDTH // HEADS, heads=HEADS, use_mem_delta_rule=delta)).double()
    layer.norm, size = nn.Identity(), WIDTH // HEADS
    nn.init.normal_(layer.fastweight_mem.head_gates)
    layer.rotary_emb.freqs.data = angles_of(10_000, size)
    x = torch.randn(2, STEPS, WIDTH)
    memory = Memories(torch.zeros(2, HEADS, size, size), torch.zeros(2, HEADS, size))
    y = []
    for part in x.split(SEGMENT, 1):
        out, _, memory = layer(part, past_memories=memory, return_new_memories=True)
        y.append(out)
    return written(layer, x=x, y=torch.cat(y, 1), matrix=memory.kv_mem, total=memory.k_norm)


def recurrent_memory(tokens):
    model = rmt.RecurrentMemoryTransformer(
        WIDTH, num_tokens=STEPS, depth=1, num_memory_tokens=tokens, seq_len=SEGMENT, dim_head=WIDTH // HEADS,
        heads=HEADS, abs_pos_emb=False, rotary_pos_emb=True, use_xl_memories=False, num_residual_streams=1,
        emb_gradient_frac=1.0, add_write_to_next_write_mem=True, next_write_mem_stop_grad=False,
    )  # fmt: skip
    shaken(model).double()
    for p in (model.memory_tokens, model.read_memory_emb):
        nn.init.zeros_(p)
    for name, module in model.named_modules():
        if isinstance(module, nn.RMSNorm):
            module.eps = 1e-5
        if name.endswith("attend"):
            module.register_forward_pre_hook(without_the_key_of_no_step, with_kwargs=True)
    model.rotary_pos_emb.inv_freq = angles_of(32_768, WIDTH // HEADS)
    angles = model.rotary_pos_emb.forward
    model.rotary_pos_emb.forward = lambda positions: angles((positions - 10_000).clamp(min=0).double())
    seen = []
    for module in model.modules():
        if isinstance(module, rmt.Attention):
            module.norm.weight.data.fill_(1)
            module.register_forward_hook(lambda m, args, out: seen.append((m.norm(args[0]), out[0])))
    ids, start = torch.arange(STEPS)[None].repeat(2, 1), torch.randn(tokens, WIDTH)
    ids[1] = ids[1].flip(0)
    memory = start.expand(2, -1, -1)
    for part in ids.split(SEGMENT, 1):
        _, memory, _ = model(part, memory)
    x, y = (torch.cat([pair[i][:, tokens:-tokens] for pair in seen], 1) for i in (0, 1))
    return written(model, x=x, y=y, start=start, memory=memory)


def without_the_key_of_no_step(_, args, kwargs):
    query, key, value = args
    return (query, key[:, :, 1:], value[:, :, 1:]), kwargs | {"mask": kwargs["mask"][..., 1:]}


def source(path, **stubs):
    """The names in a file of theirs, without what it imports and we do not call."""
    for name, parts in stubs.items():
        module = types.ModuleType(name.replace("__", "."))
        for part in parts:
            setattr(module, part, None)
        sys.modules[module.__name__] = module
    names = {}
    exec(pathlib.Path(path).read_text(), names)
    return names


class Passes(nn.Module):
    """A layer that does nothing, so that what is read and written is the memory's own."""

    def forward(self, hidden_states):
        return (hidden_states,)


def associative(path):
    names = source(
        path, transformers=(), transformers__modeling_outputs=("CausalLMOutputWithCrossAttentions",), wandb=()
    )
    layer = names["AssociativeLayerWrapper"](Passes(), WIDTH, 3, 4)
    shaken(layer).double()
    # as if there had been a segment that wrote nothing: their first is a case of its own, to within their epsilon
    layer.first_seg = False
    x = torch.randn(2, 4, SEGMENT, WIDTH)
    y = torch.stack([layer(part)[0] for part in x.unbind(1)], 1)
    return written(layer, x=x, y=y, matrix=layer.W_mem, total=layer.z)


def transformer_xl(path, memory):
    names = source(
        path, proj_adaptive_softmax=("ProjectedAdaptiveLogSoftmax",),
        log_uniform_sampler=("LogUniformSampler", "sample_logits"),
    )  # fmt: skip
    layer = names["RelPartialLearnableMultiHeadAttn"](HEADS, WIDTH, WIDTH // HEADS, 0.0, pre_lnorm=True)
    shaken(layer).double()
    layer.layer_norm = nn.Identity()
    waves = names["PositionalEmbedding"](WIDTH)
    u, v = torch.randn(2, HEADS, WIDTH // HEADS)
    x, y = torch.randn(STEPS, 2, WIDTH), []
    for start in range(0, STEPS, SEGMENT):
        here, kept = x[start : start + SEGMENT], x[max(0, start - memory) : start]
        length = len(kept) + SEGMENT
        mask = torch.ones(SEGMENT, length).triu(1 + len(kept)).bool()[..., None]
        far = waves(torch.arange(length - 1, -1, -1.0))
        y.append(layer(here, far, u, v, attn_mask=mask, mems=kept if len(kept) else None) - here)
    return written(layer, x=x.transpose(0, 1), y=torch.cat(y).transpose(0, 1), u=u, v=v)


def block_recurrent():
    layer = shaken(StateContainer(WIDTH, num_state_vectors=3, dim_head=WIDTH, heads=1)).double()
    x, keys, values = torch.randn(3, 2, STEPS, WIDTH)
    reads, states = [], layer.init_state.expand(2, -1, -1)
    for part, key, value in zip(*(z.split(SEGMENT, 1) for z in (x, keys, values)), strict=True):
        layer.set_next_read_state(states)
        reads.append(layer.read(part))
        states = layer.write(memories=(key, value))
    return written(layer, x=x, key=keys, value=values, read=torch.cat(reads, 1), states=states)


if __name__ == "__main__":
    torch.manual_seed(0)
    parts = {
        "infini": infini(False), "infini_delta": infini(True), "rmt": recurrent_memory(3),
        "armt": associative(sys.argv[1]), "xl": transformer_xl(sys.argv[2], SEGMENT),
        "xl_long": transformer_xl(sys.argv[2], 7), "block": block_recurrent(),
    }  # fmt: skip
    numbers = {f"{part}.{name}": x for part, some in parts.items() for name, x in some.items()}
    numbers = {name: x.detach().double().contiguous().clone() for name, x in numbers.items()}
    packages = ("infini-transformer-pytorch", "recurrent-memory-transformer-pytorch")
    packages += ("block-recurrent-transformer-pytorch", "rotary-embedding-torch")
    made_by = {name: importlib.metadata.version(name) for name in packages}
    made_by |= {"associative-recurrent-memory-transformer": "aa145de", "transformer-xl": "44781ed"}
    save_file(numbers, pathlib.Path(__file__).with_name("segment.safetensors"), made_by)
