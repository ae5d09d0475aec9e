"""What a run costs in floating-point operations, from the tokens it really read.

N parameters that take part in matrix products, T tokens: a forward pass is 2NT, the gradient with respect to the inputs
another 2NT, the gradient with respect to the weights another 2NT (Kaplan et al. 2020, §2.1). Ivison et al. 2025, whose
cost axis this is, charge 2048 tokens for every row; here rows are charged what they have. `published_flops` gives their
figures, to hold a reproduction against them.
"""

from collections.abc import Callable, Mapping

from warehouse.errors import InputError

ROW_TOKENS = 2048  # what Ivison et al. 2025 charge for a row, and how often they train on it
EPOCHS = 2
ENCODER = 110_000_000  # parameters of GTR-base
IFD_PILOT = 1000  # rows that the model which measures IFD is first trained on
IFD_EMBEDDED = 200_000  # rows that these are chosen from


def forward_flops(parameters: int, tokens: int) -> int:
    """Operations of one forward pass over `tokens`: 2NT."""
    return 2 * parameters * tokens


def train_flops(trainable: int, tokens: int, frozen: int = 0) -> int:
    """Operations of a training pass: 6 per trainable parameter and token, 4 per frozen one (it needs no gradient)."""
    return (6 * trainable + 4 * frozen) * tokens


def hugging_face_flops(parameters: int, embedding: int, tokens: int) -> int:
    """`total_flos` of a Hugging Face trainer: 6 per processed token and parameter outside the embedding.

    `tokens` count padding and `parameters` the adapters. Where weights are frozen it is too much: see `train_flops`.
    """
    return 6 * tokens * (parameters - embedding)


def published_flops(method: str, parameters: int, chosen: int, pool: int) -> int:
    """What Ivison et al. 2025 charge a method that chooses `chosen` of `pool` rows, training included.

    Raises `InputError` for a method that they do not charge, listing those they do.
    """
    if method not in PUBLISHED:
        raise InputError(f"no published cost of method {method!r}; known methods: {', '.join(PUBLISHED)}")
    return PUBLISHED[method](parameters, chosen * ROW_TOKENS, pool * ROW_TOKENS)


def _random(parameters: int, chosen: int, pool: int) -> int:
    """Costs of `chosen` and `pool` tokens."""
    return train_flops(parameters, chosen * EPOCHS)


def _one_pass(parameters: int, chosen: int, pool: int) -> int:
    return _random(parameters, chosen, pool) + forward_flops(parameters, pool)


def _encoder(parameters: int, chosen: int, pool: int) -> int:
    return _random(parameters, chosen, pool) + forward_flops(ENCODER, pool)


def _gradients(parameters: int, chosen: int, pool: int) -> int:
    """The warm-up costs as much as the training itself; three checkpoints' gradients of the whole pool."""
    return 2 * _random(parameters, chosen, pool) + 3 * train_flops(parameters, pool)


def _ifd(parameters: int, chosen: int, pool: int) -> int:
    """One forward pass over the rows the pilot is chosen from, training the pilot, one pass over the pool."""
    pilot = forward_flops(parameters, IFD_EMBEDDED * ROW_TOKENS) + train_flops(parameters, IFD_PILOT * ROW_TOKENS)
    return pilot + _one_pass(parameters, chosen, pool)


PUBLISHED: Mapping[str, Callable[[int, int, int], int]] = {
    "random": _random,
    "rds_plus": _one_pass,
    "perplexity": _one_pass,
    "embed_nv": _one_pass,
    "embed_gtr": _encoder,
    "less": _gradients,
    "ifd": _ifd,
}
