// Wheel, drag, pinch, keys and the pointer's crosshair. What one cell is told holds for all.

const DIVIDER_REACH = 14;
const PAN_STEP = 0.15;

const SLIDER_KEYS = { o: ["opacity", -0.1], O: ["opacity", 0.1], t: ["threshold", -0.05], T: ["threshold", 0.05],
  q: ["clip", -0.5], Q: ["clip", 0.5], i: ["brightness", -0.1], I: ["brightness", 0.1],
  u: ["contrast", -0.1], U: ["contrast", 0.1] };
const TOGGLE_KEYS = { c: "contour", g: "grid", a: "average", n: "smooth", m: "region", v: "crop" };
const VIEW_KEYS = { d: "difference", s: "swipe", b: "blink" };

/** Listen on the whole panel, once; cells come and go. */
function listen(panel) {
  const { root, grid } = panel;
  panel.pointers = new Map();
  grid.addEventListener("wheel", (event) => wheel(panel, event), { passive: false });
  grid.addEventListener("pointerdown", (event) => press(panel, event));
  grid.addEventListener("pointermove", (event) => move(panel, event));
  for (const name of ["pointerup", "pointercancel"]) {
    grid.addEventListener(name, (event) => panel.pointers.delete(event.pointerId));
  }
  grid.addEventListener("pointerleave", () => showPoint(panel, null));
  grid.addEventListener("dblclick", (event) => { if (placeOf(panel, event)) changeLook(panel, NO_ZOOM); });
  root.addEventListener("keydown", (event) => pressKey(panel, event));
}

/** The cell under an event and where in it, as shares (u, v) of its width and height; null beside the cells. */
function placeOf(panel, event) {
  const place = panel.places.find((one) => one.canvas === event.target);
  if (!place) return null;
  const box = place.canvas.getBoundingClientRect();
  return { place, u: (event.clientX - box.left) / box.width, v: (event.clientY - box.top) / box.height, box };
}

function wheel(panel, event) {
  const at = placeOf(panel, event);
  if (!at || (event.deltaY > 0 && panel.look.zoom === 1)) return; // nothing to zoom out of: the page scrolls
  event.preventDefault();
  const pixels = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
  changeLook(panel, zoomAbout(panel.look, Math.exp(-pixels * 0.002), at.u, at.v));
  point(panel, at);
}

function press(panel, event) {
  const at = placeOf(panel, event);
  if (!at || event.button > 0) return;
  at.place.canvas.focus({ preventScroll: true });
  at.place.canvas.setPointerCapture(event.pointerId);
  const swipes = at.place.viewRow.kind === "swipe" && at.place.column;
  const near = Math.abs(at.u - panel.look.divider) * at.box.width < DIVIDER_REACH;
  const divides = Boolean(swipes) && (near || panel.look.zoom === 1);
  panel.pointers.set(event.pointerId, { u: at.u, v: at.v, divides });
  if (divides) changeLook(panel, { divider: clampShare(at.u) });
}

function clampShare(share) {
  return Math.min(Math.max(share, 0), 1);
}

function move(panel, event) {
  const at = placeOf(panel, event);
  if (!at) return showPoint(panel, null);
  const before = panel.pointers.get(event.pointerId);
  if (!before) return point(panel, at);
  const others = [...panel.pointers].filter(([id]) => id !== event.pointerId).map(([, pointer]) => pointer);
  const moved = { ...before, u: at.u, v: at.v };
  panel.pointers.set(event.pointerId, moved);
  if (others.length) pinch(panel, before, moved, others[0], at.box);
  else if (before.divides) changeLook(panel, { divider: clampShare(at.u) });
  else pan(panel, before.u - at.u, before.v - at.v);
  point(panel, at);
}

/** Move the view by shares of its own size. */
function pan(panel, du, dv) {
  const { zoom, x, y } = panel.look;
  if (zoom === 1) return;
  changeLook(panel, centred({ zoom, x: x + du / zoom, y: y + dv / zoom }));
}

