"""The command line: flags, overrides, and where a run goes."""

import itertools
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from collab_jax import cli
from collab_jax import config as config_lib
from collab_jax.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.smoke
def test_order_and_form_of_flags_do_not_matter():
    parts = [
        ["--config", "configs/digits_vgg16.py:mid+out"],
        ["--workdir=runs/x"],
        ["--config.epochs", "3"],
        ["--config.decay_epochs=1,2"],
    ]
    expected = cli.parse([argument for part in parts for argument in part])
    assert expected.config.method == "out+mid"
    assert (expected.config.epochs, expected.config.decay_epochs) == (3, (1, 2))
    assert (expected.workdir, expected.mode, expected.resume) == (Path("runs/x"), "train", True)
    for order in itertools.permutations(parts):
        command = cli.parse([argument for part in order for argument in part])
        assert config_lib.differences(command.config, expected.config) == []
        assert command.workdir == expected.workdir


def test_a_value_may_hold_equals_signs_and_start_with_a_minus():
    command = cli.parse(["--config=digits_vgg16", "--config.data.dir", "/a=b"])
    assert command.config.data.dir == "/a=b"
    message = refused("--config", "digits_vgg16", "--config.mid.alpha", "-1")
    assert message == "config.mid.alpha = -1: expected a finite float32 number in [0, inf)"


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["stray", "--config", "digits_vgg16"], ["stray argument 'stray'"]),
        (["--config", "digits_vgg16", "out"], ["stray argument 'out'", "mean --config FILE:out?"]),
        (["--config=digits_vgg16", "config.lr=1"], ["did you mean --config.learning_rate=...?"]),
        (["--data", "folder:a"], ["'--data'", "did you mean --config.data.name?"]),
        (["--config", "digits_vgg16", "--"], ["stray argument '--'"]),
        (["--confg", "digits_vgg16"], ["'--confg'", "did you mean --config?"]),
        (["-config", "digits_vgg16"], ["'-config'", "did you mean --config?"]),
        (["--epochs=3"], ["'--epochs'", "did you mean --config.epochs?"]),
        (["--lr=3"], ["'--lr'", "did you mean --config.learning_rate?"]),
        (["--batch", "3"], ["'--batch'", "did you mean --config.batch_size?"]),
        (["--config.lr=3"], ["config.lr", "did you mean learning_rate?"]),
        (["--seeds=0,1"], ["unknown flag '--seeds'"]),
        (["--xyzzy=3"], ["'--xyzzy'", "--help"]),
        (["--config.epcohs=3"], ["config.epcohs", "did you mean epochs?"]),
        (["--config.model.widht", "2"], ["config.model.widht", "did you mean model.width"]),
        (["--config.model=2"], ["config.model is a section", "model.width"]),
        (["--config.=2"], ["config.", "--keys"]),
        (["--config", "digits_vgg16", "--config.nesterov"], ["--config.nesterov=false"]),
        (["--config.nesterov", "--config", "digits_vgg16"], ["needs a value"]),
        (["--config"], ["--config needs a value"]),
        (["--workdir", "--config", "digits_vgg16"], ["--workdir needs a value"]),
        (["--workdir=", "--config", "digits_vgg16"], ["--workdir is empty"]),
        (["--config=digits_vgg16", "--config=digits_vgg16"], ["--config is given twice"]),
        (["--config.seed=1", "--config.seed=2"], ["--config.seed is given twice"]),
        (
            ["--config", "digits_vgg16", "--mode", "test"],
            ["--mode 'test'", "train, eval or export"],
        ),
        (["--config", "digits_vgg16", "--checkpoint", "best"], ["only with --mode eval or export"]),
        (["--predict", "a.png", "--mode=eval", "--workdir=x"], ["--predict and --mode exclude"]),
        (["--workdir=x", "--predict"], ["--predict needs a value", "--predict=photo.png"]),
        (["--predict", "a.png"], ["--workdir DIR is missing"]),
        (["--predict=a.png", "--workdir=/nonexistent"], ["/nonexistent", "holds no run"]),
        (["--predict", "a.png", "--output=x", "--workdir=y"], ["--output x: expected only with"]),
        (["--config", "digits_vgg16", "--no-resume=1"], ["--no-resume=1", "no value"]),
        (["--config", "digits_vgg16", "--resume", "--no-resume"], ["exclude each other"]),
        (["--workdir", "x"], ["--config FILE[:METHOD] is missing"]),
        (["--mode=eval"], ["--workdir DIR"]),
        (["--config", "digits_vgg61"], ["digits_vgg61", "did you mean digits_vgg16"]),
        (["--config", "elsewhere/digits_vgg16.py"], ["elsewhere/digits_vgg16.py: no such file"]),
        (["--config", "configs"], ["is a directory"]),
        (["--config", ""], ["--config is empty"]),
        (["--config", "a" * 5000], ["no such file"]),
        (["--config", "digits_vgg16:"], ["method ''"]),
        (["--config", "digits_vgg16:mdi"], ["'mdi'", "did you mean mid?"]),
        (["--config", "digits_vgg16:out", "--config.method=mid"], ["out in --config and mid"]),
        (["--config", "digits_vgg16:out", "--config.out.temperature=0"], ["out.temperature = 0"]),
        (["--config", "digits_vgg16:out", "--config.model.dropout=0"], ["model.dropout = 0"]),
        (["--config", "digits_vgg16", "--workdir", str(Path(__file__))], ["is a file"]),
        (["--config", "digits_vgg16", "--workdir", "x" * 5000], ["--workdir", "too long"]),
        (["--mode=eval", "--workdir=/nonexistent"], ["/nonexistent", "holds no run"]),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, parts, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    message = refused(*arguments)
    assert all(part in message for part in parts), message


