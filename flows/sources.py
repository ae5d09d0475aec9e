"""From what a recipe names to a pool version: synthesize where rows are to be made, then ingest shard by shard."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.recipes import Recipe, Source
from flows.run import Counts, Run, produce
from flows.spread import spread
from flows.synth.asked import synthesis_of
from flows.synth.spend import check_voices
from flows.synth.stage import Kitchen, oldest_alike, synthesize
from flows.workers import Workers
from warehouse import pools, shards, sources
from warehouse.errors import InputError
from warehouse.licences import card_licence
from warehouse.pool_writer import SAMPLES_FILE
from warehouse.pools import PoolReader
from warehouse.store import HASH_ON_HIT_BYTES, Artifact, Draft, Store, Work

SYNTHESIZE_VERSION = 1
SHARD_VERSION = 2
INGEST_VERSION = 2
ROWS_FILE = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Given:
    """A source that is there, the licence of rows that name none, and the key of the synthesis that made it, if any."""

    source: sources.Source
    licence: str | None = None
    made_by: str | None = None


def check_all(given: Sequence[Source], recipe: Recipe, *, unanswered: bool = False) -> None:
    """`check` of each, and that none makes the same rows as another."""
    for number, source in enumerate(given):
        if source.synthesize is not None and source in given[:number]:
            raise InputError(
                f"{source.synthesize!r} is named twice with the same parameters, seeds and models: its rows would be "
                "the same; take one away, or give it another parameter"
            )
        check(source, recipe, unanswered=unanswered)


def check(source: Source, recipe: Recipe, *, unanswered: bool = False) -> None:
    """Raise `InputError` for what can be known to be wrong with `source` before work starts."""
    if source.synthesize is None:
        pools.probe(located(source, Path(recipe.data)).source, unanswered=unanswered)
        return
    asked = synthesis_of(source, recipe.endpoints, Path(recipe.data))
    check_voices((*asked.voices.values(), *asked.spaces.values()), recipe.spend)
    check_all(source.seeds, recipe)


def prepare(
    run: Run,
    name: str,
    given: Sequence[Source],
    data: Path,
    kitchen: Kitchen,
    workers: Workers,
    *,
    unanswered: bool = False,
) -> Artifact:
    """The pool version of `given` under `name`: one stage per synthesizer, and one that ingests all.

    With `unanswered`, as test sets have it, rows are kept that end with what a user asks. Raises `InputError` where all
    of it is synthesized and no row was accepted.
    """
    found, without = list[Given](), list[str]()
    for source in given:
        if source.synthesize is None:
            found.append(located(source, data))
            continue
        made = made_of(run, name, source, data, kitchen, workers)
        if made.manifest["facts"]["rows_out"]:
            found.append(synthesized(oldest_alike(run, made), source.synthesize, source.licence))
        else:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in made.manifest["facts"]["dropped"].items())
            without.append(f"{source.synthesize} accepted none ({reasons or 'nothing was made'})")
    if not found:
        more = "; raise `spend` for those over budget" if any("over_budget" in each for each in without) else ""
        raise InputError(f"{name} has no rows: {'; '.join(without)}; the view `rejects` says why, row by row{more}")
    return ingest(run, name, found, workers, unanswered=unanswered)


def made_of(run: Run, name: str, source: Source, data: Path, kitchen: Kitchen, workers: Workers) -> Artifact:
    """The rows that the synthesizer of `source` makes, its seeds prepared before."""
    asked = synthesis_of(source, kitchen.endpoints, data)
    called = f"seeds of {source.synthesize}"  # not by the recipe: the same seeds are the same pool in another one
    seeds = prepare(run, called, source.seeds, data, kitchen, workers) if source.seeds else None
    return synthesize(run, f"synthesize {name}", asked, seeds, kitchen, workers)


def synthesized(made: Artifact, synthesizer: str, licence: str | None = None) -> Given:
    """The rows that a synthesizer made, as a source named after it."""
    (rows,) = sources.locate(str(made.folder / ROWS_FILE)).parts
    assert isinstance(rows, sources.File)
    named = replace(rows, name=f"{synthesizer}.jsonl")  # many a user's file is called as the artifact's is
    return Given(sources.Source(named.name, (named,)), licence, made.key)


def located(source: Source, data: Path) -> Given:
    """The file, folder or hub data set that `source` names; a relative path starts at `data`.

    Raises `InputError` where there is no such thing.
    """
    assert source.path is not None  # a recipe's source has a path or a synthesizer
    here = data / Path(source.path).expanduser()
    named = str(here) if _is_here(here) or not sources.may_be_hub(source.path) else source.path
    found = replace(sources.locate(named), skip=source.skip, limit=source.limit)
    return Given(found, source.licence or card_licence(_folder_of(here)))


def _is_here(path: Path) -> bool:
    return path.exists() or _folder_of(path).exists()


def _folder_of(path: Path) -> Path:
    """`path`, or the folder before the colon of `folder:split`."""
    return path if path.exists() else path.with_name(path.name.rpartition(":")[0] or path.name)


def ingest(run: Run, name: str, given: Sequence[Given], workers: Workers, *, unanswered: bool = False) -> Artifact:
    """A pool version from files, folders or hub names; every row kept or rejected with a reason.

    Only shards that no earlier version made are read; what a killed import finished is kept.
    """
    pools.check_sources([part.source for part in given], unanswered=unanswered)
    given = _told_apart(given)
    cut = [_without_text(shard) for shard in _shards(given, unanswered)]
    keys = [shard.work.key for shard in cut]
    made_by = [part.made_by for part in given if part.made_by]
    work = Work("ingest", INGEST_VERSION, {"name": name}, {"shards": keys, "synthesized": made_by})

    def make(draft: Draft) -> Counts:
        # what was read compressed is read again: its text was not kept
        again = any(isinstance(shard.piece, shards.Lines) and shard.piece.part.compression for shard in cut)
        made = _make_shards(run, name, _shards(given, unanswered) if again else cut, workers)
        if missing := [key for key in keys if key not in made]:
            raise InputError(f"{name}: {len(missing)} parts changed while they were read; run the same command again")
        folders = [made[key].folder for key in keys]
        for key in keys:
            draft.shares(made[key])
        funnel = pools.assemble(folders, draft.folder, pool_key=work.key, name=name)
        pairs = zip(keys, folders, strict=True)
        draft.facts["shards"] = [key for key, folder in pairs if (folder / SAMPLES_FILE).exists()]
        draft.facts["notes"] = list(funnel.notes)
        return Counts(funnel.rows_in, funnel.rows_out, funnel.dropped)

    return run.stage(f"ingest {name}", work, make)


def _told_apart(given: Sequence[Given]) -> list[Given]:
    """`given` with files of one name called by as much of their path as tells them apart."""
    paths = [part.path.resolve() for one in given for part in one.source.parts if isinstance(part, sources.File)]
    names = Counter(part.name for one in given for part in one.source.parts)

    def renamed(part: sources.Part) -> sources.Part:
        if not isinstance(part, sources.File) or names[part.name] == 1:
            return part
        path = part.path.resolve()
        others = [other for other in paths if other != path]
        for length in range(len(Path(part.name).parts), len(path.parts) + 1):
            if not any(other.parts[-length:] == path.parts[-length:] for other in others):
                return replace(part, name="/".join(path.parts[-length:]))
        return part

    return [
        replace(one, source=replace(one.source, parts=tuple(renamed(part) for part in one.source.parts)))
        for one in given
    ]


@dataclass(frozen=True, slots=True)
class Cut:
    """A shard to be: the work that names it, the piece it is made of, the licence of rows that name none, and whether
    rows may end with what a user asks."""

    work: Work
    piece: shards.Piece
    licence: str | None
    unanswered: bool


def _shards(given: Sequence[Given], unanswered: bool) -> Iterator[Cut]:
    for part in given:
        for piece in shards.pieces(part.source):
            params = shards.identity(piece) | {"licence": part.licence} | ({"unanswered": True} if unanswered else {})
            work = Work("shard", SHARD_VERSION, params, {"content": piece.content})
            yield Cut(work, piece, part.licence, unanswered)


def _without_text(cut: Cut) -> Cut:
    return replace(cut, piece=replace(cut.piece, text=None)) if isinstance(cut.piece, shards.Lines) else cut


def _make_shards(run: Run, name: str, cut: Iterable[Cut], workers: Workers) -> dict[str, Artifact]:
    """Every shard by its key; the missing ones are made, spread over the workers."""
    made: dict[str, Artifact] = {}

    def missing() -> Iterator[tuple[Store, Cut]]:
        to_hash = HASH_ON_HIT_BYTES
        for each in cut:
            shard = run.store.find(each.work, to_hash)
            if shard is None:
                yield run.store, each
            else:
                made[each.work.key] = shard
                to_hash -= shard.bytes

    done = 0
    for shard in spread(workers, _make_shard, missing()):
        made[shard.key] = shard
        done += shard.manifest["facts"]["rows_in"]
        run.listener.progress(f"ingest {name}", done, None)
    return made


def _make_shard(store: Store, cut: Cut) -> Artifact:
    def make(draft: Draft) -> Counts:
        return Counts(*shards.write_shard(cut.piece, draft.folder, cut.licence, unanswered=cut.unanswered))

    return produce(store, cut.work, make)


def read(artifact: Artifact) -> PoolReader:
    """The rows of an ingested pool version."""
    return pools.opened(artifact.folder)
