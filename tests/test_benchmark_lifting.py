"""benchmarks/lifting.py: its rows are experiments, and what they are held to is what it says."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from benchmarks import lifting
from data_prep import synthetic, writer
from pose3d_jax import config as configs
from pose3d_jax import hypotheses, methods
from pose3d_jax.data import poses
from pose3d_jax.geometry import similarity_align
from pose3d_jax.methods.base import Info
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)


@pytest.mark.parametrize("row", [name for name, row in lifting.ROWS.items() if row.config])
@pytest.mark.parametrize("noise", ["clean", "typical"])
def test_every_row_is_an_experiment(row, noise):
    config = lifting.config_of(lifting.ROWS[row], "somewhere", noise, ["test_seen"], 3, False)
    full = configs.complete(config)
    assert full["evaluation"]["noise"] == noise
    assert full["evaluation"]["test"] == ["test_seen"]
    assert full["seed"] == 3
    methods.create(full["method"], INFO)
    shown = [phase["disturbance"]["sigma_px"] > 0 for phase in full["phases"]]
    assert any(shown) == (noise == "typical")


def test_the_mean_of_aligned_poses_is_the_pose_they_were_made_of(tmp_path):
    """Frames that are one pose, turned, moved and sized anew each."""
    rng = np.random.default_rng(0)
    record = scenes.record("a", frames=120)
    pose = record.clip.labels.joints[0]
    turns = Rotation.random(120, random_state=0).as_matrix()
    size, place = rng.uniform(0.5, 2, (120, 1, 1)), rng.uniform(-1, 1, (120, 1, 3))
    joints = (size * np.einsum("tij,kj->tki", turns, pose) + place).astype(np.float32)
    labels = dataclasses.replace(record.clip.labels, joints=joints)
    record = record._replace(clip=dataclasses.replace(record.clip, labels=labels))
    writer.write(tmp_path / "set", "scene", {"train": [record]}, description="")
    found = lifting.mean_of_aligned(poses.load([tmp_path / "set"], "train"))
    back = similarity_align(found, jnp.asarray(pose), jnp.ones(17))
    assert_allclose(back, pose, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["clean", "typical"])
def test_the_quick_form_prints_a_table_and_json(tmp_path, monkeypatch, capsys, noise):
    calibration, missing = hypotheses.calibration, []

    def watched(method, info, variables, data, **settings):
        missing.append(float((data.poses.observations.confidence == 0).mean()))
        return calibration(method, info, variables, data, **settings)

    monkeypatch.setattr(hypotheses, "calibration", watched)
    synthetic.main(["--out", str(tmp_path / "data"), "--scale", "0.05"])
    arguments = ["--rows", "vae", "--splits", "test", "--root", "vae", "--noise", noise, "--quick"]
    paths = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["lifting", *arguments, *paths])
    lifting.main()
    printed = capsys.readouterr().out
    assert "learns from" in printed
    *_, last = printed.strip().splitlines()

    found = json.loads(last)["lifting"][noise]["test"]
    assert set(found) == {"vae", lifting.BASELINE}
    row = found["vae"]
    # Its own root: nothing moves.
    assert_allclose(row["placed_p1"], row["p1"], rtol=1e-4)
    assert_allclose(row["placed_absolute"], row["absolute"], rtol=1e-4)
    assert row["hypotheses_best_p1"] < row["hypotheses_typical_p1"]
    assert found[lifting.BASELINE]["p1"] is None
    # Calibrated on points as noisy as those of the test.
    assert (missing[0] > 0.1) == (noise == "typical")
    assert jax.tree.all(jax.tree.map(np.isfinite, [x for x in row.values() if x is not None]))


def test_a_row_that_there_is_not_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lifting", "--rows", "magic"])
    with pytest.raises(SystemExit):
        lifting.main()
    assert "no row is named magic; there are supervised" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["lifting", "--root", "kudo"])
    with pytest.raises(SystemExit):
        lifting.main()
    assert "kudo does not know where people are; root" in capsys.readouterr().err
