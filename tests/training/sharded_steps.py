"""Five train steps over some devices, or in one of several processes; writes what came of them.

python sharded_steps.py OUT METHOD DTYPE DEVICES[,DEVICES...] [COORDINATOR PROCESSES PROCESS]
"""

import dataclasses
import os
import sys

_, out, method, dtype, device_counts, *of_processes = sys.argv
counts = [int(count) for count in device_counts.split(",")]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0" + (
    "" if of_processes else f" --xla_force_host_platform_device_count={max(counts)}"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from tiny import tiny_config  # noqa: E402

from collab_jax import data  # noqa: E402
from collab_jax.data import DataInfo  # noqa: E402
from collab_jax.runs import processes  # noqa: E402
from collab_jax.training.batches import Feed  # noqa: E402
from collab_jax.training.build import create_experiment  # noqa: E402
from collab_jax.training.placement import Placement  # noqa: E402
from collab_jax.training.state import create_train_state  # noqa: E402

jax.config.update("jax_enable_x64", dtype == "float64")
if of_processes:
    processes.start(of_processes[0], int(of_processes[1]), int(of_processes[2]))

config = tiny_config(method)
# float64 is for this comparison alone; no config may ask for it.
config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
digits = data.load("digits", train_examples=320)
parts = create_experiment(config, DataInfo.of(digits), 5)
as_wide = lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x  # noqa: E731
settings = dataclasses.replace(
    parts.settings, mean=as_wide(parts.settings.mean), std=as_wide(parts.settings.std)
)
first = {}
for count in counts:
    placement = Placement(None if of_processes else jax.devices()[:count])
    assert placement.devices == count
    # With this seed no unit is so near to ReLU's kink, and no two maxima so near each other, that
    # float32's rounding decides which gradient they have; with seeds 0 and 3 some are.
    state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed=1)
    state = placement.replicate(jax.tree.map(as_wide, state))
    feed = Feed(digits.train, settings, placement, batch_size=64, seed=0)
    found = {}
    for number, (_, inputs) in enumerate(feed.inputs(epoch=0, first_step=0), start=1):
        state, report = feed.run(state, inputs)
        if number in (1, 5):
            # After one step the momentum holds the gradients, with the decay of the weights.
            kept = (state.params, state.heads, state.batch_stats, state.opt_state, report)
            for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
                found[f"{number}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    if processes.is_first():
        np.savez(f"{out}-{count}.npz", **found)
        first = first or found
        for number in "15":
            apart = [
                np.abs(array - first[name]).max() / (np.abs(first[name]).max() + 1e-5)
                for name, array in found.items()
                if name.startswith(number) and array.size and array.dtype == dtype
            ]
            print(f"{count} devices, step {number}: {max(apart):.1e} of an array's largest value")
