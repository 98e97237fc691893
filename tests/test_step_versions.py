"""The program that times several versions of the step in turn."""

import re

import pytest
import step_versions

TINY = ["--width", "0.0625", "--image-size", "8", "--batch-size", "2", "--repeats", "3"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], r"nowhere: no folder collab_jax; expected a checkout"),
        (
            [str(step_versions.ROOT), "--names", "one"],
            "--names: 1 names; expected 2, one a version",
        ),
    ],
)
def test_wrong_versions_are_told_before_anything_runs(tmp_path, capsys, arguments, told):
    with pytest.raises(SystemExit):
        step_versions.main([*arguments, "--output", str(tmp_path / "a.md")])
    assert re.search(told, capsys.readouterr().err)


def test_each_step_is_compared_with_its_neighbour():
    found = [[2.0, 1.0, 10.0, 1.0], [3.0, 1.5, 11.0, 9.0]]
    before, after = step_versions.rows("mid", ["before", "after"], found)
    assert before == "| mid | before | 1.0000 | 1.000 | 1.000 |"
    assert after == "| mid | after | 9.0000 | 1.500 | 1.500 |"


@pytest.mark.slow
def test_a_version_beside_itself(tmp_path):
    output = tmp_path / "versions.md"
    step_versions.main(
        [str(step_versions.ROOT), "--methods", "baseline", *TINY, "--output", str(output)]
    )
    lines = [line.split(" | ") for line in output.read_text().splitlines() if line[:4] == "| ba"]
    assert len(lines) == 2
    assert [line[-1] for line in lines] == ["1.000 |"] * 2
    assert 0.2 < float(lines[1][3]) < 5
