"""Configurations: the table, overrides, files, and what is refused."""

import itertools
import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from collab_jax import config as config_lib
from collab_jax._version import __version__
from collab_jax.errors import UserError

TERMS = ("out", "mid", "pull_push", "kernel")


def refused(call, *arguments, **keywords) -> str:
    """The message of the UserError that a call raises, checked to be one readable line."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    message = str(caught.value)
    assert message and message.isprintable() and len(message) < 1000
    return message


def changed(method: str = "baseline", **values) -> ConfigDict:
    """A recipe with values by key, `__` standing for the dot."""
    return config_lib.recipe(method, {key.replace("__", "."): v for key, v in values.items()})


def test_defaults_are_valid_and_complete():
    config = config_lib.default_config()
    config_lib.validate(config)
    assert config.version == __version__
    assert config.decay_epochs == (60, 120, 160)
    assert config.pull_push.weight == 0.01
    assert all(config[key] == row.default for key, row in config_lib.SCHEMA.items())


def test_every_default_lies_in_its_own_range():
    for row in config_lib.SCHEMA.values():
        for value in row.default if row.kind is tuple else (row.default,):
            assert row.allowed is None or value in row.allowed, row.name


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_terms_in_any_order_give_the_canonical_method(count):
    for chosen in itertools.permutations(TERMS, count):
        method = config_lib.parse_method("+".join(chosen))
        assert config_lib.terms(method) == tuple(sorted(chosen, key=TERMS.index))
        assert method == "+".join(sorted(chosen, key=TERMS.index))


def test_methods_that_stand_alone():
    for method in ("baseline", "tree", "multi_instance"):
        assert config_lib.parse_method(method) == method
        assert config_lib.terms(method) == ()
    assert config_lib.parse_method(" mid + out ") == "out+mid"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("out+out", ["out", "twice"]),
        ("mdi", ["'mdi'", "did you mean mid"]),
        ("out+pull-push", ["'pull-push'", "did you mean pull_push"]),
        ("Baseline", ["did you mean baseline"]),
        ("baseline+out", ["baseline stands alone"]),
        ("", ["''", "expected"]),
        ("out+", ["''", "expected"]),
        ("xyzzy", ["'xyzzy'", "multi_instance"]),
        (None, ["None", "expected text"]),
    ],
)
def test_unknown_methods_are_refused_with_near_misses(text, parts):
    message = refused(config_lib.parse_method, text)
    assert all(part in message for part in parts), message


def test_recipe_takes_nested_and_dotted_keys():
    nested = config_lib.recipe("mid+out", {"epochs": 3, "model": {"name": "resnet18", "width": 2}})
    dotted = config_lib.recipe(
        "out+mid", {"epochs": 3, "model.name": "resnet18", "model.width": 2.0}
    )
    assert config_lib.differences(nested, dotted) == []
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
        ("decay_epochs", "()", ()),
        ("decay_epochs", "", ()),
        ("data.name", "imagenet_resized/32x32", "imagenet_resized/32x32"),
        ("data.dir", "", ""),
        ("data.validation", "500", 500.0),
        ("method", "kernel+out", "out+kernel"),
    ],
)
def test_override_reads_text_by_the_keys_type(key, text, value):
    config = config_lib.default_config()
    config_lib.override(config, key, text)
    assert config[key] == value
    assert type(config[key]) is type(value)


@pytest.mark.parametrize("key", list(config_lib.SCHEMA))
def test_every_default_survives_its_own_text(key):
    config = config_lib.default_config()
    config_lib.override(config, key, config_lib.as_text(config_lib.SCHEMA[key].default))
    assert config_lib.differences(config_lib.default_config(), config) == []


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
        ("decay_epochs", "0,5", "each in [1,"),
        ("model.name", "vgg19", "one of vgg16, resnet18"),
        ("model.dtype", "float16", "one of float32, bfloat16"),
        ("data.name", "a\nb", "printable"),
        ("data.dir", "x" * 5000, "text"),
    ],
)
def test_override_refuses_and_names_key_value_and_range(key, text, expected):
    message = refused(config_lib.override, config_lib.default_config(), key, text)
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
    config = config_lib.default_config()
    message = refused(config_lib.override, config, key, "1")
    assert hint in message
    assert message == refused(config_lib.recipe, "baseline", {key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", True),
        ("epochs", 3.0),
        ("epochs", "3"),
        ("learning_rate", True),
        ("learning_rate", math.nan),
        ("learning_rate", -math.inf),
        ("learning_rate", 10**400),
        ("nesterov", 1),
        ("decay_epochs", 60),
        ("decay_epochs", (60, 1.0)),
        ("decay_epochs", (True,)),
        ("data.name", None),
        ("data.name", b"cifar10"),
        ("model.name", ["vgg16"]),
        ("method", 3),
    ],
)
def test_wrong_types_are_refused(key, value):
    assert key in refused(config_lib.recipe, "baseline", {key: value})


@pytest.mark.parametrize(
    ("method", "values", "key"),
    [
        ("out", {"out__masks_per_layer": 1}, "out.masks_per_layer"),
        ("mid+out", {"model__dropout": 0.0}, "model.dropout"),
        ("pull_push", {"batch_size": 1}, "batch_size"),
        ("kernel", {"kernel__stages": 6}, "kernel.stages"),
        ("kernel", {"kernel__stages": 5, "model__name": "resnet18"}, "kernel.stages"),
        ("mid", {"mid__alpha": 0, "mid__beta": 0}, "mid.alpha"),
        ("mid", {"mid__beta": 0, "mid__output_view": True}, "mid.output_view"),
        ("baseline", {"decay_epochs": (60, 60)}, "decay_epochs"),
        ("baseline", {"decay_epochs": (60, 120, 90)}, "decay_epochs"),
        ("baseline", {"epochs": 3, "warmup_epochs": 3.5}, "warmup_epochs"),
        ("baseline", {"epochs": 3, "mid__ramp_epochs": 4}, "mid.ramp_epochs"),
        ("baseline", {"nesterov": True, "momentum": 0}, "nesterov"),
        ("baseline", {"checkpoint__every_epochs": 0}, "checkpoint.every_epochs"),
        ("baseline", {"data__validation": 1.5}, "data.validation"),
        ("baseline", {"data__name": " "}, "data.name"),
        ("baseline", {"data__train_examples": 127}, "data.train_examples"),
        ("baseline", {"data__cutout": 17, "data__image_size": 16}, "data.cutout"),
        ("baseline", {"name": "../up"}, "name"),
        ("baseline", {"name": ".."}, "name"),
        ("tree", {"multi_head__heads": 3}, "multi_head.heads"),
        ("tree", {"multi_head__heads": 64}, "multi_head.heads"),
        ("tree", {"multi_head__split_stages": (3,)}, "multi_head.split_stages"),
        ("tree", {"multi_head__split_stages": (3, 5)}, "multi_head.split_stages"),
        ("tree", {"multi_head__split_stages": (4, 3)}, "multi_head.split_stages"),
        ("multi_instance", {"multi_head__split_stages": (3,)}, "multi_head.split_stages"),
    ],
)
def test_contradictions_are_refused_where_each_value_alone_is_fine(method, values, key):
    message = refused(config_lib.validate, changed(method, **values))
    assert message.startswith(f"config.{key} = ") and ": expected " in message


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("baseline", {"out__masks_per_layer": 1, "model__dropout": 0, "batch_size": 1}),
        ("kernel", {"kernel__stages": 5}),
        ("baseline", {"epochs": 3}),
        ("baseline", {"decay_epochs": ()}),
        ("baseline", {"data__validation": 1.0}),
        ("baseline", {"data__train_examples": 128}),
        ("tree", {"multi_head__split_stages": (2, 4)}),
        ("tree", {"multi_head__heads": 2, "multi_head__split_stages": (4,)}),
        ("multi_instance", {"multi_head__heads": 3}),
        ("baseline", {"checkpoint__every_epochs": 0, "checkpoint__every_steps": 10}),
    ],
)
def test_what_looks_like_a_contradiction_but_is_none(method, values):
    config_lib.validate(changed(method, **values))


def test_a_method_out_of_canonical_order_is_told_its_order():
    config = config_lib.default_config()
    config.method = "mid+out"
    assert "out+mid" in refused(config_lib.validate, config)


def test_configs_built_by_hand_are_checked_whole():
    missing = ConfigDict(config_lib.default_config().to_dict())
    del missing.seed
    assert "config.seed is missing" in refused(config_lib.validate, missing)
    more = ConfigDict(config_lib.default_config().to_dict())
    more.epcohs = 3
    assert "did you mean epochs" in refused(config_lib.validate, more)
    flat = ConfigDict(config_lib.default_config().to_dict(), type_safe=False)
    flat.data = 3
    assert "config.data is a section" in refused(config_lib.validate, flat)


@pytest.mark.parametrize("version", ["0.0.9", "0.1", "0.1.0.0", __version__, "0.1.0rc1"])
def test_configs_of_this_and_earlier_versions_are_read(version):
    config_lib.validate(changed(version=version))


@pytest.mark.parametrize("version", ["0.1.1", "0.10", "1.0", "99.0.0", "0.2.0.dev1"])
def test_a_config_of_a_newer_version_is_refused_naming_both(version):
    message = refused(config_lib.validate, changed(version=version))
    assert version in message and __version__ in message


@pytest.mark.parametrize("version", ["", "new", "1x", "-1"])
def test_a_config_of_no_version_is_refused(version):
    assert "config.version" in refused(config_lib.validate, changed(version=version))


def test_a_newer_version_is_told_before_its_unknown_values():
    tree = json.loads(config_lib.to_json(config_lib.default_config()))
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
        (lambda tree: tree.pop("seed"), "config.seed is missing"),
        (lambda tree: tree.update(seed="0"), "config.seed = '0'"),
        (lambda tree: tree.update(seed=None), "config.seed = None"),
        (lambda tree: tree.update(seed={}), "config.seed is missing"),
        (lambda tree: tree.update(seed={"a": 1}), "config.seed.a"),
        (lambda tree: tree.update(data=[1]), "config.data is a section"),
        (lambda tree: tree["out"].update(temperature=0), "config.out.temperature = 0"),
        (lambda tree: tree.update(learning_rate=math.nan), "config.learning_rate = nan"),
    ],
)
def test_a_damaged_config_file_is_refused(edit, part):
    tree = json.loads(config_lib.to_json(config_lib.default_config()))
    edit(tree)
    message = refused(config_lib.from_json, json.dumps(tree), "runs/a/config.json")
    assert message.startswith("runs/a/config.json: ") and part in message


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"seed": 1, "seed": 2}', "[" * 100_000, "\x00"]
)
def test_what_is_no_config_file_is_refused(text):
    assert refused(config_lib.from_json, text, "c.json").startswith("c.json: ")


def test_an_older_file_takes_defaults_for_keys_it_did_not_have():
    tree = json.loads(config_lib.to_json(changed(seed=5)))
    tree["version"] = "0.0.1"
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


def test_without_effect_finds_options_of_terms_that_are_off():
    keys = ["seed", "out.alpha", "out.masks_per_layer", "mid.alpha", "multi_head.heads"]
    find = config_lib.without_effect
    assert find(changed("out"), keys) == ["mid.alpha", "multi_head.heads"]
    assert find(changed("tree"), keys) == ["out.masks_per_layer", "mid.alpha"]
    assert find(changed("baseline"), keys) == keys[1:]


@pytest.mark.parametrize(
    ("method", "values", "data", "key"),
    [
        ("baseline", {"batch_size": 100}, (99, 10, (8, 8, 1)), "batch_size"),
        ("baseline", {"top5": True}, (999, 5, (8, 8, 1)), "top5"),
        ("baseline", {"data__cutout": 9}, (999, 10, (8, 12, 3)), "data.cutout"),
        (
            "out+pull_push",
            {"pull_push__representation": "std"},
            (999, 10, (28, 28, 1)),
            "pull_push.representation",
        ),
        (
            "pull_push",
            {"pull_push__input_representation": "std"},
            (999, 10, (1, 1, 3)),
            "pull_push.input_representation",
        ),
    ],
)
def test_contradictions_with_the_data_are_refused(method, values, data, key):
    config = changed(method, **values)
    config_lib.validate(config)
    message = refused(config_lib.check_against_data, config, *data)
    assert message.startswith(f"config.{key} = ") and "cifar10" in message


def test_data_that_just_suffice_are_accepted():
    config = changed("out+mid", batch_size=100, top5=True, data__cutout=8)
    config_lib.check_against_data(config, 100, 6, (8, 8, 1))


def test_describe_has_a_row_for_every_key():
    rows = config_lib.describe().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(config_lib.SCHEMA)
    assert len({row.count("|") for row in rows}) == 1
    assert all(row.doc.strip() for row in config_lib.SCHEMA.values())


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 300),
    st.floats(),
    st.floats(-2, 3),
    st.text(max_size=20),
    st.sampled_from(["baseline", "tree", "out+mid", "never", "flatten", "resnet18", "bfloat16"]),
    st.lists(st.integers(-1, 200), max_size=4),
    st.lists(st.integers(-1, 200), max_size=4).map(tuple),
    st.binary(max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
METHODS = st.sampled_from(
    ["baseline", "out", "mid", "pull_push", "kernel", "out+mid+pull_push+kernel", "tree"]
)


def near_valid(key: str):
    """Values of a key's own type, so that many pass and contradictions are reached."""
    row = config_lib.SCHEMA[key]
    if isinstance(row.allowed, tuple):
        return st.sampled_from(row.allowed)
    return {
        bool: st.booleans(),
        int: st.integers(0, 8),
        float: st.floats(0, 1.5),
        str: METHODS if key == "method" else st.sampled_from([row.default, "digits"]),
        tuple: st.lists(st.integers(0, 8), max_size=2, unique=True).map(tuple),
    }[row.kind]


