"""Which upstreams runs in processes of their own cannot build, as ``sweep --jobs N`` says."""

from types import SimpleNamespace

import pytest

from superbit.benchmark.sweeping import launch
from superbit.upstreams import encoder_kinds
from superbit.upstreams.errors import InputError


def plan(**waiting):
    """A plan of one waiting run for each name, ``NAME=kind``; and one done of "finished"."""
    entries = {
        name: SimpleNamespace(entry=SimpleNamespace(origin="registered", kind=kind))
        for name, kind in {**waiting, "finished": None}.items()
    }
    runs = [SimpleNamespace(first=SimpleNamespace(upstream=name)) for name in waiting]
    return SimpleNamespace(upstreams=entries, waiting=runs)


def test_what_is_registered_here_only_is_refused():
    with pytest.raises(InputError, match="'mine' was registered in this process only"):
        launch._refuse_what_other_processes_lack(plan(mine=None, other=None), jobs=2)


def test_what_needs_no_other_process_is_not_refused():
    launch._refuse_what_other_processes_lack(plan(mine=None, other=None), jobs=1)
    launch._refuse_what_other_processes_lack(plan(mine=None), jobs=2)


def test_a_kind_of_an_installed_package_is_in_every_process(monkeypatch):
    points = [SimpleNamespace(name="installed_kind")]
    monkeypatch.setattr(encoder_kinds, "entry_points", lambda group: points)
    launch._refuse_what_other_processes_lack(
        plan(one="installed_kind", two="installed_kind"), jobs=2
    )
    with pytest.raises(InputError, match="'two'"):
        launch._refuse_what_other_processes_lack(
            plan(one="installed_kind", two="another_kind"), jobs=2
        )
