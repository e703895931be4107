"""Tasks that take depth: nested logic, reachability, relations told in text. No rule that looks at one step knows more.

What every made task promises is tested over the table in `test_made.py`.
"""

import pytest
import torch

from recurra.tasks import SourceError, make
from recurra.tasks.graph_reachability import BLANK, FIRST
from recurra.tasks.nested_logic import DUAL, NOT, SYMBOLS
from recurra.tasks.relational_text import CHILD, PARENT

DEPTH = ("nested_logic", "graph_reachability", "relational_text")
each_task = pytest.mark.parametrize("name", DEPTH)
MANY = 600


def batch(name, length=64, size=MANY, split="train", **keywords):
    return make({"task": name, **keywords}).batch(split, 0, size, length, 0)


def depth_of(text):
    depth = deepest = 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    return deepest


@each_task
@pytest.mark.parametrize("hard", [1, 3, 5])
def test_both_answers_are_as_likely_at_every_depth(name, hard):
    if name == "nested_logic":
        # there are so few shallow ones that a split may have more of one answer
        hard += 2
    more = {"nodes": 20} if name == "graph_reachability" else {}
    share = batch(name, least=hard, most=hard, **more).targets[:, -1].double().mean()
    assert abs(share - 0.5) < 4 * (0.25 / MANY) ** 0.5


@each_task
def test_only_the_last_step_counts(name):
    one = batch(name, size=5)
    assert one.scored[:, -1].all() and not one.scored[:, :-1].any()
    assert set(one.targets[:, -1].tolist()) <= {0, 1}


@each_task
def test_counting_words_tells_nothing(name):
    """A linear rule over how often each token occurs, fitted to these rows, is no better on others than a guess."""
    train, test = batch(name), batch(name, split="test")
    vocabulary = make({"task": name}).model_arguments()["vocabulary"]

    def counts(one):
        return torch.nn.functional.one_hot(one.inputs, vocabulary).sum(1).double()

    weights = torch.linalg.lstsq(counts(train), 2.0 * train.targets[:, -1:].double() - 1, driver="gelsd").solution
    right = ((counts(test) @ weights)[:, 0] > 0) == test.targets[:, -1].bool()
    # how often each value occurs says something of a formula; of graphs and families nothing
    assert right.double().mean() < (0.8 if name == "nested_logic" else 0.5 + 4 * (0.25 / MANY) ** 0.5)


@pytest.mark.parametrize(("least", "most"), [(0, 2), (3, 6), (9, 9)])
@pytest.mark.parametrize("spare", [0, 40])
def test_expressions_are_what_python_says_and_exactly_as_deep(least, most, spare):
    length = 4 * most + 2 + spare
    one = batch("nested_logic", length, 30, least=least, most=most)
    for row, target in zip(one.inputs.tolist(), one.targets[:, -1].tolist(), strict=True):
        text = "".join(SYMBOLS[token] for token in row).strip("_?")
        assert least <= depth_of(text) <= most
        said = text.replace("T", "True").replace("F", "False").replace("&", " and ").replace("|", " or ")
        assert eval(said.replace("!", " not ")) == bool(target)


def test_the_dual_of_an_expression_says_the_opposite():
    task, one = make({"task": "nested_logic"}), batch("nested_logic", size=50)
    dual = torch.tensor([*DUAL, *range(NOT, len(SYMBOLS))])[one.inputs]
    answers = task.solve(one._replace(inputs=dual)).argmax(-1)[:, -1]
    assert torch.equal(answers, 1 - one.targets[:, -1])


def graphs(one):
    """Edges, source and target of every row."""
    for row in one.inputs.tolist():
        told = [token for token in row if token != BLANK]
        yield list(zip(told[:-3:2], told[1:-3:2], strict=True)), told[-3], told[-2]


def degrees(edges, node):
    return sum(u == node for u, _ in edges), sum(v == node for _, v in edges)


def around(edges, node):
    """A node's degrees, and those of its neighbours."""
    return (
        degrees(edges, node),
        sorted(degrees(edges, v) for u, v in edges if u == node),
        sorted(degrees(edges, u) for u, v in edges if v == node),
    )


def test_what_is_near_a_target_is_the_same_for_both_answers():
    """In every graph the other target (the one of the copy) has the same surroundings, and the other answer."""
    one = batch("graph_reachability", 80, 30)
    for (edges, source, target), answer in zip(graphs(one), one.targets[:, -1].tolist(), strict=True):
        same = around(edges, target)
        others = [v for _, v in edges if v != target and around(edges, v) == same]
        assert others, "the copy's end looks like this one"
        reached, todo = {source}, [source]
        while todo:
            here = todo.pop()
            todo += [v for u, v in edges if u == here and v not in reached]
            reached |= {v for u, v in edges if u == here}
        assert (target in reached) == bool(answer)
        assert any((v in reached) != bool(answer) for v in others)


def test_the_rule_of_degrees_is_right_half_of_the_time():
    """A way out of the source and into the target: 0.85 in the paper's own generator."""
    one = batch("graph_reachability")
    said = [degrees(e, s)[0] > 0 and degrees(e, t)[1] > 0 for e, s, t in graphs(one)]
    assert all(said) and abs(one.targets[:, -1].double().mean() - 0.5) < 0.05


@pytest.mark.parametrize("hops", [1, 4])
def test_paths_have_as_many_hops_as_were_asked_for(hops):
    one = batch("graph_reachability", size=100, least=hops, most=hops)
    for (edges, source, target), answer in zip(graphs(one), one.targets[:, -1].tolist(), strict=True):
        assert len(edges) == len(set(edges)) == 2 * hops + 6
        front, steps = {source}, 0
        while target not in front and steps <= hops:
            front, steps = {v for u, v in edges if u in front}, steps + 1
        assert (steps == hops) == bool(answer)
        assert min(u for u, _ in edges) >= FIRST


def test_claims_are_alike_and_facts_are_told_from_both_sides():
    one = batch("relational_text", size=2000, least=4, most=4)
    answers, claims = one.targets[:, -1].bool(), one.inputs[:, -3]
    offered = claims.unique()
    assert len(offered) == 5 and (offered.diff() == 2).all()
    for answer in (answers, ~answers):
        shares = (claims[answer][:, None] == offered).double().mean(0)
        assert (shares - 0.2).abs().max() < 0.06
    facts = (one.inputs == PARENT).sum() / ((one.inputs == PARENT) | (one.inputs == CHILD)).sum()
    assert abs(facts - 0.5) < 0.02


def test_wrong_configurations_are_refused_in_one_sentence():
    for config, said in (
        ({"task": "nested_logic", "least": 3, "most": 2}, "least is 3 and most 2"),
        ({"task": "graph_reachability", "least": 0}, "at least 1 hop"),
        ({"task": "graph_reachability", "nodes": 12}, "nodes is 12: 4 hops with 3 extras need at least 13"),
        ({"task": "relational_text", "least": 0}, "at least 1 fact"),
        ({"task": "relational_text", "names": 11}, "need at least 12"),
        ({"task": "relational_text", "claims": 3}, "chains of 5 need at least as many"),
    ):
        with pytest.raises(SourceError, match=said):
            make(config)
    for name, needed in (("nested_logic", 26), ("graph_reachability", 31), ("relational_text", 36)):
        with pytest.raises(SourceError, match=f"takes at least {needed} steps, not {needed - 1}"):
            batch(name, needed - 1, 1)
        batch(name, needed, 4)
