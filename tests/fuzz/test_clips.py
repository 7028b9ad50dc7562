"""Whatever a clip or a camera holds: it is refused by name, or comes back from disk as it was."""

import copy
import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import writer
from pose3d_jax import schema
from pose3d_jax.data import poses
from pose3d_jax.schema import Record, SchemaError
from tests.fuzz.conftest import examples
from tests.scenes import record

GOOD = record("walk", frames=2, views=2)
ARRAYS = (
    *(("observations", name) for name in ("keypoints", "confidence")),
    *(("labels", name) for name in ("joints", "joints_valid")),
    *(("cameras", field.name) for field in dataclasses.fields(GOOD.clip.observations.cameras)),
)
NUMBERS = (np.nan, np.inf, -np.inf, -1, 0, 0.5, 1, 2, 1e-6, 1e30, 1e39, 1e300, 1e-320)
TYPES = ("f2", "f4", "f8", "i8", "u1", "?", "c8", "O", "U5", "S3", "M8[s]")
TEXTS = st.one_of(
    st.text(max_size=3), st.sampled_from(["", " ", "\ud800", "\0", "a/b", "ü", "x" * 999])
)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.binary(max_size=2),
    st.lists(TEXTS, max_size=3),
    st.lists(st.sampled_from(["c0", "c1", ""]), max_size=3).map(tuple),
    st.sampled_from(["coco17", "h36m17", "humaneva15", 2**63, -1, 1e-9, 1e300]),
)


def with_array(made, where, name, change):
    """A record with one of its arrays replaced by a function of it."""
    clip = made.clip
    if where == "cameras":
        cameras = clip.observations.cameras
        cameras = dataclasses.replace(cameras, **{name: change(getattr(cameras, name))})
        part = {"observations": dataclasses.replace(clip.observations, cameras=cameras)}
    else:
        old = getattr(clip, where)
        part = {where: dataclasses.replace(old, **{name: change(getattr(old, name))})}
    return Record(dataclasses.replace(clip, **part), made.identity)


def identified(**changes):
    """The good record with fields of its identity replaced, past the tests' own type checks."""
    identity = copy.copy(GOOD.identity)
    for field, value in changes.items():
        object.__setattr__(identity, field, value)
    return Record(GOOD.clip, identity)


@st.composite
def array_changes(draw):
    """A function of an array: an element, the shape, the type, or all of it is another."""
    kind = draw(st.sampled_from(["element", "element", "scale", "shape", "type", "axis", "whole"]))
    number = draw(st.sampled_from(NUMBERS))
    place = draw(st.floats(0, 1, exclude_max=True))
    axis = draw(st.integers(0, 4))
    dtype = draw(st.sampled_from(TYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=5))
    whole = draw(ANYTHING)

    def change(array):
        array = np.array(array)
        if array.dtype.kind not in "fi" or not array.size:
            return array  # of an earlier change
        if kind == "element":
            array = array.astype("f8")
            array.flat[int(place * array.size)] = number
        elif kind == "scale":
            with np.errstate(all="ignore"):
                array = array.astype("f8") * number
        elif kind == "shape":
            array = np.zeros(shape, "f4")
        elif kind == "type":
            array = np.zeros(array.shape, dtype)
        elif kind == "axis" and axis < array.ndim:
            array = np.take(array, range(int(place * array.shape[axis])), axis)
        elif kind == "axis":
            array = array[None]
        else:
            return whole
        return array

    return change


@st.composite
def records(draw):
    """The good record with up to two changes of its arrays and its identity."""
    made = GOOD
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            made = with_array(made, *draw(st.sampled_from(ARRAYS)), draw(array_changes()))
        else:
            field = draw(st.sampled_from(dataclasses.fields(made.identity))).name
            made = Record(made.clip, identified(**{field: draw(ANYTHING)}).identity)
    return made


def is_valid(made):
    """Whether it is; a refusal must name the clip."""
    try:
        schema.validate(made)
    except SchemaError as error:
        assert str(error).startswith(f"clip {made.identity.dataset}/{made.identity.clip}: ")  # noqa: PT017
        return False
    return True


@examples(300)
@given(records())
def test_any_clip_is_valid_or_refused_by_name(made):
    is_valid(made)


