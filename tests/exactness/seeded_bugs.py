"""Five mistakes that this kind of system makes, planted in a copy of the code, and which tests see them.

`python -m tests.exactness.seeded_bugs` runs the whole suites against each (or those numbered) and prints who caught
what; the suite itself runs a short form (`test_seeded_bugs.py`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BUGS", "Bug", "plant"]

ROOT: Final = Path(__file__).parents[2]
SUITES: Final = ("tests/exactness", "tests/windows", "tests/signals")


@dataclass(frozen=True, slots=True)
class Bug:
    """`old` in a file of the engine becomes `new`, everywhere in it."""

    name: str
    file: str
    old: str
    new: str


BUGS: Final = (
    Bug("window boundary: `<=` for `<`", "enrich/windows/kind.py", "as_of_us - w,", "as_of_us - w - 1,"),
    Bug("ties: the earlier row last", "enrich/windows/tail.py", "t >= times[-1]:", "t > times[-1]:"),
    Bug(
        "count(x) counts nulls",
        "enrich/signals/lower.py",
        "            return self.n()\n",
        "            return self.count_star()\n",
    ),
    Bug("a late event appended", "enrich/windows/tail.py", "not times or t >= times[-1]", "True"),
    Bug("sums in 64 bits", "enrich/windows/layout.py", "if total < _SAFE:", "if total >= 0:"),
)
#: the tie takes a second change in the same file
_ALSO: Final = {"ties: the earlier row last": ("at = bisect_right(times, t)", "at = bisect_left(times, t)")}


def plant(bug: Bug, directory: Path) -> None:
    """A copy of the code with the bug in it.

    Raises:
        LookupError: the text to change is not there any more.
    """
    # tests of other rooms read documentation, examples and the recipes
    ignored = shutil.ignore_patterns(".git", ".venv", ".make", ".hypothesis", "*_cache", "__pycache__")
    shutil.copytree(ROOT, directory, dirs_exist_ok=True, ignore=ignored)
    file = directory / bug.file
    text = file.read_text()
    for old, new in ((bug.old, bug.new), _ALSO.get(bug.name, ("", ""))):
        if old not in text:
            raise LookupError(f"{bug.file} has no `{old}`: plant {bug.name} elsewhere")
        text = text.replace(old, new) if old else text
    file.write_text(text.replace("from bisect import bisect_right", "from bisect import bisect_left, bisect_right"))


def caught_by(bug: Bug) -> list[str]:
    """The tests that fail or err with the bug."""
    with tempfile.TemporaryDirectory() as directory:
        plant(bug, Path(directory))
        # the short form would plant bugs into the copy in its turn
        command = [
            sys.executable,
            "-m",
            "pytest",
            *SUITES,
            "--tb=no",
            "-rfE",
            "--deselect",
            "tests/exactness/test_seeded_bugs.py",
        ]
        run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {run.returncode}: {run.stdout[-500:]}{run.stderr[-500:]}")
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)


def main() -> None:
    for bug in [BUGS[int(n)] for n in sys.argv[1:]] or BUGS:
        found = caught_by(bug)
        print(f"{bug.name} ({bug.file}): {len(found)} tests", flush=True)
        for test in found:
            print(f"    {test}", flush=True)


if __name__ == "__main__":
    main()
