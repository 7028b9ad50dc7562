"""Rendered-CMU v1: pictures that dice alone decide, and what is said of them."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from data_prep import cmu, rendered_cmu, scenes
from pose3d_jax import body as bodies_lib
from pose3d_jax import cameras as cam
from pose3d_jax import schema
from pose3d_jax.viewer import render
from tests import bodies

SPECS = [
    {"name": f"clip{n}", "clip": f"amc/01_0{n}", "start": 0, "stop": 20, "group": f"g{n}"}
    for n in (1, 2)
]


PROJECT = jax.jit(jax.vmap(cam.project, in_axes=(None, 0)))


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    path = bodies.person(folder / "person.npz")
    there = {spec["clip"]: lambda n=n: bodies.motion(30, n) for n, spec in enumerate(SPECS)}
    rest = np.asarray(bodies_lib.load(path).joint_template, float)
    poses = rendered_cmu.poses_of(SPECS, there, rest)
    assert poses.rotations.shape == (40, 24, 3)
    return rendered_cmu.Studio(str(path), {"train": poses, "test": poses}, folder)


def pixels(record):
    encoded = record.clip.observations.pictures.pixels[0, 0]
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_what_is_said_of_a_picture_is_what_its_camera_sees(studio):
    confidences = set()
    for number in range(12):
        record = rendered_cmu.make(studio, "train", number)
        schema.validate(record)
        observations = record.clip.observations
        assert pixels(record).shape == (256, 256, 3)
        assert_array_equal(record.clip.labels.joints[0, 0], 0)  # the pelvis is the origin
        camera = jax.tree.map(lambda x: x[0, 0], observations.cameras)
        seen = observations.confidence[0, 0] > 0
        points = np.asarray(PROJECT(camera, jnp.asarray(record.clip.labels.joints[0])))
        assert_allclose(observations.keypoints[0, 0][seen], points[seen], atol=0.02)
        square = observations.pictures.square[0, 0]
        assert (np.abs(points[seen] - square[:2]) <= square[2] / 2).all()
        confidences |= set(np.unique(observations.confidence))
    assert confidences <= {0.0, 0.5, 1.0}
    assert {0.5, 1.0} <= confidences


def test_a_picture_is_made_by_its_number_alone(studio, tmp_path):
    again = dataclasses.replace(studio, folder=tmp_path)
    first, same = (rendered_cmu.make(x, "train", 3) for x in (studio, again))
    assert_array_equal(pixels(first), pixels(same))
    assert_array_equal(first.clip.labels.joints, same.clip.labels.joints)
    other = rendered_cmu.make(studio, "test", 3)
    assert (pixels(other) != pixels(first)).mean() > 0.5


def test_a_command_that_was_cut_goes_on_from_its_pictures(studio, tmp_path):
    again = dataclasses.replace(studio, folder=tmp_path)
    planted = np.full((256, 256, 3), 77, np.uint8)
    Image.fromarray(planted).save(tmp_path / "train_00005.jpg")
    assert_allclose(pixels(rendered_cmu.make(again, "train", 5)), 77, atol=1)
    rendered_cmu.make(again, "train", 6)
    assert {path.name for path in tmp_path.iterdir()} == {"train_00005.jpg", "train_00006.jpg"}


def test_tests_have_subjects_that_nothing_else_has():
    segments = cmu.benchmark()["segments"]
    subjects = {
        split: {s["clip"].rpartition("_")[0] for s in segments if s["split"] in own}
        for split, (_, own) in rendered_cmu.SPLITS.items()
    }
    assert not subjects["test"] & (subjects["train"] | subjects["validation"])
    assert sum(share for share, _ in rendered_cmu.SPLITS.values()) == pytest.approx(1)


def test_a_body_is_where_another_renderer_has_it():
    """Trimesh's own way of asking Embree, through the same pixels."""
    ball = render.trimesh().creation.icosphere(subdivisions=3, radius=0.5)
    vertices = ball.vertices + np.array([0.2, -0.1, 4.0])
    faces = np.asarray(ball.faces)
    mesh = scenes.Mesh(faces, np.asarray(ball.vertices), ("skin",) * len(faces))
    view = scenes.View(300.0, np.array([100.0, 90.0]), np.array([110.0, 95.0, 128.0]), 64)
    scene = scenes.Scene.build(mesh, vertices, _no_things())
    own = scene.hits(view.rays())["geomID"].reshape(64, 64) == 0
    step = 128.0 / 64
    center = (np.array([100.0, 90.0]) - (np.array([110.0, 95.0]) - 31.5 * step)) / step
    focal = np.full(2, 300.0 / step)
    alpha = render.mesh(vertices, faces, focal, center, (64, 64))[..., 3]
    assert own.any()
    assert (own != (alpha > 0)).mean() < 1e-3


class _NoThings(np.random.Generator):
    def choice(self, *arguments, **settings):
        return 0


def _no_things():
    return _NoThings(np.random.PCG64(0))


def test_joints_behind_things_and_behind_the_body_are_hidden():
    """A ball of half a metre: in front of it all is visible, behind it nothing."""
    ball = render.trimesh().creation.icosphere(subdivisions=3, radius=0.5)
    vertices = ball.vertices + np.array([0.0, 0.0, 4.0])
    mesh = scenes.Mesh(np.asarray(ball.faces), vertices, ("skin",) * len(ball.faces))
    scene = scenes.Scene.build(mesh, vertices, _no_things())
    joints = np.array([[0, 0, 3.6], [0, 0, 4.4], [0.1, 0.1, 3.55], [2.0, 0, 4.0], [0, 0.2, 5.0]])
    assert scene.visible(joints).tolist() == [True, False, True, True, False]
    seed = next(
        s for s in range(50)
        if scenes.Scene.build(mesh, vertices, np.random.default_rng(s)).things
    )  # fmt: skip
    covered = scenes.Scene.build(mesh, vertices, np.random.default_rng(seed))
    before = covered.hits(np.array([[x, y, 1.0] for x in np.linspace(-0.3, 0.3, 60)
                                    for y in np.linspace(-0.3, 0.3, 60)]))  # fmt: skip
    thing = before["geomID"] > 0
    assert thing.any()
    rays = np.array([[x, y, 1.0] for x in np.linspace(-0.3, 0.3, 60)
                     for y in np.linspace(-0.3, 0.3, 60)])[thing]  # fmt: skip
    assert not covered.visible(3.9 * rays).any()


def test_what_cannot_be_made_is_refused(studio, tmp_path, capsys):
    np.savez(tmp_path / "some.npz", **{"amc/01_01": bodies.motion(30, 0)})
    words = ["--positions", str(tmp_path / "some.npz"), "--body", studio.body]
    words += ["--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        rendered_cmu.main(words)
    assert "lacks 73 clips" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        rendered_cmu.main([*words, "--images", "3"])
    assert "give 10 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
