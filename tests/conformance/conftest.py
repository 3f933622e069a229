"""Fixtures of the tests against real peers. A peer that is not installed is named, and its tests are skipped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import browsers
import harness


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.conformance)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the caller says: 700 Hz."""
    return harness.write_tone(tmp_path_factory.mktemp("voice") / "tone.wav", 700)


@pytest.fixture(params=["chromium", "firefox"])
def open_browser(request: pytest.FixtureRequest):
    """`async with open_browser(wav) as page:` for each real browser."""
    binary, opener = {
        "chromium": (browsers.CHROMIUM, browsers.open_chromium),
        "firefox": (browsers.FIREFOX, browsers.open_firefox),
    }[request.param]
    if binary is None:
        pytest.skip(f"{request.param} is not installed")
    return opener
