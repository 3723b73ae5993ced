"""Makes s3prl 0.4.18 (December 2024) run on today's torch, torchaudio and huggingface_hub.

With its sibling ``s3prl_patches`` the only file that knows s3prl is older than they are.
:func:`install` puts a finder in front of Python's own, which costs nothing until somebody imports
s3prl or torchaudio, in whatever order. torchaudio is mended as it is imported, so transformers,
which imports it, works too. Before s3prl's first module :func:`apply` runs once. What has to change
in s3prl's own modules is in ``s3prl_patches``: each patch runs right after the module it mends.

Every shim says why it is there and when it can go. Those that change a function of torch act only
when s3prl's own code is the caller, so nobody else's ``torch.load`` becomes less strict.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from superbit.upstreams.files import replaced
from superbit.upstreams.s3prl import untrusted
from superbit.upstreams.s3prl.patches import PATCHES

_Patch = Callable[[types.ModuleType], None]

# Modules that s3prl imports and its PyPI package lacks, and ours that stand in for them.
# Can go with the first s3prl release that ships downstream/ctc/corpus.
_SUPPLIED = {
    "s3prl.downstream.ctc.corpus": "superbit.upstreams.s3prl.ctc_corpus",
    "s3prl.downstream.ctc.corpus.libriphone": "superbit.upstreams.s3prl.ctc_corpus.libriphone",
    "s3prl.downstream.ctc.corpus.snips": "superbit.upstreams.s3prl.ctc_corpus.snips",
}
_PATCHES: dict[str, list[_Patch]] = {name: list(patches) for name, patches in PATCHES.items()}
_applied = False


def install() -> None:
    """Arrange for the shims to be applied when torchaudio or s3prl is imported.

    Idempotent, cheap. What was imported before is mended now.
    """
    if any(isinstance(finder, _S3prlFinder) for finder in sys.meta_path):
        return
    # One of this module before it was reloaded is another class, and each would ask the other.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_ours(finder)]
    sys.meta_path.insert(0, _S3prlFinder())
    for name, patches in _PATCHES.items():
        if (module := sys.modules.get(name)) is not None:  # None: somebody forbids its import
            for patch in patches:
                patch(module)


def _is_ours(finder: object) -> bool:
    kind = type(finder)
    return (kind.__module__, kind.__qualname__) == (__name__, _S3prlFinder.__qualname__)


def apply() -> None:
    """Apply every shim that must be there before s3prl's first import. Idempotent."""
    global _applied
    if _applied:
        return
    _applied = True
    install()
    _add_huggingface_names()
    _add_absent_packages()
    _wrap_torch_for_s3prl()


def after_import(module_name: str, patch: _Patch) -> None:
    """Run ``patch(module)`` right after ``module_name`` is imported, or now if it already was."""
    _PATCHES.setdefault(module_name, []).append(patch)
    if (module := sys.modules.get(module_name)) is not None:
        patch(module)


# --- torchaudio -----------------------------------------------------------------------------------


def _do_without_extension(module: types.ModuleType, error: Exception) -> None:
    """Let torchaudio do without its compiled extension, which ``error`` kept from loading.

    Why: the torchaudio that PyPI has for Linux is built for CUDA. Its extension is linked to
    libc10_cuda.so and libtorch_cuda.so, which a torch for CPUs lacks, and torchaudio lets the error
    pass. It is not torch's version: the extension of 2.11 uses torch's stable interface only, and
    with stand-ins for these two libraries it loads and works under torch 2.13. Only forced
    alignment needs it; filters and the RNN-T loss are slower or missing without. An extension that
    loads is left alone. Can go when torchaudio imports without it.
    """
    reason = " ".join(str(error.__cause__ or error).split())

    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def unavailable(*_args: object, **_kwargs: object) -> None:
            raise RuntimeError(
                f"{function.__name__} needs torchaudio's compiled extension, which does not load: "
                f"{reason}"
            )

        return unavailable

    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=fail_if_no_align,
    )


