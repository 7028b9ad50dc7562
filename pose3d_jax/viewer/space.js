"use strict";
// The 3D view: skeletons, meshes, cameras and a floor, as three.js draws them. World z is up.

const JOINT_RADIUS = 0.024; // metres
const BONE_RADIUS = 0.013;
const FIELD = 40; // degrees, of the one who looks
const FROM = new THREE.Vector3(0.62, -0.68, 0.4).normalize();
const UP = new THREE.Vector3(0, 1, 0); // the axis of three.js's cylinders
const SHADES = { left: 1, middle: 0.8, right: 0.5 }; // of light; the colour stays

/** A colour on one side of the body, as CSS names it. */
function shade(colour, side) {
  return `#${new THREE.Color(colour).multiplyScalar(SHADES[side]).getHexString()}`;
}

/** A joint of a method at a frame, or null where it is not there. */
function jointAt(data, method, frame, person, joint) {
  const at = 3 * ((frame * data.people.length + person) * data.sides.length + joint);
  const [x, y, z] = data.methods[method].joints.subarray(at, at + 3);
  return Number.isFinite(x + y + z) ? new THREE.Vector3(x, y, z) : null;
}

/** Joints and bones of one method: two meshes, of which each joint or bone is an instance. */
class Bodies {
  constructor(data, method) {
    Object.assign(this, { data, method, group: new THREE.Group() });
    const people = data.people.length;
    const instances = (geometry, count) => {
      const mesh = new THREE.InstancedMesh(geometry, new THREE.MeshLambertMaterial(), count);
      mesh.frustumCulled = false; // its bounds are those of the first frame
      this.group.add(mesh);
      return mesh;
    };
    const cylinder = new THREE.CylinderGeometry(BONE_RADIUS, BONE_RADIUS, 1, 12);
    const sphere = new THREE.SphereGeometry(JOINT_RADIUS, 20, 14);
    this.joints = instances(sphere, people * data.sides.length);
    this.bones = instances(cylinder, people * data.bones.length);
    const { mesh } = data.methods[method];
    this.surfaces = mesh ? data.people.map(() => surface(mesh)) : [];
    this.surfaces.forEach((one) => this.group.add(one));
  }

  /** Puts everything where it is at a frame; what is missing has no size. */
  move(frame, state) {
    const { data, method } = this;
    const now = [frame, state.meshes, ...state.people].join();
    if (now === this.before) return;
    this.before = now;
    const matrix = new THREE.Matrix4();
    const turn = new THREE.Quaternion();
    const nothing = new THREE.Matrix4().makeScale(0, 0, 0);
    data.people.forEach((_, person) => {
      const points = data.sides.map((_, joint) =>
        state.people[person] ? jointAt(data, method, frame, person, joint) : null,
      );
      points.forEach((p, joint) => {
        const placed = p ? matrix.makeTranslation(p.x, p.y, p.z) : nothing;
        this.joints.setMatrixAt(person * points.length + joint, placed);
      });
      data.bones.forEach(([parent, child], bone) => {
        const [a, b] = [points[parent], points[child]];
        const along = a && b ? b.clone().sub(a) : null;
        const length = along ? along.length() : 0;
        if (length > 0) {
          turn.setFromUnitVectors(UP, along.divideScalar(length));
          matrix.compose(a.clone().lerp(b, 0.5), turn, new THREE.Vector3(1, length, 1));
        }
        this.bones.setMatrixAt(person * data.bones.length + bone, length > 0 ? matrix : nothing);
      });
      const one = this.surfaces[person];
      if (one) {
        const wanted = state.people[person] && state.meshes;
        one.visible = wanted && moveSurface(one, data, method, frame, person);
      }
    });
    this.joints.instanceMatrix.needsUpdate = true;
    this.bones.instanceMatrix.needsUpdate = true;
  }

  /** `colour(person)` is a CSS colour. */
  paint(colour) {
    const { data } = this;
    const paint = (mesh, number, person, joint) =>
      mesh.setColorAt(number, new THREE.Color(shade(colour(person), data.sides[joint])));
    data.people.forEach((_, person) => {
      data.sides.forEach((_, joint) =>
        paint(this.joints, person * data.sides.length + joint, person, joint),
      );
      data.bones.forEach(([, child], bone) =>
        paint(this.bones, person * data.bones.length + bone, person, child),
      );
      this.surfaces[person]?.material.color.set(colour(person));
    });
    this.joints.instanceColor.needsUpdate = true;
    this.bones.instanceColor.needsUpdate = true;
  }

  /** What a person's mesh has, x, y, z after one another. */
  vertices(person) {
    return Array.from(this.surfaces[person].geometry.attributes.position.array);
  }

