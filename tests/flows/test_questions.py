"""The page of questions: each query answers with rows on a real home, on a rebuilt one, and in a materialized file."""

import re
import shutil
from pathlib import Path

import duckdb
import pytest

from warehouse.ask import ask
from warehouse.materialize import materialize
from warehouse.named import versions

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
SECTION = re.compile(r"^## (\d+)\. ([^\n]+)\n\n```sql\n(.*?)\n```\n\n(.+?)\n(?=\n## |\Z)", re.MULTILINE | re.DOTALL)
QUESTIONS = {f"{number} {title}": sql for number, title, sql, _ in SECTION.findall(PAGE.read_text(encoding="utf-8"))}
OF_THE_STORE = {title for title in QUESTIONS if title.startswith("14 ")}  # a file holds what its pools need, no more

Rows = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def answers(asked_home: Path) -> dict[str, Rows]:
    return {title: list(ask(asked_home, sql).rows) for title, sql in QUESTIONS.items()}


def test_there_are_twenty_each_with_a_word_on_how_to_read_it() -> None:
    headings = re.findall(r"^## (\d+)\. .+\?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [str(number) for number in range(1, 21)]
    assert len(QUESTIONS) == 20


@pytest.mark.parametrize("title", QUESTIONS)
def test_every_query_answers_with_rows(answers: dict[str, Rows], title: str) -> None:
    assert answers[title]


@pytest.mark.parametrize("title", QUESTIONS)
def test_no_column_is_null_throughout(answers: dict[str, Rows], title: str) -> None:
    assert all(any(value is not None for value in column) for column in zip(*answers[title], strict=True))


def test_the_catalogue_is_a_projection(asked_home: Path, answers: dict[str, Rows], tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    shutil.copytree(asked_home, home)
    (home / "winnow.duckdb").unlink()
    assert {title: list(ask(home, sql).rows) for title, sql in QUESTIONS.items()} == answers


def test_a_materialized_file_answers_the_same_without_the_home(
    asked_home: Path, answers: dict[str, Rows], tmp_path: Path
) -> None:
    names = [str(version) for version in versions(asked_home) if version.name == "asked pool"]
    materialize(asked_home, names, tmp_path / "m.duckdb", force=False, tell=lambda table, rows: None)
    with duckdb.connect(str(tmp_path / "m.duckdb"), read_only=True) as connection:
        for title, sql in QUESTIONS.items():
            if title not in OF_THE_STORE:
                assert connection.execute(sql).fetchall() == answers[title], title
