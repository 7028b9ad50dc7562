"""A work directory is one experiment's: what it remembers of it, who may write, whole files."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pose3d_jax
from pose3d_jax.errors import UserError

_EXPERIMENT = "experiment.json"
_LOCK = ".lock"


class WorkdirError(UserError):
    """A work directory that is another experiment's, or in use; says which part differs."""


def code_version() -> str:
    """The package's version and, behind a plus, a digest of its source files."""
    root = Path(pose3d_jax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return f"{pose3d_jax.__version__}+{digest.hexdigest()[:12]}"


def check(
    workdir: str | Path,
    experiment: Mapping[str, Any],
    *,
    other_code: bool = False,
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """Raises `WorkdirError` where the directory remembers another experiment.

    Args:
      workdir: it need not exist.
      experiment: `config`, `fingerprint` (of the data) and `code`, plain data.
      other_code: take a directory that differs in `code` alone.
      complete: what an older version's config is with the keys that it did not know.
    """
    path = Path(workdir) / _EXPERIMENT
    if Path(workdir).exists() and not Path(workdir).is_dir():
        raise WorkdirError(f"{workdir} is a file; give a directory to --workdir")
    if not path.exists():
        return
    try:
        remembered = json.loads(path.read_text(encoding="utf-8"))
        known = {key: remembered[key] for key in experiment}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path} cannot be read ({error!r}), so nothing tells whose {workdir} is; give another "
            f"--workdir, or delete that one"
        ) from error
    # One that is no config any more stays as it is, and differs.
    with contextlib.suppress(UserError):
        known["config"] = complete(known["config"])
    differing = list(_differences(known, dict(experiment)))
    code = [line for line in differing if line.startswith("code ")]
    if other_code:
        differing = [line for line in differing if line not in code]
    if differing:
        remedy = "give another --workdir, or delete that one"
        if differing == code:
            remedy = f"go on with that version, pass --other_code to go on with this, or {remedy}"
        raise WorkdirError(
            f"{workdir} holds another experiment (there -> now): {'; '.join(differing)}; {remedy}"
        )


@contextlib.contextmanager
def claim(
    workdir: str | Path,
    experiment: Mapping[str, Any],
    begun: Callable[[], bool] | None = None,
) -> Iterator[None]:
    """Makes the directory this experiment's, and this process its only writer.

    Where a user's error ends it before it has `begun` (None: it has), the directory is anyone's
    again: what is mended is another experiment. Raises `WorkdirError` where another
    process writes there. The lock ends with the process, however it ends.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorkdirError(
                f"another process is writing to {workdir}; wait for it, or give another --workdir"
            ) from None
        write_text(workdir / _EXPERIMENT, json.dumps(dict(experiment), indent=1))
        try:
            yield
        except UserError:
            if begun is not None and not begun():
                (workdir / _EXPERIMENT).unlink()
            raise


def write_text(path: str | Path, text: str) -> None:
    """Writes a file whole or not at all."""
    write(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write(path: str | Path, make: Callable[[str], Any]) -> None:
    """`make` writes to the name that it is given; then the file takes its place, whole."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".tmp")
    os.close(handle)
    try:
        make(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _differences(there: Any, now: Any, where: str = "") -> Iterator[str]:
    """One line for each leaf that differs."""
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        for key in [*there, *(key for key in now if key not in there)]:
            inner = f"{where}.{key}" if where else str(key)
            yield from _differences(there.get(key, "nothing"), now.get(key, "nothing"), inner)
    elif isinstance(there, list) and isinstance(now, list) and len(there) == len(now):
        for i, (one, other) in enumerate(zip(there, now, strict=True)):
            yield from _differences(one, other, f"{where}[{i}]")
    elif there != now:
        yield f"{where} {there!r} -> {now!r}"
