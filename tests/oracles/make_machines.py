"""Write machines.safetensors: memories of a neural Turing machine and a differentiable neural computer, in float64.

pip install dnc==1.1.0; python tests/oracles/make_machines.py PATH, of https://github.com/loudinthecloud/pytorch-ntm at
3c64937cb075e737528ff7ecf02b2c1c6d8347a1.

Both begin with memories that are not blank, so that nothing is 0 / 0. Heads of the NTM that write come first. The
package `dnc` squashes keys and values and has a softplus for a strength; its memory is given what the paper says
instead, and its order of read modes is the one stored. What it adds to lengths is left out. The controller is
torch.nn.LSTMCell.
"""

import importlib.metadata
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

WIDTH, SLOTS, SIZE, BATCH, STEPS, HEADS = 8, 5, 4, 2, 9, 2


def scattered(*shape):
    return torch.rand(*shape).softmax(-1)


def controller(read, interface):
    """The cell, a layer that speaks and one that reads out, as ours has their weights."""
    cell, says = nn.LSTMCell(WIDTH + read, WIDTH), nn.Linear(WIDTH, interface)
    out = nn.Linear(WIDTH + read, WIDTH, bias=False)
    with torch.no_grad():
        says.weight.mul_(2)
    weights = {
        "input.weight": cell.weight_ih[:, :WIDTH],
        "input.bias": cell.bias_ih + cell.bias_hh,
        "recurrent": torch.cat([cell.weight_hh, cell.weight_ih[:, WIDTH:]], 1),
        "interface.weight": says.weight,
        "interface.bias": says.bias,
        "out.weight": out.weight,
    }
    return cell, says, out, {f"weight.controller.{key}": value for key, value in weights.items()}


def run(cell, says, out, access, x, read):
    h, c = (torch.randn(BATCH, WIDTH) for _ in "hc")
    start, outputs = (h, c, read), []
    for now in x.unbind(1):
        h, c = cell(torch.cat([now, read], -1), (h, c))
        read = access(says(h))
        outputs.append(out(torch.cat([h, read], -1)))
    return start, (h, c, read), torch.stack(outputs, 1)


def turing(path):
    sys.path.insert(0, path)
    from ntm.head import NTMReadHead, NTMWriteHead
    from ntm.memory import NTMMemory

    memory = NTMMemory(SLOTS, SIZE)
    writer, reader = NTMWriteHead(memory, WIDTH), NTMReadHead(memory, WIDTH)
    # theirs speak through a layer of each head; here both repeat what the one layer says
    for head, layer in ((writer, "fc_write"), (reader, "fc_read")):
        setattr(head, layer, nn.Identity())
    cell, says, out, weights = controller(SIZE, 2 * (SIZE + 6) + 2 * SIZE)
    memory.reset(BATCH)
    memory.memory = torch.randn(BATCH, SLOTS, SIZE)
    looked = [scattered(BATCH, SLOTS) for _ in "wr"]
    begin = (memory.memory.flatten(1), torch.cat(looked, -1), torch.ones(BATCH, 1))

    def shifted(look):
        """Theirs counts shifts from the other side."""
        head, shift, sharp = look.split([SIZE + 2, 3, 1], -1)
        return torch.cat([head, shift.flip(-1), sharp], -1)

    def access(interface):
        write, read, change = interface.split([SIZE + 6, SIZE + 6, 2 * SIZE], -1)
        looked[0] = writer(torch.cat([shifted(write), change], -1), looked[0])
        found, looked[1] = reader(shifted(read), looked[1])
        return found

    x = torch.randn(BATCH, STEPS, WIDTH)
    start, end, y = run(cell, says, out, access, x, torch.randn(BATCH, SIZE))
    last = (memory.memory.flatten(1), torch.cat(looked, -1), torch.ones(BATCH, 1))
    return named("ntm", x, y, (*start, *begin), (*end, *last), weights)


def computer():
    from dnc import util
    from dnc.memory import Memory

    util.δ = 0.0
    memory = Memory(WIDTH, SLOTS, SIZE, HEADS)
    cell, says, out, weights = controller(HEADS * SIZE, HEADS * (SIZE + 5) + 3 * SIZE + 3)
    hidden = {
        "memory": torch.randn(BATCH, SLOTS, SIZE),
        "usage_vector": torch.rand(BATCH, SLOTS),
        "write_weights": scattered(BATCH, 1, SLOTS),
        "read_weights": scattered(BATCH, HEADS, SLOTS),
        "link_matrix": scattered(BATCH, 1, SLOTS, SLOTS) * (1 - torch.eye(SLOTS)),
        "precedence": scattered(BATCH, 1, SLOTS),
    }

    def flat():
        return tuple(value.flatten(1).clone() for value in hidden.values())

    def access(interface):
        of_writing, of_heads = interface.split([3 * SIZE + 3, HEADS * (SIZE + 5)], -1)
        key, value, erase, strength, allocate, write = of_writing.split([SIZE, SIZE, SIZE, 1, 1, 1], -1)
        keys, strengths, free, modes = of_heads.unflatten(-1, (HEADS, -1)).split([SIZE, 1, 1, 3], -1)
        memory.write(
            key[:, None], value[:, None], erase.sigmoid()[:, None], free[..., 0].sigmoid(), None,
            1 + F.softplus(strength), write.sigmoid(), allocate.sigmoid(), hidden,
        )  # fmt: skip
        # theirs are backward, forward, content; the paper's backward, content, forward
        modes = modes.softmax(-1)[..., [0, 2, 1]]
        read, _ = memory.read(keys, 1 + F.softplus(strengths[..., 0]), modes, hidden)
        return read.flatten(1)

    x, begin = torch.randn(BATCH, STEPS, WIDTH), flat()
    start, end, y = run(cell, says, out, access, x, torch.randn(BATCH, HEADS * SIZE))
    return named("dnc", x, y, (*start, *begin), (*end, *flat()), weights)


def named(name, x, y, start, end, weights):
    tensors = {"x": x, "y": y, **{f"start.{i}": s for i, s in enumerate(start)}}
    tensors |= {f"end.{i}": s for i, s in enumerate(end)} | weights
    return {f"{name}.{key}": value.detach().clone().contiguous() for key, value in tensors.items()}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    versions = {name: importlib.metadata.version(name) for name in ("dnc", "torch")}
    save_file(
        turing(sys.argv[1]) | computer(),
        pathlib.Path(__file__).with_name("machines.safetensors"),
        versions | {"pytorch-ntm": "3c64937cb075e737528ff7ecf02b2c1c6d8347a1"},
    )
