"""What the environment, the terminal and signals decide of a run: nothing."""

import signal
from collections.abc import Iterator

from small_run import Kind, Small, Tried, gathered

__all__ = ["kinds"]


def kinds(small: Small) -> Iterator[Kind]:
    yield Kind(
        "state that the environment decides",
        gathered(_environment(small)),
        (
            "tests/training/test_keys.py",
            "tests/runs/test_environment.py",
            "tests/runs/test_start.py",
        ),
    )
    yield Kind(
        "the terminal and signals",
        gathered(_terminal(small)),
        ("tests/runs/test_signals.py", "tests/runs/test_streams.py", "tests/runs/test_loop.py"),
    )


_SAME = {
    "64-bit types": {"JAX_ENABLE_X64": "1"},
    "another generator": {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    "both": {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg"},
    "another partition of random numbers": {"JAX_THREEFRY_PARTITIONABLE": "0"},
    "products in bfloat16": {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"},
    "strict promotion of types": {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    "no promotion of ranks": {"JAX_NUMPY_RANK_PROMOTION": "raise"},
    "checks of NaN": {"JAX_DEBUG_NANS": "1"},
    "logged transfers": {"JAX_TRANSFER_GUARD": "allow"},
    "other hashes": {"PYTHONHASHSEED": "12345"},
    "Python without assertions": {"PYTHONOPTIMIZE": "2"},
    "warnings as errors": {"PYTHONWARNINGS": "error"},
    "an ASCII locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "a terminal of 20 columns": {"COLUMNS": "20", "TERM": "dumb"},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
}
_REFUSED = {
    "JAX_DISABLE_JIT": "1",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE": "disallow_explicit",
}


def _environment(small: Small) -> Iterator[Tried]:
    for what, variables in _SAME.items():
        run_dir = small.new()
        ended = small.train(run_dir, **variables)
        yield small.same(f"{what} ({', '.join(variables)})", run_dir, ended)
    run_dir = small.copy(small.stopped)
    ended = small.train(run_dir, JAX_DEFAULT_PRNG_IMPL="rbg", JAX_ENABLE_X64="1")
    yield small.same("a run gone on with under another generator and 64 bits", run_dir, ended)
    for name, value in _REFUSED.items():
        run_dir = small.new()
        ended = small.train(run_dir, **{name: value})
        yield small.refused(f"{name}={value}", ended, name, also=not run_dir.exists())


_STOPS = {
    "SIGHUP": "5,SIGHUP",
    "SIGINT": "5,SIGINT",
    "SIGTERM twice within 20 ms": "5,SIGTERM,0.02,SIGTERM",
    "SIGHUP and SIGTERM within 20 ms": "5,SIGHUP,0.02,SIGTERM",
    "SIGINT and SIGTERM within 20 ms": "5,SIGINT,0.02,SIGTERM",
    "SIGTERM four times within 60 ms": "5,SIGTERM,0.02,SIGTERM,0.02,SIGTERM,0.02,SIGTERM",
}
_ENDINGS = {
    "`2>&1 | head -n 1`": 'set -o pipefail; "$@" 2>&1 | head -n 1 >/dev/null',
    "`2>/dev/full`": '"$@" 2>/dev/full',
    "`>&- 2>&-`": '"$@" >&- 2>&-',
    "`<&-`": '"$@" <&-',
    "`| true`": 'set -o pipefail; "$@" 2>&1 | true',
}


def _terminal(small: Small) -> Iterator[Tried]:
    for what, signals in _STOPS.items():
        run_dir = small.new()
        stopped = small.train(run_dir, signals=signals)
        saved = stopped.code == 75 and "which is saved" in stopped.text
        ended = small.train(run_dir)
        trial = small.same(what, run_dir, ended, "saved, code 75, and went on to the same bits")
        yield trial if saved else small.held(what, f"exit code {stopped.code}", False, stopped)
    for what, through in _ENDINGS.items():
        run_dir = small.new()
        ended = small.train(run_dir, through=through)
        yield small.same(f"output: {what}", run_dir, ended)
    run_dir = small.new()
    ended = small.train(run_dir, signals="5,SIGHUP", through="trap '' HUP; \"$@\"")
    yield small.same("SIGHUP under `nohup`", run_dir, ended)
    run_dir = small.new()
    ended = small.train(run_dir, signals="5,SIGWINCH,0.02,SIGURG,0.02,SIGCHLD")
    yield small.same("signals that say nothing to it", run_dir, ended)
    run_dir = small.new()
    killed = small.train(run_dir, signals="9,SIGKILL")
    ended = small.train(run_dir)
    yield small.same("SIGKILL, and started again", run_dir, ended)
    assert killed.code in (-signal.SIGKILL, 128 + signal.SIGKILL), killed
