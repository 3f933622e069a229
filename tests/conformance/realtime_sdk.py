"""The unmodified `@openai/agents-realtime`, for the tests alone: `python tests/conformance/realtime_sdk.py` fetches it.

npm brings the one package, from wherever npm is configured to look; it is taken only if it has the hash below. Its browser
bundle needs no other package and no bundler: the test's page imports it as it is.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@openai/agents-realtime"
VERSION = "0.20.0"
SHA512 = "KK3w9k9rkqv5mC25vykWTe/1IIcOMsqwJs9mB0aX9Z2Us487xGduZgqr+ENEzthjZbQvTi/+qUv/tfoZeN/p/w=="

FOLDER = Path(__file__).parents[2] / ".tools" / "npm" / f"agents-realtime-{VERSION}"
ENTRY = "openai-realtime-agents.mjs"

NPM_SECONDS = 120


def is_fetched() -> bool:
    return (FOLDER / ENTRY).is_file()


def fetch() -> None:
    """Raises SystemExit with the reason."""
    if is_fetched():
        return
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("fetch-sdk: npm is needed (Debian: apt-get install npm)")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        command = [npm, "pack", "--silent", "--ignore-scripts", f"{PACKAGE}@{VERSION}"]
        packed = subprocess.run(command, cwd=scratch, check=False, timeout=NPM_SECONDS, stdout=subprocess.PIPE)
        archives = list(Path(scratch).glob("*.tgz"))
        if packed.returncode != 0 or len(archives) != 1:
            sys.exit(f"fetch-sdk: npm could not bring {PACKAGE} {VERSION}")
        found = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if found != SHA512:
            sys.exit(f"fetch-sdk: {PACKAGE} {VERSION} has another hash than expected: {found}")
        _unpack(archives[0], Path(scratch) / "whole")
        shutil.rmtree(FOLDER, ignore_errors=True)
        (Path(scratch) / "whole").rename(FOLDER)


def _unpack(archive: Path, folder: Path) -> None:
    """What the page needs of it."""
    folder.mkdir()
    with tarfile.open(archive) as members:
        for member in members:
            name = Path(member.name)
            if (name.parent.name, name.suffix) == ("bundle", ".mjs") and (
                content := members.extractfile(member)
            ) is not None:
                (folder / name.name).write_bytes(content.read())


if __name__ == "__main__":
    fetch()
    print(f"{PACKAGE} {VERSION}: {FOLDER}")
