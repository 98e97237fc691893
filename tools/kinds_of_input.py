"""Runs that count nothing, and faults of files, machines and data, each of which takes one line."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from small_run import Ended, Kind, Small, Tried, contents, gathered, save, strict_lines

from collab_jax import data
from collab_jax.errors import UserError

__all__ = ["kinds"]


def kinds(small: Small) -> Iterator[Kind]:
    yield Kind(
        "summaries of what was not counted",
        gathered(_counted(small)),
        ("tests/runs/test_loop.py", "tests/runs/test_metrics_log.py", "tests/runs/test_export.py"),
    )
    yield Kind(
        "faults of the machine, of the command line and of files",
        gathered(_machine(small), _recipes(small), _damaged(small), _processes(small)),
        (
            "tests/runs/test_environment.py",
            "tests/runs/test_directory.py",
            "tests/runs/test_processes.py",
            "tests/runs/test_rendezvous.py",
            "tests/cli/test_program.py",
            "tests/models/test_torch_weights.py",
        ),
    )
    yield Kind(
        "data accepted by their shape alone",
        gathered(_shapes(small)),
        ("tests/data/test_data_npz.py", "tests/runs/test_loop.py"),
    )
    yield Kind(
        "the folder of compiled programs heals",
        gathered(_programs(small)),
        ("tests/runs/test_programs_folder.py",),
    )


def _counted(small: Small) -> Iterator[Tried]:
    for policy, epochs in (("skip", 2), ("stop", 2)):
        run_dir = small.new()
        changes = {"learning_rate": 1e30, "epochs": epochs, "nonfinite": policy}
        ended = small.train(run_dir, changes)
        also = not (run_dir / "result.json").exists() and all(strict_lines(run_dir))
        what = f"no step is finite, `nonfinite={policy}`"
        yield small.refused(what, ended, "finite", code=1, also=also)
    result = json.loads((small.straight / "result.json").read_text())
    lines = [*strict_lines(small.straight)]
    straight = Ended(0, "", "")
    good = all(result.get(name) is None for name in ("best_validation_error",))
    good = good and {line["split"] for line in lines} == {"train", "test"}
    yield small.held("no validation split", "nothing said of it", good, straight)
    speeds = [line["images_per_second"] for line in lines if line["split"] == "train"]
    good = speeds[0] > 0.02 * max(speeds)
    yield small.held("the first epoch's throughput", "without compilation", good, straight)
    run_dir = small.new()
    ended = small.train(run_dir, {"steps": 1})
    (first, *_) = strict_lines(run_dir)
    yield small.held("a run of one step", "null", first["images_per_second"] is None, ended)
    run_dir = small.copy(small.straight)
    ended = small.train(run_dir)
    good = contents(run_dir) == contents(small.straight)
    yield small.held("a finished run repeated", "every file as it was", good, ended)
    ended = small.launch("--mode=export", "--checkpoint=last", f"--workdir={run_dir}")
    description = json.loads((run_dir / "exported-last" / "model.json").read_text())
    count = f"{_parameters(run_dir / 'exported-last'):,} parameters"
    told = small.train(small.new()).text
    good = count in told and count in ended.printed + ended.text and bool(description)
    yield small.held("parameters of an export and of its run", "the same number", good, ended)


def _parameters(exported: Path) -> int:
    arrays = np.load(exported / "parameters.npz")
    return sum(arrays[name].size for name in arrays if "batch_stats" not in name)


def _machine(small: Small) -> Iterator[Tried]:
    run_dir = small.new()
    ended = small.train(run_dir, HOME=None, XDG_CACHE_HOME=None)
    yield small.same("no HOME", run_dir, ended, "trained as ever")
    run_dir = small.new()
    ended = small.train(run_dir, HOME="/nonexistent", TMPDIR="/nonexistent")
    yield small.same("a HOME and a TMPDIR that are not there", run_dir, ended, "trained as ever")
    for platforms in ("cuda", "tpu", "nonsense"):
        run_dir = small.new()
        ended = small.train(run_dir, JAX_PLATFORMS=platforms)
        also = not run_dir.exists()
        yield small.refused(f"JAX_PLATFORMS={platforms}", ended, "JAX_PLATFORMS", also=also)
    ended = small.launch("--keys", through='"$@" >/dev/full')
    yield small.refused("`--keys >/dev/full`", ended, "No space left", code=1)
    ended = small.train(Path("/proc/run"))
    yield small.refused("a folder that cannot be made", ended, "/proc/run")
    without = "import sys; sys.modules['tensorflow_datasets'] = None; from collab_jax import "
    without += "__main__; sys.exit(__main__.main())"
    ended = small.launch("--config=imagenet32_vgg16", f"--workdir={small.new()}",
                         program=("-c", without))  # fmt: skip
    yield small.refused("no TensorFlow Datasets", ended, "tfds")


_RECIPES = {
    "raises KeyboardInterrupt": "raise KeyboardInterrupt",
    "ends the process": "import sys; sys.exit(0)",
    "calls itself for ever": "def f(): f()\nf()",
    "is no Python": "def (",
    "gives no configuration": "def get_config(method=''):\n    return 3",
    "has no function": "x = 1",
}


def _recipes(small: Small) -> Iterator[Tried]:
    for what, text in _RECIPES.items():
        path = small.new().with_suffix(".py")
        path.write_text(text + "\n")
        run_dir = small.new()
        ended = small.launch(f"--config={path}", f"--workdir={run_dir}")
        also = not run_dir.exists()
        yield small.refused(f"a recipe that {what}", ended, path.name, also=also)


def _damaged(small: Small) -> Iterator[Tried]:
    for name, text, code in (
        ("config.json", "[" * 100_000, 2),
        ("config.json", "[1, 2]", 2),
        ("config.json", '{"epochs": {"a": 1}}', 2),
        ("metrics.jsonl", '{"epoch": "one", "split": 3}\n' * 2, 1),
        ("metrics.jsonl", "[]\n[]\n", 1),
    ):
        run_dir = small.copy(small.stopped)
        (run_dir / name).write_text(text)
        ended = small.train(run_dir)
        what = f"`{name}` that holds `{' '.join(text[:12].split())}`"
        good = ended.code in (1, 2)
        yield small.refused(what, ended, name, code=ended.code if good else code)
    run_dir = small.copy(small.straight)
    (run_dir / "result.json").write_text("[1]")
    ended = small.train(run_dir)
    yield small.same("`result.json` that holds `[1]`", run_dir, ended, "written anew")
    run_dir = small.copy(small.stopped)
    (run_dir / "checkpoints" / "²").mkdir()
    ended = small.train(run_dir)
    yield small.same("a folder `²` among the checkpoints", run_dir, ended, "left aside")
    run_dir = small.copy(small.stopped)
    for path in (run_dir / "checkpoints").glob("*/manifest.json"):
        path.write_text("[[]]")
    ended = small.train(run_dir)
    yield small.refused("every manifest holds `[[]]`", ended, "checkpoints", code=ended.code or 1)
    writers: dict[str, Callable[[Path], object]] = {
        "of a network in a network": lambda path: np.savez(path, net=np.array([Path("/")], object)),
        "that hold text": lambda path: np.savez(path, weight=np.array(["a", "b"])),
        "that were cut off": lambda path: path.write_bytes(small.data.read_bytes()[:900]),
        "of no network": lambda path: np.savez(path, weight=np.ones(3)),
    }
    for what, write in writers.items():
        path = small.new().with_suffix(".npz")
        write(path)
        run_dir = small.new()
        ended = small.train(run_dir, {"init_from": path})
        also = not run_dir.exists()
        yield small.refused(f"weights {what}", ended, "init_from", also=also)
    run_dir = small.copy(small.straight)
    small.must(small.launch("--mode=export", "--checkpoint=last", f"--workdir={run_dir}"))
    path = run_dir / "exported-last" / "model.json"
    description = json.loads(path.read_text())
    description["versions"]["jax"] = "99.1"
    description["calling_convention_version"] = 999
    path.write_text(json.dumps(description))
    script = "import sys; from collab_jax.runs.load_model import load\ntry: load(sys.argv[1])"
    script += "\nexcept ValueError as error: sys.exit(f'error: {error}')"
    ended = small.launch(path.parent, program=("-c", script))
    yield small.refused("an export by a newer JAX", ended, "99.1", code=1)


def _processes(small: Small) -> Iterator[Tried]:
    for what, counts in (("two processes told of 2 and of 3", (2, 3)), ("of 3 and of 2", (3, 2))):
        run_dir, address = small.new(), f"127.0.0.1:{_port()}"
        with ThreadPoolExecutor(2) as pool:
            started = [
                pool.submit(
                    small.launch, "--config=digits_vgg16", f"--workdir={run_dir}",
                    f"--coordinator={address}", f"--num_processes={count}",
                    f"--process_id={number}",
                )
                for number, count in enumerate(counts)
            ]  # fmt: skip
            ended = [each.result() for each in started]
        also = not run_dir.exists() and ended[1].code == 2
        yield small.refused(what, ended[0], "--num_processes", also=also)
    run_dir = small.new()
    flags = (f"--coordinator=127.0.0.1:{_port()}", "--num_processes=2", "--process_id=1")
    ended = small.launch("--config=digits_vgg16", f"--workdir={run_dir}", *flags)
    also = not run_dir.exists()
    yield small.refused("the first of two processes is missing", ended, code=1, also=also)


def _port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _shapes(small: Small) -> Iterator[Tried]:
    labels = np.arange(64) % 4
    cases: dict[str, dict[str, Any]] = {
        f"images {shape[1:]}": {"x_train": np.zeros(shape, np.uint8)}
        for shape in ((64, 3, 32, 24), (64, 4, 32, 32), (64, 2, 32, 32), (64, 1, 28, 20))
    }
    cases |= {
        "labels (N, 1)": {"y_train": labels[:, None]},
        "one-hot labels": {"y_train": np.eye(4, dtype=int)[labels]},
        "labels as text": {"y_train": np.array(["a", "b", "c", "d"])[labels]},
        "images from 0 to 1": {"x_train": np.zeros((64, 8, 8, 1), np.float32)},
        "too few names of classes": {"class_names": np.array(["a", "b"])},
    }
    for what, changes in cases.items():
        path = save(small.new().with_suffix(".npz"), **changes)
        try:
            data.load(str(path), data_dir=str(small.folder / "data"))
            said = ""
        except UserError as error:
            said = str(error)
        good = str(path) in said and "expected" in said and "\n" not in said
        yield small.held(what, "refused with the remedy", good, Ended(0, said, ""))
    path = save(small.new().with_suffix(".NPZ"), class_names=np.array(["a", "b", "c", "d"]))
    found = data.load(str(path), data_dir=str(small.folder / "data"))
    good = list(found.class_names) == ["a", "b", "c", "d"]
    yield small.held("`.NPZ`, and names of classes", "read", good, Ended(0, "", ""))


def _programs(small: Small) -> Iterator[Tried]:
    def removed(folder: Path) -> None:
        next(folder.glob("*-atime")).unlink()

    def cut(folder: Path) -> None:
        for path in folder.glob("*-cache"):
            path.write_bytes(path.read_bytes()[:100])

    def empty(folder: Path) -> None:
        for path in folder.glob("*-cache"):
            path.write_bytes(b"")

    def all_times(folder: Path) -> None:
        for path in folder.glob("*-atime"):
            path.unlink()

    def strange(folder: Path) -> None:
        (folder / "notes.txt").write_text("theirs")
        (folder / "folder").mkdir()

    home = small.new()
    where = {"JAX_COMPILATION_CACHE_DIR": None, "XDG_CACHE_HOME": str(home)}
    small.must(small.train(small.new(), **where))
    for what, disturb in (
        ("a program without its time of use", removed),
        ("no program with its time", all_times),
        ("programs cut off", cut),
        ("empty programs", empty),
        ("other files in the folder", strange),
    ):
        disturbed = small.copy(home)
        folder = disturbed / "collab_jax" / "programs"
        disturb(folder)
        run_dir = small.new()
        ended = small.train(run_dir, **where | {"XDG_CACHE_HOME": str(disturbed)})
        lost = next(folder.glob("*-cache"))
        good = "warning" not in ended.text.lower() and lost.exists()
        trial = small.same(what, run_dir, ended, "trained with the same bits")
        yield trial if good else small.held(what, "", False, ended)
        shutil.rmtree(disturbed)
