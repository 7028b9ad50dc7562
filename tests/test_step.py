"""The training step, proved by six toy methods."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pose3d_jax.epoch import compile_epoch, draw_indices, replicate, unreplicate
from pose3d_jax.methods.base import Mode
from pose3d_jax.state import term_names
from pose3d_jax.step import gradient_norms, own_rate
from tests import toys
from tests.toys import ClipStream, clips, constant, fresh, phase


def start(method, phase_, streams, average=False, seed=0):
    batch = {name: stream.take(jnp.arange(1)) for name, stream in streams.items()}
    return fresh(method, phase_, batch, jax.random.key(seed), average)


def train(method, phase_, streams, steps, *, devices=1, batch_size=8, state=None, average=False):
    """Runs some steps; the state and the metrics as numpy, without the device axis."""
    sizes = dict.fromkeys(streams, batch_size)
    state = start(method, phase_, streams, average) if state is None else state
    run = compile_epoch(method, phase_, sizes, devices, steps)
    state, metrics = run(replicate(state, devices), streams)
    return unreplicate(state), jax.tree.map(float, unreplicate(metrics))


def params(state):
    return state.variables["params"]


def test_gradient_step_has_the_closed_form():
    data = clips(8)
    phase_ = phase({"error": 3.0})
    state, metrics = train(toys.Toy(), phase_, {"main": ClipStream(data)}, 1)
    joints, valid = np.asarray(data.labels.joints), np.asarray(data.labels.joints_valid)
    mean = (joints * valid[..., None]).sum((0, 1, 2)) / valid.sum()
    # d/dx of 3 * mean |joint - x|^2 at x = 0 is -6 * mean joint; one step of 0.1 against it.
    np.testing.assert_allclose(params(state)["offset"]["value"], 0.6 * mean, rtol=1e-5)
    expected = 3 * ((joints**2).sum(-1) * valid).sum() / valid.sum()
    assert metrics["offset/loss"][0] == pytest.approx(expected, rel=1e-5)
    assert metrics["offset/error"][1] == valid.sum()


@dataclasses.dataclass(frozen=True)
class Shown(toys.Toy):
    """Tells how much each stream's joints have moved from those that it had."""

    def terms(self, variables, batch, key, step, *, group, mode):
        terms, aux = super().terms(variables, batch, key, step, group=group, mode=mode)
        found = {name: (clip.labels.joints.sum(), jnp.ones(())) for name, clip in batch.items()}
        return terms, aux._replace(diagnostics=found)


def test_augmentation_is_of_the_labelled_stream_too_by_a_draw_of_its_own():
    def moved(clip, key):
        labels = clip.labels
        labels = dataclasses.replace(
            labels, joints=labels.joints + jax.random.normal(key, (1,) * 4)
        )
        return dataclasses.replace(clip, labels=labels)

    same = ClipStream(clips(8))
    streams = {"main": same, "labelled": same, "prior": same}
    size, found = same.clips.labels.joints.size, {}
    for name, augment in (("plain", None), ("augmented", moved)):
        _, metrics = train(Shown(), phase({"error": 1.0}, augment=augment), streams, 1)
        found[name] = {stream: metrics[f"offset/{stream}"][0] for stream in streams}
    shift = {s: (found["augmented"][s] - found["plain"][s]) / size for s in streams}
    assert abs(shift["prior"]) < 1e-6
    assert min(abs(shift["main"]), abs(shift["labelled"])) > 1e-3
    assert abs(shift["main"] - shift["labelled"]) > 1e-3


METHODS = {
    "supervised": (toys.Toy(), {"error": 1.0}),
    "critic": (toys.Adversarial(), {"wasserstein": 1.0, "fool": 1.0}),
    "normalised": (toys.Normalised(), {"error": 1.0}),
    "mixed": (toys.Mixed(), {"error": 1.0, "keypoint": 0.5}),
    "table": (toys.CameraTable(), {"error": 1.0}),
    "teacher": (toys.Distilled(), {"imitate": 1.0}),
}


@pytest.mark.parametrize("name", METHODS)
def test_one_and_four_devices_agree_under_uneven_masks(name):
    method, weights = METHODS[name]
    streams = {"main": ClipStream(clips(24)), "prior": ClipStream(clips(16, seed=1))}
    # Plain gradients: where one is zero but for rounding (a bias before a batch norm), Adam's step
    # would be of any sign.
    phase_ = phase(weights, mode=Mode(update_statistics=True))
    one, metrics_one = train(method, phase_, streams, 4, devices=1)
    four, metrics_four = train(method, phase_, streams, 4, devices=4)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    jax.tree.map(close, one.variables, four.variables)
    jax.tree.map(close, metrics_one, metrics_four)
    assert all(
        np.abs(a - b).max() > 0
        for a, b in zip(
            jax.tree.leaves(params(one)),
            jax.tree.leaves(params(start(method, phase_, streams))),
            strict=True,
        )
        if name != "teacher"
    )


