"""Configurations: the table, recipes, overrides, files and differences."""

import dataclasses
import json
import math

import pytest

from collab_jax import config as config_lib
from collab_jax._version import __version__
from collab_jax.config import Config
from collab_jax.config.text import bad_value
from collab_jax.errors import UserError, cut


def refused(call, *arguments, **keywords) -> str:
    """The message of the UserError that a call raises, checked to be one readable line."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    message = str(caught.value)
    assert message and message.isprintable() and len(message) < 1000
    return message


def changed(method: str = "baseline", **values) -> Config:
    """The defaults with values by key, `__` standing for the dot."""
    values = {key.replace("__", "."): value for key, value in values.items()}
    return config_lib.parse(config_lib.recipe(method, values))


def test_defaults_are_valid_and_complete():
    config = config_lib.parse(config_lib.recipe())
    assert config == Config()
    assert config.version == __version__
    assert config.decay_epochs == (0.3, 0.6, 0.8)
    assert config.pull_push.weight == 1.28
    assert all(config[key] == row.default for key, row in config_lib.SCHEMA.items())


def test_every_default_lies_in_its_own_range():
    for row in config_lib.SCHEMA.values():
        for value in row.default if row.kind is tuple else (row.default,):
            assert row.allowed is None or value in row.allowed, row.name


def test_recipe_takes_nested_and_dotted_keys():
    sections = {"epochs": 3, "model": {"name": "resnet18", "width": 2}}
    nested = config_lib.parse(config_lib.recipe("mid+out", sections))
    dotted = changed("out+mid", epochs=3, model__name="resnet18", model__width=2.0)
    assert nested == dotted
    assert (nested.method, nested.epochs, nested.model.name) == ("out+mid", 3, "resnet18")
    assert isinstance(nested.model.width, float)
    assert nested.model.dropout == 0.5


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "3", 3),
        ("learning_rate", "1", 1.0),
        ("learning_rate", "5e-4", 5e-4),
        ("nesterov", "true", True),
        ("nesterov", "False", False),
        ("decay_epochs", "60,120,160", (60, 120, 160)),
        ("decay_epochs", "(60, 120, 160)", (60, 120, 160)),
        ("decay_epochs", "[7]", (7,)),
        ("decay_epochs", "7,", (7,)),
        ("decay_epochs", "0.3,0.6,0.8", (0.3, 0.6, 0.8)),
        ("decay_epochs", "()", ()),
        ("decay_epochs", "", ()),
        ("data.name", "imagenet_resized/32x32", "imagenet_resized/32x32"),
        ("data.dir", "", ""),
        ("data.validation", "500", 500.0),
        ("method", "kernel+out", "out+kernel"),
    ],
)
def test_override_reads_text_by_the_keys_type(key, text, value):
    config = config_lib.override(Config(), {key: text})
    assert config[key] == value
    assert type(config[key]) is type(value)


@pytest.mark.parametrize("key", list(config_lib.SCHEMA))
def test_every_default_survives_its_own_text(key):
    text = config_lib.as_text(config_lib.SCHEMA[key].default)
    assert config_lib.override(Config(), {key: text}) == Config()


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("epochs", "1.5", "a whole number in [1, 1000000]"),
        ("epochs", "1_0", "a whole number"),
        ("epochs", "٣", "a whole number"),
        ("epochs", "9" * 5000, "a whole number"),
        ("seed", "-1", "a whole number in [0, 2147483647]"),
        ("eval_every", "0", "a whole number in [1,"),
        ("nesterov", "1", "true or false"),
        ("nesterov", "", "true or false"),
        ("learning_rate", "nan", "a finite float32 number in (0, inf)"),
        ("learning_rate", "inf", "a finite"),
        ("learning_rate", "1e39", "a finite float32"),
        ("out.temperature", "1e-50", "a finite float32"),
        ("out.temperature", "0", "in (0, inf)"),
        ("out.alpha", "1.01", "in [0, 1]"),
        ("mid.alpha", "-0.1", "in [0, inf)"),
        ("mid.beta", "-0.1", "in [0, inf)"),
        ("kernel.weight", "-1", "in [0, inf)"),
        ("data.label_noise", "1", "in [0, 1)"),
        ("model.dropout", "1", "in [0, 1)"),
        ("model.width", "0", "in (0, 64]"),
        ("decay_epochs", "60;120", "whole numbers such as 60,120,160"),
        ("decay_epochs", "0,5", "each in (0,"),
        ("decay_epochs", "1.5", "parts of the run such as 0.3,0.6,0.8"),
        ("decay_epochs", "0.5,20", "parts of the run below 1, or whole epochs, not both"),
        ("multi_head.split_stages", "0.5", "whole numbers"),
        ("model.name", "vgg19", "one of vgg16, resnet18"),
        ("model.dtype", "float16", "one of float32, bfloat16"),
        ("data.name", "a\nb", "printable"),
        ("data.dir", "x" * 5000, "text"),
    ],
)
def test_override_refuses_and_names_key_value_and_range(key, text, expected):
    message = refused(config_lib.override, Config(), {key: text})
    assert message.startswith(f"config.{key} = ")
    assert expected in message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epcohs", "did you mean epochs?"),
        ("width", "did you mean model.width?"),
        ("mid.widht", "mid."),
        ("temperature", "out.temperature or mid.temperature"),
        ("label_nose", "data.label_noise"),
        ("data", "data.label_noise"),
        ("qqqq", "--keys"),
        ("", "--keys"),
        ("\n" * 100, "--keys"),
    ],
)
def test_unknown_keys_name_the_nearest(key, hint):
    message = refused(config_lib.override, Config(), {key: "1"})
    assert hint in message
    assert message == refused(config_lib.recipe, "baseline", {key: 1})


def test_a_newer_version_is_told_before_its_unknown_values():
    tree = json.loads(config_lib.to_json(Config()))
    tree["version"], tree["model"]["name"] = "99.0", "vgg99"
    assert "99.0" in refused(config_lib.from_json, json.dumps(tree))


def test_json_round_trip_keeps_every_value_and_type():
    config = changed(
        "kernel+out",
        seed=7,
        learning_rate=1 / 3,
        decay_epochs=(5,),
        data__name="a/b.npz",
        multi_head__split_stages=(),
        nesterov=True,
    )
    text = config_lib.to_json(config)
    again = config_lib.from_json(text)
    assert config_lib.differences(config, again) == []
    assert config_lib.to_json(again) == text
    assert again.decay_epochs == (5,) and isinstance(again.decay_epochs, tuple)
    assert json.loads(text)["data"]["name"] == "a/b.npz"


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda tree: tree.update(epcohs=3), "did you mean epochs"),
        (lambda tree: tree.pop("version"), "config.version is missing"),
        (lambda tree: tree.update(seed="0"), "config.seed = '0'"),
        (lambda tree: tree.update(seed=None), "config.seed = None"),
        (lambda tree: tree.update(seed={}), "config.seed = {}"),
        (lambda tree: tree.update(seed={"a": 1}), "config.seed.a"),
        (lambda tree: tree.update(data=[1]), "config.data is a section"),
        (lambda tree: tree["out"].update(temperature=0), "config.out.temperature = 0"),
        (lambda tree: tree.update(learning_rate=math.nan), "config.learning_rate = nan"),
    ],
)
def test_a_damaged_config_file_is_refused(edit, part):
    tree = json.loads(config_lib.to_json(Config()))
    edit(tree)
    message = refused(config_lib.from_json, json.dumps(tree), "runs/a/config.json")
    assert message.startswith("runs/a/config.json: ") and part in message


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"seed": 1, "seed": 2}', "[" * 100_000, "\x00"]
)
def test_what_is_no_config_file_is_refused(text):
    assert refused(config_lib.from_json, text, "c.json").startswith("c.json: ")


@pytest.mark.parametrize("version", ["0.0.1", __version__])
def test_a_file_takes_defaults_for_keys_it_does_not_have(version):
    tree = json.loads(config_lib.to_json(changed(seed=5)))
    tree["version"] = version
    del tree["mid"]
    config = config_lib.from_json(json.dumps(tree))
    assert (config.seed, config.mid.alpha) == (5, 0.05)


def test_differences_name_key_old_and_new():
    old, new = changed(), changed(seed=1, data__dir="/x", mid__alpha=0.1)
    assert config_lib.differences(old, new) == [
        ("seed", 0, 1),
        ("data.dir", "", "/x"),
        ("mid.alpha", 0.05, 0.1),
    ]
    assert config_lib.resume_conflicts(old, new) == [("seed", 0, 1), ("mid.alpha", 0.05, 0.1)]


def test_automatic_dispatch_goes_on_with_what_the_run_settled_on():
    assert config_lib.resume_conflicts(changed(steps_per_dispatch=8), changed()) == []
    assert config_lib.resume_conflicts(changed(), changed(steps_per_dispatch=8)) != []


def test_decays_as_parts_and_as_epochs_are_the_same_run():
    assert config_lib.decay_points(changed(epochs=30)) == [9, 18, 24]
    old, new = changed(epochs=30, decay_epochs=(9, 18, 24)), changed(epochs=30)
    assert config_lib.differences(old, new) and not config_lib.resume_conflicts(old, new)
    assert config_lib.identity_hash(old) == config_lib.identity_hash(new)
    assert config_lib.resume_conflicts(old, changed(epochs=30, decay_epochs=(9, 18, 25)))


def test_conflicts_are_told_in_one_text():
    old, new = changed(), changed(seed=1, epochs=3, log__progress=False)
    assert config_lib.conflict_text(old, new) == "seed = 0, not 1, epochs = 200, not 3"
    assert config_lib.conflict_text(old, changed()) == ""


def test_a_configuration_is_typed_and_frozen():
    config = changed(model__width=2)
    assert isinstance(config.model.width, float) and config["model.width"] == config.model.width
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.width = 3.0  # type: ignore[misc]
    wider = config_lib.replace(config, {"model.width": 3})
    assert (wider.model.width, config.model.width) == (3.0, 2.0)
    assert config_lib.replace(config, {}) is config
    assert "dropout" in refused(config_lib.replace, changed("out"), {"model.dropout": 0})


def test_keys_free_on_resume_are_cadence_logging_places_and_labels():
    assert config_lib.RESUME_FREE_KEYS == {
        "version",
        "name",
        "eval_batch_size",
        "data.dir",
        "data.manual_dir",
        "data.resident",
        "checkpoint.every_epochs",
        "checkpoint.every_steps",
        "checkpoint.every_minutes",
        "log.progress",
        "log.tensorboard",
        "log.every_seconds",
    }


def test_short_hash_tells_apart_what_the_path_does_not():
    recipe = changed("out")
    assert config_lib.short_hash(changed("out"), recipe) == ""
    assert config_lib.short_hash(changed("out", seed=3, log__progress=False), recipe) == ""
    one = config_lib.short_hash(changed("out", epochs=3), recipe)
    other = config_lib.short_hash(changed("out", epochs=4), recipe)
    assert len(one) == len(other) == 8 and one != other
    assert one == config_lib.short_hash(changed("out", epochs=3, seed=9), recipe)


def test_describe_has_a_row_for_every_key():
    rows = config_lib.describe().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(config_lib.SCHEMA)
    assert len({row.count("|") for row in rows}) == 1
    assert all(row.doc.strip() for row in config_lib.SCHEMA.values())


def test_a_value_too_long_for_a_message_keeps_both_ends():
    path = f"/{'a folder/' * 30}net.py:make"
    told = str(bad_value("model.name", path, "another"))
    assert told.startswith("config.model.name = '/a folder/a") and len(told) < 130
    assert told.endswith("folder/net.py:make': expected another") and "..." in told
    for length in (79, 80, 81, 5000):
        assert len(cut("x" * length, 80)) == min(length, 80)
