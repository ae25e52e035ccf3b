"""The commands of `hybridlab`, one function each: they read arguments, call the package, print."""

import csv
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hybridlab import __version__

if TYPE_CHECKING:
    from hybridlab.measure.memory import Account
    from hybridlab.measure.tables import Table

app = typer.Typer(
    name="hybridlab",
    help="An interactive course on hybrid language models, and the package it is written on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SUMMARY = (
    "parameters", "active_parameters", "kv_bytes", "recurrent_bytes", "conv_bytes", "state_bytes", "total_bytes",
    "flops_per_token",
)  # fmt: skip


def _console() -> Console:
    # Made at each use: a test replaces stdout. Without a terminal rows are not cut to 80 columns.
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """An interactive course on hybrid language models, and the package it is written on."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def lab(
    context: typer.Context,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, open nothing.")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Where to listen.")] = None,
) -> None:
    """Open the course in JupyterLab. Further arguments for Jupyter go after `--`."""
    from hybridlab.cli.lab import become, check_installed, check_writable, is_superuser, lab_command, let_idle_threads_sleep
    from hybridlab.cli.places import repository, start_chapter

    root = repository()
    chapter = start_chapter(root)
    check_installed()
    check_writable()
    let_idle_threads_sleep()
    command = lab_command(root, chapter, context.args, browser=not no_browser, port=port, superuser=is_superuser())
    raise typer.Exit(become(command))


@app.command()
def start(exercise: Annotated[str, typer.Argument(metavar="NN", help="Number of the chapter, such as 03.")]) -> None:
    """Copy a chapter's exercise into my_work/, where it is yours: no update writes over it."""
    from hybridlab.cli.places import repository, start_exercise

    root = repository()
    copy, new = start_exercise(root, exercise)
    name = copy.relative_to(root).as_posix()
    if not new:
        print(f"{name} is there already: nothing was copied, your work is as you left it.")
        print(f"Go on in it, or rename it and run `hybridlab start {exercise}` again for a fresh one.")
        raise typer.Exit(1)
    print(f"{name} is ready. Open it in `hybridlab lab`; grade it, in {root}, with")
    print(f"  pytest --nbval --nbval-current-env {name}")


