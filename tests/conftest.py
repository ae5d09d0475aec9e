"""Settings every test runs under, and the small random model that rooms share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine and every day, however slow it is. `pytest --hypothesis-profile search` looks for
# new ones, ten times as many.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("same")

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # sums over two threads differ in the last bit, and threads wait long on a busy machine
}

CORPUS = [
    "What is 12 plus 30? The answer is 42.",
    "Reverse the word river. The answer is revir.",
    "Sort the numbers 9, 4 and 7. The answer is 4, 7, 9.",
    "Say whether the claim is true. Yes. No. Write it in capital letters, please.",
    "<|system|>\n<|user|>\n<|assistant|>\n",
]


def build_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Save a random Llama (2 layers, hidden 64, 4 heads, 2 key-value heads, 512 positions) and a byte-level BPE."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|pad|>", "<|end|>"]
    bpe.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=384, initial_alphabet=alphabet, special_tokens=specials)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=specials[0], eos_token=specials[1])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder for tests that need weights but not a trained model; read it, never write to it."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny-model"))
