"""Tracks of people who cross, are lost and come back; boxes and crops by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pose3d_jax.tracking import Track, across, alone, boxes, crop, tracks
from tests import scenes

BODY = np.random.default_rng(0).uniform(-1, 1, (25, 2)) * [20, 60]


def walker(start, velocity, frames, size=1.0, seed=0):
    """Keypoints of a person who walks: [frames, 25, 3]."""
    rng = np.random.default_rng(seed)
    place = np.asarray(start) + np.arange(frames)[:, None] * np.asarray(velocity)
    points = place[:, None] + size * BODY + rng.normal(0, 1.0, (frames, 25, 2))
    return np.concatenate([points, np.ones((frames, 25, 1))], axis=-1)


def shuffled(people, seed=0):
    """Frames of several people's [frames, joints, 3], in any order; rows of zeros are not there."""
    rng = np.random.default_rng(seed)
    found = []
    for frame in range(len(people[0])):
        there = [p[frame] for p in people if p[frame, :, 2].any()]
        found.append(np.array([there[i] for i in rng.permutation(len(there))]))
        found[-1] = found[-1].reshape(-1, *people[0].shape[1:])
    return found


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 4))
def test_people_who_walk_past_one_another_stay_who_they_are(seed, number):
    rng = np.random.default_rng(seed)
    people = [
        walker((100 + 500 * (i % 2), 100 + 45 * i), (10 - 20 * (i % 2), 0), 50, seed=i)
        for i in range(number)
    ]
    found = tracks(shuffled(people, rng.integers(2**31)))
    assert len(found) == number
    wanted = {p[0, 0, 0]: p for p in people}
    for track in found:
        assert_allclose(track.keypoints, wanted[track.keypoints[0, 0, 0]])


def test_who_is_lost_for_a_while_comes_back_and_for_long_is_another():
    person = walker((100, 100), (4, 1), 60)
    person[20:28] = 0
    (track,) = tracks(shuffled([person]))
    assert (track.start, track.frames) == (0, 60)
    assert_allclose(track.keypoints, person)
    person[20:40] = 0
    first, second = tracks(shuffled([person]))
    assert (first.start, first.frames) == (0, 20)
    assert (second.start, second.frames) == (40, 20)


def test_short_tracks_and_empty_frames_are_left_out():
    person = walker((100, 100), (4, 1), 30)
    assert tracks(shuffled([person[:12]])) == []
    assert tracks([np.zeros((0, 25, 3))] * 5) == []
    lone = np.zeros((1, 25, 3))
    lone[0, 3] = [5, 5, 0.9]  # one joint is nobody
    assert tracks([lone] * 20) == []


def test_a_jump_across_the_image_is_another_person():
    person = walker((100, 100), (0, 0), 40)
    person[20:, :, 0] += 600
    assert [t.start for t in tracks(shuffled([person]))] == [0, 20]


def test_boxes_are_around_what_is_found_and_between_frames_where_nothing_is():
    keypoints = np.zeros((5, 4, 3))
    for frame in (0, 1, 3, 4):
        x = 10.0 * frame
        keypoints[frame] = [[x, 0, 1], [x + 30, 40, 1], [x + 10, 20, 1], [999, 999, 0]]
    middle, height = boxes(Track(7, keypoints), smooth=1e-3)
    assert_allclose(middle, [[15 + 10 * i, 20] for i in range(5)])
    assert_allclose(height, 50)
    shaken = keypoints + np.random.default_rng(0).normal(0, 3, keypoints.shape) * [1, 1, 0]
    many = Track(0, np.tile(shaken, (10, 1, 1)))
    rough, smooth = boxes(many, smooth=1e-3)[1], boxes(many)[1]
    assert np.abs(np.diff(smooth)).mean() < 0.3 * np.abs(np.diff(rough)).mean()


