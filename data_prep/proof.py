"""A data set proves itself: what was found in it, and what is probably wrong where it does not fit.

Everything is gathered while the records pass on their way to the shards; residuals come from a
sample of frames, so that a set of any size takes little memory and time.
"""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep import doubts
from pose3d_jax import skeleton
from pose3d_jax.schema import Record

SAMPLED_FRAMES = 16  # of a clip
SAMPLED_CLIPS = 256
_SHOWN = 12  # lines of what was skipped


class Proof:
    """Statistics of the records that it was shown."""

    def __init__(self) -> None:
        self._stride = 1  # of the clips that are sampled
        self.skipped: list[tuple[str, str]] = []
        self._clips: Counter[str] = Counter()
        self._frames: Counter[str] = Counter()
        self._subjects: Counter[str] = Counter()
        self._actions: Counter[str] = Counter()
        self._variations: list[tuple[float, str]] = []  # of bone lengths, and whose
        self._bones: list[np.ndarray] = []
        self._samples: list[doubts.Sample] = []
        self._extents: list[np.ndarray] = []
        self._apart: list[np.ndarray] = []  # joints of bodies from those beside them
        self._fps: set[float] = set()
        self._cameras: dict[str, None] = {}  # a set in order
        self._identity: Any = None

    def skip(self, what: str, why: str) -> None:
        """Notes a sequence, view or file that is left out, and the reason."""
        self.skipped.append((what, why))

    def compare(self, apart: Float[np.ndarray, "..."]) -> None:
        """Takes in how far a posed body's joints, metres, are from those that came with it."""
        self._apart.append(np.ravel(apart))

    def add(self, record: Record) -> None:
        """Takes in a record that is about to be written."""
        clip, identity = record
        frames = len(clip.labels.joints)
        self._identity = identity
        self._fps.add(float(identity.fps))
        self._cameras |= dict.fromkeys(identity.camera_names)
        self._clips[identity.split] += 1
        self._frames[identity.split] += frames
        self._subjects[identity.subject] += frames
        self._actions[identity.action] += frames
        bones = doubts.bone_lengths(clip.labels, skeleton.get(identity.joint_skeleton))
        known = np.isfinite(bones).any(axis=0)
        if known.any():
            mean = np.nanmean(bones[:, known], axis=0)
            # Ends of segments that are one joint: what is between them is no bone.
            real = mean > 0.1 * mean.max()
            variation = np.nanstd(bones[:, known], axis=0)[real] / mean[real]
            if real.any():
                self._variations.append((float(variation.mean()), identity.clip))
            lengths = np.full(bones.shape[1], np.nan)
            lengths[known] = mean
            self._bones.append(lengths)
        extents = doubts.extents(clip.labels)
        if len(extents):
            self._extents.append(extents[:: max(1, len(extents) // SAMPLED_FRAMES)])
        # Every clip of a small set; of a large one every second, every fourth, ...
        if sum(self._clips.values()) % self._stride == 0:
            self._samples.append(doubts.sample(record, SAMPLED_FRAMES))
            if len(self._samples) > SAMPLED_CLIPS:
                self._samples = self._samples[1::2]
                self._stride *= 2

    def summary(self) -> dict[str, Any]:
        """What was found, as plain data: metres, pixels, frames per second."""
        if self._identity is None:
            return {}
        found: dict[str, Any] = {
            "splits": {
                split: {"clips": self._clips[split], "frames": self._frames[split]}
                for split in self._clips
            },
            "subjects": dict(self._subjects),
            "actions": dict(self._actions),
            "fps": sorted(self._fps),
            "cameras": list(self._cameras),
            "keypoint_source": self._identity.keypoint_source,
            "skipped": [{"what": what, "why": why} for what, why in self.skipped],
        }
        if self._variations:
            variations = np.array([value for value, _ in self._variations])
            worst = max(self._variations)
            found["bone_length_variation"] = {
                "median": float(np.median(variations)),
                "worst": worst[0],
                "worst_clip": worst[1],
            }
        if self._extents:
            low, high, upright, across = np.concatenate(self._extents).T
            found["height"] = {
                "lowest_joint_m": float(np.percentile(low, 1)),
                "highest_joint_m": float(np.percentile(high, 99)),
                "median_extent_m": float(np.median(upright)),
                "median_width_m": float(np.median(across)),
            }
        if self._apart:
            apart = 1000 * np.concatenate(self._apart)
            found["body_joints_mm"] = {
                "median": float(np.median(apart)),
                "p99": float(np.percentile(apart, 99)),
            }
        found |= doubts.residuals(self._samples)
        found["warnings"] = self._warnings(found)
        return found

    def _warnings(self, found: dict[str, Any]) -> list[str]:
        bones = np.array(self._bones)
        three = skeleton.get(self._identity.joint_skeleton)
        return [
            *doubts.about_bones(bones, three, found.get("bone_length_variation")),
            *doubts.about_height(found.get("height")),
            *doubts.about_bodies(found.get("body_joints_mm")),
            *doubts.about_projection(self._samples, found, self._identity),
        ]

    def text(self, name: str, directory: str | Path) -> str:
        """The summary for a person."""
        found = self.summary()
        lines = [f"{name} in {directory}", f"{'split':<14}{'clips':>10}{'frames':>12}"]
        for split, counts in found.get("splits", {}).items():
            lines.append(f"{split:<14}{counts['clips']:>10,}{counts['frames']:>12,}")
        for kind in ("subjects", "actions"):
            names = list(found.get(kind, {}))
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            lines.append(f"{kind}: {len(names)} ({', '.join(names[:20])}{more})")
        lines += _measured(found)
        lines.append(f"skipped: {len(self.skipped)}")
        lines += [f"  {what}: {why}" for what, why in itertools.islice(self.skipped, _SHOWN)]
        if len(self.skipped) > _SHOWN:
            lines.append(f"  and {len(self.skipped) - _SHOWN} more, in metadata.json")
        lines += [f"warning: {warning}" for warning in found.get("warnings", [])]
        return "\n".join(lines)


def _measured(found: dict[str, Any]) -> list[str]:
    """Lines of what was measured."""
    lines = []
    if variation := found.get("bone_length_variation"):
        lines.append(
            f"bone lengths vary within a clip by {variation['median']:.2%} (median), at most "
            f"{variation['worst']:.2%} ({variation['worst_clip']})"
        )
    if height := found.get("height"):
        lines.append(
            f"joints are {height['lowest_joint_m']:.2f} to {height['highest_joint_m']:.2f} m high; "
            f"a person's extent upwards is {height['median_extent_m']:.2f} m (median)"
        )
    if apart := found.get("body_joints_mm"):
        lines.append(
            f"joints of the posed bodies are {apart['median']:.1f} mm from those of the files "
            f"(median), 99th percentile {apart['p99']:.1f} mm"
        )
    if residual := found.get("reprojection_px"):
        lines.append(
            f"reprojection of 3D onto 2D ({found['keypoint_source']}): median "
            f"{residual['median']:.3f} px, 99th percentile {residual['p99']:.3f} px; by camera "
            + ", ".join("-" if x is None else f"{x:.3f}" for x in residual["by_camera"])
        )
    if error := found.get("triangulation_mm"):
        lines.append(
            f"triangulation of the 2D against 3D: median {error['median']:.2f} mm, 99th percentile "
            f"{error['p99']:.2f} mm"
        )
    return lines
