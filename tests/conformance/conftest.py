"""Fixtures of the tests against real peers. A peer that is not installed is named, and its tests are skipped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import browsers
import harness
import namespace

GROUP = "real peers"


FIREFOX_BY_DEFAULT = "test_the_tone_a_browser_sends_comes_back_in_what_it_receives"
"""It starts slowly: one test of it is enough in the default run, the others are thorough."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if "firefox" in item.name and getattr(item, "originalname", "") != FIREFOX_BY_DEFAULT:
                item.add_marker(pytest.mark.thorough)
            item.add_marker(pytest.mark.conformance)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group(GROUP))  # one after another: they measure and they listen


@pytest.fixture(scope="session")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the caller says: 700 Hz."""
    return harness.write_tone(tmp_path_factory.mktemp("voice") / "tone.wav", 700)


@dataclass
class Browser:
    """A real browser: `open(wav)` starts one, `addresses` configures a stack that it can reach."""

    open: Callable[..., AbstractAsyncContextManager[browsers.Page]]
    addresses: dict[str, str]


@pytest.fixture(params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Browser:
    if request.param == "chromium":
        return find_chromium()
    if browsers.FIREFOX is None:
        pytest.skip("Firefox is not installed")
    if not namespace.is_private() and (missing := namespace.obstacle()) is not None:
        pytest.skip(f"Firefox uses no loopback address, and a network of its own cannot be made: {missing}")
    return Browser(browsers.open_firefox, {"ANTIPHON_STACK_PUBLIC_ADDRESS": namespace.ADDRESS})


@pytest.fixture
def chromium() -> Browser:
    return find_chromium()


def find_chromium() -> Browser:
    if browsers.CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    return Browser(browsers.open_chromium, {})


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests with Firefox, and those marked so, run in a network of their own; what they said and how they ended count here."""
    parameters = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
    apart = parameters.get("browser") == "firefox" or pyfuncitem.get_closest_marker("own_network") is not None
    if not apart or namespace.is_private():
        return None
    finished = namespace.run_inside(pyfuncitem.nodeid.removesuffix(f"@{GROUP}"))
    print(finished.stdout)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "1 passed" in finished.stdout
    return True
