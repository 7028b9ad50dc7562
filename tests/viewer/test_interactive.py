"""The interactive page: what is embedded in it, and, where there is a browser, what it shows."""

import base64
import colorsys
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from pose3d_jax import skeleton
from pose3d_jax.errors import UserError
from pose3d_jax.viewer import figures, interactive, scene
from pose3d_jax.viewer.scene import Mesh, Scene
from tests import scenes
from tests.walkers import WALKER, walkers

VIEWS = ("left", "</script><b>right", "behind")
METHODS = ("triangulated", "</script><script>window.broken = 1</script>")
FRAMES, PEOPLE = 5, 2
# Across the line of sight of the page's first view, so that nobody hides anybody.
ACROSS = np.array([0.68, 0.62, 0.0])


def poses():
    """Joints `[frames, people, joints, 3]`; one is missing in frame 1, one person in frame 2."""
    there = walkers(FRAMES * PEOPLE, seed=3).reshape(FRAMES, PEOPLE, WALKER.size, 3).astype(float)
    there += np.array([[-0.9], [0.9]])[:, None] * ACROSS + [0, 0, 0.85]
    there[1, 0, 3] = np.nan
    there[2, 1] = np.nan
    return there


def ring(views):
    """Cameras `[views]` with OpenCV's distortion."""
    made = scenes.ring(views, radius=5.0)
    return dataclasses.replace(made, tangential=np.full(views, 2.0, np.float32))


def shown(**changes):
    joints = poses()
    cameras = ring(3)
    keypoints = np.concatenate(
        [opencv(cameras, joints) + 2.0, np.full((FRAMES, 3, PEOPLE, WALKER.size, 1), 0.5)], axis=-1
    )
    keypoints[0, 0, 0, 1] = 0
    keypoints[:, 1] = 0
    return Scene(
        **{
            "fps": 10.0,
            "skeleton": WALKER,
            "methods": {METHODS[0]: joints, METHODS[1]: joints + 0.05},
            "cameras": cameras,
            "views": VIEWS,
            "keypoints": keypoints,
            "title": "Two & <three>",
            **changes,
        }
    )


def opencv(cameras, joints):
    """OpenCV's pixels `[frames, views, *, joints, 2]`."""
    found = []
    for view in range(len(cameras.focal)):
        matrix = np.eye(3)
        matrix[[0, 1], [0, 1]], matrix[:2, 2] = cameras.focal[view], cameras.center[view]
        pixels, _ = cv2.projectPoints(
            np.asarray(joints, float).reshape(-1, 3),
            cv2.Rodrigues(np.asarray(cameras.rotation[view], float))[0],
            np.asarray(cameras.translation[view], float),
            matrix,
            np.asarray(cameras.distortion[view], float),
        )
        found.append(pixels.reshape(*joints.shape[:-1], 2))
    return np.stack(found, axis=1)


