"""`just sim`: many calls set up on a bad network, each first datagram harmed, or one seed looked at datagram by datagram."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable

import structlog
from sim.scenarios import CASES, HARSH, LIMIT, Setup, case_pairs, quantile, set_up, set_up_with
from sim.world import World

PROMISE_SECONDS, PROMISE_SHARE = 5.0, 0.99

EPILOG = """\
examples:
  just sim                          1000 calls, a fifth of all datagrams lost each way
  just sim --seeds 200 --from 5000  other ones
  just sim --seed 41                that call alone, with every datagram
  just sim --mischief               each of the first ten datagrams each way dropped,
                                    doubled, swapped with the next; alone and in pairs

A seed that fails belongs into ONCE_FAILED of tests/sim/test_setup.py, with a sentence.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="just sim",
        description="Simulates calls in virtual time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many calls (1000)")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="S", help="the first one's seed (0)")
    parser.add_argument("--seed", type=int, metavar="S", help="one call, and what travelled")
    parser.add_argument("--mischief", action="store_true", help="harm each of the first datagrams instead")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if options.seed is not None:
        return look_at(options.seed)
    if options.mischief:
        alone = _report("alone", (set_up_with(case) for case in CASES))
        pairs = _report("in pairs", (set_up_with(*pair) for pair in case_pairs()))
        return 0 if all(setup.seconds <= LIMIT for setup in alone + pairs) else 1
    setups = _report("at 20 % loss", (set_up(seed) for seed in range(options.first, options.first + options.seeds)))
    good = sum(setup.seconds <= PROMISE_SECONDS for setup in setups) / len(setups)
    return 0 if good >= PROMISE_SHARE else 1


def look_at(seed: int) -> int:
    world = World(seed, up=HARSH)
    world.log = []
    caller = world.dial()
    world.run_until(lambda: caller.call.is_ready or caller.call.is_over, LIMIT)
    print("seconds   where   caller's outer address  bytes  what")
    print("\n".join(world.log))
    for stage, at in caller.call.reached.items():
        print(f"{stage:10} {at - caller.dialled_at:8.3f} s")
    print("lost:", dict(caller.up.drops), "up,", dict(caller.down.drops), "down; trace", world.trace[:16])
    return 0 if caller.setup_seconds <= PROMISE_SECONDS else 1


def _report(what: str, runs: Iterable[Setup]) -> list[Setup]:
    began = time.process_time()
    setups = []
    for setup in runs:
        setups.append(setup)
        if sys.stderr.isatty() and len(setups) % 10 == 0:
            print(f"\r{len(setups)} calls", end="\r", file=sys.stderr, flush=True)
    spent = time.process_time() - began
    seconds = [setup.seconds for setup in setups]
    good = sum(value <= PROMISE_SECONDS for value in seconds) / len(setups)
    times = ", ".join(f"p{share * 100:g} {quantile(seconds, share):.2f} s" for share in (0.5, 0.95, 0.99, 1.0))
    print(f"{len(setups)} calls {what}: ready within {PROMISE_SECONDS:g} s: {good:.2%}; {times}; {spent:.1f} s of CPU")
    for setup in sorted(setups, key=lambda setup: -setup.seconds)[:10]:
        if setup.seconds > PROMISE_SECONDS:
            print(f"  {setup.seed}: {setup.seconds:.2f} s, {setup.missing or setup.stages}")
    return setups


if __name__ == "__main__":
    sys.exit(main())
