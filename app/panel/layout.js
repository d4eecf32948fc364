// Heads, cells and legends as elements. Text of users reaches the page through textContent only.

/**
 * The grid of cells of the present data and view; `panel.places` lists what each canvas draws. Another sample of the
 * same shape keeps its elements: new canvases cost a step through the samples more than their pixels do.
 */
function buildGrid(panel) {
  const { data, look } = panel;
  const columns = [null, ...data.columns];
  const rows = viewRows(data, look);
  const cells = rows.map((viewRow) =>
    columns.map((column) => ({ viewRow, column, message: whyNoMap(data, look, viewRow, column) })));
  const shape = JSON.stringify([
    data.texts, data.size, data.columns, rows.map(({ kind, rows: models }) => [kind, models.map((row) => row.model)]),
    cells.map((row) => row.map((cell) => cell.message)),
  ]);
  if (shape === panel.shape) renewGrid(panel, rows, cells);
  else newGrid(panel, columns, rows, cells);
  panel.shape = shape;
}

function newGrid(panel, columns, rows, cells) {
  const { data, grid } = panel;
  grid.replaceChildren();
  const sizes = { "--columns": columns.length, "--rows": rows.length, "--aspect": data.size[0] / data.size[1] };
  for (const [name, value] of Object.entries(sizes)) grid.style.setProperty(name, value);
  panel.places = [];
  for (const column of columns) grid.append(columnHead(data, column));
  panel.heads = rows.map((viewRow) => rowHead(data, viewRow));
  panel.heads.forEach((head, at) => grid.append(head, ...cells[at].map((cell) => buildCell(panel, cell))));
  if (panel.places.length) panel.places[0].canvas.tabIndex = 0; // one stop for the Tab key; a click reaches the others
}

function renewGrid(panel, rows, cells) {
  rows.forEach((viewRow, at) => {
    const head = rowHead(panel.data, viewRow);
    panel.heads[at].replaceWith(head);
    panel.heads[at] = head;
  });
  const drawn = cells.flat().filter((cell) => cell.message === null);
  panel.places.forEach((place, at) => Object.assign(place, { viewRow: drawn[at].viewRow, column: drawn[at].column }));
}

function columnHead(data, column) {
  const head = make("div", "column-head", column ? column.label : data.texts.input);
  if (column?.agnostic) {
    const badge = make("span", "badge", data.texts.class_agnostic);
    badge.title = data.texts.class_agnostic_help;
    head.append(" ", badge);
  }
  return head;
}

/** "VPT   scratch 97.1 %   ✓ right"; two models in the views that put them into one row. */
function rowHead(data, viewRow) {
  const head = make("div", "row-head");
  head.dataset.kind = viewRow.kind;
  viewRow.rows.forEach((row, side) => {
    if (side) head.append(make("span", "between", viewRow.kind === "difference" ? "\u2212" : "|"));
    const part = make("span", "model");
    part.dataset.model = row.model;
    const dot = make("span", "dot");
    dot.style.background = row.colour;
    part.append(dot, make("strong", "", row.label));
    if (viewRow.kind !== "difference") appendAnswer(part, row, data.texts);
    head.append(part);
  });
  return head;
}

function appendAnswer(part, row, texts) {
  if (row.answer) part.append(make("span", "answer", row.answer));
  if (row.probability) part.append(make("span", "probability", row.probability));
  if (row.right !== null) part.append(make("span", row.right ? "right" : "wrong", outcomeText(row, texts)));
}

function outcomeText(row, texts) {
  return row.right ? `\u2713 ${texts.right}` : `\u2717 ${texts.wrong}`;
}

/** Why a cell has nothing to draw, null when it has. */
function whyNoMap(data, look, viewRow, column) {
  if (column && shownIn(data, viewRow, column, look).every((one) => !one)) {
    const cell = cellOf(data, viewRow.rows[0], column);
    return cell.values ? data.texts.no_map : cell.message || data.texts.no_map;
  }
  return data.pictureTrouble ?? null;
}

/** A figure: the canvas with the marks of the pointer over it, and the legend under it; or why there is none. */
function buildCell(panel, { viewRow, column, message }) {
  const { data } = panel;
  const figure = make("figure", "cell");
  if (message !== null) {
    figure.append(make("div", "no-map", message));
    return figure;
  }
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  canvas.tabIndex = -1;
  const frame = make("div", "frame");
  frame.style.aspectRatio = `${data.size[0]} / ${data.size[1]}`;
  const marks = { box: make("div", "mark"), across: make("div", "hair across"), down: make("div", "hair down") };
  const readout = make("div", "readout");
  frame.append(canvas, marks.across, marks.down, marks.box, readout);
  const legend = make("figcaption", "legend");
  figure.append(frame, legend);
  panel.places.push({ canvas, frame, marks, readout, legend, viewRow, column });
  return figure;
}

