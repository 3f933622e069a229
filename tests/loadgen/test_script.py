"""What callers who converse say: the sentences that come with the generator, and WAV files."""

from __future__ import annotations

import math
import wave
from array import array
from pathlib import Path

import pytest

from agent.codecs import open_decoder
from agent.codecs.opus import find_opus
from loadgen.script import Script, ScriptFailed, read_script
from loadgen.sound import is_sound_untrusted
from protocol.codecs import CODECS, OPUS, PCMU, codec_by_name


def write_wav(file: Path, rate: int, *, silent: float = 0.3, loud: float = 0.5, channels: int = 1) -> Path:
    """Silence, a voice-like tone, silence."""
    tone = [
        round(9000 * math.sin(2 * math.pi * 220 * n / rate) * math.sin(40 * n / rate))
        for n in range(round(loud * rate))
    ]
    samples = [0] * round(silent * rate) + tone + [0] * round(silent * rate)
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(array("h", [sample for sample in samples for _ in range(channels)]).tobytes())
    return file


def loudness(codec: str, frames: tuple[bytes, ...]) -> list[float]:
    """Of each frame, decoded."""
    decoder = open_decoder(codec_by_name(codec))
    pcm = [memoryview(decoder.decode(frame)).cast("h") for frame in frames]
    return [math.sqrt(sum(sample * sample for sample in samples) / len(samples)) for samples in pcm]


def check(script: Script) -> None:
    for sentence in script.sentences:
        assert set(sentence.frames) == set(script.silence)
        for name, frames in sentence.frames.items():
            codec = codec_by_name(name)
            assert codec in CODECS
            assert {codec.count_samples_untrusted(frame) for frame in (*frames, script.silence[name])} == {
                codec.frame_samples
            }
            assert 0 <= sentence.begins < sentence.ends < len(frames) <= 3000
            if codec is OPUS and find_opus() is None:
                continue
            loud = loudness(name, frames)
            voiced = loud[sentence.begins : sentence.ends + 1]
            assert max(voiced) > 500
            assert max(loud[sentence.ends + 3 :]) < max(voiced) / 10
            assert max(loudness(name, (script.silence[name],) * 10)) < 20


def test_the_sentences_that_come_with_the_generator_are_frames_of_both_codecs_with_silence_behind():
    script = read_script(())
    assert [codec.name for codec in script.codecs] == ["opus", "PCMU"]
    assert len(script.sentences) == 3
    check(script)


def test_where_sound_is_can_be_told_without_decoding():
    script = read_script(())
    for sentence in script.sentences:
        for codec, frames in sentence.frames.items():
            heard = [is_sound_untrusted(codec, frame) for frame in frames]
            assert sum(heard[sentence.begins : sentence.ends + 1]) > 0.6 * (sentence.ends - sentence.begins)
            assert heard[sentence.begins : sentence.begins + 6].count(True) >= 3
            assert not any(heard[-5:])
    assert not any(is_sound_untrusted(codec, frame) for codec, frame in script.silence.items())
    assert not any(is_sound_untrusted(codec.name, codec.silence) for codec in CODECS)


@pytest.mark.slow
def test_wav_files_of_any_rate_are_trimmed_and_encoded(tmp_path):
    files = [str(write_wav(tmp_path / f"{rate} hz.wav", rate)) for rate in (8000, 22_050, 48_000)]
    script = read_script(files)
    assert [sentence.name for sentence in script.sentences] == ["8000 hz", "22050 hz", "48000 hz"]
    assert PCMU in script.codecs
    check(script)
    for sentence in script.sentences:
        assert sentence.begins == 5
        assert sentence.ends - sentence.begins == pytest.approx(25, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda file: write_wav(file, 16_000, channels=2), "must be 16-bit mono"),
        (lambda file: write_wav(file, 16_000, loud=0.0), "nothing is to be heard"),
        (lambda file: file.write_bytes(b"RIFF"), "is no WAV file"),
        (lambda file: None, "No such file"),
    ],
    ids=["stereo", "silent", "cut off", "missing"],
)
def test_a_file_that_cannot_be_said_is_refused_in_one_sentence(tmp_path, make, complaint: str):
    file = tmp_path / "hello.wav"
    make(file)
    with pytest.raises(ScriptFailed) as failed:
        read_script([str(file)])
    assert complaint in str(failed.value)
    assert "\n" not in str(failed.value)
