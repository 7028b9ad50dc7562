"""From pictures to 3D: what is made of what, what is compared, what is refused, and a run."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.spatial.transform import Rotation

from configs import rendered_cmu
from data_prep import picture_features, writer
from pose3d_jax import adapt, checkpoint, evaluate, methods, photo, train, warmstart
from pose3d_jax import cameras as cam
from pose3d_jax.config import ConfigError, complete
from pose3d_jax.data import images, poses
from pose3d_jax.methods.base import EVALUATION, Info, MethodError
from pose3d_jax.methods.image import ImageTo3D
from pose3d_jax.models import hrnet
from pose3d_jax.schema import BodyLabels, with_pixels
from pose3d_jax.sources import SourceError
from pose3d_jax.state import TrainState
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M)
CELLS = 64


@pytest.fixture(autouse=True, scope="module")
def _toy():
    """A network of two resolutions, which is compiled quickly."""
    with pytest.MonkeyPatch.context() as patch:
        small = hrnet.Size(8, stem=8, first=1, modules=(1,), units=1)
        patch.setitem(hrnet.SIZES, "toy", small)
        yield


def method(**settings):
    return ImageTo3D(INFO, network="toy", cells=CELLS, width=16, dropout=0.0, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures to train, four for the others, each a clip of one frame and view."""
    path = tmp_path_factory.mktemp("pictures") / "data"
    counts = {"train": 12, "validation": 4, "test": 4}
    made = {
        split: [
            scenes.photographed(
                scenes.record(f"{split}{n}", split=split, frames=1, views=1, seed=7 * n), CELLS
            )
            for n in range(count)
        ]
        for split, count in counts.items()
    }
    writer.write(path, "scene", made, description="small")
    return path


@pytest.fixture(scope="module")
def data(folder):
    return poses.load([folder], "train")


@pytest.fixture(scope="module")
def clip(data):
    found = data.poses.take(jnp.arange(4))
    pixels = images.pixels(data.pictures, np.arange(4)[:, None], CELLS)
    return found.replace(observations=with_pixels(found.observations, pixels))


@pytest.fixture(scope="module")
def variables(clip):
    return jax.jit(method().init)(jax.random.key(0), {"main": clip})


@pytest.fixture(scope="module")
def seen(clip, variables):
    see = jax.jit(lambda v, o: method().see(v, o, jax.random.key(0), EVALUATION)[0])
    return see(variables, clip.observations)


@pytest.fixture(scope="module")
def terms():
    """Terms of all kinds, under the axis that a step has; compiled once for each method."""

    def found(variables, clip, **settings):
        tested = method(**settings)

        def run(variables, clip):
            return tested.terms(
                variables, {"main": clip}, jax.random.key(0), jnp.int32(0),
                group=tested.groups[0], mode=EVALUATION,
            )[0]  # fmt: skip

        return jax.jit(run)(variables, clip)

    return found


def test_the_root_is_seen_where_its_heatmap_has_it(clip, seen):
    """Through the square, the lens and the ray, and back."""
    root = scenes.H36M.root
    cameras = jax.tree.map(lambda x: x[:, 0, 0], clip.observations.cameras)
    shown = jax.jit(jax.vmap(lambda camera, x: cam.to_pixels(camera, cam.perspective(x))))
    back = shown(cameras, seen.joints[:, root])
    square = np.asarray(clip.observations.pictures.square)[:, 0, 0]
    wanted = square[:, :2] + np.asarray(seen.points)[:, root] * square[:, 2:] / 2
    assert_allclose(back, wanted, atol=0.05)


def test_a_picture_that_is_not_there_says_nothing(clip, variables, terms):
    """It and its labels count for nothing, whatever they are."""
    observations = clip.observations
    square = observations.pictures.square.at[1].set(0.0)
    pictures = observations.pictures.replace(square=square)
    lacking = clip.replace(observations=observations.replace(pictures=pictures))
    keep = jnp.array([0, 2, 3])
    some = jax.tree.map(lambda x: x[keep], clip)
    found, wanted = terms(variables, lacking), terms(variables, some)
    for name in wanted:
        assert_allclose(found[name], wanted[name], rtol=1e-4, err_msg=name)


