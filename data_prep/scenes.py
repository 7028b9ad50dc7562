"""Pictures of a body by rays: clothes, light, what is behind and before it, all by dice.

No display and no GPU: Embree, through the package's extra `mesh`.
"""

import dataclasses
import importlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from pose3d_jax import body as bodies
from pose3d_jax.viewer.render import trimesh

REGIONS = ("skin", "hair", "top", "trousers", "shoes")
# What each of SMPL's joints moves, in order; "sleeve" and "leg" are skin or cloth.
_PARTS = (
    *("trousers", "trousers", "trousers", "top", "leg", "leg", "top", "shoes", "shoes", "top"),
    *("shoes", "shoes", "skin", "top", "top", "skin", "top", "top", "sleeve", "sleeve"),
    *("skin", "skin", "skin", "skin"),
)
_HEAD = 15
_INSIDE = 0.2  # metres that a joint may be behind the skin in front of it
_SKINS = np.array([[0.95, 0.80, 0.70], [0.87, 0.67, 0.53], [0.70, 0.48, 0.34], [0.36, 0.23, 0.16]])
_HAIRS = np.array([[0.08, 0.06, 0.05], [0.30, 0.18, 0.10], [0.75, 0.60, 0.35], [0.55, 0.55, 0.55]])


@dataclasses.dataclass(frozen=True)
class Mesh:
    """A body's surface, whatever its pose: faces, where they are at rest, and what covers them."""

    faces: Int[np.ndarray, "faces 3"]
    rest: Float[np.ndarray, "vertices 3"]
    parts: tuple[str, ...]  # of each face: a region, "sleeve" or "leg"


def mesh_of(body: bodies.Body) -> Mesh:
    """The surface of a body with SMPL's 24 joints, y up at rest."""
    faces, rest = np.asarray(body.faces), np.asarray(body.template).T
    joint = np.asarray(body.weights).argmax(axis=0)[faces[:, 0]]
    middle = rest[faces].mean(axis=1)
    parts = np.array(_PARTS)[joint]
    head = joint == _HEAD
    low, high = middle[head].min(axis=0), middle[head].max(axis=0)
    share = (middle - low) / (high - low)  # of the head: up, and from its back to its nose
    parts[head & ((share[:, 1] > 0.85) | ((share[:, 2] < 0.5) & (share[:, 1] > 0.3)))] = "hair"
    return Mesh(faces, rest, tuple(parts))


@dataclasses.dataclass(frozen=True)
class View:
    """What is seen: a square of an ideal camera's image."""

    focal: float  # pixels of the camera
    center: Float[np.ndarray, "2"]
    square: Float[np.ndarray, "3"]  # its middle and side, pixels
    cells: int  # pixels of the picture, to a side

    def rays(self) -> Float[np.ndarray, "cells*cells 3"]:
        """Directions of depth 1 through the picture's pixels."""
        x, y, side = self.square
        step = side / self.cells
        along = (np.arange(self.cells) - (self.cells - 1) / 2) * step
        across, down = np.meshgrid(x + along, y + along)
        flat = np.stack([across, down], axis=-1).reshape(-1, 2)
        return np.concatenate(
            [(flat - self.center) / self.focal, np.ones((len(flat), 1))], axis=-1
        ).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A body and what stands before it, in the camera's axes, metres; made by `build`."""

    mesh: Mesh
    vertices: Float[np.ndarray, "vertices 3"]
    things: tuple[Float[np.ndarray, "3"], ...]  # colours
    traced: Any  # Embree's scene: geometry 0 is the body, then the things

    @classmethod
    def build(
        cls, mesh: Mesh, vertices: Float[np.ndarray, "vertices 3"], rng: np.random.Generator
    ) -> "Scene":
        """A body, and things of the dice. Raises `UserError` without trimesh and Embree."""
        library = trimesh()
        traced = importlib.import_module("embreex.rtcore_scene").EmbreeScene()
        add = importlib.import_module("embreex.mesh_construction").TriangleMesh
        add(traced, vertices.astype(np.float32), mesh.faces.astype(np.int32))
        colours = []
        for _ in range(rng.choice([0, 0, 1, 2])):
            thing = _thing(library, vertices, rng)
            add(traced, thing.vertices.astype(np.float32), thing.faces.astype(np.int32))
            colours.append(rng.uniform(0.05, 0.95, 3))
        return cls(mesh, vertices, tuple(colours), traced)

    def hits(self, rays: Float[np.ndarray, "rays 3"]) -> dict[str, np.ndarray]:
        """Where rays from the camera meet anything; `geomID` is -1 where they do not."""
        rays = rays.astype(np.float32)
        found: dict[str, np.ndarray] = self.traced.run(np.zeros_like(rays), rays, output=1)
        return found

    def visible(self, joints: Float[np.ndarray, "joints 3"]) -> Bool[np.ndarray, "joints"]:
        """Which joints have nothing before them but some skin."""
        rays = joints / joints[:, 2:]
        hits = self.hits(rays)
        before = (joints[:, 2] - hits["tfar"]) * np.linalg.norm(rays, axis=-1)
        return (hits["geomID"] < 0) | ((hits["geomID"] == 0) & (before < _INSIDE))

    def picture(
        self, view: View, rng: np.random.Generator, behind: np.random.Generator
    ) -> UInt8[np.ndarray, "cells cells 3"]:
        """What is seen; `rng` decides clothes and light, `behind` the background."""
        rays = view.rays()
        hits, cells = self.hits(rays), view.cells
        colour = background(cells, behind).reshape(-1, 3)
        light = _Light.drawn(rng)
        own = hits["geomID"] == 0
        normals = _normals(self.mesh, self.vertices, hits, own)
        colour[own] = _clothes(self.mesh, hits, own, rng) * light.on(normals, rays[own])
        for number, thing in enumerate(self.things, start=1):
            there = hits["geomID"] == number
            normal = hits["Ng"][there].astype(float)
            normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
            colour[there] = thing * light.on(normal, rays[there])
        image = ndimage.gaussian_filter(
            colour.reshape(cells, cells, 3), (rng.uniform(0.3, 0.8),) * 2 + (0,)
        )
        image = image * rng.uniform(0.8, 1.15) + rng.normal(0, rng.uniform(0, 0.03), image.shape)
        return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _thing(library: Any, vertices: Float[np.ndarray, "vertices 3"], rng: np.random.Generator):
    """A box, a cylinder or a ball between the camera and some place of a body."""
    size = rng.uniform(0.05, 0.22, 3)
    kind = rng.integers(3)
    if kind == 0:
        thing = library.creation.box(2 * size)
    elif kind == 1:
        thing = library.creation.cylinder(size[0] / 2, 6 * size[1], sections=24)
    else:
        thing = library.creation.icosphere(subdivisions=3, radius=size[0])
    thing.apply_transform(library.transformations.random_rotation_matrix(rng.uniform(size=3)))
    beside = vertices[rng.integers(len(vertices))] + rng.normal(0, 0.15, 3)
    # Before all of the body.
    nearest = min(0.95, 1 - (np.ptp(vertices[:, 2]) / 2 + size.max()) / beside[2])
    thing.apply_translation(beside * rng.uniform(0.5, max(nearest, 0.5)))
    return thing


