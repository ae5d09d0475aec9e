"""From a run to `report.html`."""

import hashlib
from base64 import b64encode
from pathlib import Path

from flows.report import advice_figures, figures, panels, synthesis_figures
from flows.report.facts import Facts, collect
from flows.report.pages import own, render
from warehouse.store import write_atomically

NAME = "report.html"


def write_report(home: Path, run_id: str | None = None) -> Path:
    """Write `<home>/runs/<run>/report.html` from the warehouse, in one step, and return its path.

    `run_id` is an id or its unique beginning; without it the last run that ended "done" is reported. The file is
    complete in itself: no network, no other file. Raises `InputError`, listing the last runs, where there is none such.
    """
    facts = collect(home, run_id)
    path = home / "runs" / facts.head.run / NAME
    write_atomically(path, page(facts).encode())
    return path


def page(facts: Facts) -> str:
    """The whole page. Its policy allows our own style sheet and script, by their hashes, and nothing else."""
    style, script = own("style.css"), own("page.js")
    return render(
        "page.html.j2",
        facts=facts,
        figures=figures,
        panels=panels,
        advice_figures=advice_figures,
        made_figures=synthesis_figures,
        hues=figures.hues_of(facts),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}",
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
