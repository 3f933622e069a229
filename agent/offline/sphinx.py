"""libpocketsphinx, called by ctypes: one decoder, which hears a grammar and nothing else.

The wheel `pocketsphinx` has the library inside its extension module, and an English acoustic model beside it. Its own Python
binding holds the interpreter's lock while it decodes, and with it everybody's frames; ctypes does not.

1. `begin`, then `feed` the utterance piece by piece, then `finish`: its words. `feed` tells the words so far.
2. What a voice and a microphone sound like on average is taken from the utterance's own first CALIBRATION_MS: it is decoded
   against that (cepstral mean normalisation). Without it, every third short sentence is misheard.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RATE", "SphinxDecoder", "SphinxMissing", "find_sphinx"]

RATE = 16_000  # samples a second, of the acoustic model

# Implementation constants
CALIBRATION_MS = 900
CALIBRATION_BYTES = CALIBRATION_MS * RATE // 1000 * 2
FRAME_BYTES = RATE // 100 * 2  # of one vector of features
CEPSTRA = 13
PRIOR_FRAMES = 500  # that the library lets its own idea of the mean weigh
ONE_WORD = "#JSGF V1.0;\ngrammar calibration;\npublic <turn> = hello;\n"  # the cheapest search there is

_HANDLE, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_FUNCTIONS: dict[str, tuple[object, ...]] = {
    "err_set_loglevel_str": (_TEXT, _TEXT),
    "ps_config_init": (_HANDLE, _HANDLE),
    "ps_config_free": (_INT, _HANDLE),
    "ps_config_set_str": (_HANDLE, _HANDLE, _TEXT, _TEXT),
    "ps_config_set_bool": (_HANDLE, _HANDLE, _TEXT, _INT),
    "ps_init": (_HANDLE, _HANDLE),
    "ps_free": (_INT, _HANDLE),
    "ps_add_word": (_INT, _HANDLE, _TEXT, _TEXT, _INT),
    "ps_add_jsgf_string": (_INT, _HANDLE, _TEXT, _TEXT),
    "ps_activate_search": (_INT, _HANDLE, _TEXT),
    "ps_set_cmn": (_INT, _HANDLE, _TEXT),
    "ps_get_cmn": (_TEXT, _HANDLE, _INT),
    "ps_start_utt": (_INT, _HANDLE),
    "ps_process_raw": (_INT, _HANDLE, _TEXT, ctypes.c_size_t, _INT, _INT),
    "ps_end_utt": (_INT, _HANDLE),
    "ps_get_hyp": (_TEXT, _HANDLE, _HANDLE),
}


class SphinxMissing(Exception):
    """One sentence: why there is no recognizer here."""


@dataclass(frozen=True, slots=True)
class Sphinx:
    """The library, and where its model lies."""

    library: ctypes.CDLL
    model: Path

    def pronunciations(self, words: frozenset[str]) -> list[tuple[str, str]]:
        """(word, phones), several for some. Raises SphinxMissing for one that nobody knows how to say."""
        found = []
        with (self.model / "cmudict-en-us.dict").open() as dictionary:
            for line in dictionary:
                word, _, phones = line.rstrip().partition(" ")
                if word.partition("(")[0] in words:
                    found.append((word, phones))
        unknown = words - {word for word, _ in found}
        if unknown:
            raise SphinxMissing(f"no pronunciation of {', '.join(sorted(unknown))}")
        return found


@functools.cache
def find_sphinx() -> Sphinx:
    """Raises SphinxMissing."""
    spec = importlib.util.find_spec("pocketsphinx")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for extension in Path(place).glob("_pocketsphinx*.so"):
            try:
                library = ctypes.CDLL(str(extension))
                for name, (result, *arguments) in _FUNCTIONS.items():
                    function = getattr(library, name)
                    function.restype, function.argtypes = result, arguments
            except (OSError, AttributeError) as error:
                raise SphinxMissing(f"pocketsphinx cannot be used: {error}") from None
            library.err_set_loglevel_str(b"FATAL")
            return Sphinx(library, Path(place) / "model" / "en-us")
    raise SphinxMissing("pocketsphinx is not installed")


class SphinxDecoder:
    """Not for two threads at once. Raises SphinxMissing, or RuntimeError where the library refuses."""

    def __init__(self, grammar: str) -> None:
        """`grammar`: JSGF, in lower case."""
        sphinx = find_sphinx()
        self._library = sphinx.library
        self._handle = self._open(sphinx, grammar)
        self._is_open = False
        self._waiting: bytearray | None = None
        """The beginning of the utterance, until there is enough of it."""

    def _open(self, sphinx: Sphinx, grammar: str) -> int:
        library = sphinx.library
        config = library.ps_config_init(None)
        library.ps_config_set_str(config, b"hmm", str(sphinx.model / "en-us").encode())
        library.ps_config_set_str(config, b"dict", None)
        library.ps_config_set_str(config, b"lm", None)
        library.ps_config_set_str(config, b"loglevel", b"FATAL")  # what is not in the grammar would be an error
        library.ps_config_set_bool(config, b"bestpath", 0)  # a second pass, up to a second long: for nothing
        handle: int | None = library.ps_init(config)
        library.ps_config_free(config)
        if handle is None:
            raise SphinxMissing(f"the acoustic model in {sphinx.model} cannot be read")
        for word, phones in sphinx.pronunciations(_words_of(grammar)):
            library.ps_add_word(handle, word.encode(), phones.encode(), 0)
        for name, text in (("turn", grammar), ("calibration", ONE_WORD)):
            self._check(library.ps_add_jsgf_string(handle, name.encode(), text.encode()))
        return handle

    def close(self) -> None:
        self._library.ps_free(self._handle)

    def begin(self) -> None:
        """A new utterance; one that was not finished is forgotten."""
        if self._is_open:
            self._library.ps_end_utt(self._handle)
            self._is_open = False
        self._waiting = bytearray()

    def feed(self, pcm: bytes) -> str:
        """The next piece, of whole samples at RATE. The words so far, "" if there are none yet."""
        if self._waiting is not None:
            self._waiting += pcm
            if len(self._waiting) < CALIBRATION_BYTES:
                return ""
            self._calibrate()
        else:
            self._process(pcm)
        return self._words()

    def finish(self) -> str:
        if self._waiting is not None:
            self._calibrate()
        self._check(self._library.ps_end_utt(self._handle))
        self._is_open = False
        return self._words()

    def _calibrate(self) -> None:
        """Begin to search in what waits, once it is known how it sounds on average."""
        assert self._waiting is not None
        pcm, self._waiting = bytes(self._waiting), None
        frames = len(pcm) // FRAME_BYTES
        if frames:
            self._start("calibration", [0.0] * CEPSTRA)
            self._process(pcm)
            mean = [float(value) for value in self._library.ps_get_cmn(self._handle, 1).split(b",")]
            self._check(self._library.ps_end_utt(self._handle))
            self._start("turn", [value * (PRIOR_FRAMES + frames) / frames for value in mean])
            self._process(pcm)
        else:
            self._start("turn", [0.0] * CEPSTRA)

    def _start(self, search: str, mean: list[float]) -> None:
        self._check(self._library.ps_activate_search(self._handle, search.encode()))
        self._library.ps_set_cmn(self._handle, ",".join(f"{value:.4f}" for value in mean).encode())
        self._check(self._library.ps_start_utt(self._handle))
        self._is_open = True

    def _process(self, pcm: bytes) -> None:
        if pcm:
            self._check(self._library.ps_process_raw(self._handle, pcm, len(pcm) // 2, 0, 0))

    def _words(self) -> str:
        words: bytes | None = self._library.ps_get_hyp(self._handle, None)
        return words.decode() if words is not None else ""

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise RuntimeError("pocketsphinx refuses")


def _words_of(grammar: str) -> frozenset[str]:
    rules = re.sub(r"^(#.*|grammar .*;)$|<\w+>|\bpublic\b", " ", grammar, flags=re.MULTILINE)
    return frozenset(re.findall(r"[a-z]+", rules))