def test_points_outside_of_the_square_and_missing_ones_count_for_nothing(clip, variables, terms):
    observations = clip.observations
    moved = observations.keypoints.at[0, 0, 0, 3].add(5000.0)
    outside = clip.replace(observations=observations.replace(keypoints=moved))
    gone = observations.confidence.at[0, 0, 0, 3].set(0.0)
    missing = clip.replace(observations=observations.replace(confidence=gone))
    a, b = terms(variables, outside), terms(variables, missing)
    for name in ("heatmap", "decoder"):
        assert a[name][1] == 4 * 17 - 1
        assert_allclose(a[name], b[name], rtol=1e-6)


def zero_decoder(variables):
    own = jax.tree.map(jnp.zeros_like, variables["params"]["decoder"])
    return {**variables, "params": {**variables["params"], "decoder": own}}


def test_the_reports_cycle_is_best_with_a_decoder_of_zeros(clip, variables, terms):
    """With the skip its target is what it is given; ours, where the joints are, is not."""
    nothing = zero_decoder(variables)
    total, count = terms(nothing, clip, cycle="report")["decoder"]
    assert count == 4 * 17
    assert total == 0
    truth, _ = terms(nothing, clip)["decoder"]
    assert truth > 1
    without, _ = terms(nothing, clip, cycle="report", skip=False)["decoder"]
    assert without > 0


@pytest.mark.parametrize(("cost", "power"), [("squares", 2), ("distances", 1)])
def test_the_encoder_is_compared_about_the_root(cost, power, clip, seen, variables, terms):
    found = terms(variables, clip, cost=cost)
    labels = np.asarray(clip.labels.joints)[:, 0]
    cameras = clip.observations.cameras
    rotation = np.asarray(cameras.rotation)[:, 0, 0]
    about = np.einsum("bij,bnj->bni", rotation, labels - labels[:, :1])
    joints = np.asarray(seen.joints)
    off = np.linalg.norm(joints - joints[:, :1] - about, axis=-1)[:, 1:] ** power
    assert_allclose(found["encoder"][0] / found["encoder"][1], off.mean(), rtol=1e-4)
    places = np.einsum("bij,bj->bi", rotation, labels[:, 0]) + cameras.translation[:, 0, 0]
    away = np.linalg.norm(joints[:, 0] - places, axis=-1)
    assert_allclose(found["root"][0] / found["root"][1], away.mean(), rtol=1e-4)


def test_bones_are_as_unlike_as_their_lengths(clip, seen, variables, terms):
    joints, names = np.asarray(seen.joints), scenes.H36M.joints
    pairs = [("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")]
    chains = [(f"{{}}_{a}", f"{{}}_{b}") for a, b in pairs]
    chains += [("pelvis", "{}_hip"), ("thorax", "{}_shoulder")]

    def length(a, b, side):
        a, b = (names.index(x.format(side)) for x in (a, b))
        return np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)

    off = [(length(a, b, "left") - length(a, b, "right")) ** 2 for a, b in chains]
    total, count = terms(variables, clip)["bones"]
    assert_allclose(total / count, np.mean(off), rtol=1e-3)


def test_settings_that_do_not_fit_are_refused():
    for wrong in ({"network": "w33"}, {"target": "x"}, {"points": "x"}, {"cycle": "x"}):
        with pytest.raises(MethodError, match="there are"):
            dataclasses.replace(method(), **wrong)
    with pytest.raises(MethodError, match="multiple of 32"):
        dataclasses.replace(method(), cells=100)


