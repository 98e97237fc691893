"""Real runs that are killed, stopped, damaged and given bad input, at a small count."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_row_of_the_quick_table_is_ok():
    done = subprocess.run(
        [sys.executable, "tools/reliability.py", "--quick"],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    verdicts = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[-1] for row in rows}
    assert len(verdicts) == 10, done.stdout + done.stderr
    assert set(verdicts.values()) == {"ok |"}, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_kind_of_fault_in_files_is_ok():
    done = subprocess.run(
        [sys.executable, "tools/reliability.py", "--quick", "--kinds", "files"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 2 and all(row.endswith("| ok |") for row in rows), done.stdout + done.stderr
    assert done.returncode == 0
