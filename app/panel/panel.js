// Starts a panel, takes new data, draws when something changed.

const BLINK_MS = 500;
const MOST_PIXELS = 1_600_000; // of all cells together, so that a slider stays smooth on a slow computer

const LEGEND = new Set(["view", "scope", "clip", "average", "positive", "signed"]); // choices that legends tell of

export default placed(startPanel, (panel, { data }) => receive(panel, data), stopPanel);

function startPanel(parent) {
  const root = make("section", "panel");
  const [bar, line, grid] = [make("div", "controls"), make("div", "scale-line"), make("div", "grid")];
  const [scaleLine, message, live] = [make("span", "scale"), make("span", "message"), make("div", "live")];
  bar.setAttribute("role", "toolbar");
  message.setAttribute("role", "status");
  live.setAttribute("aria-live", "polite");
  line.append(scaleLine, message);
  root.append(bar, line, grid, live);
  parent.append(root);
  const panel = {
    root, bar, grid, scaleLine, message, live,
    places: [], updates: [], store: newStore(), front: 0, path: location.pathname,
  };
  listen(panel);
  panel.resized = new ResizeObserver(() => drawSoon(panel));
  panel.resized.observe(grid);
  // streamlit writes the address anew when a choice of the page changes; the look goes back into it
  panel.onAddress = () => panel.data && keepSoon(panel);
  window.navigation?.addEventListener("currententrychange", panel.onAddress);
  panel.blinking = setInterval(() => blink(panel), BLINK_MS);
  return panel;
}

function stopPanel(panel) {
  panel.resized.disconnect();
  clearInterval(panel.blinking);
  clearTimeout(panel.keeping);
  window.navigation?.removeEventListener("currententrychange", panel.onAddress);
  panel.root.remove();
}

/** Take a payload: decode, keep the old picture until the new one is ready, then show it at once. */
async function receive(panel, bytes) {
  if (panel.bytes && sameBytes(panel.bytes, bytes)) return;
  panel.bytes = bytes;
  let data;
  try {
    data = readPanel(bytes);
  } catch (error) {
    if (!(error instanceof PayloadError || error instanceof SyntaxError || error instanceof RangeError)) throw error;
    panel.grid.replaceChildren(make("div", "no-map", `${error.message}`));
    panel.shape = null;
    return;
  }
  try {
    data.bitmap = await createImageBitmap(new Blob([data.picture]));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    data.pictureTrouble = fill(data.texts.no_picture, { sample: data.sample });
  }
  if (panel.bytes !== bytes || !panel.root.isConnected) return; // something newer came meanwhile
  show(panel, data);
}

function show(panel, data) {
  panel.look ??= openingLook(data.known);
  panel.data = data;
  panel.root.lang = data.texts.lang;
  panel.root.setAttribute("aria-label", fill(data.texts.label, { sample: data.sample }));
  panel.store.values.clear();
  const controls = JSON.stringify([data.texts, data.rows.length, knowsDataset(data), data.colormaps.length]);
  if (controls !== panel.controls) buildControls(panel);
  else showLook(panel);
  panel.controls = controls;
  buildGrid(panel);
  writeLegends(panel);
  draw(panel);
  showPoint(panel, panel.point ?? null);
  keepSoon(panel);
  panel.root.dataset.painted = data.sample;
  performance.mark("panel-painted", { detail: data.sample });
}

/** Change part of the look: draw again with the next frame, keep it a little later. */
function changeLook(panel, changes) {
  if (Object.entries(changes).every(([name, value]) => panel.look[name] === value)) return;
  const view = panel.look.view;
  panel.look = { ...panel.look, ...changes };
  if (panel.look.view !== view) refocus(panel, () => buildGrid(panel));
  if (Object.keys(changes).some((name) => LEGEND.has(name))) writeLegends(panel);
  showLook(panel);
  drawSoon(panel);
  keepSoon(panel);
}

/** Rebuild cells without losing the keyboard: the focus goes to the first cell where it was in one. */
function refocus(panel, rebuild) {
  const focused = panel.root.getRootNode().activeElement;
  const inGrid = panel.places.some((place) => place.canvas === focused);
  rebuild();
  if (inGrid) panel.places[0]?.canvas.focus({ preventScroll: true });
}

function keepSoon(panel) {
  clearTimeout(panel.keeping);
  panel.keeping = setTimeout(() => {
    // while another page is being made ready this one is still there, but the address is no longer its own
    if (panel.root.isConnected && location.pathname === panel.path) keepLook(panel.look, panel.data.known);
  }, 300);
}

function drawSoon(panel) {
  panel.frame ??= requestAnimationFrame(() => {
    panel.frame = null;
    draw(panel);
  });
}

/** Draw every cell. */
function draw(panel) {
  if (!panel.data?.bitmap || !panel.places.length) return;
  const box = panel.places[0].frame.getBoundingClientRect();
  const fits = Math.sqrt(MOST_PIXELS / (box.width * box.height * panel.places.length));
  const ratio = Math.min(window.devicePixelRatio, Math.max(1, fits));
  const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  if (!width || !height) return; // not laid out: on a page that is not shown
  const from = performance.now();
  for (const { canvas, viewRow, column } of panel.places) {
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.context ??= canvas.getContext("2d");
    paintCell(canvas.context, panel.store, panel.data, panel.look, { viewRow, column, front: panel.front, ratio });
  }
  if (panel.point) showPoint(panel, panel.point);
  performance.measure("panel-draw", { start: from });
}

/** Show the other of two models; still under "less motion" until the reader asks for it. */
function blink(panel) {
  if (panel.look?.view !== "blink" || !panel.data?.bitmap) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches && !panel.mayBlink;
  if (!still) {
    panel.front = 1 - panel.front;
    draw(panel);
  }
  for (const part of panel.grid.querySelectorAll('.row-head[data-kind="blink"] .model')) {
    part.classList.toggle("now", part.dataset.model === panel.data.rows[panel.front].model);
  }
}