def config(folder, argument="tiny"):
    made = rendered_cmu.get_config(argument)
    made.data.path = str(folder)
    made.method.update(width=8, network="toy")
    return made


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "run"
    made = config(folder)
    made.phases[1]["pictures"] = {}  # quicker to compile: the first phase has them
    return directory, train.run(made, directory)


def test_both_phases_run_are_restored_and_not_adapted(trained):
    directory, found = trained
    assert np.isfinite(found["splits"]["test"]["rows"]["image"]["p1"]["frames"])
    restored = evaluate.restore(directory)
    again = evaluate.predict(restored, restored.splits["test"])
    assert again.joints.shape == (4, 1, 17, 3)
    with pytest.raises(ConfigError, match="the method looks at pictures"):
        adapt.run(directory)


def test_features_of_a_set_s_pictures_are_what_the_network_makes_of_each(trained, folder, tmp_path):
    directory, _ = trained
    words = f"--source {folder} --run {directory} --output {tmp_path / 'out'} --batch 8"
    picture_features.main(words.split())
    found, before = (poses.load([path], "train") for path in (tmp_path / "out", folder))
    restored = evaluate.restore(directory)
    network = restored.method._nets[0]
    own = {kind: tree["hrnet"] for kind, tree in restored.variables.items()}
    shown = images.pixels(before.pictures, np.arange(12), CELLS)[:, 0] / 255
    shown = (shown - np.array(hrnet.MEAN)) / np.array(hrnet.DEVIATION)
    shown = jnp.asarray(shown, jnp.float32)
    expected = network.apply(own, shown, jnp.ones(12), update_statistics=False).coarse
    features = found.poses.observations.images
    assert features.features.shape == (12, 1, 16)
    assert_allclose(features.features[:, 0], expected, atol=1e-4)
    assert np.asarray(expected).std(axis=0).max() > 1e-3
    assert_allclose(features.square, before.poses.observations.pictures.square)
    assert all(np.array_equal(a, b) for a, b in zip(found.pictures, before.pictures, strict=True))


def test_features_go_where_their_pictures_were():
    """Of two views, one without a picture."""
    made = scenes.photographed(scenes.record("a", frames=3, views=2), CELLS)
    clip, identity = made
    seen = clip.observations.pictures
    seen.pixels[1, 0] = b""
    extract = lambda encoded: np.array([[len(x), 1.0] for x in encoded], np.float32)  # noqa: E731
    first, second = picture_features.pictured([made, made], extract)
    for found in (first, second):
        expected = [[[len(x), 1.0] for x in frame] for frame in seen.pixels]
        assert_array_equal(found.clip.observations.images.features, expected)
    assert first.identity == identity


def test_a_picture_that_is_not_there_has_no_features(trained, data):
    directory, _ = trained
    extract = picture_features.Extractor(directory, 4)
    encoded = data.pictures[:5, 0].copy()
    whole = extract(encoded)
    encoded[2] = b""
    found = extract(encoded)
    assert not found[2].any()
    assert whole[2].any()
    others = [0, 1, 3, 4]
    assert_allclose(found[others], whole[others], atol=1e-6)


