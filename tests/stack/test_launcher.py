"""`./just` before there is anything but Python: which packages `up` needs."""

from __future__ import annotations

import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CASES = [
    (["up"], "", False),
    (["up", "--agent", "parrot"], "", False),
    (["up", "--agent", "voice"], "", True),
    (["up", "--port", "0", "--agent=voice", "--direct"], "", True),
    (["up", "--agent", "voice:mine"], "", False),
    (["up"], "voice", True),
    (["up", "--agent", "echo"], "voice", False),
]


@pytest.mark.parametrize(("arguments", "variable", "wanted"), CASES)
def test_the_voices_packages_are_installed_for_who_asks_for_the_voice(
    arguments: list[str], variable: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
):
    loader = SourceFileLoader("launcher", str(ROOT / "just"))
    spec = spec_from_loader("launcher", loader)
    assert spec is not None
    launcher = module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(launcher)
    monkeypatch.setenv("ANTIPHON_STACK_AGENT", variable)
    assert launcher.wants_voice(arguments) is wanted


def test_the_recipes_ask_the_same():
    recipe = (ROOT / "justfile").read_text()
    [pattern] = set(re.findall(r"if arguments =~ '(.*?)'", recipe))
    for arguments, variable, wanted in CASES:
        if not variable:
            assert bool(re.search(pattern, " ".join(arguments[1:]))) is wanted
