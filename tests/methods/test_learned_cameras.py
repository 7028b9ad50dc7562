"""`multiview` with cameras that are learned: against exact scenes whose cameras are wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks.cameras import apart, disturbance
from configs import cmu_mv
from data_prep import writer
from pose3d_jax import adapt, evaluate, methods, noise, rigs, streams, train, warmstart
from pose3d_jax import config as configs
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses
from pose3d_jax.methods.base import Info, MethodError, Mode
from pose3d_jax.methods.lifting import normalised_points
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.phases import adaptation_phase, phases_of
from tests import scenes

VIEWS = 3
INFO = Info(scenes.H36M, scenes.H36M, ("a", "b"), ((True,) * VIEWS,) * 2)
TRAINING = Mode(training=True)
DEVIATIONS = rigs.deviations(rigs.Doubt(), np.ones(VIEWS, bool))


def make(**settings):
    return methods.create(
        {"name": "multiview", "width": 32, "cameras": "learned", **settings}, INFO
    )


def moved(seed=0, clocks=False):
    """What a recording's cameras are off by."""
    own = disturbance("ring", seed, VIEWS)
    own[:, rigs.TIME] *= clocks
    return own


def wrong(clip, own):
    """The batch `[B, T, ...]` with the cameras moved."""
    apply = jax.jit(jax.vmap(rigs.apply, in_axes=(0, None)))
    return dataclasses.replace(clip, observations=apply(clip.observations, jnp.asarray(own)))


def distances(cameras):
    """Between the views of the first frame, by NumPy."""
    own = jax.tree.map(lambda x: np.asarray(x, float)[0, 0], cameras)
    places = -np.einsum("vab,va->vb", own.rotation, own.translation)
    return np.linalg.norm(places[:, None] - places[None], axis=-1)


def variables_of(method, clip, corrections):
    """Fresh ones, in whose table the first recording has these corrections."""
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
    table = variables["params"]["cameras"]["corrections"]
    scaled = np.divide(
        corrections, DEVIATIONS, out=np.zeros_like(corrections), where=DEVIATIONS > 0
    )
    params = {**variables["params"], "cameras": {"corrections": table.at[0].set(scaled)}}
    return {**variables, "params": params}


def terms(method, variables, clip, names, mode=TRAINING):
    group = dataclasses.replace(method.groups[0], terms=names)

    @jax.jit
    def call(variables, clip):
        def one(clip):
            key = jax.random.key(0)
            found, _ = method.terms(
                variables, {"main": clip}, key, jnp.int32(0), group=group, mode=mode
            )
            return found

        alone = jax.tree.map(lambda x: x[None], clip)
        return jax.tree.map(lambda x: x[0], jax.vmap(one, axis_name=BATCH_AXIS)(alone))

    return {name: float(s / c) for name, (s, c) in call(variables, clip).items()}


def test_corrections_that_undo_what_is_wrong_leave_nothing_of_rays():
    """exp(-x) undoes exp(x): the cameras are the true ones again."""
    clip = scenes.batch(6, views=VIEWS)
    seen = wrong(clip, moved())
    method = make()
    undone = -moved()
    names = ("rays", "calibration", "size")
    off = terms(method, variables_of(method, seen, 0 * undone), seen, names)
    mended = terms(method, variables_of(method, seen, undone), seen, names)
    assert off["rays"] > 0.01
    assert mended["rays"] < 1e-5
    assert off["calibration"] == off["size"] == 0
    squared = (undone / np.where(DEVIATIONS > 0, DEVIATIONS, np.inf)) ** 2
    apart = [distances(x.observations.cameras).sum() for x in (clip, seen)]
    grown = (np.log(apart[0] / apart[1]) / rigs.GROWTH) ** 2
    assert mended["calibration"] == pytest.approx(squared.mean(), rel=1e-4)
    assert mended["size"] == pytest.approx(grown, rel=2e-3)


