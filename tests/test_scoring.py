"""The references beside a method: what rows there are, on what noise, and that they are right."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs.demo import get_config
from data_prep import writer
from pose3d_jax import cameras as cam
from pose3d_jax import evaluate, metrics, noise, scoring
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses
from pose3d_jax.methods.base import Info
from pose3d_jax.schema import Prediction
from tests import scenes


@pytest.fixture(scope="module")
def trained(demo_run, synthetic_set, tmp_path_factory):
    config = get_config("supervised-tiny").to_dict()
    config["data"]["path"] = str(synthetic_set)
    workdir = tmp_path_factory.mktemp("scoring") / "run"
    return config, shutil.copytree(demo_run("supervised"), workdir)


def evaluated(trained, **evaluation):
    config, workdir = trained
    changed = {**config, "evaluation": {**config["evaluation"], **evaluation}}
    return evaluate.run(workdir, changed), (workdir / "report.html").read_text()


def test_noise_and_stronger_rows_stand_in_the_evaluation(trained):
    clean, page = evaluated(trained)
    assert clean["noise"] == "clean"
    assert "triangulation, weighted" not in page
    noisy, page = evaluated(trained, noise="typical", references=("weighted",))
    assert noisy["noise"] == "typical"
    assert "triangulation, weighted" in page
    rows = {
        row: errors["absolute"]["frames"] for row, errors in noisy["splits"]["test"]["rows"].items()
    }
    assert rows["triangulation"] > 0.005
    assert rows["triangulation_weighted"] < rows["triangulation"]


@pytest.mark.slow
def test_the_stronger_the_row_the_smaller_its_error(trained):
    noisy, page = evaluated(trained, noise="typical", references=("refined", "robust"))
    assert "triangulation, robust" in page
    rows = {
        row: errors["absolute"]["frames"] for row, errors in noisy["splits"]["test"]["rows"].items()
    }
    assert rows["triangulation_robust"] < rows["triangulation"]
    assert rows["triangulation_refined"] < rows["triangulation_robust"]


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"noise": "loud"}, r"config.evaluation.noise.*'loud'.*'clean' or 'mild'"),
        ({"references": ("smoth",)}, r"config.evaluation.references.*some of 'weighted'"),
        ({"references": ("dlt",)}, r"config.evaluation.references"),  # the row triangulation
    ],
)
def test_what_there_is_not_is_refused(trained, evaluation, message):
    with pytest.raises(ConfigError, match=message):
        evaluated(trained, **evaluation)


def test_every_frame_of_every_clip_gets_its_own_points(tmp_path):
    """Batches that do not divide a clip, views that another clip lacks, exact keypoints."""
    for name, views in (("a", 3), ("b", 2)):
        record = scenes.record(name, dataset=name, frames=3 * views, views=views, seed=views)
        writer.write(tmp_path / name, name, {"train": [record]}, description="")
    data = poses.load([tmp_path / "a", tmp_path / "b"], "train")
    info = Info(scenes.H36M, scenes.H36M)
    worlds = scoring.reconstructed(info, data, ("weighted",))
    np.testing.assert_allclose(worlds["weighted"], data.poses.labels.joints, atol=1e-4)
    predicted = Prediction(np.zeros((15, 3, 17, 3), np.float32))
    errors, mask = scoring.score(info, data, predicted, 2, rows=("weighted",))
    assert mask.any()
    assert errors["triangulation_weighted"]["absolute"][mask].max() < 1e-4


def test_ellipsoids_hold_the_share_of_draws_that_they_promise():
    """And, where deviations are told half as large, that of a chi-square distribution."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(20_000, 3, 3)) * 0.01
    covariance = factor @ np.swapaxes(factor, -1, -2)
    error = (factor @ rng.normal(size=(20_000, 3, 1)))[..., 0]
    given = error.astype(np.float32), covariance.astype(np.float32)
    shares = scoring.coverage(*given)
    assert list(shares) == ["coverage_50%", "coverage_80%", "coverage_95%"]
    np.testing.assert_allclose(list(shares.values()), [0.5, 0.8, 0.95], atol=0.01)
    half = scoring.coverage(given[0], given[1] / 4, (0.8,))
    expected = stats.chi2.cdf(stats.chi2.ppf(0.8, 3) / 4, 3)
    assert half["coverage_80%"] == pytest.approx(expected, abs=0.01)
    assert scoring.coverage(error[:0], covariance[:0]) == {}


def test_accelerations_are_those_of_whole_clips(tmp_path):
    """Batches cut clips anywhere; frames that nobody sees, and a clip's first two, have none."""
    lengths = {"a": 7, "b": 2, "c": 9}
    records = [scenes.record(c, frames=n, seed=n) for c, n in lengths.items()]
    clip = records[2].clip
    confidence = clip.observations.confidence.copy()
    confidence[4, 1] = 0  # one frame of one view
    seen = dataclasses.replace(clip.observations, confidence=confidence)
    records[2] = records[2]._replace(clip=dataclasses.replace(clip, observations=seen))
    writer.write(tmp_path / "set", "scene", {"train": records}, description="")
    data = poses.load([tmp_path / "set"], "train")
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(18, 3, 17, 3)).astype(np.float32)
    errors, mask = scoring.score(
        Info(scenes.H36M, scenes.H36M), data, Prediction(joints), 4, rows=None
    )
    found = errors["method"]["acceleration"][:, 0]
    expected = np.full((18, 3), np.nan)
    first = 0
    for record in records:
        clip = slice(first, first + len(record.clip.labels.joints))
        truth = np.asarray(
            jax.jit(cam.batched(cam.to_camera))(
                record.clip.observations.cameras,
                jnp.repeat(jnp.asarray(record.clip.labels.joints)[:, None], 3, axis=1),
            )
        )
        for t in range(first + 2, clip.stop):
            for view in range(3):
                part = slice(t - 2, t + 1)
                valid = mask[part, 0, view, None] * np.ones((3, 17), np.float32)
                own, other = joints[part, view], truth[part.start - first : part.stop - first, view]
                total, count = metrics.acceleration_error(
                    jnp.asarray(own - own[:, :1]), jnp.asarray(other - other[:, :1]),
                    jnp.asarray(valid), 30.0,
                )  # fmt: skip
                if count:
                    expected[t, view] = total / count
        first = clip.stop
    assert not mask[13, 0, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    named = {"method": errors["method"]}
    mean = scoring.summarise(named, mask, data)["rows"]["method"]["acceleration"]["frames"]
    assert mean == pytest.approx(np.nanmean(expected), rel=1e-4)
    sums = scoring.by_clip(named, mask, data)["rows"]["method"]["acceleration"]
    assert sums["count"] == [15, 0, 18]
    assert sum(sums["sum"]) == pytest.approx(np.nansum(expected), rel=1e-4)


def test_a_split_read_with_noise_is_the_benchmark_s_own(tmp_path):
    record = scenes.record("a", frames=20, seed=1)
    writer.write(tmp_path / "data", "scene", {"train": [record]}, description="")
    typical = noise.preset("typical")
    read = poses.load([tmp_path / "data"], "train", noise=typical).poses.observations
    (stored,) = poses.read_split(tmp_path / "data", "train")
    expected = noise.corrupt_record(stored, typical).clip.observations
    np.testing.assert_array_equal(read.keypoints, expected.keypoints)
    np.testing.assert_array_equal(read.confidence, expected.confidence)
