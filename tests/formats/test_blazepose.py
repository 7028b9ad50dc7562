"""What stands between BlazePose's two networks, by closed forms; networks are stood in for."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from pose3d_jax import skeleton
from pose3d_jax.formats import blazepose
from pose3d_jax.formats.blazepose import BlazePose, DetectorError, Square


def boxes(people):
    """What the finder would say of people: (probability, hips, rim, box size), in its square."""
    middles = blazepose.anchors()
    said, scores = np.zeros((2254, 12)), np.full(2254, -20.0)
    for probability, hips, rim, size in people:
        near = np.linalg.norm(middles - hips, axis=1).argsort()[:6]
        for cell in near:
            places = np.array([hips, [size, size], hips, rim, hips, rim])
            places[[0, 2, 3, 4, 5]] -= middles[cell]
            said[cell] = 224 * places.ravel()
            scores[cell] = np.log(probability / (1 - probability))
    return said, scores


def test_cells_are_those_of_three_grids():
    middles = blazepose.anchors()
    assert middles.shape == (2254, 2)
    assert_allclose(middles[:3], [[0.5 / 28] * 2, [0.5 / 28] * 2, [1.5 / 28, 0.5 / 28]])
    assert_allclose(middles[1568], [0.5 / 14] * 2)
    assert_allclose(middles[-1], [6.5 / 7] * 2)
    assert_allclose(middles.mean(axis=0), [0.5, 0.5])


def test_people_are_found_once_each_the_surest_first():
    one = (0.8, np.array([0.3, 0.5]), np.array([0.3, 0.2]), 0.2)
    other = (0.95, np.array([0.7, 0.55]), np.array([0.75, 0.3]), 0.2)
    unsure = (0.3, np.array([0.5, 0.1]), np.array([0.5, 0.05]), 0.1)
    found = blazepose.decode(*boxes([one, other, unsure]))
    assert_allclose(found, [other[1:3], one[1:3]], atol=1e-12)
    assert blazepose.decode(*boxes([])) == []


@given(
    st.floats(-3.1, 3.1), st.floats(5, 500), st.tuples(st.floats(-900, 900), st.floats(-900, 900))
)
def test_the_square_is_turned_as_the_person_is(turn, radius, middle):
    hips = np.array(middle)
    rim = hips + radius * np.array([np.sin(turn), -np.cos(turn)])
    square = blazepose.square_of(hips, rim)
    assert square.side == pytest.approx(2.5 * radius)
    assert_allclose(np.linalg.norm(square.axes, axis=0), square.side)
    # Straight up in the square, the rim is 0.4 of its side from the middle.
    assert_allclose(hips - 0.4 * square.axes[:, 1], rim, atol=1e-6 * radius)


@pytest.mark.parametrize("turn", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("side", [60.0, 500.0])
def test_what_is_cut_is_what_lies_there(turn, side):
    """A ramp is a ramp from any side, and its value tells the place."""
    y, x = np.mgrid[:400, :600].astype(np.float32)
    image = Image.fromarray(np.stack([x / 3, y / 2, 0 * x], axis=-1).astype(np.uint8))
    square = Square(np.array([300.0, 200.0]), side, turn)
    shown = blazepose.cut(image, square, 64)
    rows, columns = np.mgrid[:64, :64]
    within = np.stack([columns + 0.5, rows + 0.5], axis=-1) / 64 - 0.5
    places = square.middle + within @ square.axes.T - 0.5
    margin = 12
    inside = ((places > margin) & (places < np.array([599, 399]) - margin)).all(axis=-1)
    assert inside.mean() > 0.3
    assert np.abs(shown[inside][:, 0] - places[inside][:, 0] / 3).max() < 2.5
    assert np.abs(shown[inside][:, 1] - places[inside][:, 1] / 2).max() < 2.5
    outside = ((places < -margin) | (places > np.array([599, 399]) + margin)).any(axis=-1)
    assert not shown[outside].any()


def test_points_go_to_their_heatmaps_middle_where_it_is_sure():
    rows, columns = np.mgrid[:64, :64]
    target = np.array([30.4, 21.7])
    peak = np.exp(-((columns - target[0]) ** 2 + (rows - target[1]) ** 2) / 2)
    heatmaps = np.stack([peak, 0.4 * peak, peak], axis=-1)
    near, beyond = (target + np.array([0.6, -0.5])) / 64, np.array([1.2, 0.5])
    found = blazepose.refined(np.array([near, near, beyond]), heatmaps)
    assert_allclose(found[0], target / 64, atol=0.002)
    assert_array_equal(found[1], near)
    assert_array_equal(found[2], beyond)


def test_mirrored_landmarks_are_those_of_the_other_side():
    assert_array_equal(blazepose._MIRRORED[:33], skeleton.get("blazepose33").mirrored)


class Landmarks:
    """A stand-in: a person who fills the square, whatever is in it; tells whom it was shown."""

    def __init__(self, probability=0.9):
        self.probability = probability
        # Left and right are alike, so that the mirror image says the same.
        points = np.random.default_rng(0).uniform(0.2, 0.8, (39, 2))
        other = points[blazepose._MIRRORED] * [-1, 1] + [1, 0]
        self.points = (points + other) / 2
        self.points[33:35] = [[0.5, 0.5], [0.5, 0.1]]  # where to look next: the same square

    def __call__(self, crop):
        said = np.concatenate([256 * self.points, np.zeros((39, 1)), np.full((39, 2), 3.0)], axis=1)
        blank = np.full((1, 64, 64, 39), -9.0)
        return [said.reshape(1, 195), np.array([[self.probability]]), None, blank, None]


@pytest.fixture
def detector(monkeypatch):
    made = object.__new__(BlazePose)
    made._mirrored = True
    hips, rim = np.array([0.3, 0.5]), np.array([0.3, 0.2])
    said, scores = boxes([(0.9, hips, rim, 0.3)])
    made._find = lambda crop: (said[None], scores[None, :, None])
    made._look = Landmarks()
    return made


def test_landmarks_come_back_in_pixels_of_the_picture(detector):
    """The finder's square is the picture with black beside it; a pixel's middle is its place."""
    picture = np.zeros((200, 100, 3), np.uint8)
    (person,) = detector.people(picture)
    hips = np.array([0.3, 0.5]) * 200 - [50, 0]
    expected = hips + 2.5 * 60 * (detector._look.points[:33] - 0.5) - 0.5
    assert_allclose(person.points[:, :2], expected, atol=1e-9)
    assert_allclose(person.points[:, 2], 1 / (1 + np.exp(-3.0)))
    assert_allclose(person.square.middle, hips)
    assert person.square.side == pytest.approx(2.5 * 60)


def test_somebody_is_followed_and_not_found_twice(detector):
    frames = [np.zeros((200, 100, 3), np.uint8)] * 3
    assert [len(people) for people in detector.follow(frames)] == [1, 1, 1]
    detector._look.probability = 0.1
    found = list(detector.follow(frames))
    assert [people.shape for people in found] == [(0, 33, 3)] * 3


def test_networks_that_are_missing_or_none_are_told(tmp_path, monkeypatch):
    with pytest.raises(DetectorError, match="there is no such network"):
        BlazePose(tmp_path)
    (tmp_path / blazepose.FINDER).write_bytes(b"TFL3 no network")
    with pytest.raises(DetectorError, match="is no network that LiteRT reads"):
        BlazePose(tmp_path)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(DetectorError, match=r"pip install ai-edge-litert\), or .* `video`"):
        BlazePose(tmp_path)
