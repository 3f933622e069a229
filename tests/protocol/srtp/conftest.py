"""Every test here runs by both ways to libsrtp."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protocol.srtp import library, transport


@pytest.fixture(scope="module", autouse=True, params=["in place", "public"])
def way(request: pytest.FixtureRequest) -> Iterator[library.SrtpLibrary]:
    found = library.library_named(request.param)
    before, transport.LIBRARIES = transport.LIBRARIES, (found,)
    yield found
    transport.LIBRARIES = before