def test_sets_without_pictures_and_runs_that_look_at_none_are_refused(
    trained, folder, tmp_path, capsys, monkeypatch
):
    directory, _ = trained
    writer.write(tmp_path / "bare", "scene", {"train": [scenes.record("a")]}, description="small")
    read = checkpoint.read_metadata
    other = {"name": "supervised"}
    monkeypatch.setattr(
        checkpoint,
        "read_metadata",
        lambda path: (
            {**read(directory), "config": {**read(directory)["config"], "method": other}}
            if path.name == "other"
            else read(path)
        ),
    )
    for source, run, message in (
        (tmp_path / "bare", directory, "clip a has no pictures"),
        (folder, tmp_path / "none", "none"),
        (folder, tmp_path / "other", "of the method supervised, which looks at no pictures"),
    ):
        words = f"--source {source} --run {run} --output {tmp_path / 'out'}"
        with pytest.raises(SystemExit):
            picture_features.main(words.split())
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_what_a_picture_and_its_mirror_image_say_is_averaged(trained, folder, tmp_path):
    """A set of the mirror images has the mirrored predictions: the cameras' x axes are reversed."""
    directory, _ = trained
    restored = evaluate.restore(directory)
    assert restored.config["evaluation"]["flip"]
    data = restored.splits["test"]
    found = evaluate.predict(restored, data).joints[:, 0]
    turned = []
    for encoded in data.pictures[:, 0]:
        with Image.open(io.BytesIO(encoded)) as picture:
            file = io.BytesIO()
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file, "PNG")
            turned.append(file.getvalue())
    seen = data.poses.observations
    middle = seen.pictures.square[..., 0]
    # Of the lens, what bends sideways is the other way round.
    cameras = dataclasses.replace(
        seen.cameras,
        center=seen.cameras.center.at[..., 0].set(2 * middle - seen.cameras.center[..., 0]),
        distortion=seen.cameras.distortion.at[..., 3].multiply(-1),
    )
    poses_ = dataclasses.replace(
        data.poses, observations=dataclasses.replace(seen, cameras=cameras)
    )
    mirrored = dataclasses.replace(data, poses=poses_, pictures=np.array(turned, object)[:, None])
    again = evaluate.predict(restored, mirrored).joints[:, 0]
    order = np.array(scenes.H36M.mirrored)
    assert_allclose(again[:, order] * [-1, 1, 1], found, atol=1e-4)
    plain = {**restored.config, "evaluation": {**restored.config["evaluation"], "flip": False}}
    alone = evaluate.predict(dataclasses.replace(restored, config=plain), data).joints[:, 0]
    assert np.abs(alone - found).max() > 1e-3


@pytest.fixture(scope="module")
def image():
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)


def test_people_in_an_image_stand_on_the_rays_of_their_roots(trained, image):
    directory, _ = trained
    boxes = [(40.0, 30.0, 60.0, 150.0), (200.0, 80.0, 90.0, 120.0)]
    camera = photo.camera_of(image.size, [400.0, 410.0], [150.0, 130.0])
    found, tested = photo.predict(directory, image, boxes, camera)
    root = tested.info.joint_skeleton.root
    x, y, z = found.joints[:, root].T
    assert z.min() > 0
    seen = np.stack([400 * x / z + 150, 410 * y / z + 130], axis=-1)
    assert_allclose(seen, found.points[:, root], atol=0.01)
    # Points are within the squares, a quarter larger than the boxes' longer sides.
    middle = np.array([[left + (w - 1) / 2, top + (h - 1) / 2] for left, top, w, h in boxes])
    assert (abs(found.points - middle[:, None]).max(axis=(1, 2)) < [94, 75.5]).all()
    # Whoever else is in the image changes nothing.
    alone, _ = photo.predict(directory, image, boxes[1:], camera)
    assert_allclose(alone.joints[0], found.joints[1], atol=1e-4)


def test_an_image_with_a_border_shows_the_same_people(trained, image):
    directory, _ = trained
    wide = Image.new("RGB", (400, 300), (9, 90, 200))
    wide.paste(image, (50, 20))
    box = (100.0, 60.0, 50.0, 90.0)
    first, _ = photo.predict(directory, image, [box], photo.camera_of((320, 240), [400.0], None))
    camera = photo.camera_of((400, 300), [400.0], [159.5 + 50, 119.5 + 20])
    second, _ = photo.predict(directory, wide, [(150.0, 80.0, 50.0, 90.0)], camera)
    assert_allclose(second.joints, first.joints, atol=1e-4)
    assert_allclose(second.points, first.points + np.array([50, 20]), atol=1e-2)