def test_a_crop_has_its_person_in_the_middle_and_of_the_size_asked_for():
    person = walker((400, 300), (3, 0), 20, size=2.0)
    person[:, 5] = 0
    track = Track(0, person)
    middle, height = boxes(track)
    found, scale = crop(person, middle, height)
    there = found[..., 2] > 0
    assert (there == (person[..., 2] > 0)).all()
    assert not found[~there].any()
    for frame in range(20):
        points = found[frame, there[frame], :2]
        assert np.linalg.norm(np.ptp(points, axis=0)) == pytest.approx(150, rel=0.05)
        assert_allclose((points.min(axis=0) + points.max(axis=0)) / 2, 111.5, atol=3)
    back = (found[..., :2] - 111.5) / scale[:, None, None] + middle[:, None]
    assert_allclose(back[there], person[..., :2][there], atol=1e-9)


def walking(start, velocity, frames, seed):
    """World joints `[frames, 17, 3]`, metres, of a body that turns and walks on the floor."""
    rng = np.random.default_rng(seed)
    body = rng.uniform(-0.3, 0.3, (17, 3))
    body[:, 2] += np.linspace(0.2, 1.6, 17)
    swing = 0.15 * np.sin(np.arange(frames)[:, None, None] / 5 + rng.uniform(0, 6, (17, 3)))
    place = np.asarray([*start, 0.0]) + np.arange(frames)[:, None] * np.asarray([*velocity, 0.0])
    return (place[:, None] + body + swing).astype(np.float32)


def seen_by(people, views, noise=1.0, seed=0):
    """What a ring of cameras sees of each person's `[frames, 17, 3]`: `[people, frames, views]`."""
    rng = np.random.default_rng(seed)
    cameras = scenes.ring(views)
    found = []
    for joints in people:
        points = np.array(scenes.film(joints, cameras).keypoints)
        points += rng.normal(0, noise, points.shape)
        found.append(np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1))
    return np.stack(found), cameras


def tracked(seen):
    return [tracks(shuffled(list(seen[:, :, view]), seed=view)) for view in range(seen.shape[2])]


@pytest.mark.parametrize("views", [2, 4])
def test_people_are_the_same_in_all_views(views):
    people = [
        walking((-1.2, 0.4), (0.03, 0.0), 80, 1),
        walking((1.2, 0.0), (-0.03, 0.0), 80, 2),  # they cross
        walking((0.0, -1.4), (0.0, 0.005), 80, 3),
    ]
    seen, cameras = seen_by(people, views)
    found = across(tracked(seen), cameras)
    assert len(found) == 3
    for person in found:
        who = np.argmin([np.abs(person.keypoints - own).mean() for own in seen])
        assert_allclose(person.keypoints, seen[who])


def test_who_leaves_a_view_comes_back_as_the_same_where_another_shows_it():
    seen, cameras = seen_by(
        [walking((-1.0, 0.5), (0.02, 0.0), 90, 1), walking((0.5, -1.0), (0, 0.02), 90, 2)], 3
    )
    seen[0, 30:60, 1] = 0  # longer than a track bears
    seen[1, :20] = 0  # enters late
    own = tracked(seen)
    assert len(own[1]) == 3
    first, second = across(own, cameras)
    assert (first.start, second.start) == (0, 20)
    assert_allclose(first.keypoints, seen[0])
    assert_allclose(second.keypoints, seen[1, 20:])


def test_people_whom_no_two_views_share_stay_apart():
    seen, cameras = seen_by([walking((0, 0), (0, 0), 40, 1), walking((1, 1), (0, 0), 40, 2)], 2)
    seen[0, :, 1] = 0
    seen[1, :, 0] = 0
    found = across(tracked(seen), cameras)
    assert len(found) == 2
    assert {tuple((p.keypoints[..., 2] > 0).any(axis=(0, 2))) for p in found} == {
        (True, False),
        (False, True),
    }
    assert across([[], []], cameras) == []