def _normals(
    mesh: Mesh, vertices: Float[np.ndarray, "vertices 3"], hits: Any, own: Bool[np.ndarray, "rays"]
) -> Float[np.ndarray, "hits 3"]:
    """Of the surface where rays meet it, from those of its corners."""
    corners = bodies.normals(vertices, mesh.faces)[mesh.faces[hits["primID"][own]]]
    u, v = hits["u"][own], hits["v"][own]
    normal = np.einsum("rc,rci->ri", np.stack([1 - u - v, u, v], axis=-1), corners)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


# ------------------------------------------------------------------------------------------- looks


@dataclasses.dataclass(frozen=True)
class _Light:
    """Two lights and what comes from everywhere."""

    directions: Float[np.ndarray, "2 3"]  # towards them
    strengths: Float[np.ndarray, "2 3"]
    ambient: Float[np.ndarray, "3"]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Light":
        """One above and before the person, one anywhere."""
        first = [rng.normal(), -rng.uniform(0.2, 1.5), -rng.uniform(0.2, 1.5)]
        directions = np.array([first, rng.normal(size=3)])
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        tint = rng.uniform(0.85, 1.1, (3, 3))
        return cls(
            directions,
            tint[:2] * np.array([[rng.uniform(0.4, 0.9)], [rng.uniform(0, 0.4)]]),
            tint[2] * rng.uniform(0.25, 0.5),
        )

    def on(
        self, normals: Float[np.ndarray, "hits 3"], rays: Float[np.ndarray, "hits 3"]
    ) -> Float[np.ndarray, "hits 3"]:
        """What surfaces of these normals throw back; either side of one is lit."""
        away = np.sum(normals * rays, axis=-1, keepdims=True) > 0
        lit = np.clip(np.where(away, -normals, normals) @ self.directions.T, 0, 1)
        return self.ambient + lit @ self.strengths


def _clothes(
    mesh: Mesh, hits: Any, own: Bool[np.ndarray, "rays"], rng: np.random.Generator
) -> Float[np.ndarray, "hits 3"]:
    """The colour of what covers a person, where rays meet it."""
    number = hits["primID"][own]
    u, v = hits["u"][own], hits["v"][own]
    share = np.stack([1 - u - v, u, v], axis=-1)
    place = np.einsum("rc,rci->ri", share, mesh.rest[mesh.faces[number]])
    covers = {part: part for part in REGIONS}
    covers["sleeve"] = "top" if rng.random() < 0.5 else "skin"
    covers["leg"] = "trousers" if rng.random() < 0.65 else "skin"
    skin = _mixed(_SKINS, rng)
    colours = {"skin": lambda p: np.broadcast_to(skin, p.shape)}
    hair = _HAIRS[rng.integers(len(_HAIRS))] * rng.uniform(0.7, 1.2)
    colours["hair"] = lambda p: np.broadcast_to(hair, p.shape)
    colours |= {part: _cloth(rng) for part in ("top", "trousers", "shoes")}
    front = rng.random()
    if front < 0.4:
        colours["top"] = _printed(colours["top"], mesh, rng)
    elif front < 0.8:
        colours["top"] = _open(colours["top"], mesh, rng)
    parts = np.array([covers[part] for part in mesh.parts])[number]
    found = np.zeros((len(number), 3))
    for part, colour in colours.items():
        found[parts == part] = colour(place[parts == part])
    return found