def test_devices_end_with_the_same_state():
    method, weights = METHODS["normalised"]
    phase_ = phase(weights, mode=Mode(update_statistics=True))
    streams = {"main": ClipStream(clips(24))}
    run = compile_epoch(method, phase_, {"main": 8}, 4, 3)
    state, _ = run(replicate(start(method, phase_, streams), 4), streams)
    for leaf in jax.tree.leaves(state.variables):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


def test_critic_draws_afresh_and_groups_keep_their_own_collections():
    streams = {"main": ClipStream(clips(8)), "prior": ClipStream(clips(40, seed=1))}
    method = toys.Adversarial()
    phase_ = phase({"wasserstein": 1.0, "fool": 1.0}, learning_rate=constant(0.01))
    state, metrics = train(method, phase_, streams, 1)
    counters = state.variables["counters"]
    assert counters["critic"]["calls"] == 5
    assert counters["generator"]["calls"] == 1
    # The critic's five batches and the generator's are the first six draws, by closed form.
    sizes = {"main": 8, "prior": 8}
    draws = {
        name: draw_indices(jax.random.key(0), streams, sizes, name, jnp.int32(0), 6)
        for name in streams
    }
    assert len({int(i) for i in draws["prior"][:5].reshape(-1)}) == 40  # one pass, no repeats
    w = np.ones(3)
    for draw in range(5):
        real = np.asarray(streams["prior"].clips.labels.joints)[draws["prior"][draw]]
        fake = np.asarray(streams["main"].clips.labels.joints)[draws["main"][draw]]
        w = w - 0.01 * (fake.mean((0, 1, 2)) - real.mean((0, 1, 2)))
    np.testing.assert_allclose(params(state)["critic"]["w"], w, rtol=1e-5)
    # The generator has seen the critic's result: its gradient is -w.
    np.testing.assert_allclose(params(state)["generator"]["bias"], 0.01 * w, rtol=1e-5)
    assert metrics["critic/prior_mean"][1] == 5 * 8 * 2


def test_sampler_predicts_with_the_key_it_is_given():
    method = toys.Sampler()
    variables = method.init(jax.random.key(0), {})
    observations = clips(3).observations
    one, same, other = (
        method.predict(variables, observations, jax.random.key(seed)).samples for seed in (0, 0, 1)
    )
    assert one.shape == (4, 3, 1, 1, 2, 3)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).min(axis=None) >= 0
    assert not np.array_equal(one, other)


def test_frozen_module_rests_and_its_statistics_too():
    method = toys.Normalised()
    streams = {"main": ClipStream(clips(24))}
    both = phase({"error": 1.0}, mode=Mode(update_statistics=True), optimizer=optax.adam(1.0))
    state, _ = train(method, both, streams, 3)
    frozen = dataclasses.replace(
        both, first_step=3, mode=Mode(update_statistics=True, frozen=("encoder",))
    )
    after, _ = train(method, frozen, streams, 3, state=state)
    for collection in ("params", "batch_stats"):
        before_, after_ = state.variables[collection], after.variables[collection]
        jax.tree.map(np.testing.assert_array_equal, before_["encoder"], after_["encoder"])
        for a, b in zip(*map(jax.tree.leaves, (before_["head"], after_["head"])), strict=True):
            assert not np.array_equal(a, b)


def test_running_statistics_stay_when_only_they_are_off():
    method = toys.Normalised()
    streams = {"main": ClipStream(clips(24))}
    state = start(method, phase({"error": 1.0}), streams)
    after, _ = train(method, phase({"error": 1.0}), streams, 2)
    jax.tree.map(
        np.testing.assert_array_equal,
        state.variables["batch_stats"],
        after.variables["batch_stats"],
    )
    assert not np.array_equal(params(state)["head"]["bias"], params(after)["head"]["bias"])


def test_teacher_is_stopped():
    state, _ = train(toys.Distilled(), phase({"imitate": 1.0}), {"main": ClipStream(clips(8))}, 40)
    np.testing.assert_array_equal(params(state)["teacher"]["value"], [1.0, 2.0, 3.0])
    np.testing.assert_allclose(params(state)["offset"]["value"], [1.0, 2.0, 3.0], rtol=1e-3)


