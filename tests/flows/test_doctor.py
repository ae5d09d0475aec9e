"""`winnow init` and `winnow doctor`: what is missing is named with what to do, and the exit code says so."""

from pathlib import Path

import pytest
from cli_world import Winnow, alpaca, write_rows

from flows import doctor
from warehouse.errors import InputError


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def test_a_first_recipe_is_whole_once_its_files_are_there(winnow: Winnow, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    said = winnow("init", folder)
    assert said.code == 0
    recipe = folder / "recipe.yaml"
    assert f"winnow doctor {recipe}" in said.out

    missing = winnow("doctor", recipe, "--home", tmp_path / "home")
    assert missing.code == 1
    bad = [line for line in missing.out.splitlines() if line.startswith("BAD")]
    assert all(any(name in line for line in bad) for name in ("pool.jsonl", "target.jsonl"))

    write_rows(folder / "pool.jsonl", alpaca(1200))
    write_rows(folder / "target.jsonl", alpaca(3, "word"))
    whole = winnow("doctor", recipe, "--home", tmp_path / "home")
    assert [line for line in whole.out.splitlines() if line.startswith("BAD") and "recipe" in line] == []
    assert "for `winnow run`: " in whole.out
    assert "all it names is there" in whole.out
    other = winnow("doctor", recipe, "seeds=[0,0]", "--home", tmp_path / "home")
    assert "names a value twice" in other.out


def test_a_recipe_is_checked_for_what_it_is_for(winnow: Winnow, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", alpaca(20))
    recipe = tmp_path / "recipe.yaml"
    task = "tasks: [{name: exact_match, rows: [{path: rows.jsonl}]}]"
    recipe.write_text(f"name: x\nmodels: [winnow-tiny]\n{task}\n")
    said = winnow("doctor", recipe, "--home", tmp_path / "home")
    assert "for `winnow evaluate`: all it names is there" in said.out
    recipe.write_text("name: x\npool: [{synthesize: world, params: {rows: 20}}]\n")
    said = winnow("doctor", recipe, "--home", tmp_path / "home")
    assert "for `winnow synth`: all it names is there" in said.out


def test_init_overwrites_nothing(winnow: Winnow, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    said = winnow("init", tmp_path)
    assert said.code == 2
    assert "exists" in said.err
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    (tmp_path / "file").write_text("x")
    below = winnow("init", tmp_path / "file" / "deep")
    assert below.code in (1, 2)
    assert "Traceback" not in below.err


def test_a_recipe_that_is_wrong_is_one_line(winnow: Winnow, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\npool: [{path: a}]\nmethods: [random]\nbudgets: [1]\nbudget: 2\n")
    said = winnow("doctor", recipe, "--home", tmp_path / "home")
    assert said.code == 1
    assert "line 5, budget: unknown key" in said.out


def test_a_home_that_cannot_be_written(winnow: Winnow, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = winnow("doctor", "--home", tmp_path / "file" / "home")
    assert said.code == 1
    assert any(line.startswith("BAD  home") for line in said.out.splitlines())


def test_doctor_makes_no_home(winnow: Winnow, tmp_path: Path) -> None:
    winnow("doctor", "--home", tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_server_that_is_named_but_silent(winnow: Winnow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    said = winnow("doctor", "--home", tmp_path / "home")
    assert said.code == 1
    assert "no Prefect server answers there" in said.out


@pytest.mark.parametrize(("name", "what"), [("FREE_DISK_BYTES", "disk"), ("FREE_MEMORY_BYTES", "memory")])
def test_too_little_room_is_bad_and_says_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setattr(doctor, name, 10**18)
    found = {finding.subject: finding for finding in doctor.examine(tmp_path / "home", None)}
    assert not found[what].good
    assert "1000000000" in found[what].text


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    found = {finding.subject: finding for finding in doctor.examine(tmp_path / "home", None)}
    assert "not installed: no-such-package" in found["packages"].text
    assert "pip install" in found["packages"].text
    with pytest.raises(InputError, match="no-such-package"):
        doctor._packages()
