"""A fabricated home with synthesized rows: two syntheses that asked models, one that asked none, and a cleaned pool."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pool_files import write_pool
from report_home import START, HomeMaker, example, selected, start

from flows.synth.rows import Emitted, Maker, write
from models.dialogue import Accepted, Rejected
from warehouse.pools import PoolReader
from warehouse.records import Example, Message
from warehouse.store import Artifact, Work
from warehouse.tables import ATTEMPTS, DROPS, REPLIES, write_rows

RUN = "20260301T030000-bbbbbbbb"
SAMPLER, JUDGE = "sampler-7b", "judge-70b"
PLACES = ("a market", "a mill", "a harbour", "a school", "an orchard", "a station", "a library", "a bakery")
QUESTIONS, TRIES = 40, 5


@dataclass
class Notebook:
    """What a synthesis heard: replies, and every try to get them."""

    replies: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def ask(
        self,
        key: str,
        model: str | None,
        told: str,
        text: str | None,
        ends: Sequence[str] = ("ok",),
        seconds: float = 1.0,
        usd: float | None = 0.0002,
        failure: str = "",
    ) -> str:
        """One request whose tries ended as `ends` says; the last one gives the reply, where there is one."""
        for number, outcome in enumerate(ends, 1):
            last = number == len(ends)
            tokens = 120 if outcome not in ("throttle", "transient") else 0
            self.attempts.append(
                {
                    "reply": key, "number": number, "model": model, "started": START + timedelta(seconds=number),
                    "seconds": seconds if last else seconds / 8, "status": 200 if tokens else 429, "outcome": outcome,
                    "error": "" if tokens else f"HTTP 429: {told[:20]}", "prompt_tokens": tokens,
                    "completion_tokens": tokens // 2, "cost_usd": usd if tokens else None if usd is None else 0.0,
                }
            )  # fmt: skip
        if text is not None or failure:
            prompt = json.dumps([{"role": "system", "content": "Solve."}, {"role": "user", "content": told}])
            self.replies.append(
                {
                    "reply": key, "model": model, "served_model": model, "prompt": prompt, "params": "{}", "text": text,
                    "finish_reason": "length" if ends[-1] == "length" else "stop", "failure": failure,
                    "prompt_tokens": 120, "completion_tokens": 60, "seconds": seconds, "cost_usd": usd, "made": START,
                }
            )  # fmt: skip
        return key


Made = tuple[Accepted | Rejected, tuple[str, ...]]


def asked(text: str) -> Example:
    return Example((Message("user", text),), "questions")


def question(number: int) -> str:
    place = PLACES[number % len(PLACES)]
    return (
        f"At {place} there are {number + 3} crates with {number % 7 + 2} apples each. How many apples are there in all?"
    )


def right(number: int) -> int:
    return (number + 3) * (number % 7 + 2)


def pool(maker: HomeMaker, name: str, examples: Sequence[Example], synthesized: Sequence[str] = ()) -> Artifact:
    """A pool version, with the keys of the syntheses that it was made from."""
    work = Work("ingest", 2, {"name": name}, {"shards": [], "synthesized": list(synthesized)})
    with maker.store.write(work) as draft:
        funnel = write_pool(examples, draft.folder, pool_key=work.key, name=name)
    return maker.note(f"ingest {name}", work, (funnel.rows_in, funnel.rows_out), funnel.dropped, 0.4, True)


def synthesis(
    maker: HomeMaker,
    name: str,
    made: Sequence[Made],
    notebook: Notebook | None = None,
    models: Mapping[str, str] | None = None,
    seeds: Artifact | None = None,
    params: Mapping[str, Any] | None = None,
) -> Artifact:
    """The artifact of a synthesis and its line in the log."""
    models, params = dict(models or {}), dict(params or {})
    inputs = {"seeds": seeds.key} if seeds else {}
    work = Work("synthesize", 2, {"synthesizer": name, "params": params}, inputs, seed=0)
    emitted = Emitted(io.BytesIO())
    for number, (row, replies) in enumerate(made):
        emitted((0, number), (row,), replies)
    with maker.store.write(work) as draft:
        write(draft.folder, Maker(work.key, name, params, 0, models, {}), emitted)
        if notebook:
            for stem, schema, rows in (
                ("replies", REPLIES, notebook.replies),
                ("attempts", ATTEMPTS, notebook.attempts),
            ):
                write_rows(draft.folder / f"{stem}.parquet", schema, [row | {"generation": work.key} for row in rows])
        draft.facts["models"] = models
    counts = dict(emitted.counts)
    accepted = counts.pop("", 0)
    return maker.note(f"synthesize {name}", work, (accepted + sum(counts.values()), accepted), counts, 61.0, True)


def dart(
    maker: HomeMaker, seeds: Artifact, questions: Sequence[Example], reply: str = "So there are {} apples."
) -> Artifact:
    """Right replies to the questions; the higher a question's number, the more of its tries are wrong."""
    notebook, made = Notebook(), list[Made]()
    for number, seed in enumerate(questions):
        wrong = round(number / len(questions) * TRIES)
        kept = TRIES - wrong
        facts = {"query_id": seed.sample_id, "parents": [seed.sample_id], "trials": TRIES, "kept": kept,
                 "target": max(1, wrong), "difficulty": wrong / TRIES}  # fmt: skip
        for draw in range(TRIES):
            good = draw < kept
            text = reply.format(right(number) if good else right(number) + draw)
            ends = ("throttle", "ok") if (number + draw) % 9 == 0 else ("ok",)
            told = seed.messages[0].content
            key = notebook.ask(
                f"d{number}-{draw}", SAMPLER, told, text, ends, 0.4 * 1.35 ** ((number * 7 + draw * 5) % 13)
            )
            verdict = notebook.ask(f"j{number}-{draw}", JUDGE, f"{told}\n{text}", "yes" if good else "no", seconds=0.3)
            row = Example((*seed.messages, Message("assistant", text)), "dart", facts | {"draw": draw})
            made.append(
                (Accepted(row) if good else Rejected("wrong", f"says {right(number) + draw}", row), (key, verdict))
            )
    made += lost(notebook)
    models = {"generator": SAMPLER, "judge": JUDGE}
    return synthesis(maker, "dart", made, notebook, models, seeds, {"k": TRIES, "verifier": "judge"})


