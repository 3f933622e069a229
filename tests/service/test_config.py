"""Configuration: what is accepted, and that each refusal names its key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from service.config import ConfigError, exit_for, load, overriding


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    drain: float = 1.0

    def __post_init__(self) -> None:
        if self.drain <= 0:
            raise ValueError("drain: must be positive")


class Relay(msgspec.Struct, frozen=True, kw_only=True):
    listen: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.1:3478"])
    max_flows: int = 1000
    verify: bool = False
    format: Literal["console", "json"] = "json"
    timeouts: Timeouts = Timeouts()

    def __post_init__(self) -> None:
        if self.max_flows < 1:
            raise ValueError("max_flows: must be at least 1")


SECTIONS = {"relay": Relay}


def write(folder: Path, text: str) -> Path:
    file = folder / "antiphon.toml"
    file.write_text(text)
    return file


def test_defaults_apply_without_a_file_and_without_an_environment():
    assert load(SECTIONS, None, {})[Relay] == Relay()


def test_the_environment_overrides_the_file_and_the_file_overrides_the_defaults(tmp_path: Path):
    file = write(tmp_path, '[relay]\nmax_flows = 7\nlisten = ["[::1]:1"]\n[transceiver]\nanything = 1\n')
    environ = {"ANTIPHON_CONFIG": str(file), "ANTIPHON_RELAY_LISTEN": "127.0.0.1:1, [::1]:2", "PATH": "/bin"}
    assert load(SECTIONS, None, environ)[Relay] == Relay(max_flows=7, listen=["127.0.0.1:1", "[::1]:2"])


def test_an_environment_written_for_a_child_process_is_read_back_equal():
    values = {"listen": ["[::1]:9", "127.0.0.1:9"], "max_flows": 5, "verify": True}
    environ = overriding("relay", values | {"unset": None})
    assert load(SECTIONS, None, environ)[Relay] == Relay(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "environ", "key"),
    [
        ("[relay]\nmax_flow = 1", {}, "relay.max_flow"),
        ("[relai]\n", {}, "relai"),
        ("relay = 1", {}, "relay"),
        ("[relay]\nmax_flows = 'many'", {}, "relay.max_flows"),
        ("[relay]\nmax_flows = 0", {}, "relay.max_flows"),
        ("[relay]\nlisten = [1]", {}, "relay.listen[0]"),
        ("[relay.timeouts]\ndrian = 1", {}, "relay.timeouts.drian"),
        ("[relay.timeouts]\ndrain = 'soon'", {}, "relay.timeouts.drain"),
        ("[relay.timeouts]\ndrain = 0", {}, "relay.timeouts.drain"),
        ("", {"ANTIPHON_RELAY_MAX_FLOW": "1"}, "ANTIPHON_RELAY_MAX_FLOW"),
        ("", {"ANTIPHON_RELAY_VERIFY": "perhaps"}, "relay.verify"),
        ("", {"ANTIPHON_REALY_VERIFY": "1"}, "ANTIPHON_REALY_VERIFY"),
        ("[relay", {}, "antiphon.toml"),
    ],
)
def test_a_wrong_configuration_is_refused_and_the_refusal_names_the_key(
    tmp_path: Path, text: str, environ: dict[str, str], key: str
):
    with pytest.raises(ConfigError) as refused:
        load(SECTIONS, write(tmp_path, text), environ)
    assert refused.value.key.endswith(key)
    assert "\n" not in str(refused.value)


def test_the_environment_reaches_a_table_inside_a_section():
    assert load(SECTIONS, None, {"ANTIPHON_RELAY_TIMEOUTS_DRAIN": "2.5"})[Relay].timeouts.drain == 2.5
    with pytest.raises(ConfigError, match="did you mean drain"):
        load(SECTIONS, None, {"ANTIPHON_RELAY_TIMEOUTS_DRAN": "2.5"})


def test_a_misspelt_key_comes_with_the_nearest_right_one(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean max_flows"):
        load(SECTIONS, write(tmp_path, "[relay]\nmax_flow = 1"), {})


def test_a_word_that_a_key_does_not_know_comes_with_those_that_it_does():
    with pytest.raises(ConfigError) as refused:
        load(SECTIONS, None, {"ANTIPHON_RELAY_FORMAT": "xml"})
    assert str(refused.value) == "relay.format: must be console or json, not 'xml'"


def test_a_missing_file_is_an_error_not_a_default(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        load(SECTIONS, tmp_path / "absent.toml", {})


def test_a_configuration_error_ends_the_process_with_status_2_and_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        exit_for(ConfigError("relay.listen", "is empty"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "config: relay.listen: is empty\n"


def test_the_variable_with_the_load_generators_key_is_none_of_the_configurations():
    assert load(SECTIONS, None, {"ANTIPHON_LOAD_KEY": "sk-secret"})[Relay] == Relay()
    with pytest.raises(ConfigError, match="unknown variable"):
        load(SECTIONS, None, {"ANTIPHON_LOAD_KEYS": "sk-secret"})
