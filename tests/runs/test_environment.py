"""The flags that GPUs need are set before JAX starts, or asked for."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.errors import UserError
from collab_jax.runs.environment import (
    check_determinism,
    check_switches,
    request_determinism,
    settled,
)

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = [
    "--config=digits_vgg16:baseline",
    "--config.model.width=0.03125",
    "--config.model.classifier_width=0",
    "--config.data.train_examples=100",
    "--config.batch_size=50",
    "--config.epochs=1",
    "--config.steps=1",
    "--config.log.tensorboard=false",
]


def launched(*arguments, prefix=(), **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    kept["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    kept |= {key: value for key, value in environment.items() if value is not None}
    kept = {key: value for key, value in kept.items() if environment.get(key, "") is not None}
    return subprocess.run(
        [*prefix, sys.executable, "launch.py", *arguments],
        cwd=REPOSITORY,
        env=kept,
        capture_output=True,
        text=True,
    )


def test_a_start_says_nothing_but_its_own_and_needs_no_home(tmp_path):
    done = launched(*RUN, f"--workdir={tmp_path / 'run'}", HOME=None, XDG_CACHE_HOME=None)
    assert done.returncode == 0, done.stderr
    own = ("collab_jax ", " ", "epoch ", "finished", "compiling", "the train step is compiled")
    assert [line for line in done.stderr.splitlines() if not line.startswith(own)] == []
    assert (tmp_path / "run" / "result.json").is_file()
    assert not (REPOSITORY / "~").exists()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA GPU")
def test_a_gpu_that_is_not_there_is_told_with_the_extra(tmp_path):
    done = launched(*RUN, f"--workdir={tmp_path / 'run'}", JAX_PLATFORMS="cuda")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: JAX_PLATFORMS=cuda: JAX finds no such")
    assert "[cuda12]" in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name, value",
    [
        ("JAX_DISABLE_JIT", "1"),
        ("JAX_DISABLE_JIT", "True"),
        ("JAX_TRANSFER_GUARD", "disallow"),
        ("JAX_TRANSFER_GUARD_HOST_TO_DEVICE", "disallow_explicit"),
    ],
)
def test_switches_that_no_run_can_have_are_told(name, value, monkeypatch):
    check_switches()
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{name}={value}: expected it unset"):
        check_switches()
    monkeypatch.setenv(name, {"JAX_DISABLE_JIT": "0"}.get(name, "log"))
    check_switches()


def test_what_a_seed_draws_and_its_type_do_not_depend_on_switches():
    def drawn():
        with settled():
            key = jax.random.key(0, impl="threefry2x32")
            x = jax.jit(lambda key: jax.random.uniform(key, (5,)) * jnp.arange(5))(key)
        return np.asarray(x)

    expected = drawn()
    with (
        jax.enable_x64(True),
        jax.threefry_partitionable(False),
        jax.numpy_dtype_promotion("strict"),
    ):
        found = drawn()
        other = jax.random.uniform(jax.random.key(0, impl="threefry2x32"), (5,)) * jnp.arange(5.0)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert (np.asarray(other) != expected).any()


def test_a_full_disk_takes_no_list_of_keys(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "launch.py", "--keys"],
            cwd=REPOSITORY,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "error: standard output: could not be written (No space left on device)\n"
    )


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
