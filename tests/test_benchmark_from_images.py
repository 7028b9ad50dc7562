"""benchmarks/from_images.py: rows are trained, measured as evaluations are, and compared."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import from_images
from data_prep import writer
from pose3d_jax import evaluate
from pose3d_jax.data import images
from pose3d_jax.methods.base import EVALUATION
from pose3d_jax.models import hrnet
from pose3d_jax.schema import with_pixels
from tests import scenes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the quick form says of six test pictures, and where its runs are."""
    folder = tmp_path_factory.mktemp("from_images")
    counts = {"train": 8, "validation": 4, "test": 6}
    made = {
        split: [
            scenes.photographed(
                scenes.record(f"{split}{n}", split=split, frames=1, views=1, seed=5 * n)
            )
            for n in range(count)
        ]
        for split, count in counts.items()
    }
    writer.write(folder / "data", "scene", made, description="small")
    with pytest.MonkeyPatch.context() as patch:
        # Of two resolutions, which is compiled quickly.
        small = hrnet.Size(8, stem=8, first=1, modules=(1,), units=1)
        patch.setitem(hrnet.SIZES, "tiny", small)
        paths = f"--data {folder / 'data'} --out {folder / 'runs'} --share 0.75"
        patch.setattr("sys.argv", ["from_images", "--quick", *paths.split()])
        said = []
        patch.setattr("builtins.print", lambda text, **_: said.append(text))
        from_images.main()
        yield said[0], json.loads(said[1])["from_images"], folder / "runs" / "quick"


def test_rows_are_what_evaluations_say(found):
    text, rows, runs = found
    assert list(rows) == ["all", "frozen"]
    restored = evaluate.restore(runs / "all" / "0")
    assert restored.metadata["config"]["streams"]["main"]["clips"] == [0.0, 0.75]
    for name, row in rows.items():
        metrics = json.loads((runs / name / "0" / "metrics.json").read_text())
        expected = metrics["splits"]["test"]["rows"]["image"]
        assert row["p1"] == [pytest.approx(1000 * expected["p1"]["frames"], rel=1e-5)]
        assert row["p2"] == [pytest.approx(1000 * expected["p2"]["frames"], rel=1e-5)]
    low, high = rows["frozen"]["p1_more_interval"]
    more = rows["frozen"]["p1"][0] - rows["all"]["p1"][0]
    assert low <= rows["frozen"]["p1_more"] <= high
    assert rows["frozen"]["p1_more"] == pytest.approx(more, abs=1e-3)
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["all", "frozen"]


def test_2d_errors_are_those_that_training_logs(found):
    _, rows, runs = found
    with pytest.MonkeyPatch.context() as patch:
        small = hrnet.Size(8, stem=8, first=1, modules=(1,), units=1)
        patch.setitem(hrnet.SIZES, "tiny", small)
        restored = evaluate.restore(runs / "all" / "0")
        data, method = restored.splits["test"], restored.method
        chosen = np.arange(data.poses.size)
        clip = data.poses.take(jnp.asarray(chosen))
        pixels = images.pixels(data.pictures, chosen[:, None], method.cells)
        clip = clip.replace(observations=with_pixels(clip.observations, pixels))
        assert np.all(np.asarray(clip.observations.confidence) > 0)  # else means differ

        def boxes(variables, clip):
            _, aux = method.terms(
                variables, {"main": clip}, jax.random.key(0), jnp.int32(0),
                group=method.groups[0], mode=EVALUATION,
            )  # fmt: skip
            return aux.diagnostics["box"]

        total, count = jax.jit(boxes)(restored.variables, clip)
    assert rows["all"]["flat"] == [pytest.approx(100 * float(total / count), rel=1e-4)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--rows all best", "no row is named best; there are all, frozen, encoder"),
        ("--share 0", "--share is 0.0; give more than 0, up to 1"),
        ("--seeds 0", "--seeds is 0; give 1 or more"),
    ],
)
def test_what_there_is_not_is_refused(monkeypatch, capsys, given, said):
    monkeypatch.setattr("sys.argv", ["from_images", *given.split()])
    with pytest.raises(SystemExit):
        from_images.main()
    assert said in capsys.readouterr().err