def _forget_failed_torchaudio() -> None:
    """Drop what an import of torchaudio that failed has left behind.

    Why: Python takes back the package but not those of its modules that were complete, and the next
    attempt would not bind them to the new package.
    """
    if "torchaudio" not in sys.modules:
        for name in [name for name in sys.modules if name.startswith("torchaudio.")]:
            del sys.modules[name]


def _add_torchaudio_functions(torchaudio: types.ModuleType) -> None:
    """Give torchaudio back what versions 2.9 and later took away.

    Why: ``set_audio_backend`` is called at import by byol_s and by run_downstream;
    ``torchaudio.sox_effects`` is imported by the hub itself and reads the audio of KS, QbE and ASV;
    ``load`` now wants the TorchCodec package, and soundfile reads the same files. Each can go when
    s3prl calls another library for it.
    """
    if not hasattr(torchaudio, "set_audio_backend"):
        vars(torchaudio)["set_audio_backend"] = lambda _backend: None
    try:
        importlib.import_module("torchaudio.sox_effects")
    except ImportError:
        from superbit.upstreams.s3prl import sox_effects

        module = types.ModuleType("torchaudio.sox_effects")
        vars(module).update(
            apply_effects_file=sox_effects.apply_effects_file,
            apply_effects_tensor=sox_effects.apply_effects_tensor,
        )
        sys.modules["torchaudio.sox_effects"] = module
        vars(torchaudio)["sox_effects"] = module
    loads_by_torchcodec = hasattr(torchaudio, "load_with_torchcodec")
    if loads_by_torchcodec and importlib.util.find_spec("torchcodec") is None:
        vars(torchaudio)["load"] = _load_with_soundfile


def _load_with_soundfile(
    uri: Any,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    **_unused: object,
) -> tuple[Any, int]:
    """``torchaudio.load`` by soundfile: float32 samples ``(channels, samples)`` and their rate."""
    from superbit.upstreams.s3prl.sox_effects import read_soundfile

    end = None if num_frames < 0 else frame_offset + num_frames
    waveform, rate = read_soundfile(uri, start=frame_offset, stop=end)
    return (waveform if channels_first else waveform.T), rate


# --- before s3prl ---------------------------------------------------------------------------------


def _add_huggingface_names() -> None:
    """Give huggingface_hub the two names that version 1.0 removed.

    Why: s3prl's runner imports them for uploads that superbit never makes. Can go when s3prl
    stops importing them.
    """
    import huggingface_hub

    for name in ("HfFolder", "Repository"):
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, _absent(name, "huggingface_hub below 1.0"))


def _add_absent_packages() -> None:
    """Stand in for packages that s3prl imports and does not use on one device.

    Why: catalyst is needed for distributed KS only and is unmaintained; pysox (``sox``) is imported
    by ASV and never called. A package that is installed is left alone. Can go when s3prl drops the
    imports.
    """
    stand_ins = {
        "catalyst.data.sampler": {
            "DistributedSamplerWrapper": _absent("DistributedSamplerWrapper", "catalyst")
        },
        "sox": {"Transformer": _absent("Transformer", "the package sox")},
    }
    for name, members in stand_ins.items():
        top, *rest = name.split(".")
        if top in sys.modules or importlib.util.find_spec(top) is not None:
            continue
        parents = [".".join([top, *rest[:i]]) for i in range(len(rest) + 1)]
        for module_name in parents:
            # A spec, so that importlib.util.find_spec on the stand-in does not raise.
            spec = importlib.machinery.ModuleSpec(module_name, None, is_package=True)
            sys.modules[module_name] = importlib.util.module_from_spec(spec)
        vars(sys.modules[name]).update(members)


def _absent(name: str, needed: str) -> type:
    """A class that can be imported and says what is missing when it is used."""

    def refuse(self: object, *_args: object, **_kwargs: object) -> None:
        raise RuntimeError(f"{name} is not available: it needs {needed}.")

    return type(name, (), {"__init__": refuse})


