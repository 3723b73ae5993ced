"""espeak-ng by ctypes: text and a voice in, samples out.

The library comes in the wheel ``espeakng-loader`` (espeak-ng 1.52, GPL: an optional extra). Its
output depends on the process's history: in a fresh process, with both of its random generators
seeded once and the same calls in the same order, it is the same to the bit; seeding again within a
process does not bring it back. So each corpus is made by a process of its own.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from superbit.upstreams.errors import InputError
from superbit.upstreams.extras import pip_line

SAMPLE_RATE = 22_050

MISSING = (
    "Synthesized corpora need the package espeakng-loader; "
    f"install it with: {pip_line('embedded')}."
)

# From espeak-ng's speak_lib.h and espeak_ng.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_OK = 0
_PARAMETERS = {"rate": 1, "pitch": 3, "pitch_range": 4}
_PHONEMES_SEPARATED_BY_UNDERSCORE = ord("_") << 8

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """The process's one synthesizer.

    Args:
        seed: for espeak-ng's own random generator and the C library's.

    Raises:
        InputError: the package espeakng-loader is not installed.
        RuntimeError: this process already has one, so that output would not be reproducible, or
            espeak-ng does not start.
    """

    _exists = False

    def __init__(self, seed: int) -> None:
        if Espeak._exists:
            raise RuntimeError("espeak-ng's output is reproducible only once a process.")
        try:
            import espeakng_loader
        except ImportError:
            raise InputError(MISSING) from None
        self._data = Path(espeakng_loader.get_data_path())
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self._data).encode(), _INITIALIZE_DONT_EXIT
        )
        if rate != SAMPLE_RATE:
            raise RuntimeError(f"espeak-ng started at {rate} Hz; {SAMPLE_RATE} Hz were expected.")
        Espeak._exists = True
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_ng_SetRandSeed(seed)
        ctypes.CDLL(None).srand(seed)
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._chunks: list[np.ndarray] = []
        # A reference must live as long as the library may call it.
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def synthesize(
        self, text: str, *, voice: str, rate: int, pitch: int, pitch_range: int
    ) -> np.ndarray:
        """Speak ``text``: samples at 22,050 Hz, without silence around them.

        They are multiples of 2^-15 in -1…1, float64.

        Args:
            voice: ``accent`` or ``accent+variant``, e.g. ``"en-us+f3"``.
            rate: words a minute, 80 to 450.
            pitch: 0 to 99.
            pitch_range: 0 (monotone) to 99.
        """
        self._set_voice(voice)
        for name, value in {"rate": rate, "pitch": pitch, "pitch_range": pitch_range}.items():
            self._call("espeak_SetParameter", _PARAMETERS[name], value, 0)
        content = text.encode() + b"\0"
        self._chunks.clear()
        self._call(
            "espeak_Synth",
            content,
            len(content),
            0,
            _POSITION_CHARACTER,
            0,
            _CHARS_UTF8,
            None,
            None,
        )
        samples = np.concatenate(self._chunks).astype(np.float64) / 32768
        spoken = np.flatnonzero(np.abs(samples) > 1e-3)
        if not len(spoken):
            raise RuntimeError(f"espeak-ng gave no sound for {text!r} by the voice {voice}.")
        return samples[spoken[0] : spoken[-1] + 1]

    def phonemes(self, text: str, *, voice: str) -> list[list[str]]:
        """Phonemes of each word of ``text``, as espeak-ng's mnemonics without stress marks."""
        self._set_voice(voice)
        pointer = ctypes.c_char_p(text.encode())
        spoken = self._library.espeak_TextToPhonemes(
            ctypes.byref(pointer), _CHARS_UTF8, _PHONEMES_SEPARATED_BY_UNDERSCORE
        ).decode()
        words = ([p.strip("',%=|") for p in word.split("_")] for word in spoken.split())
        return [[phoneme for phoneme in word if phoneme] for word in words]

    def _set_voice(self, voice: str) -> None:
        # espeak-ng drops a variant it does not know without a word.
        variant = voice.partition("+")[2]
        if variant and not (self._data / "voices" / "!v" / variant).is_file():
            raise ValueError(f"espeak-ng has no voice variant {variant!r}.")
        self._call("espeak_SetVoiceByName", voice.encode())

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != _OK:
            raise RuntimeError(f"espeak-ng's {function} failed with status {status}.")

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if samples and count:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