class Parts(HTMLParser):
    """The texts of a page's elements, as browsers split it."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], ("", {}, [])
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open = (tag, dict(attrs), [])
        self.found.append(self.open)

    def handle_endtag(self, tag):
        self.open = ("", {}, [])

    def handle_data(self, data):
        self.open[2].append(data)

    def texts(self, tag, **attributes):
        return [
            "".join(text)
            for name, own, text in self.found
            if name == tag and attributes.items() <= own.items()
        ]


def embedded(page):
    (text,) = Parts(page).texts("script", id="scene")
    return json.loads(text)


def numbers(packed, *shape):
    kinds = {"f4": "<f4", "i2": "<i2", "i4": "<i4"}
    return np.frombuffer(base64.b64decode(packed["base64"]), kinds[packed["kind"]]).reshape(shape)


# ------------------------------------------------------------------------------------ what is in it


def test_what_was_given_is_in_the_page():
    given = shown()
    data = embedded(interactive.render(given))
    assert (data["fps"], data["frames"], len(data["people"])) == (10.0, FRAMES, PEOPLE)
    assert [tuple(bone) for bone in data["bones"]] == list(WALKER.bones)
    assert data["sides"] == ["middle", *["right"] * 3, *["left"] * 3, "middle"]
    assert [method["name"] for method in data["methods"]] == list(METHODS)
    pixels = opencv(given.cameras, poses())
    for method, joints in zip(data["methods"], given.methods.values(), strict=True):
        assert_array_equal(numbers(method["joints"], *joints.shape), joints.astype("f4"))
        points = numbers(method["points"], FRAMES, len(VIEWS), PEOPLE, WALKER.size, 2)
        assert_allclose(points, opencv(given.cameras, joints), atol=0.01)
    assert [view["name"] for view in data["views"]] == list(VIEWS)
    keypoints = numbers(data["keypoints"]["points"], *given.keypoints.shape)
    assert_array_equal(keypoints, given.keypoints.astype("f4"))
    # The part of each image that is shown has everybody in it, and is part of the image.
    for view, described in enumerate(data["views"]):
        left, top, width = described["near"]
        seen = pixels[:, view].reshape(-1, 2)
        seen = seen[np.isfinite(seen).all(axis=-1)]
        assert ((seen > [left, top]) & (seen < np.array([left, top]) + width)).all()
        assert left >= -0.5
        assert left + width <= 1000


def test_frusta_have_their_corners_where_the_image_has_its():
    given = shown()
    for view, described in enumerate(embedded(interactive.render(given))["views"]):
        apex, *corners = np.array(described["frustum"])
        camera = given.cameras
        centre = -np.asarray(camera.rotation[view]).T @ np.asarray(camera.translation[view])
        assert_allclose(apex, centre, atol=1e-4)
        straight = dataclasses.replace(camera, distortion=np.zeros((3, 5), np.float32))
        pixels = opencv(straight, np.array(corners)[None])[0, view]
        assert_allclose(
            pixels, [[-0.5, -0.5], [999.5, -0.5], [999.5, 1001.5], [-0.5, 1001.5]], atol=0.01
        )


def test_what_a_camera_cannot_see_has_no_reprojection():
    cameras = ring(2)
    lens = np.array([[-0.4, 0.0, 0.0, 0.0, 0.0]] * 2, np.float32)
    cameras = dataclasses.replace(cameras, distortion=lens)
    # r (1 - 0.4 r^2) grows up to r = sqrt(1 / 1.2) = 0.913.
    rays = np.array([[0, 0, 4.0], [0.9 * 4, 0, 4], [0, 0.93 * 4, 4], [0.1, 0, 0.49], [0, 0, -3]])
    rotation, translation = (
        np.asarray(x[0], float) for x in (cameras.rotation, cameras.translation)
    )
    joints = ((rays - translation) @ rotation)[None, None]
    found = interactive.reprojection(cameras, joints)[0, 0, 0]
    assert_array_equal(np.isfinite(found).all(axis=-1), [True, True, False, False, False])
    assert_allclose(found[:2], opencv(cameras, joints)[0, 0, 0, :2], atol=0.01)


def test_keypoints_may_have_joints_of_their_own():
    coco = skeleton.get("coco17")
    given = shown(keypoint_skeleton=coco, keypoints=np.ones((FRAMES, 3, PEOPLE, 17, 3)))
    keypoints = embedded(interactive.render(given))["keypoints"]
    assert (keypoints["size"], len(keypoints["bones"])) == (17, 16)
    names = [(coco.joints[i], WALKER.joints[j]) for i, j in keypoints["pairs"]]
    assert sorted(names) == sorted((name, name) for name in {*coco.joints} & {*WALKER.joints})
    assert len(names) == 6


def surface(frames=FRAMES):
    """A tetrahedron around each person's pelvis, and none where there is no person."""
    corners = 0.2 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    vertices = poses()[:frames, :, :1] + corners
    return Mesh(vertices, np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]))


def test_meshes_are_kept_to_a_tenth_of_a_millimetre():
    given = surface()
    data = embedded(interactive.render(shown(meshes={METHODS[0]: given})))
    mesh = data["methods"][0]["mesh"]
    assert data["methods"][1]["mesh"] is None
    steps = numbers(mesh["vertices"], *given.vertices.shape)
    missing = steps == mesh["missing"]
    assert_array_equal(missing, np.isnan(given.vertices))
    found = np.where(missing, np.nan, steps * np.array(mesh["step"]) + mesh["middle"])
    assert_allclose(found, given.vertices, atol=1e-4)
    assert_array_equal(numbers(mesh["faces"], -1, 3), given.faces)


def test_no_name_breaks_the_page():
    """As browsers split it: three scripts and the data, and the title as text."""
    page = interactive.render(shown())
    parts = Parts(page)
    assert len(parts.texts("script")) == 3
    assert parts.texts("title") == ["Two & <three>"]
    assert "<three>" not in page
    assert parts.texts("b") == []
    # Nothing is fetched, and the page itself forbids it.
    addresses = [a for _, own, _ in parts.found for k, a in own.items() if k in ("src", "href")]
    assert addresses == ["data:,"]
    (policy,) = (own["content"] for _, own, _ in parts.found if "http-equiv" in own)
    assert policy.startswith("default-src 'none'")


