"""The same work by the libraries people use for it: `datasets` for import and facts, `datasketch` for near-duplicates.

python -m benchmarks.warehouse_peers datasets|datasketch FOLDER SCRATCH: one JSON object with seconds and peak bytes.
"""

import hashlib
import json
import re
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.warehouse_stages import Peak

WORD = re.compile(r"\w+|[^\w\s]")
CODE, MATH = (
    re.compile(r"```|^\s*(?:def|class|import|return)\b", re.M),
    re.compile(r"\\frac|\$[^$]+\$|\d\s*[-+*/]\s*\d+\s*="),
)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def described(row: dict[str, Any]) -> dict[str, Any]:
    """The columns that the import makes, the plain way."""
    turns = [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
    canonical = json.dumps([[turn["role"], turn["content"].strip()] for turn in turns], separators=(",", ":"))
    text = "\n".join(turn["content"] for turn in turns)
    return {
        "messages": turns,
        "sample_id": hashlib.sha256(canonical.encode()).hexdigest()[:32],
        "prompt_id": hashlib.sha256(" ".join(row["instruction"].casefold().split()).encode()).hexdigest()[:32],
        "turns": len(turns),
        "chars": sum(len(turn["content"]) for turn in turns),
        "language": _identifier().classify(text[:600])[0],
        "has_code": CODE.search(text) is not None,
        "has_math": MATH.search(text) is not None,
    }


def with_datasets(folder: Path, scratch: Path) -> None:
    from datasets import load_dataset

    files = [str(path) for path in sorted(folder.glob("*.jsonl"))]
    rows = load_dataset("json", data_files=files, split="train", cache_dir=str(scratch))
    done = rows.map(described, num_proc=2, remove_columns=rows.column_names)
    done.save_to_disk(str(scratch / "done"))


def with_datasketch(folder: Path, scratch: Path) -> None:
    """Rows in order; each is dropped where the index already holds one like it."""
    from datasketch import MinHash, MinHashLSH

    from warehouse.minhash import bands

    layout = bands(0.8)
    index = MinHashLSH(num_perm=layout.permutations, params=(layout.bands, layout.rows))
    kept: dict[str, set[bytes]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as lines:
            for number, line in enumerate(lines):
                row = json.loads(line)
                words = WORD.findall(f"{row['instruction']} {row['output']}".lower())
                grams = {" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)}
                made = MinHash(num_perm=layout.permutations)
                made.update_batch(list(grams))
                if not any(len(grams & kept[key]) / len(grams | kept[key]) >= 0.8 for key in index.query(made)):
                    index.insert(f"{path.name}:{number}", made)
                    kept[f"{path.name}:{number}"] = grams


if __name__ == "__main__":
    peer, folder, scratch = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    started = time.perf_counter()
    with Peak() as peak:
        {"datasets": with_datasets, "datasketch": with_datasketch}[peer](folder, scratch)
    print(json.dumps({"seconds": time.perf_counter() - started, "bytes": peak.bytes}), flush=True)
