"""Items in their order, and what is left of a message that was cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.realtime.conversation import MAX_BYTES, MAX_ITEMS, ROOT, Conversation
from agent.realtime.items import Content, InputText, Message, OutputAudio, OutputText
from protocol.realtime.errors import ApiError, Code


def said(name: str, text: str = "hi") -> Message:
    return Message(role="user", content=[InputText(text)], id=name)


def spoken(name: str, *pieces: tuple[str, float]) -> Conversation:
    conversation, words = Conversation(), ""
    conversation.insert(Message(role="assistant", content=[OutputAudio(transcript="")], id=name))
    for text, milliseconds in pieces:
        words += text
        conversation.spoke(name, milliseconds, len(words))
    conversation.get(name).content[0].transcript = words  # type: ignore[union-attr]
    return conversation


def transcript(conversation: Conversation, name: str = "a") -> str:
    return conversation.get(name).content[0].transcript  # type: ignore[union-attr, return-value]


def order(conversation: Conversation) -> list[str | None]:
    return [item.id for item in conversation]


def test_items_stand_where_their_sender_wants_them():
    conversation = Conversation()
    assert conversation.insert(said("b")) is None
    assert conversation.insert(said("d")) == "b"
    assert conversation.insert(said("c"), "b") == "b"
    assert conversation.insert(said("a"), ROOT) is None
    assert order(conversation) == ["a", "b", "c", "d"]
    assert conversation.previous("c") == "b"
    conversation.delete("b")
    assert order(conversation) == ["a", "c", "d"]
    assert conversation.previous("c") == "a"


def test_what_is_not_there_cannot_be_named():
    conversation = Conversation()
    conversation.insert(said("a"))
    for attempt, param in (
        (lambda: conversation.get("x"), "item_id"),
        (lambda: conversation.delete("x"), "item_id"),
        (lambda: conversation.insert(said("b"), "x"), "previous_item_id"),
        (lambda: conversation.truncate("x", 0, 0), "item_id"),
    ):
        with pytest.raises(ApiError) as refused:
            attempt()
        assert (refused.value.code, refused.value.param) == (Code.ITEM_NOT_FOUND, param)
    with pytest.raises(ApiError) as refused:
        conversation.insert(said("a"))
    assert refused.value.code is Code.ITEM_EXISTS
    assert order(conversation) == ["a"]


def test_the_oldest_are_forgotten_when_there_are_too_many_or_they_are_too_long():
    conversation = Conversation()
    for number in range(MAX_ITEMS + 5):
        conversation.insert(said(f"i{number}"))
    assert len(conversation) == MAX_ITEMS
    assert "i4" not in conversation
    assert "i5" in conversation
    for number in range(10):
        conversation.insert(said(f"long{number}", "x" * 1_000_000))
    assert order(conversation) == ["long7", "long8", "long9"] or len(conversation) <= 4
    assert conversation.counters["forgotten"] == MAX_ITEMS + 5 + 10 - len(conversation)


def test_what_is_kept_is_counted_in_bytes_with_names_parts_and_what_was_added():
    conversation = Conversation()
    for number in range(10):
        conversation.insert(said(f"wide{number}", "\U0001f600" * 250_000))
    assert len(conversation) == MAX_BYTES // 1_000_000
    for number in range(MAX_ITEMS):
        parts: list[Content] = [OutputText("")] * 64
        conversation.insert(Message(role="assistant", content=parts, id=f"parts{number}"))
    assert len(conversation) < MAX_ITEMS  # of no words at all
    conversation.insert(said("a"))
    conversation.grown("a", "é" * MAX_BYTES)
    assert order(conversation) == ["a"]
    conversation.delete("a")
    conversation.insert(said("b", "x" * 1000))
    conversation.insert(said("c", "x" * (MAX_BYTES - 3000)))
    assert order(conversation) == ["b", "c"]


def test_a_message_that_was_cut_off_keeps_the_words_that_were_heard():
    conversation = spoken("a", ("Hello there. ", 800.0), ("How are you?", 1000.0))
    conversation.truncate("a", 0, 800)
    assert transcript(conversation) == "Hello there."
    assert conversation.spoken_ms("a") == 800


def test_between_two_marks_words_count_in_proportion():
    conversation = spoken("a", ("Hello there. ", 800.0), ("How are you?", 1000.0))
    conversation.truncate("a", 0, 1300)
    assert transcript(conversation) == "Hello there. How ar"
    conversation.truncate("a", 0, 0)
    assert transcript(conversation) == ""


def test_words_that_came_before_their_sound_are_not_heard_before_it():
    conversation = Conversation()
    conversation.insert(Message(role="assistant", content=[OutputAudio(transcript="Ten letter")], id="a"))
    conversation.truncate("a", 0, 0)
    assert transcript(conversation) == ""


def test_a_message_is_not_cut_behind_its_end_nor_where_there_is_no_sound():
    conversation = spoken("a", ("Hello.", 500.0))
    conversation.insert(said("u"))
    for item, index, end, param in (
        ("a", 0, 501, "audio_end_ms"),
        ("a", 1, 0, "content_index"),
        ("u", 0, 0, "item_id"),
    ):
        with pytest.raises(ApiError) as refused:
            conversation.truncate(item, index, end)
        assert refused.value.param == param
    assert transcript(conversation) == "Hello."


@given(
    st.lists(st.tuples(st.text("ab ☃", max_size=8), st.floats(0.0, 500.0)), max_size=8),
    st.lists(st.floats(0.0, 1.0), max_size=4),
)
def test_however_often_it_is_cut_what_is_left_is_a_beginning(pieces: list[tuple[str, float]], cuts: list[float]):
    conversation = spoken("a", *pieces)
    words = transcript(conversation)
    for cut in cuts:
        end = int(conversation.spoken_ms("a") * cut)
        conversation.truncate("a", 0, end)
        assert words.startswith(transcript(conversation))
        words = transcript(conversation)
        assert conversation.spoken_ms("a") == end
