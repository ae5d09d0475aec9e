"""Recipes: the YAML files that describe a run, checked before any work starts.

Errors name the file, the line and the key. `key=value` overrides use dotted keys (`train.params.epochs=2`,
`methods.0.policy=consume`) and YAML values.
"""

import difflib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from flows.overrides import apply
from flows.scale_recipe import Scale
from models.endpoint.spec import EndpointSpec
from warehouse.errors import InputError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Named(BaseModel):
    """An entry of a table and its parameters: `name` alone, or `name` with parameters beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Entry = Annotated[Named, BeforeValidator(_named)]
LABEL = r"^[a-z0-9][a-z0-9_-]*$"


class Source(_Part):
    """Where rows come from: a file, a folder or a hub name (`path`), or a synthesizer (`synthesize`)."""

    path: str | None = Field(None, description="file, folder or hub name; a relative path starts at `data`")
    synthesize: str | None = Field(None, description="name of a synthesizer")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the synthesizer")
    seeds: list["Source"] = Field(default_factory=list, description="rows that the synthesizer starts from")
    models: dict[str, Entry] = Field(
        default_factory=dict,
        description="model of each role: one of this machine by path or hub name, or one of `endpoints`",
    )
    encoders: dict[str, str] = Field(default_factory=dict, description="encoder of each role, by path or hub name")
    verifiers: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="parameters of verifiers, by the verifier's name"
    )
    skip: int = Field(0, ge=0, description="rows left out at the start of `path`")
    limit: int | None = Field(None, gt=0, description="rows taken at most")
    licence: str | None = Field(None, description="licence of rows that name none; default the folder's README.md")

    @model_validator(mode="after")
    def _one_of(self) -> "Source":
        if (self.path is None) == (self.synthesize is None):
            raise ValueError("give either `path` or `synthesize`")
        for name in ("params", "seeds", "models", "encoders", "verifiers"):
            if getattr(self, name) and self.synthesize is None:
                raise ValueError(f"`{name}` belongs to `synthesize`")
        if self.synthesize is not None and (self.skip or self.limit):
            raise ValueError("`skip` and `limit` belong to `path`; a synthesizer has its own number of rows")
        return self


class MethodEntry(Named):
    """A selection method, its parameters beside its name."""

    label: str | None = Field(None, description="what results call it; default its name with its parameters")


class Representation(_Part):
    """What turns a row into a vector: hidden states of a language model (RDS+ pooling), or an encoder."""

    model: str | None = Field(None, description="path or hub name of a language model; winnow-tiny is shipped")
    encoder: str | None = Field(None, description="path or hub name of a sentence-transformers encoder")
    max_length: int = Field(2048, gt=0, description="tokens of a row that the model sees")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the forward pass; bfloat16 is twice as fast where the hardware has it"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")

    @model_validator(mode="after")
    def _one_of(self) -> "Representation":
        if self.model is not None and self.encoder is not None:
            raise ValueError("give either `model` or `encoder`, not both")
        return self


def _off(value: Any) -> Any:
    return "off" if value is False else value  # how YAML reads the word


class Clean(Named):
    """A cleaning filter, its parameters beside its name, and what happens to the rows it finds."""

    action: Annotated[Literal["drop", "flag", "off"] | None, BeforeValidator(_off)] = None


Filter = Annotated[Clean, BeforeValidator(_named)]


class Stage(_Part):
    """A further stage of training, from the weights of the stage before, on rows of its own."""

    trainer: str = Field("sft", description="name of the trainer; `dpo` learns from preference pairs")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the trainer")
    rows: list[Source] = Field(min_length=1, description="rows or, for `dpo`, pairs that it trains on")
    replay: float = Field(0, ge=0, le=1, description="share of the selection's rows that it trains on once more")


class Train(_Part):
    """How a model is tuned on each selection, and what is done with the results."""

    base: str = Field("winnow-tiny", description="path or hub name of the base model")
    prune: float | None = Field(None, gt=0, lt=1, description="share of its weights set to zero before all else")
    trainer: str = Field("sft", description="name of the trainer")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the trainer")
    then: list[Stage] = Field(default_factory=list, description="further stages, each from the weights of the last")
    merge: Entry | None = Field(None, description="way in which the seeds' checkpoints become one more arm")
    scale: Scale | None = Field(None, description="workers that share each training run")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")


class Pilots(_Part):
    """The small runs that advice is drawn from: every size × mixture × seed is one."""

    sizes: list[Annotated[int, Field(gt=0)]] = Field(min_length=1, description="rows of a run, repeats counted")
    mixtures: int = Field(8, gt=0, description="mixtures at every size: each source alone, even, natural, then random")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: [0], min_length=1, description="one run each: of the rows drawn and of training"
    )

    @model_validator(mode="after")
    def _once(self) -> "Pilots":
        for name in ("sizes", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"`{name}` names a value twice: {values}")
        return self


class Advise(_Part):
    """What `winnow advise` is asked: which advisor, for how many rows, from which pilot runs, of which sources."""

    advisor: str = Field(description="name of the advisor")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the advisor")
    budget: int | None = Field(None, gt=0, description="rows to train on, repeats counted, that advice is wanted for")
    pilots: Pilots | None = Field(None, description="the runs trained to find out")
    sources: list[str] = Field(default_factory=list, description="source labels to weigh; default all of the pool")

    @model_validator(mode="after")
    def _several(self) -> "Advise":
        if self.sources and (len(self.sources) < 2 or len(set(self.sources)) != len(self.sources)):
            raise ValueError(f"`sources` must name at least two, each once: {self.sources}")
        return self


class Scorers(_Part):
    """What `winnow scorers` makes the scorers of DEITA of: seeds, models that evolve and grade them, training."""

    seeds: list[Source] = Field(default_factory=list, description="rows to evolve and grade; default `pool`")
    count: int = Field(2000, ge=4, description="seeds that are drawn; one in ten is kept out of training")
    steps: int = Field(5, ge=1, le=20, description="times that a seed is evolved")
    generator: str = Field(description="path or hub name of the model that evolves")
    judge: str = Field(description="path or hub name of the model that grades")
    template: Literal["own", "tulu"] = Field("own", description="chat format that both are asked in")
    max_length: int = Field(8192, gt=0, description="tokens of a prompt and its reply that both may see")
    base: str = Field(description="path or hub name of the model that is tuned to be a scorer")
    trainer: str = Field("deita_scorer", description="name of the trainer")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of the trainer")
    trust_remote_code: bool = Field(False, description="run code that comes with these models")


class Task(Named):
    """An evaluation task, its parameters beside its name: over the recipe's `test`, or over rows of its own."""

    label: str | None = Field(None, pattern=LABEL, description="what results call it; default its name")
    rows: list[Source] = Field(default_factory=list, description="its own test rows; default those of `test`")
    shots_from: list[Source] = Field(default_factory=list, description="rows that worked examples are taken from")
    models: dict[str, Entry] = Field(
        default_factory=dict, description="model of each role beside the tuned one, such as `judge`"
    )

    @property
    def title(self) -> str:
        return self.label or self.name

    @property
    def brings_rows(self) -> bool:
        """Whether it is asked for by name of a library that has the rows."""
        return self.name == "suite" and "ask" not in self.params


