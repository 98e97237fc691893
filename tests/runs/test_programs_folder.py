"""The folder of compiled programs goes on being written after a process was killed in it."""

import os
import subprocess
import sys

from collab_jax.runs.programs import heal

COMPILE = """
import sys
import jax
from collab_jax.runs.programs import heal
heal(__import__("pathlib").Path(sys.argv[1]))
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_compilation_cache_max_size", 2**30)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.jit(lambda x: x * float(sys.argv[2]))(1.0)
"""


def compiled(folder, factor):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE, str(folder), str(factor)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {path.name for path in folder.glob("*-cache")}


def test_a_program_without_its_time_is_removed_and_others_are_written(tmp_path):
    first = compiled(tmp_path, 2)
    lost = sorted(first)[0]
    (tmp_path / f"{lost.removesuffix('-cache')}-atime").unlink()
    second = compiled(tmp_path, 3)
    assert second - first and lost in compiled(tmp_path, 2)
    for name in second:
        assert (tmp_path / f"{name.removesuffix('-cache')}-atime").is_file()


def test_a_folder_that_is_not_there_or_whole_is_left_as_it_is(tmp_path):
    heal(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for name in ("a-cache", "a-atime", "notes.txt"):
        (tmp_path / name).write_text("kept")
    heal(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-atime", "a-cache", "notes.txt"]