def test_a_photograph_is_upright_as_viewers_show_it(trained, image, tmp_path):
    """Cameras turn images by a note in the file (EXIF, orientation 6: by a quarter)."""
    directory, _ = trained
    upright, sideways = tmp_path / "upright.png", tmp_path / "sideways.png"
    image.save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(sideways, exif=exif)
    for path in (upright, sideways):
        words = f"--workdir {directory} --image {path} --box 40 30 60 150 --focal 400 --output"
        photo.main([*words.split(), str(tmp_path / path.stem)])
    found = [json.loads((tmp_path / p.stem / "pose.json").read_text()) for p in (upright, sideways)]
    assert found[0] == found[1]


def test_the_command_leaves_a_pose_and_a_picture_of_it(trained, image, tmp_path, capsys):
    directory, _ = trained
    image.save(tmp_path / "me.png")
    given = ["--workdir", str(directory), "--image", str(tmp_path / "me.png")]
    out = ["--output", str(tmp_path / "out")]
    photo.main([*given, "--box", "40", "30", "60", "150", *out])
    said = json.loads((tmp_path / "out" / "pose.json").read_text())
    assert said["camera"] == {
        "focal_px": [320, 320],
        "center_px": [159.5, 119.5],
        "focal_assumed": True,
        "center_assumed": True,
    }
    assert np.shape(said["people"][0]["joints_m"]) == (len(said["joints"]), 3)
    with Image.open(tmp_path / "out" / "pose.png") as picture:
        assert picture.width > 300
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / name) for name in ("pose.json", "pose.png")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--box": ["900", "900", "50", "50"]}, r"--box 900.*: its box is outside of the image"),
        ({"--box": ["10", "10", "0", "50"]}, "width and height must be above 0"),
        ({"--center": ["nan", "5"]}, "--center nan 5.0: give two numbers"),
        ({"--output": [__file__]}, "is no folder"),
        ({"--focal": ["-5"]}, "--focal -5.0: give one or two numbers above 0"),
        ({"--image": ["missing.png"]}, "missing.png: cannot be read as an image"),
        ({"--workdir": ["nowhere"]}, "nowhere"),
    ],
)
def test_what_the_command_cannot_do_is_said(trained, image, tmp_path, changes, message):
    image.save(tmp_path / "me.png")
    given = {
        "--workdir": [str(trained[0])],
        "--image": [str(tmp_path / "me.png")],
        "--box": ["40", "30", "60", "150"],
        "--focal": ["400"],
        "--output": [str(tmp_path / "out")],
        **changes,
    }
    with pytest.raises(SystemExit, match=message):
        photo.main([word for key, words in given.items() for word in (key, *words)])
    assert not (tmp_path / "out").exists()


def test_data_without_pictures_and_what_changes_keypoints_are_refused(folder, tmp_path):
    plain = tmp_path / "plain"
    made = {
        split: [scenes.record(split, split=split, views=1)]
        for split in ("train", "validation", "test")
    }
    writer.write(plain, "scene", made, description="small")
    with pytest.raises(ConfigError, match=r"streams.main: the method looks at pictures"):
        train.run(config(plain), tmp_path / "a")
    wrong = config(folder)
    wrong.phases[0]["augmentation"] = {"turn": 180.0}
    with pytest.raises(ConfigError, match="which stay as they are"):
        train.run(wrong, tmp_path / "b")


def test_points_are_compared_on_the_square(clip, seen, variables, terms):
    """Half sides: a point at the edge is 1 from the middle."""
    square = np.asarray(clip.observations.pictures.square)[:, 0, 0]
    keypoints = np.asarray(clip.observations.keypoints)[:, 0, 0]
    places = 2 * (keypoints - square[:, None, :2]) / square[:, None, 2:]
    away = np.linalg.norm(np.asarray(seen.points) - places, axis=-1)
    total, count = terms(variables, clip)["points"]
    assert_allclose(total / count, away.mean(), rtol=1e-4)


