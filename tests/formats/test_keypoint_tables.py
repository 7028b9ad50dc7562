"""CSV and NPZ of keypoints, and tables that are not."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_allclose, assert_array_equal

from pose3d_jax import skeleton
from pose3d_jax.formats import keypoints
from pose3d_jax.skeleton import SkeletonError
from pose3d_jax.sources import SourceError
from tests.layouts.detectors import archive, only, person


def table_of(people, names):
    """Wide and long rows of `{(view, frame, person): points}`."""
    wide = [
        ["frame", "view", "person", *(f"{n}_{e}" for n in names for e in ("x", "y", "confidence"))]
    ]
    long = [["joint", "x", "y", "confidence", "person", "view", "frame"]]
    for (view, frame, who), points in people.items():
        wide.append([frame, view, who, *points.ravel()])
        long += [[n, *p, who, view, frame] for n, p in zip(names, points, strict=True)]
    return {"wide": wide, "long": long}


def save_csv(path, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


points_of = arrays.arrays(
    float, (17, 3), elements=st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 6))
)


@settings(max_examples=20, deadline=None)
@given(
    people=st.dictionaries(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 9), st.integers(0, 3)),
        points_of.map(lambda p: np.where(p[:, 2:] > 0, p, 0.0)), min_size=1, max_size=6,
    ),
    form=st.sampled_from(["wide", "long"]),
    order=st.permutations(range(17)),
)  # fmt: skip
def test_tables_come_back(tmp_path_factory, people, form, order):
    joints = skeleton.get("coco17").joints
    shuffled = {key: points[list(order)] for key, points in people.items()}
    rows = table_of(shuffled, [joints[i] for i in order])[form]
    views = keypoints.read(save_csv(tmp_path_factory.mktemp("csv") / "t.csv", rows))
    found = {
        (view, seen.first + i, int(who)): points
        for view, seen in views.items()
        for i, (here, ids) in enumerate(zip(seen.people, seen.ids or [[]] * 10, strict=False))
        for points, who in zip(here, ids, strict=True)
    }
    there = {key: points for key, points in people.items() if points[:, 2].any()}
    assert found.keys() == there.keys()
    for key, points in found.items():
        assert_array_equal(points, there[key])


def test_a_table_of_one_person_and_view(tmp_path):
    joints = skeleton.get("body25").joints
    some = person()
    header = ["frame", *(f"{n}_{e}" for n in joints for e in ("x", "y", "confidence"))]
    rows = [header, [4.0, *some.ravel()], [6, *[""] * 75], []]
    rows[1][1:4] = ["", "nan", 0]  # the nose was not found
    path = save_csv(tmp_path / "cam1.csv", rows)
    ((name, seen),) = keypoints.read(path).items()
    assert (name, seen.first, seen.ids) == ("cam1", 4, None)
    assert [len(p) for p in seen.people] == [1, 0, 0]
    assert not seen.people[0][0, 0].any()
    assert_allclose(seen.people[0][0, 1:], some[1:])
    save_csv(tmp_path / "cam2.csv", rows)
    assert list(keypoints.read(tmp_path)) == ["cam1", "cam2"]


def test_a_long_table_may_lack_joints_of_a_set_that_is_named(tmp_path):
    rows = [["frame", "joint", "x", "y", "confidence"], [0, "nose", 1, 2, 0.5]]
    path = save_csv(tmp_path / "t.csv", rows)
    with pytest.raises(SourceError, match="its joints are nose, which is none of the joint sets"):
        keypoints.read(path)
    ((found,),) = only(path, skeleton="coco17").people
    assert found[0].tolist() == [1, 2, 0.5]
    assert not found[1:].any()
    with pytest.raises(SourceError, match="has nose, which penn13 has not"):
        keypoints.read(path, skeleton="penn13")


def edited(rows, line, column, value):
    rows = [list(row) for row in rows]
    rows[line][rows[0].index(column)] = value
    return rows


LONG = [["frame", "joint", "x", "y", "confidence"], [0, "nose", 1, 2, 0.5], [0, "nose", 1, 2, 0.5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: edited(r, 0, "frame", "time"), "has no column `frame`"),
        (lambda r: edited(r, 0, "nose_x", "nose_u"), "columns nose_u, which are not"),
        (lambda r: edited(r, 0, "nose_y", "nose_x"), "columns nose_x twice"),
        (lambda r: [row[:-1] for row in r], "no columns right_ankle_confidence"),
        (lambda r: [*r[:2], r[2][:-1]], "line 3: has 53 cells for 54 columns"),
        (lambda r: [*r, r[1]], "line 4: is a second row of view a, frame 0, person 0"),
        (lambda r: edited(r, 1, "frame", "first"), "line 2: has frame 'first'"),
        (lambda r: edited(r, 1, "person", "0.5"), "line 2: has person '0.5'"),
        (lambda r: edited(r, 1, "view", ""), "line 2: has no view's name"),
        (lambda r: edited(r, 1, "nose_x", "left"), "line 2, nose: holds what is no number"),
        (lambda r: edited(r, 1, "nose_x", ""), "frame 0, person 0, nose: is at nan"),
        (lambda r: edited(r, 1, "nose_confidence", 1.01), "nose: has confidence 1.01"),
        (lambda r: r[:1], "has no rows"),
        (lambda r: [], "has no column `frame`"),
        (lambda r: LONG, "line 3: is a second row of nose of view t, frame 0"),
        (lambda r: [[*LONG[0], "z"], [*LONG[1], 0]], "has the columns z, too"),
    ],
)
def test_tables_that_are_wrong_are_refused(tmp_path, change, message):
    people = {("a", 0, 0): person(17), ("a", 1, 0): person(17)}
    for some in people.values():
        some[0] = [3, 4, 0.5]
    rows = change(table_of(people, skeleton.get("coco17").joints)["wide"])
    more = {"skeleton": "coco17"} if rows == LONG else {}
    with pytest.raises(SourceError, match=message):
        keypoints.read(save_csv(tmp_path / "t.csv", rows), **more)


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"frame,\xff\n")
    with pytest.raises(SourceError, match="not readable CSV"):
        keypoints.read(tmp_path / "t.csv")


def test_arrays_of_one_person(tmp_path):
    table = archive()
    table["confidence"][1] = 0
    table["keypoints"][1] = np.nan
    np.savez(tmp_path / "a.npz", first=12, **table)
    views = keypoints.read(tmp_path / "a.npz")
    assert list(views) == ["left", "right"]
    for number, seen in enumerate(views.values()):
        assert (seen.skeleton.name, seen.first, seen.ids) == ("coco17", 12, None)
        assert [len(p) for p in seen.people] == [1, 0, 1]
        assert_allclose(seen.people[2][0, :, :2], table["keypoints"][2, number])
        assert_allclose(seen.people[2][0, :, 2], table["confidence"][2, number])


def test_arrays_of_several_people(tmp_path):
    table = archive(people=(2,))
    table["confidence"][1, :, 0] = 0
    ids = np.broadcast_to([5, 3], (3, 2, 2))
    np.savez(tmp_path / "a.npz", **table, ids=ids)
    seen = keypoints.read(tmp_path / "a.npz")["right"]
    assert [found.tolist() for found in seen.ids] == [[5, 3], [3], [5, 3]]
    assert_allclose(seen.people[1][0, :, :2], table["keypoints"][1, 1, 1])
    np.savez(tmp_path / "a.npz", **table)
    assert keypoints.read(tmp_path / "a.npz")["right"].ids is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((3, 17, 2))}, r"shape \[3, 17, 2\], not \[frames, views"),
        ({"keypoints": np.zeros((3, 2, 16, 2))}, r"expected \[3, 2, 17, 2\]"),
        ({"confidence": np.ones((3, 2, 16))}, r"confidence: has shape \[3, 2, 16\]"),
        ({"confidence": np.full((3, 2, 17), 1.2)}, "view left, frame 0, person 0, nose: has conf"),
        ({"keypoints": np.full((3, 2, 17, 2), np.nan)}, "frame 0, person 0, nose: is at nan"),
        ({"confidence": None}, "not an array of numbers"),
        ({"views": ["a"]}, "of 2 views, but the names a;"),
        ({"views": ["a", "a"]}, "of 2 views, but the names a, a;"),
        ({"ids": np.zeros((3, 2))}, "ids: has shape"),
        ({"first": [1, 2]}, "first: has shape"),
        ({"first": -2}, "view left: has a frame -2; number frames from 0 on"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    np.savez(tmp_path / "a.npz", **{**archive(), **change})
    with pytest.raises(SourceError, match=message):
        keypoints.read(tmp_path / "a.npz")


def test_arrays_say_their_joint_set(tmp_path):
    np.savez(tmp_path / "a.npz", **archive())
    with pytest.raises(SourceError, match="its joints are coco17, not h36m17"):
        keypoints.read(tmp_path / "a.npz", skeleton="h36m17")
    np.savez(tmp_path / "a.npz", **{**archive(), "skeleton": "coco"})
    with pytest.raises(SkeletonError, match="no skeleton is named 'coco'"):
        keypoints.read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", keypoints=np.zeros((1, 1, 17, 2)))
    with pytest.raises(SourceError, match="has no 'confidence'"):
        keypoints.read(tmp_path / "a.npz")
