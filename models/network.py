"""Loading a causal language model: files, device, number format, adapter. Safetensors only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from models.fingerprint import check_adapter, fetch, read_json
from warehouse.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network in evaluation mode, its Hugging Face tokenizer, and the folder both came from."""

    network: Any
    tokenizer: Any
    folder: Path


def load_network(
    name: str, *, dtype: str, device: str, adapter: Path | None, trust_remote_code: bool, revision: str
) -> Loaded:
    """Read the model `name`, with the adapter merged into it.

    Raises `InputError` for a missing or unsafe model, an architecture that is not known here, a tokenizer that cannot
    say which characters a token covers, and an adapter that belongs to another base model.
    """
    place = choose_device(device)
    number = choose_dtype(dtype, place)
    folder = fetch(name, revision, trust_remote_code)
    if adapter is not None:
        check_adapter(adapter, name)
    _check_architecture(folder, trust_remote_code)
    # adapters are merged in float32, where merging is exact to rounding, and cast afterwards
    network = _read(folder, torch.float32 if adapter else number, trust_remote_code)
    if adapter is not None:
        network = _merge(network, adapter)
    tokenizer = _read_tokenizer(folder, trust_remote_code)
    return Loaded(network.to(device=place, dtype=number).eval(), tokenizer, folder)


def choose_device(device: str) -> torch.device:
    """With "auto": CUDA, else Apple's MPS, else the processor."""
    if device != "auto":
        return _named_device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _named_device(device: str) -> torch.device:
    known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        known.insert(1, "cuda")
    if torch.backends.mps.is_available():
        known.append("mps")
    if device not in known:
        raise InputError(f"device {device!r} is not on this machine; here: auto, {', '.join(known)}")
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """With "auto": bfloat16 where the hardware multiplies it (`docs/models.md` has the measurements), else float32."""
    if dtype == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; known: auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def _check_architecture(folder: Path, trust_remote_code: bool) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind in KNOWN or ("auto_map" in config and trust_remote_code):
        return
    advice = (
        "it brings its own Python code, which runs only with trust_remote_code: true in the recipe"
        if "auto_map" in config
        else "the installed transformers knows no causal language model of this type; upgrade it or choose another"
    )
    raise InputError(f"{folder} is a model of type {kind!r}: {advice}")


def _read(folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM

    family: Any = AutoModelForCausalLM
    try:
        with _no_progress_bars():
            network, found = family.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be loaded as a causal language model: {error}") from error
    # transformers draws what it does not find at random and only warns
    if absent := sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}):
        raise InputError(
            f"{folder} lacks {len(absent)} weights of a {network.config.model_type!r} language model "
            f"({', '.join(absent[:3])}); the file is of another model, or not complete"
        )
    return network


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Reading weights draws a bar on stderr, through whatever progress the caller shows."""
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _read_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    if not tokenizer.is_fast:
        raise InputError(
            f"{folder} has a tokenizer without a fast version, so reply tokens cannot be found; convert it to "
            "tokenizer.json"
        )
    return tokenizer


def _merge(network: Any, adapter: Path) -> Any:
    from peft import PeftModel  # 4 to 6 seconds, so only where there is an adapter

    try:
        adapted = PeftModel.from_pretrained(network, str(adapter), is_trainable=False)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the adapter {adapter} does not fit its base model: {error}") from error
    if not hasattr(adapted, "merge_and_unload"):
        raise InputError(f"the adapter {adapter} cannot be merged (prompt tuning); export merged weights instead")
    return adapted.merge_and_unload()
