"""How spread out representations are, without labels: a diagnostic, not a score that a selection is judged by."""

import numpy as np

from warehouse.records import Floats


def matrix_nuclear_norm(states: Floats) -> float:
    """Approximate nuclear norm per row of `states` (l, d): hidden states or logits of the l tokens of one text.

    Column means are subtracted, rows divided by their L2 norm (a row of zeros stays), and the min(l, d) largest L2
    norms of columns are added up and divided by l (Li et al. 2024, "Large Language Model Evaluation via Matrix
    Nuclear-Norm"). In [0, 1]; lower is more compact. Column norms stand in for singular values, so it is only near
    the true nuclear norm where columns are nearly orthogonal. Raises `ValueError` for what is no matrix.
    """
    x = np.asarray(states, np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"states must be a matrix of tokens and dimensions; found shape {x.shape}")
    centred = x - x.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    rows = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    columns = np.sort(np.linalg.norm(rows, axis=0))[::-1]
    return float(columns[: min(x.shape)].sum() / len(x))
