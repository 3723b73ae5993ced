"""Checkpoints of others, read by s3prl's code without running what they contain.

A checkpoint can be a program in two ways. A pickle names functions that are called when it is read;
s3prl's ``torch.load`` reads weights and a few harmless kinds of objects only. And s3prl evaluates
strings of a checkpoint's config, such as ``[(512, 10, 5)] + [(512, 3, 2)] * 4``, as Python; here
they are read as numbers, lists and sums of them. ``--trust-checkpoint`` brings back both.
"""

from __future__ import annotations

import argparse
import ast
import pathlib
import pickle
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from superbit.upstreams.errors import InputError
from superbit.upstreams.trusting import OPTION, is_trusted

# s3prl's modules that evaluate a string of a config.
EVALUATING = (
    "baseline.extracter",
    "data2vec.data2vec_model",
    "distiller.model",
    "hubert.hubert_model",
    "lighthubert.lighthubert.lighthubert",
    "multires_hubert.hubert_model",
    "roberta.roberta_model",
    "wav2vec.wav2vec_model",
    "wav2vec2.wav2vec2_model",
    "wavlm.WavLM",
)
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_FBANK = re.compile(r"torchaudio\.compliance\.kaldi\.(fbank|mfcc|spectrogram)")
# The strings describe some ten layers.
_LONGEST = 10_000


def load(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``torch.load`` so that a file's pickle calls nothing but what weights need.

    Raises:
        InputError: the file names something else; nothing of it was run.
    """
    import torch

    if is_trusted():
        return original(*args, **{**kwargs, "weights_only": False})
    file = args[0] if args else kwargs.get("f")
    try:
        with torch.serialization.safe_globals(_harmless()):
            return original(*args, **{**kwargs, "weights_only": True})
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        what = f"names {found[1]}, which no checkpoint needs" if found else "is no file of weights"
        raise InputError(
            f"{file} {what}; nothing of it was run. {OPTION} runs what is in it, which may be "
            "anything: only for files of people you trust."
        ) from error


def _empty_dict(*_factory: Any) -> dict[Any, Any]:
    return {}


def _harmless() -> list[Any]:
    """What s3prl's own checkpoints carry beside tensors: settings, paths and numpy's numbers."""
    import numpy as np

    multiarray = getattr(np, "_core", None) or np.core
    return [
        argparse.Namespace,
        pathlib.PosixPath,
        pathlib.PurePosixPath,
        (_empty_dict, "collections.defaultdict"),  # torch fills no other kind of dict
        *(dict, list, int, float, str, bool, bytes, tuple, set, frozenset),
        np.ndarray,
        np.dtype,
        multiarray.multiarray.scalar,
        multiarray.multiarray._reconstruct,
        # as files before numpy 2 call them
        (multiarray.multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdSU"),
    ]


def evaluate(text: object) -> Any:
    """Return what a string of a config says: numbers, words, lists, and sums and repetitions.

    Raises:
        InputError: it says anything else.
    """
    found = _FBANK.fullmatch(str(text))
    if found is not None:
        from torchaudio.compliance import kaldi

        return getattr(kaldi, found[1])
    if is_trusted():
        return eval(str(text))
    try:
        if len(str(text)) > _LONGEST:
            raise ValueError
        return _value(ast.parse(str(text).strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"a checkpoint's config says {str(text)[:80]!r}, where a list such as "
            f"'[(512, 10, 5)] + [(512, 3, 2)] * 4' belongs; it was not run. {OPTION} would run it."
        ) from error


def guard(module: ModuleType) -> None:
    """Let a module of s3prl evaluate the strings of a config as `evaluate` does."""
    vars(module)["eval"] = evaluate


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=elements):
            return [_value(each) for each in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(each) for each in elements)
        case ast.Dict(keys=keys, values=values):
            return {
                _value(key): _value(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _repeated(_value(left), _value(right))
    raise ValueError


def _repeated(left: Any, right: Any) -> Any:
    many, count = (right, left) if isinstance(left, int) else (left, right)
    longest = len(many) if isinstance(many, list | tuple | str) else 1
    if not isinstance(count, int) or longest * abs(count) > _LONGEST:
        raise ValueError
    return left * right
