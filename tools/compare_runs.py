"""Whether two run directories hold the same run, bit for bit.

python tools/compare_runs.py RUN OTHER
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

_TIMING = {"images_per_second", "wait_fraction"}


def own_lines(stderr):
    """What a program of ours printed, without what an idle GPU plugin prints as JAX loads it."""
    foreign = ("cudart_stub.cc", "WARNING: All log messages before absl::InitializeLog()")
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not any(text in line for text in foreign))


def metrics_without_timing(run_dir):
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in _TIMING} for line in lines]


def result_without_timing(run_dir):
    result = json.loads(Path(run_dir, "result.json").read_text())
    return {k: v for k, v in result.items() if k not in ("seconds", "git_revision")}


def last_state(run_dir):
    """Every array of the newest checkpoint, as Orbax's own reader gives it."""
    folder = Path(run_dir).absolute() / "checkpoints"
    step = max(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    with ocp.PyTreeCheckpointer() as checkpointer:
        path = folder / str(step) / "state"
        tree = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        state = checkpointer.restore(path, ocp.args.PyTreeRestore(restore_args=as_numpy))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return step, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(first, second):
    """Equal bits in the last checkpoint, equal metrics and results."""
    step, state = last_state(first)
    other_step, other_state = last_state(second)
    assert step == other_step
    assert state.keys() == other_state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, other_state[name], err_msg=name)
    assert metrics_without_timing(first) == metrics_without_timing(second)
    assert result_without_timing(first) == result_without_timing(second)


if __name__ == "__main__":
    assert_same_run(*sys.argv[1:])
    print("the same run, bit for bit")