def test_pictures_of_several_kinds_are_learnt_from_together(clip, variables, terms):
    """Of four views beside one, with bodies beside none: each view is a picture like the others."""
    views = jax.tree.map(lambda x: jnp.repeat(x, 4, axis=2), clip.observations)
    body = BodyLabels(jnp.zeros((4, 1, 24, 3)), jnp.zeros((4, 1, 10)), jnp.ones((4, 1)))
    several = clip.replace(observations=views, labels=clip.labels.replace(body=body))
    tested = method()

    @jax.jit
    def found(variables, batch):
        return tested.terms(
            variables, batch, jax.random.key(0), jnp.int32(0),
            group=tested.groups[0], mode=EVALUATION,
        )[0]  # fmt: skip

    both = found(variables, {"main": several, "annotated": clip})
    alone = terms(variables, clip)
    for name, (total, count) in alone.items():
        assert_allclose(both[name][0], 5 * total, rtol=1e-3, err_msg=name)
        assert_allclose(both[name][1], 5 * count, err_msg=name)


def saved(variables, path):
    """A network's variables as a file in the public naming."""
    named = {
        hrnet._public(name): np.asarray(leaf) for name, leaf in flatten_dict(variables).items()
    }
    turned = {k: v.transpose(3, 2, 0, 1) if v.ndim == 4 else v for k, v in named.items()}
    np.savez(path, **turned)
    return str(path)


def test_training_begins_with_public_weights_and_a_head_of_its_own(variables, data, tmp_path):
    other = jax.tree.map(lambda x: np.asarray(x) + 0.25, variables)
    public = {kind: own["hrnet"] for kind, own in other.items()}
    path = saved(public, tmp_path / "public.npz")
    made = rendered_cmu.get_config(f"tiny,weights={path}")
    init = complete(made)["init"]
    learnt = warmstart.learnt(init, method(), INFO, data)
    nothing = (jnp.int32(0), jax.random.key(0))
    state = TrainState(*nothing, variables, {}, None, jnp.zeros(2, jnp.int32))
    begun = flatten_dict(warmstart.begin(state, learnt, init).variables)
    for name, leaf in flatten_dict(other).items():
        theirs = name[1] == "hrnet" and "final_layer" not in name
        assert_array_equal(begun[name], leaf if theirs else flatten_dict(variables)[name])


def test_public_weights_are_for_networks_of_their_kind(variables, data, tmp_path):
    lost = jax.tree.map(np.asarray, {kind: own["hrnet"] for kind, own in variables.items()})
    lost["params"] = {k: v for k, v in lost["params"].items() if k != "conv1"}
    init = complete(rendered_cmu.get_config("tiny"))["init"]
    given = {**init, "weights": saved(lost, tmp_path / "lost.npz")}
    with pytest.raises(SourceError, match=r"lost.npz: lacks conv1.weight"):
        warmstart.learnt(given, method(), INFO, data)
    with pytest.raises(ConfigError, match="names both a workdir and weights"):
        warmstart.learnt({**given, "workdir": "elsewhere"}, method(), INFO, data)
    lifter = methods.create({"name": "supervised"}, INFO)
    with pytest.raises(ConfigError, match=r"init.weights: Supervised has no network"):
        warmstart.learnt(given, lifter, INFO, data)
    assert warmstart.learnt(init, lifter, INFO, data) == {}


@pytest.mark.slow
def test_pictures_with_2d_alone_are_learnt_from_beside_others(folder, tmp_path):
    """A set without 3D, as `data_prep.coco` makes, and norms of the gradient told by depth."""
    flat = [
        scenes.photographed(scenes.record(f"flat{n}", frames=1, views=1, seed=n), CELLS)
        for n in range(4)
    ]
    blank = [
        made._replace(clip=made.clip.replace(labels=jax.tree.map(np.zeros_like, made.clip.labels)))
        for made in flat
    ]
    writer.write(tmp_path / "flat", "scene", {"train": blank}, description="2D alone")
    made = config(folder, f"tiny,depth,annotated={tmp_path / 'flat'}")
    found = train.run(made, tmp_path / "run")
    assert np.isfinite(found["splits"]["test"]["rows"]["image"]["p1"]["frames"])
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "scalars.jsonl").read_text().splitlines()
    ]
    told = {name for row in rows for name in row if "gradient/" in name}
    assert {"image/gradient/hrnet/conv1", "image/gradient/hrnet/final_layer"} <= {
        name.removeprefix("train/") for name in told
    }


