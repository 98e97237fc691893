"""The flags that GPUs need are set before JAX starts, or asked for."""

import pytest

from collab_jax.errors import UserError
from collab_jax.runs.environment import check_determinism, request_determinism


def test_flags_are_added_once_and_others_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/somewhere")
    with pytest.raises(UserError, match="deterministic = true: .*--xla_gpu_deterministic_ops=true"):
        check_determinism("gpu")
    check_determinism("cpu")
    request_determinism()
    request_determinism()
    import os

    flags = os.environ["XLA_FLAGS"].split()
    assert flags[0] == "--xla_dump_to=/somewhere"
    assert flags.count("--xla_gpu_deterministic_ops=true") == 1 and len(flags) == 3
    check_determinism("gpu")
