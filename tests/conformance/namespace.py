"""A network of the test's own, without a wire to anywhere: for Firefox, which uses no loopback candidates.

The test runs once more in a pytest of its own inside a fresh network namespace, which vanishes with it. (To enter one in this
very process would leave threads behind in it, and with them the processes that later tests start.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ADDRESS = "10.99.0.1"
MARK = "TEST_HAS_A_NETWORK_OF_ITS_OWN"
SECONDS = 100
ROOT = Path(__file__).parents[2]

# Firefox counts as offline, and gathers nothing, without a default route by way of a gateway (which need not exist).
SET_UP = f"""set -e
ip link set lo up
ip link add antiphon0 type veth peer name antiphon1
ip address add {ADDRESS}/24 dev antiphon0
ip link set antiphon0 up
ip link set antiphon1 up
ip route add default via 10.99.0.254
exec "$@"
"""


def is_private() -> bool:
    """Whether this process is the one inside."""
    return MARK in os.environ


def obstacle() -> str | None:
    """Why there can be no such network here, or None."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "ip (iproute2) and unshare (util-linux) are needed"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "a network namespace needs root"


def run_inside(test: str) -> subprocess.CompletedProcess[str]:
    """Run one test, by its node id, in a network of its own."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-m", "", test]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {MARK: "1"}
    command = ["unshare", "--net", "sh", "-c", SET_UP, "sh", *pytest]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
