"""How long a user waits: imports, and from the start of a digits run to its first step.

    python tools/start_time.py --core 0 --out results/start_time.md

Every program runs pinned to the core that `--core` names. The first run fills the folder of
compiled programs, which is a new one; the others find it warm. Beside the seconds on the clock
stand the processor's, for a machine that does other work.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = {
    "`import jax`": ("import jax", None),
    "core: `from collab_jax import losses, linen, nnx`": (
        "from collab_jax import losses, linen, nnx",
        2.0,
    ),
    "`launch.py`, all that training imports": (
        "import collab_jax.cli, collab_jax.runs.loop, collab_jax.runs.tensorboard",
        3.0,
    ),
}
METHODS = {"baseline": "baseline", "all four terms": "out+mid+pull_push+kernel"}
_AIM = 8.0
# The loop's display tells when the first step is done: what is run is the loop itself.
_PROGRAM = """
import sys, time
from collab_jax.runs import loop
dispatch = loop.Run._dispatch
def first(self, *arguments):
    result = dispatch(self, *arguments)
    print("first step", time.time(), time.process_time(), flush=True)
    raise SystemExit
loop.Run._dispatch = first
from collab_jax.__main__ import main
sys.argv[0] = "launch.py"
sys.exit(main())
"""


def timed(command, core, environment):
    """Seconds and processor seconds until a program ends or tells of its first step."""
    before = _processor_seconds()
    began = time.time()
    done = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    ended, used = time.time(), _processor_seconds() - before
    lines = [line for line in done.stdout.splitlines() if line.startswith("first step")]
    if done.returncode or (_PROGRAM in command and not lines):
        raise SystemExit(done.stderr)
    if lines:
        ended, used = map(float, lines[0].split()[-2:])
    return ended - began, used


def _processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measured(core, repeats):
    """Rows: what, (seconds, processor seconds) of each time, the aim or None."""
    rows = []
    for name, (code, aim) in IMPORTS.items():
        timed(["-c", code], core, {})
        rows.append((name, [timed(["-c", code], core, {}) for _ in range(repeats)], aim))
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/programs", "JAX_PLATFORMS": "cpu"}
        for name, method in METHODS.items():
            seconds = []
            for number in range(repeats + 1):
                run = [f"--config=digits_vgg16:{method}", f"--workdir={folder}/{name}-{number}"]
                run += ["--config.log.progress=false"]
                seconds.append(timed(["-c", _PROGRAM, *run], core, cache))
            rows.append((f"digits, {name}, start to first step, empty cache", seconds[:1], None))
            rows.append((f"digits, {name}, start to first step, warm cache", seconds[1:], _AIM))
    return rows


def page(rows, command, repeats):
    lines = [
        "# From the start to the first step",
        "",
        f"Command: `{command}`. {platform.machine()}, one core, jax {jax.__version__}, Python "
        f"{platform.python_version()}; seconds of whole processes, with the start of the "
        f"interpreter, of {repeats} runs. Where other work runs on the same core, the clock's are "
        "too many: the processor's, user and system, are what an idle core takes.",
        "",
        "| | processor s, median | least | on the clock, median | least | aim s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found, aim in rows:
        seconds, used = zip(*found, strict=True)
        cells = (statistics.median(used), min(used), statistics.median(seconds), min(seconds))
        texts = " | ".join(f"{value:.2f}" for value in cells)
        lines.append(f"| {name} | {texts} | {'' if aim is None else f'{aim:g}'} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    command = "python " + " ".join(["tools/start_time.py", *sys.argv[1:]])
    text = page(measured(args.core, args.repeats), command, args.repeats)
    args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
