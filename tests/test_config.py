"""Configs: checked keys, schedules, phases; every file in configs/ is whole."""

import functools
import itertools
import json
import runpy
from pathlib import Path

import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import config as configs
from pose3d_jax import methods
from pose3d_jax.config import ConfigError
from pose3d_jax.methods.base import Info
from pose3d_jax.phases import phases_of, schedule
from tests.scenes import H36M

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))


def load(path, argument=None):
    get_config = runpy.run_path(str(path))["get_config"]
    return get_config(argument) if argument else get_config()


def example():
    return load(ROOT / "configs" / "cmu_mv.py").copy_and_resolve_references()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("variant=report,network=attention", "variant=report has its own"),
        ("network=convolution,size=s", "network=convolution has none"),
        ("causal", "say network=convolution"),
        ("noise=hard", "noise: 'hard' is unknown"),
        ("variant=report,labels", "report has no labels"),
        ("pretrained", "a lifter sees one frame"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(argument, message):
    with pytest.raises(ConfigError, match=message):
        load(ROOT / "configs" / "cmu_mv_seq.py", argument)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_config_is_whole_and_makes_its_method(path):
    # Single variants, on noise or not.
    noisy = ("fused", "kudo", "repnet", "chen", "vae", "c3dpo", "distilled")
    own: dict[str, tuple] = {f"cmu_{name}": (None, "tiny,noise=typical") for name in noisy}
    own["demo"] = ("multiview", "supervised-tiny")
    own["cmu_vae"] += ("kind=convolution,window=9",)
    own["cmu_root"] = (None, "tiny,noise=typical")
    own["cmu_multimodal"] = (None, "tiny,fusion=mixture", "explain=given,corruption=same")
    own["cmu_occluded"] = (None, "labels,tiny", "plain")
    words = ("tiny,variant=report", "small,frozen", "small,loss=encoder", "decay,depth")
    own["rendered_cmu"] = (None, *words)
    own["body_cmu"] = (
        None,
        "tiny",
        "single,on",
        "single,pseudo=25",
        "still,loose",
        "variant=published",
    )
    arguments = own.get(path.stem, (None, "tiny", "variant=report"))
    if path.stem.startswith(("h36m", "humaneva")):
        arguments += ("views=2,detections=cpn_ft_h36m_dbb",)
    if path.stem.startswith("h36m"):
        arguments += ("subset=report", "subset=report,variant=report,views=4")
    for argument in arguments:
        config = configs.complete(load(path, argument))
        method = methods.create(config["method"], Info(H36M, H36M))
        phases = phases_of(config, method, steps_per_epoch=10)
        for before, after in itertools.pairwise(phases):
            assert after.first_step == before.first_step + before.steps
        # Every key stands in the file, so that a flag can set it.
        given = load(path, argument)
        assert set(given) == set(configs.TOP)
        lengths = {"length_epochs", "length_steps"}  # one of the two
        assert set(given.adaptation) | lengths == set(configs.ADAPTATION)
        assert len(lengths & set(given.adaptation)) == 1
        assert isinstance(given.adaptation.stages, tuple)  # which flags set, and lists they do not
        assert "noise" in given.evaluation


def test_pre_training_is_on_masked_motion_and_what_follows_is_not():
    config = load(ROOT / "configs" / "cmu_mv_seq.py", "labels,pretrained,network=attention")
    method = methods.create(config.method.to_dict(), Info(H36M, H36M))
    masked, *fine = phases_of(configs.complete(config), method, steps_per_epoch=10)
    assert masked.disturb.args[0].joints > 0
    assert masked.disturb.args[0].frames > 0
    assert all(phase.disturb is None for phase in fine)
    assert [phase.steps for phase in (masked, *fine)] == [100, 160, 40]
    assert config.method.name == "supervised"


def test_a_benchmark_config_does_what_its_arguments_say():
    config = load(ROOT / "configs" / "h36m_mv.py", "subset=report,detections=cpn")
    assert config.data.actions == ("Walking", "Greeting", "Smoking", "Sitting")
    assert (config.data.views, config.data.path) == ((0, 1, 2), "data/h36m_cpn")
    assert config.data.keypoint_source == "cpn"
    report = load(ROOT / "configs" / "humaneva_mv.py", "variant=report,views=2")
    assert report.data.views == (0, 1)
    assert [phase["length_epochs"] for phase in report.phases] == [75, 75]
    assert (report.method.dropout, report.phases[0]["learning_rate"]) == (0.5, 3e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("veiws=2", r"arguments: 'veiws' is unknown; did you mean 'views'"),
        ("views", r"argument views: give it with a value, as views=VALUE"),
        ("views=two", r"argument views is 'two'; it must be at least 0"),
        ("tiny=1", r"argument tiny: give it alone, as tiny"),
        ("variant=tund", r"argument variant: 'tund' is unknown; did you mean 'tuned'"),
    ],
)
def test_wrong_arguments_of_a_config_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        configs.arguments(text, variant=("tuned", "report"), views=0, name="", tiny=False)


