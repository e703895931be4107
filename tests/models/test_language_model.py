"""The law holds for whole models, generation is the model's own, and folders give the same model back."""

import pytest
import torch
from torch.testing import assert_close

from recurra import MIXERS, Clock, state as states
from recurra.models import LanguageModel, load

PATTERNS = [*MIXERS, "mamba2*2,sliding_window"]


def build(pattern="gla,minmax", **more):
    torch.manual_seed(0)
    return LanguageModel(vocabulary=19, width=16, depth=3, pattern=pattern, hidden=24, **more).double().eval()


def tokens(rows=2, steps=23):
    return torch.randint(0, 19, (rows, steps))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_cut_changes_nothing(pattern):
    model, x = build(pattern), tokens()
    whole, last = model(x)
    parts, state = [], None
    for a, b in ((0, 1), (1, 9), (9, 9), (9, 23)):
        logits, state = model(x[:, a:b], state)
        parts.append(logits)
    assert_close(torch.cat(parts, 1), whole)
    assert_close(list(states.leaves(state)), list(states.leaves(last)))


@pytest.mark.parametrize("pattern", ["mamba2", "lstm", "attention", "sliding_window", "mamba"])
def test_greedy_generation_is_repeated_argmax_of_whole_sequences(pattern):
    model, x = build(pattern), tokens(2, 5)
    got = model.generate(x, max_new_tokens=7)
    want = x
    for _ in range(7):
        want = torch.cat([want, model(want)[0][:, -1:].argmax(-1)], 1)
    assert torch.equal(got, want)


def test_padded_prompts_generate_as_if_alone():
    model, x = build("mamba2,sliding_window"), tokens(2, 6)
    for mask in ([1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]):
        mask = torch.tensor([mask, [1] * 6])
        got = model.generate(x, max_new_tokens=4, attention_mask=mask.bool())[:, 6:]
        alone = model.generate(x[:1, mask[0].bool()], max_new_tokens=4)[:, 4:]
        assert torch.equal(got[:1], alone)
        assert torch.equal(got[1:], model.generate(x[1:], max_new_tokens=4)[:, 6:])


def test_sampling_is_seeded_shaped_and_stops():
    model, x = build(), tokens(1, 4)
    draw = dict(max_new_tokens=30, do_sample=True, temperature=1.5, seed=3)
    one, two = model.generate(x, **draw), model.generate(x, **draw)
    assert torch.equal(one, two)
    assert not torch.equal(one, model.generate(x, **{**draw, "seed": 4}))
    assert torch.equal(model.generate(x, **draw, top_k=1), model.generate(x, max_new_tokens=30))
    assert torch.equal(model.generate(x, **draw, top_p=1e-9), model.generate(x, max_new_tokens=30))
    many = model.generate(x, **draw, num_return_sequences=3)
    assert many.shape == (3, 34) and not torch.equal(many[0], many[1])
    first = int(model.generate(x, max_new_tokens=1)[0, -1])
    assert model.generate(x, max_new_tokens=30, eos_token_id=first).shape == (1, 5)


@pytest.mark.parametrize("wrong", [dict(temperature=0.0), dict(top_k=0), dict(top_p=0.0), dict(top_p=1.5)])
def test_settings_out_of_range_are_refused_before_anything_runs(wrong):
    with pytest.raises(ValueError, match="must"):
        build().stream(tokens(), do_sample=True, **wrong)
    with pytest.raises(ValueError, match="prompt is empty"):
        build().stream(tokens(1, 0))


def test_a_stream_equals_generate_and_ends_where_told():
    model, x = build(), tokens(2, 3)
    streamed = torch.stack(list(model.stream(x, max_new_tokens=6)), 1)
    assert torch.equal(streamed, model.generate(x, max_new_tokens=6)[:, 3:])


def test_surprise_is_the_same_in_pieces():
    model, x = build(), tokens(1, 20)
    whole, _, _ = model.surprise(x)
    a, logits, state = model.surprise(x[:, :7])
    b, _, _ = model.surprise(x[:, 7:], state, logits)
    assert_close(torch.cat([a, b], 1), whole)
    assert_close(whole[:, 0], torch.log2(torch.tensor([19.0])).to(whole))


def test_a_folder_gives_the_same_model_back(tmp_path):
    model, x = build("mamba2*2,lstm", mixers={"mamba2": {"state_size": 8}}), tokens()
    model.save_pretrained(tmp_path / "m", training={"steps": 3})
    back = LanguageModel.from_pretrained(tmp_path / "m")
    assert back.config == model.config
    assert torch.equal(back(x)[0], model(x)[0])
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]


def test_damaged_folders_are_refused_in_one_sentence(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, said = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated or damaged"):
        load(tmp_path)
    weights.write_bytes(whole)
    config.write_text(said.replace('"width": 16', '"width": 32'))
    with pytest.raises(ValueError, match="another model"):
        load(tmp_path)
    config.write_text(said.replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="another version"):
        load(tmp_path)
    config.write_text(said.replace('{\n    "format": 1\n  }', "1"))
    with pytest.raises(ValueError, match="another version"):
        load(tmp_path)
    for kind in ("nn", "int8"):
        config.write_text(said.replace('"torch_dtype": "float64"', f'"torch_dtype": "{kind}"'))
        with pytest.raises(ValueError, match=f"torch_dtype '{kind}': it must be a float type"):
            load(tmp_path)
    config.write_text(said.replace('"model":', '"model_of_old":'))
    with pytest.raises(ValueError, match="holds a None, which is none of"):
        load(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load(tmp_path)
    with pytest.raises(ValueError, match="not a run"):
        load(tmp_path / "nowhere")


def test_unknown_mixers_and_keywords_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'mamba2'"):
        build("mamba22")
    with pytest.raises(ValueError, match="did you mean 'heads'"):
        build("gla", mixers={"gla": {"head": 2}})
    with pytest.raises(ValueError, match="the pattern 'gla' has none"):
        build("gla", mixers={"lstm": {}})
    with pytest.raises(ValueError, match="not a pattern"):
        build("gla**2")


def test_resets_inside_a_model_are_fresh_starts():
    model, x = build("mamba2,sliding_window,lstm"), tokens()
    reset = torch.zeros(2, 23, dtype=torch.bool)
    reset[:, 10] = True
    assert_close(model(x, None, Clock(reset))[0][:, 10:], model(x[:, 10:])[0])