def lost(notebook: Notebook) -> list[Made]:
    """Rows without a reply: the endpoint was gone, the reply was held back, the seed asks nothing."""
    gone = notebook.ask("gone", SAMPLER, "How many?", None, ("transient", "transient", "transient"), 30.0)
    held = notebook.ask("held", SAMPLER, "How many?", None, ("filtered",), 0.2, failure="no text")
    return [
        (Rejected("unreachable", "HTTP 503", asked("How many?")), (gone,)),
        (Rejected("filtered", "", asked("How many are there?")), (held,)),
        (Rejected("no_question", "", None), ()),
    ]


def own_words(maker: HomeMaker, seeds: Artifact, questions: Sequence[Example]) -> Artifact:
    """One row per question in the words of a local model, which has no price, or in the gold ones."""
    notebook, made = Notebook(), list[Made]()
    for number, seed in enumerate(questions):
        source = ("self", "self", "paraphrase", "gold")[number % 4]
        text = f"In all {right(number)} apples ({source})."
        key = notebook.ask(f"s{number}", None, seed.messages[0].content, text, usd=None, seconds=0.05)
        meta = {"parents": [seed.sample_id], "source": source, "attempts": {"self": []}}
        made.append((Accepted(Example((*seed.messages, Message("assistant", text)), "s3ft", meta)), (key,)))
    return synthesis(maker, "s3ft", made, notebook, {"learner": "winnow-tiny"}, seeds, {"verifier": "exact"})


def without_model(maker: HomeMaker, n: int = 30) -> Artifact:
    rows = [example(f"Add {i} and {i + 1}.", str(2 * i + 1), "tint") for i in range(n)]
    return synthesis(maker, "tint", [(Accepted(row), ()) for row in rows], params={"rows": n})


def accepted(made: Artifact) -> list[Example]:
    """The rows of a synthesis as its pool reads them."""
    lines = (json.loads(line) for line in (made.folder / "rows.jsonl").read_text().splitlines())
    return [
        Example(tuple(Message(m["role"], m["content"]) for m in row["messages"]), row["source"], row["meta"])
        for row in lines
    ]


def cleaned(maker: HomeMaker, made: Artifact, drops: Mapping[str, Sequence[int]]) -> Artifact:
    """A cleaning stage whose filters drop the rows named."""
    work = Work("clean", 1, {}, {"pool": made.key, "after": None})
    out = [
        {"cleaning": work.key, "pool": made.key, "row": row, "sample_id": "x", "filter": name, "reason": "found"}
        for name, rows in drops.items()
        for row in rows
    ]
    n, gone = PoolReader(made.folder).n, len({row["row"] for row in out})
    counts = {name: len(rows) for name, rows in drops.items()}
    return maker.stage("clean", work, {"drops": (DROPS, out)}, (n, n - gone), counts, 0.3)


def synthesized(home: Path) -> str:
    """A whole run of `winnow synth run`; its id."""
    text = "name: apples\npool:\n- synthesize: dart\n"
    maker = start(home, RUN)
    maker.log.start(recipe="apples", command="synth", recipe_text=text, version="0.1.0")
    questions = [asked(question(number)) for number in range(QUESTIONS)]
    seeds = pool(
        maker, "apples pool seeds", [Example((*q.messages, Message("assistant", "?")), "seeds") for q in questions]
    )
    made = [dart(maker, seeds, questions), own_words(maker, seeds, questions), without_model(maker)]
    rows = [row for one in made for row in accepted(one)]
    whole = pool(maker, "apples pool", rows, [one.key for one in made])
    cleaned(maker, whole, {"exact_duplicate": [0, 1, 2], "length": [3]})
    selected(maker, whole, None, "random", 0, 40)
    maker.log.end("done", report="report.html")
    return maker.log.run
