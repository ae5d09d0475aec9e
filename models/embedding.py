"""Forward passes of a sentence encoder: batches of like length under a token budget, in the number format asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from models.forward import batches
from models.network import choose_device, choose_dtype

BATCH_TOKENS = {"cpu": 4096, "mps": 16384, "cuda": 65536}


def load(folder: Path, device: str, dtype: str, trust_remote_code: bool) -> Any:
    """The `SentenceTransformer` in `folder`, its first module, the transformer, in `dtype`, the others in float32."""
    from sentence_transformers import SentenceTransformer

    place = choose_device(device)
    number = choose_dtype(dtype, place)
    network = SentenceTransformer(
        str(folder),
        device=str(place),
        trust_remote_code=trust_remote_code,
        local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )
    network[0].to(number)
    return network.eval()


def embed(network: Any, texts: list[str], prompt: str, budget: int | None) -> NDArray[np.float32]:
    """Vectors (n, d) float32 of unit length; a forward pass holds at most `budget` tokens, padding included."""
    from sentence_transformers.models import Transformer

    features = network.preprocess(texts, prompt=prompt or None)
    mask = features.get("attention_mask")
    if not isinstance(network[0], Transformer) or mask is None or mask.shape != features["input_ids"].shape:
        return _whole(network, texts, prompt)
    vectors = np.zeros((len(texts), network.get_embedding_dimension()), np.float32)
    most = budget or BATCH_TOKENS.get(network.device.type, BATCH_TOKENS["cuda"])
    for rows in batches(mask.sum(1).tolist(), most):
        vectors[rows] = _forward(network, _taken(features, mask, rows)).cpu().numpy()
    return vectors


def _whole(network: Any, texts: list[str], prompt: str) -> NDArray[np.float32]:
    """The library's own way, for encoders whose features are not a padded batch of tokens."""
    vectors = network.encode(texts, prompt=prompt or None, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, np.float32)


def _taken(features: dict[str, Any], mask: torch.Tensor, rows: list[int]) -> dict[str, Any]:
    """The features of some rows, without the columns that are padding to all of them."""
    columns = mask[rows].any(0)
    columns[0] |= not columns.any()  # a text may have no token at all
    return {
        name: value[rows][:, columns] if getattr(value, "shape", None) == mask.shape else value
        for name, value in features.items()
    }


def _forward(network: Any, features: dict[str, Any]) -> torch.Tensor:
    with torch.inference_mode():
        moved = {name: v.to(network.device) if isinstance(v, torch.Tensor) else v for name, v in features.items()}
        states = network[0](moved)
        # a mean taken in bfloat16 costs more than the transformer in bfloat16: cosines of 0.996, not 0.9999
        states["token_embeddings"] = states["token_embeddings"].float()
        for module in list(network)[1:]:
            states = module(states)
        return normalize(states["sentence_embedding"].float(), dim=1)
