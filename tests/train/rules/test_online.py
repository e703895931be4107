"""Online rules against backpropagation, and against equations written out here by hand.

No package computes these rules for these cells. So each is held against two things: the gradient of backpropagation
where the rule equals it (all of it, or with named paths detached), and cells written anew with torch alone.
"""

import pytest
import torch
from torch.testing import assert_close
from train.rules import one

from recurra.train import RunError
from recurra.train.rules import influence
from recurra.train.rules.eligibility import RFLO, EProp
from recurra.train.rules.forward_mode import RTRL, SnAp
from recurra.train.rules.kronecker import KFRTRL
from recurra.train.rules.linear_unit import OnlineLRU
from recurra.train.rules.rank_one import UORO

DIAGONAL = ["indrnn", "elstm", "para_gru", "para_lstm", "mingru", "minlstm", "lru", "s5", "unicornn", "sru", "hgrn"]


def same(found, wanted, tolerance=1e-12):
    scale = max(float(x.abs().max()) for x in wanted.values())
    assert scale > 0 and found.keys() == wanted.keys()
    for name, slope in wanted.items():
        error = float((found[name] - slope).abs().max()) / scale
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("name", DIAGONAL)
def test_one_step_of_reach_is_all_of_it_where_units_do_not_see_each_other(name):
    mixer, some = one.build(name), one.batch()
    near, rule = one.taught(SnAp, mixer, some)
    far, whole = one.taught(RTRL, mixer, some)
    same(near, far, 1e-15)
    same(near, one.whole(mixer, some))
    assert rule.influences[0].numbers == whole.influences[0].numbers <= 4 * rule.layers[0].count


def test_reach_grows_with_steps_and_a_short_reach_is_another_gradient():
    mixer, some = one.build("ctrnn"), one.batch()
    with torch.no_grad():
        # a ring: n steps reach n units further
        mixer.recurrent.mul_(torch.roll(torch.eye(8), 1, 0) + torch.eye(8))
    numbers, distances = [], []
    wanted = one.whole(mixer, some)
    for steps in (1, 2, 3, 9):
        found, rule = one.taught(SnAp, mixer, some, steps=steps)
        numbers.append(rule.influences[0].numbers)
        distances.append(float((found["input.weight"] - wanted["input.weight"]).norm()))
    assert numbers == sorted(numbers) and numbers[0] == rule.layers[0].count and numbers[-1] == 8 * numbers[0]
    assert distances == sorted(distances, reverse=True) and distances[0] > 1e-3 and distances[-1] < 1e-12


@pytest.mark.parametrize("reset", [False, True])
def test_the_online_linear_unit_is_real_time_recurrent_learning_of_it(reset):
    mixer, some = one.build("lru", units=5), one.batch(clock=reset)
    found, _ = one.taught(OnlineLRU, mixer, some)
    same(found, one.whole(mixer, some))
    wanted, _ = one.taught(RTRL, mixer, some)
    same(found, wanted)
    with pytest.raises(RunError, match="those of lru"):
        one.taught(OnlineLRU, one.build("mingru"), some)


def by_hand_lstm(cell, some):
    """An LSTM with the h of its recurrent products detached, unrolled: no state, no clock, no code of ours."""
    n, total = 8, 0.0
    h, c = torch.zeros(2, len(some.inputs), n, dtype=torch.float64)
    weight = cell.weight.flatten(0, 2)
    for x, slope in zip(some.inputs.unbind(1), some.targets.unbind(1), strict=True):
        i, f, g, o = (x @ cell.input_weight.T + cell.bias + h.detach() @ weight.T).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        total = total + (h * slope).sum()
    return total


def by_hand_gru(cell, some):
    """The same for a GRU: only the products' h is detached, the leak keeps its own."""
    h, total = torch.zeros(len(some.inputs), 8, dtype=torch.float64), 0.0
    weight = cell.weight.flatten(0, 2)
    for x, slope in zip(some.inputs.unbind(1), some.targets.unbind(1), strict=True):
        r, z, n = (x @ cell.input_weight.T + cell.bias).chunk(3, -1)
        rr, rz, rn = (h.detach() @ weight.T).chunk(3, -1)
        n, z = torch.tanh(n + (r + rr).sigmoid() * (rn + cell.params[0])), (z + rz).sigmoid()
        h = (1 - z) * n + z * h
        total = total + (h * slope).sum()
    return total


def by_hand_ctrnn(mixer, some, feedback=None):
    """Leaky tanh units; with `feedback` the error that reaches a rate is the outputs' through that matrix."""
    h, total = torch.zeros(len(some.inputs), 8, dtype=torch.float64), 0.0
    alpha = 1 - torch.exp(-torch.exp(-mixer.log_tau))
    for x, slope in zip(some.inputs.unbind(1), some.targets.unbind(1), strict=True):
        h = (1 - alpha) * h + alpha * torch.tanh(mixer.input(x) + h.detach() @ mixer.recurrent.T)
        total = total + (h * (slope if feedback is None else slope @ feedback)).sum()
    return total


