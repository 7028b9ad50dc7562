"""CMU-MV v1 from the real files: positions, originals, and the benchmark as it was published."""

import collections
import os
from pathlib import Path

import numpy as np
import pybvh
import pytest
import tensorflow_datasets as tfds

from data_prep import cmu, rigs
from data_prep.bones import check_bone_lengths
from pose3d_jax import schema, skeleton
from pose3d_jax.data.records import decode

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data")) / "cmu"
FRAMES = {"train": 35_619, "validation": 9_106, "test_seen": 8_655, "test_unseen": 3_348}

pytestmark = pytest.mark.skipif(
    not (FOLDER / "cmu_mv_v1.npz").exists(),
    reason=f"no real data in {FOLDER}; set POSE3D_REAL_DATA",
)


@pytest.fixture(scope="module")
def published():
    with np.load(FOLDER / "cmu_mv_v1.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def cut():
    return cmu.segments(cmu.load_positions(FOLDER / "cmu_positions_30fps.npz"))


def assert_reproduces(cut, published, tolerance):
    for spec, joints in cut:
        assert joints.shape == published[spec["name"]].shape
        np.testing.assert_allclose(joints, published[spec["name"]], atol=tolerance)


def test_positions_give_the_published_benchmark(cut, published):
    assert len(cut) == len(published) == 114
    assert_reproduces(cut, published, 2e-6)
    frames = collections.Counter()
    for spec, joints in cut:
        frames[spec["split"]] += len(joints)
    assert frames == FRAMES


def test_original_files_give_the_published_benchmark(published):
    sources = cmu.load_originals(FOLDER)
    cut = cmu.segments(sources, allow_partial=True)
    assert {spec["clip"] for spec, _ in cut} == sources.keys()
    assert_reproduces(cut, published, 2e-6)


def test_bones_are_plausible_and_keep_their_lengths_in_every_source(cut):
    h36m17 = skeleton.get("h36m17")
    # Between these lie several joints of the source, so that the distance may change a little.
    loose = {"spine", "thorax", "neck"}
    for spec, joints in cut:
        check_bone_lengths(joints, h36m17, spec["name"])
        for parent, child in h36m17.bones:
            lengths = np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1)
            assert np.ptp(lengths) < (0.03 if h36m17.joints[child] in loose else 1e-5)


def test_bvh_agrees_with_pybvh():
    path = FOLDER / "bvh" / "131_01.bvh"
    reference = pybvh.read_bvh_file(str(path))
    motion = cmu.motion_files.read_bvh(path, scale=1.0)
    order = [reference.joint_names.index(joint) for joint in motion.joints]
    expected = reference.joint_positions()[:, order]
    np.testing.assert_allclose(motion.positions, expected, atol=1e-4)  # file units


def test_records_of_every_split(cut):
    cameras, names = rigs.load_rig("human36m", "S1")
    found = cmu.records(cut, cameras, names, dataset=cmu.NAME, recording="human36m_S1")
    assert list(found) == list(FRAMES)
    for records in found.values():
        for record in records:
            schema.validate(record)
    everyone = {record.identity.subject for records in found.values() for record in records}
    dances = {"daz_salsa", "daz_martial", "daz_indian"}
    assert everyone == {"01", "02", "03", "131"} | dances
    observations = found["train"][0].clip.observations
    assert observations.confidence.min() == 1
    pixels, size = observations.keypoints, observations.cameras.size[:, :, None]
    assert ((pixels >= 0) & (pixels < size)).all(-1).mean() > 0.95


def test_missing_clips_are_listed_and_partial_data_is_named_so(tmp_path, capsys):
    arguments = [
        "--originals",
        str(FOLDER),
        "--out",
        str(tmp_path / "set"),
        "--cameras",
        "54138969",
    ]
    with pytest.raises(SystemExit):
        cmu.main(arguments)
    error = capsys.readouterr().err
    assert "53 clips of the benchmark are missing: amc/01_05, " in error
    assert "--allow_partial" in error
    assert not (tmp_path / "set").exists()
    cmu.main([*arguments, "--allow_partial"])
    assert capsys.readouterr().out.startswith("cmu_mv_v1_partial in ")
    builder = tfds.builder_from_directory(str(tmp_path / "set"))
    assert builder.name == "cmu_mv_v1_partial"
    record = decode(builder.as_data_source("test_unseen")[0])
    assert record.identity.clip == "amc_03_01_00"
    assert record.clip.observations.keypoints.shape == (108, 1, 17, 2)
