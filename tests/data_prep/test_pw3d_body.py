"""3DPW with bodies: against an independent SMPL and OpenCV, on files of the published layout."""

import argparse
import pickle
from itertools import chain

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from body_models.smpl.numpy import SMPL
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from configs import body_cmu
from data_prep import pw3d
from data_prep.proof import Proof
from pose3d_jax import evaluate, schema, skeleton, train
from pose3d_jax.errors import UserError
from pose3d_jax.sources import SourceError
from tests import bodies
from tests.layouts import people
from tests.layouts import pw3d as layout

BODY25 = skeleton.get("body25")
COCO18 = skeleton.get("coco18")
# From the files' y up to our z up.
UPRIGHT = Rotation.from_euler("x", 90, degrees=True)


def contents_of(path):
    return pickle.loads(path.read_bytes(), encoding="latin1")  # ours, written by this test


def edit(path, change):
    contents = contents_of(path)
    change(contents)
    path.write_bytes(people.old_pickle(contents, protocol=2))


def whole_body(path, poses, betas):
    """Keypoints `[N, 25, 3]` and joints `[N, 24, 3]` by the independent SMPL, pelvis at 0."""
    arrays = dict(np.load(path))
    regressor = arrays.pop("regressor_body25")
    peer = SMPL(model_path=bodies.save_npz(path.with_name("peer.npz"), arrays))
    turns = poses.reshape(-1, 24, 3).astype(np.float32)
    given = {
        "body_pose": turns[:, 1:],
        "pelvis_rotation": turns[:, 0],
        "shape": np.tile(betas.astype(np.float32), (len(turns), 1)),
        "global_translation": np.zeros((len(turns), 3), np.float32),
    }
    joints = peer.forward_skeleton(**given)[..., :3, 3]
    points = np.einsum("pn,bni->bpi", regressor, peer.forward_vertices(**given))
    return points - joints[:, :1], joints - joints[:, :1]


def write(folder, body, women=None, sequences=("downtown_walking_00",)):
    """The layout's files, of these bodies; the true keypoints by clip, in the files' world."""
    truth = layout.write(folder, sequences=sequences)
    rng = np.random.default_rng(7)
    found = {}
    for sequence in sequences:
        path = folder / "sequenceFiles" / layout.SEQUENCES[sequence][0] / f"{sequence}.pkl"
        contents = contents_of(path)
        for person, gender in enumerate(contents["genders"]):
            frames = len(contents["cam_poses"])
            poses = rng.normal(0, 0.1, (frames, 72))
            betas = rng.normal(0, 0.5, 10)
            file = women if women and gender == "f" else body
            points, joints = whole_body(file, poses, betas)
            pelvis = contents["jointPositions"][person][:, None, :3]
            found[f"{sequence}_{person}"] = points + pelvis
            contents["poses"][person], contents["betas"][person] = poses, betas
            contents["jointPositions"][person] = (joints + pelvis).reshape(frames, 72)
            pixels = np.stack(
                [
                    cv2.projectPoints(
                        x,
                        cv2.Rodrigues(pose[:3, :3])[0],
                        pose[:3, 3],
                        contents["cam_intrinsics"],
                        None,
                    )[0][:, 0]
                    for x, pose in zip(points + pelvis, contents["cam_poses"], strict=True)
                ]
            )
            seen = truth.clips[sequence, person].more["confidence"][:, 0]
            names = [BODY25.joints.index(name) for name in COCO18.joints]
            points2d = np.concatenate([pixels[:, names], seen[..., None]], axis=-1)
            points2d[seen == 0] = 0
            contents["poses2d"][person] = points2d.swapaxes(1, 2).copy()
        path.write_bytes(people.old_pickle(contents, protocol=2))
    return truth, found


def read(folder, body, proof=None, **flags):
    defaults = {"keypoints": "detected", "splits": ("test",), "common": False, "body": body}
    dataset = pw3d.read(argparse.Namespace(source=folder, **defaults | flags), proof or Proof())
    records = list(chain.from_iterable(dataset.splits.values()))
    for record in records:
        schema.validate(record)
    return {record.identity.clip: record for record in records}


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    return bodies.person(tmp_path_factory.mktemp("body") / "person.npz")


@pytest.fixture(scope="module")
def women(body):
    """The same body, of other shapes."""
    arrays = dict(np.load(body))
    arrays["shapedirs"] = -arrays["shapedirs"]
    return bodies.save_npz(body.with_name("women.npz"), arrays)


