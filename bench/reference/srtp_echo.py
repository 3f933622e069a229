"""The echo in C over the libsrtp that is inside pylibsrtp: `python -m bench.reference.srtp_echo LIBRARY`.

This interpreter makes the sessions and calls `echo` of the library compiled from `echo.c`, which never returns; from then on
no Python runs. Standard input: records of 6 bytes of the caller's address, then its two keys.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from pylibsrtp import Policy, Session, _binding

from bench.preset import KEY_LENGTH
from bench.processes import BenchFailed, Child, clean_environment, python
from bench.reference.forwarder import find_compiler
from service.ready import announce

__all__ = ["C_ECHO", "compile_echo", "start_echo"]

# Implementation constants
C_ECHO = "C over libsrtp"
SOURCE = Path(__file__).with_name("echo.c")
BUFFER = 4 << 20
RECORD = 6 + 2 * KEY_LENGTH


def compile_echo(folder: Path) -> Path | None:
    """The library in `folder`; None without a compiler. Raises BenchFailed when it does not compile."""
    compiler = find_compiler()
    if compiler is None:
        return None
    library = folder / "echo.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchFailed(f"the reference echo does not compile:\n{done.stderr}")
    return library


def start_echo(library: Path, calls: bytes, cpu: int | None) -> Child:
    command = python("-m", "bench.reference.srtp_echo", str(library))
    return Child(C_ECHO, command, clean_environment(), cpu=cpu, stdin=calls)


def main() -> int:
    records = sys.stdin.buffer.read()
    sessions: list[Session] = []
    table = bytearray()
    for at in range(0, len(records), RECORD):
        address, keys = records[at : at + 6], records[at + 6 : at + RECORD]
        table += address[2:] + address[:2] + bytes(2)
        for key, kind in ((keys[:KEY_LENGTH], Policy.SSRC_ANY_INBOUND), (keys[KEY_LENGTH:], Policy.SSRC_ANY_OUTBOUND)):
            sessions.append(Session(Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)))
            table += struct.pack("=Q", _address(sessions[-1]._srtp[0]))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    echo = ctypes.CDLL(sys.argv[1]).echo
    echo.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    functions = (_address(_binding.lib.srtp_unprotect), _address(_binding.lib.srtp_protect))
    announce(udp=f"127.0.0.1:{sock.getsockname()[1]}")
    return int(echo(sock.fileno(), bytes(table), len(records) // RECORD, *functions))


def _address(pointer: Any) -> int:  # noqa: ANN401 - of cffi
    return int(_binding.ffi.cast("uintptr_t", pointer))


if __name__ == "__main__":
    sys.exit(main())
