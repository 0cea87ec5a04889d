"""What a commit is checked for is what `.ci/run` checks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_commit_is_checked_as_ci_checks_it() -> None:
    hooks = re.findall(r"entry: ([^,}]+)", (ROOT / ".pre-commit-config.yaml").read_text())
    (loop,) = re.findall(r"for check in (.*); do", (ROOT / ".ci" / "run").read_text())
    assert hooks == [*re.findall(r'"([^"]+)"', loop), "python .ci/ratchets.py"]
