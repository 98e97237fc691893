"""Other people's files beside a run's, and data that changed or moved: what a run makes of them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from small_run import Kind, Small, Tried, contents, gathered, save

__all__ = ["kinds"]


def kinds(small: Small) -> Iterator[Kind]:
    yield Kind(
        "other people's files where a run writes or deletes",
        gathered(_theirs(small)),
        ("tests/runs/test_ownership.py", "tests/runs/test_loop.py", "tests/runs/test_export.py"),
    )
    yield Kind(
        "data by content, not by place; checkpoints by seed, config and step",
        gathered(_content(small)),
        ("tests/runs/test_identity.py", "tests/data/test_data_npz.py"),
    )


def _theirs(small: Small) -> Iterator[Tried]:
    for name in (
        "checkpoints/1000/weights",
        "checkpoints/7.orbax-checkpoint-tmp/weights",
        "tensorboard/notes.txt",
        "metrics.jsonl",
        "result.json",
    ):
        run_dir = small.new()
        (run_dir / name).parent.mkdir(parents=True)
        (run_dir / name).write_text("theirs")
        ended = small.train(run_dir)
        stays = contents(run_dir) == {name: b"theirs"}
        what = f"`{name}` in a folder without a run"
        yield small.refused(what, ended, "no config.json", also=stays)
    for name in ("checkpoints", "tensorboard"):
        run_dir, elsewhere = small.new(), small.new()
        (elsewhere / "1000").mkdir(parents=True)
        (elsewhere / "1000" / "notes.txt").write_text("theirs")
        run_dir.mkdir()
        (run_dir / name).symlink_to(elsewhere)
        ended = small.train(run_dir)
        stays = contents(elsewhere) == {"1000/notes.txt": b"theirs"}
        yield small.refused(f"`{name}` a link to a folder elsewhere", ended, name, also=stays)
    run_dir = small.copy(small.stopped)
    shutil.move(run_dir / "checkpoints", elsewhere := small.new())
    (run_dir / "checkpoints").symlink_to(elsewhere)
    before = contents(elsewhere)
    ended = small.train(run_dir)
    stays = contents(elsewhere) == before
    yield small.refused("a run's own `checkpoints` moved and linked", ended, "link", also=stays)

    run_dir = small.copy(small.stopped)
    (run_dir / "checkpoints" / "1000").mkdir()
    (run_dir / "checkpoints" / "1000" / "weights").write_text("theirs")
    before = contents(run_dir)
    ended = small.train(run_dir)
    stays = contents(run_dir) == before
    yield small.refused("`checkpoints/1000` put into a run", ended, "not written by", also=stays)

    run_dir = small.copy(small.stopped)
    for name in ("tensorboard/notes.txt", "checkpoints/notes.txt", "notes/of.mine"):
        (run_dir / name).parent.mkdir(exist_ok=True)
        (run_dir / name).write_text("theirs")
    ended = small.train(run_dir)
    found = [(run_dir / name).is_file() for name in ("tensorboard/notes.txt", "notes/of.mine")]
    good = all(found) and (run_dir / "checkpoints" / "notes.txt").is_file()
    yield small.held("files of other names put into a run that goes on", "left there", good, ended)

    run_dir = small.copy(small.straight)
    (run_dir / "exported-last").mkdir()
    (run_dir / "exported-last" / "notes.txt").write_text("theirs")
    ended = small.launch("--mode=export", "--checkpoint=last", f"--workdir={run_dir}")
    stays = contents(run_dir / "exported-last") == {"notes.txt": b"theirs"}
    yield small.refused("`exported-last/notes.txt`, and an export", ended, "notes.txt", also=stays)

    there = small.new()
    there.write_text("theirs")
    ended = small.train(there)
    also = there.read_text() == "theirs"
    yield small.refused("a file where the folder of the run is to be", ended, also=also)


def _content(small: Small) -> Iterator[Tried]:
    arrays = dict(np.load(small.data))
    order = np.arange(len(arrays["x_train"]))[::-1]
    pixel = arrays["x_train"].copy()
    pixel[3, 4, 4, 0] ^= 1
    changed: dict[str, dict[str, Any]] = {
        "one pixel of one image": {"x_train": pixel},
        "one label": {"y_train": np.where(order == 9, 1, arrays["y_train"])},
        "the order of the images": {key: arrays[key][order] for key in ("x_train", "y_train")},
        "one test image": {"x_test": np.roll(arrays["x_test"], 1, axis=1)},
        "names of the classes": {"class_names": np.array(["a", "b", "c", "d"])},
    }
    for what, changes in changed.items():
        run_dir, mine = _with_own_data(small, small.stopped)
        save(mine, **{**arrays, **changes})
        before = contents(run_dir / "checkpoints")
        ended = small.train(run_dir, {"data.name": mine})
        also = contents(run_dir / "checkpoints") == before
        what = f"{what} changed at the same path, and the run gone on with"
        yield small.refused(what, ended, "data.name", also=also)

    run_dir, mine = _with_own_data(small, small.stopped)
    moved = mine.rename(small.new().with_suffix(".npz"))
    ended = small.train(run_dir, {"data.name": moved})
    yield small.same("the same data at another path, and the run gone on with", run_dir, ended)

    run_dir, mine = _with_own_data(small, small.straight)
    moved = mine.rename(small.new().with_suffix(".npz"))
    flags = (f"--workdir={run_dir}", "--checkpoint=last")
    ended = small.launch("--mode=eval", *flags, f"--config.data.name={moved}")
    good = (run_dir / "evaluation-last").is_dir()
    yield small.held("the same at another path, and an evaluation", "evaluated", good, ended)

    run_dir, output = small.copy(small.straight), small.new()
    other = save(small.folder / "other.npz", seed=1)
    flags = (f"--workdir={run_dir}", "--checkpoint=last", f"--output={output}")
    ended = small.launch("--mode=eval", *flags, f"--config.data.name={other}")
    names = [path.name for path in output.iterdir()] if output.exists() else []
    good = len(names) == 1 and names[0].startswith("evaluation-last-on-other.npz-")
    good = good and contents(run_dir) == contents(small.straight)
    what = "other data, evaluated into another folder"
    yield small.held(what, "evaluated under the data's own name", good, ended)

    strange = save(small.folder / "strange.npz", x_train=np.zeros((64, 6, 6, 1), np.uint8),
                   x_test=np.zeros((24, 6, 6, 1), np.uint8))  # fmt: skip
    ended = small.launch("--mode=eval", f"--workdir={run_dir}", f"--config.data.name={strange}")
    yield small.refused("data of another size, and an evaluation", ended, "(6, 6, 1)")

    seed = small.new()
    small.must(small.train(seed, {"seed": 1}))
    run_dir = small.copy(small.straight)
    shutil.rmtree(run_dir / "checkpoints")
    shutil.copytree(seed / "checkpoints", run_dir / "checkpoints")
    ended = small.train(run_dir)
    yield small.refused("checkpoints of another seed put into a run", ended, "seed 1", code=1)
    for new in ("999999", "1"):
        run_dir = small.copy(small.stopped)
        steps = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
        (newest,) = [name for name in steps if name.isdecimal()][-1:]
        for older in steps:
            if older.isdecimal() and older != newest:
                shutil.rmtree(run_dir / "checkpoints" / older)
        (run_dir / "checkpoints" / newest).rename(run_dir / "checkpoints" / new)
        ended = small.train(run_dir)
        what = f"a checkpoint renamed to {'a later' if new == '999999' else 'an earlier'} step"
        yield small.refused(what, ended, "written as step", code=1)


def _with_own_data(small: Small, run_dir: Path) -> tuple[Path, Path]:
    """A copy of a run whose data are in a file of its own."""
    run_dir = small.copy(run_dir)
    mine = Path(shutil.copy(small.data, small.new().with_suffix(".npz")))
    config = run_dir / "config.json"
    text = config.read_text()
    assert json.dumps(str(small.data)) in text
    config.write_text(text.replace(json.dumps(str(small.data)), json.dumps(str(mine))))
    return run_dir, mine
