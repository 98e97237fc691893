"""The exported program: equal logits with jax and numpy alone, any batch size, whole files."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax import export as jax_export
from tiny import tiny_config

import collab_jax
from collab_jax import cli, data
from collab_jax.errors import RunError, UserError
from collab_jax.models import create_model, init_variables
from collab_jax.runs import export, loop
from collab_jax.runs.load import load_run
from collab_jax.runs.load_model import load

# Runs `how_to_call` where nothing but jax, numpy and what these two need can be imported.
ALONE = """
import json, sys

ALLOWED = sys.stdlib_module_names | {"jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy"}
ALLOWED |= {"load_model"}

class Filtered:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        allowed = name.split(".")[0] in ALLOWED or name.startswith("_sysconfigdata")
        return self.finder.find_spec(name, path, target) if allowed else None

sys.meta_path = [Filtered(finder) for finder in sys.meta_path]
import numpy as np

sys.path.insert(0, ".")
given = dict(np.load(sys.argv[1]))
lines = "\\n".join(json.load(open("model.json"))["how_to_call"])
found = {}
for name, images in given.items():
    names = {"images": images}
    exec(lines, names)
    found[name] = np.asarray(names["logits"])
assert not {"flax", "orbax", "collab_jax", "flatbuffers"} & set(sys.modules)
np.savez(sys.argv[2], **found)
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with contextlib.redirect_stderr(io.StringIO()) as told:
        loop.run(tiny_config("out", steps=1), folder)
    (folder / "told.txt").write_text(told.getvalue())
    return folder


@pytest.fixture(scope="module")
def exported(run_dir):
    assert cli.main(["--mode", "export", "--workdir", str(run_dir), "--checkpoint=last"]) == 0
    return run_dir / "exported-last"


def images_of(batch):
    return np.random.default_rng(batch).integers(0, 256, (batch, 8, 8, 1), np.uint8)


@pytest.mark.smoke
def test_logits_are_the_networks_with_jax_and_numpy_alone(run_dir, exported, tmp_path):
    given = {"three": images_of(3), "seven": images_of(7)}
    np.savez(tmp_path / "given.npz", **given)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "given.npz", tmp_path / "found.npz"],
        cwd=exported,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    restored = collab_jax.load(run_dir, "last")
    model, variables, info = restored.model, restored.variables, restored.info
    for name, images in given.items():
        # Normalised by hand: the program must do it as the training did.
        pixels = (images / 255 - np.array(info.mean)) / np.array(info.std)
        expected = np.asarray(model.apply(variables, pixels.astype(np.float32)))
        assert found[name].shape == (len(images), 10) and found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_the_description_is_true_of_the_files(run_dir, exported):
    description = json.loads((exported / "model.json").read_text())
    restored = load_run(run_dir, "last")
    assert description["class_names"] == list(restored.info.class_names)
    assert description["image_shape"] == [8, 8, 1]
    assert description["step"] == 1
    assert description["platforms"] == ["cpu", "cuda"]
    assert {path.name for path in exported.iterdir()} == {*description["sha256"], "model.json"}
    arrays = len(jax.tree.leaves(restored.variables))
    assert len(np.load(exported / "parameters.npz").files) == arrays
    assert np.load(exported / "example.npz").files == ["images", "logits"]
    for name, expected in description["sha256"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == expected
    with np.load(exported / "parameters.npz") as parameters:
        leaves = jax.tree.leaves(restored.variables)
        assert len(parameters) == len(leaves)
    learned = sum(leaf.size for leaf in jax.tree.leaves(restored.variables["params"]))
    assert description["parameters"] == learned
    assert f" {learned:,} parameters (" in (run_dir / "told.txt").read_text()


def deserialized(folder):
    return jax_export.deserialize(bytearray((folder / "model.jax_export").read_bytes()))


def test_one_program_keeps_the_form_of_each_platform(exported):
    program = deserialized(exported)
    assert program.platforms == ("cpu", "cuda")
    text = program.mlir_module()
    # The platform's number chooses between the forms of the convolutions on few pixels.
    assert "_platform_index" in text and "stablehlo.case" in text
    assert text.count("stablehlo.convolution") >= 13


def test_the_loader_is_what_deserialize_makes(exported):
    parameters = dict(np.load(exported / "parameters.npz"))
    found = load(exported)(images_of(5))
    np.testing.assert_array_equal(found, deserialized(exported).call(parameters, images_of(5)))
    example = np.load(exported / "example.npz")
    expected = example["logits"]
    bound = 1e-5 * abs(expected).max()
    np.testing.assert_allclose(load(exported)(example["images"]), expected, rtol=0, atol=bound)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 1), np.float32),
        np.zeros((2, 9, 8, 1), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
    ],
)
def test_other_images_are_refused(exported, images):
    given = re.escape(f"images: {images.dtype} {images.shape} given")
    with pytest.raises(ValueError, match=given + r", expected uint8 \(B, 8, 8, 1\)"):
        load(exported)(images)


