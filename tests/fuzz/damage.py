"""What can happen to a file or folder on a disk."""

import shutil
from pathlib import Path

from hypothesis import strategies as st

# A place in a file or a choice among files, as a fraction: it does not depend on their number.
FRACTION = st.floats(0, 1, exclude_max=True)
KINDS = ("flip", "cut", "empty", "delete", "swap", "folder", "append")
DAMAGE = st.tuples(st.sampled_from(KINDS), FRACTION, FRACTION, st.integers(0, 7))


def files(directory: Path) -> list[Path]:
    """In an order that does not depend on the random names that Orbax gives."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: (path.parent, len(path.name), path.stat().st_size, path))


def damage(found: list[Path], kind: str, which: float, where: float, bit: int) -> str:
    """Damages one of the files, and says how."""
    path = found[int(which * len(found))]
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if kind == "flip" and content:
        content[at] ^= 1 << bit
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[:at])
    elif kind == "append":
        path.write_bytes(content + bytes([bit]))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "delete":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "swap":
        other = found[int(where * len(found))]
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    return f"{kind} {path} at {at} of {len(content)}, bit {bit}"


def copied(source: Path, target: Path) -> Path:
    """A fresh copy of a folder, which may then be damaged."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
