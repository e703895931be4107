"""Write plstm.safetensors: the authors' pLSTM on a sequence, on grids and on a graph, in float64.

pip install compoconf==0.3.1 networkx==3.6.1; python tests/oracles/make_plstm.py PATH, of the folder src in
https://github.com/ml-jku/plstm at a404ff3845d744325cc1ea145f0f2e1a5a410c2b.
"""

import pathlib
import sys

import networkx
import torch
from safetensors.torch import save_file

WIDTH, HEADS = 8, 2


def gates(config, source, mark, direct, transition, heads):
    """Gates that see their input, and numbers for transitions."""
    one = {"JT": 1, "JK": 1, "JV": 1, "input_dim": WIDTH, "weight": True, "dtype": "float64"}
    read = {"JT": 1, "JQ": 1, "JO": 1, "input_dim": WIDTH, "weight": True, "dtype": "float64"}
    both = {"JK": 1, "JV": 1, "JQ": 1, "JO": 1, "input_dim": WIDTH, "weight": True, "dtype": "float64"}
    return config(
        input_dim=WIDTH, num_heads=HEADS, JK=1, JQ=1, JV=1, JT=1, JO=1, sub_heads=1, dtype="float64",
        source=source(num_heads=heads, **one), mark=mark(num_heads=heads, **read),
        direct=direct(num_heads=HEADS, **both),
        transition=transition(num_heads=heads, input_dim=WIDTH, transition_dim=1),
        **({} if config.__name__ == "pLSTM1DLayerConfig" else {"orientation_combinations": [0]}),
    )  # fmt: skip


def scattered(layer):
    """The layer in float64, its parameters moved off their start; transitions of either sign."""
    layer = layer.double()
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.add_(0.3 * torch.randn_like(p))
            if "eigenvalues" in name or name == "transition.bias":
                p.copy_(0.2 * torch.randn_like(p))
            if name.startswith(("source", "mark", "direct")) and name.endswith("bias"):
                p.add_(4)
    return layer


def stored(name, layer, **numbers):
    weights = {f"{name}.weight.{key}": p.detach() for key, p in layer.named_parameters()}
    return weights | {f"{name}.{key}": value.detach() for key, value in numbers.items()}


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from plstm.config.longrange_transition_layer import LongRangeTransitionLayerConfig
    from plstm.config.plstm_1d_layer import pLSTM1DLayerConfig
    from plstm.config.plstm_2d_layer import pLSTM2DLayerConfig
    from plstm.config.source_mark_layer import DirectLayerConfig, MarkLayerConfig, SourceLayerConfig
    from plstm.torch.plstm_1d_layer import pLSTM1DLayer
    from plstm.torch.plstm_2d_layer import pLSTM2DLayer
    from plstm.torch.plstm_graph import plstm_graph

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    parts = (SourceLayerConfig, MarkLayerConfig, DirectLayerConfig, LongRangeTransitionLayerConfig)

    layer = scattered(pLSTM1DLayer(gates(pLSTM1DLayerConfig, *parts, HEADS)))
    x = torch.randn(2, 16, WIDTH)
    numbers = stored("sequence", layer, x=x, y=layer(x))

    for mode in ("P", "D"):
        config = gates(pLSTM2DLayerConfig, *parts, HEADS)
        config.mode, config.dmode_chirality = mode, "L"
        config.additional_convolution = config.additional_passthrough = False
        layer = scattered(pLSTM2DLayer(config))
        x = torch.randn(2, 4, 4, WIDTH)
        numbers |= stored(f"grid_{mode}", layer, x=x, y=layer(x))

    nodes = networkx.DiGraph([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (1, 4), (5, 2)])
    between = networkx.line_graph(nodes)
    order = {edge: i for i, edge in enumerate(networkx.topological_sort(between))}
    links = {pair: i for i, pair in enumerate(between.edges())}
    shapes = {"query": (6, 3), "key": (6, 3), "value": (6, 4), "source": (len(order),), "transition": (len(links),)}
    graph = {name: torch.randn(HEADS, *shape) for name, shape in shapes.items()}
    graph |= {"mark": torch.randn(HEADS, len(order)), "direct": torch.randn(HEADS, 6)}
    read = plstm_graph(*graph.values(), between, order, links)
    graph |= {"edges": torch.tensor(list(order)), "links": torch.tensor([[order[a], order[b]] for a, b in links])}
    numbers |= {f"graph.{name}": value for name, value in (graph | {"read": read}).items()}

    made_by = {"package": "ml-jku/plstm", "version": "a404ff3845d744325cc1ea145f0f2e1a5a410c2b"}
    numbers = {name: value.contiguous() for name, value in numbers.items()}
    save_file(numbers, pathlib.Path(__file__).with_name("plstm.safetensors"), made_by)