  /** Where the joints are drawn: `[people][joints]` of [x, y, z] or null. */
  positions() {
    const matrix = new THREE.Matrix4();
    const size = this.data.sides.length;
    return this.data.people.map((_, person) =>
      this.data.sides.map((_, joint) => {
        this.joints.getMatrixAt(person * size + joint, matrix);
        return matrix.elements[0] ? matrix.elements.slice(12, 15) : null;
      }),
    );
  }
}

/** One person's mesh, half transparent, so that the skeleton shows. */
function surface(mesh) {
  const geometry = new THREE.BufferGeometry();
  const places = new THREE.BufferAttribute(new Float32Array(3 * mesh.size), 3);
  geometry.setAttribute("position", places);
  geometry.setIndex(new THREE.BufferAttribute(mesh.faces, 1));
  const look = { transparent: true, opacity: 0.45, side: THREE.DoubleSide };
  const made = new THREE.Mesh(geometry, new THREE.MeshLambertMaterial(look));
  made.frustumCulled = false;
  return made;
}

/** Moves a mesh to a frame; false where the person is not there. */
function moveSurface(one, data, method, frame, person) {
  const { mesh } = data.methods[method];
  const count = 3 * mesh.size;
  const start = (frame * data.people.length + person) * count;
  if (mesh.vertices[start] === mesh.missing) return false;
  const { position } = one.geometry.attributes;
  for (let i = 0; i < count; i += 1) {
    position.array[i] = mesh.vertices[start + i] * mesh.step[i % 3] + mesh.middle[i % 3];
  }
  position.needsUpdate = true;
  one.geometry.computeVertexNormals();
  return true;
}

function lines(ends, material) {
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(ends.flat(2)), 3));
  return new THREE.LineSegments(geometry, material);
}

/** Lines a metre apart. */
function floorGrid([x, y], z, reach, material) {
  const [left, near] = [Math.floor(x - reach), Math.floor(y - reach)];
  const [right, far] = [Math.ceil(x + reach), Math.ceil(y + reach)];
  const ends = [];
  for (let i = left; i <= right; i += 1) ends.push([[i, near, z], [i, far, z]]);
  for (let i = near; i <= far; i += 1) ends.push([[left, i, z], [right, i, z]]);
  return lines(ends, material);
}

/** A camera's pyramid, with a flag on the image's upper edge. */
function frustum([apex, ...corners], material) {
  const [a, b] = corners; // the upper edge
  const middle = [0, 1, 2].map((i) => (a[i] + b[i]) / 2);
  const down = [0, 1, 2].map((i) => corners[3][i] - a[i]);
  const tip = middle.map((m, i) => m - 0.35 * down[i]);
  const edges = corners.map((corner, i) => [corner, corners[(i + 1) % 4]]);
  return lines([...corners.map((corner) => [apex, corner]), ...edges, [a, tip], [tip, b]], material);
}

/** A name that has one size wherever it is. */
function nameTag(text) {
  const material = new THREE.SpriteMaterial({ sizeAttenuation: false, depthTest: false });
  const sprite = new THREE.Sprite(material);
  sprite.userData.write = (colour) => {
    const canvas = document.createElement("canvas");
    const font = "600 32px system-ui, sans-serif";
    let context = canvas.getContext("2d");
    context.font = font;
    canvas.width = Math.min(Math.ceil(context.measureText(text).width) + 8, 1024);
    canvas.height = 44;
    context = canvas.getContext("2d");
    Object.assign(context, { font, fillStyle: colour, textBaseline: "middle" });
    context.fillText(text, 4, 22, 1016);
    material.map?.dispose();
    material.map = new THREE.CanvasTexture(canvas);
    material.map.colorSpace = "srgb";
    material.needsUpdate = true;
    sprite.userData.aspect = canvas.width / canvas.height;
  };
  return sprite;
}

/** The whole 3D view on a canvas; null where the browser has no WebGL. */
class Space {
  constructor(canvas, data, changed) {
    Object.assign(this, { canvas, data });
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.renderer.setScissorTest(true);
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(FIELD, 1, 0.02, 500);
    this.camera.up.set(0, 0, 1);
    // Together no more than pi, at which a surface has its own colour.
    const sun = new THREE.DirectionalLight(0xffffff, 0.5);
    sun.position.set(2, -3, 5);
    this.lamp = new THREE.DirectionalLight(0xffffff, 0.9);
    this.scene.add(sun, this.lamp, this.lamp.target, new THREE.HemisphereLight(0xffffff, 0xffffff, 1.7));

    this.bodies = data.methods.map((_, method) => new Bodies(data, method));
    this.bodies.forEach((one) => this.scene.add(one.group));
    this.gridLook = new THREE.LineBasicMaterial();
    this.scene.add(floorGrid(data.middle, data.floor, data.ground, this.gridLook));
    this.cameraLook = new THREE.LineBasicMaterial();
    this.rig = new THREE.Group();
    this.tags = data.views.map(({ name, frustum: [apex] }) => {
      const tag = nameTag(name);
      tag.position.fromArray(apex);
      tag.center.set(0.5, -0.6);
      return tag;
    });
    const pyramids = data.views.map((view) => frustum(view.frustum, this.cameraLook));
    [...pyramids, ...this.tags].forEach((part) => this.rig.add(part));
    this.scene.add(this.rig);

    this.controls = new THREE.OrbitControls(this.camera, canvas);
    this.resize();
    this.theme();
    this.reset();
    this.controls.addEventListener("change", changed);
  }

