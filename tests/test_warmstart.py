"""What goes on from a finished run: training from its weights, evaluation with its clips fitted."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import cmu_mv, cmu_mv_seq
from data_prep import synthetic
from pose3d_jax import evaluate, train
from pose3d_jax.config import ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("warmstart") / "data"
    synthetic.main(["--output", str(directory), "--scale", "0.02"])
    return directory


def experiment(module, data, argument="tiny"):
    config = module.get_config(argument)
    config.data.path = str(data)
    config.evaluation.test = ("test",)
    config.evaluation.references = ()
    return config


@pytest.fixture(scope="module")
def lifter(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("warmstart") / "run"
    return workdir, train.run(experiment(cmu_mv, data), workdir)


def refined(data, workdir, **settings):
    config = experiment(cmu_mv, data)
    config.phases = config.phases[:1]
    with config.unlocked():
        config.method.update({"network": "refined", "channels": 8, "levels": 2})
        config.phases[0].update({"frozen": ["lifter/trunk/frame"]})
        config.init = {"workdir": str(workdir), "into": "lifter/trunk/frame", **settings}
    return config


def test_training_goes_on_from_another_run_s_weights(data, lifter, tmp_path):
    """A frozen lifter stays what it was, and what is added to it learns."""
    train.run(refined(data, lifter[0]), tmp_path / "run")
    source = evaluate.restore(lifter[0]).variables
    found = evaluate.restore(tmp_path / "run").variables
    for collection in ("params", "batch_stats"):
        frame = flatten_dict(found[collection]["lifter"]["trunk"]["frame"])
        own = flatten_dict(source[collection]["lifter"])
        assert frame.keys() == own.keys()
        assert all(np.array_equal(frame[path], own[path]) for path in own)
    decoder = found["params"]["lifter"]["trunk"]["time"]["decoder"]["bias"]
    assert np.any(np.asarray(decoder) != 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"part": "critic"}, r"no variables at or below 'critic'; the top ones are lifter"),
        ({"into": "lifter/trunk"}, "in this network, .* in the checkpoint; give both the same"),
        ({"workdir": "nowhere"}, "no checkpoint in nowhere"),
    ],
)
def test_weights_that_do_not_fit_are_refused(data, lifter, tmp_path, settings, message):
    with pytest.raises((ConfigError, evaluate.checkpoint.CheckpointError), match=message):
        train.run(refined(data, lifter[0], **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_lifter_s_clips_are_fitted_at_evaluation(data, lifter):
    """With the config for clips, and without any training: beside what it says frame by frame."""
    workdir, metrics = lifter
    given = experiment(cmu_mv_seq, data)
    fitted = evaluate.run(workdir, given)
    rows = fitted["splits"]["test"]["rows"]
    assert set(rows) == {"multiview", "multiview_alone", "triangulation", "mean_pose"}
    before = metrics["splits"]["test"]["rows"]["multiview"]["p1"]["frames"]
    assert rows["multiview_alone"]["p1"]["frames"] == pytest.approx(before, rel=1e-5)
    assert rows["multiview"]["p1"]["frames"] < before
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(rows["multiview"]["p1"]))
