// The panel as a file: what is seen now, laid out once, then drawn as PNG or written as SVG.

const CELL = 320;
const GAP = 16;
const MARGIN = 24;
const SHARPNESS = 2;
const FONT = '"Noto Sans", "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic UI", Meiryo, sans-serif';
const INK = "#1c2430";
const QUIET = "#55606e";
const FLAG_INK = { failed: "#b3261e", passed: "#1a7f4b" };

/** A file name for a sample's id: letters, digits, dot, dash and underscore only. */
function fileName(sample, ending) {
  const stem = sample.replace(/\.(png|jpe?g|bmp|tiff?|webp)$/i, "");
  return `${stem.replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^\.+/, "") || "panel"}.${ending}`;
}

/** Text in lines no wider than a width; breaks at spaces, inside a word only where it does not fit a line. */
function wrapText(measure, text, width) {
  const lines = [""];
  for (const word of text.split(/(?<=\s)|(?<=[\u3000-\u9fff\uff00-\uffef])/u)) {
    if (lines.at(-1) && measure(lines.at(-1) + word.trimEnd()) > width) lines.push("");
    for (const letter of measure(word) > width ? word : [word]) {
      if (lines.at(-1) && measure(lines.at(-1) + letter.trimEnd()) > width) lines.push("");
      lines.push(lines.pop() + letter);
    }
  }
  return lines.map((line) => line.trimEnd());
}

/** A list of what stands where, in CSS pixels: texts, pictures and boxes. */
function layOut(panel) {
  const { data, look } = panel;
  const height = Math.round((CELL * data.size[1]) / data.size[0]);
  const columns = [null, ...data.columns];
  const sheet = { items: [], width: 2 * MARGIN + columns.length * (CELL + GAP) - GAP, height: 0 };
  const ruler = new OffscreenCanvas(1, 1).getContext("2d");
  sheet.widthOf = (text) => {
    ruler.font = `400 11px ${FONT}`;
    return ruler.measureText(text).width;
  };
  const write = (text, x, y, style = {}) => {
    const { size = 12, weight = 400, fill: ink = INK, width = CELL, anchor = "start" } = style;
    ruler.font = `${weight} ${size}px ${FONT}`;
    const lines = wrapText((part) => ruler.measureText(part).width, text, width);
    const step = size * 1.4;
    lines.forEach((line, i) => sheet.items.push({ text: line, x, y: y + size + i * step, size, weight, ink, anchor }));
    return y + lines.length * step;
  };
  const wide = sheet.width - 2 * MARGIN;
  let y = write(data.title || data.sample, MARGIN, MARGIN, { size: 17, weight: 600, width: wide });
  y = write(scaleText(data, look), MARGIN, y + 2, { fill: QUIET, width: wide }) + 12;
  const left = (i) => MARGIN + i * (CELL + GAP);
  y = Math.max(...columns.map((column, i) => write(headText(data, column), left(i), y, { size: 13, weight: 600 })));
  for (const viewRow of viewRows(data, look)) {
    y = writeRowHead(sheet, write, data, viewRow, y + 8, wide) + 4;
    const under = columns.map((column, i) => {
      const picture = exportCell(panel, viewRow, column, height);
      if (!picture) return write(missingText(data, viewRow, column), left(i), y, { fill: QUIET });
      sheet.items.push({ picture, x: left(i), y, width: CELL, height });
      return writeLegend(sheet, write, panel, viewRow, column, left(i), y + height + 6);
    });
    y = Math.max(y + height, ...under) + 8;
  }
  sheet.height = Math.ceil(y + MARGIN - 8);
  return sheet;
}

function headText(data, column) {
  if (!column) return data.texts.input;
  return column.agnostic ? `${column.label} (${data.texts.class_agnostic})` : column.label;
}

function missingText(data, viewRow, column) {
  return cellOf(data, viewRow.rows[0], column).message || data.texts.no_map;
}

function writeRowHead(sheet, write, data, viewRow, y, width) {
  const between = { difference: " \u2212 ", model: "", swipe: "  |  ", blink: "  |  " }[viewRow.kind];
  const parts = viewRow.rows.map((row) => {
    if (viewRow.kind === "difference") return row.label;
    const mark = row.right === null ? "" : outcomeText(row, data.texts);
    return [row.label, row.answer, row.probability, mark].filter(Boolean).join("   ");
  });
  viewRow.rows.forEach((row, i) => {
    sheet.items.push({ box: row.colour, x: MARGIN + 5 * i, y: y + 2, width: 4, height: 13 });
  });
  return write(parts.join(between), MARGIN + 16, y, { size: 13, weight: 600, width: width - 16 });
}

