// The small maps: one canvas for all of them, rows are blocks, columns are heads, models stand side by side.

const LABEL_WIDTH = 64;
const HEAD_HEIGHT = 44;
const MODEL_GAP = 26;
const SET_OFF = 8;
const CELL_GAP = 3;
const SIDES = { least: 24, most: 68 };
const SCALE_WIDTH = 52;
const PROMPT_GAP = 1;

/** Where everything is on the canvas for a given width, in CSS pixels. */
function layOutGrid(data, width) {
  const counts = data.models.map((model) => model.values.shape[1]);
  const all = counts.reduce((sum, count) => sum + count, 0);
  const right = data.scope === "block" ? SCALE_WIDTH : 0;
  const setOff = data.setOff ? SET_OFF : 0;
  const fixed = LABEL_WIDTH + right + (MODEL_GAP - CELL_GAP) * (counts.length - 1) + setOff * counts.length;
  const side = Math.max(SIDES.least, Math.min(SIDES.most, Math.floor((width - fixed) / all - CELL_GAP)));
  const strip = data.models.some((model) => model.prompts.some(({ shape }) => shape[1])) ? Math.max(4, side >> 3) : 0;
  const [cellWidth, cellHeight] = data.h <= data.w ? [side, (side * data.h) / data.w] : [(side * data.w) / data.h, side];
  const pitch = cellHeight + (strip ? PROMPT_GAP + strip : 0) + CELL_GAP + 1;
  let x = LABEL_WIDTH;
  const starts = counts.map((count) => {
    const start = x;
    x += count * (cellWidth + CELL_GAP) - CELL_GAP + setOff + MODEL_GAP;
    return start;
  });
  const rows = Math.max(...data.models.map((model) => model.values.shape[0]));
  return { cellWidth, cellHeight, strip, pitch, starts, rows, setOff, end: x - MODEL_GAP, right,
    width: x - MODEL_GAP + right, height: HEAD_HEIGHT + rows * pitch };
}

/** The box of a small map, [x, y, width, height]. */
function cellBox(data, place, number, row, column) {
  const heads = data.models[number].values.shape[1] - data.setOff;
  const x = place.starts[number] + column * (place.cellWidth + CELL_GAP) + (column >= heads ? place.setOff : 0);
  return [x, HEAD_HEIGHT + row * place.pitch, place.cellWidth, place.cellHeight];
}

/** The small map under a point, {number, row, column}; null beside them. */
function cellUnder(data, place, x, y) {
  for (const [number, model] of data.models.entries()) {
    const [rows, columns] = model.values.shape;
    for (let column = 0; column < columns; column++) {
      const [left, , width] = cellBox(data, place, number, 0, column);
      const row = Math.floor((y - HEAD_HEIGHT) / place.pitch);
      if (x >= left && x < left + width + CELL_GAP && row >= 0 && row < rows) return { number, row, column };
    }
  }
  return null;
}

function drawGrid(view) {
  const { data } = view;
  const place = layOutGrid(data, view.small.clientWidth);
  view.place = place;
  const context = sized(view.canvas, place.width, place.height);
  const ink = getComputedStyle(view.root).color;
  const font = getComputedStyle(view.root).fontFamily;
  drawHeads(context, data, place, ink, font);
  data.models.forEach((model, number) => {
    const [rows, columns] = model.values.shape;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [x, y, width, height] = cellBox(data, place, number, row, column);
        paintMap(context, data, model, row, column, [x, y, width, height]);
        paintPrompts(context, data, model, row, column, [x, y + height + PROMPT_GAP, width, place.strip]);
        if (data.scope === "map" && width >= 40) drawTop(context, model, row, column, [x, y, width], font);
      }
    }
  });
  showMarks(view);
}

/** Names of the models, numbers of heads and blocks, and the scale of each block where it has one. */
function drawHeads(context, data, place, ink, font) {
  const write = (text, x, y, { weight = 400, size = 11.5, align = "center", colour = ink, strength = 1 } = {}) => {
    Object.assign(context, { font: `${weight} ${size}px ${font}`, textAlign: align, fillStyle: colour, globalAlpha: strength });
    context.fillText(text, x, y);
    context.globalAlpha = 1;
  };
  data.models.forEach((model, number) => {
    const x = place.starts[number];
    context.fillStyle = model.colour;
    context.fillRect(x, 3, 10, 10);
    write(model.label, x + 16, 13, { weight: 600, size: 13.5, align: "left" });
    data.columns.slice(0, model.values.shape[1]).forEach((label, column) => {
      const [left, , width] = cellBox(data, place, number, 0, column);
      write(label, left + width / 2, 36, { strength: 0.78 });
    });
  });
  write(`${data.texts.corner_head} →`, LABEL_WIDTH - 8, 23, { align: "right", size: 10.5, strength: 0.78 });
  write(`${data.texts.corner_block} ↓`, LABEL_WIDTH - 8, 38, { align: "right", size: 10.5, strength: 0.78 });
  for (let row = 0; row < place.rows; row++) {
    const y = HEAD_HEIGHT + row * place.pitch + place.cellHeight / 2 + 4;
    write(data.rows[row], LABEL_WIDTH - 8, y, { align: "right", strength: 0.78 });
    const owner = data.models.find((model) => row < model.values.shape[0]);
    if (data.scope === "block") {
      write(`0 – ${formatValue(topAt(owner, row, 0))}`, place.end + 6, y, { align: "left", size: 10.5, strength: 0.78 });
    }
  }
}

