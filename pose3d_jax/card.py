"""What a checkpoint says of itself: on which data and terms it was trained, what it is for.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pose3d_jax.data import poses


def sources_of(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """Of each data set of a config's streams its name, what it is, and its terms of use."""
    own = config["data"]["path"]
    paths: list[str] = []
    for stream in config["streams"].values():
        path = stream["path"] or own
        paths += [path] if isinstance(path, str) else list(path)
    found = []
    for path in dict.fromkeys(paths):
        info = poses.open_set(Path(path)).info
        terms = info.redistribution_info.license if info.redistribution_info else ""
        about = {"name": info.name, "about": info.description or "", "terms": terms or ""}
        found.append({key: " ".join(str(text).split()) for key, text in about.items()})
    return found


def text(metadata: Mapping[str, Any], splits: Mapping[str, Any] | None = None) -> str:
    """The card, Markdown, from a checkpoint's metadata and the tables of its evaluation.

    `splits`: as `metrics.json` has them; without them no figure is given.
    """
    config = metadata["config"]
    keypoints, joints = metadata["keypoint_skeleton"], metadata["joint_skeleton"]
    name = config["method"]["name"]
    parts = [
        f"# {config['name']}: method {name}, step {metadata['step']:,}",
        "## What it is",
        f"It predicts {joints['name']} ({len(joints['joints'])} joints), metres, from 2D keypoints "
        f"of {keypoints['name']} ({', '.join(keypoints['joints'])}). Keypoints it was trained on "
        f"were from: {metadata['keypoint_source']}. Package {metadata['version']}.",
        "## Data and terms",
        *_sources(metadata.get("sources", ())),
        "What is made of data falls under its terms: ask whether they allow what you do.",
        "## How good it is",
        *_figures(name, splits or {}),
        "## Limits",
        "It knows the bodies and motions that it was trained on; others have larger errors. It was "
        "trained on keypoints as the line above says: noisier ones, other detectors, joints that "
        "are defined otherwise, lenses without calibration make it worse. It gives no warning by "
        "itself; with several views compare it with triangulation. It is no medical device.",
        "## For what it is meant",
        "Research, animation, sports and human movement, of people who know that they are filmed "
        "and agree. Poses over time tell people apart and tell much of their health: such data is "
        "personal. It is not meant for watching people covertly, for identifying them, or for "
        "judging them by how they move.",
    ]
    return "\n\n".join(parts) + "\n"


def _sources(sources: Iterable[Mapping[str, str]]) -> list[str]:
    lines = [
        f"- **{source['name']}**: {source['about'] or 'not described.'} "
        f"Terms: {source['terms'] or 'none are stated; ask who gave the data.'}"
        for source in sources
    ]
    return ["\n".join(lines) or "Not recorded: the checkpoint is of an older version."]


def _figures(name: str, splits: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {split}: {row} {1000 * errors['p1']['frames']:.1f} mm"
        for split, table in splits.items()
        for row, errors in table["rows"].items()
        if row in (name, f"{name}_fitted", "mean_pose", "triangulation")
    ]
    if not lines:
        return ["Not evaluated."]
    return [
        "P1 (mean per-joint position error about the root), mean over frames:",
        "\n".join(lines),
    ]
