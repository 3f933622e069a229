# ruff: noqa: ANN401
"""The core of a bridge, without call and service: whatever they say, in whatever order."""

from __future__ import annotations

import itertools
import json
import random
from base64 import b64encode
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_client import OFFICIAL

from agent.upstream.contact import Failure, Reach
from agent.upstream.orders import Dial, EndCall, Flush, Order, ToClient
from agent.upstream.playing import MAX_ANSWERS
from agent.upstream.session import BridgeSession
from agent.upstream.sound import Piece
from agent.upstream.statistics import UpstreamStatistics
from agent.upstream.uplink import MAX_EVENT_BYTES, MAX_EVENTS, Uplink

MAX_SOUND = 64 * 1024


class World:
    """A core with a player that plays when told to, at 24 kHz, 100 ms a piece."""

    def __init__(self, **offered: Any) -> None:
        self.now = 0.0
        self.statistics = UpstreamStatistics()
        self.uplink = Uplink(16_000, self.statistics, lambda: None)
        self.reach = Reach(10.0, 60.0, random.Random(3).randbytes, self.now)
        self.session = BridgeSession(
            self.reach,
            self.uplink,
            self.statistics,
            offered=offered or None,
            has_audio=True,
            max_sound_bytes=MAX_SOUND,
            entropy=random.Random(4).randbytes,
        )
        self.told: list[dict[str, Any]] = []
        self.orders: list[Order] = []
        self.flushes: list[Flush] = []
        self.sent: list[dict[str, Any]] = []
        self.played = 0.0
        self.ahead = 0.0
        self.take()

    def take(self) -> None:
        for order in self.session.poll():
            if isinstance(order, ToClient):
                self.told.append(json.loads(order.text))
            elif isinstance(order, Flush):
                self.flushes.append(order)
            else:
                self.orders.append(order)
        self.sent += [json.loads(event) for event in self.uplink.take()]

    def service(self, kind: str, **fields: Any) -> None:
        self.session.receive_service_untrusted(json.dumps({"type": kind, "event_id": "e", **fields}), self.now)
        self.take()

    def client(self, kind: str, **fields: Any) -> None:
        self.session.receive_client_untrusted(json.dumps({"type": kind, **fields}))
        self.take()

    def greet(self) -> None:
        self.service("session.created", session={"type": "realtime"})

    def sound(self, milliseconds: int, response: str = "r", item: str = "i", part: int = 0) -> None:
        delta = b64encode(bytes(48 * milliseconds)).decode()
        place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": part}
        self.service("response.output_audio.delta", delta=delta, **place)

    def done(self, response: str = "r", status: str = "completed") -> None:
        body = {"id": response, "object": "realtime.response", "status": status, "output": []}
        self.service("response.done", response=body)

    def send_piece(self) -> Piece | None:
        """The player takes the next piece and sends it."""
        playing = self.session.playing
        piece = playing.take()
        if piece is not None:
            milliseconds = len(piece.pcm) / 48
            if not milliseconds or playing.sounding(piece.sound, self.played + self.ahead, milliseconds):
                self.ahead += milliseconds
                playing.sent(piece)
        self.take()
        return piece

    def play(self, milliseconds: float) -> None:
        """So much of what was sent is heard, and reported."""
        heard = min(milliseconds, self.ahead)
        self.played += heard
        self.ahead -= heard
        self.session.playing.play_to(self.played)
        self.take()

    def finish_flush(self) -> None:
        if self.flushes:
            self.ahead = 0.0
            self.session.was_cut(self.flushes.pop(0).cut, self.played)
            self.take()

    def lose(self) -> None:
        self.session.lost(Failure("closed"), self.now)
        self.take()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.session.handle_timeout(self.now)
        self.take()

    def types(self) -> list[str]:
        return [event["type"] for event in self.told]


ACTIONS = st.one_of(
    st.tuples(st.just("sound"), st.integers(0, 300), st.sampled_from("rst"), st.sampled_from("ij"), st.integers(0, 1)),
    st.tuples(st.just("sound_done"), st.sampled_from("rst"), st.sampled_from("ij")),
    st.tuples(st.just("created"), st.sampled_from("rst")),
    st.tuples(st.just("done"), st.sampled_from("rst"), st.sampled_from(["completed", "cancelled"])),
    st.tuples(st.just("speech")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("send_piece")),
    st.tuples(st.just("send_piece")),
    st.tuples(st.just("play"), st.integers(1, 400)),
    st.tuples(st.just("finish_flush")),
    st.tuples(st.just("lose")),
    st.tuples(st.just("greet")),
    st.tuples(st.just("wait"), st.floats(0.1, 20)),
    st.tuples(st.just("client"), st.sampled_from(["response.create", "session.update", "input_audio_buffer.commit"])),
)


def act(world: World, action: tuple[Any, ...]) -> None:
    match action:
        case ("sound_done", response, item):
            place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
            world.service("response.output_audio.done", **place)
        case ("created", response):
            body = {"id": response, "object": "realtime.response", "status": "in_progress", "output": []}
            world.service("response.created", response=body)
        case ("speech",):
            world.service("input_audio_buffer.speech_started", audio_start_ms=0, item_id="u")
        case ("clear",):
            world.client("output_audio_buffer.clear")
        case ("client", "session.update"):
            world.client("session.update", session={"type": "realtime", "instructions": "x"})
        case (name, *arguments):
            getattr(world, name)(*arguments)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(actions=st.lists(ACTIONS, max_size=60))
