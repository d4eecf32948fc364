// The enlarged maps, one per model, with their scale and what went to other tokens than patches.

const KIND_COLOURS = { cls: "#4c5a67", registers: "#8a949e", prompts: "#8e3fb0", patches: "#b9c4cd" };

/** Build a figure per model, and one for the picture itself. */
function buildLarge(view) {
  const { data } = view;
  const input = make("figure", "one");
  input.append(make("figcaption", "title", data.texts.input));
  view.input = make("canvas");
  view.input.setAttribute("role", "img");
  view.input.setAttribute("aria-label", data.texts.input_alt);
  input.append(framed(view.input));
  view.figures = data.models.map((model, number) => buildFigure(view, model, number));
  view.large.replaceChildren(input, ...view.figures.map((figure) => figure.root));
}

function framed(canvas) {
  const frame = make("div", "frame");
  frame.append(canvas);
  return frame;
}

function buildFigure(view, model, number) {
  const root = make("figure", "one");
  const title = make("figcaption", "title");
  const dot = make("span", "dot");
  dot.style.background = model.colour;
  const [where, canvas, mark, legend] = [make("span", "where"), make("canvas"), make("div", "patch"), make("div", "legend")];
  title.append(dot, make("b", "", model.label), where);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const frame = framed(canvas);
  const [asked, readout] = [make("div", "patch asked"), make("div", "value")];
  frame.append(mark, asked, readout);
  root.append(title, frame, legend);
  const figure = { root, where, canvas, mark, asked, readout, legend, number, patch: null };
  listenToFigure(view, figure);
  return figure;
}

/** Draw all enlarged maps for the chosen block and head. */
function drawLarge(view) {
  const { data } = view;
  const width = Math.floor(view.input.parentElement.clientWidth);
  const height = Math.round((width * data.size[0]) / data.size[1]);
  const input = sized(view.input, width, height);
  if (data.pictureBitmap) input.drawImage(data.pictureBitmap, 0, 0, width, height);
  const { row, column } = data.large;
  for (const figure of view.figures) {
    const model = data.models[figure.number];
    const context = sized(figure.canvas, width, height);
    figure.where.textContent = nameOf(data, row, column);
    figure.legend.replaceChildren();
    if (!hasMap(model, row, column)) {
      figure.legend.textContent = data.texts.none;
      continue;
    }
    paintMap(context, data, model, row, column, [0, 0, width, height]);
    figure.canvas.setAttribute("aria-label", fill(data.texts[data.large.asks ? "large_asks" : "large"],
      { model: model.label, map: nameOf(data, row, column) }));
    placePatch(view, figure.asked, data.large.query);
    writeLegend(view, figure, model, row, column);
  }
}

/** The scale with its numbers, the prompts one by one, and the shares of all kinds of tokens. */
function writeLegend(view, figure, model, row, column) {
  const { data } = view;
  const bar = make("div", "bar");
  const colours = make("canvas", "colours");
  bar.append(make("span", "", "0"), colours, make("span", "", formatValue(topAt(model, row, column))));
  figure.legend.append(bar);
  paintBar(sized(colours, 256, 8), data, 256, 8);
  colours.style.width = "";
  const prompts = promptsAt(model, row, column);
  if (prompts.length) {
    const line = make("div", "bar");
    const strip = make("canvas", "colours strip");
    line.append(make("span", "", fill(data.texts.each_prompt, { count: prompts.length })), strip);
    figure.legend.append(line);
    const room = Math.max(256, prompts.length);
    paintPrompts(sized(strip, room, 10), data, model, row, column, [0, 0, room, 10]);
    strip.style.width = "";
    strip.title = Array.from(prompts, (value, i) => `${i + 1}: ${formatValue(value)}`).join("\n");
  }
  const shares = sharesAt(data, model, row, column);
  if (shares.length) figure.legend.append(...shareBar(data, shares));
  figure.legend.append(...model.notes.map((note) => make("div", "line", note)));
}

function shareBar(data, shares) {
  const bar = make("div", "shares");
  bar.append(...shares.map(([kind, share]) => {
    const part = make("span");
    Object.assign(part.style, { flexGrow: share, background: KIND_COLOURS[kind] });
    return part;
  }));
  const line = make("div", "line");
  line.append(...shares.map(([kind, share]) => {
    const word = make("span", "kind");
    const dot = make("span", "dot");
    dot.style.background = KIND_COLOURS[kind];
    word.append(dot, `${data.texts[kind]} ${formatShare(share)}`);
    return word;
  }));
  return [bar, line];
}

/** Put a frame round a patch, or hide it. */
function placePatch(view, mark, patch) {
  const { data } = view;
  mark.hidden = !patch;
  if (!patch) return;
  Object.assign(mark.style, { left: `${(100 * patch[1]) / data.w}%`, top: `${(100 * patch[0]) / data.h}%`,
    width: `${100 / data.w}%`, height: `${100 / data.h}%` });
}

/** Point at a patch in every enlarged map: its value in each. */
function pointAtPatch(view, patch) {
  const { data } = view;
  const { row, column } = data.large;
  for (const figure of view.figures) {
    const model = data.models[figure.number];
    const there = patch && hasMap(model, row, column);
    figure.patch = patch;
    placePatch(view, figure.mark, there ? patch : null);
    figure.readout.hidden = !there;
    if (!there) continue;
    const value = mapAt(model, row, column)[patch[0] * data.w + patch[1]];
    const where = fill(data.texts.patch, { row: patch[0] + 1, column: patch[1] + 1 });
    figure.readout.textContent = `${where}: ${formatValue(value)}`;
  }
}

function listenToFigure(view, figure) {
  const { canvas } = figure;
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    return [clamp(Math.floor(((event.clientY - box.top) / box.height) * view.data.h), 0, view.data.h - 1),
      clamp(Math.floor(((event.clientX - box.left) / box.width) * view.data.w), 0, view.data.w - 1)];
  };
  canvas.addEventListener("pointermove", (event) => pointAtPatch(view, under(event)));
  canvas.addEventListener("pointerleave", () => pointAtPatch(view, null));
  canvas.addEventListener("click", (event) => ask(view, under(event)));
  canvas.addEventListener("keydown", (event) => {
    const { data } = view;
    const step = ARROWS[event.key];
    const from = figure.patch ?? data.large.query ?? [data.h >> 1, data.w >> 1];
    if (step && figure.patch) {
      pointAtPatch(view, [clamp(from[0] + step[0], 0, data.h - 1), clamp(from[1] + step[1], 0, data.w - 1)]);
    } else if (step) pointAtPatch(view, from);
    else if ((event.key === "Enter" || event.key === " ") && figure.patch) ask(view, figure.patch);
    else return;
    view.live.textContent = figure.readout.textContent;
    swallow(event);
  });
}

/** Make a patch the query: the page answers with its rows. */
function ask(view, patch) {
  if (!view.data.large.asks) return;
  for (const figure of view.figures) placePatch(view, figure.asked, patch);
  view.send("query", patch);
}
