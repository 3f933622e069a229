"""Our processes as `just up` wires them, on free ports of loopback, each on the CPU it is given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from bench.processes import BenchFailed, Child, clean_environment, python
from stack.config import StackConfig
from stack.plan import Plan

__all__ = ["OurStack", "start_relay", "start_stack", "start_transceiver"]

# Implementation constants
INSIDE = "internal:"  # agents of this prefix live in the transceiver


class OurStack:
    """Relay, transceiver and, if it is a process of its own, agent; `url` is where calls are placed."""

    def __init__(self, relay: Child, transceiver: Child, agent: Child | None) -> None:
        self.relay, self.transceiver, self.agent = relay, transceiver, agent
        self.url = str(transceiver.bound["http"][0])

    @property
    def pids(self) -> dict[str, int]:
        """The transceiver comes first."""
        pids = {"transceiver": self.transceiver.pid, "relay": self.relay.pid}
        return pids if self.agent is None else pids | {"agent": self.agent.pid}


def new_plan(environ: Mapping[str, str], *, direct: bool = False) -> Plan:
    config = StackConfig(port=0, udp_port=0, public_address=("127.0.0.1",), agent="echo", direct=direct)
    return Plan(config, None, clean_environment() | dict(environ))


def start_relay(stack: ExitStack, cpu: int | None, **environ: str) -> tuple[Child, dict[str, str]]:
    """The relay, and the environment with the keys that its transceivers need."""
    settings = new_plan(environ).relay()
    return stack.enter_context(Child("relay", python("-m", "relay", "run"), settings, cpu=cpu)), settings


def start_transceiver(stack: ExitStack, cpu: int | None, **environ: str) -> Child:
    """The transceiver alone: callers reach its socket, and its agent echoes inside it."""
    settings = new_plan(environ, direct=True).transceiver(f"{INSIDE}echo", [])
    return stack.enter_context(Child("transceiver", python("-m", "transceiver"), settings, cpu=cpu))


def start_stack(
    stack: ExitStack, *, agent: str = "echo", transceiver_cpu: int | None, other_cpu: int | None, **environ: str
) -> OurStack:
    """`agent`: `echo`, a process, or `internal:echo`. `environ`: settings that are not the defaults."""
    plan, process = new_plan(environ), None
    if not agent.startswith(INSIDE):
        process = stack.enter_context(Child("agent", python("-m", "agent"), plan.agent(), cpu=other_cpu))
        agent = str(process.bound["url"])
    relay = stack.enter_context(Child("relay", python("-m", "relay", "run"), plan.relay(), cpu=other_cpu))
    listen = relay.bound["listen"]
    if not isinstance(listen, list):
        raise BenchFailed("the relay does not say where it listens")
    settings = plan.transceiver(agent, [str(address) for address in listen])
    transceiver = stack.enter_context(Child("transceiver", python("-m", "transceiver"), settings, cpu=transceiver_cpu))
    return OurStack(relay, transceiver, process)
