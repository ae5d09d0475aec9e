"""What the synthesizers do with a real model: winnow-tiny, through the flows, on questions whose answers are known.

    OMP_NUM_THREADS=1 python -m benchmarks.synthesis_study --home FOLDER [--parts dart s3ft ...] [--seeds 4]

Prints one Markdown table per part, with its seconds on standard error. Nothing is stubbed: models are tuned by the
project's trainer, replies are drawn from them and kept in the response store of FOLDER, verifiers read them. The same
command again takes everything from FOLDER. docs/synthesis/measured.md holds what it printed once.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.synthesis_fit import preferred
from benchmarks.synthesis_gain import gains
from benchmarks.synthesis_here import Home
from benchmarks.synthesis_own_words import by_difficulty, whose_words
from benchmarks.synthesis_unsure import who_knows

SEEDS = 4
PARTS: Mapping[str, Callable[[Home], str]] = {
    "dart": by_difficulty,
    "s3ft": whose_words,
    "r_tuning": who_knows,
    "grape": preferred,
}
GAIN = "gain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="an empty folder, or one of an earlier run")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, GAIN], default=[*PARTS, GAIN])
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"seeds of the part {GAIN!r}")
    given = parser.parse_args()
    home = Home(given.home.resolve())
    for name in given.parts:
        start = time.perf_counter()
        told = PARTS[name](home) if name in PARTS else gains(home, range(given.seeds))
        print(f"## {name}\n\n{told}\n", flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