@pytest.mark.slow  # two minutes, most of them compilation
def test_a_step_of_the_published_size_moves_it(folder, tmp_path):
    made = rendered_cmu.get_config("tiny")
    made.data.path = str(folder)
    made.method.update(network="w32", width=1024)
    made.streams.main.batch_size = 2
    made.phases = ({**made.phases[1], "length_steps": 1},)
    made.phases[0]["optimizer"] = {"name": "sgd"}  # of no weight, no step
    train.run(made, tmp_path / "run")
    restored = evaluate.restore(tmp_path / "run")
    found = restored.variables["params"]["hrnet"]
    fresh = restored.method.init(jax.random.key(0), {})["params"]["hrnet"]
    still = jax.tree.map(lambda a, b: a.shape != b.shape, found, fresh)
    assert not any(jax.tree.leaves(still))
    assert round(sum(x.size for x in jax.tree.leaves(found)) / 1e6, 1) == 28.5
    for leaf in jax.tree.leaves(restored.variables):
        assert np.isfinite(leaf).all()
    scalars = (tmp_path / "run" / "scalars.jsonl").read_text().splitlines()
    assert np.isfinite(json.loads(scalars[0])["train/image/loss"])


def test_what_stands_in_a_square_is_told_apart_from_where_it_stands(clip, variables, terms):
    """The same picture elsewhere in the image, of a person turned with it, costs the same."""
    bias = 0.3 * jax.random.normal(jax.random.key(5), (3 * scenes.H36M.size,))
    own = {**variables["params"]["direct"], "bias": bias}
    variables = {**variables, "params": {**variables["params"], "direct": own}}
    seen = clip.observations
    cameras = jax.tree.map(lambda x: x[:, 0, 0], seen.cameras)

    def cost(turn, middle):
        camera = dataclasses.replace(
            seen.cameras,
            rotation=turn @ seen.cameras.rotation,
            translation=jnp.einsum("ij,btvj->btvi", turn, seen.cameras.translation),
        )
        square = seen.pictures.square.at[..., :2].set(middle[:, None, None])
        pictures = dataclasses.replace(seen.pictures, square=square)
        moved = seen.replace(cameras=camera, pictures=pictures)
        total, count = terms(variables, clip.replace(observations=moved))["direct"]
        return float(total / count)

    turn = jnp.asarray(Rotation.from_euler("yx", [15, 0], degrees=True).as_matrix(), jnp.float32)
    ahead = cost(jnp.eye(3), cameras.center)
    aside = jax.vmap(lambda c: cam.to_pixels(c, cam.perspective(turn[:, 2])))(cameras)
    assert cost(turn, aside) == pytest.approx(ahead, rel=1e-3)
    assert abs(cost(turn, cameras.center) - ahead) > 0.004 * ahead


def test_the_encoder_may_be_shown_what_is_said_without_heatmaps(clip):
    shown = method(told=True)
    variables = jax.jit(shown.init)(jax.random.key(0), {"main": clip})
    see = jax.jit(lambda v: shown.see(v, clip.observations, jax.random.key(0), EVALUATION)[0])
    moved = jax.tree.map(lambda x: x, variables)
    moved["params"]["direct"]["bias"] = moved["params"]["direct"]["bias"] + 0.5
    before, after = see(variables), see(moved)
    assert_allclose(after.direct, before.direct + 0.5, atol=1e-5)
    assert_array_equal(after.points, before.points)
    assert np.abs(after.joints - before.joints).max() > 1e-7
