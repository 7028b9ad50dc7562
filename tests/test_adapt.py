"""Adaptation at test time: both scopes, on their own data alone, without labels."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tqdm import tqdm

from configs.demo import get_config
from pose3d_jax import (
    adapt,
    evaluate,
    figures,
    inference,
    methods,
    offsets,
    rigs,
    skeleton,
    train,
    weights,
)
from pose3d_jax import config as configs
from pose3d_jax.config import ConfigError
from pose3d_jax.data import poses
from pose3d_jax.errors import NonFiniteError
from pose3d_jax.fitting import FitError
from pose3d_jax.methods.base import Info
from pose3d_jax.methods.multiview import MultiView
from pose3d_jax.phases import adaptation_phase
from pose3d_jax.references import Estimate
from pose3d_jax.runs import sealed


@pytest.fixture(scope="module")
def directory(synthetic_set):
    return synthetic_set


def config(directory, method="multiview", **adaptation):
    made = get_config(f"{method}-tiny").to_dict()
    made["data"]["path"] = str(directory)
    made["adaptation"].update(adaptation)
    return made


@pytest.fixture
def run(demo_run, tmp_path):
    shutil.copytree(demo_run("multiview"), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("scope", ["shared", pytest.param("clip", marks=pytest.mark.slow)])
def test_adaptation_brings_the_error_down_and_leaves_a_row(directory, run, scope):
    settings = config(directory, scope=scope, length_steps=60, learning_rate=3e-3)
    metrics = adapt.run(run, settings)
    before = json.loads((run / "metrics.json").read_text())["splits"]["test"]["rows"]
    after = metrics["splits"]["test"]["rows"]
    name = f"multiview_adapted_{scope}"
    assert set(after) == {name, "triangulation", "mean_pose"}
    assert after[name]["absolute"]["frames"] < 0.7 * before["multiview"]["absolute"]["frames"]
    assert after["triangulation"] == before["triangulation"]
    assert metrics["adaptation"]["splits"]["test"]["s_per_1000_frames"] > 0
    page = (run / "report.html").read_text()
    assert f"adapted_{scope}" in page
    assert "s per 1,000 frames" in page
    lines = (run / f"adapted_{scope}/scalars.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    curve = [row["train/test/lifter/loss"] for row in rows]
    assert curve[-1] < 0.7 * curve[0]


def assert_figure_has_errors_of_what_is_predicted(run, adapted):
    """A frame in one view, from the checkpoint and the labels; beside it what is adapted."""
    restored = evaluate.restore(run)
    data = restored.splits["test"].poses
    frames = np.unique(np.linspace(0, data.size - 1, 60).astype(int))
    number = 7
    view = number % data.observations.confidence.shape[1]
    said = evaluate.predict(restored, restored.splits["test"]).joints[frames[number], view]
    turn = np.asarray(data.observations.cameras.rotation[frames[number], view])
    truth = np.asarray(data.labels.joints[frames[number]]) @ turn.T
    error = np.linalg.norm((said - said[0]) - (truth - truth[0]), axis=-1).mean()
    told = figures.run([run, adapted], run / "a.svg", labels=("ours", "more"), examples=(number,))
    assert f"ours {1000 * error:.1f} mm" in told
    assert float(told.split("more ")[1].split()[0]) < 5.0  # exact points of all views


def adapted_to_exact_points(directory, run, *stages):
    """A split's row and what is told of it; they end where triangulation is."""
    metrics = adapt.run(run, config(directory, stages=list(stages)))
    row = metrics["splits"]["test"]["rows"][f"multiview_adapted_{'_'.join(adapt.ordered(stages))}"]
    assert row["absolute"]["frames"] < 0.005
    assert row["p1"]["frames"] < 0.002
    told = metrics["adaptation"]["splits"]["test"]
    assert told["steps"] == 0
    page = (run / "report.html").read_text()
    assert "in 80 % ellipsoids" in page
    shares = [told[f"coverage_{level}%"] for level in (50, 80, 95)]
    assert sorted(shares) == shares
    assert f">{100 * shares[1]:.0f} %<" in page
    return told, page


def test_poses_are_adapted_to_the_views(directory, run):
    adapted_to_exact_points(directory, run, "poses")
    assert_figure_has_errors_of_what_is_predicted(run, run / "adapted_poses")


