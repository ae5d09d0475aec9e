"""The near-duplicates of a pool, going on from those of the pool that it grew out of.

Whether a row stays hangs on the rows before it alone. So the answer for all shards but the last, the one that grows, is
an artifact of its own, known by these shards and by which of their rows were looked at, and the next version of the
pool decides only the rows after them. The answer is the same as from the start.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flows.run import Counts, produce
from flows.sieve import Sieve
from warehouse.store import Artifact, Draft, Work

if TYPE_CHECKING:
    from warehouse.near_duplicates import NearDuplicates

RESEMBLE_VERSION = 1


def near_duplicates(
    sieve: Sieve, prints: Sequence[Artifact], alive: NDArray[np.bool_], threshold: float
) -> "NearDuplicates":
    """The near-duplicates among the `alive` (n,) rows; `prints` are the fingerprints of each file of the pool."""
    from warehouse.near_duplicates import near_duplicates

    ends = [file.first + file.n for file in sieve.reader.files]
    works = _works(prints, ends, alive, threshold)
    known = _known(sieve, works)
    folders = [folder for made in prints for folder in sorted(made.folder.glob("group-*"))]
    answer = near_duplicates(folders, alive, threshold, earlier=known)
    if works and (known is None or known.n < ends[-2]):
        _keep(sieve, works[-1], answer.first(ends[-2]))
    return answer


def _works(prints: Sequence[Artifact], ends: Sequence[int], alive: NDArray[np.bool_], threshold: float) -> list[Work]:
    """What names the answers for the first file, the first two and so on, without that for all."""
    works: list[Work] = []
    for made, first, end in zip(prints[:-1], [0, *ends], ends, strict=False):
        looked_at = blake2b(np.packbits(alive[first:end]).tobytes(), digest_size=8).hexdigest()
        params = {"threshold": threshold, "alive": looked_at, "before": works[-1].key if works else None}
        works.append(Work("resemble", RESEMBLE_VERSION, params, {"fingerprint": made.key}))
    return works


def _known(sieve: Sieve, works: Sequence[Work]) -> "NearDuplicates | None":
    """The answer for the most files for which there is one."""
    from warehouse.near_duplicates import NearDuplicates

    store = sieve.run.store
    for work in reversed(works):
        if store.folder(work.stage, work.key).is_dir() and (found := store.find(work)) is not None:
            return NearDuplicates.load(found.folder)
    return None


def _keep(sieve: Sieve, work: Work, answer: "NearDuplicates") -> None:
    def make(draft: Draft) -> Counts:
        answer.save(draft.folder)
        return Counts(answer.n, answer.n - len(answer.rows), {"near_duplicate": len(answer.rows)})

    produce(sieve.run.store, work, make)
