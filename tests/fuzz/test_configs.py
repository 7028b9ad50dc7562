"""Whatever stands in a config: it is refused by one of our errors, or ready to train."""

import contextlib
import copy
import re
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.demo import get_config
from pose3d_jax import config as configs
from pose3d_jax import methods, train
from pose3d_jax.errors import UserError
from pose3d_jax.methods.base import Info
from pose3d_jax.phases import adaptation_phase
from pose3d_jax.state import init_state
from tests.fuzz.conftest import examples
from tests.scenes import H36M

WORDS = (
    "main", "train", "test", "adam", "sgd", "lbfgs", "chain", "cosine", "linear", "exponential",
    "reset", "running", "clip", "random", "bfloat16", "pose", "self", "lifter", "h36m17", "coco17",
    "multiview", "supervised", "wide", "", "a/b", "\0", "x" * 5000, "\ud800", "é", "True", "1",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 64, 10**6, 2**31 - 1, 2**31, 10**30, 0.5, 1e-9, 1e300, 5e-324)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([max, 1j, b"x", {1}, jnp.zeros(2)]),
)
SCHEDULES = st.fixed_dictionaries(
    {"kind": st.sampled_from(WORDS), "start": LEAVES, "stop": LEAVES},
    optional={"period_steps": LEAVES, "period_epochs": LEAVES},
)
OPTIMISERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["adam", "sgd", "adamw", "lion", "adafactor", "lbfgs", "chain"])},
    optional=dict.fromkeys(("b1", "momentum", "clip_norm", "learning_rate", "mask"), LEAVES),
)
VALUES = st.one_of(
    LEAVES,
    SCHEDULES,
    OPTIMISERS,
    st.lists(LEAVES, max_size=2),
    st.lists(LEAVES, max_size=2).map(tuple),
    st.dictionaries(st.sampled_from(WORDS), LEAVES, max_size=2),
)


def plain(directory, method="supervised"):
    made = get_config(f"{method}-tiny").to_dict()
    made["data"]["path"] = [str(directory)]
    made["phases"] = [dict(phase) for phase in made["phases"]]
    return copy.deepcopy(made)


def nodes(tree, path=()):
    """Every value in nested dictionaries and lists, after its path."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key), value
        if isinstance(value, dict | list):
            yield from nodes(value, (*path, key))


def replaced(tree, path, value):
    """A copy with another value at a path; `...` takes it away."""
    first, *rest = path
    new = dict(tree) if isinstance(tree, dict) else dict(enumerate(tree))
    new[first] = replaced(new[first], rest, value) if rest else value
    if new[first] is ...:
        del new[first]
    return new if isinstance(tree, dict) else list(new.values())


def of_its_kind(value):
    """Values of the type that stands there: they pass for right, and many are."""
    if isinstance(value, bool) or value is None:
        return LEAVES
    if isinstance(value, int | float):
        return st.one_of(st.sampled_from(NUMBERS), st.floats(-2, 2))
    if isinstance(value, str):
        return st.sampled_from(WORDS)
    return st.lists(st.sampled_from(WORDS), max_size=2) if isinstance(value, list) else VALUES


@st.composite
def changed(draw, directory=""):
    """The demo's config with one to three changes: values replaced, taken away, or added."""
    config = plain(directory, draw(st.sampled_from(["supervised", "multiview"])))
    for _ in range(draw(st.integers(1, 3))):
        path, old = draw(st.sampled_from(list(nodes(config))))
        value = draw(st.one_of(of_its_kind(old), of_its_kind(old), VALUES, st.just(...)))
        if draw(st.integers(0, 9)) == 0:
            path = (*path[:-1], draw(st.sampled_from(["sede", *WORDS])))
        config = replaced(config, path, value)
    return config


class Ready(Exception):
    """Everything that is checked before training was found to fit."""


def until_training(config, workdir):
    """What `train.run` does before it compiles or writes; raises `Ready` at that point."""

    def shapes(config, method, phases, phase, sets):
        average = any(phase.average_decay for phase in phases)

        def init(sets):
            batch = {name: poses.take(jnp.zeros(1, jnp.int32)) for name, poses in sets.items()}
            return init_state(method, phase, batch, jax.random.key(config["seed"]), average)

        return jax.eval_shape(init, sets)

    check = train._check_phases

    def checked(*arguments):
        check(*arguments)
        raise Ready

    with (
        mock.patch.object(train, "_initial_state", shapes),
        mock.patch.object(train, "_check_phases", checked),
    ):
        train.run(config, workdir)


def adaptation(config):
    """The phase that --mode=adapt would run."""
    full = configs.complete(config)
    method = methods.create(
        {**full["method"], "name": full["adaptation"]["method"]}, Info(H36M, H36M)
    )
    return adaptation_phase(full, method, 10)


def assert_refused_or_ready(config):
    try:
        until_training(config, Path("run"))
    except Ready:
        with contextlib.suppress(UserError):
            adaptation(config)
    except UserError as error:
        message = str(error)
        assert WHERE.match(message), message
    assert not Path("run").exists()


WHERE = re.compile(r"config|method|no method|no skeleton|no directory|data|the data|.*data\b|.*/")


@pytest.fixture
def beside(data, monkeypatch):
    """So that the data is at `data`, whatever the session."""
    monkeypatch.chdir(data.parent)


@examples(80)
@given(changed("data"))
def test_any_config_is_refused_or_ready(beside, config):
    assert_refused_or_ready(config)


