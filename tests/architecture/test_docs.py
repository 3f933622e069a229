"""The documents agree with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(file for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if ".venv" not in file.parts)


@pytest.mark.slow
def test_the_generated_documents_are_current():
    script = (
        "from docs.generate import pages\n"
        "for file, text in pages().items(): assert file.read_text() == text, f'{file}: run ./just docs'"
    )
    checked = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document: Path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_recipe_that_a_document_names_exists(document: Path):
    recipes = set(re.findall(r"^([a-z][a-z-]*)(?: [^:=]*)?:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\./just ([a-z][a-z-]*)", document.read_text()))
    assert named - recipes == set()
