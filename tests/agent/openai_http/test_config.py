"""`[agent.openai]`: what is refused before anything starts, where keys come from, and the way from a name to a part."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from openai_server import OpenAiServer

from agent.config import AgentConfig
from agent.openai_http.config import DialogueEndpoint, read_key
from agent.realtime.registry import make_dialogue, make_recognizer, make_speaker
from service.config import ConfigError, load

MINIMAL = """
[agent]
recognizer = "openai"
dialogue = "openai"
speaker = "openai"
[agent.openai.dialogue]
base_url = "http://127.0.0.1:11434/v1"
model = "llama3.2"
"""


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., AgentConfig]:
    """`configure(toml, VARIABLE="…")`"""

    def configure(text: str, **environ: str) -> AgentConfig:
        file = tmp_path / "antiphon.toml"
        file.write_text(text)
        return load({"agent": AgentConfig}, file, environ)[AgentConfig]

    return configure


def test_a_table_for_each_part_and_variables_over_it(configure: Callable[..., AgentConfig]):
    config = configure(
        MINIMAL + 'extra = { temperature = 0.3 }\n[agent.openai.speaker]\nvoice = "heart"\nvoices = ["nova"]\n',
        ANTIPHON_AGENT_OPENAI_DIALOGUE_MODEL="qwen3",
        ANTIPHON_AGENT_OPENAI_DIALOGUE_FIRST_BYTE_SECONDS="60",
        ANTIPHON_AGENT_OPENAI_SPEAKER_VOICES="nova,sky",
        ANTIPHON_AGENT_SPEAKER="openai",
    ).openai
    assert (config.dialogue.model, config.dialogue.first_byte_seconds) == ("qwen3", 60.0)
    assert config.dialogue.extra == {"temperature": 0.3}
    assert (config.speaker.voice, config.speaker.voices) == ("heart", ("nova", "sky"))


@pytest.mark.parametrize(
    ("table", "line", "place"),
    [
        ("dialogue", 'base_url = "127.0.0.1:11434"', "dialogue.base_url"),
        ("dialogue", 'base_url = "http://user:passw0rd@127.0.0.1/v1"', "dialogue.base_url"),
        ("dialogue", 'base_url = "http://127.0.0.1/v1?api_key=passw0rd"', "dialogue.base_url"),
        ("dialogue", 'base_url = "http://127.0.0.1:99999/v1"', "dialogue.base_url"),
        ("dialogue", 'base_url = "http://[::1/v1"', "dialogue.base_url"),
        ("dialogue", "stall_seconds = 0", "dialogue.stall_seconds"),
        ("dialogue", "attempts = 0", "dialogue.attempts"),
        ("dialogue", "retry_seconds = -1", "dialogue.retry_seconds"),
        ("dialogue", "max_connections = 0", "dialogue.max_connections"),
        ("dialogue", 'api_key_env = "A"\napi_key_file = "b"', "dialogue.api_key_env"),
        ("dialogue", 'max_tokens_field = "tokens"', "dialogue.max_tokens_field"),
        ("recognizer", "extra = { a = [1] }", "recognizer.extra"),
        ("speaker", "rate = 44", "speaker.rate"),
        ("speaker", 'voices = ["nova"]', "speaker.voices"),
        ("speaker", "rates = 1", "speaker.rates"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    configure: Callable[..., AgentConfig], table: str, line: str, place: str
):
    with pytest.raises(ConfigError) as refused:
        configure(f"[agent.openai.{table}]\n{line}\n")
    assert refused.value.key == f"agent.openai.{place}"
    assert "passw0rd" not in str(refused.value)


def test_a_part_that_is_chosen_needs_a_server_and_a_model(configure: Callable[..., AgentConfig]):
    config = configure(MINIMAL.replace("model =", "#"))
    for make, place in ((make_dialogue, "dialogue.model"), (make_speaker, "speaker.base_url")):
        with pytest.raises(ConfigError) as refused:
            make(config)
        assert refused.value.key == f"agent.openai.{place}"


def test_a_key_is_read_from_a_variable_or_a_file_and_must_be_one(tmp_path: Path):
    def key(**fields: str) -> str | None:
        return read_key(
            DialogueEndpoint(**fields), "here", {"KEY": " sk-1 ", "EMPTY": "", "TWO": "sk-1 sk-2", "ODD": "sk-é"}
        )

    file = tmp_path / "key"
    file.write_text("sk-2\n")
    assert (key(), key(api_key_env="KEY"), key(api_key_file=str(file))) == (None, "sk-1", "sk-2")
    for name in ("EMPTY", "MISSING", "TWO", "ODD"):
        with pytest.raises(ConfigError, match=r"^here\.api_key_env") as refused:
            key(api_key_env=name)
        assert "sk-" not in str(refused.value)
    for content in (b"", b"\xff\xfe", b"x" * 5000):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"^here\.api_key_file"):
            key(api_key_file=str(file))
    with pytest.raises(ConfigError, match="No such file"):
        key(api_key_file=str(tmp_path / "none"))


@pytest.mark.slow
async def test_parts_made_by_their_name_ask_a_real_server_over_tcp(
    configure: Callable[..., AgentConfig],
    server: OpenAiServer,
    plan,
    notebook,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("SOME_KEY", "sk-3")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, server.serve, listeners)
    port = listeners[0].socket.getsockname()[1]
    config = configure(MINIMAL.replace("11434", str(port)) + 'api_key_env = "SOME_KEY"\n')
    dialogue, writer = make_dialogue(config), notebook()
    await dialogue.answer(plan(), None, writer)
    await dialogue.answer(plan(), None, writer)
    assert "".join(text for _, text in writer.notes) == "It is noon." * 2
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-3"}
    assert server.connections == 1

    async def waits(_) -> None:
        await trio.sleep_forever()

    server.script.append(waits)
    with trio.move_on_after(0.05):
        await dialogue.answer(plan(), None, writer)
    with trio.fail_after(1):
        while not server.hangups:
            await trio.sleep(0.01)
    await dialogue.aclose()  # type: ignore[attr-defined]
    nursery.cancel_scope.cancel()


def test_the_example_in_the_docs_is_one(configure: Callable[..., AgentConfig]):
    text = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    [example] = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[agent.openai." in block]
    config = configure(example)
    assert (make_speaker(config).rate, config.openai.dialogue.extra) == (24_000, {"temperature": 0.4})
    assert make_dialogue(config)
    assert make_recognizer(config)


def test_a_session_may_do_without_a_recognizer(configure: Callable[..., AgentConfig]):
    assert make_recognizer(configure(MINIMAL, ANTIPHON_AGENT_RECOGNIZER="none")) is None