def test_three_js_is_the_version_that_its_recipe_says_with_its_licence():
    folder = Path(interactive.__file__).parent
    bundle = (folder / "three.min.js").read_text(encoding="utf-8")
    recipe = (folder / "three_entry.mjs").read_text(encoding="utf-8")
    version = re.search(r"three@([\d.]+)", recipe)[1]
    head = bundle[: bundle.index("*/")]
    assert f"three.js {version} " in head
    assert "MIT License" in head
    assert "WITHOUT WARRANTY OF ANY KIND" in head
    assert f'"{version.split(".")[1]}"' in bundle  # its REVISION
    for text in (bundle, *((folder / f).read_text() for f in ("space.js", "panels.js"))):
        assert "</script" not in text.lower()
        assert "<!--" not in text


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "no method"),
        ({"fps": 0.0}, "0.0 frames per second"),
        ({"floor": np.inf}, "floor is at inf"),
        ({"methods": {"a": poses()[:, :, :7]}}, r"a: .*\[5, 2, 7, 3\]; walker8 needs .* 8, 3\]"),
        ({"methods": {"a": poses()[:, 0]}}, r"shape \[5, 8, 3\]"),
        ({"methods": {"a": poses()[:0]}}, "give a frame and a person"),
        ({"methods": {"a": poses()[:, :0]}}, "give a frame and a person"),
        (
            {"methods": {"a": poses(), "b": poses()[1:]}},
            r"b: .*\[4, 2, 8, 3\]; give \[5, ",
        ),
        ({"methods": {"a": np.full((5, 2, 8, 3), np.nan)}}, "no joint of any frame is finite"),
        ({"cameras": None}, "views but no cameras"),
        ({"cameras": None, "views": ()}, "views but no cameras"),
        ({"views": ("left", "right")}, r"names 2 views and has cameras of shape \[3\]"),
        ({"keypoints": np.ones((5, 3, 2, 9, 3))}, r"give \[5, 3, 2, 8, 3\]"),
        ({"meshes": {"c": surface()}}, "c: has a mesh but no joints"),
        ({"meshes": {METHODS[0]: surface(4)}}, r"mesh have shape \[4, 2\]"),
        ({"meshes": {METHODS[0]: Mesh(surface().vertices, np.array([[0, 1, 4]]))}}, "beyond the 4"),
    ],
)
def test_scenes_that_do_not_belong_together_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        interactive.write(tmp_path / "viewer.html", shown(**changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("translation", np.nan, "not finite"), ("size", 0.0, r"image of \[0.0, 0.0\] pixels")],
)
def test_cameras_that_are_none_are_refused(field, value, message):
    cameras = shown().cameras
    broken = np.array(getattr(cameras, field))
    broken[1] = value
    with pytest.raises(UserError, match=message) as caught:
        interactive.render(shown(cameras=dataclasses.replace(cameras, **{field: broken})))
    assert str(caught.value).startswith(VIEWS[1])


