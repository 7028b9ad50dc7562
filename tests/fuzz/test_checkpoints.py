"""Whatever happens to a work directory: what is read from it is refused by name, or as it was."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose3d_jax import checkpoint, evaluate, log, methods, runs, train, workdir
from pose3d_jax.data import poses
from pose3d_jax.errors import UserError
from pose3d_jax.phases import phases_of
from pose3d_jax.state import init_state
from tests.fuzz.conftest import examples
from tests.fuzz.damage import DAMAGE, FRACTION, copied, damage, files
from tests.fuzz.test_configs import plain

pytestmark = [
    # A minute of training and damaging; tests/test_checkpoint.py has the plain cases.
    pytest.mark.slow,
    # A future of tensorstore that outlives a failed reading complains where nobody can catch it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
RESULTS = ("metrics.json", "clips.json", "examples.npz", "experiment.json")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A finished run; its results are sealed, whether or not the evaluation did so."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    metrics = train.run(plain(data), directory)
    for name in ("metrics.json", "clips.json"):
        found = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps(runs.sealed(found, name), indent=1))
    for name in ("tensorboard", "report.html", ".lock"):  # nothing reads them
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return directory, metrics


@pytest.fixture(scope="module")
def like(trained):
    """What `evaluate` asks a checkpoint for."""
    metadata = checkpoint.read_metadata(trained[0])
    config, info = metadata["config"], evaluate._info(metadata)
    method = methods.create(config["method"], info)
    phases = phases_of(config, method, metadata["steps_per_epoch"])
    batch = {"main": poses.load(config["data"]["path"], "test").poses.take(jnp.zeros(1, int))}
    key = jax.random.key(0)
    return jax.eval_shape(lambda key: init_state(method, phases[-1], batch, key, False), key)


def state(directory, like):
    found = checkpoint.read_state(directory, like)
    return [np.asarray(checkpoint._key_data(leaf)).tobytes() for leaf in jax.tree.leaves(found)]


def run(directory):
    """Metrics and examples; those that are gone are none, which is how a run without any reads."""
    found = runs.read_run(directory)
    arrays = found.examples or {}
    return found.metrics, {k: (v.shape, v.dtype.str, v.tobytes()) for k, v in arrays.items()}


def clips(directory):
    return runs.read_clips(directory)


def experiment(directory):
    """Nothing where it fits; a directory that remembers none is anybody's."""
    if (directory / "experiment.json").exists():
        workdir.check(directory, json.loads((directory.parent / "asked.json").read_text()))


def scalars(directory):
    """Steps of the rows that a run goes on from."""
    with log.ScalarLog(directory, 10**9):
        return [row["step"] for row in log.read_scalars(directory / "scalars.jsonl")]


def assert_refused_or_same(read, directory, expected):
    """The message names the directory; or the answer is what it was before the damage."""
    try:
        found = read(directory)
    except UserError as error:
        message = str(error)
        assert str(directory) in message
        assert ";" in message  # what is wrong; what to do
        return
    assert found == expected


def broken(trained, tmp_path_factory):
    directory = copied(trained[0], tmp_path_factory.getbasetemp() / "broken" / "run")
    shutil.copy(trained[0] / "experiment.json", directory.parent / "asked.json")
    return directory


@examples(40)
@given(st.lists(DAMAGE, min_size=1, max_size=2))
def test_a_damaged_checkpoint_is_refused_or_whole(trained, like, tmp_path_factory, happened):
    metadata, arrays = checkpoint.read_metadata(trained[0]), state(trained[0], like)
    directory = broken(trained, tmp_path_factory)
    for one in happened:
        damage(files(directory / "checkpoints"), *one)
    assert_refused_or_same(checkpoint.read_metadata, directory, metadata)
    assert_refused_or_same(lambda path: state(path, like), directory, arrays)


@examples(150)
@given(DAMAGE)
def test_damaged_results_are_refused_or_whole(trained, tmp_path_factory, happened):
    expected_run, expected_clips = run(trained[0]), clips(trained[0])
    directory = broken(trained, tmp_path_factory)
    # A folder for experiment.json is `workdir.check`'s to refuse.
    damage([directory / name for name in RESULTS[: 3 if happened[0] == "folder" else 4]], *happened)
    if not (directory / "examples.npz").exists():
        expected_run = (expected_run[0], {})
    assert_refused_or_same(run, directory, expected_run)
    assert_refused_or_same(clips, directory, expected_clips)
    assert_refused_or_same(experiment, directory, None)


