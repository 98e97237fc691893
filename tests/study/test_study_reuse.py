"""What another study has finished is taken over where it is the same run."""

from stubbed import STUDY, runs_of, starts

from collab_jax.study import __main__ as program


def test_what_another_study_has_finished_is_copied(study, stub, tmp_path, capsys):
    first = study("baseline", "kernel", pictures=True)
    assert program.main([*first, "--threads", "1"]) == 1, "the stub's kernel diverges"
    other = tmp_path / "other.py"
    other.write_text(STUDY.format(methods=("baseline", "out"), seeds=(0, 1), pictures=True))
    second = ["--study", str(other), "--out", str(tmp_path / "second"), "--threads", "1"]
    reuse = [*second, "--reuse", first[3]]
    assert program.main([*reuse, "--dry-run"]) == 0
    assert "4 runs and 2 evaluations, 4 to do" in capsys.readouterr().out
    assert not (tmp_path / "second").exists()
    assert program.main(reuse) == 0
    assert "1 finished runs copied from" in capsys.readouterr().err
    before, after = runs_of(first)["baseline", 0], runs_of(second)["baseline", 0]
    assert not (after.parent / f"{after.name}.starts").exists(), "it was trained again"
    for name in ("config.json", "result.json"):
        assert (after / name).read_bytes() == (before / name).read_bytes()
    assert starts(runs_of(second)["out", 1]) == 1
    assert program.main(reuse) == 0, "the same command goes on"
    assert "copied" not in capsys.readouterr().err


def test_runs_of_other_values_or_threads_are_not_copied(study, stub, tmp_path, capsys):
    first = study("baseline")
    assert program.main([*first, "--threads", "1"]) == 0
    config = runs_of(first)["baseline", 0] / "config.json"
    config.write_text(config.read_text().replace('"batch_size": 128', '"batch_size": 64'))
    other = tmp_path / "other.py"
    other.write_text(STUDY.format(methods=("baseline",), seeds=(0,), pictures=False))
    second = ["--study", str(other), "--out", str(tmp_path / "second"), "--reuse", first[3]]
    assert program.main([*second, "--threads", "1", "--dry-run"]) == 0
    assert "1 runs, 1 to do" in capsys.readouterr().out
    assert program.main([*second, "--threads", "2"]) == 2
    assert "--threads 1, not 2" in capsys.readouterr().err
    assert program.main([*second[:-1], str(tmp_path)]) == 2
    assert f"--reuse {tmp_path}: expected the folder of another study" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()
