"""Our processes as `just up` wires them, on free ports of loopback, each on the CPU it is given."""

from __future__ import annotations

from contextlib import ExitStack

from bench.processes import BenchFailed, Child, clean_environment, python
from stack.config import StackConfig
from stack.plan import Plan

__all__ = ["OurStack", "start_relay", "start_stack"]


class OurStack:
    """Relay, transceiver and agent; `url` is where calls are placed."""

    def __init__(self, relay: Child, transceiver: Child, agent: Child) -> None:
        self.relay, self.transceiver, self.agent = relay, transceiver, agent
        self.url = str(transceiver.bound["http"][0])

    @property
    def pids(self) -> dict[str, int]:
        return {"transceiver": self.transceiver.pid, "relay": self.relay.worker_pid, "agent": self.agent.pid}


def new_plan(**environ: str) -> Plan:
    config = StackConfig(port=0, udp_port=0, public_address=("127.0.0.1",), agent="echo")
    return Plan(config, None, clean_environment() | environ)


def start_relay(stack: ExitStack, cpu: int | None) -> tuple[Child, dict[str, str]]:
    """The relay, and the environment with the keys that its transceivers need."""
    environ = new_plan().relay()
    return stack.enter_context(Child("relay", python("-m", "relay", "run"), environ, cpu=cpu)), environ


def start_stack(stack: ExitStack, *, transceiver_cpu: int | None, other_cpu: int | None, **environ: str) -> OurStack:
    """`environ`: settings that are not the defaults."""
    plan = new_plan(**environ)
    agent = stack.enter_context(Child("agent", python("-m", "agent"), plan.agent(), cpu=other_cpu))
    relay = stack.enter_context(Child("relay", python("-m", "relay", "run"), plan.relay(), cpu=other_cpu))
    listen = relay.bound["listen"]
    if not isinstance(listen, list):
        raise BenchFailed("the relay does not say where it listens")
    environ = plan.transceiver(str(agent.bound["url"]), [str(address) for address in listen])
    transceiver = stack.enter_context(Child("transceiver", python("-m", "transceiver"), environ, cpu=transceiver_cpu))
    return OurStack(relay, transceiver, agent)