@examples(100)
@given(DAMAGE)
def test_damaged_scalars_are_refused_or_rows(trained, tmp_path_factory, happened):
    """A log has no checksums: an altered digit is not seen, a line that is no row is."""
    directory = broken(trained, tmp_path_factory)
    damage([directory / "scalars.jsonl"], *happened)
    try:
        rows = scalars(directory) if (directory / "scalars.jsonl").exists() else []
    except log.LogError as error:
        assert str(directory / "scalars.jsonl") in str(error)  # noqa: PT017
    else:
        assert all(isinstance(step, int) for step in rows)


@pytest.mark.parametrize("name", ["7", "x", "6.orbax-checkpoint-tmp-1", "06"])
def test_a_renamed_step_is_refused_or_whole(trained, like, tmp_path_factory, name):
    metadata, arrays = checkpoint.read_metadata(trained[0]), state(trained[0], like)
    directory = broken(trained, tmp_path_factory)
    (directory / "checkpoints" / "6").rename(directory / "checkpoints" / name)
    assert_refused_or_same(checkpoint.read_metadata, directory, metadata)
    assert_refused_or_same(lambda path: state(path, like), directory, arrays)


@pytest.mark.parametrize("name", ["9.orbax-checkpoint-tmp-1", "9.orbax-checkpoint-tmp", "x"])
def test_what_a_killed_save_leaves_is_not_minded(trained, like, tmp_path_factory, name):
    directory = broken(trained, tmp_path_factory)
    half = directory / "checkpoints" / name
    shutil.copytree(directory / "checkpoints" / "6", half)
    shutil.rmtree(half / "metadata")
    assert checkpoint.read_metadata(directory) == checkpoint.read_metadata(trained[0])
    assert state(directory, like) == state(trained[0], like)


@pytest.mark.parametrize("name", ["7", "9"])
def test_an_empty_or_half_step_is_refused(trained, like, tmp_path_factory, name):
    directory = broken(trained, tmp_path_factory)
    (directory / "checkpoints" / name).mkdir()
    if name == "9":
        shutil.copytree(directory / "checkpoints/6/state", directory / "checkpoints/9/state")
    with pytest.raises(UserError, match=str(directory)):
        checkpoint.read_metadata(directory)
    with pytest.raises(UserError, match=str(directory)):
        checkpoint.read_state(directory, like)


@pytest.mark.slow
@examples(4)
@given(FRACTION, FRACTION, st.integers(0, 7))
def test_an_evaluation_of_what_is_damaged_is_refused_or_the_same(
    trained, tmp_path_factory, which, where, bit
):
    directory = broken(trained, tmp_path_factory)
    damage(files(directory / "checkpoints"), "flip", which, where, bit)
    assert_refused_or_same(evaluate.run, directory, trained[1])


@pytest.mark.parametrize("found", [b"\xff", b"[1]", b'{"step": ' + b"9" * 5000 + b"}"])
def test_a_line_that_is_no_row_is_named(tmp_path, found):
    (tmp_path / "scalars.jsonl").write_bytes(found + b"\n")
    with pytest.raises(log.LogError, match="line 1 is not"):
        log.read_scalars(tmp_path / "scalars.jsonl")


def test_a_folder_for_a_file_is_named(trained, tmp_path_factory):
    for name in (*RESULTS[:3], "scalars.jsonl"):
        directory = broken(trained, tmp_path_factory)
        (directory / name).unlink()
        (directory / name).mkdir()
        with pytest.raises(UserError, match=name):
            (runs.read_clips if name == "clips.json" else runs.read_run)(directory)


def test_a_shorter_array_in_the_examples_is_found(trained, tmp_path_factory):
    """Numpy reads as much as the header says, and so never comes to the checksum."""
    directory = broken(trained, tmp_path_factory)
    path = directory / "examples.npz"
    content = path.read_bytes()
    assert content.count(b"'shape': (4, 17, 3)") > 0
    path.write_bytes(content.replace(b"'shape': (4, 17, 3)", b"'shape': (0, 17, 3)", 1))
    with pytest.raises(runs.RunError, match=r"examples.npz cannot be read .* --mode=evaluate"):
        runs.read_run(directory)


def test_results_under_another_name_are_refused(trained, tmp_path_factory):
    directory = broken(trained, tmp_path_factory)
    shutil.copy(directory / "metrics.json", directory / "clips.json")
    with pytest.raises(runs.RunError, match=r"clips.json is not what was written.*--mode=evaluate"):
        runs.read_clips(directory)
