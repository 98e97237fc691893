"""Fuzzed configurations: each is valid, or refused in one line."""

import json
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from collab_jax import config as config_lib
from collab_jax.errors import UserError

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
    [
        *("baseline", "out", "mid", "pull_push", "kernel", "out+mid+pull_push+kernel", "tree"),
        *("self_distillation", "r_drop", "auxiliary+predsim+hsic+decov"),
    ]
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
        tuple: st.lists(st.one_of(st.integers(0, 8), st.floats(0, 1)), max_size=2, unique=True).map(
            tuple
        ),
    }[row.kind]


KEYS = st.sampled_from(list(config_lib.SCHEMA))
PAIRS = st.tuples(KEYS, st.sampled_from([True] * 5 + [False])).flatmap(
    lambda drawn: st.tuples(st.just(drawn[0]), near_valid(drawn[0]) if drawn[1] else VALUES)
)


def check_valid_config(config: config_lib.Config) -> None:
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
        config = config_lib.parse(config_lib.recipe(method, overrides))
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
    try:
        config = config_lib.override(config_lib.Config(), {key: text})
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
    tree = json.loads(config_lib.to_json(config_lib.Config()))
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