/** What stands under each canvas: colours with their numbers, a badge, lines. */
function writeLegends(panel) {
  const { data, look } = panel;
  for (const { viewRow, column, legend, canvas } of panel.places) {
    canvas.setAttribute("aria-label", describeCell(data, viewRow, column, look));
    legend.replaceChildren();
    if (!column) {
      for (const line of data.inputLines) legend.append(make("div", "line", line));
      continue;
    }
    for (const bar of barsOf(data, viewRow, column, look)) legend.append(barElement(bar, data, viewRow));
    for (const { flag, text } of badgesOf(data, viewRow, column)) {
      const badge = make("span", "flag", text);
      badge.dataset.flag = flag;
      legend.append(badge);
    }
    for (const line of legendLines(data, viewRow, column, look)) legend.append(make("div", "line", line));
  }
  panel.scaleLine.textContent = scaleText(data, look);
}

/** Colour bars of a cell: one, or one per model where two with scales of their own share the cell. */
function barsOf(data, viewRow, column, look) {
  const shown = shownIn(data, viewRow, column, look);
  const bars = shown.flatMap((one, side) => (one ? [{ shown: one, row: viewRow.rows[side] }] : []));
  const same = bars.every((bar) => bar.shown.high === bars[0].shown.high && bar.shown.blank === bars[0].shown.blank);
  return same ? bars.slice(0, 1).map((bar) => ({ ...bar, row: null })) : bars;
}

function barElement({ shown, row }, data, viewRow) {
  const bar = make("div", "bar");
  if (row && viewRow.kind !== "model") bar.append(make("span", "whose", row.label));
  if (shown.blank) {
    const empty = make("span", "blank", data.texts.blank);
    empty.title = data.texts.blank_help;
    bar.append(empty);
    return bar;
  }
  const colours = make("canvas", "colours");
  colours.setAttribute("aria-hidden", "true");
  paintBar(colours, shown.table);
  bar.append(make("span", "end", formatValue(shown.low)), colours, make("span", "end", formatValue(shown.high)));
  return bar;
}

/** A colour table as a strip of 256 x 1 pixels. */
function paintBar(canvas, table) {
  [canvas.width, canvas.height] = [256, 1];
  const strip = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) strip.data.set([table[3 * i], table[3 * i + 1], table[3 * i + 2], 255], 4 * i);
  canvas.getContext("2d").putImageData(strip, 0, 0);
}

/** Badges of the maps in a cell, each text once. */
function badgesOf(data, viewRow, column) {
  const badges = viewRow.rows.map((row) => {
    const cell = cellOf(data, row, column);
    const own = cell.flagText && viewRow.rows.length > 1 ? `${row.label}: ${cell.flagText}` : cell.flagText;
    return { flag: cell.flag, text: own };
  });
  return badges.filter((badge) => badge.flag && badge.text);
}

/** Put the crosshair and the numbers of one point of the image into every cell; null takes them away. */
function showPoint(panel, point) {
  panel.point = point;
  const patch = point && patchAt(panel.data, point);
  for (const place of panel.places) {
    place.frame.classList.toggle("pointed", Boolean(patch));
    if (patch) placeMarks(panel, place, point, patch);
  }
}

/** The patch under a point of the image, {row, column} from 0; null outside of what the model saw. */
function patchAt(data, { x, y }) {
  const [x0, y0, x1, y1] = data.crop;
  const [u, v] = [(x - x0) / (x1 - x0), (y - y0) / (y1 - y0)];
  if (!(u >= 0 && u < 1 && v >= 0 && v < 1)) return null;
  return { row: Math.floor(v * data.grid[0]), column: Math.floor(u * data.grid[1]) };
}

function placeMarks(panel, { marks, readout, viewRow, column }, point, patch) {
  const { data, look } = panel;
  const rect = visibleRect(look);
  const [x0, y0, x1, y1] = data.crop;
  const across = (share) => (100 * (share - rect[0])) / (rect[2] - rect[0]);
  const down = (share) => (100 * (share - rect[1])) / (rect[3] - rect[1]);
  const [w, h] = [(x1 - x0) / data.grid[1], (y1 - y0) / data.grid[0]];
  const [left, top] = [x0 + patch.column * w, y0 + patch.row * h];
  Object.assign(marks.box.style, {
    left: `${across(left)}%`, top: `${down(top)}%`,
    width: `${across(left + w) - across(left)}%`, height: `${down(top + h) - down(top)}%`,
  });
  marks.across.style.top = `${down(point.y)}%`;
  marks.down.style.left = `${across(point.x)}%`;
  readout.textContent = readoutText(panel, viewRow, column, point, patch);
}

function readoutText({ data, look }, viewRow, column, point, patch) {
  const place = fill(data.texts.place, { row: patch.row + 1, column: patch.column + 1 });
  if (!column) return place;
  const values = shownIn(data, viewRow, column, look).map((shown) => {
    const value = shown && valueAt(shown, data.crop, point.x, point.y);
    return value === null ? "\u2013" : formatValue(value);
  });
  return `${place}: ${values.join(" | ")}`;
}
