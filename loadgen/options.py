"""The command line: `just load --calls 20 --seconds 10`. What is wrong with it is one line on standard error, exit 2."""

from __future__ import annotations

import argparse
import enum
import math
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from loadgen.network import Network
from loadgen.script import Habits
from udpio.shaper import Conditions

__all__ = ["LOAD", "Arrivals", "Options", "Preset", "parse_options", "process_count"]

# Implementation constants
MAX_CALLS = 20_000  # a socket, a DTLS association and an SCTP association each
MAX_PROCESSES = 64
CALLS_OF_A_PROCESS = 400  # they take a little more than half of a core; the rest is for setting them up
MAX_SECONDS = 86_400.0
# Set-up costs two signatures and two key agreements at either end: it must not be what a ramp measures.
RATE = 20.0
RAMP: dict[str, float] = {"calls": 2000, "seconds": MAX_SECONDS, "rate": 4.0}
DEFAULT_SETUP_SECONDS = 15.0
DEFAULT_CHECK_SECONDS = 5.0  # RFC 7675 §5.1
DEFAULT_MESSAGE_SECONDS = 1.0

CONVERSING = ("voice", "realtime")  # agents that speak the Realtime API

CONDITIONS = ("loss", "burst_loss", "burst_length", "delay", "jitter", "reorder", "duplication", "mtu")

EPILOG = """\
A call is what a browser makes of it: signalling by HTTP, ICE, DTLS, SRTP, and
the data channel oai-events. Each sends an audio frame every 20 ms and a data
message every second, and counts what comes back: every frame is Opus, with a
mark in its padding that names its call, its place and its time. That takes an
agent that returns what it hears: echo or meter, not the parrot of `just up`.

  early             sent before the agent was there to answer; not lost
  lost              sent later, and never came back
  late              came back after more than 200 ms
  on schedule       of the frames that were not early: back within 200 ms
  foreign, corrupt  of another call; not as it was sent

With --agent meter (or internal:meter, the same in the transceiver's process) the
agent, an echo too, is asked at the end of each call how many of its 20 ms slots
were filled in time.

The options under "a bad network" put one between each call and the server,
the same in both directions. What they lose, or what a rebinding costs, does
not make the run a failure.

With --agent voice or --agent realtime, or with --conversation, calls converse:
they say a sentence, wait for the answer and hear it out, think, say the next; see
docs/loadgen.md for what is measured of that.

A server at --url that asks for an API key gets the one that the variable
ANTIPHON_LOAD_KEY holds. It stands in no report.

--find-capacity tells at how many calls something was at its limit first, and
what each process cost for a second of a call; then all calls end.

exit status:
  0  all is well
  1  a call failed, or something was lost (see --allow-loss), foreign, corrupt
     or doubled, or memory grew (see --soak); of conversations: a turn failed.
     What is lost counts neither with a bad network nor with --find-capacity:
     there losses at the limit are what is looked for, and 0 means that a limit
     was found or all calls had come.
  2  the command line or the configuration is wrong
"""


class Arrivals(enum.Enum):
    STEADY = "steady"
    POISSON = "poisson"


@dataclass(frozen=True, slots=True)
class Options:
    calls: int
    seconds: float
    """From the moment a call is set up."""
    rate: float
    """New calls a second."""
    url: str | None
    """Where signalling is; None: a stack of our own."""
    agent: str
    json: str | None
    """A file, or `-`."""
    allow_loss: bool
    setup_seconds: float
    check_seconds: float
    """Between two consent checks of a call (RFC 7675)."""
    message_seconds: float
    """Between two data messages of a call."""
    arrivals: Arrivals
    report: str | None
    """A file for the page with plots."""
    fec: bool
    """Whether each frame of ours holds a copy of the one before (Opus in-band FEC)."""
    red: bool
    """Whether the transceiver of the stack that is started prefers redundant audio (RFC 2198)."""
    nack: bool
    """Whether the transceiver of the stack that is started asks for what was lost."""
    soak: bool
    """Memory that does not stay flat makes the run a failure."""
    find_capacity: bool
    """Calls come and stay until something is at its limit."""
    conversation: bool
    """Calls converse with the agent by the Realtime API, instead of counting its echoes."""
    say: tuple[str, ...]
    """WAV files; none: the sentences that come with the generator."""
    habits: Habits
    processes: int | None
    """0: one for each usable CPU; None: as many as the calls need, and there are CPUs."""
    network: Network