def test_default_workdir_names_recipe_method_and_seed():
    def workdir(*overrides: str) -> str:
        return str(cli.parse(["--config", "digits_vgg16:mid+out", *overrides]).workdir)

    plain = "runs/digits_vgg16/out+mid/seed-0"
    assert workdir() == plain
    assert workdir("--config.seed=3") == "runs/digits_vgg16/out+mid/seed-3"
    # The recipe's own value and what may change on resume leave the run where it is.
    assert workdir("--config.epochs=30", "--config.log.progress=false") == plain
    changed = workdir("--config.epochs=3")
    assert changed.startswith(plain + "-") and len(changed) == len(plain) + 9
    assert workdir("--config.epochs=4") != changed
    assert workdir("--config.seed=3", "--config.epochs=3") == changed.replace("d-0", "d-3")


def test_command_is_frozen_and_keeps_its_line():
    arguments = ["--config", "digits_vgg16", "--config.data.dir=/a b"]
    command = cli.parse(arguments)
    assert shlex.split(command.command_line) == arguments
    with pytest.raises(AttributeError):
        command.mode = "eval"  # type: ignore[misc]


def test_overrides_without_effect_are_warned_of(calls, capsys):
    arguments = ["--config", "digits_vgg16:out", "--config.mid.alpha=1", "--config.seed=1"]
    assert cli.parse(arguments).warnings == ("config.mid.alpha has no effect with method out",)
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err == "warning: config.mid.alpha has no effect with method out\n"


def test_no_resume_refuses_a_directory_that_holds_a_run(tmp_path, run_dir, calls):
    arguments = ["--config", "digits_vgg16", "--no-resume", "--workdir"]
    message = refused(*arguments, str(run_dir))
    assert str(run_dir) in message and "config.json" in message
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli.main([*arguments, str(empty)]) == 0
    assert calls == [("train", "baseline", empty, False)]