TaskEntry = Annotated[Task, BeforeValidator(_named)]


class Examined(_Part):
    """A model that `winnow evaluate` examines."""

    name: str = Field(description="path, hub name, or `checkpoint:` and the beginning of a checkpoint's key")
    label: str | None = Field(None, description="what results call it; default its name")
    template: str = Field("own", description="chat format it is asked in: its own, or tulu, grape, raw")
    max_length: int = Field(2048, gt=0, description="tokens of a prompt and its reply that it may see")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="precision of its forward pass")
    revision: str = Field("main", description="revision of a hub model")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")

    @property
    def title(self) -> str:
        return self.label or self.name


ExaminedEntry = Annotated[Examined, BeforeValidator(_named)]


class Spend(_Part):
    """What one run may spend at endpoints, over all of them; what is over it is asked for by a later run."""

    usd: Decimal | None = Field(None, ge=0, description="US dollars, by the endpoints' prices")
    tokens: int | None = Field(None, ge=0, description="tokens of prompts and replies")
    requests: int | None = Field(None, ge=0, description="requests sent, failed ones included")
    seconds: float | None = Field(None, ge=0, description="seconds from the first request")


COPIES = ("exact_duplicate", "near_duplicate")  # filters that rows made from seeds or by models pass, unless turned off
LEAKS = ("contamination",)