@examples(30)
@given(records())
def test_what_is_refused_leaves_nothing_and_what_is_not_comes_back(tmp_path_factory, made):
    target = tmp_path_factory.mktemp("fuzz") / "set"
    try:
        writer.write(target, "scene", {"train": [GOOD, made]}, description="A test.")
    except SchemaError:
        assert not list(target.parent.iterdir())
    else:
        assert_comes_back(target, made)


def assert_comes_back(target, made):
    found = poses.read_split(target, made.identity.split)[1]
    assert found.identity.clip == made.identity.clip

    def same(before, after):
        np.testing.assert_array_equal(np.asarray(before, np.float32), after)

    jax.tree.map(same, made.clip.observations, found.clip.observations)
    jax.tree.map(same, made.clip.labels, found.clip.labels)


def mirrored(rotation):
    return rotation * np.array([1, 1, -1], np.float32)


# What fuzzing found: each was written and then could not be read, or ended in a traceback.
FOUND = {
    "double beyond single": (
        with_array(GOOD, "observations", "keypoints", lambda x: x.astype("f8") * 1e300),
        r"keypoints is inf at index \(0, 0, 0, 0\)",
    ),
    "focal length that single precision rounds to 0": (
        with_array(GOOD, "cameras", "focal", lambda x: x * 0 + np.float64(1e-60)),
        r"cameras.focal of c0 is \[0.0, 0.0\] in frame 0, not positive",
    ),
    "objects": (
        with_array(GOOD, "labels", "joints", lambda x: x.astype(object)),
        "joints holds obj",
    ),
    "no array": (with_array(GOOD, "labels", "joints", lambda x: x.tolist()), "joints holds list"),
    "nothing": (with_array(GOOD, "cameras", "size", lambda x: None), "cameras.size holds NoneType"),
    "scaled rotation": (
        with_array(GOOD, "cameras", "rotation", lambda x: x * 1.01),
        r"cameras.rotation of c0 is \[\[.*in frame 0, no rotation; give an orthonormal matrix",
    ),
    "mirrored camera": (with_array(GOOD, "cameras", "rotation", mirrored), "no rotation; give"),
    "no picture": (
        with_array(GOOD, "cameras", "size", lambda x: -x),
        "cameras.size of c0 is .* not",
    ),
    "unknown joints": (identified(joint_skeleton="h36m18"), "joint_skeleton: no skeleton is named"),
    "other joints": (
        identified(keypoint_skeleton="humaneva15"),
        "17 keypoints, but humaneva15 has 15",
    ),
    "cameras of one name": (identified(camera_names=("a", "a")), "camera_names has a twice"),
    "letters for names": (
        identified(camera_names="ab"),
        "camera_names is 'ab'; give a tuple of names",
    ),
    "nobody": (identified(subject=""), "subject is ''; give text that is not empty"),
    "half a character": (identified(action="\ud800"), r"action is '\\ud800'; give text"),
    "no rate": (identified(fps=0.0), "fps is 0.0; give frames per second"),
    "a rate that rounds to 0": (identified(fps=1e-5), "fps is 1e-05; give frames per second"),
    "endless rate": (identified(fps=float("inf")), "fps is inf; give frames per second"),
    "before the start": (identified(start=-1), "start is -1; give the number of the first frame"),
    "beyond 64 bits": (identified(start=2**63), "start is 9223372036854775808; give the number"),
}


@pytest.mark.parametrize("fault", FOUND)
def test_what_was_found_is_refused_by_name(fault):
    made, message = FOUND[fault]
    with pytest.raises(SchemaError, match=message):
        schema.validate(made)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "my-set", 3, "1st"])
def test_names_that_files_cannot_have_are_refused(tmp_path, name):
    for data_set, split in ((name, "train"), ("scene", name)):
        with pytest.raises(SchemaError, match="use letters, digits and underscores"):
            writer.write(tmp_path / "set", data_set, {split: [GOOD]}, description="A test.")
    assert not list(tmp_path.iterdir())


def test_a_rotation_in_single_precision_passes():
    schema.validate(with_array(GOOD, "cameras", "rotation", lambda x: x * np.float32(1 + 3e-4)))
