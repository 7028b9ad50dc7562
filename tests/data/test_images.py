"""Pictures: whatever kind of file they are, in the order of the draws, from any of them on."""

import dataclasses
import io
import json
import os
import signal
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from configs import rendered_cmu
from data_prep import writer
from pose3d_jax import evaluate, methods, noise, train
from pose3d_jax.data import images, poses, windows
from pose3d_jax.data.integrity import DataError
from pose3d_jax.epoch import draw_indices, pass_order, stream_key
from pose3d_jax.errors import Interrupted
from pose3d_jax.log import ScalarLog
from pose3d_jax.methods.base import Aux, Group, Info
from pose3d_jax.schema import Prediction
from tests import scenes


def saved(image, kind="PNG", **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def test_pictures_of_any_kind_are_rgb():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (32, 32), np.uint8)
    three = np.repeat(grey[..., None], 3, axis=-1)
    assert_array_equal(images.decode(saved(Image.fromarray(grey)), 32), three)
    assert_array_equal(images.decode(saved(Image.fromarray(three)), 32), three)
    clear = np.concatenate([three, np.full((32, 32, 1), 255, np.uint8)], axis=-1)
    assert_array_equal(images.decode(saved(Image.fromarray(clear)), 32), three)
    assert_array_equal(images.decode(b"", 32), np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_larger_picture_is_the_mean_of_its_pixels(kind):
    row, column = np.mgrid[:128, :128]
    image = np.stack([row, column, 200 - row], axis=-1).astype(np.uint8)
    found = images.decode(saved(Image.fromarray(image), kind), 32)
    wanted = image.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - wanted).max() < (1 if kind == "PNG" else 6)


