"""Names become folders, folders become content hashes, and what is unsafe or missing is refused before any work."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.fingerprint import MINILM, TINY, check_adapter, fetch, fingerprint, resolve, shapes_of
from models.local import LocalModel
from warehouse.errors import InputError

LIGHT = ["protocol", "dialogue", "fingerprint", "chat", "tokens", "canned", "encoder"]


@pytest.fixture
def copy(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "copy"))


def test_the_same_files_elsewhere_have_the_same_fingerprint(copy: Path, tiny_model_dir: Path) -> None:
    assert fingerprint(str(copy)) == fingerprint(str(tiny_model_dir))
    (copy / "README.md").write_text("a model card")
    (copy / "trainer_state.json").write_text("{}")
    assert fingerprint(str(copy)) == fingerprint(str(tiny_model_dir))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_every_file_that_decides_an_answer_counts(copy: Path, name: str) -> None:
    before, content = fingerprint(str(copy)), (copy / name).read_bytes() if (copy / name).exists() else b""
    changed = content[:-1] + bytes([content[-1] ^ 1]) if name.endswith(".safetensors") else content + b" "
    (copy / name).write_bytes(changed)
    assert fingerprint(str(copy)) != before


def test_templates_revisions_and_adapters_count(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    name = str(tiny_model_dir)
    assert len({fingerprint(name), fingerprint(name, "own"), fingerprint(name, adapter=tmp_path)}) == 3
    assert fingerprint("no-such/model") != fingerprint("no-such/model", revision="v2")


def test_the_loaded_model_has_the_fingerprint_that_was_foretold(tiny: LocalModel, tiny_model_dir: Path) -> None:
    assert tiny.fingerprint == fingerprint(str(tiny_model_dir))


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "~/nothing", "a/b/c", "models/none/", "C:\\m", "a b"])
def test_a_path_that_does_not_exist_says_what_to_give(name: str) -> None:
    with pytest.raises(InputError, match=r"no such folder; give 'winnow-tiny', an existing folder"):
        resolve(name)


def test_a_hub_name_that_is_not_here_says_how_to_get_it() -> None:
    assert resolve("no-such-owner/no-such-model").folder is None
    with pytest.raises(InputError, match="not in the local hub cache"):
        fetch("no-such-owner/no-such-model")


def test_a_hub_name_in_the_cache_needs_no_network(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    repository = tmp_path / "models--owner--tiny"
    shutil.copytree(tiny_model_dir, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert resolve("owner/tiny").folder == repository / "snapshots" / commit
    assert fingerprint("owner/tiny") == fingerprint(str(tiny_model_dir))
    weights = repository / "snapshots" / commit / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{weights} is cut short"):
        fetch("owner/tiny")
    weights.unlink()
    assert resolve("owner/tiny").folder is None


def test_code_is_fetched_only_with_trust_and_where_it_is_missing(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models--owner--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(tiny_model_dir, folder)
    (folder / "config.json").write_text('{"auto_map": {}}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked: list[dict[str, object]] = []

    def download(name: str, **options: object) -> str:
        asked.append(options)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch("owner/tiny")
    assert all("allow_patterns" not in options for options in asked)
    fetch("owner/tiny", trust_remote_code=True)
    assert "*.py" in asked[-1]["allow_patterns"]


def test_names_that_ship_with_packages() -> None:
    assert resolve(TINY).folder == Path(sys.modules["models"].__file__).parent / "tiny"
    assert (resolve(MINILM).folder / "modules.json").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", r"no config\.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_folders_that_lack_a_part_say_which(copy: Path, missing: str, message: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(InputError, match=message):
        resolve(str(copy))


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pytorch_model\.bin, which is refused"):
        resolve(str(copy))


def test_missing_shards_are_named(copy: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"lacks 1 of 2 weight files: model-2\.safetensors"):
        resolve(str(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda whole: whole[:-1],
            r"is cut short or changed: found {cut} bytes, and its header says {all}; delete it and fetch",
        ),
        (lambda whole: whole + b" ", r"and its header says {all};"),
        (
            lambda whole: whole[:40],
            "is cut short, or no safetensors file: found 40 bytes without a whole header; delete",
        ),
        (lambda whole: b"not a tensor", "found 12 bytes without a whole header"),
        (lambda whole: b"", "found 0 bytes without a whole header"),
        (lambda whole: (2).to_bytes(8, "little") + b"[]", "found 10 bytes without a whole header"),
    ],
)
def test_weights_cut_short_are_named_before_they_are_read(copy: Path, change: Any, message: str) -> None:
    second = copy / "model-2.safetensors"  # every shard is looked at
    whole = (copy / "model.safetensors").read_bytes()
    second.write_bytes(change(whole))
    expected = message.format(all=f"{len(whole):,}", cut=f"{len(whole) - 1:,}")
    for asked in (resolve, fetch, fingerprint):
        with pytest.raises(InputError, match=f"{second} .*{expected}|{second} {expected}"):
            asked(str(copy))


def test_shapes_are_those_of_the_loaded_weights(tiny: LocalModel, tiny_model_dir: Path) -> None:
    loaded = {name: tuple(weight.shape) for name, weight in tiny.network.state_dict().items()}
    found = shapes_of(tiny_model_dir)
    assert found == {name: loaded[name] for name in found}
    assert loaded.keys() - found.keys() == {"lm_head.weight"}  # tied to the embeddings


def test_an_adapter_is_no_whole_model(copy: Path) -> None:
    (copy / "config.json").rename(copy / "adapter_config.json")
    with pytest.raises(InputError, match="adapter="):
        resolve(str(copy))


def test_an_adapter_of_another_base_is_refused(copy: Path, tiny_model_dir: Path) -> None:
    adapter = copy.parent / "adapter"
    adapter.mkdir()
    with pytest.raises(InputError, match=r"no adapter_config\.json"):
        check_adapter(adapter, str(tiny_model_dir))
    shutil.copy(copy / "model.safetensors", adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(copy)}))
    check_adapter(adapter, str(tiny_model_dir))  # the same weights in another folder
    (copy / "config.json").write_text("{}")
    with pytest.raises(InputError, match="was trained on"):
        check_adapter(adapter, str(tiny_model_dir))


def test_light_modules_do_not_import_torch() -> None:
    code = ";".join(f"import models.{name}" for name in LIGHT)
    heavy = "import sys; sys.exit(str([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", f"{code};{heavy}"], capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == "[]"
