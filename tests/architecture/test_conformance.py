"""Each row of the conformance pages names tests that exist, or says why it is not met."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {"conformance.md": 3, "attacks.md": 4}  # and the column that names the tests
TEST = re.compile(r"`([\w/]+\.py)::(\w+)(?:\[[^\]`]*\])?`")


def rows(page: str) -> list[list[str]]:
    """The cells of each row of each table, without the heads."""
    found = []
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if not line.startswith("| ") or line.startswith(("| id ", "| # ")):
            continue
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
    return found


@functools.cache
def names_in(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_a_test_that_exists_or_says_why_it_is_not_met(page: str):
    wrong = []
    for cells in rows(page):
        shown = cells[PAGES[page]]
        named = TEST.findall(shown)
        wrong += [
            f"{cells[0]}: no test {name} in tests/{file}"
            for file, name in named
            if not (ROOT / "tests" / file).is_file() or name not in names_in(ROOT / "tests" / file)
        ]
        if not named and not re.match(r"not met: \w+", shown):
            wrong.append(f"{cells[0]}: neither a test nor a reason")
        if "`" in TEST.sub("", shown).replace("\\`", "") and "::" in TEST.sub("", shown):
            wrong.append(f"{cells[0]}: a test is named in another form than `folder/file.py::name`")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_no_row_stands_twice(page: str):
    names = [cells[0] for cells in rows(page)]
    assert len(names) == len(set(names))
    assert names, "the tables were not found"
