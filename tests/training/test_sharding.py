"""Many devices and several processes against one device: the same mathematics."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import ALL_TERMS

PROGRAM = Path(__file__).with_name("sharded_steps.py")


def command(*arguments):
    return [sys.executable, str(PROGRAM), *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def steps_on(folder, dtype, counts):
    out = folder / dtype
    done = subprocess.run(
        command(out, ALL_TERMS, dtype, ",".join(map(str, counts))),
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [dict(np.load(f"{out}-{count}.npz")) for count in counts]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def steps_in_processes(folder, count):
    coordinator = f"127.0.0.1:{free_port()}"
    out = folder / "processes"
    started = [
        subprocess.Popen(
            command(out, ALL_TERMS, "float64", count, coordinator, count, number),
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for process in started:
        _, stderr = process.communicate(timeout=500)
        assert process.returncode == 0, stderr
    return dict(np.load(f"{out}-{count}.npz"))


def assert_equal_to(expected, found, tolerance):
    assert expected.keys() == found.keys() and len(found) > 200
    for name, value in expected.items():
        scale = np.abs(value.astype(np.float64)).max(initial=0.0)
        np.testing.assert_allclose(
            found[name], value, rtol=tolerance, atol=tolerance * scale + 1e-13, err_msg=name
        )


@pytest.fixture(scope="module")
def in_float64(tmp_path_factory):
    return steps_on(tmp_path_factory.mktemp("float64"), "float64", (1, 8))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eight_devices_compute_what_one_does(in_float64):
    one, eight = in_float64
    assert one["1[0]['classifier']['fc1']['kernel']"].dtype == np.float64
    assert_equal_to(one, eight, 1e-9)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_step_of_eight_devices_in_float32(tmp_path):
    one, eight = (
        {name: value for name, value in found.items() if name.startswith("1")}
        for found in steps_on(tmp_path, "float32", (1, 8))
    )
    assert_equal_to(one, eight, 2e-3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", [2, 4])
def test_processes_compute_what_one_does(in_float64, count, tmp_path):
    assert_equal_to(in_float64[0], steps_in_processes(tmp_path, count), 1e-9)