function writeLegend(sheet, write, panel, viewRow, column, x, top) {
  const { data, look } = panel;
  let y = top;
  if (!column) {
    for (const line of data.inputLines) y = write(line, x, y, { size: 11, fill: QUIET });
    return y;
  }
  for (const { shown, row } of barsOf(data, viewRow, column, look)) {
    const whose = row && viewRow.kind !== "model" ? `${row.label}  ` : "";
    if (shown.blank) {
      y = write(`${whose}${data.texts.blank}`, x, y, { size: 11, weight: 600 });
      continue;
    }
    const strip = new OffscreenCanvas(256, 1);
    paintBar(strip, shown.table);
    const [low, high] = [`${whose}${formatValue(shown.low)}`, formatValue(shown.high)];
    const [from, to] = [x + sheet.widthOf(low) + 7, x + CELL - sheet.widthOf(high) - 7];
    sheet.items.push({ picture: strip, x: from, y: y + 4, width: to - from, height: 8 });
    write(low, x, y, { size: 11 });
    y = write(high, x + CELL, y, { size: 11, anchor: "end" });
  }
  for (const { flag, text } of badgesOf(data, viewRow, column)) {
    y = write(text, x, y, { size: 11, weight: 600, fill: FLAG_INK[flag] ?? QUIET });
  }
  for (const line of legendLines(data, viewRow, column, look)) y = write(line, x, y, { size: 11, fill: QUIET });
  return y;
}

/** One cell at the sharpness of a file; null where there is no map or no picture. */
function exportCell(panel, viewRow, column, height) {
  const { data, look, front } = panel;
  if (!data.bitmap || (column && shownIn(data, viewRow, column, look).every((shown) => !shown))) return null;
  const canvas = new OffscreenCanvas(CELL * SHARPNESS, height * SHARPNESS);
  panel.fileStore ??= newStore();
  paintCell(canvas.getContext("2d"), panel.fileStore, data, look, { viewRow, column, front, ratio: SHARPNESS });
  return canvas;
}

async function savePng(panel) {
  const sheet = layOut(panel);
  const canvas = new OffscreenCanvas(sheet.width * SHARPNESS, sheet.height * SHARPNESS);
  const context = canvas.getContext("2d");
  context.scale(SHARPNESS, SHARPNESS);
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, sheet.width, sheet.height);
  for (const item of sheet.items) {
    if (item.picture) {
      context.drawImage(item.picture, item.x, item.y, item.width, item.height);
    } else if (item.box) {
      context.fillStyle = item.box;
      context.fillRect(item.x, item.y, item.width, item.height);
    } else {
      context.font = `${item.weight} ${item.size}px ${FONT}`;
      Object.assign(context, { fillStyle: item.ink, textAlign: item.anchor });
      context.fillText(item.text, item.x, item.y);
    }
  }
  download(panel, await canvas.convertToBlob({ type: "image/png" }), "png");
}

/** Built as a document and not as a string, so that no name of a user's can be more than text. */
async function saveSvg(panel) {
  const sheet = layOut(panel);
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.implementation.createDocument(space, "svg");
  const add = (tag, attributes, text) => {
    const element = drawing.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = plainXml(text);
    drawing.documentElement.append(element);
  };
  const { width, height } = sheet;
  const about = { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT };
  for (const [name, value] of Object.entries(about)) drawing.documentElement.setAttribute(name, value);
  add("title", {}, panel.data.title || panel.data.sample);
  add("rect", { width, height, fill: "#ffffff" });
  for (const item of sheet.items) {
    const place = { x: item.x, y: item.y };
    const size = { width: item.width, height: item.height };
    if (item.picture) {
      add("image", { ...place, ...size, preserveAspectRatio: "none", href: await dataAddress(item.picture) });
    } else if (item.box) {
      add("rect", { ...place, ...size, fill: item.box });
    } else {
      const style = { "font-size": item.size, "font-weight": item.weight, fill: item.ink, "text-anchor": item.anchor };
      add("text", { ...place, ...style }, item.text);
    }
  }
  const text = new XMLSerializer().serializeToString(drawing);
  download(panel, new Blob([text], { type: "image/svg+xml" }), "svg");
}

/** Text without the control letters that XML cannot hold. */
function plainXml(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, "\ufffd");
}

async function dataAddress(canvas) {
  const blob = await canvas.convertToBlob({ type: "image/png" });
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
}

function download(panel, blob, ending) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = fileName(panel.data.sample, ending);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  say(panel, fill(panel.data.texts.saved, { name: link.download }));
}
