"""A good record passes; each fault is found and named."""

import numpy as np
import pytest

from pose3d_jax.schema import Images, Record, SchemaError, validate
from tests.scenes import record

FRAMES, VIEWS = 4, 2


def good() -> Record:
    return record("walk", frames=FRAMES, views=VIEWS)


def observed(**changes):
    """A record with fields of its observations replaced by a function of the good ones."""
    clip, identity = good()
    new = {name: change(getattr(clip.observations, name)) for name, change in changes.items()}
    return Record(clip.replace(observations=clip.observations.replace(**new)), identity)


def filmed(**changes):
    """The same for fields of its cameras."""
    return observed(
        cameras=lambda cameras: cameras.replace(
            **{name: change(getattr(cameras, name)) for name, change in changes.items()}
        )
    )


def labelled(**changes):
    """The same for fields of its labels."""
    clip, identity = good()
    new = {name: change(getattr(clip.labels, name)) for name, change in changes.items()}
    return Record(clip.replace(labels=clip.labels.replace(**new)), identity)


def named(**changes):
    """The same for fields of its identity."""
    clip, identity = good()
    return Record(clip, type(identity)(**{**vars(identity), **changes}))


def with_value(value):
    def change(array):
        array = np.array(array)
        array[(1,) * array.ndim] = value
        return array

    return change


def test_a_good_record_passes():
    validate(good())
    validate(record("moving", moving=True))
    validate(record("unlabelled", labelled=False))
    validate(pictured())


def pictured(features=(FRAMES, VIEWS, 5), square=(FRAMES, VIEWS, 3), value=1.0):
    """The same with features of images."""
    made = Images(np.full(features, value, np.float32), np.full(square, value, np.float32))
    return observed(images=lambda _: made)


FAULTS = {
    "nan keypoint": (observed(keypoints=with_value(np.nan)), r"keypoints is nan at .*1, 1, 1, 1"),
    "infinite keypoint": (observed(keypoints=with_value(np.inf)), "keypoints is inf"),
    "keypoints without views": (observed(keypoints=lambda x: x[:, 0]), "keypoints have shape"),
    "3d keypoints": (observed(keypoints=lambda x: np.repeat(x, 2, -1)), "keypoints have shape"),
    "no frames": (observed(keypoints=lambda x: x[:0]), "empty: keypoints have 0 frames"),
    "no views": (observed(keypoints=lambda x: x[:, :0]), "empty: .* 0 views"),
    "no joints": (observed(keypoints=lambda x: x[:, :, :0]), "empty: keypoints .* 0 joints"),
    "fewer cameras than views": (
        filmed(**dict.fromkeys(vars(good().clip.observations.cameras), lambda x: x[:, :1])),
        r"cameras.*\(4, 1\).*2 views",
    ),
    "cameras of another length": (filmed(focal=lambda x: x[:2]), r"cameras.*\(2, 2\).*4 frames"),
    "one camera field short": (filmed(rotation=lambda x: x[:, :1]), r"cameras\.rotation.*shape"),
    "rotation as a vector": (filmed(rotation=lambda x: x[..., 0]), r"cameras\.rotation.*shape"),
    "four lens terms": (filmed(distortion=lambda x: x[..., :4]), r"cameras\.distortion.*shape"),
    "nan in a camera": (filmed(translation=with_value(np.nan)), r"cameras\.translation is nan"),
    "negative focal length": (filmed(focal=with_value(-1)), "focal"),
    "confidence above one": (observed(confidence=with_value(1.5)), "confidence"),
    "confidence below zero": (observed(confidence=with_value(-0.1)), "confidence"),
    "nan confidence": (observed(confidence=with_value(np.nan)), "confidence is nan"),
    "confidence of another shape": (observed(confidence=lambda x: x[..., :3]), "confidence.*shape"),
    "nan joint": (labelled(joints=with_value(np.nan)), r"joints is nan .*joints_valid 0"),
    "joints of another length": (labelled(joints=lambda x: x[:2]), "joints has shape"),
    "joints without frames": (labelled(joints=lambda x: x[0]), "joints has shape"),
    "flat joints": (labelled(joints=lambda x: x[0, 0]), "joints has shape"),
    "2d joints": (labelled(joints=lambda x: x[..., :2]), "joints has shape"),
    "mask of another shape": (labelled(joints_valid=lambda x: x[:, :3]), "joints_valid has shape"),
    "a half valid joint": (labelled(joints_valid=with_value(0.5)), "joints_valid"),
    "features of fewer frames": (pictured((3, VIEWS, 5)), r"images has features \(3, 2, 5\)"),
    "features without a name": (pictured((FRAMES, VIEWS, 0)), "images has features"),
    "features without views": (pictured((FRAMES, 5)), "images has features"),
    "squares of two numbers": (pictured(square=(FRAMES, VIEWS, 2)), r"square \(4, 2, 2\)"),
    "a negative side": (pictured(value=-1.0), r"images\.square has a side of -1"),
    "a feature that is no number": (pictured(value=np.nan), r"images\.features is nan"),
    "camera names": (named(camera_names=("a", "b", "c")), "3 camera names for 2 views"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault):
    bad, message = FAULTS[fault]
    with pytest.raises(SchemaError, match=message) as error:
        validate(bad)
    assert str(error.value).startswith("clip scene/walk: ")
