"""Likelihoods of replies as row signals: given the prompt, and without it.

A signal here is (n, 3) float32: mean negative log-likelihood of a row's reply tokens (nats per token; lower is
easier), how many reply tokens, and 1 where the row was cut, else 0. The mean is NaN where there is no reply token.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.chat import Tokens
from models.local import LocalModel
from models.protocol import Measures, Want
from warehouse.records import Messages

Likelihoods = NDArray[np.float32]
LOGPROBS = frozenset({Want.RESPONSE_LOGPROBS})


def response_values(measures: Measures) -> Likelihoods:
    """Likelihoods of replies given what comes before them, from `RESPONSE_LOGPROBS`."""
    if measures.response_logprobs is None:
        raise ValueError("the measures hold no RESPONSE_LOGPROBS")
    return _values(measures.response_logprobs, measures.truncated)


def score_responses(model: LocalModel, rows: Sequence[Messages]) -> Likelihoods:
    """`response_values` of rows; those that share a prompt are scored after one pass over it (`models.prefix`)."""
    return response_values(model.measure(rows, LOGPROBS))


def response_alone(model: LocalModel, rows: Sequence[Messages]) -> Likelihoods:
    """Likelihoods of the same reply tokens without the prompt, as IFD divides by (Li et al. 2024, §2.2).

    A row is reduced to a begin token and its reply tokens, by their ids; the replies of several turns follow each
    other. Where the tokenizer names no begin token the end token begins, as it parts documents in training.
    """
    begin = begin_token(model)
    return response_values(model.read([_alone(t, begin) for t in model.encode(rows)], LOGPROBS))


def begin_token(model: LocalModel) -> int:
    """The id that comes before a text: the format's begin token, else the tokenizer's, else its end token."""
    for text in (model.chat.bos, model.tokenizer.bos_token):
        if text and (known := model.backend.token_to_id(text)) is not None:
            return int(known)
    return int(model.tokenizer.eos_token_id)


def _alone(tokens: Tokens, begin: int) -> Tokens:
    replies = tokens.ids[tokens.reply]
    ids = np.concatenate([np.array([begin], np.int32), replies])
    return Tokens(ids, np.arange(len(ids)) > 0, tokens.truncated)


def _values(replies: Sequence[NDArray[np.float32]], truncated: Sequence[bool] | NDArray[np.bool_]) -> Likelihoods:
    means = [-reply.mean(dtype=np.float64) if len(reply) else np.nan for reply in replies]
    return np.column_stack([means, [len(reply) for reply in replies], truncated]).astype(np.float32).reshape(-1, 3)