@app.command()
def doctor() -> None:
    """Say what this machine has, and give a remedy for what it lacks. Exits with 0 if the course can run."""
    from rich.table import Table

    from hybridlab.cli.doctor import can_run, examine
    from hybridlab.cli.facts import gather

    findings = examine(gather())
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table("", "", "found", "remedy", box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(f"[{colours[finding.status]}]{finding.status}[/]", finding.subject, *map(_plain, finding[2:]))
    _console().print(table)
    healthy = can_run(findings)
    print("The course can run here." if healthy else "The course cannot run here: see the lines that fail.")
    raise typer.Exit(0 if healthy else 1)


def _plain(text: str) -> str:
    """Text in which rich sees no markup: [course] is an extra, not a colour."""
    from rich.markup import escape

    return escape(text)


@app.command()
def check(
    op: Annotated[str | None, typer.Argument(help="An op, such as wkv6; none: all of them.")] = None,
    models: Annotated[bool, typer.Option("--models", help="Check a small model of each architecture instead.")] = False,
) -> None:
    """Compare every form and backend with the literal equation in float64. Exits with 1 if a row fails."""
    if op is not None and models:
        raise ValueError("check: name an op or give --models, not both")
    healthy = _check_models() if models else _check_ops(op)
    raise typer.Exit(0 if healthy else 1)


def _check_ops(op: str | None) -> bool:
    _interpret_triton_without_gpu()
    from hybridlab.measure import check_equivalence

    console = _console()
    with console.status("comparing") as status:
        report = check_equivalence(op, progress=status.update)
    console.print(report)
    return report.ok


def _interpret_triton_without_gpu() -> None:
    import os

    import torch

    if not torch.cuda.is_available():
        # Read when triton is first imported, which the first Triton kernel does.
        os.environ.setdefault("TRITON_INTERPRET", "1")


def _check_models() -> bool:
    import torch

    from hybridlab.measure import check_invariants
    from hybridlab.measure.tiny import TINY

    console, healthy = _console(), True
    for name, make in TINY.items():
        torch.manual_seed(0)
        with console.status(f"checking {name}"):
            card = check_invariants(make(), name=name)
        console.print(card)
        healthy = healthy and card.ok
    return healthy


@app.command()
def memory(
    models: Annotated[list[str], typer.Argument(metavar="NAME...", help="Presets, such as llama-3.1-8b.")],
    context: Annotated[int, typer.Option(help="Tokens that a sequence has read.")],
    batch: Annotated[int, typer.Option(help="Sequences.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of weights and caches.")] = "bfloat16",
    state_dtype: Annotated[str | None, typer.Option(help="Of recurrent states; none: float32.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="A row a layer.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw bars to a file, too.")] = False,
    out: Annotated[Path, typer.Option(help="What --plot draws to: a .png, .svg or .pdf.")] = Path("memory.png"),
    limit: Annotated[list[str] | None, typer.Option(help='A device to draw a line for, such as "24 GiB".')] = None,
) -> None:
    """Count, to the byte, what models keep for a sequence at some context length."""
    from hybridlab.measure import account
    from hybridlab.measure.units import parse_size

    if as_json and as_csv:
        raise ValueError("memory: --json or --csv, not both")
    if limit and not plot:
        raise ValueError("memory: --limit is a line in the picture that --plot draws; ask for it")
    limits = {name: parse_size(name) for name in limit or ()}
    accounts = [account(name, context, batch, dtype, state_dtype) for name in models]
    if plot:
        _draw_memory(accounts, limits, out)
    if as_json:
        print(json.dumps([found.as_dict() for found in accounts], indent=1))
    elif as_csv:
        print(_csv([found.as_dict() for found in accounts], layers), end="")
    elif layers:
        for found in accounts:
            _console().print(found)
    else:
        _print_summary(_summary(accounts, context, batch))


def _draw_memory(accounts: list["Account"], limits: dict[str, int], file: Path) -> None:
    from hybridlab.measure.memory_plot import plot_accounts

    try:
        plot_accounts(accounts, limits).savefig(file)
    except OSError as error:
        raise ValueError(f"memory: cannot write to --out {file}: {error.strerror}") from None
    print(f"wrote {file}", file=sys.stderr)


def _csv(accounts: list[dict[str, Any]], layers: bool) -> str:
    """A line a model, or a line a part of a model."""
    sizes = ("model", "context", "batch", "dtype", "state_dtype")
    if layers:
        rows = [{name: found[name] for name in sizes} | part for found in accounts for part in found["parts"]]
    else:
        rows = [{name: found[name] for name in (*sizes, *SUMMARY)} for found in accounts]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _print_summary(table: "Table") -> None:
    """A row a model; a table a model where the terminal is too narrow for rows, which would break the numbers."""
    console = _console()
    unbounded = console.options.update(max_width=10_000)
    if console.measure(table.rich(), options=unbounded).maximum <= console.width:
        console.print(table.rich())
        return
    for place, (name, *numbers) in enumerate(table.rows):
        head = (table.columns[0], str(name))
        rows = tuple(zip(table.columns[1:], numbers, strict=True))
        title = table.title if place == 0 else ""
        console.print(replace(table, title=title, columns=head, rows=rows, right=frozenset(head[1:])).rich())


def _summary(accounts: list["Account"], context: int, batch: int) -> "Table":
    from hybridlab.measure.tables import Table

    columns = ("model", "parameters", "cache", "state", "in all", "FLOPs a token")
    rows = tuple((found.model, f"{found.parameters:,}", *_sizes(found), f"{found.flops_per_token:,}") for found in accounts)
    kinds = f"weights and caches {accounts[0].dtype}, recurrent states {accounts[0].state_dtype}"
    title = f"kept after {context:,} tokens, batch {batch}: {kinds}"
    return Table(title, columns, rows, frozenset(columns[1:]))


def _sizes(found: "Account") -> list[str]:
    return [_size(count) for count in (found.kv_bytes, found.state_bytes, found.total_bytes)]


def _size(count: int) -> str:
    """Bytes in a large unit, and exactly."""
    from hybridlab.measure.units import readable

    return f"{readable(count)} ({count:,})" if count >= 1024 else readable(count)


@app.command()
def plan(
    memory: Annotated[str, typer.Option(help='Of the device, such as "24 GiB".')],
    context: Annotated[int, typer.Option(help="Tokens that a sequence has read.")],
    batch: Annotated[int, typer.Option(help="Sequences.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of weights and caches.")] = "bfloat16",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which presets fit a device at some context length, weights and state together."""
    from hybridlab.measure import planner
    from hybridlab.measure.units import parse_size

    found = planner.plan(parse_size(memory), context, batch, dtype)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        _console().print(found)


@app.command()
def bench(
    op: Annotated[str | None, typer.Option(help="An op, such as wkv6; none: all of them.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two lengths and few rounds, for a look.")] = False,
    threads: Annotated[int | None, typer.Option(help="Of PyTorch and Numba; none: what they have.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; none: the GPU where there is one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write JSON and Markdown to.")] = None,
) -> None:
    """Time each kernel against its rivals and the roofline floor of this machine, interleaved in one process."""
    from hybridlab.measure.bench import benchmark, cells_to_measure
    from hybridlab.measure.problems import SETTINGS
    from hybridlab.measure.targets import judge

    if out:
        _check_writable(out, "bench: cannot write to --out")
    console = _console()
    for name in [op] if op else SETTINGS:
        with _Steps(cells_to_measure(quick)) as step:
            report = benchmark(name, quick=quick, threads=threads, device=device, progress=step)
        console.print(report, judge(report).rich())
        for path in report.write(out) if out else ():
            print(f"wrote {path}")


def _check_writable(folder: Path, problem: str) -> None:
    """Asked before the minutes of work, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"{problem} {folder}: {error.strerror}") from None


@app.command()
def train(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to learn: phone-book.")],
    out: Annotated[Path, typer.Option(help="Folder to write weights and report to.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of the books.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps, to see that it runs; nothing is learnt.")] = False,
) -> None:
    """Train the three small models that chapter 00 asks a phone book: attention, a fixed state, a hybrid."""
    if task != "phone-book":
        raise ValueError(f"train: unknown task {task!r}; choose phone-book")
    from hybridlab.tasks.phone_models import phone_results
    from hybridlab.tasks.phone_training import FULL, QUICK, train_phone_models

    files = train_phone_models(out, seed, QUICK if quick else FULL, on_model=lambda name: print(f"training: {name}"))
    _console().print(phone_results(out))
    for path in files:
        print(f"wrote {path}")


@app.command()
def generate(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A checkpoint: a folder, or a file of weights.")],
    prompt: Annotated[str, typer.Option(help="The text that goes on.")],
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens are added.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that have this probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; none: others each time.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given again.")] = None,
    vocab: Annotated[Path | None, typer.Option(help="tokenizer.json, or RWKV's vocabulary (.txt).")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "float32",
    backend: Annotated[str, typer.Option(help="auto, naive, numba or triton.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; none: the GPU where there is one.")] = None,
    memory: Annotated[Path | None, typer.Option(help="PNG to draw the bytes kept after each token to.")] = None,
) -> None:
    """Continue a text with a checkpoint's model. The text goes to stdout; speed and memory to stderr."""
    _interpret_triton_without_gpu()
    from hybridlab.cli.generate import Request, Source, go_on
    from hybridlab.models.sampling import Sampling

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal of few characters shows "?" for others
    draw = _memory_picture(memory) if memory else None
    source = Source(path, vocab, dtype, backend, device)
    request = Request(prompt, max_new_tokens, Sampling(temperature, top_k, top_p), seed, tuple(stop or ()))
    record = go_on(source, request, lambda text: print(text, end="", flush=True))
    print()
    print(record, file=sys.stderr)
    if draw and record.costs:
        draw(record.costs, record.prompt, memory)
        print(f"wrote {memory}", file=sys.stderr)
    raise typer.Exit(130 if record.interrupted else 0)


def _memory_picture(path: Path) -> Callable[..., None]:
    """What draws, once it is sure that it can."""
    if path.suffix != ".png":
        raise ValueError(f"generate: --memory must be a .png file, got {path}")
    _check_writable(path.parent, "generate: cannot write --memory to")
    try:
        from hybridlab.cli.memory_picture import draw_memory
    except ImportError as error:
        remedy = "pip install -c constraints.txt -e '.[course]' in the repository"
        raise ValueError(f"generate: --memory needs {error.name}, which is not installed: {remedy}") from None
    return draw_memory


class _Steps:
    """A bar on stderr that a line of text moves on."""

    def __init__(self, steps: int) -> None:
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("", total=steps)
        self.started = False

    def __enter__(self) -> "_Steps":
        self.bar.start()
        return self

    def __call__(self, line: str) -> None:
        self.bar.update(self.task, description=line, advance=1 if self.started else 0)
        self.started = True

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
