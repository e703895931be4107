"""The command `recurra`: from argv to a call, and from what it returns to the terminal. All work is elsewhere.

Nothing heavy is imported before a command runs, so that help comes at once.
"""

import contextlib
import json
import pathlib
import shlex
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from recurra import exits

SOURCE = "A text file or folder, stdlib (Python's own source), a CSV or Parquet series, or a task's name."
PIPED = f"{SOURCE[:-1]}; - is what is piped in, text or a CSV, with --endless."
LISTS = "mixers, wrappers, models, presets, tasks, rules or masks; or the name of one of them."
Source = Annotated[str | None, typer.Argument(help=SOURCE, show_default=False)]
Piped = Annotated[str | None, typer.Argument(help=PIPED, show_default=False)]
RunFolder = Annotated[pathlib.Path, typer.Argument(help="What `train` wrote, or `compare`: then its best run.")]
Where = Annotated[pathlib.Path | None, typer.Option("--run", help="The folder to write; else one is named for you.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable on stdout; progress stays on stderr.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="A mixer's keyword, KEY=VALUE; any number of them.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="A task's keyword, KEY=VALUE; any number of them.")]
Endless = Annotated[bool, typer.Option("--endless", help="Meet each step once, never reset, score as it goes.")]
MaskSets = Annotated[list[str] | None, typer.Option("--mask-set", help="A mask's keyword, KEY=VALUE.")]
RuleSets = Annotated[list[str] | None, typer.Option("--rule-set", help="A rule's keyword, KEY=VALUE.")]
Tokenizer = Annotated[pathlib.Path | None, typer.Option(help="A tokenizer.json; without one bytes are read.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is in the folder, if there is something.")]
Depth = Annotated[int | None, typer.Option(help="Blocks.")]
Hidden = Annotated[int | None, typer.Option(help="Units of each block's MLP; 0: blocks of a mixer alone.")]
Steps = Annotated[int | None, typer.Option(help="Updates of the weights.")]
Batch = Annotated[int | None, typer.Option(help="Rows of a batch.")]
Length = Annotated[int | None, typer.Option(help="Steps of a row.")]
Longer = Annotated[int | None, typer.Option(help="Steps of a held-out row, if other than --length.")]
Rate = Annotated[float | None, typer.Option("--lr", help="The highest learning rate.")]
Carry = Annotated[bool, typer.Option("--tbptt", help="Carry the state from batch to batch.")]
Half = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; weights and states stay float32.")]


class Polite(TyperGroup):
    """Commands that end as `recurra.exits` says."""

    def make_context(self, *given: Any, **keywords: Any) -> Any:
        # where --help is written
        with exits.polite():
            return super().make_context(*given, **keywords)

    def invoke(self, ctx: Any) -> Any:
        with exits.polite():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Polite, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Recurrent sequence models: train, compare and stream them, in constant memory.",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command("list", epilog="Example: recurra list mamba2")
def list_names(what: Annotated[str, typer.Argument(help=LISTS)] = "mixers", as_json: Json = False) -> None:
    """The architectures and what runs here; or all of a kind; or what one thing is, its equations and keywords."""
    from recurra import glossary

    if what == "mixers":
        _list_mixers(as_json)
    elif what in glossary.SHELVES:
        found = glossary.summaries(what)
        _print_json(found) if as_json else print(glossary.lines(found))
    else:
        entries = glossary.entries(what)
        _print_json(entries) if as_json else print("\n\n".join(glossary.told(x) for x in entries))


def _list_mixers(as_json: bool) -> None:
    from recurra import catalogue

    rows = catalogue.catalogue()
    if as_json:
        _print_json([{**row._asdict(), "family": row.family, "grows": row.grows} for row in rows])
        return
    _console().print(catalogue.table(rows))
    for note in catalogue.notes(rows):
        _console().print(note, markup=False, highlight=False)


@app.command(epilog="Example: recurra doctor")
def doctor(as_json: Json = False) -> None:
    """What this machine has, and whether the law holds on it. Exit code 1 if something is broken."""
    from recurra import doctor

    checks, marks = [], {True: "ok", None: "--", False: "NO"}
    for check in doctor.examine():
        checks.append(check)
        if not as_json:
            print(f"{marks[check.ok]}  {check.name:24} {check.said}", flush=True)
    if as_json:
        _print_json([check._asdict() for check in checks])
    raise typer.Exit(int(any(check.ok is False for check in checks)))


@app.command(epilog="Example: recurra train stdlib --mixer gated_deltanet --width 256 --steps 2000 --run runs/first")
def train(
    source: Piped = None,
    mixer: Annotated[str | None, typer.Option(help="A mixer, or a pattern: mamba2*3,sliding_window.")] = None,
    preset: Annotated[str | None, typer.Option(help="A model of a published size: mamba_130m, griffin_2b, ...")] = None,
    set_: Sets = None,
    task: Tasks = None,
    tokenizer: Tokenizer = None,
    width: Annotated[int | None, typer.Option(help="Features of the stream.")] = None,
    depth: Depth = None,
    hidden: Hidden = None,
    steps: Steps = None,
    batch: Batch = None,
    length: Length = None,
    evaluation_length: Longer = None,
    lr: Rate = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and of the order of the data.")] = None,
    tbptt: Carry = False,
    bf16: Half = False,
    endless: Endless = False,
    evaluate_every: Annotated[int | None, typer.Option(help="Updates between two scores.")] = None,
    rule: Annotated[str | None, typer.Option(help="How it learns: bptt, tbptt, rtrl, snap, eprop, ...")] = None,
    rule_set: RuleSets = None,
    mask: Annotated[str | None, typer.Option(help="Sparse weights, rewired: static, set, rigl, hebbian.")] = None,
    mask_set: MaskSets = None,
    run: Where = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train one model. With --resume the run's own settings hold; what you say again is checked against them.
    A pipe is learned from as it comes, in constant memory: cat series.csv | recurra train - --endless. Its end, or
    Ctrl-C, saves; more can be piped into the run later, with --resume. Of a CSV the columns are series, but the one of
    times (ds, or the first); --task format=text reads it as text.
    """
    import dataclasses

    from recurra import train
    from recurra.train import given

    training = given.training(steps, batch, length, evaluation_length, lr, tbptt, bf16) | {"seed": seed, "rule": rule}
    training["rule_arguments"] = given.pairs(rule_set or [])
    training |= {"mask": mask, "mask_arguments": given.pairs(mask_set or []), "evaluate_every": evaluate_every}
    training |= given.endless(source, steps, batch) if endless else {}
    model = {"pattern": mixer, "width": width, "depth": depth, "hidden": hidden}
    options = {**training, "source": source, "task": _task(task, tokenizer), "arguments": model}
    resume = resume and run is not None and (run / "config.json").exists()
    before = train.read_settings(run) if resume and run else None
    config = given.run_settings(options, set_ or [], before, preset)
    folder = run or _folder(config.source, config.arguments["pattern"])
    with _how_to_go_on("train", folder):
        result = train.train(config, folder, resume)
    if not as_json:
        print(f"held-out {result.measure} {result.score:.4f}; the run is {folder}", flush=True)
    page = _page(folder)
    if as_json:
        _print_json({"run": str(folder), "report": str(page), **dataclasses.asdict(result)})
    else:
        print(f"report: {page}")


@app.command(epilog="Example: recurra compare stdlib --mixers lstm,mamba2,gated_deltanet --parameters 600k --steps 500")
def compare(
    source: Source = None,
    mixers: Annotated[str | None, typer.Option(help="lstm,mamba2*3+attention: a comma between models.")] = None,
    preset: Annotated[str | None, typer.Option(help="Settings that have a name: demo.")] = None,
    parameters: Annotated[str | None, typer.Option(help="Of each model, within 3 %: 600k, 1.5M.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each, with seeds 0, 1, ...")] = None,
    set_: Sets = None,
    task: Tasks = None,
    tokenizer: Tokenizer = None,
    depth: Depth = None,
    hidden: Hidden = None,
    steps: Steps = None,
    batch: Batch = None,
    length: Length = None,
    evaluation_length: Longer = None,
    lr: Rate = None,
    tbptt: Carry = False,
    bf16: Half = False,
    rules: Annotated[str | None, typer.Option(help="Each mixer by each rule: bptt,rtrl,eprop.")] = None,
    rule_set: RuleSets = None,
    masks: Annotated[str | None, typer.Option(help="Each with each mask: none,static,rigl.")] = None,
    mask_set: MaskSets = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes at a time; 0: as many as processors.")] = 0,
    run: Where = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train several models on equal terms: the same parameters, steps, data and seeds. One table, one report.html."""
    from recurra import train
    from recurra.train import given

    options = {
        "source": source, "mixers": given.mixers(mixers), "seeds": seeds, "task": _task(task, tokenizer),
        "rules": given.names(rules), "masks": given.names(masks),
        "parameters": given.number(parameters) if parameters else None, "arguments": {"depth": depth, "hidden": hidden},
        "training": given.overlay({}, given.training(steps, batch, length, evaluation_length, lr, tbptt, bf16)),
    }  # fmt: skip
    resume = resume and run is not None and (run / "compare.json").exists()
    before = train.read_comparison(run) if resume and run else None
    keywords = {"mixers": set_ or [], "rules": rule_set or [], "masks": mask_set or []}
    config = given.comparison_settings(options, keywords, preset, before)
    folder = run or _folder(config.source, "comparison")
    try:
        with _how_to_go_on("compare", folder):
            rows = train.compare(config, folder, resume, workers=workers)
    except train.Incomplete as failure:
        _show_comparison(folder, failure.rows, as_json)
        raise
    _show_comparison(folder, rows, as_json)


@app.command(epilog="Example: recurra generate runs/first --prompt 'def ' --max-new-tokens 0 | head -c 1000000")
def generate(
    run: RunFolder,
    prompt: Annotated[str | None, typer.Option(help="Where to begin; else what the pipe holds is read.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=0, help="When to stop; 0: never.")] = 400,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the likeliest.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw among so many.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among those that hold so much probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Speed and memory, on stderr, now and then.")] = False,
    as_json: Json = False,
) -> None:
    """Write on from a prompt, token by token as they come, for ever if you like, in constant memory."""
    from recurra.serve import continuation

    model, codec = _language_model(run)
    text = prompt.encode() if prompt is not None else b"\n" if sys.stdin.isatty() else sys.stdin.buffer.read()
    settings = {"do_sample": temperature > 0, "temperature": temperature or 1.0, "top_k": top_k, "top_p": top_p}
    pieces = continuation.write_on(
        model, codec, text or b"\n", max_new_tokens=max_new_tokens or None, seed=seed, **settings
    )
    meter = continuation.Meter()
    for number, piece in enumerate(pieces):
        if number == 0 and prompt is not None and not as_json:
            _write(prompt.encode())
        _write(piece.to_json() if as_json else piece.data)
        if meter.count() and stats:
            print(meter.said(), file=sys.stderr)
    if not as_json:
        _write(b"\n")
    if stats:
        print(meter.said(), file=sys.stderr)


@app.command(epilog="Example: tail -f app.log | recurra stream runs/logs --state app.state --above 3")
def stream(
    run: RunFolder,
    state: Annotated[pathlib.Path | None, typer.Option(help="Keep the state in this file, across restarts.")] = None,
    above: Annotated[float, typer.Option(help="Show only lines with more bits per byte than this.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Read a pipe that never ends; for each line its surprise in bits, in bits per byte, and the line, as it comes."""
    from recurra.serve import streaming

    model, codec = _language_model(run)

    def write(lines: list[streaming.Line]) -> None:
        shown = (line for line in lines if line.bits_per_byte > above or not above)
        _write(b"".join(line.to_json() if as_json else line.to_text() for line in shown))

    # a service is ended by SIGTERM: leave as politely as for Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        streaming.stream(model, codec.encode, sys.stdin.fileno(), write, state)
    except KeyboardInterrupt as stop:
        kept = f"; go on with: recurra stream {run} --state {state}" if state else "; the state is not kept (--state)"
        raise KeyboardInterrupt(f"stopped{kept}") from stop


@app.command(epilog="Example: recurra forecast runs/sales sales.csv --horizon 12 --out forecast.csv")
def forecast(
    run: RunFolder,
    series: Annotated[pathlib.Path, typer.Argument(help="A CSV or Parquet file, of series the run need not know.")],
    horizon: Annotated[int | None, typer.Option(help="Steps ahead; else as many as the run was trained for.")] = None,
    out: Annotated[pathlib.Path | None, typer.Option(help="A CSV file to write; else it goes to stdout.")] = None,
    as_json: Json = False,
) -> None:
    """What comes next in every series of a file: a long frame of unique_id, ds and a column for each quantile."""
    import torch

    from recurra.tasks import make

    model, settings = _model(run, "forecaster", "recurra train SERIES.csv")
    task: Any = make({**settings, "source": str(series)})
    with torch.no_grad():
        rows = task.forecast(model, horizon)
    if out is not None:
        from recurra.files import aside

        with aside(out) as fresh, open(fresh, "w", newline="", encoding="utf-8") as file:
            _write_csv(file, rows)
    if as_json:
        _print_json(rows)
    elif out is None:
        _write_csv(sys.stdout, rows)


def _model(run: pathlib.Path, name: str, command: str) -> tuple[Any, dict[str, Any]]:
    """The model in a run's folder, which must be of the kind `name`, and the settings of its task."""
    from recurra.models import load
    from recurra.models.folder import read_config
    from recurra.train.table import best_run

    folder = best_run(run)
    model = load(folder)
    if model.name != name:
        raise ValueError(f"{folder} holds a {model.name}, and this takes a {name}: train one with {command}")
    return model, read_config(folder).get("task", {})


def _language_model(run: pathlib.Path) -> tuple[Any, Any]:
    """The language model in a run's folder, and its way between bytes and tokens."""
    from recurra.tasks.text import codec

    model, settings = _model(run, "language_model", "recurra train TEXT")
    if settings.get("task") != "text":
        raise ValueError(f"{run} was not trained on text but on {settings.get('task')}: there is nothing to write")
    if model.grows:
        print(f"recurra: the state of {run} grows with every step: memory will not stay constant", file=sys.stderr)
    return model, codec(settings)


def _task(pairs: list[str] | None, tokenizer: pathlib.Path | None) -> dict[str, Any]:
    from recurra.train import given

    return given.pairs(pairs or []) | ({} if tokenizer is None else {"tokenizer": str(tokenizer)})


def _folder(source: str, what: str) -> pathlib.Path:
    """A name for a run that was given none."""
    from recurra.train.contender import label

    name = "pipe" if source == "-" else pathlib.Path(source).stem or "text"
    return pathlib.Path("runs") / f"{name}-{label(what)}"


@contextlib.contextmanager
def _how_to_go_on(command: str, folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        line = f": {shlex.join(['recurra', command, '--resume', '--run', str(folder)])}" if folder.exists() else ""
        raise KeyboardInterrupt(f"{str(stop) or 'stopped'}{line}") from stop


def _page(folder: pathlib.Path) -> pathlib.Path:
    from recurra.train.references import references
    from recurra.train.report import report

    references(folder)
    return report(folder)


def _show_comparison(folder: pathlib.Path, rows: list[dict[str, Any]], as_json: bool) -> None:
    from recurra.train.table import table

    if rows and not as_json:
        _console().print(table(rows))
        print(f"best: {folder / rows[0]['run']}", flush=True)
    page = _page(folder)
    if as_json:
        _print_json({"run": str(folder), "report": str(page), "rows": rows})
    else:
        print(f"report: {page}")


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _write_csv(file: Any, rows: list[dict[str, Any]]) -> None:
    import csv

    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _console() -> Any:
    """A terminal's width where there is one; wide enough for every column where the output goes to a file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)