@pytest.mark.parametrize(("name", "hand"), [("lstm", by_hand_lstm), ("gru", by_hand_gru), ("ctrnn", by_hand_ctrnn)])
def test_eligibility_is_backpropagation_with_recurrent_products_detached(name, hand):
    mixer, some = one.build(name), one.batch(clock=False)
    found, rule = one.taught(EProp, mixer, some)
    mixer.zero_grad()
    hand(mixer if name == "ctrnn" else mixer.cell, some).backward()
    same(found, {k: p.grad for k, p in mixer.named_parameters()})
    assert rule.influences[0].numbers <= 2 * rule.layers[0].count, "no more than a unit's numbers for each parameter"
    whole = one.whole(mixer, some)
    assert any((found[k] - whole[k]).abs().max() > 1e-3 for k in whole), "what is detached matters"


def test_eligibility_forgets_at_resets():
    """The reset is in the middle: what comes after is a sequence of its own."""
    mixer, some = one.build("gru"), one.batch()
    some = some._replace(valid=None, reset=(torch.arange(7) == 4).expand(2, 7))
    found, _ = one.taught(EProp, mixer, some)
    halves = [one.batch()._replace(reset=None, valid=None) for _ in range(2)]
    total = None
    for part, steps in zip(halves, (slice(0, 4), slice(4, 7)), strict=True):
        own = part._replace(inputs=some.inputs[:, steps], targets=some.targets[:, steps])
        slopes, _ = one.taught(EProp, mixer, own)
        slopes = {k: v.clone() for k, v in slopes.items()}
        total = slopes if total is None else {k: v + slopes[k] for k, v in total.items()}
    same(found, total)


def test_random_feedback_is_backpropagation_with_another_way_down():
    mixer, some = one.build("ctrnn"), one.batch(clock=False)
    found, rule = one.taught(RFLO, mixer, some, seed=3)
    mixer.zero_grad()
    by_hand_ctrnn(mixer, some, rule.feedback(0, 8)).backward()
    same(found, {k: p.grad for k, p in mixer.named_parameters()})
    symmetric, _ = one.taught(EProp, mixer, some)
    assert (symmetric["input.weight"] - found["input.weight"]).abs().max() > 1e-2


@pytest.mark.parametrize(("rule", "name"), [(UORO, "elman"), (UORO, "lstm"), (KFRTRL, "elman"), (KFRTRL, "lstm")])
def test_random_rules_are_right_on_average(rule, name):
    """4,000 draws, each a row of one batch: no parameter's mean is further from the truth than chance allows."""
    mixer = one.build(name, width=4)
    torch.manual_seed(5)
    x, slopes = torch.randn(2, 1, 6, 4, dtype=torch.float64)
    some = one.batch()._replace(inputs=x, targets=slopes, reset=None, valid=None)
    truth = one.whole(mixer, some)
    draws = 4000
    many = some._replace(inputs=x.expand(draws, -1, -1), targets=slopes.expand(draws, -1, -1))
    samples = one.each_row(rule, mixer, many)
    wanted = torch.cat([v.flatten() for v in truth.values()])
    spread = samples.std(0) / draws**0.5
    noisy = spread > 1e-12
    z = ((samples.mean(0) - wanted) / spread)[noisy]
    assert float(z.abs().max()) < 4.5
    assert_close(samples.mean(0)[~noisy], wanted[~noisy])


def test_kronecker_factors_are_less_noisy_than_one_product():
    mixer = one.build("elman", width=4)
    torch.manual_seed(5)
    x, slopes = (v.expand(500, -1, -1) for v in torch.randn(2, 1, 6, 4, dtype=torch.float64))
    some = one.batch()._replace(inputs=x, targets=slopes, reset=None, valid=None)
    spreads = [float(one.each_row(rule, mixer, some).std(0).norm()) for rule in (KFRTRL, UORO)]
    assert spreads[0] < spreads[1]


def test_what_a_rule_cannot_teach_is_said_in_one_sentence(monkeypatch):
    some = one.batch()
    for rule, name, reason in [
        (RTRL, "attention", "its state grows"),
        (EProp, "mingru", "no recurrent product"),
        (KFRTRL, "ctrnn", "dense cell"),
        (UORO, "attention", "its state grows"),
        (RTRL, "ttt_linear", "made of its parameters"),
    ]:
        with pytest.raises(RunError, match=reason) as caught:
            one.taught(rule, one.build(name), some)
        assert "\n" not in str(caught.value) and "rule cannot teach" in str(caught.value)
    with pytest.raises(RunError, match="steps is 0"):
        one.taught(SnAp, one.build("gru"), some, steps=0)
    monkeypatch.setattr(influence, "MOST", 8000)
    with pytest.raises(RunError, match="take a rule that keeps less"):
        one.taught(RTRL, one.build("lstm"), some)
