// Starts a sheet, takes new data, draws when something changed.

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export default placed(startView, (view, { data, setTriggerValue }) => {
  view.send = setTriggerValue;
  receive(view, data);
}, stopView);

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** Streamlit must not take a key that was meant for a map: left and right step through the images there. */
function swallow(event) {
  event.stopPropagation();
  event.preventDefault();
}

function startView(parent) {
  const [root, large, small] = [make("section", "sheet"), make("div", "large"), make("div", "small")];
  const [readout, field, canvas, marks, live] = [make("div", "readout"), make("div", "field"), make("canvas"),
    make("div", "marks"), make("div", "live")];
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  readout.setAttribute("aria-live", "polite");
  live.setAttribute("aria-live", "polite");
  field.append(canvas, marks);
  small.append(readout, field);
  root.append(large, small, live);
  parent.append(root);
  const view = { root, large, small, readout, canvas, marks, live, figures: [], pointed: null };
  listenToGrid(view);
  view.resized = new ResizeObserver(() => drawSoon(view));
  view.resized.observe(root);
  view.dark = matchMedia("(prefers-color-scheme: dark)");
  view.onDark = () => setTimeout(() => drawSoon(view), 300); // streamlit sets its colours a little later
  view.dark.addEventListener("change", view.onDark);
  return view;
}

function stopView(view) {
  view.resized.disconnect();
  view.dark.removeEventListener("change", view.onDark);
  view.root.remove();
}

async function receive(view, bytes) {
  view.bytes = bytes;
  const data = readSheet(bytes);
  [data.pictureBitmap, data.greyBitmap] = await Promise.all(
    [data.picture, data.grey].map((png) => createImageBitmap(new Blob([png], { type: "image/png" }))));
  if (view.bytes !== bytes || !view.root.isConnected) return; // something newer came meanwhile
  view.data = data;
  view.root.lang = data.texts.lang;
  view.root.classList.toggle("with-small", data.small);
  view.small.hidden = !data.small;
  view.canvas.setAttribute("aria-label", data.texts.small);
  if (view.pointed && !data.models[view.pointed.number]) view.pointed = null;
  keepFocus(view, () => buildLarge(view));
  draw(view);
  view.root.dataset.drawn = String(Number(view.root.dataset.drawn ?? 0) + 1);
}

/** Rebuild the enlarged maps without losing the keyboard. */
function keepFocus(view, rebuild) {
  const focused = view.root.getRootNode().activeElement;
  const before = view.figures.find((figure) => figure.canvas === focused);
  rebuild();
  if (!before) return;
  view.figures[before.number]?.canvas.focus({ preventScroll: true });
  pointAtPatch(view, before.patch);
}

function draw(view) {
  if (!view.data || !view.root.clientWidth) return;
  drawLarge(view);
  if (view.data.small) {
    drawGrid(view);
    pointAt(view, view.pointed);
  }
}

function drawSoon(view) {
  view.frame ??= requestAnimationFrame(() => {
    view.frame = null;
    draw(view);
  });
}
