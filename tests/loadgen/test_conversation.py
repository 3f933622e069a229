"""A caller's conversation with a session of the Realtime API, in virtual time: the session is the agent's own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_client import Client
from rich.console import Console

from agent.realtime.orders import CutAudio, Generate, Transcribe
from loadgen.conversation import Conversation
from loadgen.driver import Driver
from loadgen.options import parse_options
from loadgen.page import render_page
from loadgen.realtime import House, Output
from loadgen.report import render, summarize_result
from loadgen.result import CallResult, collect
from loadgen.scenario import Run
from loadgen.script import Habits, Script, Sentence
from loadgen.sound import is_sound_untrusted
from loadgen.stages import CONVERSATION_STAGES
from loadgen.turns import TurnFigures
from protocol.codecs import PCMU

TICK = 0.020
SILENCE = PCMU.silence
SOUND = bytes(range(160))
SENTENCE = (SILENCE,) * 2 + (SOUND,) * 60 + (SILENCE,) * 10
SCRIPT = Script((Sentence("lights", {"PCMU": SENTENCE}, 2, 61),), {"PCMU": SILENCE})


class Talk:
    """A caller and an agent who hears at once: a turn begins after 100 ms of speech, ends after 500 ms of silence, is answered
    200 ms later with `answer_ms` of sound behind `lead_ms` of silence. Attributes change what the agent does."""

    def __init__(self, script: Script = SCRIPT, **habits: float) -> None:
        self.client = Client()
        self.session = self.client.session
        self.figures = TurnFigures()
        self.conversation = Conversation(0, script, self.figures, Habits(**habits))
        self.conversation.use_codec("PCMU")
        self.now = 100.0
        self.hears = self.clears = True
        self.transcript: str | None = "turn on the light"
        self.think_ms, self.lead_ms, self.answer_ms = 200.0, 60.0, 1000.0
        self.call: tuple[str, str] | None = None
        self.fails = False
        self.withholds = False
        self.withheld: list[dict] = []
        self.said: list[str] = []
        self._voiced = self._unvoiced = 0
        self._speaks = False
        self._answers: list[tuple[float, Callable[[], None]]] = []
        self._playing: list[tuple[str, bytes]] = []
        self._taken = 0
        for event in self.client.events:
            self._tell(event)

    def run(self, seconds: float) -> Talk:
        for _ in range(round(seconds / TICK)):
            self.tick()
        return self

    def run_until(self, condition: Callable[[], bool], limit: float = 30.0) -> Talk:
        end = self.now + limit
        while not condition():
            assert self.now < end, "it did not happen in time"
            self.tick()
        return self

    def tick(self) -> None:
        self.now = self.client.now = self.now + TICK
        conversation = self.conversation
        if self.now >= conversation.due:
            conversation.handle_timeout(self.now)
        self._send()
        frame = conversation.frame()
        conversation.frame_left(self.now)
        self._hear(frame)
        for due in [due for due in self._answers if due[0] <= self.now]:
            self._answers.remove(due)
            due[1]()
        self._play()
        self._take()
        self._send()

    # The agent

    def _hear(self, frame: bytes) -> None:
        self.session.heard(20.0)
        heard = self.session._heard_ms
        if is_sound_untrusted("PCMU", frame) and self.hears:
            self._voiced, self._unvoiced = self._voiced + 1, 0
        else:
            self._unvoiced += 1
        if not self._speaks and self._voiced >= 5:
            self._speaks = True
            self.session.speech_began(heard - 100, self.now)
        elif self._speaks and self._unvoiced >= 25:
            self._speaks, self._voiced = False, 0
            self.session.speech_ended(heard, self.now)

    def _play(self) -> None:
        if not self._playing:
            return
        response_id, payload = self._playing.pop(0)
        self.conversation.hear_untrusted(payload, self.now)
        if not any(name == response_id for name, _ in self._playing):
            self.session.played_out(response_id, self.now)

    def _take(self) -> None:
        for event in self.client.take():
            self._tell(event)
        orders, self._taken = self.client.orders[self._taken :], len(self.client.orders)
        for order in orders:
            match order:
                case Generate():
                    self._later(self.think_ms, lambda plan=order.plan: self._answer(plan))
                case Transcribe():
                    words = self.transcript
                    if words is None:
                        self.session.transcription_failed(order.item_id, "no")
                    else:
                        self.session.transcribed(order.item_id, words, 1.0)
                case CutAudio():
                    heard = 20.0 * sum(name != order.response_id for name, _ in self._playing)
                    if self.clears:
                        self._playing.clear()
                        self.session.was_cut(order.response_id, heard, self.now)
        if self.client.session._outputs:
            self._take()

    def _answer(self, plan) -> None:
        session, name = self.session, plan.response_id
        if self.fails:
            session.failed(name, "out of order", self.now)
            return
        if self.call is not None and not any(getattr(item, "output", None) for item in plan.items):
            session.call(name, self.call[0])
            session.argue(name, self.call[1])
        elif session.may_sound(name):
            session.say(name, "Yes.")
            milliseconds = self.lead_ms + self.answer_ms
            if milliseconds:
                session.sound(name, milliseconds, self.now)
            frames = [SILENCE] * round(self.lead_ms / 20) + [SOUND] * round(self.answer_ms / 20)
            self._playing += [(name, frame) for frame in frames]
        session.completed(name, self.now)

    def _later(self, milliseconds: float, action: Callable[[], None]) -> None:
        self._answers.append((self.now + milliseconds / 1000 - 1e-9, action))

    def _tell(self, event: dict) -> None:
        if self.withholds and event["type"] == "output_audio_buffer.cleared":
            self.withheld.append(event)
            return
        self.conversation.receive_untrusted(json.dumps(event), self.now)

    def _send(self) -> None:
        while self.conversation.messages:
            message = self.conversation.messages.pop(0)
            self.said.append(message)
            self.session.receive_untrusted(message, self.now)
            self._take()


def milliseconds(histogram) -> int | None:
    value = histogram.percentile(1.0)
    return None if value is None else round(value * 1000)


def turns(talk: Talk) -> tuple[int, int, int, dict[str, int]]:
    figures = talk.figures
    return figures.asked, figures.completed, figures.interrupted, figures.failed


def test_a_turn_is_timed_from_the_last_voiced_frame_that_left_to_the_first_sound_of_the_answer():
    talk = Talk()
    talk.run_until(lambda: talk.figures.completed == 1)
    figures = talk.figures
    assert turns(talk) == (1, 1, 0, {})
    assert figures.unread == 0
    assert milliseconds(figures.hearing) == 500
    assert milliseconds(figures.deciding) == 0
    assert milliseconds(figures.speaking) == 200
    assert milliseconds(figures.silence) == 60
    assert milliseconds(figures.answer) == 760
    assert figures.heard == {"turn on the light": 1}


def test_the_caller_thinks_after_an_answer_and_goes_on_until_he_is_to_finish():
    talk = Talk(think=0.5)
    talk.run_until(lambda: talk.figures.asked == 3)
    began = talk.now
    talk.run_until(lambda: talk.figures.completed == 3)
    assert talk.now - began == pytest.approx(0.04 + 1.2 + 0.5 + 0.2 + 1.06, abs=0.05)
    talk.run_until(lambda: talk.figures.asked == 4)
    assert talk.now - began == pytest.approx(3.0 + 0.5, abs=0.05)
    talk.conversation.finish(talk.now)
    assert not talk.conversation.is_over
    talk.run_until(lambda: talk.conversation.is_over)
    assert turns(talk) == (4, 4, 0, {})
    talk.run(5.0)
    assert talk.figures.asked == 4


def test_a_caller_who_thinks_finishes_at_once_and_one_who_is_hung_up_on_has_a_failed_turn():
    talk = Talk(think=2.0).run(0.5)
    talk.conversation.finish(talk.now)
    assert talk.conversation.is_over
    talk = Talk()
    talk.run_until(lambda: talk.figures.asked == 1).run(0.5)
    talk.conversation.hang_up(talk.now)
    assert talk.conversation.is_over
    assert turns(talk) == (1, 0, 0, {"call_ended": 1})


def test_every_second_answer_is_spoken_over_and_falls_silent():
    talk = Talk(interrupt_every=2)
    talk.answer_ms = 4000
    talk.run_until(lambda: talk.figures.interrupted == 2, limit=60)
    figures = talk.figures
    assert (figures.interruptions, figures.honoured, figures.over_before) == (2, 2, 0)
    assert milliseconds(figures.cleared) == 80  # five frames of speech, the first of them at 0
    assert milliseconds(figures.silenced) == 80
    assert figures.asked == 5
    talk.conversation.finish(talk.now)
    talk.run_until(lambda: talk.conversation.is_over)
    assert turns(talk) == (5, 3, 2, {})


def test_an_answer_that_goes_on_when_it_is_spoken_over_has_not_been_silenced():
    talk = Talk(interrupt_every=1)
    talk.client.configure(audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}})
    talk.answer_ms = 4000
    talk.run_until(lambda: talk.figures.interruptions == 1, limit=60)
    assert (talk.figures.honoured, talk.figures.failed) == (0, {"not_silenced": 1})


def test_a_buffer_that_is_said_to_be_cleared_while_its_sound_goes_on_is_not_silenced():
    talk = Talk(interrupt_every=1)
    talk.clears = False
    talk.answer_ms = 4000
    talk.run_until(lambda: talk.figures.asked == 2, limit=60)
    response = next(iter(talk.conversation._responses))
    talk._tell({"type": "output_audio_buffer.cleared", "response_id": response})
    talk.run_until(lambda: talk.figures.interruptions == 1)
    assert (talk.figures.honoured, talk.figures.failed) == (0, {"not_silenced": 1})


@pytest.mark.parametrize(("told_after", "failed"), [(1.4, {}), (3.0, {"not_silenced": 1})])
def test_an_event_that_comes_late_makes_no_silence_late_but_it_has_to_come(told_after: float, failed: dict[str, int]):
    talk = Talk(interrupt_every=1)
    talk.answer_ms, talk.think_ms = 4000, 200
    talk.run_until(lambda: talk.figures.asked == 2, limit=60)
    talk.think_ms = 10_000
    talk.withholds = True
    talk.run(told_after)
    talk.withholds = False
    for event in talk.withheld:
        talk._tell(event)
    assert turns(talk) == (2, 0, 0 if failed else 1, failed)
    assert milliseconds(talk.figures.silenced) == (None if failed else 80)


def test_an_interruption_of_an_answer_that_is_at_its_end_says_nothing():
    talk = Talk(interrupt_every=1)
    talk.answer_ms = 560  # the caller begins after 500
    talk.run_until(lambda: talk.figures.interruptions == 1, limit=60)
    assert (talk.figures.over_before, talk.figures.honoured) == (1, 0)
    assert turns(talk)[1:] == (1, 0, {})


def test_functions_are_answered_and_the_response_to_their_results_belongs_to_the_turn():
    talk = Talk()
    talk.call = "set_light", '{"room":"kitchen","on":true}'
    talk.run_until(lambda: talk.figures.completed == 1)
    assert talk.figures.functions == 1
    assert talk.figures.asked == 1
    assert talk.conversation._house.lights["kitchen"]
    kinds = [json.loads(message)["type"] for message in talk.said]
    assert kinds == ["session.update", "conversation.item.create", "response.create"]
    assert milliseconds(talk.figures.answer) == 500 + 200 + 200 + 60


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (Output("function_call", "c", "get_lights", "{}"), "kitchen"),
        (Output("function_call", "c", "set_light", '{"room":"all","on":true}'), "true"),
        (Output("function_call", "c", "set_light", '{"room":"cellar","on":true}'), "error"),
        (Output("function_call", "c", "set_light", "[" * 100_000), "error"),
        (Output("function_call", "c", "set_light", '{"room":3}'), "error"),
        (Output("function_call", "c", "explode", "{}"), "error"),
    ],
)
def test_whatever_function_is_called_has_a_result(call: Output, result: str):
    assert result in House().run_untrusted(call).output


def no_detection(talk: Talk) -> None:
    talk.hears = False


def no_response(talk: Talk) -> None:
    talk.client.configure(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})


def slow_model(talk: Talk) -> None:
    talk.think_ms = 20_000


def nothing_understood(talk: Talk) -> None:
    talk.think_ms, talk.transcript = 20_000, None


def no_sound(talk: Talk) -> None:
    talk.lead_ms = talk.answer_ms = 0


def only_silence(talk: Talk) -> None:
    talk.answer_ms = 0


def broken_model(talk: Talk) -> None:
    talk.fails = True


def endless_answer(talk: Talk) -> None:
    talk.answer_ms = 80_000


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (no_detection, "not_heard"),
        (no_response, "no_response"),
        (slow_model, "no_answer"),
        (nothing_understood, "no_transcript"),
        (no_sound, "no_answer"),
        (only_silence, "no_answer"),
        (broken_model, "error_model_failed"),
        (endless_answer, "no_end"),
    ],
)
def test_a_turn_that_is_not_answered_says_why_and_the_next_one_is_asked(fault: Callable[[Talk], None], reason: str):
    talk = Talk()
    talk.run_until(lambda: talk.conversation.is_ready)
    fault(talk)
    talk.run_until(lambda: bool(talk.figures.failed), limit=90)
    assert turns(talk) == (1, 0, 0, {reason: 1})
    talk.run_until(lambda: talk.figures.asked == 2, limit=90)


def test_an_answer_that_somebody_else_cuts_is_a_failed_turn():
    talk = Talk()
    talk.answer_ms = 3000
    talk.run_until(lambda: bool(talk._playing)).run(0.5)
    talk.session.receive_untrusted('{"type":"output_audio_buffer.clear"}', talk.now)
    talk.run(0.1)
    assert turns(talk) == (1, 0, 0, {"cut": 1})


def test_an_error_is_the_reason_of_the_turn_in_which_it_comes():
    talk = Talk()
    talk.run_until(lambda: talk.figures.asked == 1).run(0.3)
    talk._tell({"type": "error", "error": {"type": "server_error", "code": "Rate Limit!", "message": "slower"}})
    assert talk.figures.failed == {"error_rate_limit": 1}
    assert talk.conversation.frame() == SILENCE


def test_the_caller_lets_a_greeting_end_before_the_first_sentence():
    talk = Talk(think=0.4)
    talk.answer_ms = 3000
    talk.session.receive_untrusted('{"type":"response.create"}', talk.now)
    talk.run_until(lambda: talk.figures.asked == 1)
    assert not talk._playing
    assert talk.now - 100.0 > 3.0
    talk.run_until(lambda: talk.figures.completed == 1)
    assert (talk.figures.unasked, talk.figures.failed) == (1, {})


@pytest.mark.parametrize("seconds_before", [-0.02, 0.4])
def test_a_greeting_that_the_sentence_cuts_is_no_answer_to_it(seconds_before: float):
    talk = Talk(think=1.0)
    talk.think_ms = 0
    talk.answer_ms = 3000
    talk.run(1.0 - seconds_before)
    talk.session.receive_untrusted('{"type":"response.create"}', talk.now)
    talk.think_ms = 200
    talk.run_until(lambda: talk.figures.completed == 1)
    assert (talk.figures.unasked, talk.figures.failed) == (1, {})
    assert milliseconds(talk.figures.answer) == 760


@pytest.mark.slow
def test_whatever_comes_in_whatever_order_no_turn_is_counted_twice_or_not_at_all():
    kinds = (
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_stopped",
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.input_audio_transcription.failed",
        "response.created",
        "response.done",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "output_audio_buffer.cleared",
        "error",
    )
    call = {"type": "function_call", "call_id": "c", "name": "get_lights", "arguments": "{}"}
    event = st.fixed_dictionaries(
        {
            "type": st.sampled_from(kinds),
            "response_id": st.sampled_from(["a", "b", None]),
            "response": st.fixed_dictionaries(
                {
                    "id": st.sampled_from(["a", "b", "c"]),
                    "status": st.sampled_from(["completed", "cancelled", "failed", "incomplete", ""]),
                    "output": st.lists(st.just(call), max_size=2),
                }
            ),
            "transcript": st.sampled_from(["", "hello", None]),
        }
    )
    step = st.one_of(
        event.map(json.dumps),
        st.sampled_from([SOUND, SILENCE]),
        st.floats(0.02, 12.0),
    )

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.lists(step, max_size=60))
    def follow(steps) -> None:
        figures = TurnFigures()
        conversation = Conversation(1, SCRIPT, figures, Habits(interrupt_every=1))
        conversation.use_codec("PCMU")
        now = 1.0
        for one in ['{"type":"session.created"}', '{"type":"session.updated"}', *steps]:
            match one:
                case str():
                    conversation.receive_untrusted(one, now)
                case bytes():
                    conversation.hear_untrusted(one, now)
                case _:
                    for _ in range(min(100, round(one / TICK))):
                        now += TICK
                        conversation.messages.clear()
                        if now >= conversation.due:
                            conversation.handle_timeout(now)
                        conversation.frame_left(now)
        conversation.hang_up(now)
        failed = sum(figures.failed.values())
        assert figures.asked == figures.completed + figures.interrupted + failed
        assert conversation.counts() == {
            "asked": figures.asked,
            "completed": figures.completed + figures.interrupted,
            "failed": failed,
        }
        assert conversation.is_over
        assert len(conversation._responses) <= 32

    follow()


@pytest.mark.slow
def test_any_message_and_any_frame_is_taken():
    conversation = Conversation(1, SCRIPT, TurnFigures(), Habits())
    conversation.use_codec("PCMU")

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.one_of(st.binary(max_size=60), st.text(max_size=60)), st.binary(max_size=60))
    def take(message: bytes | str, payload: bytes) -> None:
        conversation.receive_untrusted(message, 1.0)
        conversation.hear_untrusted(payload, 1.0)
        for codec in ("opus", "PCMU", "PCMA"):
            is_sound_untrusted(codec, payload)

    take()


def test_a_server_that_thinks_up_ever_new_words_fills_nothing():
    talk = Talk()
    for number in range(1000):
        talk._tell(
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "transcript": f"{number} " + "word " * 100,
            }
        )
        talk._tell({"type": "response.created", "response": {"id": f"r{number}"}})
    assert len(talk.figures.heard) <= 41
    assert max(map(len, talk.figures.heard)) <= 80
    assert len(talk.conversation._responses) <= 32


def test_figures_of_several_processes_add_up_as_if_there_had_been_one():
    one, other = Talk(interrupt_every=1).run(6.0), Talk().run(4.0)
    whole = TurnFigures()
    whole.merge(one.figures)
    whole.merge(other.figures)
    assert whole.asked == one.figures.asked + other.figures.asked
    assert whole.heard == {"turn on the light": sum(talk.figures.heard["turn on the light"] for talk in (one, other))}
    assert whole.answer.count == one.figures.answer.count + other.figures.answer.count
    assert whole.interruptions == one.figures.interruptions > 0


def report(talk: Talk) -> tuple[bool, str]:
    run = Run(parse_options(["--conversation", "--calls", "1"]), Driver(lambda: 0.0), script=SCRIPT, started_at=0.0)
    run.turns = talk.figures
    result = collect(run)
    result.calls = [
        CallResult(
            number=0,
            ready=True,
            reached=dict.fromkeys(CONVERSATION_STAGES, 0.2),
            turns=talk.conversation.counts(),
        )
    ]
    summary = summarize_result(result, run.options)
    console = Console(file=io.StringIO(), width=100)
    for part in render(summary):
        console.print(part, soft_wrap=True)
    page = render_page(summary, [], "just load")
    assert "what the agent heard" in page
    return summary.ok, console.file.getvalue()


@pytest.mark.slow
def test_the_report_tells_how_turns_went_and_is_well_only_if_all_were_answered():
    talk = Talk(interrupt_every=1)
    talk.answer_ms = 3000
    talk.run_until(lambda: talk.figures.interruptions == 2, limit=60)
    talk.conversation.finish(talk.now)
    talk.run_until(lambda: talk.conversation.is_over)
    ok, text = report(talk)
    assert ok
    assert "2 of 2 interruptions honoured within 1000 ms; silent after 80.0 ms (p50)" in text
    assert "an answer was to be heard 760" in text
    assert "heard: 3 × 'turn on the light'" in text
    assert "well: 1 call, 0 failed; 3 turns, 0 failed" in text
    talk = Talk()
    talk.fails = True
    talk.run_until(lambda: bool(talk.figures.failed))
    ok, text = report(talk)
    assert not ok
    assert "turns failed: 1 × error_model_failed" in text
    assert "not well: 1 call, 0 failed; 1 turn, 1 failed" in text


def test_a_run_without_a_turn_is_not_well():
    ok, text = report(Talk())
    assert not ok
    assert "no turn was begun" in text
