"""Damaged checkpoints, fuzzed command lines and damaged data files, in this process."""

import random
import shutil
import string
import warnings
from pathlib import Path

import jax
import numpy as np
from disturbed import damage, random_file
from reliability_row import Row

from collab_jax import cli, data
from collab_jax import config as config_lib
from collab_jax.checkpoint import Checkpointer, checkpoint_dir, complete_steps, read_checkpoint
from collab_jax.data import npz_source
from collab_jax.errors import RunError, UserError
from collab_jax.experiment import DataInfo, create_experiment, load_data
from collab_jax.run_dir import read_config
from collab_jax.train_state import create_train_state

_LINE = 1000


def _is_one_line(error: Exception) -> bool:
    return "\n" not in str(error) and 0 < len(str(error)) < _LINE


def _equal(one: object, other: object) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _template(run_dir: Path) -> object:
    config = read_config(run_dir)
    dataset = load_data(config)
    info = DataInfo.of(dataset)
    parts = create_experiment(config, info, len(dataset.train) // config.batch_size)
    return create_train_state(
        parts.model, parts.objective, parts.optimizer, info.image_shape, config.seed
    )


def _restore(run_dir: Path, template: object) -> tuple[int, object]:
    checkpointer = Checkpointer(run_dir)
    try:
        step, state, _ = checkpointer.restore(template)
        return step, state
    finally:
        checkpointer.close()


def checkpoints(folder: Path, reference: Path, count: int, seed: int) -> Row:
    """One flip or cut each, in the newest checkpoint; every fourth time in all of them."""
    rng = random.Random(seed)
    template = _template(reference)
    sound = {}
    for step in complete_steps(checkpoint_dir(reference)):
        copy = folder / "one"
        for other in complete_steps(checkpoint_dir(reference)):
            if other <= step:
                source = checkpoint_dir(reference) / str(other)
                shutil.copytree(source, checkpoint_dir(copy) / str(other))
        sound[step] = _restore(copy, template)[1]
        shutil.rmtree(copy)
    newest = max(sound)
    fell_back = refused = harmless = wrong = 0
    for trial in range(count):
        copy = folder / "damaged-copy"
        shutil.copytree(checkpoint_dir(reference), checkpoint_dir(copy))
        damaged = sorted(sound) if trial % 4 == 3 else [newest]
        for step in damaged:
            damage(random_file(checkpoint_dir(copy) / str(step), rng), rng)
        try:
            # The reader of `collab_jax.load` and the evaluation, which has nothing to fall back to.
            read_checkpoint(checkpoint_dir(copy), newest, lambda record: {})
            told = False
        except RunError as error:
            told = _is_one_line(error)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                step, state = _restore(copy, template)
            except RunError as error:
                good = len(damaged) > 1 and told and _is_one_line(error)
                refused += good
                wrong += not good
            else:
                named = any("going on from" in str(warning.message) for warning in caught)
                if step == newest:
                    harmless += _equal(state, sound[newest])
                    wrong += not _equal(state, sound[newest])
                else:
                    good = told and named and step in sound and _equal(state, sound[step])
                    fell_back += good
                    wrong += not good
        shutil.rmtree(copy)
    return Row(
        "flipped byte or cut at a random place of a checkpoint (every fourth time of each one)",
        count,
        f"{fell_back} fell back with a warning, {refused} refused in one line as none was sound, "
        f"{harmless} harmless, {wrong} wrong",
        wrong == 0 and fell_back + refused + harmless == count,
    )


def _text(key: str, rng: random.Random) -> str:
    row = config_lib.SCHEMA[key]
    if isinstance(row.allowed, tuple) and rng.random() < 0.3:
        return rng.choice(row.allowed)
    return rng.choice(
        [
            str(rng.randrange(-3, 300)),
            repr(rng.uniform(-1, 3)),
            rng.choice(["nan", "inf", "1e999", "-0", "true", "False", "", "()", "1,2,3", "3,2"]),
            config_lib.as_text(row.default),
            rng.choice(["baseline", "out+mid", "tree", "digits", "/nowhere.npz", "..", "\x00"]),
            "".join(rng.choices(string.printable, k=rng.randrange(12))),
        ]
    )


def configs(folder: Path, count: int, seed: int) -> Row:
    """Command lines of a recipe and one to three overrides."""
    rng = random.Random(seed)
    valid = refused = wrong = 0
    run_dir = folder / "fuzzed"
    for _ in range(count):
        line = [f"--config=digits_vgg16:{rng.choice(['baseline', 'out', 'mid', 'tree'])}"]
        for key in rng.sample(list(config_lib.SCHEMA), rng.randrange(1, 4)):
            name = key if rng.random() < 0.9 else key[:-1] + rng.choice(string.ascii_letters)
            line.append(f"--config.{name}={_text(key, rng)}")
        try:
            command = cli.parse([*line, f"--workdir={run_dir}"])
            config_lib.validate(command.config)
            valid += 1
        except UserError as error:
            good = _is_one_line(error)
            refused += good
            wrong += not good
        except Exception as error:
            print(f"{line}: {error!r}")
            wrong += 1
        wrong += run_dir.exists()
    return Row(
        "fuzzed command line, one to three overrides",
        count,
        f"{valid} valid, {refused} refused in one line, {wrong} wrong; no run directory made",
        wrong == 0,
    )


def data_files(folder: Path, path: Path, count: int, seed: int) -> Row:
    """An .npz file, and the arrays cached from one, damaged in turns."""
    rng = random.Random(seed)
    told = equal = other = wrong = 0
    damaged = folder / "damaged.npz"
    cached = folder / "cached"
    sound = data.load(str(path))
    limit = npz_source._LARGEST_IN_MEMORY
    for trial in range(count):
        shutil.copy(path, damaged)
        in_cache = trial % 2 == 1
        try:
            if in_cache:
                npz_source._LARGEST_IN_MEMORY = 0
                shutil.rmtree(cached, ignore_errors=True)
                data.load(str(damaged), data_dir=str(cached))
                folders = [p for p in (cached / "arrays" / "npz").iterdir() if p.is_dir()]
                damage(random_file(folders[0], rng), rng)
            else:
                damage(damaged, rng)
            found = data.load(str(damaged), data_dir=str(cached))
            same = np.array_equal(found.train.images, sound.train.images) and np.array_equal(
                found.train.labels, sound.train.labels
            )
            same = same and np.array_equal(found.test.images, sound.test.images)
            equal += same
            # Cached arrays have no checksum: a pixel that differs is read as it is.
            other += in_cache and not same
            wrong += not in_cache and not same
        except (UserError, RunError) as error:
            good = _is_one_line(error) and (str(damaged) in str(error) or str(cached) in str(error))
            told += good
            wrong += not good
        except Exception as error:
            print(f"trial {trial}: {error!r}")
            wrong += 1
        finally:
            npz_source._LARGEST_IN_MEMORY = limit
    return Row(
        "damaged data file (.npz, or the arrays cached from one)",
        count,
        f"{told} told in one line with the file, {equal} harmless, {other} cached arrays read with "
        f"another pixel or label, {wrong} wrong",
        wrong == 0,
    )