def test_completed_config_survives_json_and_completion():
    config = configs.complete(example())
    assert configs.complete(json.loads(json.dumps(config))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sede": 1}, r"config: 'sede' is unknown; did you mean 'seed'"),
        ({"data.paths": "x"}, r"config.data: 'paths' is unknown; did you mean 'path'"),
        ({"streams.main.batch": 3}, r"config.streams.main: 'batch' is unknown"),
        ({"precision": "float16"}, r"precision is 'float16'; it must be 'float32' or 'bfloat16'"),
        ({"evaluation.splits": ()}, r"config.evaluation: 'splits' is unknown"),
        ({"evaluation.every_epochs": 0}, r"every_epochs is 0; it must be a finite number above 0"),
        ({"phases": ()}, r"config.phases is empty"),
        ({"phases": ({"weights": {}},)}, r"config.phases\[0\] lacks learning_rate"),
        ({"streams": {}}, r"config.streams has no `main`"),
        ({"streams.shown": {"batch_size": 2}}, r"config.streams.shown: that name is what networks"),
        ({"evaluation.fit": {"sigma_px": 0}}, r"config.evaluation.fit.sigma_px is 0; it must be"),
        (
            {"evaluation.fit": {"on": True, "exact": True}, "evaluation.noise": "mild"},
            r"points under the noise mild are not exact",
        ),
        ({"streams.main.clips": [0.5, 0.2]}, r"clips is \[0.5, 0.2\]; it must be a list of two"),
        ({"init": {"run": "x"}}, r"config.init: 'run' is unknown"),
        ({"data": 3}, r"config.data is 3; it must hold keys"),
        ({"seed": max}, r"plain data"),
    ],
)
def test_wrong_keys_are_named(change, message):
    config = example().to_dict()
    for key, value in change.items():
        *path, last = key.split(".")
        functools.reduce(dict.__getitem__, path, config)[last] = value
    with pytest.raises(ConfigError, match=message):
        configs.complete(config)


def phase(**changes):
    base = {"length_steps": 10, "weights": {"pose": 1.0}, "learning_rate": 1e-3}
    config = example().to_dict() | {"phases": [base | changes]}
    method = methods.create({"name": "supervised"}, Info(H36M, H36M))
    return phases_of(configs.complete(config), method, steps_per_epoch=20)[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length_epochs": 3}, r"give either length_epochs or length_steps"),
        ({"length_steps": 0}, r"length_steps is 0; it must be None or at least 1, a whole number"),
        ({"weights": {"poze": 1.0}}, r"weights: 'poze' is unknown; did you mean 'pose'"),
        ({"statistics": "frozen"}, r"statistics is 'frozen'; it must be 'batch' or 'running'"),
        ({"rates": {"critic": 4.0}}, r"rates: 'critic' is unknown \(known: lifter\)"),
        (
            {"rates": {"lifter": 0}},
            r"rates is .*; it must be a table of groups or their parts, each with",
        ),
        ({"optimizer": {"name": "adamm"}}, r"no optimiser 'adamm'"),
        ({"optimizer": {"name": "adam", "beta": 1}}, r"no optimiser 'adam' with settings"),
        ({"optimizer": {"name": "adam", "every": 0}}, r"optimizer.every is 0; it must be"),
        ({"optimizer": {"name": "adam", "every": 7}}, r"steps; give a multiple of optimizer.every"),
        (
            {
                "learning_rate": {
                    "kind": "step",
                    "start": 1,
                    "stop": 0,
                    "period_steps": 5,
                    "period_epochs": 1,
                }
            },
            r"give either period_epochs",
        ),
        (
            {"learning_rate": {"kind": "step", "start": 1, "stop": 0, "period_steps": 5}},
            r"learning_rate.kind: 'step' is unknown",
        ),
        (
            {"learning_rate": {"kind": "exponential", "start": 1, "stop": 0, "period_steps": 5}},
            r"needs start and stop above 0",
        ),
    ],
)
def test_wrong_phases_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        phase(**changes)


