// Each view's image plane: keypoints, and what the methods say of them. `interactive.js` has the data.

const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Points of a frame, a view and a person in `[frames, views, people, size, width]`. */
function pointsOf(array, size, width, view, person) {
  const before = (state.frame * data.views.length + view) * data.people.length + person;
  return Array.from({ length: size }, (_, point) => {
    const at = width * (size * before + point);
    const [x, y, confidence = 1] = array.subarray(at, at + width);
    return Number.isFinite(x + y) && confidence > 0 ? [x, y, confidence] : null;
  });
}

const keypointsOf = (view, person) =>
  data.keypoints && pointsOf(data.keypoints.points, data.keypoints.size, 3, view, person);
const reprojectionOf = (method, view, person) =>
  pointsOf(method.points, data.sides.length, 2, view, person);

function swatch(colour) {
  const mark = make("span", { className: "swatch" });
  mark.style.background = colour;
  return mark;
}

class Panel {
  constructor(view) {
    this.view = view;
    this.figure = make("figure");
    this.canvas = make("canvas", { title: "Larger or smaller" });
    this.caption = make("figcaption");
    const { name, size } = data.views[view];
    this.aspect = size[0] / size[1];
    this.canvas.style.aspectRatio = this.aspect;
    this.canvas.onclick = () => this.enlarge();
    const title = make("button", { type: "button", textContent: name, title: "Look from here" });
    title.onclick = () => space && (space.lookFrom(view), redraw());
    this.errors = make("span");
    this.caption.append(title, this.errors);
    this.figure.append(this.canvas, this.caption);
    find("views").append(this.figure);
  }

  /** Over the 3D view and back; on a narrow page, as wide as the page. */
  enlarge() {
    const large = !this.figure.matches(".large");
    panels.forEach((panel) => panel.figure.classList.toggle("large", large && panel === this));
    panels.forEach((panel) => panel.fit());
    redraw();
  }

  /** A large one takes what room there is. */
  fit() {
    const large = this.figure.matches(".large") && !NARROW.matches;
    const room = find("stage");
    const wide = Math.min(room.clientWidth - 24, (room.clientHeight - 60) * this.aspect);
    this.canvas.style.width = large ? `${wide}px` : "";
    this.figure.style.left = `${room.offsetLeft}px`;
  }

  draw() {
    const { size, near } = data.views[this.view];
    const [left, top, width] = state.whole ? [-0.5, -0.5, size[0]] : near;
    const ratio = Math.min(window.devicePixelRatio, 2);
    const across = Math.max(Math.round(this.canvas.clientWidth * ratio), 1);
    this.canvas.width = across;
    this.canvas.height = Math.max(Math.round(across / this.aspect), 1);
    this.context = this.canvas.getContext("2d");
    this.unit = ratio; // canvas pixels in a CSS pixel
    Object.assign(this, { left, top, scale: across / width });
    this.context.lineCap = "round";
    data.people.forEach((_, person) => state.people[person] && this.person(person));
    this.write();
  }

  person(person) {
    const found = keypointsOf(this.view, person);
    const ink = theme("--quiet");
    if (found) this.bones(data.keypoints.bones, found, () => ink, 1);
    data.methods.forEach((method, number) => {
      if (!state.methods[number] || !method.points) return;
      const points = reprojectionOf(method, this.view, person);
      const colour = (joint) => shade(colourOf(number, person), data.sides[joint]);
      this.bones(data.bones, points, colour, 2);
    });
    if (found) this.rings(found, ink);
  }

  /** Pixels of the image to those of the canvas. */
  place([x, y]) {
    return [(x - this.left) * this.scale, (y - this.top) * this.scale];
  }

  bones(bones, points, colour, width) {
    this.context.lineWidth = width * this.unit;
    this.context.globalAlpha = 1;
    bones.forEach(([parent, child]) => {
      if (!points[parent] || !points[child]) return;
      this.context.strokeStyle = colour(child);
      this.context.beginPath();
      this.context.moveTo(...this.place(points[parent]));
      this.context.lineTo(...this.place(points[child]));
      this.context.stroke();
    });
  }

  /** Keypoints; the surer, the darker. */
  rings(points, colour) {
    this.context.lineWidth = 1.25 * this.unit;
    this.context.strokeStyle = colour;
    points.forEach((point) => {
      if (!point) return;
      this.context.globalAlpha = 0.3 + 0.7 * Math.min(point[2], 1);
      this.context.beginPath();
      this.context.arc(...this.place(point), 2.6 * this.unit, 0, 2 * Math.PI);
      this.context.stroke();
    });
    this.context.globalAlpha = 1;
  }

  /** How far from its keypoints each method's reprojection is, in the mean. */
  write() {
    this.errors.replaceChildren();
    if (!data.keypoints) return;
    data.methods.forEach((method, number) => {
      if (!state.methods[number]) return;
      const away = data.people.flatMap((_, person) => {
        if (!state.people[person]) return [];
        const found = keypointsOf(this.view, person);
        const said = reprojectionOf(method, this.view, person);
        return data.keypoints.pairs
          .map(([keypoint, joint]) => [found[keypoint], said[joint]])
          .filter(([a, b]) => a && b)
          .map(([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]));
      });
      const mean = away.reduce((sum, one) => sum + one, 0) / away.length;
      const title = `${method.name}: mean distance from the keypoints`;
      const said = make("span", { className: "error", title });
      if (data.methods.length > 1) said.append(swatch(method.colour));
      said.append(away.length ? `${mean.toFixed(1)} px` : "–");
      this.errors.append(said, " ");
    });
  }
}
