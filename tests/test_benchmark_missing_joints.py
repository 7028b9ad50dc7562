"""benchmarks/missing_joints.py: what it hides, and that hiding nothing is the plain evaluation."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import missing_joints
from configs import cmu_occluded
from data_prep import synthetic
from pose3d_jax import train
from pose3d_jax.data import poses
from pose3d_jax.occlusion import radii, self_occluded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic")
    synthetic.main(["--out", str(path), "--scale", "0.05"])
    return path


def test_what_is_hidden_is_gone_and_nothing_else(folder):
    data = poses.load([folder], "test")
    before = jax.tree.map(np.asarray, data.poses.observations)
    hidden = np.random.default_rng(0).uniform(size=before.confidence.shape) < 0.3
    changed = missing_joints.without(data, hidden)
    after = jax.tree.map(np.asarray, changed.poses.observations)
    assert not after.confidence[hidden].any()
    assert not after.keypoints[hidden].any()
    assert_array_equal(after.confidence[~hidden], before.confidence[~hidden])
    assert_array_equal(after.keypoints[~hidden], before.keypoints[~hidden])
    assert_array_equal(changed.poses.labels.joints, data.poses.labels.joints)


def test_the_own_body_hides_by_the_true_pose_as_each_camera_sees_it(folder):
    data = poses.load([folder], "test")
    found = missing_joints.behind(data)
    observations = data.poses.observations
    assert found.shape == observations.confidence.shape
    assert 0 < found.mean() < 0.5
    thick = jnp.asarray(radii(data.joint_skeleton))
    one = jax.jit(lambda x: self_occluded(x, data.joint_skeleton, thick))
    clip = data.poses.take(jnp.arange(data.poses.size))
    for frame, view in ((0, 0), (len(found) // 2, 1), (len(found) - 1, found.shape[1] - 1)):
        rotation = np.asarray(clip.observations.cameras.rotation)[frame, 0, view]
        translation = np.asarray(clip.observations.cameras.translation)[frame, 0, view]
        joints = np.asarray(clip.labels.joints)[frame, 0] @ rotation.T + translation
        assert_array_equal(found[frame, view], one(jnp.asarray(joints, jnp.float32)))


@pytest.mark.slow
def test_the_command_prints_its_curves_and_hiding_nothing_is_the_evaluation(
    folder, tmp_path, monkeypatch, capsys
):
    errors = {}
    for name, argument in (("hidden", "tiny"), ("plain", "tiny,plain")):
        config = cmu_occluded.get_config(argument)
        config.data.path = str(folder)
        config.evaluation.test = ("test",)
        config.evaluation.references = ()
        metrics = train.run(config, tmp_path / name)
        errors[name] = metrics["splits"]["test"]["rows"][metrics["method"]]["p1"]["frames"]
    workdirs = [str(tmp_path / name) for name in errors]
    out = tmp_path / "curves.png"
    arguments = ["missing_joints", "--workdirs", *workdirs, "--split", "test", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    missing_joints.main()
    assert out.stat().st_size > 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["missing_joints"]
    for name in errors:
        assert_allclose(found[str(tmp_path / name)]["0 %"], errors[name], rtol=1e-5)
        assert set(found[str(tmp_path / name)]) == {
            *(f"{100 * share:.0f} %" for share in missing_joints.SHARES),
            missing_joints.OWN_BODY,
        }
