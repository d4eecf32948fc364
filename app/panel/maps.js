// What the panel shows: the decoded data, the rows of the chosen view, and each map with the scale it is drawn on.

/** The panel's data from a payload; the picture is decoded later. */
function readPanel(bytes) {
  const { header, blob } = readPayload(bytes);
  const cells = new Map();
  for (const cell of header.cells) {
    const decoded = { ...cell, values: readMap(cell.values, blob), pooled: readMap(cell.pooled, blob) };
    cells.set(`${cell.model}\n${cell.method}`, decoded);
  }
  const tables = new Map(header.colormaps.map((one) => [one.name, blob(one.table)]));
  const names = (signed) => header.colormaps.filter((one) => one.signed === signed).map((one) => one.name);
  const known = { ...header.defaults, positive: names(false), signed: names(true) };
  const outlines = header.outlines.map((place) => readMap(place, blob).values);
  return { ...header, cells, tables, known, outlines, picture: blob(header.image), kept: new Map() };
}

function cellOf(data, row, column) {
  return data.cells.get(`${row.model}\n${column.method}`) ?? { message: data.texts.no_map, lines: [], values: null };
}

/** The values that are drawn: means over the patches where there are any and the reader wants them. */
function drawnMap(cell, look) {
  return look.average && cell.pooled ? cell.pooled : cell.values;
}

/** Remember a result for this data and these choices. */
function kept(data, name, make) {
  if (!data.kept.has(name)) data.kept.set(name, make());
  return data.kept.get(name);
}

/** Magnitudes in rising order of the maps of some rows by one method. */
function sharedMagnitudes(data, rows, column, look) {
  const name = `magnitudes ${rows.map((row) => row.model).join("\n")} ${column.method} ${look.average}`;
  return kept(data, name, () => {
    const cells = rows.map((row) => cellOf(data, row, column)).filter((cell) => cell.values);
    const parts = cells.map((cell) => magnitudes(drawnMap(cell, look).values, cell.signed));
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return parts.length > 1 ? all.sort() : all;
  });
}

/** Whether every method's distribution over the data set is known. */
function knowsDataset(data) {
  const cells = [...data.cells.values()].filter((cell) => cell.values);
  return cells.length > 0 && cells.every((cell) => cell.dataset);
}

/** The scope in use: that of the look, or "map" where the data set's distribution is not known. */
function scopeOf(data, look) {
  return look.scope === "dataset" && !knowsDataset(data) ? "map" : look.scope;
}

/** Value of the last colour for some rows of one method, in the chosen scope. */
function topFor(data, rows, column, look) {
  if (scopeOf(data, look) !== "dataset") return scaleTop(sharedMagnitudes(data, rows, column, look), look.clip);
  const known = data.rows.map((row) => cellOf(data, row, column)).filter((cell) => cell.values);
  return Math.max(...known.map((cell) => quantileAt(cell.dataset, look.clip)));
}

/** A map as it is drawn: {map, low, high, signed, blank, table, cell}; null where there is none. */
function shownMap(data, row, column, look) {
  const cell = cellOf(data, row, column);
  if (!cell.values) return null;
  const map = drawnMap(cell, look);
  const name = `blank ${row.model}\n${column.method} ${look.average}`;
  const blank = kept(data, name, () => !map.values.some((value) => (cell.signed ? value !== 0 : value > 0)));
  const high = topFor(data, scopeOf(data, look) === "map" ? [row] : data.rows, column, look);
  const table = data.tables.get(cell.signed ? look.signed : look.positive);
  return { cell, map, low: cell.signed ? -high : 0, high, signed: cell.signed, blank: blank || !high, table };
}

/** The first model's map minus the second's, on a scale about 0 that is the one the two maps share. */
function shownDifference(data, column, look) {
  const [first, second] = data.rows.slice(0, 2).map((row) => cellOf(data, row, column));
  if (!first.values || !second.values) return null;
  const name = `difference ${column.method} ${look.average}`;
  const map = kept(data, name, () => difference(drawnMap(first, look), drawnMap(second, look), data.grid));
  const high = topFor(data, scopeOf(data, look) === "map" ? data.rows.slice(0, 2) : data.rows, column, look);
  const blank = !high || map.values.every((value) => value === 0);
  return { cell: first, map, low: -high, high, signed: true, blank, table: data.tables.get(look.signed) };
}

/** Rows of the panel in the chosen view: {kind, rows: models}. */
function viewRows(data, look) {
  const single = data.rows.map((row) => ({ kind: "model", rows: [row] }));
  const pair = data.rows.slice(0, 2);
  if (pair.length < 2 || look.view === "side") return single;
  if (look.view === "difference") {
    return [...single.slice(0, 2), { kind: "difference", rows: pair }, ...single.slice(2)];
  }
  return [{ kind: look.view, rows: pair }, ...single.slice(2)];
}

/** The maps one cell draws: one, or two in "swipe" and "blink"; null in the place of a map that is not there. */
function shownIn(data, viewRow, column, look) {
  if (viewRow.kind === "difference") return [shownDifference(data, column, look)];
  return viewRow.rows.map((row) => shownMap(data, row, column, look));
}

/** Text of the scale that is in use, for all maps. */
function scaleText(data, look) {
  const scope = scopeOf(data, look);
  const text = fill(data.texts[`scale_now_${scope}`], { clip: look.clip });
  return look.view === "difference" && data.rows.length > 1
    ? `${text} ${fill(data.texts.scale_difference, { first: data.rows[0].label, second: data.rows[1].label })}`
    : text;
}

/** Legend under a map: its lines, and what the reader's choices make of it. */
function legendLines(data, viewRow, column, look) {
  const { texts } = data;
  if (viewRow.kind === "difference") {
    const shown = shownDifference(data, column, look);
    if (!shown) return [];
    return [fill(texts.difference_grid, { rows: shown.map.h, columns: shown.map.w })];
  }
  return viewRow.rows.flatMap((row) => {
    const cell = cellOf(data, row, column);
    const lines = [...cell.lines];
    if (cell.pooled && look.average) lines.push(fill(texts.averaged, { rows: cell.pooled.h, columns: cell.pooled.w }));
    if (scopeOf(data, look) === "dataset" && cell.datasetText) lines.push(cell.datasetText);
    return viewRow.rows.length > 1 && lines.length ? [`${row.label}: ${lines.join(" \u00b7 ")}`] : lines;
  });
}

/** Raw value of a shown map at a point of the image; null outside of what the model saw. */
function valueAt(shown, crop, x, y) {
  const [u, v] = [(x - crop[0]) / (crop[2] - crop[0]), (y - crop[1]) / (crop[3] - crop[1])];
  if (!(u >= 0 && u < 1 && v >= 0 && v < 1)) return null;
  const { map } = shown;
  return map.values[Math.floor(v * map.h) * map.w + Math.floor(u * map.w)];
}

/** What a picture shows, in words, for readers who do not see it. */
function describeCell(data, viewRow, column, look) {
  const names = viewRow.rows.map((row) => row.label);
  const model = viewRow.kind === "difference" ? names.join(" \u2212 ") : names.join(" | ");
  if (!column) return fill(data.texts.alt_input, { sample: data.sample, model });
  const parts = shownIn(data, viewRow, column, look).map((shown) => {
    if (!shown) return data.texts.no_map;
    if (shown.blank) return data.texts.blank;
    const [row, at] = largestAt(shown.map, shown.signed);
    return fill(data.texts.alt_largest, { row: row + 1, column: at + 1, rows: shown.map.h, columns: shown.map.w });
  });
  return `${model}, ${column.label}: ${parts.join(" | ")}`;
}