KEYS = st.sampled_from(list(config_lib.SCHEMA))
PAIRS = st.tuples(KEYS, st.sampled_from([True] * 5 + [False])).flatmap(
    lambda drawn: st.tuples(st.just(drawn[0]), near_valid(drawn[0]) if drawn[1] else VALUES)
)


def check_valid_config(config: ConfigDict) -> None:
    """What holds of every accepted configuration, stated apart from the table."""
    assert config_lib.to_json(config_lib.from_json(config_lib.to_json(config))) == (
        config_lib.to_json(config)
    )
    assert config.out.temperature > 0 and config.mid.temperature > 0
    assert 0 <= config.out.alpha <= 1 and 0 <= config.data.label_noise < 1
    assert min(config.mid.alpha, config.mid.beta, config.pull_push.weight) >= 0
    assert config.epochs >= 1 and config.batch_size >= 1 and config.eval_every >= 1
    assert list(config.decay_epochs) == sorted(set(config.decay_epochs))
    if "out" in config_lib.terms(config.method):
        assert config.out.masks_per_layer >= 2 and config.model.dropout > 0
    for key, row in config_lib.SCHEMA.items():
        assert type(config[key]) is type(row.default)
        assert not isinstance(config[key], float) or math.isfinite(config[key])


@settings(max_examples=500, deadline=None, derandomize=True)
@given(METHODS, st.lists(PAIRS, max_size=4).map(dict))
@example("out", {"model.dropout": 0})
@example("baseline", {"data.validation": 1.5})
def test_fuzzed_values_are_valid_or_refused_in_one_line(method, overrides):
    try:
        config = config_lib.recipe(method, overrides)
        config_lib.validate(config)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
    else:
        check_valid_config(config)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.one_of(
        PAIRS.map(lambda pair: (pair[0], config_lib.as_text(pair[1]))),
        st.tuples(KEYS, st.from_regex(r"[-+(]?[0-9.,e_-]{1,9}\)?")),
        st.tuples(st.one_of(KEYS, st.text(max_size=12)), st.text(max_size=12)),
    )
)
def test_fuzzed_text_is_valid_or_refused_in_one_line(override):
    key, text = override
    config = config_lib.default_config()
    try:
        config_lib.override(config, key, text)
        config_lib.validate(config)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
    else:
        check_valid_config(config)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(PAIRS, max_size=2),
    st.one_of(st.none(), st.none(), st.tuples(st.floats(0, 1), st.characters())),
)
def test_fuzzed_config_files_are_read_or_refused_in_one_line(pairs, damage):
    tree = json.loads(config_lib.to_json(config_lib.default_config()))
    for key, value in pairs:
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = repr(value) if type(value) is bytes else value
    text = json.dumps(tree)
    if damage:
        at = int(damage[0] * (len(text) - 1))
        text = text[:at] + damage[1] + text[at + 1 :]
    try:
        config = config_lib.from_json(text)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
    else:
        check_valid_config(config)
