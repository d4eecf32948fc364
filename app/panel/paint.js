// One cell as pixels: the image or the map over it, then lines. The same for the screen and for saved pictures.

const LINE = { grid: "rgba(255,255,255,0.45)", contour: "#ffffff", region: "#00e0ff", crop: "#ffd23f" };
const HALO = "rgba(0,0,0,0.6)";
const NO_MAP = { low: 0, high: 1, signed: false, blank: true };

/** The part of the image in view, at (width, height) pixels: {colour: ImageData, grey: bytes}; the last is kept. */
function viewedImage(store, data, look, width, height) {
  const rect = visibleRect(look);
  const name = [rect, width, height, look.brightness, look.contrast].join();
  if (store.name === name && store.bitmap === data.bitmap) return store.image;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const { bitmap } = data;
  const [w, h] = [bitmap.width, bitmap.height];
  context.drawImage(bitmap, rect[0] * w, rect[1] * h, (rect[2] - rect[0]) * w, (rect[3] - rect[1]) * h,
    0, 0, width, height);
  const colour = context.getImageData(0, 0, width, height);
  const light = Uint8ClampedArray.from({ length: 256 }, (_, i) => ((i - 128) * look.contrast + 128) * look.brightness);
  const grey = new Uint8ClampedArray(width * height);
  for (let i = 0, at = 0; i < grey.length; i++, at += 4) {
    for (let channel = at; channel < at + 3; channel++) colour.data[channel] = light[colour.data[channel]];
    grey[i] = 0.299 * colour.data[at] + 0.587 * colour.data[at + 1] + 0.114 * colour.data[at + 2];
  }
  Object.assign(store, { name, bitmap, image: { colour, grey } });
  return store.image;
}

/** A map's values at every pixel in view; the last of each place is kept, so that a slider only colours anew. */
function viewedValues(store, place, shown, data, look, width, height) {
  const rect = visibleRect(look);
  const name = [rect, width, height, look.smooth].join();
  const before = store.values.get(place);
  if (before && before.name === name && before.map === shown.map) return before.values;
  const values = resample(shown.map, rect, data.crop, width, height, look.smooth);
  store.values.set(place, { name, map: shown.map, values });
  return values;
}

/** What drawing keeps between two frames. */
function newStore() {
  return { name: "", bitmap: null, image: null, values: new Map(), scratch: null };
}

/** Draw one cell.
 * @param job {viewRow, column (null: the input), front (blink: which of the two maps), ratio (pixels per CSS pixel)} */
function paintCell(context, store, data, look, job) {
  const { width, height } = context.canvas;
  const image = viewedImage(store, data, look, width, height);
  if (!job.column) {
    context.putImageData(image.colour, 0, 0);
  } else {
    paintMaps(context, store, data, look, job, image);
  }
  paintLines(context, data, look, job);
}

function paintMaps(context, store, data, look, job, image) {
  const { width, height } = context.canvas;
  if (store.scratch?.width !== width || store.scratch.height !== height) store.scratch = new ImageData(width, height);
  const maps = shownIn(data, job.viewRow, job.column, look);
  const split = job.viewRow.kind === "swipe" ? Math.round(look.divider * width) : null;
  maps.forEach((shown, side) => {
    if (job.viewRow.kind === "blink" && side !== job.front) return;
    const out = store.scratch.data;
    if (shown) {
      const place = `${job.viewRow.kind} ${job.viewRow.rows[side].model}\n${job.column.method}`;
      const values = viewedValues(store, place, shown, data, look, width, height);
      compose(out, image.grey, values, shown.table, shown, look);
    } else {
      compose(out, image.grey, image.grey, null, NO_MAP, look);
    }
    if (split === null) context.putImageData(store.scratch, 0, 0);
    else context.putImageData(store.scratch, 0, 0, side ? split : 0, 0, side ? width - split : split, height);
  });
}

function paintLines(context, data, look, job) {
  const { width, height } = context.canvas;
  const rect = visibleRect(look);
  const pen = {
    x: (share) => ((share - rect[0]) / (rect[2] - rect[0])) * width,
    y: (share) => ((share - rect[1]) / (rect[3] - rect[1])) * height,
  };
  const stroke = (path, colour, size, dash = [], halo = true) => {
    context.setLineDash(dash.map((part) => part * job.ratio));
    if (halo) strokeOnce(context, path, HALO, (size + 2) * job.ratio);
    strokeOnce(context, path, colour, size * job.ratio);
    context.setLineDash([]);
  };
  if (look.grid) stroke(gridPath(data, pen), LINE.grid, 1, [], false);
  if (look.contour && job.column) {
    for (const [path, clip] of contourPaths(data, look, job, pen, width, height)) {
      context.save();
      context.clip(clip);
      stroke(path, LINE.contour, 1.25);
      context.restore();
    }
  }
  if (look.region) stroke(regionPath(data, pen), LINE.region, 1.5);
  if (look.crop && data.crop.join() !== "0,0,1,1") stroke(boxPath([data.crop], pen), LINE.crop, 1.25, [6, 4]);
  if (job.viewRow.kind === "swipe" && job.column) {
    paintDivider(context, stroke, look.divider * width, height, job.ratio);
  }
  if (job.column && (job.viewRow.kind === "swipe" || job.viewRow.kind === "blink")) paintNames(context, job);
}

