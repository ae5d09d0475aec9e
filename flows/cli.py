"""The command line: verbs parse what the user typed and call one function each. Logs go to stderr, results to stdout.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong. Heavy libraries load inside the verb that needs them, so
`version`, `sql`, `schema` and a wrong flag answer at once.
"""

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.synth.verbs import synth
from flows.verb import AsJson, Home, Overrides, existing, home_of, print_result, run_job
from warehouse.errors import InputError

app = typer.Typer(
    name="winnow",
    help="Find the best small training set in a large pool of instruction data, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cache = typer.Typer(help="Look into the artifacts of the home.", no_args_is_help=True)
app.add_typer(cache, name="cache")
app.add_typer(synth, name="synth")
pool = typer.Typer(help="Look into the pools of the home.", no_args_is_help=True)
app.add_typer(pool, name="pool")


class OutFormat(StrEnum):
    """Formats a selection can be written in."""

    messages = "messages"
    alpaca = "alpaca"
    sharegpt = "sharegpt"


class ExportFormat(StrEnum):
    """Formats that `export` writes: those of a selection, and a folder for `datasets.load_from_disk`."""

    messages = "messages"
    alpaca = "alpaca"
    sharegpt = "sharegpt"
    datasets = "datasets"


class AnswerFormat(StrEnum):
    """Formats an answer can be shown or written in."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"
    parquet = "parquet"


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("winnow"))


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="An empty or new folder.")] = Path()) -> None:
    """Write a first recipe and a note on what to do next."""
    from flows.start import init_folder

    typer.echo(init_folder(folder))


@app.command()
def demo(overrides: Overrides = None, home: Home = None, as_json: AsJson = False) -> None:
    """Run the main job on generated data: race selection methods on a skill with known truth."""
    from flows.start import DEMO

    run_job(DEMO, overrides, home, as_json, "demo")


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, YAML.")],
    overrides: Overrides = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: synthesize, ingest, measure, select, tune, assess, report."""
    run_job(recipe, overrides, home, as_json, "run")


@app.command()
def evaluate(
    recipe: Annotated[Path, typer.Argument(help="A recipe with `models` and `tasks`, YAML.")],
    overrides: Overrides = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Examine models as they are on a recipe's tasks, each compared with the first; nothing is tuned."""
    run_job(recipe, overrides, home, as_json, "evaluate")


@app.command()
def advise(
    recipe: Annotated[Path, typer.Argument(help="A recipe with `advise`, YAML.")],
    overrides: Overrides = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say what mixture of sources to train on, from pilot runs or distances to the target."""
    run_job(recipe, overrides, home, as_json, "advise")


@app.command()
def scorers(
    recipe: Annotated[Path, typer.Argument(help="A recipe with `scorers`, YAML.")],
    overrides: Overrides = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make the two scorers that `deita` reads: a judge grades evolved seeds, models learn from that."""
    run_job(recipe, overrides, home, as_json, "scorers")


@app.command()
def select(
    pool: Annotated[list[str], typer.Argument(help="Files, folders or hub names to choose from.")],
    target: Annotated[list[str] | None, typer.Option("--target", help="Examples of what should get better.")] = None,
    method: Annotated[str, typer.Option("--method", help="Selection method, for instance rds_plus.")] = "rds_plus",
    budget: Annotated[int, typer.Option("--budget", min=1, help="Rows to choose.")] = 1000,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write: .jsonl, .json or .parquet.")] = Path(
        "chosen.jsonl"
    ),
    model: Annotated[
        str | None, typer.Option("--model", help="Language model whose hidden states represent rows.")
    ] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="Encoder that represents rows instead.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="Parameter of the method, key=value.")
    ] = None,
    out_format: Annotated[OutFormat, typer.Option("--format", help="Format of the rows written.")] = OutFormat.messages,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Choose rows of a pool for a target: no recipe, no training, no server; everything is cached in the home."""
    from flows.select import SelectRequest, select_rows

    request = SelectRequest(
        pool=tuple(pool),
        target=tuple(target or ()),
        method=method,
        budget=budget,
        out=out,
        model=model,
        encoder=encoder,
        params=tuple(param or ()),
        out_format=out_format.value,
        seed=seed,
    )
    print_result(select_rows(request, home_of(home)), as_json)


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="SQL over the warehouse; `-` reads it from stdin.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the SQL from this file.")] = None,
    out_format: Annotated[
        AnswerFormat | None, typer.Option("--format", help="Format of the answer; default as --out ends, else a table.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the answer to this file.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows that a table shows; 0 shows all.")] = 40,
    home: Home = None,
) -> None:
    """Ask the warehouse; read-only, and never in the way of a run. Of several statements the last one answers."""
    from flows.tables import answer, statements

    text = answer(existing(home), statements(query, file), out_format and out_format.value, out, rows)
    if text:
        typer.echo(text)


@app.command()
def export(
    selection: Annotated[
        str, typer.Argument(help="Beginning of a selection's key, method:budget:seed, or pool:NAME for a cleaned pool.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write: .jsonl, .json, .parquet, or a folder.")],
    out_format: Annotated[
        ExportFormat, typer.Option("--format", help="Format of the rows written.")
    ] = ExportFormat.messages,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Make --out a folder that LLaMA-Factory and axolotl open as it is.")
    ] = False,
    repeat_weights: Annotated[
        bool, typer.Option("--repeat-weights", help="Repeat rows by their weights, for trainers that know none.")
    ] = False,
    home: Home = None,
) -> None:
    """Write a selection, or a cleaned pool, for a trainer."""
    from flows.exports import export_named

    typer.echo(export_named(existing(home), selection, out, out_format.value, bundle, repeat_weights))


@app.command()
def report(
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's id; default the last finished one.")
    ] = None,
    home: Home = None,
) -> None:
    """Write the HTML report of a run again and print its path."""
    from flows.report import write_report

    typer.echo(str(write_report(existing(home), run_id)))


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Also check what this recipe needs.")] = None,
    overrides: Overrides = None,
    home: Home = None,
) -> None:
    """Check the install, the home, the server, the model and the memory, and say what to do."""
    from flows.doctor import examine

    findings = examine(home_of(home), recipe, overrides or ())
    for finding in findings:
        typer.echo(str(finding))
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    import json

    from flows.recipes import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))


@app.command()
def deploy(
    recipe: Annotated[Path, typer.Argument(help="A recipe, YAML.")],
    cron: Annotated[str, typer.Option("--cron", help='When to run, for instance "0 3 * * *".')],
    overrides: Overrides = None,
    timezone: Annotated[str | None, typer.Option("--timezone", help="Time zone of the cron line; default UTC.")] = None,
    home: Home = None,
) -> None:
    """Register a recipe as a Prefect deployment with a schedule; `winnow serve` runs what is due."""
    from flows.deploy import deploy_recipe

    typer.echo(deploy_recipe(recipe, overrides or [], cron, timezone, home_of(home)))


@app.command()
def serve(home: Home = None) -> None:
    """Run deployed recipes when they are due, until stopped."""
    from flows.deploy import serve_deployments

    serve_deployments(home_of(home))


@cache.command("ls")
def cache_ls(
    home: Home = None, verify: Annotated[bool, typer.Option("--verify", help="Check every file's hash.")] = False
) -> None:
    """List the artifacts of the home."""
    from flows.cache import listing

    typer.echo(listing(existing(home), verify))


@cache.command("explain")
def cache_explain(
    first: Annotated[str, typer.Argument(help="A run's id, or an artifact's key (a unique beginning is enough).")],
    second: Annotated[str, typer.Argument(help="Another of the same kind.")],
    home: Home = None,
) -> None:
    """Say which part of the key differs between two runs or two artifacts."""
    from flows.cache import explain

    typer.echo(explain(existing(home), first, second))


@cache.command("prune")
def cache_prune(
    keep: Annotated[int, typer.Option("--keep", min=0, help="Keep what the last KEEP finished runs used.")] = 10,
    days: Annotated[
        float, typer.Option("--days", min=0, help="Keep what runs that did not finish used for this many days.")
    ] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    home: Home = None,
) -> None:
    """Remove artifacts and signals that nothing kept was made from, and say what was freed."""
    from flows.cache import prune

    typer.echo(prune(existing(home), keep, days, dry_run))


Remote = Annotated[str, typer.Argument(metavar="URL", help="A folder, s3://bucket/folder, or another fsspec URL.")]
Keys = Annotated[
    list[str] | None, typer.Argument(metavar="KEY", help="Artifacts, signals or runs; default everything.")
]


@cache.command("push")
def cache_push(url: Remote, keys: Keys = None, home: Home = None) -> None:
    """Copy artifacts and what they were made from to a shared place; what is there already is not sent again."""
    from flows.cache import push

    typer.echo(push(existing(home), url, keys or []))


@cache.command("pull")
def cache_pull(url: Remote, keys: Keys = None, home: Home = None) -> None:
    """Copy artifacts and what they were made from into the home; every file is verified."""
    from flows.cache import pull

    typer.echo(pull(home_of(home), url, keys or []))


PoolName = Annotated[str, typer.Argument(help="A pool's name (its latest version), name@2, or the beginning of a key.")]


@pool.command("ls")
def pool_ls(home: Home = None) -> None:
    """List the pool versions of the home."""
    from flows.pool_verbs import listing

    typer.echo(listing(existing(home)))


@pool.command("show")
def pool_show(name: PoolName, home: Home = None) -> None:
    """Say what a pool holds, what was kept out of it, and what was chosen from it."""
    from flows.pool_verbs import show

    typer.echo(show(existing(home), name))


@pool.command("diff")
def pool_diff(
    first: PoolName,
    second: PoolName,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows of each side to name.")] = 3,
    home: Home = None,
) -> None:
    """Say how two pool versions differ: rows by source, and facts that changed."""
    from flows.pool_verbs import diff

    typer.echo(diff(existing(home), first, second, rows))


@pool.command("sample")
def pool_sample(
    name: PoolName,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Rows to draw.")] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
    source: Annotated[str | None, typer.Option("--source", help="Only rows of this source.")] = None,
    dropped: Annotated[str | None, typer.Option("--dropped", help="Only rows that this filter dropped.")] = None,
    where: Annotated[str | None, typer.Option("--where", help="Only rows for which this SQL condition holds.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print conversations drawn from a pool."""
    from flows.pool_verbs import Wish, sample

    typer.echo(sample(existing(home), name, Wish(n, seed, source, dropped, where), as_json))


@pool.command("split")
def pool_split(
    name: PoolName,
    out: Annotated[Path, typer.Argument(help="A folder to write: a .jsonl file for every level that has rows.")],
    category: Annotated[str, typer.Option("--category", help="What names a row's category: a column or meta key.")] = (
        "source"
    ),
    task: Annotated[str, typer.Option("--task", help="What names a row's task.")] = "family",
    categories: Annotated[float, typer.Option("--categories", help="Share of the categories to hold out.")] = 0.1,
    tasks: Annotated[float, typer.Option("--tasks", help="Share of each other category's tasks to hold out.")] = 0.1,
    instances: Annotated[float, typer.Option("--instances", help="Share of each other task's rows to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed holds others out.")] = 0,
    home: Home = None,
) -> None:
    """Write a pool as rows to train on and rows held out: whole categories, whole tasks, and instances."""
    from eval.splits import Shares
    from flows.pool_split import Wanted, split_pool

    wanted = Wanted(category, task, Shares(categories, tasks, instances), seed)
    typer.echo(split_pool(existing(home), name, out, wanted))


@pool.command("materialize")
def pool_materialize(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Pools: names, name@2, or beginnings of keys.")],
    file: Annotated[Path, typer.Argument(help="Where to write: a .duckdb file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it is there already.")] = False,
    home: Home = None,
) -> None:
    """Write pools, and all that was made of them, to one DuckDB file for who does not have the home."""
    from flows.pool_verbs import materialized

    typer.echo(materialized(existing(home), names, file, force))


@app.command()
def lineage(
    key: Annotated[str, typer.Argument(help="Key of an artifact or signal; a unique beginning is enough.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that a result was made from, back to the source files."""
    from flows.cache import lineage as ancestors

    typer.echo(ancestors(existing(home), key, as_json))


def main() -> None:
    """Run the command line and exit with its code."""
    from flows.settings import be_quiet

    be_quiet()
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"error: {error}{_advice(error)}", err=True)
        sys.exit(1)


def _advice(error: OSError) -> str:
    full = error.errno == errno.ENOSPC and "Free space" not in str(error)
    return (
        ". Free space (`winnow cache prune`) and run the same command again; finished stages are kept" if full else ""
    )
