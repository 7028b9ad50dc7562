"""The map in docs/design.md: every file stands in it, and imports only what stands below."""

import ast
import builtins
import re
import symtable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pose3d_jax"
MAP = re.search(r"```\npose3d_jax/\n(.*?)\nconfigs/", (ROOT / "docs/design.md").read_text(), re.S)
LINES = [line.split()[0].rstrip("/") for line in MAP[1].splitlines() if line.startswith("  ")]
# A folder's own lines follow its name; its files may import one another.
PLACE = {name.removesuffix(".py"): place for place, name in reversed(list(enumerate(LINES)))}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "__init__":
            yield path, parts[0]


def imported(path):
    """The top-level parts of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "pose3d_jax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pose3d_jax."):
            yield node.module.split(".")[1]


def test_every_file_stands_in_the_map():
    assert {part for _, part in modules()} <= PLACE.keys()


def test_imports_run_downwards():
    upward = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path, part in modules()
        for other in imported(path)
        if other in PLACE and other != part and PLACE[other] <= PLACE[part]
    ]
    assert not upward


def undefined(path):
    """Names that a file's functions take from its globals and that it does not have.

    The linters cannot be asked: to them jaxtyping's dimensions are undefined names, too.
    """

    def tables(table):
        yield table
        for child in table.get_children():
            yield from tables(child)

    whole = symtable.symtable(path.read_text(), str(path), "exec")
    known = {s.get_name() for s in whole.get_symbols() if s.is_assigned() or s.is_imported()}
    known |= {child.get_name() for child in whole.get_children()} | set(dir(builtins))
    known |= {"__file__", "__doc__"}
    for table in tables(whole):
        for symbol in table.get_symbols():
            if symbol.is_referenced() and symbol.is_global() and symbol.get_name() not in known:
                yield f"{path.relative_to(ROOT)}: {symbol.get_name()} in {table.get_name()}"


def test_every_name_is_defined():
    folders = ("pose3d_jax", "configs", "data_prep", "benchmarks", "tests")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert not [name for path in paths for name in undefined(path)]