@pytest.mark.slow
def test_cameras_and_poses_are_adapted_to_the_views(directory, run):
    """Cameras that are right stay so."""
    told, page = adapted_to_exact_points(directory, run, "poses", "cameras")
    corrections = np.array(list(told["cameras"].values()))
    assert np.abs(corrections[..., rigs.POSITION]).max() < 0.01
    assert np.abs(corrections[..., rigs.TIME]).max() < 0.1
    assert "cameras, poses" in page


def test_coverage_is_of_joints_that_two_views_see(directory):
    """Draws of known covariances: what one view sees, and what has no label, does not count."""
    data = poses.load([directory], "test")
    labels = jax.tree.map(np.array, data.poses.labels)
    confidence = np.array(data.poses.observations.confidence)
    rng = np.random.default_rng(0)
    factor = 0.01 * rng.normal(size=(*labels.joints.shape, 3))
    error = np.einsum("tjab,tjb->tja", factor, rng.normal(size=labels.joints.shape))
    confidence[::3, 1:] = 0
    labels.joints_valid[:, 4] = 0
    error[::3] += 9.0
    error[:, 4] += 9.0
    known = dataclasses.replace(
        data.poses,
        labels=labels,
        observations=dataclasses.replace(data.poses.observations, confidence=confidence),
    )
    world = Estimate(
        (labels.joints + error).astype(np.float32),
        labels.joints_valid,
        (factor @ np.swapaxes(factor, -1, -2)).astype(np.float32),
    )
    shares = adapt.coverage(dataclasses.replace(data, poses=known), world)
    assert_allclose(list(shares.values()), [0.5, 0.8, 0.95], atol=0.03)


@pytest.mark.parametrize(
    "settings",
    [
        {"part": "low_rank", "rank": 2},
        pytest.param({"part": "last", "scope": "clip"}, marks=pytest.mark.slow),
        pytest.param({"part": "norms", "learning_rate": 1e-2}, marks=pytest.mark.slow),
    ],
    ids=["low_rank", "last", "norms"],
)
def test_a_part_of_the_weights_is_adapted(directory, run, settings):
    before = evaluate.run(run)["splits"]["test"]["rows"]["multiview"]["absolute"]["frames"]
    own = config(
        directory, **{"length_steps": 40, "learning_rate": 3e-3, "held_out": 0.1, **settings}
    )
    rows = adapt.run(run, own)["splits"]["test"]["rows"]
    row = rows[f"multiview_adapted_{settings.get('scope', 'shared')}"]
    assert row["absolute"]["frames"] < 0.95 * before


@pytest.mark.parametrize("scope", ["shared", pytest.param("clip", marks=pytest.mark.slow)])
def test_held_out_keypoints_stop_what_makes_it_worse(directory, scope):
    """A rate far too high: the weights that predict best what was not shown are the first ones."""
    case = Case(directory, learning_rate=30.0, length_steps=20)
    before = case.lift(case.data)(case.variables, None).joints  # of fresh weights
    how = case.shared if scope == "shared" else case.clips
    assert np.abs(np.asarray(how()) - before).max() > 0.1
    assert_allclose(how(held_out=0.1), before, atol=1e-5)


def test_what_is_held_out_is_drawn_by_frame_view_and_joint(directory):
    data = poses.load([directory], "test").poses
    shown, hidden = weights.hide(data, 0.2)
    seen = np.asarray(data.observations.confidence) > 0
    assert abs(np.asarray(hidden)[seen].mean() - 0.2) < 0.02
    assert not np.asarray(hidden)[~seen].any()
    assert_array_equal(np.asarray(shown.observations.confidence) > 0, seen & ~np.asarray(hidden))
    assert weights.hide(data, 0.0)[1] is None
    other = np.asarray(weights.hide(data, 0.2, seed=1)[1])
    assert 0.2 < (other != np.asarray(hidden))[seen].mean() < 0.44  # 2 x 0.2 x 0.8 of two draws


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"stages": ["weights"]}, "adapted_shared"),
        ({"stages": ["poses", "weights"], "scope": "clip"}, "adapted_clip_poses"),
        ({"stages": ["weights"], "init": "random"}, "adapted_shared_random"),
        ({"stages": ["poses", "cameras"]}, "adapted_cameras_poses"),
    ],
)
def test_a_folder_s_name_says_the_stages(settings, name):
    assert adapt.name_of({"scope": "shared", "init": "checkpoint", **settings}) == name