/** Two fingers: zoom by how their distance changed, about the point between them. */
function pinch(panel, before, now, other, box) {
  const distance = (a) => Math.hypot((a.u - other.u) * box.width, (a.v - other.v) * box.height) || 1;
  const factor = distance(now) / distance(before);
  changeLook(panel, zoomAbout(panel.look, factor, (now.u + other.u) / 2, (now.v + other.v) / 2));
}

/** The crosshair at a place of a cell. */
function point(panel, { u, v }) {
  const [x0, y0, x1, y1] = visibleRect(panel.look);
  showPoint(panel, { x: x0 + u * (x1 - x0), y: y0 + v * (y1 - y0) });
}

/** Keys while the focus is inside. A field keeps its own, streamlit leaves it those; what we use it must not see:
 * its C clears caches, its arrows step. */
function pressKey(panel, event) {
  if (event.target.matches?.("input, select")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (actOnKey(panel, event)) {
    event.stopPropagation();
    event.preventDefault();
  }
}

/** Do what a key asks for; false for a key that is not ours. */
function actOnKey(panel, event) {
  const { look } = panel;
  const { key } = event;
  const onCanvas = panel.places.some((one) => one.canvas === event.target);
  const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (arrow) {
    if (!onCanvas || (look.zoom === 1 && !event.shiftKey)) return false; // left and right step through the images
    if (event.shiftKey) walk(panel, ...arrow);
    else pan(panel, arrow[0] * PAN_STEP, arrow[1] * PAN_STEP);
  } else if (key in SLIDER_KEYS) {
    const [name, step] = SLIDER_KEYS[key];
    const { low, high } = LOOK_FIELDS[name];
    changeLook(panel, { [name]: Math.min(Math.max(Number((look[name] + step).toFixed(3)), low), high) });
  } else if (key in TOGGLE_KEYS) {
    changeLook(panel, { [TOGGLE_KEYS[key]]: !look[TOGGLE_KEYS[key]] });
  } else if (key in VIEW_KEYS) {
    if (panel.data.rows.length > 1) chooseView(panel, look.view === VIEW_KEYS[key] ? "side" : VIEW_KEYS[key]);
  } else if (key === "e") {
    const scopes = Object.keys(SCOPES).filter((scope) => scope !== "dataset" || knowsDataset(panel.data));
    changeLook(panel, { scope: after(scopes, scopeOf(panel.data, look)) });
  } else if (key === "p") {
    const { positive, signed } = panel.data.known;
    changeLook(panel, { positive: after(positive, look.positive), signed: after(signed, look.signed) });
  } else if (key === "0") changeLook(panel, NO_ZOOM);
  else if (key === "+" || key === "=") changeLook(panel, zoomAbout(look, ZOOM_STEP, 0.5, 0.5));
  else if (key === "-") changeLook(panel, zoomAbout(look, 1 / ZOOM_STEP, 0.5, 0.5));
  else if (key === "f") changeFullscreen(panel);
  else if (key === "x") panel.bar.querySelector('[data-control="more"]').click();
  else return false;
  return true;
}

function after(list, present) {
  return list[(list.indexOf(present) + 1) % list.length];
}

/** Step the crosshair from patch to patch and read its numbers out. */
function walk(panel, across, down) {
  const { data } = panel;
  const [h, w] = data.grid;
  const at = (panel.point && patchAt(data, panel.point)) ?? { row: Math.floor(h / 2), column: Math.floor(w / 2) };
  const row = Math.min(Math.max(at.row + down, 0), h - 1);
  const column = Math.min(Math.max(at.column + across, 0), w - 1);
  const [x0, y0, x1, y1] = data.crop;
  showPoint(panel, { x: x0 + ((column + 0.5) / w) * (x1 - x0), y: y0 + ((row + 0.5) / h) * (y1 - y0) });
  const read = panel.places.filter((place) => place.column).map(({ viewRow, column: method, readout }) =>
    `${viewRow.rows.map((one) => one.label).join(" | ")}, ${method.label}: ${readout.textContent}`);
  panel.live.textContent = read.join("; ");
}