class Recipe(_Part):
    """A run: pool, target, methods, budgets and seeds; with `train` and `tasks` it becomes a race."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="lower-case letters, digits and hyphens")
    data: str = Field(".", description="folder that relative paths of sources start at; relative to the recipe file")
    pool: list[Source] = Field(default_factory=list, description="the candidates; only `evaluate` does without")
    target: list[Source] = Field(default_factory=list, description="examples of what should get better")
    test: list[Source] = Field(default_factory=list, description="rows that evaluate; never shown to a method")
    clean: list[Filter] = Field(
        default_factory=lambda: [Clean(name="duplicate_id")],
        description="filters in their order: a name, or a name with parameters and `action` (drop, flag, off)",
    )
    deny_licences: list[str] = Field(
        default_factory=list, description="licences, or patterns like cc-by-nc*, whose rows may not be chosen"
    )
    representation: Representation = Field(
        default_factory=lambda: Representation(model="winnow-tiny"), description="what turns a row into a vector"
    )
    methods: list[Annotated[MethodEntry, BeforeValidator(_named)]] = Field(
        default_factory=list, description="selection methods: a name, or a name with parameters and `label` beside it"
    )
    budgets: list[Annotated[int, Field(gt=0)]] = Field(default_factory=list, description="rows (or tokens) to choose")
    budget_unit: Literal["rows", "tokens"] = Field("rows", description="what `budgets`, `caps` and `floors` count")
    caps: dict[str, float] = Field(
        default_factory=dict,
        description='the most a source may give: an amount, or a share below 1; "*" is every other',
    )
    floors: dict[str, float] = Field(default_factory=dict, description="the least a source must give, likewise")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: [0], min_length=1, description="one arm each"
    )
    train: Train | None = Field(None, description="how a model is tuned on each selection")
    tasks: list[TaskEntry] = Field(
        default_factory=list, description="evaluation tasks: a name, a name with parameters, or `file`: a task file"
    )
    models: list[ExaminedEntry] = Field(
        default_factory=list, description="models that `winnow evaluate` examines; others are compared with the first"
    )
    advise: Advise | None = Field(None, description="what `winnow advise` is asked")
    scorers: Scorers | None = Field(None, description="what `winnow scorers` makes scorers of")
    endpoints: dict[str, EndpointSpec] = Field(
        default_factory=dict, description="language models behind OpenAI-compatible servers, by name"
    )
    spend: Spend = Field(default_factory=Spend, description="limits on what a run spends at endpoints")
    seed: int = Field(0, ge=0, description="seed of everything that is not an arm's own")

    @property
    def filters(self) -> list[Clean]:
        """The cleaning filters: what `deny_licences` forbids, those named, and what made rows must pass in any case."""
        denied = [Clean.model_validate({"name": "licence", "deny": self.deny_licences})] if self.deny_licences else []
        named = {each.name for each in self.clean}
        made = any(source.models or source.seeds for source in self.pool)
        checks = (*COPIES, *(LEAKS if self.target or self.test else ())) if made else ()
        return denied + self.clean + [Clean(name=name) for name in checks if name not in named]

    @field_validator("endpoints", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: {"name": name, **one} if isinstance(one, dict) else one for name, one in given.items()}

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        if self.train is not None and not self.tasks:
            raise ValueError("`train` needs `test` and `tasks`: a model that is not evaluated proves nothing")
        if homeless := [each.title for each in self.tasks if not (each.rows or self.test or each.brings_rows)]:
            raise ValueError(f"`train` needs `test` and `tasks`: {', '.join(homeless)} has no rows of its own")
        titles = [task.title for task in self.tasks]
        if "overall" in titles:
            raise ValueError("no task may be called overall: the mean over tasks is")
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"several tasks are called {', '.join(twice)}: give each a `label`")
        if self.tasks and self.train is None and not self.models:
            raise ValueError("`tasks` needs `train`, or `models` that are examined as they are")
        for name in ("budgets", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"`{name}` names a value twice: {values}")
        labels = [each.label for each in self.methods if each.label is not None]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"several methods are called {', '.join(twice)}: give each a `label` of its own")
        if not self.pool and not self.models:
            raise ValueError("`pool` is missing: give the sources of the candidates")
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `overrides` applied and `data` made absolute.

    Raises `InputError` naming file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"{path}: no such recipe{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected a mapping with the keys {', '.join(Recipe.model_fields)}")
    tree.setdefault("data", ".")
    tree["data"] = str((path.parent / str(tree["data"])).resolve())
    _read_task_files(tree, path.parent)
    for override in overrides:
        apply(override, tree)
        _read_task_files(tree, path.parent)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error, path, node, overrides)) from error


def _read_task_files(tree: dict[str, Any], folder: Path) -> None:
    if isinstance(tree.get("tasks"), list):
        tree["tasks"] = [_from_file(each, folder) for each in tree["tasks"]]


def _from_file(entry: Any, folder: Path) -> Any:
    """An entry of `tasks` that names a task file with what the file says; what stands beside `file` goes before."""
    if not isinstance(entry, dict) or "file" not in entry:
        return entry
    from eval.files import load_task

    own = {name: value for name, value in entry.items() if name != "file"}
    if "name" in own:
        raise InputError(f"tasks: give either `name` or `file`, found both ({own['name']}, {entry['file']})")
    return load_task(folder / str(entry["file"])).entry | own


def parse(tree: Mapping[str, Any]) -> Recipe:
    """A recipe from a mapping that was checked before (a deployment's parameters)."""
    return Recipe.model_validate(tree)


def dump(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _explain(error: ValidationError, path: Path, node: yaml.Node | None, overrides: Sequence[str]) -> str:
    lines = []
    for problem in error.errors():
        loc = [part for part in problem["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
        key = ".".join(str(part) for part in loc) or "recipe"
        where = f"line {_line(node, loc)}"
        given = [f"{override.split('=')[0]}." for override in overrides]
        if any(f"{key}.".startswith(each) or each.startswith(f"{key}.") for each in given):
            where = "override"
        elif not loc and overrides:
            where = "with its overrides"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key{_known_keys(loc)}"
        found = (
            "" if problem["type"] in ("extra_forbidden", "missing", "value_error") else f" (found {problem['input']!r})"
        )
        lines.append(f"{path}, {where}, {key}: {message}{found}")
    return "\n".join(lines)


def _line(node: yaml.Node | None, loc: Sequence[Any]) -> int:
    """The line of the deepest part of `loc` that the file has."""
    line = 1
    for part in loc:
        children = node.value if isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) else []
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in children if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(children):
            node = children[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


_PARTS: dict[str, type[BaseModel]] = {
    "pool": Source, "target": Source, "test": Source, "representation": Representation, "train": Train,
    "advise": Advise, "pilots": Pilots, "scorers": Scorers, "seeds": Source,
    "endpoints": EndpointSpec, "spend": Spend, "rows": Source, "shots_from": Source,
    "then": Stage, "scale": Scale, "models": Examined,
}  # fmt: skip


def _known_keys(loc: Sequence[Any]) -> str:
    part = next((_PARTS[str(key)] for key in reversed(loc[:-1]) if str(key) in _PARTS), Recipe)
    known = list(part.model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(known)})"