def test_rays_are_the_mean_distance_of_what_is_triangulated_from_what_is_seen():
    """By NumPy: the least squares of the lines through points, projected into each view."""
    clip = scenes.batch(1, views=VIEWS)
    seen = wrong(clip, moved())
    method = make()
    found = terms(method, variables_of(method, seen, 0 * moved()), seen, ("rays",))["rays"]
    cameras = jax.tree.map(lambda x: np.asarray(x)[0, 0].astype(float), seen.observations.cameras)
    points = np.asarray(normalised_points(seen.observations))[0, 0].astype(float)
    away = []
    for joint in range(17):
        rows, right = [], []
        for view in range(VIEWS):
            turn, shift = cameras.rotation[view], cameras.translation[view]
            for axis in range(2):
                rows.append(turn[axis] - points[view, joint, axis] * turn[2])
                right.append(points[view, joint, axis] * shift[2] - shift[axis])
        world = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
        for view in range(VIEWS):
            own = cameras.rotation[view] @ world + cameras.translation[view]
            away.append(np.linalg.norm(own[:2] / own[2] - points[view, joint]))
    assert found == pytest.approx(np.mean(away), rel=1e-4)


def test_only_the_recordings_of_the_batch_are_corrected():
    method = make()
    clip = scenes.batch(4, views=VIEWS)
    second = dataclasses.replace(clip, recording=jnp.ones(4, jnp.int32))
    variables = variables_of(method, clip, moved())
    assert terms(method, variables, clip, ("rays",))["rays"] > 0.01
    assert terms(method, variables, second, ("rays",))["rays"] < 1e-5


def test_clocks_are_learned_of_several_frames():
    """A person in uniform motion, a view two frames late: its points are on the lines between."""
    clip = scenes.batch(2, views=VIEWS, frames=1)
    step = 0.02 * np.arange(9)[None, :, None, None] * np.array([1.0, 0.5, 0.0])
    joints = np.asarray(clip.labels.joints) + step
    late = joints - 2 * (joints[:, 1:2] - joints[:, :1])
    film = lambda x: scenes.film(np.asarray(x, np.float32), scenes.ring(VIEWS))  # noqa: E731
    seen, delayed = film(joints), film(late)
    keypoints = jnp.concatenate([seen.keypoints[:, :, :2], delayed.keypoints[:, :, 2:]], axis=2)
    seen = dataclasses.replace(seen, keypoints=keypoints)
    clip = dataclasses.replace(clip, observations=seen)
    method = make()
    own = np.zeros((VIEWS, rigs.SIZE), np.float32)
    off = terms(method, variables_of(method, clip, own), clip, ("rays",))["rays"]
    own[2, rigs.TIME] = 2.0
    mended = terms(method, variables_of(method, clip, own), clip, ("rays",))["rays"]
    assert mended < off / 20
    one = jax.tree.map(lambda x: x[:, :1] if x.ndim > 1 else x, clip)
    alone = terms(method, variables_of(method, one, own), one, ("rays",))["rays"]
    assert alone == pytest.approx(
        terms(method, variables_of(method, one, 0 * own), one, ("rays",))["rays"]
    )


def test_cameras_are_found_by_gradients():
    """Of 64 poses: Adam on `rays` brings the views' rotations near one another's true ones."""
    clip = scenes.batch(64, views=VIEWS)
    seen = wrong(clip, moved())
    method = make()
    first = variables_of(method, seen, 0 * moved())
    weights = cmu_mv.LEARNED
    group = dataclasses.replace(method.groups[0], terms=tuple(weights))
    optimizer = optax.adam(optax.linear_schedule(0.03, 0.0, 300))

    def loss(table):
        def one(batch):
            variables = {**first, "params": {**first["params"], "cameras": {"corrections": table}}}
            key, zero = jax.random.key(0), jnp.int32(0)
            return method.terms(variables, {"main": batch}, key, zero, group=group, mode=TRAINING)[
                0
            ]

        found = jax.vmap(one, axis_name=BATCH_AXIS)(jax.tree.map(lambda x: x[None], seen))
        return sum(weights[name] * s[0] / c[0] for name, (s, c) in found.items())

    @jax.jit
    def descend(table):
        def step(carry, _):
            table, state = carry
            steps, state = optimizer.update(jax.grad(loss)(table), state)
            return (optax.apply_updates(table, steps), state), None

        return jax.lax.scan(step, (table, optimizer.init(table)), length=300)[0][0]

    table = descend(first["params"]["cameras"]["corrections"])
    assert_array_equal(np.asarray(table[1]), 0)  # of no clip
    found = np.asarray(table[0]) * DEVIATIONS
    true, was, now = (
        jax.tree.map(lambda x: np.asarray(x)[0], x.observations.cameras)
        for x in (clip, seen, wrong(seen, found))
    )
    assert apart(now, true)[0] < apart(was, true)[0] / 5
    left = variables_of(method, seen, found), first
    rays = [terms(method, variables, seen, ("rays",))["rays"] for variables in left]
    assert rays[0] < rays[1] / 10
    size = [distances(x.observations.cameras).sum() for x in (seen, wrong(seen, found))]
    assert abs(np.log(size[1] / size[0])) < rigs.GROWTH


