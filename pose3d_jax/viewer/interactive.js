// The page: data, legend, time. `Space` of space.js is the 3D, `Panel` of panels.js a view.

const PLAY = "M3 1.5v13l11-6.5z";
const PAUSE = "M2.5 1.5h4v13h-4zM9.5 1.5h4v13h-4z";
const NARROW = matchMedia("(max-width: 46rem)");
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

const find = (id) => document.getElementById(id);
const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

// --------------------------------------------------------------------------------------- the data

const KINDS = { f4: Float32Array, i2: Int16Array, i4: Uint32Array };

/** Numbers from base64; little-endian, as all browsers' machines are. */
function unpack(_, value) {
  if (!value || typeof value !== "object" || !("base64" in value)) return value;
  const bytes = Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0));
  return new KINDS[value.kind](bytes.buffer);
}

const data = JSON.parse(find("scene").textContent, unpack);
const state = {
  frame: 0,
  playing: false,
  speed: 1,
  byPerson: data.methods.length === 1,
  split: false,
  whole: false,
  cameras: true,
  meshes: true,
  methods: data.methods.map(() => true),
  people: data.people.map(() => true),
};

const colourOf = (method, person) =>
  (state.byPerson ? data.people[person] : data.methods[method]).colour;

// ------------------------------------------------------------------------------------- the legend

function box(where, text, checked, changed, mark) {
  const label = make("label");
  const input = make("input", { type: "checkbox", checked });
  input.onchange = () => (changed(input.checked), redraw());
  label.append(input, ...(mark ? [mark] : []), make("span", { textContent: text }));
  find(where).append(label);
}

/** The boxes of methods or of people. */
function choices(kind) {
  find(kind).hidden = kind === "people" && data.people.length === 1;
  data[kind].forEach((one, i) =>
    box(kind, one.name, true, (on) => (state[kind][i] = on), swatch(one.colour)),
  );
}

/** What colours tell apart has them in the legend. */
function colours() {
  ["methods", "people"].forEach((kind) => {
    const own = state.byPerson === (kind === "people");
    find(kind).querySelectorAll(".swatch").forEach((mark) => (mark.hidden = !own));
  });
  space?.bodies.forEach((one, method) => one.paint((person) => colourOf(method, person)));
}

function legend() {
  const several = data.methods.length > 1;
  choices("methods");
  choices("people");
  if (several) box("shown", "Side by side", false, (on) => (state.split = on));
  if (several && data.people.length > 1) {
    box("shown", "Colours by person", false, (on) => ((state.byPerson = on), colours()));
  }
  if (data.views.length) box("shown", "Cameras", true, (on) => (state.cameras = on));
  if (data.views.length) box("shown", "Whole images", false, (on) => (state.whole = on));
  if (data.methods.some((method) => method.mesh)) {
    box("shown", "Meshes", true, (on) => (state.meshes = on));
  }
  find("shown").hidden = find("shown").children.length === 1;
  const notes = ["The right side is darker. Grid: 1\u00a0m."];
  if (data.keypoints) notes.push("Grey in the views: keypoints; coloured: reprojection.");
  notes.push("Drag: turn. Wheel or pinch: nearer. Right drag or two fingers: move.");
  notes.push("Space: play. ← →: a frame.");
  find("notes").textContent = notes.join("\n");
  find("legend").open = !matchMedia("(max-width: 60rem)").matches;
}

// ---------------------------------------------------------------------------------- time and frames

/** Shows a frame; before the first comes the last. */
function show(frame) {
  const whole = Math.round(frame);
  state.frame = ((whole % data.frames) + data.frames) % data.frames;
  redraw();
}