/** The top of a map's own scale, in its corner. */
function drawTop(context, model, row, column, [x, y, width], font) {
  const large = width >= 54;
  const text = formatValue(topAt(model, row, column), large ? 3 : 2);
  Object.assign(context, { font: `500 ${large ? 9.5 : 8.5}px ${font}`, textAlign: "left" });
  context.fillStyle = "rgba(0, 0, 0, 0.62)";
  context.fillRect(x, y, context.measureText(text).width + 5, 12);
  context.fillStyle = "#ffffff";
  context.fillText(text, x + 2.5, y + 9.5);
}

/** Frames round the enlarged map and round the one that is pointed at, in every model. */
function showMarks(view) {
  const { data, place } = view;
  const frames = [["chosen", data.large], ...(view.pointed ? [["pointed", view.pointed]] : [])];
  view.marks.replaceChildren(...frames.flatMap(([name, { row, column }]) =>
    data.models.flatMap((model, number) => {
      if (!hasMap(model, row, column)) return [];
      const [x, y, width, height] = cellBox(data, place, number, row, column);
      const mark = make("div", `mark ${name}`);
      const below = model.prompts[row].shape[1] ? PROMPT_GAP + place.strip : 0;
      Object.assign(mark.style, { left: `${x - 2}px`, top: `${y - 2}px`, width: `${width + 4}px`,
        height: `${height + below + 4}px` });
      return [mark];
    })));
}

/** What a small map is, in words. */
function describeCell(view, { number, row, column }) {
  const { data } = view;
  const model = data.models[number];
  const shares = sharesAt(data, model, row, column).map(([kind, share]) => `${data.texts[kind]} ${formatShare(share)}`);
  const values = mapAt(model, row, column);
  const largest = values.indexOf(Math.max(...values));
  const where = fill(data.texts.patch, { row: Math.floor(largest / data.w) + 1, column: (largest % data.w) + 1 });
  const parts = [model.label, nameOf(data, row, column),
    fill(data.texts.largest, { value: formatValue(values[largest]), patch: where }), ...shares];
  return parts.join(" · ");
}

function nameOf(data, row, column) {
  return fill(data.texts.map, { block: fill(data.texts.block, { number: data.rows[row] }), head: data.names[column] });
}

function listenToGrid(view) {
  const { canvas } = view;
  const under = (event) => view.place && cellUnder(view.data, view.place, event.offsetX, event.offsetY);
  canvas.addEventListener("pointermove", (event) => pointAt(view, under(event)));
  canvas.addEventListener("pointerleave", () => pointAt(view, null));
  canvas.addEventListener("click", (event) => {
    const cell = under(event);
    if (cell) enlarge(view, cell);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (step) pointAt(view, nextCell(view, step));
    else if (event.key === "Enter" || event.key === " ") enlarge(view, view.pointed ?? firstCell(view));
    else return;
    swallow(event);
  });
}

function firstCell(view) {
  return { number: 0, row: view.data.large.row, column: view.data.large.column };
}

/** One step from the map that is pointed at; from the last column of a model to the first of the next. */
function nextCell(view, [down, right]) {
  const { data } = view;
  if (!view.pointed) return firstCell(view);
  let { number, row, column } = view.pointed;
  column += right;
  if (column < 0 && number > 0) column = data.models[--number].values.shape[1] - 1;
  else if (column >= data.models[number].values.shape[1] && number < data.models.length - 1) [number, column] = [number + 1, 0];
  const [rows, columns] = data.models[number].values.shape;
  return { number, row: clamp(row + down, 0, rows - 1), column: clamp(column, 0, columns - 1) };
}

function pointAt(view, cell) {
  view.pointed = cell;
  view.canvas.style.cursor = cell ? "zoom-in" : "default";
  view.readout.textContent = cell ? describeCell(view, cell) : view.data.texts.hint;
  showMarks(view);
}

/** Show a small map large: at once here, then in the address by the page. */
function enlarge(view, { row, column }) {
  view.data.large = { ...view.data.large, row, column };
  showMarks(view);
  drawLarge(view);
  view.send("cell", [row, column]);
}
