"""The program behind results/reliability.md, at small counts."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kills_signals_damage_and_bad_input_at_small_counts():
    done = subprocess.run(
        [sys.executable, "tools/reliability.py", "--quick", "--seed", "1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| ok |") == 9 and "fails" not in done.stdout
