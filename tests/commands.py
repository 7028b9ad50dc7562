"""The commands that the documents show: found, parsed as their programs parse them, and judged.

What a command needs is told by the last of these phrases before it, in its section or else in what
stands before the page's first section; CONTRIBUTING.md says so to writers:

    right after `make demo`   nothing but what the demo leaves
    with CMU's files          `data/cmu_mv_v1`, or the positions that it is made of
    with files of your own    data sets, videos or pictures that a reader holds
    in minutes to hours       as well as what else is said
"""

import argparse
import ast
import contextlib
import copy
import dataclasses
import importlib
import io
import re
import shlex
import sys
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from ml_collections import config_flags

from pose3d_jax.config import complete

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
CONFIGS = sorted(f"configs/{path.name}" for path in ROOT.glob("configs/*.py"))
NEEDS = {
    "demo": "right after `make demo`",
    "cmu": "with cmu's files",
    "own": "with files of your own",
    "long": "in minutes to hours",
}
DEMO = ("runs/demo/synthetic", "runs/demo/supervised", "runs/demo/multiview", "runs/demo/example")
_START = re.compile(r"(\w+=\S+ )*(python3?|pip|make|\.) ")
_WRITTEN = ("output", "out", "report")  # the flags that name what a command leaves


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of a page, or one in the middle of a sentence (`inline`)."""

    page: str
    line: int
    text: str
    needs: str = ""
    inline: bool = False

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Script:
    """A Python fence, and the file that it is to be, where the page says so."""

    page: str
    line: int
    text: str
    needs: str = ""
    file: str = ""


def of(page: str) -> list[Command | Script]:
    """What a page shows, or the docstring of a Python file, in its order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page.endswith(".py"):
        text = ast.get_docstring(ast.parse(text)) or ""
    return found_in(text, page)


def found_in(text: str, page: str) -> list[Command | Script]:
    """What the text of a page shows, in its order."""
    found = [*_blocks(text, page), *_inline(text, page)]
    return sorted(found, key=lambda one: one.line)


def _blocks(text: str, page: str) -> Iterator[Command | Script]:
    lines = text.splitlines()
    fence, number = None, 0
    while number < len(lines):
        line, first = lines[number], number
        number += 1
        if line.startswith("```"):
            fence = None if fence is not None else line[3:].strip()
            if fence == "python":
                end = lines.index("```", number)
                above = next(x for x in reversed(lines[:first]) if x)
                file = re.search(r"`([\w/]+\.py)`.*:$", above)
                code = "\n".join(lines[number:end]) + "\n"
                needs = _needs(lines[:first])
                yield Script(page, first + 1, code, needs, file[1] if file else "")
                fence, number = None, end + 1
            continue
        command = line.strip()
        if (fence is None and not line.startswith("    ")) or not _START.match(command):
            continue
        while command.endswith("\\"):
            command = command[:-1] + lines[number].strip()
            number += 1
        yield Command(page, first + 1, command, _needs(lines[:first]))


def _inline(text: str, page: str) -> Iterator[Command]:
    prose = re.sub(r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S)
    prose = re.sub(r"^    .*$", "", prose, flags=re.M)
    for match in re.finditer(r"(?<!`)`((?:python -m|make) [^`]+)`", prose):
        line = prose.count("\n", 0, match.start()) + 1
        yield Command(page, line, " ".join(match[1].split()), inline=True)


def _needs(before: list[str]) -> str:
    """The last phrase of the section that `before` ends in, or else of the page's beginning."""
    heads = [n for n, line in enumerate(before) if line.startswith("## ")]
    parts = [before[heads[-1] :], before[: heads[0]]] if heads else [before]
    for part in parts:
        prose = " ".join(" ".join(part).lower().split())
        at, kind = max((prose.rfind(phrase), kind) for kind, phrase in NEEDS.items())
        if at >= 0:
            return kind
    return ""


class _Parsed(Exception):
    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given


class Wrong(Exception):
    """A command that its program would refuse."""


