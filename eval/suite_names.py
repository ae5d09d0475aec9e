"""Whether lm-eval has a task, from the text of its files: neither lm-eval nor torch is loaded, no network asked.

lm-eval's own index reads 14,000 files as YAML, which takes 15 seconds. Here a name that stands as a word in some file
is let pass; what it names is found out when the task is run.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from warehouse.errors import InputError

NAMED = re.compile(r"""(?m)^(?:task|group|tag)[ \t]*:[ \t]*["']?([^\s"'#\[\]]+)""")
NEAR = 5


def tasks_folder() -> Path:
    """Where lm-eval, which is installed, keeps its tasks."""
    found = find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "tasks"


def check_names(names: Sequence[str], folder: Path) -> None:
    """Raise `InputError` for a name that no file of lm-eval's tasks in `folder` has, with those nearest to it.

    A task that lies in a folder its name begins with is found at once; others take a second or two.
    """
    left = [name for name in names if not _stands(name, _texts(own_folder(name, folder)))]
    if not left:
        return
    whole = "\n".join(_texts(folder))
    for name in left:
        if not _stands(name, [whole]):
            near = difflib.get_close_matches(name, sorted(set(NAMED.findall(whole))), NEAR)
            raise InputError(f"lm-eval has no task {name!r}; names like it: {', '.join(near) or 'none'}")


def own_folder(name: str, folder: Path) -> Path | None:
    """The folder in `folder` whose name `name` begins with, the longest of several: where its task is likely to lie."""
    known = [path for path in folder.iterdir() if path.is_dir() and name.startswith(path.name)]
    return max(known, key=lambda path: len(path.name), default=None)


def _texts(folder: Path | None) -> Iterator[str]:
    """The files that describe tasks; what they include need not end in .yaml."""
    for place, _, files in os.walk(folder) if folder else ():
        for file in files:
            if "yaml" in file:
                yield Path(place, file).read_text(encoding="utf-8", errors="replace")


def _stands(name: str, texts: Iterator[str] | Sequence[str]) -> bool:
    word = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w:-])")
    return any(word.search(text) for text in texts)
