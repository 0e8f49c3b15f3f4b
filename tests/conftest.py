"""What holds for the whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes says something about the machine, not about the code
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

#: files that take the longest, longest first: begun last, one core would wait for them
_LONG: Final = (
    "crash/test_kill.py",
    "cli/test_commands.py",
    "exactness/test_property.py",
    "journal/test_crash.py",
    "test_docs.py",
    "test_demo.py",
    "exactness/test_functions.py",
    "decisions/test_opa.py",
    "cli/test_backup.py",
    "cli/test_journal_cut.py",
    "journal/test_verify.py",
    "journal/test_cut.py",
    "service/test_lifecycle.py",
    "service/test_gate.py",
    "exactness/test_seeded_bugs.py",
    "exactness/test_real_history.py",
    "exactness/test_odd.py",
)
_PLACES: Final = {Path(__file__).parent / name: place for place, name in enumerate(_LONG)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first, so that those beside each other end at about the same time."""
    items.sort(key=lambda item: _PLACES.get(item.path, len(_PLACES)))