def test_who_is_alone_needs_no_cameras():
    seen, _ = seen_by([walking((0, 0), (0.01, 0), 60, 1), walking((1, 1), (0, 0), 60, 2)], 2)
    own = tracked(seen[:1])
    (only,) = alone(own)
    assert_allclose(only.keypoints, seen[0])
    assert alone(tracked(seen)) == []
    assert alone([[], []]) == []
    seen[1, :, 1] = 0
    seen[0, :30, 0] = seen[1, 30:, 0] = 0  # one after another
    (only,) = alone([tracked(seen)[0], []])  # nobody's number says that they are two
    assert only.keypoints.shape == (60, 2, 17, 3)


def numbers(*parts):
    """Tracks of a view, a number each: the frame each begins at, and its keypoints."""
    return [Track(start, keypoints) for start, keypoints in parts]


def test_who_is_lost_and_gets_another_number_is_the_same_person():
    person = walker((100, 100), (4, 1), 120)
    own = numbers((0, person[:40]), (40, person[40:70]), (100, person[100:]))
    (found,) = alone([own], numbered=[True])
    expected = person.copy()
    expected[70:100] = 0
    assert_allclose(found.keypoints[:, 0], expected)
    # A number that comes back after another was taken for it.
    back = person.copy()
    back[40:70] = 0
    (found,) = alone([numbers((0, back), (40, person[40:70]))], numbered=[True])
    assert_allclose(found.keypoints[:, 0], person)


def test_people_of_other_numbers_who_come_one_after_another_are_two():
    first = walker((100, 100), (4, 1), 40)
    second = walker((900, 300), (0, 0), 40, size=1.5, seed=1)
    for start in (42, 240):
        own = numbers((0, first), (start, second))
        one, other = alone([own], numbered=[True])
        assert (one.start, other.start) == (0, start)
        assert_allclose(one.keypoints[:, 0], first)
        assert_allclose(other.keypoints[:, 0], second)
        assert len(alone([own])) == 1
    # Who stands where another stood is another after a while, and sooner with more frames a second.
    same = numbers((0, first), (99, first))
    assert len(alone([same], numbered=[True])) == 1
    assert len(alone([same], numbered=[True], fps=29.0)) == 2
    # As is who comes while a number is gone.
    gone = np.concatenate([first, np.zeros((200, 25, 3)), first])
    one, other = alone([numbers((0, gone), (150, second))], numbered=[True])
    assert_allclose(one.keypoints[:, 0], gone)
    assert_allclose(other.keypoints[:, 0], second)


def test_another_view_tells_that_a_number_is_of_the_same_person():
    first = walker((100, 100), (4, 1), 40)
    later = walker((900, 300), (0, 0), 40)
    all_the_while = walker((400, 400), (1, 0), 280)
    (found,) = alone(
        [numbers((0, first), (240, later)), numbers((0, all_the_while))], numbered=[True, True]
    )
    assert_allclose(found.keypoints[:, 1], all_the_while)
    assert_allclose(found.keypoints[240:, 0], later)
    both = [numbers((0, first), (240, later)), numbers((5, first), (235, later))]
    one, other = alone(both, numbered=[True, True])
    assert (one.start, len(one.keypoints), other.start, len(other.keypoints)) == (0, 45, 235, 45)
    assert_allclose(other.keypoints[5:, 0], later)


def test_the_cost_is_in_metres():
    cameras = scenes.ring(2)
    seen, _ = seen_by([walking((0, 0), (0, 0), 20, 4)], 2, noise=0.0)
    together = across(tracked(seen), cameras, reach=1e-3)
    assert len(together) == 1
    moved = seen.copy()
    moved[:, :, 1, :, 1] += 115  # a tenth of the focal length, about 0.45 m at 4.5 m
    assert len(across(tracked(moved), cameras, reach=0.3)) == 2
    assert len(across(tracked(moved), cameras, reach=0.6)) == 1
