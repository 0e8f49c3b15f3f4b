"""Plans of policies, from both planners: the embedded interpreter's and OPA's."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enrich.decisions import policy_set
from enrich.decisions.embedded import _Builder

from .opa_server import opa_binary

__all__ = ["embedded_plan", "opa_plan"]


def embedded_plan(modules: Mapping[str, str], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The plan of all rules, from regopy."""
    policies = policy_set(modules, data)
    builder = _Builder(policies)
    builder.entries = sorted("/".join(package) for package in set(policies.packages.values()))
    worker, reply = builder.start()
    worker.end()
    plan: dict[str, Any] = reply["plan"]
    return plan


def opa_plan(where: Path, modules: Mapping[str, str], entries: Sequence[str]) -> dict[str, Any]:
    """The plan of some rules, `shop/decision`, from `opa build`; skips without `opa`."""
    binary = opa_binary()
    for name, text in modules.items():
        (where / name).write_text(text)
    options = [option for entry in entries for option in ("-e", entry)]
    subprocess.run(
        [binary, "build", "-t", "plan", *options, "-o", "bundle.tar.gz", *modules], cwd=where, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    with tarfile.open(where / "bundle.tar.gz") as bundle:
        member = next(m for m in bundle.getmembers() if m.name.endswith("plan.json"))
        file = bundle.extractfile(member)
        assert file is not None
        plan: dict[str, Any] = json.load(file)
    return plan