def test_too_much_is_refused_with_how_much_less_would_do(monkeypatch):
    # Two methods of 80 joints in 3D and in three views, and keypoints in these.
    total = 4 * 80 * (2 * (3 + 2 * 3) + 3 * 3)
    monkeypatch.setattr(scene, "MAX_BYTES", total // 2)
    # Of five frames one of two would be three.
    with pytest.raises(UserError, match="2 of 5 frames; give one of 3 frames"):
        interactive.render(shown())
    monkeypatch.setattr(scene, "MAX_BYTES", total)
    interactive.render(shown())


def test_of_too_much_every_nth_frame_is_shown_in_the_same_time(monkeypatch):
    whole = shown(meshes={METHODS[1]: surface()})
    assert scene.thinned(whole) is whole
    monkeypatch.setattr(scene, "MAX_BYTES", 1)
    assert len(scene.thinned(whole).methods[METHODS[0]]) == 1
    # As above, for each of five frames; and 8 vertices, and 4 faces for all.
    each = 4 * 16 * (2 * (3 + 2 * 3) + 3 * 3) + 2 * 3 * 8
    monkeypatch.setattr(scene, "MAX_BYTES", 4 * 3 * 4 + 4 * each)
    less = scene.thinned(whole)
    data = embedded(interactive.render(less))
    assert (data["frames"], data["fps"]) == (3, 5.0)
    assert less.title == "Two & <three> (one of 2 frames)"
    joints = numbers(data["methods"][0]["joints"], 3, PEOPLE, WALKER.size, 3)
    assert_allclose(joints, whole.methods[METHODS[0]][::2], atol=1e-6)
    points = numbers(data["keypoints"]["points"], 3, 3, PEOPLE, WALKER.size, 3)
    assert_allclose(points, whole.keypoints[::2], rtol=1e-6)
    assert_allclose(less.meshes[METHODS[1]].vertices, whole.meshes[METHODS[1]].vertices[::2])


# ------------------------------------------------------------------------------------ in a browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-background-networking", "--use-gl=angle",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Chromium, with WebGL by software."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip)")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs one of {', '.join(NAMES)} on the PATH")
    with api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "viewer.html"
    interactive.write(path, shown(meshes={METHODS[1]: surface()}))
    return path


@pytest.fixture
def opened(browser, written):
    """Opens the page; nothing may be said on the console, and nothing asked of a network."""
    said, asked, contexts = [], [], []

    def open_it(**settings):
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 520}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(written.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not said
    assert {url for url in asked if not url.startswith("data:")} == {written.as_uri()}


def picture(page):
    """A screenshot `[height, width, 3]`, one pixel for a CSS pixel."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def until(page, done, seconds=10):
    """The page's policy forbids Playwright's own way to wait."""
    for _ in range(100 * seconds):
        if done():
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"not within {seconds} s")


def hue_at(image, place):
    """Of the most colourful pixel at a place or beside it, degrees; None where all are grey."""
    x, y = (int(v) for v in place)
    around = image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3) / 255
    hue, saturation, _ = max((colorsys.rgb_to_hsv(*pixel) for pixel in around), key=lambda c: c[1])
    return 360 * hue if saturation > 0.3 else None


def hue(colour):
    return 360 * colorsys.rgb_to_hsv(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0]


COLOURS = [hue(colour) for colour in figures.palette("ab").values()]


def alike(found, wanted):
    return found is not None and abs(found - wanted) < 12


def test_joints_are_where_the_data_says_and_missing_ones_nowhere(opened):
    page = opened()
    assert page.title() == "Two & <three>"
    assert page.evaluate("window.broken") is None
    assert METHODS[1] in page.locator("#methods").inner_text()
    for frame in range(FRAMES):
        page.evaluate("(frame) => viewer.show(frame)", frame)
        for method, joints in enumerate(shown().methods.values()):
            drawn = page.evaluate("(method) => viewer.positions(method)", method)
            for person in range(PEOPLE):
                for place, joint in zip(drawn[person], joints[frame, person], strict=True):
                    if np.isnan(joint).any():
                        assert place is None
                    else:
                        assert_allclose(place, joint, atol=1e-6)
        if frame != 2:  # where the second person is not there
            vertices = page.evaluate("viewer.vertices(1, 1)")
            wanted = surface().vertices[frame, 1].ravel()
            assert_allclose(vertices, wanted, atol=1e-4)


def test_pixels_have_people_s_colours_where_a_camera_would_see_their_joints(opened):
    page = opened()
    page.get_by_label(METHODS[1]).uncheck()
    page.get_by_label("Colours by person").check()
    page.evaluate("viewer.show(3)")
    # The page's own camera, by OpenCV.
    box = page.locator("#space").bounding_box()
    eye = page.evaluate("viewer.eye()")
    forward = np.subtract(eye["target"], eye["position"])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = min(box["width"], box["height"]) / 2 / np.tan(np.radians(20))
    matrix = np.diag([focal, focal, 1.0])
    matrix[:2, 2] = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    joints = poses()[3]
    wanted, _ = cv2.projectPoints(
        joints.reshape(-1, 3), cv2.Rodrigues(rotation)[0], -rotation @ eye["position"], matrix, None
    )
    wanted = wanted.reshape(PEOPLE, -1, 2)
    assert_allclose(page.evaluate("viewer.screen(0)"), wanted, atol=0.5)
    image = picture(page)
    for person in range(PEOPLE):
        for place in wanted[person]:
            assert alike(hue_at(image, place), COLOURS[person])


def test_methods_and_people_are_switched_off_and_stand_side_by_side(opened):
    page = opened()
    page.evaluate("viewer.show(4)")
    page.get_by_label("Meshes").uncheck()
    page.get_by_label("Side by side").check()
    image = picture(page)
    places = [np.array(page.evaluate(f"viewer.screen({method})")) for method in (0, 1)]
    for method, points in enumerate(places):
        assert all(alike(hue_at(image, place), COLOURS[method]) for place in points[:, 0])
    assert abs(places[0] - places[1]).max(axis=-1).min() > 100
    assert page.locator("#panes").inner_text().split("\n") == list(METHODS)
    page.get_by_label(METHODS[0]).uncheck()
    page.get_by_label("person 2").uncheck()
    assert page.evaluate("viewer.screen(0)") is None
    image = picture(page)
    (first, second) = page.evaluate("viewer.screen(1)")
    assert all(alike(hue_at(image, place), COLOURS[1]) for place in first)
    assert second == [None] * WALKER.size
    assert page.locator("#panes").inner_text() == ""


def test_views_show_the_reprojection_of_what_is_shown(opened):
    page = opened()
    page.get_by_label(METHODS[1]).uncheck()
    page.evaluate("viewer.show(3)")
    given = shown()
    pixels = opencv(given.cameras, poses())[3, 1]  # a view without keypoints, which would cover it
    for label in (None, "Whole images"):
        if label:
            page.get_by_label(label).check()
        image = picture(page)
        for person in range(PEOPLE):
            for parent, child in WALKER.bones:
                middle = (pixels[person, parent] + pixels[person, child]) / 2
                place = page.evaluate("(pixel) => viewer.onPanel(1, pixel)", middle.tolist())
                assert alike(hue_at(image, place), COLOURS[0])
    captions = page.locator("figcaption").all_inner_texts()
    # Keypoints are two pixels off in each direction.
    assert [re.search(r"[\d.]+ px|–", text)[0] for text in captions] == ["2.8 px", "–", "2.8 px"]
    assert captions[1].startswith(VIEWS[1])


def test_whole_images_are_drawn_to_scale(opened):
    page = opened()
    page.get_by_label("Whole images").check()
    picture(page)
    box = page.locator("figure canvas").first.bounding_box()
    corners = [
        page.evaluate("(p) => viewer.onPanel(0, p)", p) for p in ([-0.5, -0.5], [999.5, 1001.5])
    ]
    wanted = [[box["x"], box["y"]], [box["x"] + box["width"], box["y"] + box["height"]]]
    assert_allclose(corners, wanted, atol=1.0)


def test_time_runs_and_stops_and_goes_by_keys(opened):
    page = opened()
    frame = "viewer.state.frame"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(frame) == 1
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(frame) == FRAMES - 1
    page.keyboard.press("Home")
    assert page.evaluate(frame) == 0
    page.locator("#timeline").fill("3")
    picture(page)
    assert page.locator("#time").inner_text() == "frame 3 / 4 · 0.30 s"
    page.keyboard.press("Space")
    until(page, lambda: page.evaluate(frame) == 4)
    until(page, lambda: page.evaluate(frame) < 3)  # around the end
    page.keyboard.press("Space")
    assert not page.evaluate("viewer.state.playing")
    page.locator("#play").click()
    assert page.evaluate("viewer.state.playing")
    page.keyboard.press("Space")  # the button has the focus, and is not pressed too
    assert not page.evaluate("viewer.state.playing")


def test_dragging_turns_and_a_view_s_name_goes_to_its_camera(opened):
    page = opened()
    before = page.evaluate("viewer.eye()")
    box = page.locator("#space").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 320)
    page.mouse.up()
    after = page.evaluate("viewer.eye()")
    assert np.linalg.norm(np.subtract(before["position"], after["position"])) > 0.1
    assert_allclose(after["target"], before["target"])
    page.get_by_role("button", name=VIEWS[0]).click()
    camera = shown().cameras
    centre = -np.asarray(camera.rotation[0]).T @ np.asarray(camera.translation[0])
    there = page.evaluate("viewer.eye()")
    assert_allclose(there["position"], centre, atol=1e-4)
    forward = np.subtract(there["target"], there["position"])
    assert_allclose(forward / np.linalg.norm(forward), np.asarray(camera.rotation[0])[2], atol=0.02)
    page.keyboard.press("r")
    assert_allclose(page.evaluate("viewer.eye()")["position"], before["position"], atol=1e-4)


def test_a_telephone_in_the_dark_has_all_of_it(opened):
    page = opened(viewport={"width": 360, "height": 740}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.documentElement.scrollHeight") <= 740
    image = picture(page)
    assert image[2, 2].max() < 60
    box = page.locator("#space").bounding_box()
    assert min(box["width"], box["height"]) > 250
    for part in ("#play", "#timeline", "#speed", "#time", "#legend"):
        found = page.locator(part).bounding_box()
        assert found["x"] >= 0
        assert found["x"] + found["width"] <= 360
    page.locator("summary").click()
    page.get_by_label("person 1").uncheck()
    assert page.evaluate("viewer.state.people") == [False, True]