@pytest.fixture(scope="module")
def whole(body, women, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pw3d")
    return folder, *write(folder, body, women)


@pytest.fixture
def own(body, tmp_path):
    """Files to be changed, and the path of one."""
    write(tmp_path / "own", body)
    return tmp_path / "own", tmp_path / "own/sequenceFiles/test/downtown_walking_00.pkl"


def test_joints_and_bodies_are_the_file_s(whole, body, women):
    folder, truth, keypoints = whole
    contents = contents_of(folder / "sequenceFiles/test/downtown_walking_00.pkl")
    records = read(folder, [body, women])
    assert set(records) == set(keypoints) == {"downtown_walking_00_0", "downtown_walking_00_1"}
    assert contents["genders"] == ["f", "m"]
    for (sequence, person), clip in truth.clips.items():
        found, identity = records[f"{sequence}_{person}"]
        valid = clip.more["valid"]
        assert 0 < valid.sum() < len(valid)
        labels = found.labels
        expected = UPRIGHT.apply(keypoints[identity.clip].reshape(-1, 3)).reshape(-1, 25, 3)
        assert_allclose(labels.joints[valid], expected[valid], atol=2e-5)
        assert_array_equal(labels.joints_valid, np.tile(valid[:, None], (1, 25)))
        assert_array_equal(labels.body.valid, valid)
        turns = contents["poses"][person].reshape(-1, 24, 3)
        assert_allclose(labels.body.rotations[valid, 1:], turns[valid, 1:], atol=1e-6)
        root = Rotation.from_rotvec(labels.body.rotations[valid, 0])
        file = UPRIGHT * Rotation.from_rotvec(turns[valid, 0])
        assert (root.inv() * file).magnitude().max() < 1e-5
        assert_allclose(
            labels.body.shape[valid],
            np.tile(contents["betas"][person], (valid.sum(), 1)),
            rtol=1e-6,
        )
        assert not labels.body.rotations[~valid].any()
        assert not labels.body.shape[~valid].any()
        assert (identity.joint_skeleton, identity.keypoint_skeleton) == ("body25", "body25")
        assert (identity.keypoint_source, identity.split) == ("detected", "test")


def test_detections_are_openpose_s_25_as_far_as_they_go(whole, body, women):
    folder, truth, _ = whole
    contents = contents_of(folder / "sequenceFiles/test/downtown_walking_00.pkl")
    records = read(folder, [body, women])
    for sequence, person in truth.clips:
        seen = records[f"{sequence}_{person}"].clip.observations
        points, confidence = seen.keypoints[:, 0], seen.confidence[:, 0]
        at = {name: i for i, name in enumerate(BODY25.joints)}
        for number, name in enumerate(layout.OPENPOSE18):
            name = {"neck": "mid_shoulders"}.get(name, name)
            given = contents["poses2d"][person][:, :, number]
            assert_allclose(points[:, at[name]], given[:, :2], rtol=1e-6)
            assert_allclose(confidence[:, at[name]], given[:, 2], rtol=1e-6)
        hips = [at["left_hip"], at["right_hip"]]
        both = (confidence[:, hips] > 0).all(axis=1)
        assert 0 < both.sum() < len(both)
        middle = points[:, hips].mean(axis=1) * both[:, None]
        assert_allclose(points[:, at["mid_hips"]], middle, rtol=1e-6)
        assert_allclose(confidence[:, at["mid_hips"]], confidence[:, hips].min(axis=1))
        feet = [i for i, name in enumerate(BODY25.joints) if "toe" in name or "heel" in name]
        assert len(feet) == 6
        assert not confidence[:, feet].any()


def test_common_joints(whole, body, women):
    folder, truth, _ = whole
    records = read(folder, [body, women], common=True)
    for (sequence, person), clip in truth.clips.items():
        valid = records[f"{sequence}_{person}"].clip.labels.joints_valid > 0
        assert_array_equal(valid.sum(axis=1), 14 * clip.more["valid"])
        left_out = {name for name, there in zip(BODY25.joints, valid[0], strict=True) if not there}
        assert {name.split("_")[-1] for name in left_out} == {"nose", "eye", "ear", "toe", "heel"}


def test_projected_keypoints_are_the_body_s(whole, body, women):
    records = read(whole[0], [body, women], keypoints="projected")
    for record in records.values():
        assert record.identity.keypoint_skeleton == "body25"
        assert record.clip.observations.confidence[0].all()


def test_the_command_proves_the_bodies(whole, body, women, tmp_path, capsys):
    flags = ["--source", str(whole[0]), "--splits", "test"]
    pw3d.main([*flags, "--output", str(tmp_path / "own"), "--body", str(body), str(women)])
    builder = tfds.builder_from_directory(tmp_path / "own")
    metadata = builder.info.metadata
    assert metadata["reprojection_px"]["median"] < 0.01
    assert metadata["reprojection_px"]["p99"] < 1  # the middle of two pixels is not quite the hips'
    assert metadata["body_joints_mm"]["p99"] < 0.05
    assert metadata["skipped"] == metadata["warnings"] == []
    assert "of person.npz (men), women.npz (women), detected" in builder.info.description
    said = capsys.readouterr().out
    assert "joints of the posed bodies are 0.0 mm from those of the files" in said
    # A body that is another's.
    pw3d.main([*flags, "--output", str(tmp_path / "other"), "--body", str(women)])
    metadata = tfds.builder_from_directory(tmp_path / "other").info.metadata
    assert metadata["body_joints_mm"]["p99"] > 20


def test_a_body_that_is_another_is_doubted(own, body, tmp_path, capsys):
    arrays = dict(np.load(body))
    arrays["v_template"] = 1.3 * arrays["v_template"]
    other = bodies.save_npz(tmp_path / "other.npz", arrays)
    flags = ["--source", str(own[0]), "--output", str(tmp_path / "out"), "--splits", "test"]
    pw3d.main([*flags, "--body", str(other)])
    assert "the body is probably not the one that the shapes are of" in capsys.readouterr().out


def _first(key, change):
    def edit(contents):
        contents[key][0] = change(contents[key][0])

    return edit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("poses"), r"has no 'poses'; it has .* Fetch"),
        (lambda c: c.pop("betas"), r"has no 'betas'"),
        (lambda c: c.pop("genders"), r"has no 'genders'"),
        (_first("poses", lambda x: x[:, :69]), r"key poses, person 0: has shape \[.*, 69\]"),
        (_first("poses", lambda x: x[1:]), r"key poses, person 0: has shape"),
        (_first("betas", lambda x: x[:5]), r"person 0: has 5 betas, but the body has 10 shapes"),
        (_first("betas", lambda x: x[None]), r"key betas, person 0: has shape \[1, 10\]"),
        (_first("genders", lambda x: "x"), r"key genders: has 'x', not m or f; fetch"),
        (_first("genders", lambda x: 1), r"key genders: has 1, not m or f; fetch"),
        (lambda c: c.update(genders="fm"), r"key genders: is no list"),
        (lambda c: c["poses"].pop(), r"key poses: has 1 people, but jointPositions has 2; fetch"),
        (lambda c: c["genders"].pop(), r"key genders: has 1 people"),
    ],
)
def test_bodies_that_cannot_be(own, body, change, message):
    folder, path = own
    edit(path, change)
    with pytest.raises(SourceError, match=f"downtown_walking_00.pkl.*{message}"):
        read(folder, [body])


