"""Configurations of earlier versions: what they mean today, and what is refused."""

import json
from pathlib import Path

import pytest

from collab_jax import config as config_lib
from collab_jax.config import Config, versions
from collab_jax.config.versions import Change
from collab_jax.errors import UserError

KEPT = sorted((Path(__file__).resolve().parents[2] / "results").rglob("config.json"))


def old_file(**changes) -> str:
    """A file of version 0.1.0 with its defaults, `__` standing for the dot."""
    tree = json.loads(config_lib.to_json(Config()))
    tree.update(version="0.1.0", decay_epochs=[60, 120, 160])
    tree["pull_push"]["weight"] = 0.01
    for key, value in changes.items():
        section, _, leaf = key.rpartition("__")
        (tree[section] if section else tree)[leaf] = value
    return json.dumps(tree)


def test_the_defaults_of_an_earlier_version_mean_what_the_defaults_mean_today():
    config = config_lib.from_json(old_file())
    assert config.pull_push.weight == 1.28 and config.decay_epochs == (60, 120, 160)
    assert not config_lib.resume_conflicts(config, Config())


@pytest.mark.parametrize(
    ("batch_size", "micro_batches", "weight", "now"),
    [(128, 1, 0.01, 1.28), (64, 1, 0.003, 0.192), (128, 4, 0.01, 0.32), (128, 1, 0, 0)],
)
def test_pull_push_had_a_norm_over_the_images_of_a_micro_batch(
    batch_size, micro_batches, weight, now
):
    text = old_file(batch_size=batch_size, micro_batches=micro_batches, pull_push__weight=weight)
    assert config_lib.from_json(text).pull_push.weight == pytest.approx(now, rel=1e-12)


def test_keys_that_an_old_file_lacks_have_its_versions_defaults():
    tree = json.loads(old_file(batch_size=64))
    del tree["micro_batches"], tree["pull_push"], tree["decay_epochs"]
    config = config_lib.from_json(json.dumps(tree))
    assert config.pull_push.weight == 0.64
    assert (config.micro_batches, config.decay_epochs) == (1, (60, 120, 160))


def test_a_translated_file_is_translated_once():
    config = config_lib.from_json(old_file())
    assert config.version == "0.1.0"
    again = config_lib.from_json(config_lib.to_json(config))
    assert again.pull_push.weight == config.pull_push.weight == 1.28
    assert not config_lib.resume_conflicts(config, again)


def test_an_old_value_that_never_fitted_is_refused_naming_the_key():
    with pytest.raises(UserError, match=r"config\.pull_push\.weight = 'x': expected a finite"):
        config_lib.from_json(old_file(pull_push__weight="x"))


def test_a_key_that_is_gone_is_refused_unless_it_had_its_default(monkeypatch):
    gone = Change("0.2.0", "mid.colour", "red", None)
    monkeypatch.setattr(versions, "CHANGES", (*versions.CHANGES, gone))
    assert config_lib.from_json(old_file(mid__colour="red")).version == "0.1.0"
    with pytest.raises(UserError) as caught:
        config_lib.from_json(old_file(mid__colour="blue"), "c.json")
    assert str(caught.value) == (
        "c.json: config.mid.colour = 'blue': expected 'red': this key is gone since 0.2.0"
    )


def test_only_runs_of_this_versions_random_numbers_go_on():
    assert [config_lib.is_resumable(v) for v in ("0.1.0", "0.1.9", "0.2.0", "0.2.1")] == [
        False,
        False,
        True,
        True,
    ]


def test_every_kept_configuration_is_read():
    assert len(KEPT) > 100
    for path in KEPT:
        config = config_lib.from_json(path.read_text(), str(path))
        kept = json.loads(path.read_text())
        weight = kept["pull_push"]["weight"]
        if kept["version"] == "0.1.0":
            weight *= kept["batch_size"]
        assert config.pull_push.weight == pytest.approx(weight)
        assert (config.epochs, config.seed) == (kept["epochs"], kept["seed"])