def test_predictions_are_of_the_cameras_as_given():
    method = make()
    clip = scenes.batch(2, views=VIEWS)
    predict = jax.jit(method.predict)
    plain, changed = (variables_of(method, clip, x) for x in (0 * moved(), moved()))
    a, b = (predict(x, clip.observations).joints for x in (plain, changed))
    assert_array_equal(a, b)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(MethodError, match="cameras are 'given' or 'learned', not 'free'"):
        make(cameras="free")
    with pytest.raises(MethodError, match="labels, which know the cameras as given"):
        make(name="semisupervised")
    alone = {"name": "multiview", "cameras": "learned"}
    with pytest.raises(MethodError, match="learned of recordings, and there are none"):
        methods.create(alone, Info(scenes.H36M, scenes.H36M)).init(
            jax.random.key(0), {"main": scenes.batch(2)}
        )

    def phases(argument, **changes):
        config = cmu_mv.get_config(argument)
        config.method.update(changes)
        full = configs.complete(config)
        return phases_of(full, methods.create(full["method"], INFO), 10, 30.0)

    assert phases("tiny,cameras=learned")
    with pytest.raises(ConfigError, match=r"phases\[0\]\.augmentation: films clips anew"):
        phases("tiny", cameras="learned")
    with pytest.raises(ConfigError, match="rays"):
        phases("tiny,cameras=learned", cameras="given")
    full = configs.complete(cmu_mv.get_config("tiny,cameras=learned"))
    method = methods.create(full["method"], INFO)
    full["streams"]["main"]["cameras"] = "solved"
    loaded = loaded_of(tmp_path, moving=True)
    with pytest.raises(ConfigError, match="leave one of them at 'given'"):
        streams.examples(full, method, {"main": loaded}, 1)
    full["streams"]["main"].update({"cameras": "given", "joints": "labels"})
    with pytest.raises(ConfigError, match="let joints be a row of references"):
        streams.examples(full, method, {"main": loaded}, 1)
    full["streams"]["main"]["joints"] = "dlt"
    with pytest.raises(ConfigError, match="stand still, and those of scene/a move"):
        streams.examples(full, method, {"main": loaded}, 1)


def loaded_of(folder, **settings):
    record = scenes.record("a", views=VIEWS, **settings)
    writer.write(folder / "set", "scene", {"train": [record]}, description="one clip")
    return poses.load([folder / "set"], "train")


def test_a_view_that_sees_nothing_is_never_moved():
    method = methods.create(
        {"name": "multiview", "width": 32, "cameras": "learned"},
        dataclasses.replace(INFO, seeing=((False, True, True), (True,) * VIEWS)),
    )
    clip = scenes.batch(2, views=VIEWS)
    variables = jax.jit(method.init)(jax.random.key(0), {"main": clip})
    table = jnp.ones_like(variables["params"]["cameras"]["corrections"])
    params = {**variables["params"], "cameras": {"corrections": table}}
    found = np.asarray(method.corrections({**variables, "params": params}))
    assert not found[0, 0].any()
    assert found[0, 1, rigs.TIME] == 0 < found[0, 2, rigs.TIME]  # its clock is the recording's
    assert found[1, 0, : rigs.RADIAL].all()


def test_cameras_are_moved_in_units_of_their_doubt():
    doubt = rigs.Doubt(degrees=0.0, metres=0.2, focal=0.01, radial=0.1, frames=0.0)
    info = dataclasses.replace(INFO, doubt=doubt)
    method = methods.create({"name": "multiview", "width": 32, "cameras": "learned"}, info)
    table = jnp.ones((2, VIEWS, rigs.SIZE))
    found = method.corrections({"params": {"cameras": {"corrections": table}}})
    assert_allclose(found, np.broadcast_to([0.2] * 3 + [0] * 3 + [0.01, 0.1, 0], found.shape))


