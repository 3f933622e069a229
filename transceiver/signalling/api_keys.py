"""API keys: a file of their hashes, one line a key.

    # name  hash, and what the key may do at most
    shop    sha256:2c26b46b…e7ae  calls=50  per_minute=120
    trial   sha256:fcde2b2e…59a6

1. `new_key` draws a key of 256 random bits and gives its line; the key itself is written nowhere.
2. A request's key is hashed and looked for. The hash is a plain SHA-256: a slow one protects words that people choose, which
   can be guessed; against 256 random bits nothing can be tried, and each request would pay for it.
3. The file is looked at again every second, and read when it has changed and changes no more. One that cannot be read
   changes nothing: the keys of before stay, and the log says why.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

from protocol.wire import Entropy
from service.logs import get_logger

__all__ = ["ApiKey", "ApiKeys", "KeyFile", "new_key", "parse_keys"]

log = get_logger()

# Specification constants
KEY_PREFIX = "sk-antiphon-"
KEY_BYTES = 32
HASH = "sha256:"
LIMITS = ("calls", "per_minute")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LIMIT = re.compile(r"[1-9][0-9]{0,5}")

# Implementation constants
MAX_FILE_BYTES = 1024 * 1024  # five thousand keys and more
FINGERPRINT_BYTES = 8
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`calls` at once, and calls `per_minute` that it may place, at most; None: no limit of its own."""

    name: str
    digest: bytes
    calls: int | None = None
    per_minute: int | None = None

    @property
    def fingerprint(self) -> bytes:
        """What a client secret remembers it by: no other key, under the same name either, is taken for it."""
        return self.digest[:FINGERPRINT_BYTES]


class ApiKeys:
    """The keys of one file."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._salt = os.urandom(16)
        self._by_tag: dict[bytes, ApiKey] = {}
        self._by_fingerprint: dict[bytes, ApiKey] = {}
        for key in keys:
            self._by_tag[self._tag(key.digest)] = key
            self._by_fingerprint[key.fingerprint] = key

    def __len__(self) -> int:
        return len(self._by_tag)

    def find(self, presented: str) -> ApiKey | None:
        """The key that this is the text of. How long it takes tells nothing of the keys that there are: they are found by a
        hash that is another in each process, and compared in constant time."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        found = self._by_tag.get(self._tag(digest))
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None

    def find_by_fingerprint(self, fingerprint: bytes) -> ApiKey | None:
        return self._by_fingerprint.get(fingerprint)

    def _tag(self, digest: bytes) -> bytes:
        return hashlib.blake2s(digest, key=self._salt).digest()


def new_key(name: str, entropy: Entropy, **limits: int | None) -> tuple[str, str]:
    """A new key, and its line for the file. Raises ValueError for a name or a limit that the file could not have."""
    secret = KEY_PREFIX + urlsafe_b64encode(entropy(KEY_BYTES)).decode().rstrip("=")
    words = [name, HASH + hashlib.sha256(secret.encode()).hexdigest()]
    words += [f"{limit}={value}" for limit, value in limits.items() if value is not None]
    _parse_line(words)
    return secret, " ".join(words)


def parse_keys(text: str) -> ApiKeys:
    """Raises ValueError with a sentence that names the line, and repeats nothing of it."""
    keys: dict[str, ApiKey] = {}
    digests: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            key = _parse_line(words)
            if key.name in keys or key.digest in digests:
                raise ValueError("a line before has the same name or the same hash")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        keys[key.name] = key
        digests.add(key.digest)
    return ApiKeys(keys.values())


def _parse_line(words: list[str]) -> ApiKey:
    name, *rest = words
    if not _NAME.fullmatch(name):
        raise ValueError("a name has letters, digits and . _ @ -, 64 at most")
    if not rest or not rest[0].startswith(HASH) or not _DIGEST.fullmatch(rest[0].removeprefix(HASH)):
        raise ValueError(f"after the name comes {HASH} and 64 hexadecimal digits")
    limits: dict[str, int] = {}
    for word in rest[1:]:
        limit, _, value = word.partition("=")
        if limit not in LIMITS or limit in limits or not _LIMIT.fullmatch(value):
            raise ValueError("after the hash come calls=N and per_minute=N, from 1 to 999999, or nothing")
        limits[limit] = int(value)
    return ApiKey(name, bytes.fromhex(rest[0].removeprefix(HASH)), **limits)


class KeyFile:
    """The keys of a file as it is now. Raises OSError or ValueError, with a sentence, if it cannot be read at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = self._seen = self._look()
        self.keys = self._read()

    async def watch(self, seconds: float = LOOK_SECONDS) -> None:
        """Take up each change, until cancelled. By name, not by descriptor: a file is replaced, and so is the folder of a
        Kubernetes secret."""
        while True:
            await trio.sleep(seconds)
            try:
                keys = await trio.to_thread.run_sync(self._read_if_changed)
            except (OSError, ValueError) as error:
                log.error(
                    "the API keys cannot be read again; those of before stay", file=str(self._path), error=str(error)
                )
                continue
            if keys is not None:
                self.keys = keys
                log.info("the API keys have been read again", keys=len(keys))

    def _read_if_changed(self) -> ApiKeys | None:
        mark, seen = self._look(), self._seen
        self._seen = mark
        if mark == self._mark or mark != seen:  # whoever writes it in place may be about to go on
            return None
        self._mark = mark
        return self._read()

    def _look(self) -> tuple[int, int, int] | None:
        """What changes with the file; None while there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> ApiKeys:
        with self._path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES // 1024} KiB")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise ValueError("it is not text in UTF-8") from None
        return parse_keys(text)