def parsed(words: list[str]) -> dict[str, Any]:
    """What `python -m MODULE ...` makes of its flags, by name. Raises `Wrong`."""
    name = words[2]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Wrong(f"{error}") from error
    return _of_absl(words[3:]) if name == "pose3d_jax.main" else _of_argparse(module, words)


def _of_argparse(module: Any, words: list[str]) -> dict[str, Any]:
    """The module's own `main`, up to where its flags are parsed."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise _Parsed(vars(parse(self, args, namespace)))

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", words[2:])
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                module.main()
        except _Parsed as done:
            known = getattr(module, "ROWS", None)
            asked = set(done.given.get("rows") or ()) if known else set()
            if isinstance(known, Mapping) and (unknown := sorted(asked - set(known))):
                raise Wrong(f"no row is named {', '.join(unknown)}") from done
            return done.given
        except SystemExit as end:
            if not end.code:  # --help
                return {}
            raise Wrong(said.getvalue().strip().splitlines()[-1]) from end
    raise Wrong(f"{words[2]} takes no flags")


def _of_absl(arguments: list[str]) -> dict[str, Any]:
    """The flags of `pose3d_jax.main`: the config is loaded, and overrides must be keys of it."""
    argv = ["main", *arguments]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)
    for flag in flags.FLAGS.flags_by_module_dict()["pose3d_jax.main"]:
        if flag.name != "config":
            values[flag.name] = copy.deepcopy(flag)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # how ml_collections loads a file
            rest = values(argv)[1:]
        if values.config is not None:
            complete(values.config.to_dict())
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise Wrong(str(error).strip().splitlines()[-1]) from error
    if len(rest) != (2 if values.mode == "compare" else 0):
        raise Wrong(f"--mode={values.mode} does not take {len(rest)} arguments")
    return {name: values[name].value for name in ("config", "workdir", "mode")} | {"runs": rest}


def wrong_with(command: Command) -> str:
    """Why the command could not run, apart from the files that it reads; empty if it could."""
    words = command.words
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        return "" if words[1] in targets else f"the Makefile has no {words[1]}"
    if words[0] == ".":
        return "" if words[1:] == [".venv/bin/activate"] else "the Makefile makes .venv"
    if words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        asked = re.findall(r"\[([\w,-]+)\]", command.text)
        missing = {x for one in asked for x in one.split(",")} - {*extras["optional-dependencies"]}
        return f"there is no extra {sorted(missing)}" if missing else ""
    if words[1] != "-m":
        return "" if (ROOT / words[1]).is_file() else f"there is no {words[1]}"
    if command.inline and len(words) == 3:
        words.append("--help")  # the name of a program, of which the sentence speaks
        if words[2] == "pose3d_jax.main":
            return ""
    try:
        parsed(words)
    except Wrong as error:
        return str(error)
    return ""


def left_by(command: Command) -> set[str]:
    """The paths that a `python -m` command makes."""
    given = parsed(command.words)
    if "config" not in given:
        return {str(value) for name, value in given.items() if name in _WRITTEN and value}
    if given["mode"] == "train":
        return {given["workdir"] or f"runs/{given['config'].name}"}
    return set()


def read_by(command: Command) -> set[str]:
    """The paths that it is given to read, and where its config says that its data are."""
    given = parsed(command.words)
    if "config" in given:
        paths = set(given["runs"])
        if given["mode"] in ("evaluate", "adapt"):
            paths.add(given["workdir"] or f"runs/{given['config'].name}")
        if given["config"] is not None:
            data = given["config"].data.path
            paths |= {data} if isinstance(data, str) else set(data)
        return {path for path in paths if path}
    found = set()
    for name, value in given.items():
        values = value if isinstance(value, list | tuple) else [value]
        paths = [str(x) for x in values if isinstance(x, Path) or "/" in str(x)]
        if name not in _WRITTEN:
            found |= {path for path in paths if path in command.words}
    return found