function play(on) {
  state.playing = on && data.frames > 1;
  find("sign").setAttribute("d", state.playing ? PAUSE : PLAY);
  find("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
  if (!state.playing) return;
  let [before, due] = [performance.now(), 0];
  const tick = (now) => {
    if (!state.playing) return;
    due += (Math.max(now - before, 0) / 1000) * data.fps * state.speed;
    before = now;
    if (due >= 1) {
      show(state.frame + Math.floor(due));
      due %= 1;
    }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  // A control that was reached by keys is worked by them.
  const reached = "button:focus-visible, [type=checkbox]:focus-visible, summary:focus-visible";
  if (event.key === " " && event.target.matches(reached)) return;
  const step = event.shiftKey ? 10 : 1;
  const actions = {
    " ": () => play(!state.playing),
    ArrowRight: () => (play(false), show(state.frame + step)),
    ArrowLeft: () => (play(false), show(state.frame - step)),
    Home: () => show(0),
    End: () => show(data.frames - 1),
    r: () => (space?.reset(), redraw()),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

// ------------------------------------------------------------------------------------ all together

const due = new Set();

/** Draws once, before the browser's next picture: all, or `drawSpace` alone. */
function redraw(what = draw) {
  if (!due.size) {
    requestAnimationFrame(() => {
      const [first] = due.has(draw) ? [draw] : due;
      due.clear();
      first();
    });
  }
  due.add(what);
}

function draw() {
  find("timeline").value = state.frame;
  const digits = String(data.frames - 1).length;
  const number = String(state.frame).padStart(digits, "\u2007");
  const seconds = (state.frame / data.fps).toFixed(2);
  find("time").textContent = `frame ${number} / ${data.frames - 1} · ${seconds} s`;
  panels.forEach((panel) => panel.draw());
  drawSpace();
}

function drawSpace() {
  if (!space) return;
  space.draw(state);
  const panes = space.panes(state);
  find("panes").replaceChildren(
    ...(panes.length > 1 ? panes : []).map(({ methods: [method], ...pane }) => {
      const title = make("div", { textContent: data.methods[method].name });
      const [left, top, width, height] = [pane.x, pane.y, pane.width + 1, pane.height];
      Object.entries({ left, top, width, height }).forEach(([k, v]) => (title.style[k] = `${v}px`));
      return title;
    }),
  );
}

function begin() {
  try {
    return new Space(find("space"), data, () => redraw(drawSpace));
  } catch (error) {
    console.warn(error);
    find("fault").hidden = false;
    return null;
  }
}

const space = begin();
find("views").classList.toggle("several", data.views.length > 2);
const panels = data.views.map((_, view) => new Panel(view));
legend();
colours();

find("timeline").max = data.frames - 1;
find("timeline").oninput = (event) => show(Number(event.target.value));
find("play").onclick = () => play(!state.playing);
find("reset").onclick = () => (space?.reset(), redraw());
SPEEDS.forEach((speed) =>
  find("speed").append(new Option(`${speed}×`, speed, false, speed === 1)),
);
find("speed").onchange = (event) => (state.speed = Number(event.target.value));
document.addEventListener("keydown", pressed);
document.addEventListener("keyup", (event) => {
  // Firefox presses a button when the key goes up.
  if (event.key === " " && event.target.matches("button:not(:focus-visible)")) event.preventDefault();
});
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => (space?.theme(), redraw()));
new ResizeObserver(() => {
  space?.resize();
  panels.forEach((panel) => panel.fit());
  redraw();
}).observe(find("stage"));
new ResizeObserver(() => redraw()).observe(find("views"));
play(false);
draw();

// For whoever wants to look at the page with a program.
window.viewer = {
  state,
  show: (frame) => (show(frame), draw()),
  play,
  positions: (method) => space.bodies[method].positions(),
  vertices: (method, person) => space.bodies[method].vertices(person),
  eye: () => ({ position: space.camera.position.toArray(), target: space.controls.target.toArray() }),
  screen: (method) => space.screen(method, state),
  // Where on the page a pixel of a view is, CSS pixels.
  onPanel: (view, pixel) => {
    const { left, top, width } = panels[view].canvas.getBoundingClientRect();
    const [x, y] = panels[view].place(pixel).map((at) => (at * width) / panels[view].canvas.width);
    return [left + x, top + y];
  },
};
