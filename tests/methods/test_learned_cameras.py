"""`multiview` with cameras that are learned: against exact scenes whose cameras are wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_array_equal

from benchmarks.cameras import apart, disturbance
from configs import cmu_mv
from pose3d_jax import config as configs
from pose3d_jax import methods, rigs
from pose3d_jax.config import ConfigError
from pose3d_jax.methods.base import Info, MethodError, Mode
from pose3d_jax.methods.lifting import normalised_points
from pose3d_jax.models.layers import BATCH_AXIS
from pose3d_jax.phases import adaptation_phase, phases_of
from tests import scenes

INFO = Info(scenes.H36M, scenes.H36M, ("a", "b"))
VIEWS = 3
TRAINING = Mode(training=True)
DEVIATIONS = rigs.deviations(rigs.Doubt(), np.ones(VIEWS, bool))


def make(**settings):
    return methods.create(
        {"name": "multiview", "width": 32, "cameras": "learned", **settings}, INFO
    )


def moved(seed=0, clocks=False):
    """What a recording's cameras are off by; as the world is as large, so are these."""
    own = disturbance("ring", seed, VIEWS)
    own[:, rigs.TIME] *= clocks
    return own


def wrong(clip, own):
    """The batch `[B, T, ...]` with the cameras moved."""
    apply = jax.jit(jax.vmap(rigs.apply, in_axes=(0, None)))
    return dataclasses.replace(clip, observations=apply(clip.observations, jnp.asarray(own)))


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
    """exp(-x) undoes exp(x): the cameras are the true ones again, but for the world's size."""
    clip = scenes.batch(6, views=VIEWS)
    seen = wrong(clip, moved())
    method = make()
    undone = -moved()
    off = terms(method, variables_of(method, seen, 0 * undone), seen, ("rays", "calibration"))
    mended = terms(method, variables_of(method, seen, undone), seen, ("rays", "calibration"))
    assert off["rays"] > 0.01
    assert mended["rays"] < 1e-5
    assert off["calibration"] == 0
    scaled = undone[:, DEVIATIONS[0] > 0] / DEVIATIONS[0, DEVIATIONS[0] > 0]
    both = (2, VIEWS, rigs.SIZE)
    assert mended["calibration"] == pytest.approx((scaled**2).sum() / np.prod(both), rel=1e-4)


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
    # The world is made as large as given, which it is: nothing was corrected.
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
    weights = {"rays": 1.0, "calibration": 1e-4}
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
    (angle_was, baseline_was), (angle, baseline) = apart(was, true), apart(now, true)
    assert angle < angle_was / 5
    assert baseline < baseline_was


def test_predictions_are_of_the_cameras_as_given():
    method = make()
    clip = scenes.batch(2, views=VIEWS)
    predict = jax.jit(method.predict)
    plain, changed = (variables_of(method, clip, x) for x in (0 * moved(), moved()))
    a, b = (predict(x, clip.observations).joints for x in (plain, changed))
    assert_array_equal(a, b)


def test_what_does_not_fit_is_refused():
    with pytest.raises(MethodError, match="cameras are 'given' or 'learned', not 'free'"):
        make(cameras="free")
    method = make()
    clip = scenes.batch(2, views=VIEWS)
    variables = variables_of(method, clip, 0 * moved())
    with pytest.raises(MethodError, match="rays is of cameras that are learned in training"):
        terms(method, variables, clip, ("rays",), Mode())

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


def test_an_adaptation_is_no_training():
    """Networks are shown all views, and learned cameras are left as they are given."""
    full = configs.complete(cmu_mv.get_config("tiny"))
    phase = adaptation_phase(full, methods.create(full["method"], INFO), 10)
    assert not phase.mode.training