def _mixed(colours: Float[np.ndarray, "n 3"], rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(np.full(len(colours), 0.5)) @ colours


def _cloth(rng: np.random.Generator) -> Any:
    """A function of places at rest to colours: plain, stripes, checks or spots."""
    first, second = rng.uniform(0.03, 0.95, (2, 3))
    kind = rng.integers(5)
    waves = 2 * np.pi / rng.uniform(0.04, 0.2, 3)
    shift = rng.uniform(0, 2 * np.pi, 3)
    axis = rng.integers(2)

    def colour(place: Float[np.ndarray, "hits 3"]) -> Float[np.ndarray, "hits 3"]:
        wave = np.sin(place * waves + shift)
        if kind == 2:
            mix = wave[:, axis] > 0
        elif kind == 3:
            mix = (wave[:, 0] > 0) ^ (wave[:, 1] > 0)
        elif kind == 4:
            mix = wave.prod(axis=-1) > 0.3
        else:
            mix = np.zeros(len(place), bool)
        return np.where(mix[:, None], second, first)

    return colour


def _printed(cloth: Any, mesh: Mesh, rng: np.random.Generator) -> Any:
    """The cloth with a patch on the chest."""
    low, high = _top(mesh)
    middle = low[1] + rng.uniform(0.5, 0.8) * (high[1] - low[1])
    size, ink = rng.uniform(0.06, 0.16, 2), rng.uniform(0.03, 0.95, 3)

    def colour(place: Float[np.ndarray, "hits 3"]) -> Float[np.ndarray, "hits 3"]:
        near = (place[:, 0] / size[0]) ** 2 + ((place[:, 1] - middle) / size[1]) ** 2 < 1
        front = place[:, 2] > (low[2] + high[2]) / 2
        return np.where((near & front)[:, None], ink, cloth(place))

    return colour


def _open(cloth: Any, mesh: Mesh, rng: np.random.Generator) -> Any:
    """The cloth as a jacket, open before another one."""
    low, high = _top(mesh)
    wide, under = rng.uniform(0.03, 0.1), _cloth(rng)

    def colour(place: Float[np.ndarray, "hits 3"]) -> Float[np.ndarray, "hits 3"]:
        shown = (abs(place[:, 0]) < wide) & (place[:, 2] > (low[2] + high[2]) / 2)
        return np.where(shown[:, None], under(place), cloth(place))

    return colour


def _top(mesh: Mesh) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """The corners of the box around what covers the trunk, at rest."""
    top = mesh.rest[mesh.faces[np.array(mesh.parts) == "top"]].reshape(-1, 3)
    return top.min(axis=0), top.max(axis=0)


def background(cells: int, rng: np.random.Generator) -> Float[np.ndarray, "cells cells 3"]:
    """A wall and a floor, lighter and darker at several scales, and shapes on them."""
    y, x = np.mgrid[:cells, :cells] / cells
    wall, floor = _muted(rng), _muted(rng)
    level = rng.uniform(0.4, 1.1) + rng.normal(0, 0.05) * (x - 0.5)
    image = np.where((y > level)[..., None], floor, wall)
    for grid, most in ((2, 0.15), (5, 0.12), (16, 0.08), (64, 0.05)):
        # Mostly the light changes, less the colour.
        noise = rng.normal(0, rng.uniform(0, most), (grid, grid, 1)) + rng.normal(
            0, rng.uniform(0, most / 4), (grid, grid, 3)
        )
        image = image + ndimage.zoom(noise, (cells / grid, cells / grid, 1), order=1)
    for _ in range(rng.integers(0, 12)):
        (u, v), (w, h) = rng.uniform(-0.1, 1.1, 2), rng.uniform(0.02, 0.5, 2)
        angle = rng.uniform(0, np.pi)
        along = (x - u) * np.cos(angle) + (y - v) * np.sin(angle)
        across = (y - v) * np.cos(angle) - (x - u) * np.sin(angle)
        if rng.random() < 0.5:
            inside = (abs(along) < w) & (abs(across) < h)
        else:
            inside = (along / w) ** 2 + (across / h) ** 2 < 1
        image[inside] = 0.3 * image[inside] + 0.7 * _muted(rng)
    return image


def _muted(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """A colour of rooms: some grey, and a share of any colour."""
    share = rng.uniform(0, 0.6)
    return (1 - share) * rng.uniform(0.1, 0.9) + share * rng.uniform(0.05, 0.95, 3)