def test_phase_is_converted_to_steps_once():
    made = phase(length_steps=None, length_epochs=1.5, dropout=False, statistics="running")
    assert made.steps == 30
    assert not made.mode.dropout
    assert not made.mode.update_statistics
    assert set(phase(weights={"pose": 1.0, "root": 0}).weights) == {"pose"}


@pytest.mark.parametrize(
    ("kind", "quarter"), [("linear", 0.75), ("cosine", 0.8535534), ("exponential", 0.1**0.25)]
)
def test_schedules_go_from_start_to_stop_and_stay(kind, quarter):
    stop = 0.1 if kind == "exponential" else 0.0
    value = {"kind": kind, "start": 1.0, "stop": stop, "period_epochs": 2}
    over_time = schedule(value, 60, 20, "here")
    values = [float(over_time(jnp.int32(step))) for step in (0, 10, 40, 99)]
    assert values == pytest.approx([1.0, quarter, stop, stop], abs=1e-6)


def test_a_cyclic_schedule_rises_again_and_again():
    value = {"kind": "cyclic", "start": 0.0, "stop": 1.0, "period_steps": 8}
    over_time = schedule(value, 60, 20, "here")
    values = [float(over_time(jnp.int32(step))) for step in (0, 2, 4, 7, 8, 10, 20)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0])


def test_a_schedule_may_rise_from_0_first():
    value = {"kind": "linear", "start": 2.0, "stop": 0.0, "period_steps": 20}
    plain, warm = (schedule({**value, "warmup_steps": n}, 60, 20, "here") for n in (0, 4))
    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (30, 1.0)):
        assert_allclose(warm(step), share * plain(step), rtol=1e-6)


def test_a_schedule_without_a_period_takes_the_phase():
    over_time = schedule({"kind": "linear", "start": 1.0, "stop": 0.0}, 8, 20, "here")
    assert [float(over_time(jnp.int32(step))) for step in (0, 2, 8, 9)] == [1.0, 0.75, 0.0, 0.0]


def test_clip_norm_bounds_the_gradient():
    optimizer = phase(optimizer={"name": "sgd", "clip_norm": 1.0}).optimizer
    big = {"w": jnp.array([30.0, 40.0])}
    update, _ = optimizer.update(big, optimizer.init(big))
    assert update["w"].tolist() == pytest.approx([-0.6, -0.8])


def test_gradients_of_several_batches_make_one_step():
    settings = {"name": "sgd", "every": 3, "clip_norm": 1.0}
    optimizer = phase(optimizer=settings, length_steps=9).optimizer
    state, found = optimizer.init({"w": jnp.zeros(2)}), []
    for gradient in ([3.0, 0.0], [30.0, 60.0], [-3.0, -20.0]):
        update, state = optimizer.update({"w": jnp.array(gradient)}, state)
        found.append(update["w"].tolist())
    # Their mean, (10, 40/3), is clipped, not they.
    assert found == [[0.0, 0.0], [0.0, 0.0], pytest.approx([-0.6, -0.8])]