@pytest.mark.smoke
def test_evaluation_reads_the_runs_own_config(run_dir, calls, capsys):
    assert cli.main(["--mode", "eval", "--workdir", str(run_dir)]) == 0
    assert cli.main(["--checkpoint=0330", "--mode=eval", f"--workdir={run_dir}"]) == 0
    assert calls == [("eval", "out+mid", run_dir, "best"), ("eval", "out+mid", run_dir, "330")]
    assert "test error 2.50% (top-1)" in (told := capsys.readouterr().out)
    assert told.strip().endswith("on 360 images of digits")


def test_evaluation_takes_another_place_of_the_data_and_nothing_that_was_trained(run_dir):
    evaluate = ["--mode", "eval", "--workdir", str(run_dir)]
    command = cli.parse([*evaluate, "--config.data.dir=/d", "--config.eval_batch_size=9"])
    assert (command.config.data.dir, command.config.eval_batch_size) == ("/d", 9)
    assert command.config.epochs == 3
    message = refused(*evaluate, "--config.model.width=2")
    assert "model.width = 0.25, not 2" in message
    assert "epochs = 3, not 30" in refused(*evaluate, "--config=digits_vgg16:out+mid")
    cli.parse([*evaluate, "--config=digits_vgg16:out+mid", "--config.epochs=3"])


def test_evaluation_takes_other_data_and_says_where_it_goes(run_dir):
    evaluate = ["--mode", "eval", "--workdir", str(run_dir)]
    command = cli.parse([*evaluate, "--config.data.name=o.npz", "--config.data.test=0.5"])
    assert (command.config.data.name, command.output) == ("o.npz", None)
    assert "data.test = 0, not 0.5" in refused(*evaluate, "--config.data.test=0.5")
    assert "data.cutout" in refused(*evaluate, "--config.data.name=o.npz", "--config.data.cutout=2")
    export = ["--mode=export", f"--workdir={run_dir}"]
    assert "data.name = digits" in refused(*export, "--config.data.name=o.npz")
    assert cli.parse([*export, "--output=there"]).output == Path("there")
    assert "--output is empty" in refused(*export, "--output=")
    assert "only with --mode eval or export" in refused("--config=digits_vgg16", "--output=there")


def test_evaluation_finds_the_default_directory_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", "digits_vgg16:out", "--config.epochs=3"]
    trained = cli.parse(arguments)
    trained.workdir.mkdir(parents=True)
    (trained.workdir / "config.json").write_text(config_lib.to_json(trained.config))
    assert cli.parse([*arguments, "--mode=eval"]).workdir == trained.workdir
    assert "holds no run" in refused("--config", "digits_vgg16:out", "--mode=eval")


@pytest.mark.parametrize("text", ["bets", "-1", "1.5", "", "٣", "1" * 30])
def test_unknown_checkpoints_are_refused(run_dir, text):
    message = refused("--mode=eval", f"--workdir={run_dir}", f"--checkpoint={text}")
    assert "best, last or a step" in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b'{"version": "99.0"}'])
def test_a_damaged_run_config_is_refused_naming_the_file(run_dir, content):
    (run_dir / "config.json").write_bytes(content)
    message = refused("--mode=eval", f"--workdir={run_dir}")
    assert message.startswith(f"{run_dir / 'config.json'}: ")


WORDS = st.sampled_from(
    [
        *("--config", "--workdir", "--mode", "--checkpoint", "--resume", "--no-resume", "eval"),
        *("digits_vgg16", "digits_vgg16:out", "--config=digits_vgg16:mid", "--config.epochs=3"),
        *("--config.epochs", "3", "--config.method=out", "--mode=eval", "=", "--", "--config.="),
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.one_of(WORDS, WORDS, WORDS, st.text(max_size=8)), max_size=7))
def test_fuzzed_command_lines_are_read_or_refused_in_one_line(arguments):
    try:
        command = cli.parse(arguments)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert isinstance(command.config, config_lib.Config)
        assert any(argument.startswith("--config") for argument in arguments)