def test_whatever_happens_what_is_heard_is_told_once_and_rightly(actions: list[tuple[Any, ...]]):
    world = World()
    for action in actions:
        act(world, action)
    while world.flushes:
        world.finish_flush()
    while world.send_piece() is not None:
        world.play(1000)
    world.play(1e9)
    for event in world.told:
        OFFICIAL.validate_python(event)
    heard: dict[str, list[str]] = {}
    for event in world.told:
        if event["type"].startswith("output_audio_buffer."):
            heard.setdefault(event["response_id"], []).append(event["type"].rpartition(".")[2])
    over = {event["response"]["id"] for event in world.told if event["type"] == "response.done"}
    for response, words in heard.items():
        assert words in (["started"], ["started", "stopped"], ["started", "cleared"])
        assert response not in over or len(words) == 2, "what is over comes to an end"
    for event in world.sent:
        if event["type"] == "conversation.item.truncate":
            assert 0 <= event["audio_end_ms"] <= world.played


def test_no_more_responses_are_kept_than_the_bound_however_many_never_end():
    world = World()
    world.greet()
    for number in range(1000):
        world.sound(20, f"r{number}")
        while world.send_piece() is not None:
            world.play(1000)
    assert len(world.session.playing._answers) <= MAX_ANSWERS
    assert Counter(world.types())["output_audio_buffer.started"] == 1000
    assert Counter(world.types())["output_audio_buffer.stopped"] >= 1000 - MAX_ANSWERS


def test_what_waits_for_a_service_that_is_away_is_bounded():
    world = World()
    for _ in range(2000):
        world.uplink.hear(bytes(640))
        world.client("conversation.item.create", item={"type": "message", "x": "x" * 10_000})
    assert world.statistics.uplink_dropped_ms == pytest.approx(2000 * 20 - 10_000, abs=20)
    assert len(world.uplink._events) <= MAX_EVENTS
    assert world.uplink._event_bytes <= MAX_EVENT_BYTES
    assert world.statistics.drops["client_event_waits"] == 2000 - len(world.uplink._events)


def test_sound_beyond_its_bound_is_told():
    world = World()
    world.greet()
    world.sound(1000)
    assert not world.session.playing.is_full
    world.sound(1000)
    assert world.session.playing.is_full


def test_a_service_is_called_again_ever_more_slowly_and_then_given_up():
    world = World()
    assert world.orders == [Dial()]
    calls = [0.0]
    while not any(isinstance(order, EndCall) for order in world.orders):
        before = len(world.orders)
        world.lose()
        world.wait(max(0.0, world.session.next_timeout() - world.now))
        calls += [world.now] * (len(world.orders) - before)
    gaps = [later - sooner for sooner, later in itertools.pairwise(calls)]
    assert gaps[0] < 1
    assert max(gaps) <= 10
    assert world.now == pytest.approx(60, abs=1)
    assert world.orders[-1] == EndCall("upstream_closed")


def test_a_connection_that_lasted_forgives_what_was_before():
    world = World()
    for _ in range(50):
        world.lose()
        world.wait(10)
        world.greet()
        world.wait(11)
    assert world.statistics.losses == {"closed": 50}
    assert not any(isinstance(order, EndCall) for order in world.orders)


def test_a_response_that_was_under_way_when_the_service_was_lost_is_told_to_have_failed():
    world = World()
    world.greet()
    body = {"id": "r", "object": "realtime.response", "status": "in_progress", "output": [], "metadata": {"mine": "1"}}
    world.service("response.created", response=body)
    world.sound(200, "s")
    world.lose()
    done = [event["response"] for event in world.told if event["type"] == "response.done"]
    assert [(response["id"], response["status"]) for response in done] == [("r", "failed"), ("s", "failed")]
    assert done[0]["metadata"] == {"mine": "1"}
    assert [event["error"]["code"] for event in world.told if event["type"] == "error"] == ["upstream_lost"]


def test_an_item_cut_before_any_of_it_was_heard_is_truncated_at_nothing_and_not_told():
    world = World()
    world.greet()
    world.sound(500)
    world.client("output_audio_buffer.clear")
    world.finish_flush()
    assert world.sent == [
        {
            "type": "conversation.item.truncate",
            "event_id": world.sent[0]["event_id"],
            "item_id": "i",
            "content_index": 0,
            "audio_end_ms": 0,
        }
    ]
    assert "output_audio_buffer.cleared" not in world.types()


def test_an_answer_of_which_more_is_made_is_truncated_at_all_that_came():
    world = World()
    world.greet()
    world.sound(300)
    while world.send_piece() is not None:
        world.play(1000)
    world.client("output_audio_buffer.clear")
    world.finish_flush()
    assert world.sent[0]["audio_end_ms"] == 300


def test_nothing_new_is_played_before_the_old_is_gone():
    world = World()
    world.greet()
    world.sound(500)
    world.send_piece()
    world.client("output_audio_buffer.clear")
    world.sound(500, "s")
    assert world.send_piece() is None
    world.finish_flush()
    assert world.send_piece() is not None


def test_a_further_session_may_use_the_names_of_the_first():
    world = World()
    world.greet()
    for _ in range(2):
        world.sound(300)
        world.done()
        while world.send_piece() is not None:
            world.play(1000)
        world.lose()
        world.wait(10)
        world.greet()
    assert world.types().count("output_audio_buffer.stopped") == 2