def test_mixed_supervision_counts_each_term_by_what_it_sees():
    labelled, unlabelled = clips(4), clips(4, seed=1)
    unlabelled = unlabelled.replace(labels=jax.tree.map(jnp.zeros_like, unlabelled.labels))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), labelled, unlabelled)
    phase_ = phase({"error": 1.0, "keypoint": 0.5})
    state, metrics = train(toys.Mixed(), phase_, {"main": ClipStream(both)}, 1)
    valid = np.asarray(labelled.labels.joints_valid)
    seen = np.asarray(both.observations.confidence)
    assert metrics["offset/error"][1] == valid.sum()
    assert metrics["offset/keypoint"][1] == seen.sum()
    joint = (np.asarray(labelled.labels.joints) * valid[..., None]).sum((0, 1, 2)) / valid.sum()
    point = (np.asarray(both.observations.keypoints) * seen[..., None]).sum((0, 1, 2, 3))
    gradient = -2 * joint
    gradient[:2] += 0.5 * -2 * point / 100 / seen.sum()
    np.testing.assert_allclose(params(state)["offset"]["value"], -0.1 * gradient, rtol=1e-5)


def test_camera_table_moves_only_the_rows_of_its_recordings():
    data = clips(8)
    data = data.replace(recording=jnp.array([0, 0, 2, 2, 0, 2, 0, 2], jnp.int32))
    state, _ = train(toys.CameraTable(), phase({"error": 1.0}), {"main": ClipStream(data)}, 1)
    moved = np.abs(params(state)["cameras"]["shift"]).sum(-1) > 0
    np.testing.assert_array_equal(moved, [True, False, True])


def test_term_of_no_weight_is_not_computed():
    streams = {"main": ClipStream(clips(8))}

    @dataclasses.dataclass(frozen=True)
    class Refuses(toys.Mixed):
        def terms(self, variables, batch, key, step, *, group, mode):
            assert group.terms == ("error",)
            terms, aux = super().terms(variables, batch, key, step, group=group, mode=mode)
            return {"error": terms["error"]}, aux

    _, metrics = train(Refuses(), phase({"error": 1.0}), streams, 1)
    assert set(metrics) == {"offset/error", "offset/loss"}


def test_nothing_visible_is_zero_with_a_finite_gradient():
    data = clips(8)
    data = data.replace(labels=jax.tree.map(jnp.zeros_like, data.labels))
    state, metrics = train(toys.Toy(), phase({"error": 1.0}), {"main": ClipStream(data)}, 1)
    assert metrics["offset/error"] == (0.0, 0.0)
    np.testing.assert_array_equal(params(state)["offset"]["value"], 0.0)
    assert state.failure.tolist() == [-1, -1]


@pytest.mark.parametrize("devices", [1, 4])
def test_non_finite_term_applies_no_update_and_is_named(devices):
    data = clips(40)
    joints = data.labels.joints.at[7].set(jnp.nan)
    labels = data.labels.replace(joints=joints, joints_valid=data.labels.joints_valid.at[7].set(1))
    streams = {"main": ClipStream(data.replace(labels=labels))}
    method, phase_ = toys.Toy(), phase({"error": 1.0}, optimizer=optax.adam(1.0))
    draws = draw_indices(jax.random.key(0), streams, {"main": 8}, "main", jnp.int32(0), 5)
    bad = int(jnp.argmax((draws == 7).any(axis=1)))
    state, _ = train(method, phase_, streams, 5, devices=devices)
    assert state.failure.tolist() == [bad, 0]
    assert term_names(method) == ["offset/error", "offset/gradient"]
    assert np.isfinite(params(state)["offset"]["value"]).all()
    assert int(state.optimizer["offset"][0].count) == bad  # nothing was applied since


def test_calls_of_any_length_make_the_same_run():
    method, weights = METHODS["normalised"]
    streams = {"main": ClipStream(clips(24))}
    phase_ = phase(weights, mode=Mode(update_statistics=True), optimizer=optax.adam(1.0))
    whole, _ = train(method, phase_, streams, 7)
    part, _ = train(method, phase_, streams, 4)
    rest, _ = train(method, phase_, streams, 3, state=part)
    jax.tree.map(np.testing.assert_array_equal, whole.variables, rest.variables)


def test_every_pass_is_a_permutation():
    streams = {"main": ClipStream(clips(24))}
    draws = draw_indices(jax.random.key(3), streams, {"main": 8}, "main", jnp.int32(2), 7)
    passes = np.asarray(draws[1:]).reshape(2, 24)  # draw 2 ends the first pass
    for one in passes:
        np.testing.assert_array_equal(np.sort(one), np.arange(24))
    assert not np.array_equal(passes[0], passes[1])


def test_average_follows_the_variables():
    streams = {"main": ClipStream(clips(8))}
    phase_ = phase({"error": 1.0}, average_decay=0.15)
    expected = 0.0  # where the parameter starts
    for steps in range(1, 5):
        state, _ = train(toys.Toy(), phase_, streams, steps, average=True)
        decay = min(0.15, steps / (steps + 9))  # short at first: what was fresh is forgotten
        expected = decay * expected + (1 - decay) * params(state)["offset"]["value"]
        average = state.evaluated["params"]["offset"]["value"]
        np.testing.assert_allclose(average, expected, rtol=1e-5)


