"""Commands and Python blocks of README, CONTRIBUTING, docs/ and the configs run as written."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import cmu
from tests import commands
from tests.commands import Command, Script

ROOT = commands.ROOT
REAL = Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data")) / "cmu"
POSITIONS = "cmu_positions_30fps.npz"


@functools.cache
def shown(page):
    return tuple(commands.of(page))


def programs(page):
    """The page's `python -m` command lines, whole ones."""
    found = [one for one in shown(page) if isinstance(one, Command)]
    return [one for one in found if one.words[:2] == ["python", "-m"] and len(one.words) > 3]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A folder with the configs, and those that a page tells its reader to write."""
    folder = tmp_path_factory.mktemp("commands")
    shutil.copytree(ROOT / "configs", folder / "configs")
    write_scripts(folder, only="configs/")
    return folder


def write_scripts(folder, only=""):
    for page in commands.PAGES:
        for one in shown(page):
            if isinstance(one, Script) and one.file.startswith(only) and one.file:
                (folder / one.file).write_text(one.text, encoding="utf-8")


@pytest.mark.parametrize("page", [*commands.PAGES, *commands.CONFIGS])
def test_programs_know_their_flags_and_configs_their_keys(page, configs, monkeypatch):
    monkeypatch.chdir(configs)
    found = [one for one in shown(page) if isinstance(one, Command)]
    wrong = [f"{one}: {reason}" for one in found if (reason := commands.wrong_with(one))]
    assert not wrong, "\n".join(wrong)


def test_files_come_from_somewhere(configs, monkeypatch):
    """From the repository, the demo, another command of the pages, or the reader (no folder)."""
    monkeypatch.chdir(configs)
    known = set(commands.DEMO)
    every = [one for page in (*commands.PAGES, *commands.CONFIGS) for one in programs(page)]
    for one in every:
        known |= commands.left_by(one)
    like = {re.sub(r"\d+", "0", path) for path in known}  # of another seed
    strange = [
        f"{one}: {path}"
        for one in every
        for path in commands.read_by(one)
        if "/" in path and not (ROOT / path).exists()
        if not any(
            re.sub(r"\d+", "0", str(above)) in like for above in (Path(path), *Path(path).parents)
        )
    ]
    assert not strange, "\n".join(strange)


def test_pages_say_what_commands_need():
    silent = [
        str(one) for page in commands.PAGES for one in programs(page)
        if not one.inline and not one.needs
    ]  # fmt: skip
    assert not silent, "\n".join(silent)
    needs = {one.needs for page in commands.PAGES for one in programs(page)}
    assert set(commands.NEEDS) <= needs


@pytest.mark.parametrize("page", commands.PAGES)
def test_configs_that_sentences_name_can_be_loaded(page, configs, monkeypatch):
    monkeypatch.chdir(configs)
    text = (ROOT / page).read_text(encoding="utf-8")
    for config in set(re.findall(r"\bconfigs/\w+\.py(?::[\w=,]*\w)?", text)):
        commands.parsed(["python", "-m", "pose3d_jax.main", f"--config={config}"])


def test_python_blocks_are_python():
    for page in commands.PAGES:
        for one in shown(page):
            if isinstance(one, Script):
                ast.parse(one.text)


PAGE = """# A page

Right after `make demo`:

    python -m benchmarks.nothing
    python -m benchmarks.demo --quik
    python -m pose3d_jax.main --config=configs/demo.py --config.method.widht=3
    python -m pose3d_jax.main --config=configs/demo.py --config.method.width=three
    python -m pose3d_jax.main --config=configs/nothing.py
    python -m pose3d_jax.main --mode=compare runs/a
    python -m benchmarks.lifting --rows vae nothing
    python -m pose3d_jax.predict \\
        --keypoints a.npz  # no checkpoint
    make nothing
    pip install -e '.[nothing]'

## A section

Its `python -m benchmarks.scaling
--turnip 1` is wrong, too.

With CMU's files:

```
python -m benchmarks.nothing
```

```python
print("python -m benchmarks.nothing")
```
"""


def test_what_is_wrong_is_found(configs, monkeypatch):
    monkeypatch.chdir(configs)
    demo, *found, script = commands.found_in(PAGE, "page.md")
    assert demo.text == "make demo"
    assert isinstance(script, Script)
    assert [one.needs for one in found] == ["demo"] * 10 + ["", "cmu"]
    assert found[7].text == "python -m pose3d_jax.predict --keypoints a.npz  # no checkpoint"
    told = [commands.wrong_with(one) for one in found]
    expected = (
        "No module named", "--quik", "widht", "three", "nothing.py", "does not take 1", "nothing",
        "--checkpoint", "has no nothing", "no extra", "--turnip", "No module named",
    )  # fmt: skip
    for reason, part in zip(told, expected, strict=True):
        assert part in reason


def run(words, folder):
    """A command in a copy of the repository, as a reader's shell would run it."""
    alone = re.sub(r"\S+device_count=\d+", "", os.environ["XLA_FLAGS"])  # four are the suite's own
    environment = {**os.environ, "PYTHONPATH": str(folder), "XLA_FLAGS": alone}
    result = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout}\n{result.stderr}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository in which the demo has run, at its small size."""
    folder = tmp_path_factory.mktemp("copy") / "pose3d_jax"
    hidden = (".*", "__pycache__", "*.egg-info", "runs", "data_real", "site", "build", "dist")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*hidden))
    run(["python", "-m", "benchmarks.demo", "--quick"], folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", commands.PAGES)
def test_what_needs_the_demo_runs(page, copy, monkeypatch):
    """In order. What CONTRIBUTING.md has its reader write is written, and registered, first."""
    monkeypatch.chdir(copy)
    write_scripts(copy)
    method = copy / "pose3d_jax/methods/__init__.py"
    if "methods.mine" not in (text := method.read_text()):
        text = text.replace("METHODS: ", "from pose3d_jax.methods.mine import Mine\n\nMETHODS: ")
        method.write_text(re.sub(r"(METHODS: .*= \{)", r'\1"mine": Mine, ', text))
    for one in shown(page):
        if one.needs != "demo":
            continue
        if isinstance(one, Script) and not one.file:
            run(["python", "-c", one.text], copy)
        elif isinstance(one, Command) and one.words[:2] == ["python", "-m"]:
            run(one.words, copy)
            assert all((copy / path).exists() for path in commands.left_by(one))


def tiny(command):
    """The same command on a few clips, for a few steps."""
    words = list(command.words)
    if words[2].startswith("benchmarks."):
        return [*words, "--quick"]
    if words[2] == "data_prep.cmu":
        return [*words, "--allow_partial"]
    for number, word in enumerate(words):
        if word.startswith("--config="):
            words[number] += ("," if ":" in word else ":") + "tiny"
    return words


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL / POSITIONS).exists(), reason=f"no {REAL / POSITIONS}; set POSE3D_REAL_DATA"
)
def test_what_needs_cmus_files_runs(copy):
    """At a tiny size: of each split the shortest clip."""
    shortest = {}
    for segment in sorted(cmu.benchmark()["segments"], key=lambda one: one["start"] - one["stop"]):
        shortest[segment["split"]] = segment["clip"]
    with np.load(REAL / POSITIONS) as archive:
        np.savez(copy / POSITIONS, **{clip: archive[clip] for clip in shortest.values()})
    found = [one for page in commands.PAGES for one in programs(page)]
    found = [one for one in found if one.needs == "cmu"]
    assert len(found) >= 5
    for one in found:
        run(tiny(one), copy)
