"""Stands in for a training run where only what a study makes of it is tested.

Holds the run directory as training does and leaves the same files. The method says how it ends:
`kernel` fails, `mid` waits for a file `go` beside its run directory or for a signal.
"""

import fcntl
import json
import signal
import sys
import time
from pathlib import Path

from collab_jax import config as config_lib
from collab_jax.config import recipes

flags = dict(argument.partition("=")[::2] for argument in sys.argv[1:] if "=" in argument)
run_dir = Path(flags["--workdir"])
if flags.get("--mode") == "eval":
    (run_dir / "evaluation-last").mkdir()
    (run_dir / "evaluation-last" / "result.json").write_text("{}")
    sys.exit(0)
recipe, _, method = flags["--config"].rpartition(":")
prefix = "--config."
texts = {flag.removeprefix(prefix): flags[flag] for flag in flags if flag.startswith(prefix)}
config = config_lib.override(recipes.load(recipe, method), texts)
run_dir.mkdir(parents=True, exist_ok=True)
lock = (run_dir / ".lock").open("a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(f"error: --workdir {run_dir}: in use by another process")
with (run_dir.parent / f"{run_dir.name}.starts").open("a") as starts:
    starts.write("started\n")
if not (run_dir / "config.json").exists():
    (run_dir / "config.json").write_text(config_lib.to_json(config))
signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
signal.signal(signal.SIGINT, lambda number, frame: signals.append(number))
if method == "kernel":
    print("doing something")
    sys.exit("error: the loss diverged")
while method == "mid" and not (run_dir.parent / "go").exists():
    if signals:
        time.sleep(0.5)
        print(f"stopped by {len(signals)} signal(s)")
        sys.exit(75)
    time.sleep(0.05)
weight = config["mid.weight"]
# The test split would choose the other end of the range.
errors = {"validation": 20 + abs(weight - 1), "test": 50 - weight}
with (run_dir / "metrics.jsonl").open("a") as metrics:
    for epoch in range(1, config.epochs + 1):
        for split, error in errors.items():
            line = {"step": epoch, "epoch": epoch, "split": split, "top1_error": error}
            metrics.write(json.dumps(line) + "\n")
        metrics.flush()
        time.sleep(0.5 if weight > 5 else 0)
        if signals:
            sys.exit(75)
result = {"epochs": config.epochs, "last_test_error": 12.5, "seconds": 3.0, "seed": config.seed}
(run_dir / "result.json").write_text(json.dumps(result))
