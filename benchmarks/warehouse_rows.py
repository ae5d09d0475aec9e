"""Generated rows for the warehouse's benchmark: English-like text of about 1,200 characters with heavy duplication.

Of every 100 rows 15 repeat an earlier row of their block, and 15 repeat one with one of their 16 sentences replaced.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

SENTENCES, IN_PROMPT, IN_ROW = 50_000, 3, 16
BLOCK, FILE_ROWS = 10_000, 500_000
EXACT, NEAR = 0.15, 0.15


def bank(seed: int = 0) -> list[str]:
    """Sentences of 8 to 16 words of uneven frequency."""
    rng = np.random.default_rng(seed)
    letters, weights = list("etaoinshrdlucmfwypvbgk"), np.arange(24, 2, -1, dtype=float)
    words = np.array(
        ["".join(rng.choice(letters, rng.integers(1, 10), p=weights / weights.sum())) for _ in range(20_000)]
    )
    frequency = 1 / np.arange(1, len(words) + 1) ** 0.8
    lengths = rng.integers(8, 17, SENTENCES)
    drawn = iter(rng.choice(words, int(lengths.sum()), p=frequency / frequency.sum()).tolist())
    return [" ".join(next(drawn) for _ in range(length)).capitalize() + "." for length in lengths.tolist()]


def picks(block: int) -> np.ndarray:
    """(BLOCK, IN_ROW) sentences of the rows of one block."""
    rng = np.random.default_rng([1, block])
    rows = rng.integers(0, SENTENCES, (BLOCK, IN_ROW))
    kind, earlier = rng.random(BLOCK), rng.random(BLOCK)
    place, other = rng.integers(0, IN_ROW, BLOCK), rng.integers(0, SENTENCES, BLOCK)
    for row in np.flatnonzero(kind < EXACT + NEAR).tolist():
        rows[row] = rows[int(earlier[row] * row)]
        if kind[row] >= EXACT:
            rows[row, place[row]] = other[row]
    return rows


def write_file(path: Path, first: int, stop: int) -> None:
    """Rows `first` to `stop` of the endless pool as JSON lines."""
    sentences = bank()
    with path.open("w") as file:
        for block in range(first // BLOCK, -(-stop // BLOCK)):
            for number, row in enumerate(picks(block).tolist(), block * BLOCK):
                if first <= number < stop:
                    asked = " ".join([sentences[i] for i in row[:IN_PROMPT]])
                    said = " ".join([sentences[i] for i in row[IN_PROMPT:]])
                    file.write(f'{{"instruction": "{asked}", "output": "{said}"}}\n')


def write_pool(folder: Path, n: int) -> None:
    """The first n rows, half a million a file, and `test.jsonl` beside the folder: 1,000 of the first 100,000 rows."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor() as processes:
        files = [(folder / f"part-{first // FILE_ROWS:03}.jsonl", first, min(first + FILE_ROWS, n))
                 for first in range(0, n, FILE_ROWS)]  # fmt: skip
        list(processes.map(write_file, *zip(*files, strict=True)))
    with (folder / "part-000.jsonl").open() as rows, (folder.parent / "test.jsonl").open("w") as test:
        for number, line in zip(range(min(n, 100_000)), rows, strict=False):
            if number % 100 == 7:
                test.write(json.dumps({"instruction": json.loads(line)["instruction"], "output": "?"}) + "\n")


def grow(folder: Path, n: int, more: int) -> None:
    """Append rows n to n + more to the last file, as a source that grew."""
    last = sorted(folder.glob("part-*.jsonl"))[-1]
    extra = folder.parent / "extra.jsonl"
    write_file(extra, n, n + more)
    with last.open("a") as file:
        file.write(extra.read_text())
    extra.unlink()
