"""A compiled step against the model it was compiled from: outputs, states, weights that change, and what is refused.

Torch's compiler takes many seconds, so it compiles one small model; where another's step has no words in C, the traced
graph is run as it is.
"""

import copy
import pickle

import pytest
import torch

from recurra.models.classifier import Classifier
from recurra.models.forecaster import Forecaster
from recurra.models.language_model import LanguageModel
from recurra.state import each, leaves

# of every engine, and of every shape of state
TRACED = (
    "mingru", "minmax", "lru", "gla", "gated_deltanet", "mlstm", "rwkv7", "gru", "slstm", "s4d", "s4", "mesanet",
    "sliding_window", "mamba,mamba2*2,lstm",
)  # fmt: skip


def _model(pattern, **more):
    return LanguageModel(**({"vocabulary": 11, "width": 16, "depth": 2, "pattern": pattern, "hidden": 0} | more)).eval()


def _same(model, step, x, state=None, rows=1):
    with torch.no_grad():
        state = model.initial_state(rows) if state is None else state
        before = each(torch.clone, state)
        expected, after = model(x, state)
        y, new = step(x, state)
    for a, b in zip((y, *leaves(new)), (expected, *leaves(after)), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(b.abs().max())))
    for a, b in zip(leaves(state), leaves(before), strict=True):
        assert torch.equal(a, b), "a state that was given has changed"
    return new


@pytest.fixture(scope="module")
def compiled():
    torch.manual_seed(0)
    model = _model("mamba,mamba2")
    return model, model.compile_step(2)


def test_same_numbers_from_the_start_after_a_prompt_and_on_its_own_state(compiled):
    model, step = compiled
    with torch.no_grad():
        _, prompt = model(torch.randint(11, (2, 7)))
    for state in (None, prompt):
        for _ in range(3):
            state = _same(model, step, torch.randint(11, (2, 1)), state, rows=2)


def test_weights_may_change_in_place_or_be_replaced(compiled):
    model, step = compiled
    x = torch.randint(11, (2, 1))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)
    _same(model, step, x, rows=2)
    model.load_state_dict({k: 0.9 * v for k, v in model.state_dict().items()}, assign=True)
    _same(model, step, x, rows=2)


def test_no_gradient_and_any_number_of_threads(compiled):
    model, step = compiled
    y, state = step(torch.zeros(2, 1, dtype=torch.int64))
    assert not any(t.requires_grad for t in (y, *leaves(state)))
    torch.set_num_threads(2)
    try:
        _same(model, step, torch.randint(11, (2, 1)), rows=2)
    finally:
        torch.set_num_threads(1)


def test_generation_gives_the_same_tokens(compiled):
    model, step = compiled
    prompt = torch.randint(11, (2, 5))
    assert torch.equal(model.generate(prompt, step=step), model.generate(prompt))


def test_other_shapes_and_types_are_refused(compiled):
    model, step = compiled
    x = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"an input \(2, 1\).*not \(3, 1\)"):
        step(x[[0, 0, 1]])
    with pytest.raises(ValueError, match="an input"):
        step(x.int())
    with pytest.raises(ValueError, match=r"a tensor of state .*float64"):
        step(x, each(torch.Tensor.double, step.start))
    with pytest.raises(ValueError, match="4 tensors of state, not 2"):
        step(x, step.start[:1])
    model.double()
    try:
        with pytest.raises(RuntimeError, match=r"compile_step\(\) again"):
            step(x)
    finally:
        model.float()
    _same(model, step, x, rows=2)


def test_weights_that_lie_otherwise_are_refused(compiled):
    model, step = compiled
    x = torch.zeros(2, 1, dtype=torch.int64)
    state = _same(model, step, x, rows=2)
    weight = model.get_parameter("backbone.blocks.0.mixer.inputs.weight")
    had = weight.data
    # where it lay, of the same shape, type and size: only the way through it is another
    weight.data = had.reshape(had.shape[::-1]).T
    with pytest.raises(RuntimeError, match=r"compile_step\(\) again"):
        step(x, state)
    weight.data = had
    _same(model, step, x, state, rows=2)


def test_one_weight_in_two_places(compiled):
    model, step = compiled
    one, two = (block.mixer_norm for block in model.backbone.blocks)
    had, state = two.weight, None
    two.weight = one.weight
    for _ in range(3):
        state = _same(model, step, torch.randint(11, (2, 1)), state, rows=2)
    two.weight = had
    _same(model, step, torch.randint(11, (2, 1)), state, rows=2)