@pytest.mark.slow
def test_another_checkpoint_s_adaptation_leaves_the_report(directory, run):
    adapt.run(run, config(directory))
    path = run / "adapted_shared" / "metrics.json"
    metrics = {**json.loads(path.read_text()), "steps": 3}
    metrics.pop("seal")
    path.write_text(json.dumps(sealed(metrics, "metrics.json")))
    evaluate.run(run)
    assert "adapted_shared" not in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_checkpoint_with_3d_labels_is_adapted_without_them(directory, tmp_path):
    supervised = config(directory, "supervised", length_steps=20, learning_rate=3e-3)
    train.run(supervised, tmp_path)
    rows = adapt.run(tmp_path, supervised)["splits"]["test"]["rows"]
    assert "supervised_adapted_shared" in rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scope": "clips"}, r"config.adaptation.scope.*'clips'"),
        ({"stages": ["weights", "poses"], "init": "random"}, r"init is 'random', which is for"),
        ({"stages": []}, r"config.adaptation.stages is empty; name what"),
        ({"stages": ["pose"]}, r"config.adaptation.stages.*'cameras', 'weights', 'poses'"),
        ({"cameras": {"degree": 1.0}}, r"config.adaptation.cameras.*degree"),
        ({"method": "nonsense"}, r"config.adaptation.method: no method is named 'nonsense'"),
        ({"weights": {"root": 1.0}}, r"config.adaptation.weights: 'root' is unknown"),
        (
            {"length_steps": 3, "length_epochs": 3},
            r"config.adaptation: give either length_epochs or length_steps",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(directory, run, changes, message):
    with pytest.raises(ConfigError, match=message):
        adapt.run(run, {**config(directory), "adaptation": changes})
    assert not list(run.glob("adapted*/metrics.json"))


@pytest.mark.parametrize("scope", ["shared", "clip"])
def test_a_loss_that_is_not_finite_is_named(directory, run, scope):
    broken = config(directory, scope=scope, learning_rate=1e38)
    with pytest.raises(
        NonFiniteError, match=r"adapting to (the split|synthetic/.*): lifter/\w+ is"
    ):
        adapt.run(run, broken)


def test_one_view_is_told_what_is_for_it(directory, run):
    alone = config(directory, stages=["poses"])
    alone["data"]["views"] = [0]
    with pytest.raises(
        ConfigError, match=r"split test has one view.*evaluation\.fit.*predict --adapt"
    ):
        adapt.run(run, alone)


@pytest.mark.parametrize(
    ("settings", "asking"), [({"stages": ["poses"]}, "stages"), ({"held_out": 0.1}, "held_out")]
)
def test_joints_that_are_nowhere_in_space_are_refused(
    directory, run, monkeypatch, settings, asking
):
    """Before anything is adapted; and those of another joint set."""
    own = config(directory, length_steps=3, **settings)
    predict = MultiView.predict
    monkeypatch.setattr(
        MultiView,
        "predict",
        lambda *args: dataclasses.replace(predict(*args), space="root_relative"),
    )
    with pytest.raises(
        ConfigError, match=rf"adaptation\.{asking}: .* root_relative; take a method"
    ):
        adapt.run(run, own)
    assert not list(run.glob("adapted*"))


def test_joints_of_another_set_than_the_keypoints_are_refused():
    with pytest.raises(FitError, match=r"of coco17 and the keypoints of h36m17; set data\.joint"):
        offsets.check(skeleton.get("h36m17"), skeleton.get("coco17"), "absolute")


class Case:
    """What `adapt_shared` and `adapt_clips` take, from the command line's config."""

    def __init__(self, directory, **changes):
        # Adam makes a whole step out of a gradient that is zero but for rounding.
        plain = {"optimizer": {"name": "sgd"}, "learning_rate": 2e-3}
        full = configs.complete(config(directory, **{**plain, **changes}))
        self.data = poses.load([directory], "test")
        info = Info(self.data.keypoint_skeleton, self.data.joint_skeleton)
        self.method = methods.create(full["method"], info)
        batch = {"main": self.data.poses.take(jnp.zeros(1, jnp.int32))}
        self.variables = jax.jit(self.method.init)(jax.random.key(0), batch)
        self.phase = adaptation_phase(full, self.method, 1)

    def lift(self, data):
        return adapt._lift(self.method, self.method.info, data, inference.Settings())

    def shared(self, data=None, devices=1, held_out=0.0, seed=0):
        data = data or self.data
        return weights.adapt_shared(
            self.method, self.phase, self.variables, data, 8, devices, self.lift(data),
            tqdm(disable=True), held_out, seed,
        ).predictions.joints  # fmt: skip

    def clips(self, data=None, chunk=4, devices=1, held_out=0.0):
        data = data or self.data
        return weights.adapt_clips(
            self.method, self.phase, self.variables, data, 8, chunk, devices, self.lift(data),
            tqdm(disable=True), held_out,
        ).predictions.joints  # fmt: skip

    @functools.cached_property
    def adapted(self):
        """What both scopes make of the data as they are."""
        return {"shared": self.shared(), "clips": self.clips()}


@pytest.fixture(scope="module")
def case(directory):
    return Case(directory, length_steps=3)


def test_labels_change_nothing(case):
    blind = dataclasses.replace(case.data, poses=weights.without_labels(case.data.poses))
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), case.data.poses.labels)
    poisoned = dataclasses.replace(
        case.data, poses=dataclasses.replace(case.data.poses, labels=nan)
    )
    for scope, seeing in case.adapted.items():
        adapted = getattr(case, scope)
        np.testing.assert_array_equal(adapted(blind), seeing)
        np.testing.assert_array_equal(adapted(poisoned), seeing)


