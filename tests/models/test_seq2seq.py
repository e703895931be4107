"""Encoder-decoders against their parts run one by one, attention against its formula, the beam against all answers."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from recurra import Clock
from recurra.models import MODELS
from recurra.models.bahdanau import AdditiveAttention
from recurra.models.beam import beam

GO, END = 4, 0


def make(name, **more):
    torch.manual_seed(3)
    own = {"source": 6} if name == "bahdanau" else {}
    model = MODELS[name](vocabulary=5, go=GO, width=16, depth=2, **own, **more).double().eval()
    with torch.no_grad():
        # a model that has opinions
        model.out.weight.mul_(6)
    return model


def test_the_decoder_begins_where_the_encoder_ends():
    """The same numbers from the parts, with no rows, masks or phases between them."""
    model = make("seq2seq")
    source, answer = torch.tensor([[1, 2, 3, 1]]), torch.tensor([[GO, 2, 2, 0]])
    logits, (state, _, _) = model(torch.cat([source, answer], 1))
    read, inner = model.encoder(model.embedding(source))
    x = model.embedding(answer)
    x = torch.cat([x[:, :1] + read[:, -1:], x[:, 1:]], 1)
    features, after = model.decoder(x, inner)
    assert_close(logits[:, 4:], model.out(features))
    assert_close(state, after)
    assert (logits[:, :4] == 0).all()


def test_attention_is_its_formula_and_one_place_is_all_there_is():
    torch.manual_seed(0)
    attention = AdditiveAttention(8).double()
    query, memory = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 5, 8, dtype=torch.float64)
    known = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    context, share = attention(query, memory, attention.key(memory), known)
    for b, places in enumerate((5, 3, 1)):
        energy = torch.stack(
            [
                attention.score @ torch.tanh(attention.query.weight @ query[b] + attention.key(memory[b, j]))
                for j in range(places)
            ]
        )
        alpha = energy.exp() / energy.exp().sum()
        assert_close(share[b, :places], alpha)
        assert_close(context[b], sum(alpha[j] * memory[b, j] for j in range(places)))
    assert_close(context[2], memory[2, 0])
    nothing, share = attention(query, memory, attention.key(memory), torch.zeros_like(known))
    assert (nothing == 0).all() and (share == 0).all()


def test_alignments_are_shares_of_the_source():
    model = make("bahdanau")
    tokens = torch.tensor([[1, 2, 3, GO, 2, 2, 0], [3, GO, 1, 1, 1, 1, 0]])
    shares = model.align(tokens)
    assert shares.shape == (2, 7, 6)
    assert (shares[0, :3] == 0).all() and (shares[1, :1] == 0).all()
    assert_close(shares[0, 3:].sum(-1), torch.ones(4).double())
    assert (shares[0, :, 3:] == 0).all()
    assert (shares[1, 1:, 0] == 1).all()


def test_attention_sees_the_whole_source_and_a_single_state_only_what_came():
    source = torch.tensor([[1, 2, 3, GO, 2, 2]])
    changed = torch.tensor([[1, 2, 1, GO, 2, 2]])
    for name in ("seq2seq", "bahdanau"):
        one, other = (make(name)(x)[0] for x in (source, changed))
        assert not torch.allclose(one[:, 3:], other[:, 3:])


def test_a_source_in_pieces_or_too_long_is_refused():
    model = make("bahdanau")
    _, state = model(torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match="give it whole"):
        model(torch.tensor([[3, GO]]), state)
    with pytest.raises(ValueError, match="a source has 7 tokens: this model has room for 6"):
        model(torch.ones(1, 7, dtype=torch.int64))


@pytest.mark.parametrize("name", ["seq2seq", "bahdanau"])
def test_a_beam_as_wide_as_there_are_answers_is_exhaustive(name):
    model, longest = make(name), 3
    prompt = torch.tensor([[1, 3, 2, GO], [2, 1, 1, GO]])
    answers, scores = beam(model, prompt, end=END, width=5**longest, max_new_tokens=longest)
    every = torch.tensor(list(itertools.product(range(5), repeat=longest)))
    # an answer goes on with its end
    ended = torch.cat([torch.zeros(len(every), 1), (every == END).cumsum(1)[:, :-1]], 1) > 0
    every, ended = (x[~(ended & (every != END)).any(1)] for x in (every, ended))
    for b in range(2):
        with torch.no_grad():
            said, _ = model(torch.cat([prompt[b : b + 1].expand(len(every), -1), every], 1))
        each = said[:, 3:-1].log_softmax(-1).gather(-1, every[..., None])[..., 0].masked_fill(ended, 0).sum(1)
        order = each.argsort(descending=True)
        assert torch.equal(answers[b, : len(every)], every[order])
        assert_close(scores[b, : len(every)], each[order])


@pytest.mark.parametrize("name", ["seq2seq", "bahdanau"])
def test_a_beam_of_one_is_greedy_and_wider_is_never_worse_here(name):
    model = make(name)
    prompt = torch.tensor([[1, 3, GO], [2, 1, GO]])
    answers, scores = model.beam(prompt, end=END, width=1, max_new_tokens=6)
    tokens = prompt
    for t in range(answers.shape[2]):
        chosen = model(tokens)[0][:, -1].argmax(-1)
        ended = (tokens[:, 3:] == END).any(1)
        chosen = chosen.masked_fill(ended, END)
        assert torch.equal(answers[:, 0, t], chosen)
        tokens = torch.cat([tokens, chosen[:, None]], 1)
    wide = model.beam(prompt, end=END, width=25, max_new_tokens=6)[1]
    assert (wide[:, 0] >= scores[:, 0] - 1e-12).all()


def test_a_search_of_no_width_is_refused():
    with pytest.raises(ValueError, match="each must be at least 1"):
        make("seq2seq").beam(torch.tensor([[GO]]), end=END, width=0)


def test_rows_answer_when_they_come_to_it():
    """Sources of several lengths in one batch, padded, are what each is alone."""
    model = make("bahdanau")
    tokens = torch.tensor([[1, GO, 2, 3, 0, 0, 0], [3, 2, 1, 2, GO, 1, 2]])
    clock = Clock.lengths([4, 7])
    both, _ = model(tokens, None, clock)
    assert_close(both[:1, :4], model(tokens[:1, :4])[0])
    assert_close(both[1:], model(tokens[1:])[0])
