"""A run that is really killed ends with the weights of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sft_rows import sums, write_rows

from training import resume
from training.dpo import Dpo
from training.sft import Sft
from warehouse.records import Dataset

SFT = Sft(learning_rate=1e-3, epochs=2, batch_size=2, gradient_accumulation=2, max_length=64, save_every=2)

DIES_WHILE_SAVING = """
import json, os, signal, sys
from pathlib import Path
from training import resume
from training.sft import Sft
from warehouse.records import Dataset

def die_at_step_6(checkpoint, mark=resume.mark_whole):
    if checkpoint.name == "checkpoint-6":
        os.kill(os.getpid(), signal.SIGKILL)
    mark(checkpoint)

resume.mark_whole = die_at_step_6
base, data, out, params = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
Sft(**params)(base, Dataset(data, "rows"), out, 5)
"""


def same(a: Path, b: Path) -> bool:
    one, two = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def curve(folder: Path) -> pa.Table:
    return pq.read_table(folder / "loss.parquet").drop_columns("seconds")


def test_killed_while_saving(tiny_model_dir: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.parquet", sums(20))
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    arguments = [str(tiny_model_dir), str(data.path), str(killed), json.dumps(dict(SFT.spec.params))]
    died = subprocess.run([sys.executable, "-c", DIES_WHILE_SAVING, *arguments], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    left = {p.name: (p / resume.MARKER).exists() for p in (killed / resume.FOLDER).glob("checkpoint-*")}
    assert left["checkpoint-4"]
    assert not left["checkpoint-6"]

    SFT(str(tiny_model_dir), data, straight, 5)
    SFT(str(tiny_model_dir), data, killed, 5)
    assert same(straight, killed)
    assert curve(killed) == curve(straight)
    assert not (killed / resume.FOLDER).exists()


def checkpoint(out: Path, step: int, whole: bool = True) -> Path:
    folder = out / resume.FOLDER / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(100))
    if whole:
        resume.mark_whole(folder)
    return folder


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert resume.prepare(tmp_path, "run") is None
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)
    half = checkpoint(tmp_path, 11, whole=False)
    assert resume.prepare(tmp_path, "run") == newest
    assert not half.exists()


def test_a_checkpoint_whose_files_were_cut_does_not_count(tmp_path: Path) -> None:
    resume.prepare(tmp_path, "run")
    before, cut, gone = (checkpoint(tmp_path, step) for step in (9, 10, 11))
    os.truncate(cut / "model.safetensors", 50)
    (gone / "model.safetensors").unlink()
    assert resume.newest(tmp_path / resume.FOLDER) == before
    assert resume.prepare(tmp_path, "run") == before
    assert not cut.exists()


def test_checkpoints_of_another_run_do_not_count(tmp_path: Path) -> None:
    resume.prepare(tmp_path, "run")
    old = checkpoint(tmp_path, 9)
    assert resume.prepare(tmp_path, "another run") is None
    assert not old.exists()


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_a_half_written_identity_starts_anew(tmp_path: Path, content: str) -> None:
    resume.prepare(tmp_path, "run")
    checkpoint(tmp_path, 9)
    (tmp_path / resume.FOLDER / resume.IDENTITY).write_text(content)
    assert resume.prepare(tmp_path, "run") is None


def test_a_run_is_known_by_all_that_decides_its_bits(tiny_model_dir: Path, tmp_path: Path) -> None:
    data, base = Dataset(tmp_path, "rows"), str(tiny_model_dir)
    known = {
        resume.identity_of(SFT, base, data, 5),
        resume.identity_of(replace(SFT, batch_size=1), base, data, 5),
        resume.identity_of(replace(SFT, template="raw"), base, data, 5),
        resume.identity_of(SFT, "winnow-tiny", data, 5),
        resume.identity_of(SFT, base, Dataset(tmp_path, "others"), 5),
        resume.identity_of(SFT, base, data, 6),
        resume.identity_of(SFT, base, data, 5, "elsewhere"),
        resume.identity_of(Dpo(), base, data, 5),
    }
    assert len(known) == 8
    moved = shutil.copytree(tiny_model_dir, tmp_path / "moved")
    assert resume.identity_of(SFT, str(moved), Dataset(tmp_path / "x", "rows"), 5) in known