class Preset(NamedTuple):
    """What a recipe asks for unless it is told otherwise."""

    prog: str = "just load"
    description: str = "Places real calls and tells how they went."
    calls: int = 20
    seconds: float = 10.0
    agent: str = "echo"
    soak: bool = False
    report: str | None = None
    json: str | None = None


LOAD = Preset()


def parse_options(arguments: Sequence[str] | None = None, preset: Preset = LOAD) -> Options:
    """Exits with 0 after `--help`, with 2 for what cannot be."""
    parser = _parser(preset)
    given = vars(parser.parse_args(arguments))
    conditions = {name: given.pop(name) for name in CONDITIONS}
    try:
        given["network"] = Network(Conditions(**conditions), given.pop("rebind_seconds"), given.pop("seed"))
    except ValueError as error:
        parser.error(f"a bad network: {error}")
    given["habits"] = Habits(think=given.pop("think"), interrupt_every=given.pop("interrupt_every"))
    given["say"] = tuple(given["say"])
    given["conversation"] |= given["agent"] in CONVERSING
    if given["conversation"] and (given["find_capacity"] or not given["fec"]):
        parser.error("--find-capacity and --no-fec are about echoes: not with a conversation")
    if not given["conversation"] and (given["say"] or given["habits"].interrupt_every):
        parser.error(
            "--say and --interrupt-every are for conversations: --agent voice, --agent realtime or --conversation"
        )
    measure = {"calls": preset.calls, "seconds": preset.seconds, "rate": RATE}
    defaults = RAMP if given["find_capacity"] else measure
    given |= {name: value for name, value in defaults.items() if given[name] is None}
    if given["url"] is not None and (given["soak"] or given["find_capacity"]):
        parser.error("--soak and --find-capacity look at the processes of a stack of our own: not with --url")
    given["allow_loss"] |= given["network"].loses
    return Options(**given)


def process_count(options: Options) -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if options.processes is None:
        wanted = min(usable, math.ceil(options.calls / CALLS_OF_A_PROCESS))
    else:
        wanted = options.processes or usable
    return min(wanted, options.calls)


