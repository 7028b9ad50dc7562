"""Is a data set what its preparation wrote? Sizes, SHA-256 and the number of records of its files.

`checksums.json` lists every other file of the data set. It is written last, in the scratch folder,
so that a set that has one was complete.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from array_record.python import array_record_module

from pose3d_jax.errors import UserError

CHECKSUMS = "checksums.json"


class DataError(UserError):
    """Shards that are missing, broken or do not fit together; says what, where and what to do."""


def write_checksums(directory: Path) -> None:
    """Writes `checksums.json`: relative name -> size in bytes and SHA-256 of every file there."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    table = {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
        for path in files
    }
    (directory / CHECKSUMS).write_text(json.dumps(table, indent=2) + "\n")


def verify(directory: Path, names: Iterable[str]) -> None:
    """Compares files with `checksums.json`; a file that has not changed is hashed once a process.

    Args:
      directory: of the data set.
      names: of the files that matter, relative to it.

    Raises:
      DataError: `checksums.json` is missing or damaged, or a file is missing, not listed, or has
        another size or another SHA-256.
    """
    table = _read_table(directory)
    for name in names:
        expected = table.get(name)
        if not isinstance(expected, dict):
            raise _fault(directory, name, f"is not listed in {CHECKSUMS}")
        try:
            stat = (directory / name).stat()
            if stat.st_size != expected.get("bytes"):
                raise _fault(
                    directory,
                    name,
                    f"has {stat.st_size} bytes, but {CHECKSUMS} says {expected.get('bytes')}",
                )
            digest = _sha256_once(directory / name, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise _fault(directory, name, f"cannot be read ({error.strerror})") from error
        if digest != expected.get("sha256"):
            raise _fault(directory, name, f"is damaged: its SHA-256 is not that in {CHECKSUMS}")


def verify_counts(directory: Path, counts: Mapping[str, int]) -> None:
    """Raises `DataError` unless each shard (by name) holds as many records as `counts` says.

    The shards are asked, since a reader trusts `dataset_info.json` and would stop short in silence.
    """
    for name, expected in counts.items():
        try:
            reader = array_record_module.ArrayRecordReader(str(directory / name))
            found = reader.num_records()
            reader.close()
        except Exception as error:  # damaged since it was hashed
            raise _fault(directory, name, f"cannot be read ({error})") from error
        if found != expected:
            raise _fault(
                directory, name, f"holds {found} records, but dataset_info.json says {expected}"
            )


def _read_table(directory: Path) -> dict[str, Any]:
    try:
        table = json.loads((directory / CHECKSUMS).read_text())
    except FileNotFoundError as error:
        raise _fault(directory, CHECKSUMS, "is missing, so the data cannot be trusted") from error
    except (OSError, ValueError) as error:
        raise _fault(directory, CHECKSUMS, f"cannot be read ({error})") from error
    if not isinstance(table, dict):
        raise _fault(directory, CHECKSUMS, "is damaged: it holds no table of files")
    return table


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _sha256_once(path: Path, size: int, mtime_ns: int) -> str:
    """Remembered for as long as size and time are the same: training loads a set several times."""
    return _sha256(path)


def _fault(directory: Path, name: str, fault: str) -> DataError:
    return DataError(
        f"{directory / name} {fault}; prepare it again: "
        f"python -m data_prep.NAME --output {directory} --overwrite"
    )
