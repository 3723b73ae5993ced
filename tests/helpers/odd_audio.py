"""Audio files whose headers do not say how long they are, all with the same samples."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

# What programs that write WAV into a pipe put where the size belongs.
PIPE_SIZES = (0x7FFFF000, 0x7FFFFFFF, 0x80000000 - 44, 0xFFFF1000, 0xFFFFFFFF, 0)


def noise(samples: int = 24_000) -> np.ndarray:
    """Samples that 16 bits hold exactly."""
    values = np.random.default_rng(0).integers(-8_000, 8_000, samples)
    return (values / 32_768).astype(np.float32)


def flac_of_unknown_length(path: Path, samples: np.ndarray) -> None:
    """Write what a FLAC encoder writes into a pipe: 0 samples in all."""
    soundfile.write(path, samples, 16_000, subtype="PCM_16", format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = b"\0\0\0\0"
    path.write_bytes(content)


def wav_of_a_pipe(size: int) -> Callable[[Path, np.ndarray], None]:
    """Return what writes a WAV file whose header promises ``size`` bytes of samples."""

    def write(path: Path, samples: np.ndarray) -> None:
        soundfile.write(path, samples, 16_000, subtype="PCM_16", format="WAV")
        content = bytearray(path.read_bytes())
        content[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF) if size else 0)
        content[40:44] = struct.pack("<I", size)
        path.write_bytes(content)

    return write


def wav_with_a_comment(path: Path, samples: np.ndarray) -> None:
    """Write a whole WAV file that has another chunk behind the samples, of an odd size."""
    soundfile.write(path, samples, 16_000, subtype="PCM_16", format="WAV")
    content = bytearray(path.read_bytes())
    content += b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    content[4:8] = struct.pack("<I", len(content) - 8)
    path.write_bytes(content)


def rf64(path: Path, samples: np.ndarray) -> None:
    """Write WAV's variant for large files, whose size is elsewhere."""
    soundfile.write(path, samples, 16_000, subtype="PCM_16", format="RF64")


# By the ending of the file's name.
ODD: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "flac of unknown length": ("flac", flac_of_unknown_length),
    **{f"wav of {size:#x} bytes": ("wav", wav_of_a_pipe(size)) for size in PIPE_SIZES},
    "wav with a comment": ("wav", wav_with_a_comment),
    "RF64": ("wav", rf64),
}