@pytest.mark.parametrize("cut", [10, 60, -20])
def test_damaged_pictures_are_refused(cut):
    whole = saved(Image.fromarray(np.zeros((64, 64, 3), np.uint8)), "JPEG")
    with pytest.raises(DataError, match="cannot be decoded"):
        images.decode(whole[:cut], 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "data"
    made = [
        scenes.photographed(scenes.record(f"c{n}", frames=2 + n, views=2, seed=n), 32)
        for n in range(3)
    ]
    writer.write(folder, "scene", {"train": made}, description="small")
    return poses.load([folder], "train"), made


def test_a_set_keeps_its_pictures_beside_its_poses(data):
    found, made = data
    whole = np.concatenate([r.clip.observations.pictures.pixels for r in made])
    assert found.pictures.shape == (9, 2)
    assert (found.pictures == whole).all()
    held = found.poses.observations.pictures
    assert held.pixels is None
    assert_array_equal(
        held.square, np.concatenate([r.clip.observations.pictures.square for r in made])
    )


def test_other_pictures_are_other_data(tmp_path, data):
    _, made = data
    other = [scenes.photographed(record, 48) for record in made]
    writer.write(tmp_path / "other", "scene", {"train": other}, description="small")
    assert poses.load([tmp_path / "other"], "train").fingerprint != data[0].fingerprint


@pytest.mark.parametrize("first", [0, 3, 7])
def test_a_feed_gives_what_the_device_draws(first, data):
    """From any batch on: 4 batches of 2 to a pass of 9 examples."""
    found, _ = data
    split = windows.cut(found, 1)
    key, streams = jax.random.key(3), {"main": split.poses}
    own = stream_key(key, streams, "main")
    feed = images.Feed(
        found.pictures,
        np.asarray(split.poses.start),
        lambda number: np.asarray(pass_order(own, number, 9)),
        batch=2, first=first, stop=12, cells=32, ahead=2,
    )  # fmt: skip
    drawn = draw_indices(key, streams, {"main": 2}, "main", jnp.int32(first), 12 - first)
    wanted = images.pixels(found.pictures, np.asarray(drawn)[..., None], 32)
    parts = [feed.take(2), feed.take(12 - first - 2)]
    assert_array_equal(np.concatenate(parts), wanted)
    with pytest.raises(StopIteration):
        feed.take(1)


@dataclasses.dataclass(frozen=True)
class Reader:
    """A method whose cost is how far a picture's red is from what its keypoints say that it is."""

    info: Info
    picture_cells: ClassVar[int] = 32
    groups: ClassVar[tuple[Group, ...]] = (Group("reader", ("reader",), ("off",)),)

    def init(self, key, batch):
        return {"params": {"reader": {"weight": jnp.zeros(1)}}}

    def terms(self, variables, batch, key, step, *, group, mode):
        total, count = jnp.zeros(()), jnp.zeros(())
        for clip in batch.values():
            seen = clip.observations
            red = seen.pictures.pixels[..., 5, 7, 0].astype(jnp.float32)
            off = jnp.abs(red - seen.keypoints[..., 0, 0])
            total, count = total + jnp.sum(off), count + off.size
        weight = jnp.sum(variables["params"]["reader"]["weight"])
        return {"off": (total + 0 * weight, count)}, Aux({}, {})

    def predict(self, variables, observations, key=None):
        red = observations.pictures.pixels[..., 5, 7, 0].astype(jnp.float32)
        off = jnp.abs(red - observations.keypoints[..., 0, 0])[..., None, None]
        return Prediction(jnp.broadcast_to(off, (*off.shape[:3], 17, 3)))


def numbered(split, count, first=0):
    """Records of several frames and views, whose keypoints say what colour each picture has."""
    for clip in range(count):
        made = scenes.record(f"{split}{clip}", split=split, frames=2, views=2, seed=clip)
        made = scenes.photographed(made, 32)
        observations = made.clip.observations
        points = np.array(observations.keypoints)
        encoded = observations.pictures.pixels.copy()
        for frame, view in np.ndindex(2, 2):
            number = first + 4 * clip + 2 * frame + view
            points[frame, view, 0] = number
            encoded[frame, view] = scenes.png(np.full((32, 32, 3), number, np.uint8))
        pictures = observations.pictures.replace(pixels=encoded)
        observations = observations.replace(keypoints=points, pictures=pictures)
        yield made._replace(clip=made.clip.replace(observations=observations))


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_is_shown_the_pictures_of_its_poses(devices, tmp_path, monkeypatch):
    """In two phases, of two streams of which one is a share of the clips, also after a stop."""
    splits = {
        "train": list(numbered("train", 9)),
        "validation": list(numbered("validation", 2, 50)),
        "test": list(numbered("test", 2, 100)),
    }
    writer.write(tmp_path / "data", "scene", splits, description="small")
    monkeypatch.setitem(methods.METHODS, "reader", Reader)
    config = rendered_cmu.get_config("tiny").to_dict()
    config["data"]["path"] = str(tmp_path / "data")
    config["method"] = {"name": "reader"}
    config["devices"], config["steps_per_call"] = devices, 2
    config["evaluation"]["flip"] = False
    main = {**config["streams"]["main"], "batch_size": 4}
    config["streams"] = {"main": main, "annotated": {**main, "clips": (0.3, 1.0)}}
    phase = {"weights": {"off": 1.0}, "learning_rate": 1.0, "length_steps": 7}
    config["phases"] = (phase, phase)
    write = ScalarLog.write

    def stop_once(self, step, scalars):
        write(self, step, scalars)
        if step == 4 and not stopped:
            stopped.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    stopped: list[int] = []
    monkeypatch.setattr(ScalarLog, "write", stop_once)
    with pytest.raises(Interrupted):
        train.run(config, tmp_path / "run")
    train.run(config, tmp_path / "run")
    lines = [json.loads(x) for x in (tmp_path / "run" / "scalars.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines][-1] == 14
    assert [line["train/reader/off"] for line in lines] == [0.0] * len(lines)
    restored = evaluate.restore(tmp_path / "run")
    for split in restored.splits.values():
        assert not np.any(evaluate.predict(restored, split).joints)


def test_a_share_of_the_clips_keeps_its_own_pictures(data):
    found, _ = data
    for low, high in ((0.0, 0.4), (0.5, 1.0)):
        part = windows.some(found, low, high)
        assert 0 < len(part.pictures) < len(found.pictures)
        whole = {identity.clip: n for n, identity in enumerate(found.identities)}
        for identity, start in zip(part.identities, np.asarray(part.poses.start), strict=True):
            first = min(n for n, i in enumerate(found.identities) if i.clip == identity.clip)
            assert whole[identity.clip] >= first
            begin = np.asarray(part.poses.begin)[list(part.identities).index(identity)]
            assert (part.pictures[start] == found.pictures[first + start - begin]).all()


def test_a_view_that_is_lost_loses_its_pictures():
    made = scenes.photographed(scenes.record("a", views=3), 32)
    found = noise.corrupt_record(made, dataclasses.replace(noise.preset("clean"), lost_views=1))
    pictures = found.clip.observations.pictures
    there = np.array([[len(x) > 0 for x in row] for row in pictures.pixels])
    assert there.sum(axis=1).tolist() == [2] * len(there)
    assert ((pictures.square[..., 2] > 0) == there).all()
