"""How good hypotheses are, of a method whose distribution is known: against SciPy and NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from data_prep import writer
from pose3d_jax import hypotheses, methods
from pose3d_jax.data import poses
from pose3d_jax.methods.base import Info, MethodError
from pose3d_jax.schema import Prediction
from pose3d_jax.scoring import in_views, triangulated
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)
SIGMA = np.array([0.01, 0.02, 0.05], np.float32)  # metres, along the axes of the camera
ROOT = scenes.H36M.root


@dataclasses.dataclass(frozen=True)
class Known:
    """Hypotheses about a place that is itself drawn about the true one, which it triangulates.

    Standard deviations are stated `overconfident` times too small.
    """

    overconfident: float = 1.0
    samples: int = 40
    groups = ()

    def init(self, key, batch):
        return {}

    def terms(self, variables, batch, key, step, *, group, mode):
        raise NotImplementedError

    def predict(self, variables, observations, key=None):
        truth = in_views(observations, triangulated(observations, INFO)[0])
        mean_key, sample_key = jax.random.split(key)

        def noise(key, shape):
            drawn = jnp.asarray(SIGMA).reshape(*[1] * (len(shape) - 1), 3)
            return (drawn * jax.random.normal(key, shape)).at[..., ROOT, :].set(0.0)

        mean = truth + noise(mean_key, truth.shape)
        covariance = jnp.diag(jnp.asarray(SIGMA) ** 2) / self.overconfident**2
        return Prediction(
            joints=mean,
            samples=mean[None] + noise(sample_key, (self.samples, *truth.shape)),
            covariance=jnp.broadcast_to(covariance, (*truth.shape, 3)),
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hypotheses") / "set"
    writer.write(folder, "scene", {"train": [scenes.record("a", frames=61)]}, description="")
    return poses.load([folder], "train")


def test_what_is_known_of_a_gaussian_comes_out(data):
    found = hypotheses.measure(Known(), INFO, {}, data)
    for level in (50, 80, 95):  # of 61 frames, 3 views and 16 joints
        assert_allclose(found[f"coverage_{level}"], level / 100, atol=0.03)
    entropy = stats.multivariate_normal(cov=np.diag(SIGMA**2)).entropy()
    assert_allclose(found["nll"], entropy, atol=0.08)
    off = np.random.default_rng(0).normal(size=(100_000, 3)) * SIGMA
    error = 16 / 17 * np.linalg.norm(off, axis=1).mean()  # the root's is 0
    assert_allclose(found["p1"], error, rtol=0.03)
    assert_allclose(found["typical_p1"], error * np.sqrt(2), rtol=0.03)
    # Hypotheses are a Gaussian's, so that a Gaussian of their covariance does as well.
    assert found["best_p1"] < 0.95 * found["typical_p1"]
    assert_allclose(found["best_p1"], found["gaussian_p1"], rtol=0.02)
    assert_allclose(found["best_p2"], found["gaussian_p2"], rtol=0.02)


def test_the_best_hypothesis_reprojects_as_numpy_says(data):
    method = Known(samples=3)
    clip = data.poses.take(jnp.arange(data.poses.size))
    key = jax.random.fold_in(jax.random.key(0), 0)
    found = hypotheses.measure(method, INFO, {}, data, batch_size=64)
    predict = jax.jit(method.predict)
    samples = np.asarray(predict({}, clip.observations, jax.random.split(key)[0]).samples)
    truth = np.asarray(jax.jit(in_views)(clip.observations, clip.labels.joints))
    off = samples - truth
    off = off - off[..., [ROOT], :]
    p1 = np.linalg.norm(off, axis=-1).mean(axis=-1)
    assert_allclose(found["best_p1"], p1.min(axis=0).mean(), rtol=1e-4)
    assert_allclose(found["typical_p1"], p1.mean(), rtol=1e-4)
    cameras, points = clip.observations.cameras, clip.observations.keypoints
    focal, center = np.asarray(cameras.focal), np.asarray(cameras.center)
    flat = samples[..., :2] / samples[..., 2:]  # scenes' lenses do not distort by much
    pixels = flat * focal[..., None, :] + center[..., None, :]
    off = np.linalg.norm(pixels - np.asarray(points), axis=-1).mean()
    assert_allclose(found["reprojection_px"], off, rtol=0.1)


@pytest.mark.parametrize("overconfident", [0.5, 1.0, 3.0])
def test_calibration_finds_by_how_much_deviations_are_wrong(data, overconfident):
    method = Known(overconfident)
    scale = hypotheses.calibration(method, INFO, {}, data)
    assert_allclose(scale, overconfident, rtol=0.04)
    found = hypotheses.measure(method, INFO, {}, data, scale=scale)
    assert_allclose(found["coverage_80"], 0.8, atol=0.03)


def test_gaussian_like_has_the_covariance_of_the_samples():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 6)) @ rng.normal(size=(6, 6))
    samples = jnp.asarray(flat.reshape(30, 1, 1, 1, 2, 3), jnp.float32)
    draw = lambda key: hypotheses.gaussian_like(samples, key)  # noqa: E731
    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), 1000)).reshape(-1, 6)
    covariance = np.cov(flat.T)
    assert_allclose(np.asarray(drawn).mean(axis=0), flat.mean(axis=0), atol=0.1)
    assert_allclose(np.cov(np.asarray(drawn).T), covariance, atol=0.03 * np.abs(covariance).max())


def test_a_method_without_hypotheses_is_refused(data):
    lifter = methods.create({"name": "supervised", "width": 8}, INFO)
    clip = data.poses.take(jnp.arange(1))
    variables = jax.jit(lifter.init)(jax.random.key(0), {"main": clip})
    with pytest.raises(MethodError, match="Supervised gives no hypotheses"):
        hypotheses.measure(lifter, INFO, variables, data)