  /** Everybody in the picture, from above and the side. */
  reset() {
    const away = this.data.reach / Math.tan((FIELD * Math.PI) / 360);
    this.controls.target.fromArray(this.data.middle);
    this.camera.position.copy(FROM).multiplyScalar(away).add(this.controls.target);
    this.controls.update();
  }

  /** From where a camera stands, towards where it looks. */
  lookFrom(view) {
    const [apex, ...corners] = this.data.views[view].frustum.map((p) => new THREE.Vector3(...p));
    const forward = corners.reduce((sum, corner) => sum.add(corner), new THREE.Vector3());
    forward.divideScalar(4).sub(apex).normalize();
    const middle = new THREE.Vector3(...this.data.middle);
    const away = Math.max(middle.sub(apex).dot(forward), 0.5);
    this.controls.target.copy(apex).addScaledVector(forward, away);
    this.camera.position.copy(apex);
    this.controls.update();
  }

  resize() {
    this.renderer.setSize(this.canvas.clientWidth, this.canvas.clientHeight, false);
  }

  /** Takes the page's colours. */
  theme() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.gridLook.color.set(colour("--line"));
    this.cameraLook.color.set(colour("--quiet"));
    this.tags.forEach((tag) => tag.userData.write(colour("--quiet")));
  }

  /** The parts of the canvas, CSS pixels from its upper left, and the methods in each. */
  panes(state) {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const shown = this.data.methods.map((_, i) => i).filter((i) => state.methods[i]);
    const parts = state.split && shown.length > 1 ? shown.map((i) => [i]) : [shown];
    // As many columns as leave most room to each.
    const room = parts.map((_, i) => Math.min(width / (i + 1), height / Math.ceil(parts.length / (i + 1))));
    const columns = room.indexOf(Math.max(...room)) + 1;
    const rows = Math.ceil(parts.length / columns);
    return parts.map((methods, i) => ({
      methods,
      x: (width * (i % columns)) / columns,
      y: (height * Math.floor(i / columns)) / rows,
      width: width / columns,
      height: height / rows,
    }));
  }

  draw(state) {
    this.rig.visible = state.cameras;
    this.bodies.forEach((one) => one.move(state.frame, state));
    this.renderer.setScissor(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    this.renderer.clear();
    this.panes(state).forEach((pane) => {
      this.aim(pane);
      this.bodies.forEach((one, i) => (one.group.visible = pane.methods.includes(i)));
      const box = [pane.x, this.canvas.clientHeight - pane.y - pane.height, pane.width, pane.height];
      this.renderer.setViewport(...box);
      this.renderer.setScissor(...box);
      this.renderer.render(this.scene, this.camera);
    });
  }

  aim(pane) {
    this.camera.aspect = Math.max(pane.width, 1) / Math.max(pane.height, 1);
    this.camera.zoom = Math.min(this.camera.aspect, 1); // the field is that of the shorter side
    this.camera.updateProjectionMatrix();
    this.camera.updateMatrixWorld();
    this.lamp.position.copy(this.camera.position);
    this.lamp.target.position.copy(this.controls.target);
    const field = (2 * Math.tan((FIELD * Math.PI) / 360)) / this.camera.zoom;
    const size = (17 / Math.max(pane.height, 1)) * field;
    this.tags.forEach((tag) => tag.scale.set(size * tag.userData.aspect, size, 1));
  }

  /** Where a method's joints are on the page, CSS pixels: `[people][joints]` of [x, y] or null. */
  screen(method, state) {
    const pane = this.panes(state).find(({ methods }) => methods.includes(method));
    if (!pane) return null;
    this.aim(pane);
    const { left, top } = this.canvas.getBoundingClientRect();
    return this.bodies[method].positions().map((points) =>
      points.map((place) => {
        if (!place) return null;
        const { x, y } = new THREE.Vector3(...place).project(this.camera);
        return [left + pane.x + ((x + 1) / 2) * pane.width, top + pane.y + ((1 - y) / 2) * pane.height];
      }),
    );
  }
}
