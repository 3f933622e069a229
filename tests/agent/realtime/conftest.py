from __future__ import annotations

import pytest
from realtime_client import Client


@pytest.fixture
def client() -> Client:
    return Client()