def test_parts_and_numbers_that_changed_are_refused(compiled):
    """They are inside the code: another would not be seen."""
    model, step = compiled
    x = torch.zeros(2, 1, dtype=torch.int64)
    block = model.backbone.blocks[1]
    for of, name, other in ((block.mixer, "out", torch.nn.Identity()), (block.mixer_norm, "eps", 0.1)):
        had = getattr(of, name)
        setattr(of, name, other)
        with pytest.raises(
            RuntimeError, match=rf"backbone.blocks.1.mixer.*{name} of the model .*compile_step\(\) again"
        ):
            step(x)
        setattr(of, name, had)
    torch.nn.utils.parametrize.register_parametrization(block.mixer.out, "weight", torch.nn.Identity())
    with pytest.raises(RuntimeError, match="a weight of the model is not what it was"):
        step(x)
    torch.nn.utils.parametrize.remove_parametrizations(block.mixer.out, "weight")
    _same(model, step, x, rows=2)


def test_weights_that_were_one_and_are_two_are_refused(monkeypatch):
    # what is refused is found before anything runs
    monkeypatch.setattr("recurra.models.step._compile", lambda program: None)
    model = _model("mingru")
    one, two = (block.mixer_norm for block in model.backbone.blocks)
    two.weight = one.weight
    step = model.compile_step()
    two.weight = torch.nn.Parameter(one.weight.detach().clone())
    with pytest.raises(RuntimeError, match="a weight of the model is not what it was"):
        step(torch.zeros(1, 1, dtype=torch.int64))


def test_a_bias_where_was_none_is_refused(monkeypatch):
    monkeypatch.setattr("recurra.models.step._compile", lambda program: None)
    model = _model("gla")
    step = model.compile_step()
    out = model.backbone.blocks[1].mixer.out
    assert out.bias is None
    out.bias = torch.nn.Parameter(torch.ones(16))
    with pytest.raises(RuntimeError, match=r"blocks.1.mixer.out.bias of the model is not what it was"):
        step(torch.zeros(1, 1, dtype=torch.int64))


def test_a_step_is_not_copied_and_its_model_is(monkeypatch):
    monkeypatch.setattr("recurra.models.step._compile", lambda program: None)
    model = _model("gla", depth=1)
    step = model.compile_step()
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"copy or save the model, then its compile_step\(\)"):
            copied(step)
        copied(model)


def test_what_is_training_or_grows_is_refused():
    with pytest.raises(ValueError, match="eval"):
        _model("mamba2").train().compile_step()
    with pytest.raises(ValueError, match="grows"):
        _model("attention").compile_step()
    with pytest.raises(ValueError, match="rows is 0"):
        _model("mamba2").compile_step(0)


def test_what_the_numbers_decide_is_refused():
    """cosFormer looks at its positions: those of the step that was traced would be taken for all."""
    with pytest.raises(ValueError, match="cannot be compiled, call the model instead"):
        _model("cosformer").compile_step()


@pytest.fixture
def traced(monkeypatch):
    """Graphs that have no C are run as they are, without torch's compiler."""
    monkeypatch.setattr("recurra.models.step._compile_by_torch", lambda program: lambda inputs: _run(program, inputs))


def test_what_has_no_words_in_c_is_compiled_by_torch():
    """RetNet counts its heads with whole numbers."""
    model = _model("retnet", depth=1)
    step = model.compile_step(2)
    state = None
    for _ in range(2):
        state = _same(model, step, torch.randint(11, (2, 1)), state, rows=2)
    model.load_state_dict({k: 0.9 * v for k, v in model.state_dict().items()}, assign=True)
    _same(model, step, torch.randint(11, (2, 1)), rows=2)


def test_a_token_that_is_none_of_the_vocabulary(compiled):
    _, step = compiled
    with pytest.raises(IndexError, match="none of the vocabulary"):
        step(torch.tensor([[3], [11]]))


@pytest.mark.parametrize("name", TRACED)
def test_the_graph_of_an_architecture(name, traced):
    model = _model(name, depth=name.count(",") + 1, hidden=None)
    step = model.compile_step()
    with torch.no_grad():
        _, state = model(torch.randint(11, (1, 5)))
    for _ in range(2):
        state = _same(model, step, torch.randint(11, (1, 1)), state)


def test_the_graph_of_the_other_models(traced):
    shape = {"width": 8, "depth": 1}
    model = Forecaster(inputs=3, horizon=2, quantiles=[0.1, 0.5], **shape).eval()
    _same(model, model.compile_step(2), torch.randn(2, 1, 3), rows=2)
    model = Classifier(classes=5, inputs=3, pool="mean", **shape).eval()
    _same(model, model.compile_step(2), torch.randn(2, 1, 3), rows=2)
    model = Classifier(classes=5, vocabulary=11, **shape).eval()
    _same(model, model.compile_step(2), torch.randint(11, (2, 1)), rows=2)


def _run(program, inputs):
    """As machine code takes a flat list and gives one."""
    states = len(program.graph_signature.user_outputs) - 1
    x, *rest = inputs
    return list(program.module()(x, rest[:states], rest[states:]))