def _wrap_torch_for_s3prl() -> None:
    """Change three functions of torch for calls made by s3prl's own code, and for no other.

    ``torch.load``: s3prl's checkpoints hold an argparse.Namespace, which ``weights_only=True``
    (torch's default since 2.6) refuses, and ``False`` runs what a file contains. Can go when s3prl
    passes ``weights_only=True`` with a list of its own.
    ``torch.save``: s3prl deletes old checkpoints before it writes the new one in place; a kill
    in between leaves nothing to resume from. Can go when s3prl's runner saves atomically.
    ``Tensor.cuda``: ASV's expert calls it whatever the device. Can go when it uses ``.to(device)``.
    """
    import torch

    original_load, original_save, original_cuda = torch.load, torch.save, torch.Tensor.cuda

    @functools.wraps(original_load)
    def load(*args: Any, **kwargs: Any) -> Any:
        if _called_by_s3prl():
            return untrusted.load(original_load, *args, **kwargs)
        return original_load(*args, **kwargs)

    @functools.wraps(original_save)
    def save(obj: object, f: Any, *args: Any, **kwargs: Any) -> None:
        if not (_called_by_s3prl() and isinstance(f, str | os.PathLike)):
            return original_save(obj, f, *args, **kwargs)
        with replaced(f) as partial:
            original_save(obj, partial, *args, **kwargs)
        return None

    @functools.wraps(original_cuda)
    def cuda(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _called_by_s3prl() and not torch.cuda.is_available():
            return self
        return original_cuda(self, *args, **kwargs)

    torch.load, torch.save = load, save
    torch.Tensor.cuda = cuda  # type: ignore[method-assign]


def _called_by_s3prl() -> bool:
    """Whether the function that called our wrapper belongs to s3prl."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("s3prl.")


# --- the finder -----------------------------------------------------------------------------------

# What runs before a module does; what makes one that fails fit for use; what runs after it.
_PREPARATIONS: dict[str, Callable[[], None]] = {"s3prl": apply}
_RESCUES: dict[str, Callable[[types.ModuleType, Exception], None]] = {
    "torchaudio._extension": _do_without_extension
}
_PATCHES["torchaudio"] = [_add_torchaudio_functions]
for _name in untrusted.EVALUATING:
    _PATCHES.setdefault(f"s3prl.upstream.{_name}", []).append(untrusted.guard)


class _S3prlFinder(importlib.abc.MetaPathFinder):
    """Applies the shims before s3prl, supplies absent modules, mends others at their import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.startswith("s3prl."):
            apply()  # s3prl itself may have been imported before there was this finder
        elif fullname == "torchaudio":
            _forget_failed_torchaudio()
        if fullname in _SUPPLIED:
            return self._supplied(fullname)
        if fullname not in (*_PREPARATIONS, *_RESCUES, *_PATCHES):
            return None
        spec = self._found_by_others(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._mend_as_imported(fullname, spec.loader)
        return spec

    def _found_by_others(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        """Ask Python's finders in their order, those of editable installs among them."""
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(fullname, path, target)
            if spec is not None:
                return spec
        return None

    @staticmethod
    def _supplied(fullname: str) -> importlib.machinery.ModuleSpec | None:
        ours = importlib.util.find_spec(_SUPPLIED[fullname])
        if ours is None or ours.origin is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, ours.origin, submodule_search_locations=ours.submodule_search_locations
        )

    @staticmethod
    def _mend_as_imported(fullname: str, loader: importlib.abc.Loader) -> None:
        original = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            if fullname in _PREPARATIONS:
                _PREPARATIONS[fullname]()
            try:
                original(module)
            except (OSError, ImportError, RuntimeError) as error:
                if fullname not in _RESCUES:
                    raise
                _RESCUES[fullname](module, error)
            for patch in _PATCHES.get(fullname, ()):
                patch(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]
