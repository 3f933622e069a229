"""libsrtp as pylibsrtp brings it: the only module that knows either (docs/adr/0017).

Two ways to the same C library, one interface:

`in place`   libsrtp's own functions by the cffi handle inside pylibsrtp. A packet is worked on where it lies, and nothing
             is allocated.
`public`     pylibsrtp's documented classes: a copy in, a copy out, an exception for an error. What is left when a
             release of pylibsrtp has moved its handle.

1. An `Arena` is a writable buffer and the place for a packet's length. `arena.base + offset` is a place in it.
2. A `Keyed` holds one direction of one association: four functions `(place, length) -> status`. The packet's length is
   put into `length[0]` before the call and read from there afterwards; the status is 0, or an index into `ERRORS`.
3. Protecting writes `RTP_TRAILER` or `RTCP_TRAILER` bytes behind a packet at most. Whoever calls has checked that the
   packet lies in the arena, and that there is so much room behind it: nothing here does.

The interface is cut so that the hot path costs one call of a C function. Nothing of it is for use outside
`protocol.srtp` and the media lane of `protocol.peer`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from pylibsrtp import ERRORS, Error, Policy, Session

from protocol.srtp.profiles import SrtpProfile

__all__ = [
    "ERRORS",
    "LIBRARIES",
    "RTCP_TRAILER",
    "RTP_TRAILER",
    "Arena",
    "InPlaceLibrary",
    "Keyed",
    "PublicLibrary",
    "SrtpLibrary",
    "library_named",
]

# Specification constants
RTP_TRAILER = 16  # the longest tag of our profiles (RFC 7714 §13.1); we use no MKI
RTCP_TRAILER = 4 + RTP_TRAILER  # and the index with the E flag (RFC 3711 §3.4)

Place: TypeAlias = Any  # a cffi pointer, or a memoryview that begins there
Length: TypeAlias = Any  # a cffi int pointer, or a list of one number
Process: TypeAlias = Callable[[Place, Length], int]

# libsrtp numbers its profiles as IANA does, but pylibsrtp does not promise so.
_POLICY = {
    SrtpProfile.SRTP_AES128_CM_HMAC_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    SrtpProfile.SRTP_AEAD_AES_128_GCM: Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    SrtpProfile.SRTP_AEAD_AES_256_GCM: Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}


class Arena:
    """A writable buffer as one of the libraries sees it. It must not be resized while this lives."""

    __slots__ = ("base", "length", "size", "view")

    def __init__(self, view: memoryview, base: Place, length: Length) -> None:
        self.view = view
        self.size = len(view)
        self.base = base
        self.length = length


class Keyed:
    """One direction of one association under its key."""

    __slots__ = ("protect_rtcp", "protect_rtp", "unprotect_rtcp", "unprotect_rtp")

    def __init__(
        self, protect_rtp: Process, protect_rtcp: Process, unprotect_rtp: Process, unprotect_rtcp: Process
    ) -> None:
        self.protect_rtp = protect_rtp
        self.protect_rtcp = protect_rtcp
        self.unprotect_rtp = unprotect_rtp
        self.unprotect_rtcp = unprotect_rtcp


class SrtpLibrary(Protocol):
    @property
    def name(self) -> str:
        """For the log."""

    def arena(self, buffer: bytearray | memoryview) -> Arena:
        """See a writable buffer of bytes as an arena."""

    def keyed(self, profile: SrtpProfile, key: bytes, *, outbound: bool, window: int) -> Keyed:
        """A context for `key`, which is master key || master salt."""


def _policy(profile: SrtpProfile, key: bytes, outbound: bool, window: int) -> Policy:
    kind = Policy.SSRC_ANY_OUTBOUND if outbound else Policy.SSRC_ANY_INBOUND
    policy = Policy(key=key, ssrc_type=kind, srtp_profile=_POLICY[profile])
    policy.window_size = window
    return policy


class InPlaceLibrary:
    """By the handle that pylibsrtp itself uses. Raises ImportError or AttributeError if it is not where we know it."""

    name = "in place"

    def __init__(self) -> None:
        from pylibsrtp._binding import ffi, lib  # it may be gone: then the other way is taken

        self._ffi = ffi
        self._lib = lib
        self._functions = (lib.srtp_protect, lib.srtp_protect_rtcp, lib.srtp_unprotect, lib.srtp_unprotect_rtcp)
        for function in self._functions:
            if str(ffi.typeof(function)) != "<ctype 'srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)'>":
                raise AttributeError("libsrtp's functions are not those we know")
        profile = SrtpProfile.SRTP_AEAD_AES_128_GCM  # try all of it once
        packet = bytearray(bytes.fromhex("806f00010000000000000001") + bytes(RTP_TRAILER))
        arena = self.arena(packet)
        arena.length[0] = 12
        if self.keyed(profile, bytes(28), outbound=True, window=64).protect_rtp(arena.base, arena.length):
            raise AttributeError("libsrtp's functions do not do what we know")

    def arena(self, buffer: bytearray | memoryview) -> Arena:
        # A pointer into a char[] keeps neither it nor the buffer alive: the arena's view does.
        base = self._ffi.cast("char *", self._ffi.from_buffer("char[]", buffer, require_writable=True))
        return Arena(memoryview(buffer), base, self._ffi.new("int *"))

    def keyed(self, profile: SrtpProfile, key: bytes, *, outbound: bool, window: int) -> Keyed:
        policy = _policy(profile, key, outbound, window)
        holder = self._ffi.new("srtp_t *")
        status = self._lib.srtp_create(holder, policy._policy)
        if status:
            raise Error(ERRORS[status])
        context = self._ffi.gc(holder[0], self._lib.srtp_dealloc)  # each partial keeps it
        return Keyed(*(partial(function, context) for function in self._functions))


class PublicLibrary:
    """By pylibsrtp's public classes."""

    name = "public"

    def arena(self, buffer: bytearray | memoryview) -> Arena:
        view = memoryview(buffer)
        if view.readonly:
            raise BufferError("an arena must be writable")
        return Arena(view, _Base(view), [0])

    def keyed(self, profile: SrtpProfile, key: bytes, *, outbound: bool, window: int) -> Keyed:
        session = Session(_policy(profile, key, outbound, window))
        functions = (session.protect, session.protect_rtcp, session.unprotect, session.unprotect_rtcp)
        return Keyed(*(partial(_process, function) for function in functions))


class _Base:
    """The start of a buffer: adding an offset gives the place there."""

    __slots__ = ("_view",)

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __add__(self, offset: int) -> memoryview:
        return self._view[offset:]


def _process(function: Callable[[bytes], bytes], place: memoryview | _Base, length: list[int]) -> int:
    view = place + 0 if isinstance(place, _Base) else place
    try:
        result = function(bytes(view[: length[0]]))
    except Error as error:
        return ERRORS.index(str(error))
    except (ValueError, TypeError):  # longer than its buffer
        return _BAD_PARAMETER
    view[: len(result)] = result
    length[0] = len(result)
    return 0


_BAD_PARAMETER = ERRORS.index("unsupported parameter")


def _available() -> tuple[SrtpLibrary, ...]:
    public = PublicLibrary()
    try:
        return InPlaceLibrary(), public
    except (ImportError, AttributeError, TypeError):
        return (public,)


LIBRARIES: tuple[SrtpLibrary, ...] = _available()
"""Best first."""


def library_named(name: str = "auto") -> SrtpLibrary:
    """`auto`: the best there is. Raises ValueError for one that there is not."""
    for library in LIBRARIES:
        if name in ("auto", library.name):
            return library
    raise ValueError(f"no way to libsrtp is called {name!r}")
