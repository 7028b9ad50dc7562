// What the page needs of three.js, from which three.min.js is bundled. To renew it, with Node.js, in
// a folder of its own with a copy of this file:
//
//   npm install three@0.187.0 esbuild@0.28.2
//   npx esbuild three_entry.mjs --bundle --minify --format=iife --global-name=THREE \
//     --charset=utf8 --legal-comments=none --outfile=three.min.js \
//     --banner:js="/*! three.js 0.187.0 and its OrbitControls, bundled by three_entry.mjs
//   $(cat node_modules/three/LICENSE) */"
export {
  BufferAttribute,
  BufferGeometry,
  CanvasTexture,
  Color,
  CylinderGeometry,
  DirectionalLight,
  DoubleSide,
  Group,
  HemisphereLight,
  InstancedMesh,
  LineBasicMaterial,
  LineSegments,
  Matrix4,
  Mesh,
  MeshLambertMaterial,
  PerspectiveCamera,
  Quaternion,
  Scene,
  SphereGeometry,
  Sprite,
  SpriteMaterial,
  Vector3,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
