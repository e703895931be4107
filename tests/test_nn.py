"""recurra.nn against torch.nn, weight for weight and error for error; and the rest of the table in the same shape."""

import copy
import functools
import itertools

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.testing import assert_close

import recurra.nn
from recurra import MIXERS, Clock, use
from recurra.state import each, leaves

INPUT, N = 5, 6
KINDS = {
    "lstm": ("LSTM", {}),
    "lstm-project": ("LSTM", {"proj_size": 3}),
    "gru": ("GRU", {}),
    "rnn": ("RNN", {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def pair(kind, **keywords):
    """Ours and torch's, with the same weights."""
    name, own = KINDS[kind]
    keywords = {"dtype": torch.float64, **own, **keywords}
    theirs = getattr(torch.nn, name)(INPUT, N, **keywords)
    ours = getattr(recurra.nn, name)(INPUT, N, **keywords)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def start(layer, batch, like):
    """A random state in torch's shape."""
    cells = layer.num_layers * (2 if layer.bidirectional else 1)
    h, c = (torch.randn(cells, batch, n, dtype=torch.float64) for n in (getattr(like, "proj_size", 0) or N, N))
    return (h, c) if isinstance(like, torch.nn.LSTM) else h


def same(got, want):
    """Outputs and states, packed or not, equal."""
    assert type(got[0]) is type(want[0])
    if isinstance(want[0], PackedSequence):
        for a, b in zip(got[0], want[0], strict=True):
            assert_close(a, b)
    else:
        assert_close(got[0], want[0])
    assert_close(got[1], want[1])


@each_kind
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_states_and_gradients_are_torchs(kind, num_layers, bidirectional, batch_first, bias):
    ours, theirs = pair(kind, num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias)
    x = torch.randn(4, 7, INPUT, dtype=torch.float64, requires_grad=True)
    for state in (None, start(ours, 4 if batch_first else 7, theirs)):
        same(ours(x, state), theirs(x, state))
    grads = []
    for layer in (ours, theirs):
        y, last = layer(x, state)
        total = y.sin().sum() + sum(part.cos().sum() for part in leaves(last))
        grads.append(torch.autograd.grad(total, [x, *layer.parameters()]))
    assert_close(grads[0], grads[1])


# torch's own layer warns of a projection in float32
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@each_kind
def test_state_dicts_go_both_ways_and_start_alike(kind):
    keywords = {"num_layers": 2, "bidirectional": True}
    ours, theirs = pair(kind, **keywords)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    name, own = KINDS[kind]
    torch.manual_seed(1)
    ours = getattr(recurra.nn, name)(INPUT, N, **own, **keywords)
    torch.manual_seed(1)
    fresh = getattr(torch.nn, name)(INPUT, N, **own, **keywords)
    assert_close(dict(ours.state_dict()), dict(fresh.state_dict()), rtol=0, atol=0)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 2, INPUT)
    same(ours(x), theirs.float()(x))


@each_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_a_batch(kind, bidirectional):
    ours, theirs = pair(kind, num_layers=2, bidirectional=bidirectional)
    x = torch.randn(9, INPUT, dtype=torch.float64)
    state = each(lambda part: part[:, 0], start(ours, 1, theirs))
    same(ours(x), theirs(x))
    same(ours(x, state), theirs(x, state))


@each_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_packed_sequences_in_and_out(kind, bidirectional, ordered):
    ours, theirs = pair(kind, num_layers=2, bidirectional=bidirectional)
    lengths = [8, 5, 5, 1] if ordered else [5, 1, 8, 5]
    x = torch.randn(4, 8, INPUT, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=ordered)
    state = start(ours, 4, theirs)
    same(ours(packed), theirs(packed))
    same(ours(packed, state), theirs(packed, state))


@each_kind
def test_a_cut_changes_nothing(kind):
    ours, theirs = pair(kind, num_layers=2, batch_first=True)
    x = torch.randn(3, 13, INPUT, dtype=torch.float64)
    want, last = theirs(x)
    first, state = ours(x[:, :6])
    nothing, state = ours(x[:, :0], state)
    second, state = ours(x[:, 6:], state)
    assert nothing.shape == (3, 0, want.shape[2])
    same((torch.cat([first, second], 1), state), (want, last))


@each_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
def test_a_clock_is_separate_sequences(kind, bidirectional, gaps):
    ours, theirs = pair(kind, num_layers=2, bidirectional=bidirectional, batch_first=True)
    x = torch.randn(2, 20, INPUT, dtype=torch.float64)
    reset = torch.zeros(2, 20, dtype=torch.bool)
    reset[0, [0, 6, 7]] = reset[1, [3, 12, 19]] = True
    valid = torch.rand(2, 20) < 0.7 if gaps else torch.ones(2, 20, dtype=torch.bool)
    valid[:, [0, 19]] = True
    y, _ = ours(x, None, Clock(reset, valid) if gaps else Clock(reset))
    assert (y[~valid] == 0).all()
    for row in range(2):
        starts = [0, *(reset[row] & valid[row]).nonzero()[:, 0].tolist(), 20]
        for begin, end in itertools.pairwise(starts):
            happened = valid[row, begin:end]
            if happened.any():
                want, _ = theirs(x[row : row + 1, begin:end][:, happened])
                assert_close(y[row, begin:end][happened], want[0])


def test_dropout_falls_between_layers_only():
    layer = recurra.nn.LSTM(INPUT, N, 2, dropout=1.0)
    x = torch.randn(4, 3, INPUT)
    dead = layer(x)[0]
    assert_close(dead, layer(x + 1)[0]) and (dead != 0).any()
    layer.eval()
    plain = torch.nn.LSTM(INPUT, N, 2)
    plain.load_state_dict(layer.state_dict())
    assert_close(layer(x)[0], plain(x)[0])


def test_positional_arguments_are_in_torchs_order():
    for ours, theirs, options in (
        (recurra.nn.LSTM, torch.nn.LSTM, (2, False, True, 0.1, True, 4)),
        (recurra.nn.GRU, torch.nn.GRU, (2, False, True, 0.1, True)),
        (recurra.nn.RNN, torch.nn.RNN, (2, "relu", False, True, 0.1, True)),
    ):
        a, b = ours(INPUT, N, *options), theirs(INPUT, N, *options)
        assert list(a.state_dict()) == list(b.state_dict())
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        assert [getattr(a, n) for n in (*names, "proj_size")] == [getattr(b, n) for n in (*names, "proj_size")]
        assert f"{INPUT}, {N}, num_layers=2, bias=False" in repr(a)


MISTAKES = {
    "four dimensions": lambda layer: layer(torch.randn(1, 2, 3, INPUT)),
    "features": lambda layer: layer(torch.randn(2, 3, INPUT + 1)),
    "type": lambda layer: layer(torch.randn(2, 3, INPUT, dtype=torch.float64)),
    "state's batch": lambda layer: layer(torch.randn(2, 3, INPUT), torch.zeros(1, 4, N)),
    "state's width": lambda layer: layer(torch.randn(2, 3, INPUT), torch.zeros(1, 3, N + 1)),
    "state's dimensions": lambda layer: layer(torch.randn(2, 3, INPUT), torch.zeros(3, N)),
    "state without a batch": lambda layer: layer(torch.randn(2, INPUT), torch.zeros(1, 1, N)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_mistakes_raise_what_torch_raises(mistake, name):
    def attempt(module):
        layer = getattr(module, name)(INPUT, N)
        if name == "LSTM":
            layer.forward = (lambda run: lambda x, *h: run(x, *((part, part) for part in h)))(layer.forward)
        with pytest.raises((ValueError, RuntimeError)) as caught:
            MISTAKES[mistake](layer)
        return caught

    ours, theirs = attempt(recurra.nn), attempt(torch.nn)
    assert ours.type is theirs.type
    assert "\n" not in str(ours.value)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"input_size": 0}, "input_size is 0: it must be at least 1"),
        ({"hidden_size": -1}, "hidden_size is -1: it must be at least 1"),
        ({"num_layers": 0}, "num_layers is 0: it must be at least 1"),
        ({"proj_size": N}, "proj_size is 6: it must be less than hidden_size, 6"),
        ({"dropout": 1.5}, "dropout is 1.5: it is a probability"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        recurra.nn.LSTM(**{"input_size": INPUT, "hidden_size": N, **sizes})


def test_clocks_that_cannot_be_honoured_are_refused():
    x, layer = torch.randn(2, 3, INPUT), recurra.nn.GRU(INPUT, N, batch_first=True)
    with pytest.raises(ValueError, match="GRU has no notion of time"):
        layer(x, None, Clock(dt=torch.ones(2, 3)))
    with pytest.raises(ValueError, match=r"the clock is \(3, 2\)"):
        layer(x, None, Clock(torch.zeros(3, 2, dtype=torch.bool)))
    with pytest.raises(ValueError, match="says itself when steps happen"):
        layer(pack_sequence(list(x)), None, Clock(torch.zeros(2, 3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="nonlinearity is 'gelu': it must be one of tanh, relu"):
        recurra.nn.RNN(INPUT, N, nonlinearity="gelu")


def test_low_precision_weights_keep_a_wide_state():
    layer = recurra.nn.LSTM(INPUT, N, dtype=torch.bfloat16)
    y, (h, c) = layer(torch.randn(4, 2, INPUT, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16 and h.dtype == c.dtype == torch.float32


def test_layers_can_be_copied_and_forced():
    layer = recurra.nn.LSTM(INPUT, N)
    layer.flatten_parameters()
    x = torch.randn(4, 2, INPUT)
    with use("loop"):
        want = layer(x)
    same(copy.deepcopy(layer)(x), want)


# ---- every other architecture, in the same shape ----

each_mixer = pytest.mark.parametrize("name", MIXERS)
WIDTH = 16


def layers(name, **keywords):
    return recurra.nn.Recurrent(name, INPUT, WIDTH, 2, dtype=torch.float64, **keywords)


@each_mixer
def test_every_mixer_has_the_calling_shape(name):
    layer = layers(name, batch_first=True)
    x = torch.randn(3, 9, INPUT, dtype=torch.float64)
    want, last = layer(x)
    assert want.shape == (3, 9, WIDTH)
    first, state = layer(x[:, :4])
    second, state = layer(x[:, 4:], state)
    assert_close(torch.cat([first, second], 1), want)
    layer.batch_first = False
    assert_close(layer(x.transpose(0, 1))[0], want.transpose(0, 1))
    alone, state = layer(x[1, :4])
    alone, state = layer(x[1, 4:], state)
    assert_close(alone, want[1, 4:])
    assert_close(list(leaves(state)), [part[1] for part in leaves(last)])


@each_mixer
@pytest.mark.parametrize("ordered", [False, True])
def test_every_mixer_takes_packed_sequences(name, ordered):
    layer = layers(name, batch_first=True)
    rows = [torch.randn(n, INPUT, dtype=torch.float64) for n in ((8, 5, 1) if ordered else (5, 1, 8))]
    y, state = layer(pack_sequence(rows, enforce_sorted=ordered))
    alone = [layer(row) for row in rows]
    want = pack_sequence([out for out, _ in alone], enforce_sorted=ordered)
    for a, b in zip(y, want, strict=True):
        assert_close(a, b)
    if not any(mixer.grows for mixer in layer.layers):
        assert_close(list(leaves(state)), [torch.stack(p) for p in zip(*(leaves(s) for _, s in alone), strict=True)])


@each_mixer
def test_every_mixer_goes_by_its_class(name):
    cls = MIXERS[name].__name__
    made = recurra.nn.__getattr__(cls)
    assert isinstance(made, functools.partial) and made.args == (name,)
    assert type(made(WIDTH, WIDTH).layers[0]) is MIXERS[name]


def test_a_recurrent_layer_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="there is no mixer 'gruu': did you mean 'gru'"):
        recurra.nn.Recurrent("gruu", INPUT, WIDTH)
    with pytest.raises(ValueError, match="mamba2 carries its state forward only"):
        recurra.nn.Recurrent("mamba2", INPUT, WIDTH, bidirectional=True)
    with pytest.raises(TypeError):
        recurra.nn.Recurrent("gru", INPUT, WIDTH, no_such_keyword=1)
    with pytest.raises(ValueError, match="num_layers is 0: it must be at least 1"):
        recurra.nn.Recurrent("gru", INPUT, WIDTH, 0)
    with pytest.raises(AttributeError, match="has no attribute 'Transformer'"):
        recurra.nn.Transformer  # noqa: B018


def test_keywords_reach_the_architecture():
    layer = recurra.nn.Elman(INPUT, WIDTH, nonlinearity="relu", dropout=0.5, num_layers=2)
    assert layer.layers[1].config["nonlinearity"] == "relu"
    x = torch.randn(3, 2, INPUT)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert_close(layer(x)[0], layer(x)[0], rtol=0, atol=0)
