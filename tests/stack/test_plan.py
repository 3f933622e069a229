"""How the processes of one machine are wired to each other."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from agent.config import AgentConfig
from protocol.routing import KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from service.config import ConfigError, load
from stack.config import StackConfig
from stack.plan import Plan
from transceiver.config import TransceiverConfig

SECTIONS = {
    AgentConfig: "agent",
    RelayConfig: "relay",
    RoutingConfig: "routing",
    TransceiverConfig: "transceiver",
}
Section = TypeVar("Section", bound=msgspec.Struct)

LOOPBACK = StackConfig(port=0, udp_port=0, public_address=("127.0.0.1",))


def read(environ: dict[str, str], kind: type[Section]) -> Section:
    """What a process makes of an environment: it refuses what it does not know."""
    return load({SECTIONS[kind]: kind}, None, environ)[kind]


def test_relay_and_transceiver_get_the_same_fresh_secrets():
    plan = Plan(LOOPBACK, None, {})
    relay, transceiver = (
        read(plan.relay(), RoutingConfig),
        read(plan.transceiver("ws://127.0.0.1:1/", ["127.0.0.1:2"]), RoutingConfig),
    )
    assert relay == transceiver
    KeyRing.parse(relay)
    Trunk.parse(relay)
    assert read(Plan(LOOPBACK, None, {}).relay(), RoutingConfig) != relay


def test_callers_are_offered_what_the_relay_bound():
    environ = Plan(LOOPBACK, None, {}).transceiver("ws://127.0.0.1:7/", ["127.0.0.1:5000"])
    transceiver = read(environ, TransceiverConfig)
    assert transceiver.advertise == ("127.0.0.1:5000",)
    assert transceiver.agents == ("ws://127.0.0.1:7/",)
    assert not transceiver.direct


def test_by_default_every_address_of_the_machine_is_listened_on_loopback_too():
    listen = read(Plan(StackConfig(udp_port=0), None, {}).relay(), RelayConfig).listen
    assert "127.0.0.1:0" in listen
    assert not any(text.startswith(("0.0.0.0", "[::]")) for text in listen)


def test_a_public_address_that_is_not_ours_is_offered_and_the_wildcard_is_listened_on():
    plan = Plan(StackConfig(public_address=("198.51.100.7",)), None, {})
    assert plan.listen_addresses() == ["0.0.0.0:3478"]
    environ = plan.transceiver("ws://127.0.0.1:1/", ["0.0.0.0:3478"])
    assert read(environ, TransceiverConfig).advertise == ("198.51.100.7:3478",)


def test_a_wildcard_replaces_the_addresses_of_its_own_family_only():
    plan = Plan(StackConfig(public_address=("198.51.100.7", "127.0.0.1", "::1")), None, {})
    assert plan.listen_addresses() == ["[::1]:3478", "0.0.0.0:3478"]
    environ = plan.transceiver("ws://127.0.0.1:1/", plan.listen_addresses())
    assert read(environ, TransceiverConfig).advertise == ("198.51.100.7:3478", "127.0.0.1:3478", "[::1]:3478")


def test_what_the_user_configured_is_left_alone(tmp_path: Path):
    file = tmp_path / "antiphon.toml"
    key = "00" * 32
    file.write_text(f'[routing]\ntrunk_keys = ["{key}"]\n[relay]\nlisten = ["127.0.0.1:4444"]\n')
    plan = Plan(LOOPBACK, file, {"ANTIPHON_AGENT_LISTEN": "127.0.0.1:9999"})
    assert plan.relay()["ANTIPHON_CONFIG"] == str(file)
    assert read(plan.relay(), RelayConfig).listen == ("127.0.0.1:4444",)
    assert read(plan.relay(), RoutingConfig).trunk_keys == (key,)
    assert read(plan.agent(), AgentConfig).listen == "127.0.0.1:9999"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_on_loopback_nobody_is_asked_who_may_call(host: str):
    Plan(StackConfig(host=host), None, {}).check_access()


@pytest.mark.parametrize("given", ["api_keys", "open_access", "http"])
def test_a_host_that_others_reach_asks_who_may_call_until_somebody_says(given: str):
    stack = StackConfig(host="0.0.0.0")
    with pytest.raises(ConfigError, match=r"stack\.host.*--api-keys.*--open-access"):
        Plan(stack, None, {}).check_access()
    Plan(stack, None, {f"ANTIPHON_TRANSCEIVER_{given.upper()}": "true"}).check_access()


def test_client_secrets_outlive_a_transceiver_that_is_started_again():
    started = Plan(LOOPBACK, None, {}).transceiver("ws://127.0.0.1:1/", ["127.0.0.1:2"])
    assert len(read(started, TransceiverConfig).secret_key) == 64


def test_a_process_that_comes_back_takes_the_addresses_it_had():
    plan = Plan(LOOPBACK, None, {})
    relay = plan.relay() | plan.rebind_relay({"listen": ["127.0.0.1:5000"], "trunk": "127.0.0.1:5001", "admin": "x"})
    assert (read(relay, RelayConfig).listen, read(relay, RelayConfig).trunk) == (("127.0.0.1:5000",), "127.0.0.1:5001")
    agent = plan.agent() | plan.rebind_agent({"listen": "127.0.0.1:5002"})
    assert read(agent, AgentConfig).listen == "127.0.0.1:5002"
    started = plan.transceiver("ws://127.0.0.1:1/", ["127.0.0.1:2"])
    transceiver = started | plan.rebind_transceiver({"http": ["http://127.0.0.1:5003"], "udp": "x"})
    assert read(transceiver, TransceiverConfig).http == ("127.0.0.1:5003",)


def test_the_admin_ports_stay_where_they_were_for_those_who_watch():
    plan = Plan(LOOPBACK, None, {})
    admin = {"admin": "http://127.0.0.1:5009"}
    relay = plan.relay() | plan.rebind_relay({"listen": ["127.0.0.1:5000"], "trunk": "127.0.0.1:5001"} | admin)
    assert read(relay, RelayConfig).admin == "127.0.0.1:5009"
    agent = plan.agent() | plan.rebind_agent({"listen": "127.0.0.1:5002"} | admin)
    assert read(agent, AgentConfig).admin == "127.0.0.1:5009"
    started = plan.transceiver("ws://127.0.0.1:1/", ["127.0.0.1:2"])
    again = started | plan.rebind_transceiver({"http": ["http://127.0.0.1:5003"]} | admin)
    assert read(again, TransceiverConfig).admin == "127.0.0.1:5009"
    nothing = Plan(LOOPBACK, None, {"ANTIPHON_RELAY_ADMIN": ""})
    assert "ANTIPHON_RELAY_ADMIN" not in nothing.rebind_relay({"listen": ["127.0.0.1:1"], "trunk": "x", "admin": None})


def test_workers_are_those_of_relay_and_transceiver_and_the_relays_trunk_ports_are_a_row_that_stays():
    plan = Plan(msgspec.structs.replace(LOOPBACK, workers=3), None, {})
    environ = plan.relay()
    relay = read(environ, RelayConfig)
    assert relay.workers == 3
    host, _, first = relay.trunk.rpartition(":")
    assert (host, int(first) > 0) == ("127.0.0.1", True)
    ports = [f"127.0.0.1:{int(first) + number}" for number in range(3)]
    again = environ | plan.rebind_relay({"listen": ["127.0.0.1:5000"], "trunk": ports})
    assert read(again, RelayConfig).trunk == relay.trunk
    assert read(plan.transceiver("ws://127.0.0.1:1/", ["127.0.0.1:2"]), TransceiverConfig).workers == 3
    own = Plan(msgspec.structs.replace(LOOPBACK, workers=3), None, {"ANTIPHON_TRANSCEIVER_WORKERS": "2"})
    assert own.transceiver("ws://127.0.0.1:1/", ["127.0.0.1:2"])["ANTIPHON_TRANSCEIVER_WORKERS"] == "2"


def test_without_a_relay_callers_reach_the_transceiver_itself():
    plan = Plan(msgspec.structs.replace(LOOPBACK, direct=True), None, {})
    transceiver = read(plan.transceiver("ws://127.0.0.1:1/", []), TransceiverConfig)
    assert transceiver.direct
    assert transceiver.listen == "127.0.0.1:0"


def test_without_a_relay_a_public_address_that_is_not_ours_is_refused():
    plan = Plan(StackConfig(direct=True, public_address=("198.51.100.7",)), None, {})
    with pytest.raises(ConfigError, match=r"stack\.public_address"):
        plan.transceiver("ws://127.0.0.1:1/", [])


@pytest.mark.parametrize(
    "wrong", [{"port": 65536}, {"workers": 257}, {"host": "localhost"}, {"public_address": ("relay.example",)}]
)
def test_a_wrong_value_is_refused(wrong: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StackConfig(**wrong)  # type: ignore[arg-type]


def test_callers_may_choose_among_the_agents_that_come_with_us_unless_the_user_has_one_of_his_own():
    agent = read(Plan(StackConfig(agent="echo"), None, {}).agent(), AgentConfig)
    assert agent.agent == "echo"
    assert {"parrot", "realtime"} <= set(agent.also)
    for own in (StackConfig(agent="mine:agent"), StackConfig(agent="meter")):
        assert read(Plan(own, None, {}).agent(), AgentConfig).also == ()
    environ = Plan(StackConfig(), None, {"ANTIPHON_AGENT_AGENT": "parrot"}).agent()
    assert (read(environ, AgentConfig).agent, read(environ, AgentConfig).also) == ("parrot", ())


def test_who_names_no_agent_gets_one_that_speaks_the_realtime_api():
    assert read(Plan(StackConfig(), None, {}).agent(), AgentConfig).agent in ("voice", "realtime")
