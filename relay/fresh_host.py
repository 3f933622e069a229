"""A host in a fresh interpreter: `python -m relay.fresh_host DESCRIPTOR [CONFIG]`, started by the supervisor, never by people.

It loads `relay.host` with the code that is installed now. If that does not load, it says so in place of it, with nothing but
the standard library and no other module of ours: any of them may be what is broken.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

__all__ = ["encode_failed"]

MAX_REASON = 1000  # bytes


def encode_failed(reason: str) -> bytes:
    """`relay.messages.Failed` as MessagePack: a map of two."""
    text = reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore").encode()
    return b"\x82\xa4type\xa6Failed\xa6reason\xda" + len(text).to_bytes(2, "big") + text


def main() -> None:
    descriptor, *files = sys.argv[1:]
    control = socket.socket(fileno=int(descriptor))
    try:
        from relay.host import host
    except Exception as error:  # noqa: BLE001 - whatever it is, the operator wants to know
        traceback.print_exc()
        with suppress(OSError):
            control.setblocking(True)
            control.send(encode_failed(f"the new code does not load: {type(error).__name__}: {error}"))
            # Until it ends us: what is left unread when we end would make the kernel drop our word.
            while control.recv(65536):
                pass
        return
    host(control, Path(files[0]) if files else None, os.getppid())


if __name__ == "__main__":
    main()
