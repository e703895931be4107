"""One token through a whole model, at batch 1: against what reading its weights costs, and against transformers.

    python -m benchmarks.model_step [--threads 1 2] [--rounds N] [--width 512] [--depth 12] [--only mamba,mamba2]

The bound is the time to read as many bytes as the weights have, once, with the same threads: the faster of a sum and a
matrix-vector product over one array of that size. Contenders run in turn, again and again, so that a busy machine slows
all of them; medians are compared, and the least is stored beside them. A token's time is of a few tokens one after
another, state handed on. The compiled step's numbers are first compared with the model's. Results go to
benchmarks/results/model_step.json.
"""

import argparse
import json
import pathlib
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers import keep_out
from recurra.models import LanguageModel

RESULTS = pathlib.Path(__file__).parent / "results"
VOCABULARY = 256
TOKENS = 5  # of one measurement
TOKEN = torch.zeros(1, 1, dtype=torch.int64)

Step = Callable[[Any], Any]  # a state to the next


def ours(call: Any) -> Step:
    return lambda state: call(TOKEN, state)[1]


def theirs(pattern: str, model: LanguageModel) -> Step:
    """transformers' model of the same size, with its own cache, changed in place; and its own choice of threads."""
    import transformers

    mixer = model.backbone.blocks[0].mixer.config
    shape: dict[str, Any] = dict(
        vocab_size=VOCABULARY, hidden_size=mixer["width"], num_hidden_layers=len(model.backbone.blocks),
        expand=mixer["expand"], tie_word_embeddings=True,
    )  # fmt: skip
    if pattern == "mamba":
        config = transformers.MambaConfig(state_size=mixer["units"], conv_kernel=mixer["conv"], **shape)
        peer: Any = transformers.MambaForCausalLM(config).eval()
    else:
        inner = mixer["expand"] * mixer["width"]
        config = transformers.Mamba2Config(
            state_size=mixer["state_size"], conv_kernel=mixer["conv_size"], num_heads=mixer["heads"],
            head_dim=inner // mixer["heads"], n_groups=mixer["groups"], **shape,
        )  # fmt: skip
        peer = transformers.Mamba2ForCausalLM(config).eval()
    had, has = (sum(p.numel() for p in x.parameters()) for x in (model, peer))
    assert abs(has / had - 1) < 0.01, f"transformers' {pattern} has {has} parameters, ours {had}"

    def step(cache: Any) -> Any:
        return peer(TOKEN, cache_params=cache, use_cache=True).cache_params

    return step


def reading(count: int) -> tuple[Step, Step]:
    """Two ways to read so many numbers once."""
    data, vector = torch.randn(count // 1024, 1024), torch.randn(1024)
    return lambda state: data.sum(), lambda state: torch.mv(data, vector)


def check(model: LanguageModel, step: Any) -> None:
    """The compiled step's numbers are the model's."""
    one = two = None
    for _ in range(4):
        token = torch.randint(VOCABULARY, (1, 1))
        (expected, one), (got, two) = model(token, one), step(token, two)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def measure(contenders: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Microseconds a token of each, in turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    states: dict[str, Any] = dict.fromkeys(contenders)
    for number in range(rounds + 2):
        for name, step in contenders.items():
            state = step(states[name])
            start = time.perf_counter()
            for _ in range(TOKENS):
                state = step(state)
            spent = (time.perf_counter() - start) / TOKENS * 1e6
            states[name] = state
            if number > 1:
                times[name].append(spent)
    return times


def row(pattern: str, threads: int, weights: int, times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, least, and ratios of medians."""
    medians = {name: statistics.median(t) for name, t in times.items()}
    least = {name: min(t) for name, t in times.items()}
    for table in (medians, least):
        table["bound"] = min(table.pop("sum"), table.pop("product"))
    ratios = {
        "compiled over bound": medians["compiled"] / medians["bound"],
        "plain over bound": medians["plain"] / medians["bound"],
        "transformers over compiled": medians["transformers"] / medians["compiled"],
        "transformers over plain": medians["transformers"] / medians["plain"],
    }
    return dict(
        pattern=pattern, threads=threads, weight_bytes=weights, gigabytes_a_second=weights / medians["bound"] / 1e3,
        median_microseconds=medians, least_microseconds=least, ratios=ratios,
    )  # fmt: skip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--only", default="mamba,mamba2")
    options = parser.parse_args()
    keep_out()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    rows = []
    for pattern in options.only.split(","):
        model = LanguageModel(
            vocabulary=VOCABULARY, width=options.width, depth=options.depth, pattern=pattern, hidden=0
        ).eval()
        start = time.perf_counter()
        compiled = model.compile_step()
        seconds = time.perf_counter() - start
        check(model, compiled)
        count = sum(p.numel() for p in model.parameters())
        contenders = dict(zip(("sum", "product"), reading(count), strict=True))
        contenders |= {"compiled": ours(compiled), "plain": ours(model), "transformers": theirs(pattern, model)}
        for threads in options.threads:
            torch.set_num_threads(threads)
            new = row(pattern, threads, 4 * count, measure(contenders, options.rounds))
            new["compile_seconds"] = seconds
            rows.append(new)
            said = ", ".join(f"{name} {value:,.0f}" for name, value in new["median_microseconds"].items())
            print(f"{pattern}, threads {threads}: microseconds a token: {said}")
            print("    " + ", ".join(f"{name} {value:.2f}" for name, value in new["ratios"].items()), flush=True)
    RESULTS.mkdir(exist_ok=True)
    stored = dict(torch=torch.__version__, machine=platform.processor() or platform.machine(), rows=rows)
    (RESULTS / "model_step.json").write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