/** The line between two models, with a grip that says it can be dragged. */
function paintDivider(context, stroke, x, height, ratio) {
  const divider = new Path2D();
  divider.moveTo(x, 0);
  divider.lineTo(x, height);
  stroke(divider, "#ffffff", 2);
  const grip = new Path2D();
  grip.arc(x, height / 2, 9 * ratio, 0, 2 * Math.PI);
  stroke(grip, "#ffffff", 1.5);
  context.fillStyle = "#ffffff";
  context.fill(grip);
  const arrows = new Path2D();
  for (const side of [-1, 1]) {
    arrows.moveTo(x + side * 6 * ratio, height / 2);
    arrows.lineTo(x + side * 2 * ratio, height / 2 - 4 * ratio);
    arrows.lineTo(x + side * 2 * ratio, height / 2 + 4 * ratio);
  }
  context.fillStyle = "#1c2430";
  context.fill(arrows);
}

/** The models' names in the corners of a cell that they share. */
function paintNames(context, job) {
  const { ratio, viewRow } = job;
  context.font = `600 ${12 * ratio}px sans-serif`;
  viewRow.rows.forEach((row, side) => {
    if (viewRow.kind === "blink" && side !== job.front) return;
    const width = context.measureText(row.label).width + 12 * ratio;
    const left = viewRow.kind === "swipe" && side ? context.canvas.width - width - 4 * ratio : 4 * ratio;
    context.fillStyle = "rgba(0,0,0,0.76)";
    context.fillRect(left, 4 * ratio, width, 18 * ratio);
    context.fillStyle = "#ffffff";
    context.fillText(row.label, left + 6 * ratio, 17 * ratio);
  });
}

function strokeOnce(context, path, colour, size) {
  context.lineWidth = size;
  context.strokeStyle = colour;
  context.stroke(path);
}

/** Borders of the patches. */
function gridPath(data, pen) {
  const path = new Path2D();
  const [x0, y0, x1, y1] = data.crop;
  for (let i = 0; i <= data.grid[1]; i++) {
    const x = Math.round(pen.x(x0 + (i / data.grid[1]) * (x1 - x0))) + 0.5;
    path.moveTo(x, pen.y(y0));
    path.lineTo(x, pen.y(y1));
  }
  for (let i = 0; i <= data.grid[0]; i++) {
    const y = Math.round(pen.y(y0 + (i / data.grid[0]) * (y1 - y0))) + 0.5;
    path.moveTo(pen.x(x0), y);
    path.lineTo(pen.x(x1), y);
  }
  return path;
}

function boxPath(boxes, pen) {
  const path = new Path2D();
  for (const [x0, y0, x1, y1] of boxes) path.rect(pen.x(x0), pen.y(y0), pen.x(x1) - pen.x(x0), pen.y(y1) - pen.y(y0));
  return path;
}

/** Outlines of the marked region and the boxes. */
function regionPath(data, pen) {
  const path = boxPath(data.boxes, pen);
  for (const line of data.outlines) {
    for (let i = 0; i < line.length; i += 2) {
      if (i) path.lineTo(pen.x(line[i]), pen.y(line[i + 1]));
      else path.moveTo(pen.x(line[i]), pen.y(line[i + 1]));
    }
    path.closePath();
  }
  return path;
}

/** Iso-lines of the maps in a cell at the threshold, or at half of the scale: [path, part of the cell it is for]. */
function contourPaths(data, look, job, pen, width, height) {
  const share = look.threshold || 0.5;
  const split = job.viewRow.kind === "swipe" ? look.divider * width : null;
  return shownIn(data, job.viewRow, job.column, look).flatMap((shown, side) => {
    if (!shown || shown.blank || (job.viewRow.kind === "blink" && side !== job.front)) return [];
    const path = new Path2D();
    for (const level of shown.signed ? [-share * shown.high, share * shown.high] : [share * shown.high]) {
      const whose = `${job.viewRow.kind} ${job.viewRow.rows[side].model}\n${job.column.method}`;
      const name = `iso ${whose} ${look.average} ${level}`;
      const lines = kept(data, name, () => isoLines(shown.map, level));
      addLines(path, lines, data.crop, pen);
    }
    const clip = new Path2D();
    if (split === null) clip.rect(0, 0, width, height);
    else clip.rect(side ? split : 0, 0, side ? width - split : split, height);
    return [[path, clip]];
  });
}

function addLines(path, lines, [x0, y0, x1, y1], pen) {
  for (let i = 0; i < lines.length; i += 4) {
    path.moveTo(pen.x(x0 + lines[i] * (x1 - x0)), pen.y(y0 + lines[i + 1] * (y1 - y0)));
    path.lineTo(pen.x(x0 + lines[i + 2] * (x1 - x0)), pen.y(y0 + lines[i + 3] * (y1 - y0)));
  }
}
