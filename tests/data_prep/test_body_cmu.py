"""Body-CMU v1: who is in which tier, what its cameras see, what a tier is told."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from data_prep import body_cmu, cmu
from pose3d_jax import figure as figures
from pose3d_jax import skeleton
from pose3d_jax.data import poses
from tests import bodies

SPEC = {"name": "a_clip", "clip": "amc/01_01", "start": 0, "group": "g", "center_xy": [0.0, 0.0]}


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    path = bodies.person(tmp_path_factory.mktemp("figure") / "person.npz")
    return figures.load(path, skeleton.get("body25"))


def test_every_segment_is_in_one_tier_and_every_group_has_3d():
    specs = cmu.benchmark()["segments"]
    found = body_cmu.tier_of(specs)
    assert set(found) == {spec["name"] for spec in specs}
    assert set(found.values()) == {*body_cmu.TIERS, *cmu.SPLITS[1:]}
    for spec in specs:
        if spec["split"] != "train":
            assert found[spec["name"]] == spec["split"]
    groups = {spec["group"] for spec in specs if spec["split"] == "train"}
    assert {s["group"] for s in specs if found[s["name"]] == "train"} == groups


def test_one_camera_stands_and_one_goes_and_both_look_at_the_person():
    t = np.arange(120) / 30
    pelvis = np.stack([np.cos(t), np.sin(t), 1.0 + 0 * t], axis=-1)
    cameras = body_cmu.cameras(pelvis, "a_clip", 30.0)
    turned = np.einsum("tvij,tj->tvi", cameras.rotation, pelvis) + cameras.translation
    assert turned[..., 2].min() > 2.0
    off = np.degrees(np.arctan2(np.linalg.norm(turned[..., :2], axis=-1), turned[..., 2]))
    assert off.max() < 25
    assert off[:, 1].max() < 8  # who goes around keeps the person in the middle
    centres = -np.einsum("tvji,tvj->tvi", cameras.rotation, cameras.translation)
    assert np.ptp(centres[:, 0], axis=0).max() < 1e-4
    assert np.ptp(centres[:, 1], axis=0).max() > 0.2
    upright = np.einsum("tvij,j->tvi", cameras.rotation, [0.0, 0.0, 1.0])
    assert abs(upright[..., 0]).max() < 1e-4  # no roll
    again = body_cmu.cameras(pelvis, "a_clip", 30.0)
    assert jax.tree.map(np.array_equal, cameras, again).rotation


def test_a_tier_is_told_what_it_may_know(figure):
    motion = bodies.motion(50, 0)
    told = body_cmu.record(figure, motion, SPEC, "train", 30.0).clip
    annotated = body_cmu.record(figure, motion, SPEC, "train_2d", 30.0).clip
    seen = body_cmu.record(figure, motion, SPEC, "train_pseudo", 30.0).clip
    assert told.labels.body.valid.all()
    assert_allclose(told.labels.joints[..., 2].min(axis=1), 0, atol=0.15)  # on the floor
    assert abs(told.labels.body.shape[0]).max() <= 2
    assert_allclose(told.labels.body.shape, told.labels.body.shape[:1].repeat(50, axis=0))
    for other in (annotated, seen):
        assert not other.labels.joints_valid.any()
        assert not other.labels.body.valid.any()
        assert not other.labels.body.rotations.any()
    away = [
        np.linalg.norm(x.observations.keypoints - told.observations.keypoints, axis=-1)
        for x in (annotated, seen)
    ]
    assert 0.5 < np.median(away[0]) < 2.5
    assert (seen.observations.confidence == 0).mean() > 0.1


def test_a_part_of_the_motion_makes_a_part_of_the_set(tmp_path, capsys):
    spec = next(s for s in cmu.benchmark()["segments"] if s["clip"] == "amc/02_03")
    path = bodies.person(tmp_path / "person.npz")
    stop = max(s["stop"] for s in cmu.benchmark()["segments"] if s["clip"] == spec["clip"])
    np.savez(tmp_path / "some.npz", **{spec["clip"]: bodies.motion(stop, 1)})
    words = ["--positions", str(tmp_path / "some.npz"), "--body", str(path)]
    words += ["--output", str(tmp_path / "data")]
    with pytest.raises(SystemExit):
        body_cmu.main(words)
    assert "pass --allow_partial" in capsys.readouterr().err
    body_cmu.main([*words, "--allow_partial"])
    split = body_cmu.tier_of(cmu.benchmark()["segments"])[spec["name"]]
    found = poses.load([tmp_path / "data"], split)
    assert {i.dataset for i in found.identities} == {"body_cmu_v1_partial"}
    np.savez(tmp_path / "some.npz", **{spec["clip"]: bodies.motion(stop - 1, 1)})
    with pytest.raises(SystemExit):
        body_cmu.main([*words, "--allow_partial", "--overwrite"])
    assert "ends before segment" in capsys.readouterr().err