def test_average_without_decay_is_the_variables():
    streams = {"main": ClipStream(clips(8))}
    state, _ = train(toys.Toy(), phase({"error": 1.0}), streams, 2, average=True)
    jax.tree.map(np.testing.assert_array_equal, state.average, state.variables)


def test_learning_rate_is_a_function_of_the_phase_step():
    streams = {"main": ClipStream(clips(8))}
    only_third = phase({"error": 1.0}, learning_rate=lambda s: jnp.where(s == 2, 0.1, 0.0))
    before, _ = train(toys.Toy(), only_third, streams, 2)
    after, _ = train(toys.Toy(), only_third, streams, 3)
    np.testing.assert_array_equal(params(before)["offset"]["value"], 0.0)
    assert np.abs(params(after)["offset"]["value"]).min() > 0


def test_a_group_has_its_own_factor_on_the_learning_rate():
    streams = {"main": ClipStream(clips(8)), "prior": ClipStream(clips(40, seed=1))}
    weights = {"wasserstein": 1.0, "fool": 1.0}
    moved = {}
    for factor in (1.0, 0.5):
        phase_ = phase(weights, learning_rate=constant(0.01), rates={"critic": factor})
        state, _ = train(toys.Adversarial(), phase_, streams, 1)
        moved[factor] = params(state)["critic"]["w"] - 1.0  # where it starts
        # The generator steps by its own rate: its gradient is -w.
        np.testing.assert_allclose(
            params(state)["generator"]["bias"], 0.01 * params(state)["critic"]["w"], rtol=1e-5
        )
    np.testing.assert_allclose(moved[0.5], 0.5 * moved[1.0], rtol=1e-4)


def test_terms_beyond_the_weighted_ones_count_for_nothing():
    streams = {"main": ClipStream(clips(8))}

    @dataclasses.dataclass(frozen=True)
    class Generous(toys.Mixed):
        def terms(self, variables, batch, key, step, *, group, mode):
            return super().terms(variables, batch, key, step, group=self.groups[0], mode=mode)

    state, metrics = train(Generous(), phase({"error": 1.0}), streams, 2)
    frugal, expected = train(toys.Mixed(), phase({"error": 1.0}), streams, 2)
    assert metrics == expected
    jax.tree.map(np.testing.assert_array_equal, state.variables, frugal.variables)


def test_norms_of_the_gradient_are_told_by_part():
    gradient = {("a", "b", "c"): jnp.array([3.0]), ("a", "b", "d"): jnp.array([4.0]),
                ("a", "e"): jnp.array([2.0])}  # fmt: skip
    assert gradient_norms(gradient, 0) == {}
    found = gradient_norms(gradient, 2)
    assert {name: float(norm) for name, norm in found.items()} == {
        "gradient/a/b": 5.0,
        "gradient/a/e": 2.0,
    }
    whole = gradient_norms(gradient, 1)
    assert float(whole["gradient/a"]) == pytest.approx(29**0.5)


def test_norms_of_the_gradient_are_logged_where_they_are_asked_for():
    data = clips(8)
    _, plain = train(toys.Toy(), phase({"error": 1.0}), {"main": ClipStream(data)}, 1)
    asked = phase({"error": 1.0}, gradient_norms=1)
    _, metrics = train(toys.Toy(), asked, {"main": ClipStream(data)}, 1)
    assert metrics.keys() - plain.keys() == {"offset/gradient/offset"}
    joints, valid = np.asarray(data.labels.joints), np.asarray(data.labels.joints_valid)
    mean = (joints * valid[..., None]).sum((0, 1, 2)) / valid.sum()
    norm = 2 * np.linalg.norm(mean)  # see the closed form above
    assert metrics["offset/gradient/offset"] == (pytest.approx(norm, rel=1e-5), 1.0)


def test_a_part_of_a_group_has_its_own_factor_too():
    group = dataclasses.replace(toys.Toy().groups[0], name="both", paths=("a", "b"))
    rates = {"both": 2.0, "a": 3.0, "ab": 5.0}
    paths = [("a", "x"), ("a",), ("b", "x")]
    assert [own_rate(rates, group, path) for path in paths] == [6.0, 6.0, 2.0]
    assert own_rate({}, group, ("a",)) == 1.0
    whole, _ = train(toys.Toy(), phase({"error": 1.0}), {"main": ClipStream(clips(8))}, 1)
    name = toys.Toy().groups[0].paths[0]
    half = phase({"error": 1.0}, rates={name: 0.5})
    found, _ = train(toys.Toy(), half, {"main": ClipStream(clips(8))}, 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-6), params(found), params(whole)
    )