def test_more_shapes_than_the_body_has_are_left_out(own, body):
    folder, path = own
    before = read(folder, [body])
    edit(path, _first("betas", lambda x: np.concatenate([x, np.ones(290)])))
    after = read(folder, [body])
    for name in before:
        assert_array_equal(after[name].clip.labels.joints, before[name].clip.labels.joints)


def test_a_pickle_with_code_is_not_run(own, body):
    folder, path = own
    name, raw = next(iter(people.FOREIGN.items()))
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=f"{path.name}: holds {name}.*can run code"):
        read(folder, [body])


def test_flags_that_do_not_fit(own, body, tmp_path):
    folder, _ = own
    with pytest.raises(UserError, match="--common is of the joints that --body gives"):
        read(folder, (), common=True)
    with pytest.raises(UserError, match="3 bodies; give one for everybody"):
        read(folder, [body] * 3)
    with pytest.raises(SourceError, match=r"has no validation/\*.pkl; extract"):
        read(folder, [body], splits=("validation",))
    parents = bodies.SMPL_PARENTS[:22]
    arrays = {**bodies.table(parents=parents), "regressor_body25": np.full((25, 120), 1 / 120)}
    other = bodies.save_npz(tmp_path / "hands.npz", arrays)
    with pytest.raises(UserError, match=r"hands.npz: has 22 joints.*SMPL's 24; give"):
        read(folder, [other])
    arrays = {**bodies.table(components=5), "regressor_body25": np.full((25, 120), 1 / 120)}
    few = bodies.save_npz(tmp_path / "few.npz", arrays)
    with pytest.raises(UserError, match=r"other numbers of shapes \(\[5, 10\]\)"):
        read(folder, [body, few])


@pytest.mark.slow
def test_a_run_on_body_cmu_is_evaluated_on_it(tmp_path):
    """As docs/data.md says: the test split alone, and the set's detections."""
    folder = bodies.prepared(tmp_path)
    config = body_cmu.get_config("tiny")
    config.data.path = str(folder / "data")
    config.method.body = str(folder / "person.npz")
    config.evaluation.test = ("validation",)
    train.run(config, tmp_path / "run")
    write(tmp_path / "in", folder / "person.npz")
    flags = ["--source", str(tmp_path / "in"), "--output", str(tmp_path / "pw3d")]
    pw3d.main([*flags, "--splits", "test", "--body", str(folder / "person.npz")])
    config.data.path = str(tmp_path / "pw3d")
    config.data.keypoint_source = "detected"
    config.evaluation.test = ("test",)
    config.evaluation.noise = "clean"
    found = evaluate.run(tmp_path / "run", config)
    assert found["dataset"] == "pw3d"
    rows = found["splits"]["test"]["rows"]
    assert set(rows) == {"dynamics"}
    assert 0 < rows["dynamics"]["p2"]["frames"] < 2.0
