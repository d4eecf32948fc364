// A map as pixels. Every patch is one flat square: attention has one number per patch and nothing between them.

/** A small canvas with one pixel per value, colours from 0 to top. */
function colourPixels(table, values, width, height, top) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const steps = top > 0 ? 255 / top : 0;
  values.forEach((value, i) => {
    const index = 3 * Math.min(Math.max(Math.round(value * steps), 0), 255);
    image.data.set(table.subarray(index, index + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Draw a map into a box, over the greyed picture where the sheet says so. */
function paintMap(context, data, model, row, column, [x, y, width, height]) {
  const pixels = colourPixels(data.table, mapAt(model, row, column), data.w, data.h, topAt(model, row, column));
  context.save();
  if (data.over && data.greyBitmap) {
    context.imageSmoothingEnabled = true;
    context.drawImage(data.greyBitmap, x, y, width, height);
    context.globalAlpha = data.opacity;
  }
  context.imageSmoothingEnabled = false;
  context.drawImage(pixels, x, y, width, height);
  context.restore();
}

/** Draw what the prompts get as a strip of cells; more prompts than pixels are averaged. */
function paintPrompts(context, data, model, row, column, [x, y, width, height]) {
  const values = promptsAt(model, row, column);
  if (!values.length) return;
  const pixels = colourPixels(data.table, values, values.length, 1, topAt(model, row, column));
  context.save();
  context.imageSmoothingEnabled = values.length > width * devicePixelRatio;
  context.drawImage(pixels, x, y, width, height);
  context.restore();
}

/** The colours from 0 to the last as a bar. */
function paintBar(context, data, width, height) {
  const ramp = Float32Array.from({ length: 256 }, (_, i) => i);
  context.drawImage(colourPixels(data.table, ramp, 256, 1, 255), 0, 0, width, height);
}

/** Give a canvas a size in CSS pixels at the screen's sharpness; its context, in CSS pixels and cleared. */
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
