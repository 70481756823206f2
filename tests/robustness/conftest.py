"""One unbroken tiny run, to hold broken ones against."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.helpers import TINY, execute
from tests.robustness.poisons import POISONS


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of :data:`TINY`, run without a break."""
    results = tmp_path_factory.mktemp("unbroken")
    assert execute(results) == "finished"
    return results / TINY.name


@pytest.fixture
def poisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods of :mod:`tests.robustness.poisons`, registered for one test."""
    from optimizers import registry

    for name, method in POISONS.items():
        monkeypatch.setitem(registry._registered, name, method)
