"""The model card: what it must say, of data that states its terms and of data that does not."""

import numpy as np
import pytest

from configs.demo import get_config
from data_prep import writer
from pose3d_jax import card
from pose3d_jax.config import complete
from tests import scenes

METADATA = {
    "config": {"name": "mine", "method": {"name": "multiview"}},
    "step": 1200,
    "version": "1.0",
    "keypoint_skeleton": {"name": "h36m17", "joints": ["pelvis", "head"]},
    "joint_skeleton": {"name": "h36m17", "joints": ["pelvis", "head"]},
    "keypoint_source": "projected",
}


@pytest.mark.parametrize("terms", ["Not to be resold.", ""])
def test_sources_are_the_data_sets_that_the_streams_read(tmp_path, terms):
    record = scenes.record("walk")
    splits = {"train": [record]}
    writer.write(tmp_path / "set", "scene", splits, description="Walkers.", terms=terms)
    config = get_config("multiview-tiny")
    config.data.path = str(tmp_path / "set")
    config = complete(config)
    (source,) = card.sources_of(config)
    assert source == {"name": "scene", "about": "Walkers.", "terms": terms}
    said = card.text({**METADATA, "sources": [source]})
    assert "**scene**: Walkers." in said
    assert (terms or "none are stated") in said


def test_it_names_figures_limits_and_what_it_is_not_for():
    rows = {"multiview": 0.0312, "mean_pose": 0.2, "smooth": 0.01, "triangulation": 0.0}
    table = {"rows": {row: {"p1": {"frames": np.float64(x)}} for row, x in rows.items()}}
    said = card.text(METADATA, {"test_seen": table})
    assert "- test_seen: multiview 31.2 mm" in said
    assert "triangulation 0.0 mm" in said
    assert "smooth" not in said
    for wanted in ("step 1,200", "pelvis, head", "covertly", "Not recorded", "other detectors"):
        assert wanted in said
    assert "Not evaluated" in card.text(METADATA)