def test_a_damaged_file_is_told(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    content = bytearray((folder / "parameters.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "parameters.npz").write_bytes(content)
    with pytest.raises(ValueError, match="parameters.npz: differs from its SHA-256"):
        load(folder)


@pytest.mark.parametrize("newer", ["calling convention", "program"])
def test_an_export_of_a_newer_jax_is_told_with_its_version(exported, tmp_path, newer):
    folder = tmp_path / "newer"
    shutil.copytree(exported, folder)
    description = json.loads((folder / "model.json").read_text())
    description["versions"]["jax"] = "99.1"
    if newer == "program":
        program = b"ML\xefR\x0dStableHLO_v99.0.0" + bytes(40)
        (folder / "model.stablehlo").write_bytes(program)
        description["sha256"]["model.stablehlo"] = hashlib.sha256(program).hexdigest()
    else:
        description["calling_convention_version"] = 999
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"export by jax 99\.1 that jax .* does not load; .*>=99"):
        load(folder)


def test_strided_and_1x1_convolutions_take_any_batch_in_bfloat16(run_dir, tmp_path):
    restored = load_run(run_dir, "last")
    model = create_model("resnet18", 10, width=0.0625, classifier_width=8, dtype="bfloat16")
    variables = init_variables(model, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    export._write(tmp_path, replace(restored, model=model, variables=variables), "last")
    found = np.asarray(load(tmp_path)(images_of(5)))
    info = restored.info
    inputs = data.normalise(images_of(5), np.array(info.mean), np.array(info.std))
    expected = np.asarray(model.apply(variables, inputs))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * abs(expected).max())


def test_an_export_is_replaced_whole_or_left_as_it_is(run_dir, exported, monkeypatch):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(export.load_model, "load", lambda _: lambda images: np.ones((4, 10)))
        with pytest.raises(RunError, match="differ from the network's"):
            export.run(run_dir, checkpoint="last")
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    assert not list(run_dir.glob(".exported*"))
    (exported / "model.stablehlo").write_text("old")
    export.run(run_dir, checkpoint="last")
    assert {path.name for path in exported.iterdir()} == set(before)
    load(exported)


def test_other_peoples_files_are_not_replaced_by_an_export(run_dir, exported, tmp_path):
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"exported-last: holds notes\.txt, which no export wrote"):
        export.run(run_dir, checkpoint="last")
    assert (exported / "notes.txt").read_text() == "mine"
    (exported / "notes.txt").unlink()
    elsewhere = exported.rename(tmp_path / "elsewhere")
    exported.symlink_to(elsewhere)
    try:
        with pytest.raises(UserError, match="exported-last: is a symbolic link"):
            export.run(run_dir, checkpoint="last")
        assert len(list(elsewhere.iterdir())) > 4
    finally:
        exported.unlink()
        elsewhere.rename(exported)


def test_mistakes_are_told(run_dir, tmp_path):
    with pytest.raises(UserError, match="no step 9 in"):
        export.run(run_dir, checkpoint="9")
    with pytest.raises(UserError, match="config.json"):
        export.run(tmp_path / "none")