def test_another_seed_draws_other_frames(case):
    assert np.abs(case.shared(seed=1) - case.adapted["shared"]).max() > 1e-5


def test_a_clip_s_weights_know_that_clip_alone(case):
    """Moving another clip's keypoints changes nothing; its own do."""
    (first, *_), (other, *_) = list(weights.windows_of_clips(case.data).values())[:2]
    own = weights.windows_of_clips(case.data)[next(iter(weights.windows_of_clips(case.data)))]
    before = case.adapted["clips"]
    for moved, same in ((other, True), (first, False)):
        observations = case.data.poses.observations
        moved_keypoints = observations.keypoints.at[case.data.poses.start[moved]].add(5.0)
        changed = dataclasses.replace(
            case.data.poses,
            observations=dataclasses.replace(observations, keypoints=moved_keypoints),
        )
        after = case.clips(dataclasses.replace(case.data, poses=changed))
        unmoved = [w for w in own if w != moved]
        assert np.array_equal(after[unmoved], before[unmoved]) == same


@pytest.mark.slow
def test_clips_adapted_together_are_as_those_adapted_alone(case):
    np.testing.assert_allclose(case.clips(chunk=3), case.clips(chunk=1), atol=1e-4)


def test_one_clip_s_own_weights_are_shared_weights_of_a_split_of_that_clip(case):
    """The two scopes are one method: on a single clip they do the same steps."""
    name, windows = next(iter(weights.windows_of_clips(case.data).items()))
    fields = ("start", "begin", "stop", "recording")
    part = dataclasses.replace(
        case.data.poses, **{k: getattr(case.data.poses, k)[windows] for k in fields}
    )
    alone = dataclasses.replace(
        case.data, poses=part, identities=tuple(case.data.identities[w] for w in windows)
    )
    assert len(weights.windows_of_clips(alone)) == 1, name
    np.testing.assert_allclose(case.shared(alone), case.clips(alone), atol=1e-4)


@pytest.mark.slow  # a step over several devices: test_devices.py
@pytest.mark.parametrize("scope", ["shared", "clips"])
def test_several_devices_adapt_as_one_does(case, scope):
    adapted = getattr(case, scope)
    np.testing.assert_allclose(adapted(devices=4), case.adapted[scope], atol=1e-4)
    unadapted = case.lift(case.data)(case.variables, None).joints
    assert np.abs(case.adapted[scope] - unadapted).max() > 1e-3