@pytest.mark.slow
@settings(examples(2000), derandomize=False)
@given(changed("data"))
def test_many_configs_are_refused_or_ready(beside, config):
    assert_refused_or_ready(config)


# What fuzzing found: each ended in a traceback, or in a run of something else than was asked for.
FOUND = [
    (("seed",), "x", r"config.seed is 'x'; it must be at least 0, a whole number"),
    (("seed",), 2**63, r"config.seed is \d+; it must be"),
    (("devices",), True, r"config.devices is True; it must be"),
    (("precision",), "float16", r"config.precision is 'float16'; it must be 'float32' or"),
    (("streams",), ["main"], r"config.streams is \['main'\]; it must be a table"),
    (("streams", "main", "batch_size"), None, r"streams.main.batch_size is None; it must be"),
    (("streams", "main", "batch_size"), 1.5, r"streams.main.batch_size is 1.5; it must be"),
    (("streams", "main", "window"), 10**9, r"streams.main.window is 1000000000; it must be"),
    (("streams", "main", "stride"), 10**30, r"streams.main.stride is 1\d+; it must be"),
    (("data", "path"), 3, r"config.data.path is 3; it must be a path or a list of paths"),
    (("data", "path"), ["x" * 5000], r"cannot be opened \(File name too long\); prepare"),
    (("data", "joint_skeleton"), ["h36m17"], r"config.data.joint_skeleton is .* must be text"),
    (("evaluation", "test"), "test", r"config.evaluation.test is 'test'; it must be a list"),
    (("evaluation", "batch_size"), "x", r"config.evaluation.batch_size is 'x'; it must be at leas"),
    (("evaluation", "every_epochs"), "1", r"config.evaluation.every_epochs is '1'; it must be"),
    (("phases",), {"a": 1}, r"config.phases is {'a': 1}; it must be a list"),
    (("phases", 0, "length_steps"), "3", r"phases\[0\].length_steps is '3'; it must be"),
    (("phases", 0, "length_steps"), 2**31 - 1, r"config.phases have 2147483650 steps"),
    (("phases", 0, "weights"), ["pose"], r"phases\[0\].weights is .*; it must be a table"),
    (("phases", 0, "weights", "pose"), "abc", r"phases\[0\].weights is .*; it must be a table"),
    (("phases", 0, "learning_rate"), float("nan"), r"phases\[0\].learning_rate is nan; give a fin"),
    (("phases", 0, "learning_rate"), 1e300, r"phases\[0\].learning_rate is 1e\+300; it must be"),
    (
        ("phases", 0, "learning_rate"),
        {"kind": "linear", "start": "a", "stop": 0},
        r"phases\[0\].learning_rate.start is 'a'; it must be",
    ),
    (
        ("phases", 0, "frozen"),
        [1],
        r"phases\[0\].frozen is \[1\]; it must be a list of paths",
    ),
    (("phases", 0, "average_decay"), 2, r"phases\[0\].average_decay is 2; it must be .* below 1"),
    (("phases", 0, "dropout"), "no", r"phases\[0\].dropout is 'no'; it must be True or False"),
    (("phases", 0, "optimizer"), "adam", r"phases\[0\].optimizer is 'adam'; it must be a table"),
    (
        ("phases", 0, "optimizer", "b1"),
        "x",
        r"phases\[0\].optimizer: optax has no optimiser 'adam'",
    ),
    (("phases", 0, "optimizer", "clip_norm"), -1, r"optimizer.clip_norm is -1; it must be"),
    (("phases", 0, "optimizer", "name"), "lbfgs", r"phases\[0\].optimizer: optax has no"),
    (("method", "name"), [], r"no method is named \[\]; there are supervised"),
    (("method", "width"), "wide", r"method supervised: width is 'wide'; it must be a whole number"),
    (("method", "width"), True, r"method supervised: width is True; it must be a whole number"),
    (("method", "blocks"), -1, r"method supervised: blocks is -1; it must be .* at least 0"),
    (("method", "dropout"), 2, r"method supervised: dropout is 2.*; it must be .* below 1"),
    (("method", "reach"), 0, r"method supervised: reach is 0.*; it must be .* above 0"),
]


@pytest.mark.parametrize(("path", "value", "message"), FOUND, ids=range(len(FOUND)))
def test_what_was_found_is_refused_by_name(data, tmp_path, path, value, message):
    with pytest.raises(UserError, match=message):
        until_training(replaced(plain(data), path, value), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_config_itself_is_ready(data, tmp_path):
    for method in ("supervised", "multiview"):
        with pytest.raises(Ready):
            until_training(plain(data, method), tmp_path / "run")
    whole = replaced(plain(data), ("method", "reach"), 2)
    whole["phases"][0].update(average_decay=0, learning_rate=1)
    with pytest.raises(Ready):  # a whole number will do where any number does
        until_training(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("adaptation", "seed"), "x", r"config.adaptation.seed is 'x'; it must be"),
        (("adaptation", "learning_rate"), None, r"config.adaptation.learning_rate is None"),
        (("adaptation", "weights", "self"), -1, r"config.adaptation.weights is .*; it must be"),
        (("adaptation", "optimizer", "b1"), "x", r"config.adaptation.optimizer: optax has no"),
    ],
)
def test_adaptation_is_checked_too(path, value, message):
    with pytest.raises(UserError, match=message):
        adaptation(replaced(plain(""), path, value))
