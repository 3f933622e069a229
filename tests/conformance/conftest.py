"""Fixtures of the tests against real peers. A peer that is not installed is named, and its tests are skipped."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.addresses import own_addresses

sys.path.insert(0, str(Path(__file__).parent))

import browsers
import harness


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.conformance)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group("real peers"))  # one after another: they measure and they listen


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
    return find_browser(request.param)


@pytest.fixture
def chromium() -> Browser:
    return find_browser("chromium")


def find_browser(name: str) -> Browser:
    if name == "chromium":
        if browsers.CHROMIUM is None:
            pytest.skip("Chromium is not installed")
        return Browser(browsers.open_chromium, {})
    if browsers.FIREFOX is None:
        pytest.skip("Firefox is not installed")
    # Firefox has no loopback candidates while the machine has another address. That one is this machine's own too: the kernel
    # delivers it without a wire.
    own = [host for host in own_addresses() if not ipaddress.ip_address(host).is_loopback]
    if not own:
        pytest.skip("Firefox needs an address other than loopback, and this machine has none")
    return Browser(browsers.open_firefox, {"ANTIPHON_STACK_PUBLIC_ADDRESS": own[0]})