@pytest.mark.parametrize("name", ["multiview", "fused"])
def test_what_is_shown_is_corrected_like_what_is_compared(name):
    """And networks that are told of cameras are told of the corrected ones."""
    method = make(name=name)
    clip = wrong(scenes.batch(4, views=VIEWS), moved())
    variables = variables_of(method, clip, -moved())
    group = dataclasses.replace(method.groups[0], terms=("self", "pose"))

    @jax.jit
    def call(batch):
        key, zero = jax.random.key(0), jnp.int32(0)
        one = lambda b: method.terms(variables, b, key, zero, group=group, mode=TRAINING)[0]  # noqa: E731
        return jax.vmap(one, axis_name=BATCH_AXIS)(jax.tree.map(lambda x: x[None], batch))

    both = call({"main": clip, "shown": clip})
    alone = call({"main": clip})
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-5), both, alone)


def test_the_table_is_of_the_training_recordings_whatever_is_looked_at():
    """A checkpoint opens for data of fewer views."""
    init = jax.jit(make().init)
    fewer = init(jax.random.key(0), {"main": scenes.batch(2, views=2)})
    assert fewer["params"]["cameras"]["corrections"].shape == (2, VIEWS, rigs.SIZE)


@pytest.fixture(scope="module")
def trained(synthetic_set, tmp_path_factory):
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("learned")
    config = cmu_mv.get_config("tiny,cameras=learned")
    config.data.path = str(synthetic_set)
    config.evaluation.test = ("test",)
    train.run(config, folder / "run")
    return config, folder


@pytest.mark.slow
def test_a_run_is_restored_for_fewer_views_and_adapted(trained):
    """What was learned of the training recordings' cameras is of no use to others."""
    config, folder = trained
    restored = evaluate.restore(folder / "run")
    table = np.asarray(restored.method.corrections(restored.variables))
    assert table.shape == (len(restored.info.recordings), 3, rigs.SIZE)
    assert np.abs(table).max() > 0
    fewer = config.copy_and_resolve_references()
    fewer.data.views = (0, 2)
    two = evaluate.restore(folder / "run", fewer)
    assert evaluate.predict(two, two.splits["test"]).joints.shape[-3] == 2
    fewer.adaptation.stages = ("weights", "poses")
    assert adapt.run(folder / "run", fewer)["splits"]["test"]
    fewer.adaptation.method = "supervised"  # has no such setting
    with pytest.raises(ConfigError, match="weights"):
        adapt.run(folder / "run", fewer)


@pytest.mark.slow
def test_another_run_begins_with_the_network_alone(trained, monkeypatch):
    config, folder = trained
    own = config.copy_and_resolve_references()
    own.init = {"workdir": str(folder / "run"), "part": "", "into": ""}
    for phase in own.phases:
        phase["length_steps"] = 1
    began = []
    begin = warmstart.begin
    monkeypatch.setattr(warmstart, "begin", lambda *args: began.append(begin(*args)) or began[0])
    train.run(own, folder / "again")
    params = began[0].variables["params"]
    assert_array_equal(np.asarray(params["cameras"]["corrections"]), 0)
    there = evaluate.restore(folder / "run").variables["params"]
    jax.tree.map(assert_array_equal, params["lifter"], there["lifter"])
    assert np.asarray(there["cameras"]["corrections"]).any()


@pytest.mark.slow
def test_the_body_is_measured_with_what_was_learned(trained, monkeypatch):
    """On a split as its cameras, corrected, have seen it; those of other recordings as given."""
    _, folder = trained
    restored = evaluate.restore(folder / "run")
    table = np.asarray(restored.method.corrections(restored.variables))
    data = streams.read(restored.config, "train", recordings=restored.info.recordings)
    found = evaluate.as_learned(restored, data).poses.observations.cameras.focal
    row = np.asarray(data.poses.recording)
    given = np.asarray(data.poses.observations.cameras.focal)
    assert_allclose(found, given * np.exp(table[row, :, rigs.FOCAL])[..., None], rtol=1e-5)

    names = tuple(f"other {name}" for name in restored.info.recordings)
    others = dataclasses.replace(
        restored, info=dataclasses.replace(restored.info, recordings=names)
    )
    assert_array_equal(evaluate.as_learned(others, data).poses.observations.cameras.focal, given)

    seen = []
    as_learned = evaluate.as_learned
    monkeypatch.setattr(
        evaluate, "as_learned", lambda *args: seen.append(args[1]) or as_learned(*args)
    )
    adapt.body_under(restored, noise.preset("typical"))
    assert [data.identities[0].split for data in seen] == ["train", "train"]


def test_an_adaptation_is_no_training():
    """Networks are shown all that there is."""
    full = configs.complete(cmu_mv.get_config("tiny"))
    phase = adaptation_phase(full, methods.create(full["method"], INFO), 10)
    assert not phase.mode.training
