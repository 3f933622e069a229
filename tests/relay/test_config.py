"""The `[relay]` section: every mistake is named."""

from __future__ import annotations

import pytest

from protocol.routing import RoutingConfig
from relay.config import RelayConfig
from relay.settings import Settings, check_routing
from service.config import ConfigError, load
from service.logs import LogConfig


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("LISTEN", "", "relay.listen: at least one address"),
        ("LISTEN", ",".join(["127.0.0.1:0"] * 129), "relay.listen: at most 128"),
        ("LISTEN", "::1:80", "relay.listen: '::1:80' is not an address"),
        ("LATENCY_BUDGET_US", "-1", "relay.latency_budget_us: must be 0-20000"),
        ("LATENCY_BUDGET_US", "20001", "relay.latency_budget_us: must be 0-20000"),
        ("STUN_PER_SECOND", "0", "relay.stun_per_second: must be more than 0"),
        ("TRUNK", "here", "relay.trunk: 'here' is not an address"),
        ("WORKERS", "-1", "relay.workers: must be 0-256"),
        ("LATENCY_BUDGET_US", "abc", "relay.latency_budget_us: "),
        ("ADMIN", "x:1", "relay.admin: 'x:1' is not an address"),
        ("VERIFY", "nobody", "relay.verify: "),
        ("MAX_FLOWS", "0", "relay.max_flows: must be at least 1"),
        ("MAX_FLOWS", "1073741824", "relay.max_flows: with max_probationary at most 1073741824"),
        ("BATCH_SIZE", "1025", "relay.batch_size: must be 1-1024"),
        ("IDLE_SECONDS", "0", "relay.idle_seconds: must be more than 0"),
        ("PROBATIONARY_SECONDS", "nan", "relay.probationary_seconds: must be more than 0"),
    ],
)
def test_a_bad_value_is_refused_by_name(variable: str, value: str, complaint: str):
    with pytest.raises(ConfigError) as caught:
        load({"relay": RelayConfig}, None, {"ANTIPHON_RELAY_" + variable: value})
    assert str(caught.value).startswith(complaint)


def test_workers_that_would_have_no_trunk_port_are_refused():
    routing = RoutingConfig(keys=("1:" + "11" * 32,), trunk_keys=("22" * 32,))
    for workers, port in ((3, 65533), (3, 0), (1, 65535)):
        check_routing(Settings(RelayConfig(workers=workers, trunk=f"127.0.0.1:{port}"), routing, LogConfig()))
    with pytest.raises(ConfigError, match=r"^relay\.trunk: '127\.0\.0\.1:65534' leaves 3 workers too few ports"):
        check_routing(Settings(RelayConfig(workers=3, trunk="127.0.0.1:65534"), routing, LogConfig()))


def test_the_environment_sets_lists_and_switches():
    environ = {"ANTIPHON_RELAY_LISTEN": "127.0.0.1:0, [::1]:0", "ANTIPHON_RELAY_LEARN_FROM_REPLIES": "false"}
    config = load({"relay": RelayConfig}, None, environ)[RelayConfig]
    assert config.listen == ("127.0.0.1:0", "[::1]:0")
    assert not config.learn_from_replies