def _parser(preset: Preset) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=preset.prog,
        description=preset.description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=_count, metavar="N", help=f"how many calls ({preset.calls})")
    parser.add_argument(
        "--seconds", type=_positive(MAX_SECONDS), metavar="S", help=f"each talks for ({preset.seconds:g})"
    )
    parser.add_argument("--rate", type=_positive(1000.0), metavar="R", help=f"calls placed per second ({RATE:g})")
    parser.add_argument("--url", type=_url, metavar="URL", help="a running stack (one is started, and ended)")
    parser.add_argument(
        "--agent",
        default=preset.agent,
        metavar="NAME",
        help="agent of the stack (echo; meter tells slots; internal:echo, internal:meter; converse with voice or realtime; "
        f"here {preset.agent})",
    )
    parser.add_argument(
        "--arrivals",
        type=_arrivals,
        default=Arrivals.STEADY,
        metavar="HOW",
        help="steady, or poisson: as independent callers come (steady)",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        default=preset.report,
        help=_written("write a page with plots, HTML in one file", preset.report),
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        default=preset.json,
        help=_written("write the result as JSON; - is standard output", preset.json),
    )
    parser.add_argument("--allow-loss", action="store_true", help="what is lost does not make it a failure")
    parser.add_argument(
        "--setup-timeout",
        dest="setup_seconds",
        type=_positive(120.0),
        default=DEFAULT_SETUP_SECONDS,
        metavar="S",
        help="a call that is not set up by then has failed (15)",
    )
    parser.add_argument(
        "--check-every",
        dest="check_seconds",
        type=_positive(25.0),
        default=DEFAULT_CHECK_SECONDS,
        metavar="S",
        help="STUN checks of a call, on average (5; Chromium does 2.65)",
    )
    parser.add_argument(
        "--message-every",
        dest="message_seconds",
        type=_positive(MAX_SECONDS),
        default=DEFAULT_MESSAGE_SECONDS,
        metavar="S",
        help="a data message of a call (1)",
    )
    parser.add_argument("--no-fec", dest="fec", action="store_false", help="frames without a copy of the one before")
    parser.add_argument(
        "--soak",
        action="store_true",
        default=preset.soak,
        help="fail, too, if the memory of a process of the stack grows on and on"
        + (" (always here)" if preset.soak else ""),
    )
    parser.add_argument(
        "--find-capacity",
        action="store_true",
        help="let ever more calls come, and stay, until frames are late or a process has no CPU left",
    )
    parser.add_argument(
        "--red", action="store_true", help="the stack that is started asks for each frame twice (RFC 2198)"
    )
    parser.add_argument(
        "--no-nack", dest="nack", action="store_false", help="the stack that is started asks for no packet again"
    )
    parser.add_argument(
        "--processes",
        type=_processes,
        metavar="N",
        help="of the generator, each on a core of its own; 0: one for each (one for 400 calls)",
    )
    talk = parser.add_argument_group(
        "a conversation",
        "with an agent that speaks the OpenAI Realtime API; --agent voice and --agent realtime choose it",
    )
    talk.add_argument("--conversation", action="store_true", help="the agent at --url, or your own, speaks it, too")
    talk.add_argument(
        "--say",
        nargs="+",
        default=(),
        metavar="FILE",
        help="sentences, one a file: WAV, 16-bit mono (three that are built in)",
    )
    talk.add_argument(
        "--interrupt-every", type=_count, default=0, metavar="N", help="speak over the answer in every Nth turn (never)"
    )
    talk.add_argument(
        "--think",
        type=_positive(3600),
        default=Habits().think,
        metavar="S",
        help="from the end of an answer to the next sentence (1)",
    )
    network = parser.add_argument_group("a bad network", "shares as 5% or 0.05, times in milliseconds")
    network.add_argument("--loss", type=_share, default=0.0, metavar="SHARE", help="datagrams lost, each on its own")
    network.add_argument(
        "--burst-loss", type=_share, default=0.0, metavar="SHARE", help="datagrams lost in bursts, besides"
    )
    network.add_argument(
        "--burst-length", type=_positive(1000), default=5.0, metavar="N", help="of a burst, on average (5)"
    )
    network.add_argument("--delay", type=_milliseconds, default=0.0, metavar="MS", help="each datagram takes so long")
    network.add_argument("--jitter", type=_milliseconds, default=0.0, metavar="MS", help="and up to so long besides")
    network.add_argument(
        "--reorder", type=_share, default=0.0, metavar="SHARE", help="held back, so that others overtake"
    )
    network.add_argument(
        "--duplicate", dest="duplication", type=_share, default=0.0, metavar="SHARE", help="come twice"
    )
    network.add_argument("--mtu", type=_positive(65535), default=math.inf, metavar="BYTES", help="longer ones vanish")
    network.add_argument(
        "--rebind-every",
        dest="rebind_seconds",
        type=_positive(MAX_SECONDS),
        default=math.inf,
        metavar="S",
        help="each call goes on from another port, as behind a NAT that forgot it",
    )
    network.add_argument(
        "--seed",
        type=int,
        default=secrets.randbits(32),
        metavar="N",
        help="of losses, jitter and poisson arrivals (another each time; the report tells it)",
    )
    return parser


def _written(what: str, file: str | None) -> str:
    return what if file is None else f"{what} ({file})"


def _arrivals(text: str) -> Arrivals:
    try:
        return Arrivals(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(each.value for each in Arrivals)}, not {text!r}"
        ) from None


def _processes(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {MAX_PROCESSES}, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_CALLS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_CALLS}, not {text!r}")
    return int(text)


def _share(text: str) -> float:
    number, percent, rest = text.partition("%")
    try:
        value = math.nan if rest else float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a share such as 5% or 0.05, not {text!r}")
    return value


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"must be milliseconds from 0 to 60000, not {text!r}")
    return value / 1000


def _positive(maximum: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= maximum:
            raise argparse.ArgumentTypeError(f"must be a number above 0, up to {maximum:g}, not {text!r}")
        return value

    return convert


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"must be an address like http://127.0.0.1:8080/, not {text!r}")
    return text.rstrip("/") + "/"
