// Numbers to numbers: reading maps, scales, enlarging, colouring, differences, iso-lines. Nothing here draws.

/** A map {values: Float32Array, h, w} from its place in the payload; null stays null. */
function readMap(place, blob) {
  if (!place) return null;
  const [h, w] = place.shape;
  const data = blob(place).buffer;
  if (place.type === "f4") return { values: new Float32Array(data), h, w };
  const step = (place.high - place.low) / 65535;
  return { values: Float32Array.from(new Uint16Array(data), (level) => place.low + level * step), h, w };
}

/** Shown magnitudes of a map in rising order: of both signs, or of values above 0 with the others as 0. */
function magnitudes(values, signed) {
  return values.map(signed ? Math.abs : (value) => Math.max(value, 0)).sort();
}

/** The q-th percentile (0-100) of numbers in rising order, linear between them as numpy does. */
function percentile(sorted, q) {
  const place = (sorted.length - 1) * (q / 100);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/** Value of the last colour: a high percentile of the magnitudes, or their largest where that is 0. */
function scaleTop(sorted, clip) {
  return percentile(sorted, clip) || sorted[sorted.length - 1];
}

/** Value at the percentile q of a distribution given as (q, value) pairs in rising order. */
function quantileAt(pairs, q) {
  const next = pairs.findIndex(([at]) => at >= q);
  if (next < 0) return pairs[pairs.length - 1][1];
  if (next === 0) return pairs[0][1];
  const [[q0, value0], [q1, value1]] = [pairs[next - 1], pairs[next]];
  return value0 + ((value1 - value0) * (q - q0)) / (q1 - q0);
}

/** For every output pixel along one axis: the two cells of the map between which it lies, and how far from the first.
 * -1 marks a pixel outside of what the model saw. */
function axisPlaces(count, from, to, cropFrom, cropTo, cells, smooth) {
  const first = new Int32Array(count);
  const second = new Int32Array(count);
  const part = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const share = (from + ((i + 0.5) / count) * (to - from) - cropFrom) / (cropTo - cropFrom);
    if (share < 0 || share >= 1) {
      first[i] = -1;
    } else if (smooth) {
      const place = Math.min(Math.max(share * cells - 0.5, 0), cells - 1); // half-pixel centres, flat beyond them
      first[i] = Math.floor(place);
      second[i] = Math.min(first[i] + 1, cells - 1);
      part[i] = place - first[i];
    } else {
      first[i] = second[i] = Math.floor(share * cells);
    }
  }
  return { first, second, part };
}

/** A map's values at every pixel of a view: {width, height} pixels of the part `rect` [x0, y0, x1, y1] of the image.
 * NaN where the model saw nothing. */
function resample(map, rect, crop, width, height, smooth) {
  const across = axisPlaces(width, rect[0], rect[2], crop[0], crop[2], map.w, smooth);
  const down = axisPlaces(height, rect[1], rect[3], crop[1], crop[3], map.h, smooth);
  const out = new Float32Array(width * height);
  const line = new Float32Array(map.w);
  for (let y = 0, at = 0; y < height; y++) {
    if (down.first[y] < 0) {
      out.fill(NaN, at, at + width);
      at += width;
      continue;
    }
    const upper = down.first[y] * map.w;
    const lower = down.second[y] * map.w;
    const t = down.part[y];
    for (let x = 0; x < map.w; x++) {
      line[x] = map.values[upper + x] + (map.values[lower + x] - map.values[upper + x]) * t;
    }
    for (let x = 0; x < width; x++, at++) {
      const a = across.first[x];
      out[at] = a < 0 ? NaN : line[a] + (line[across.second[x]] - line[a]) * across.part[x];
    }
  }
  return out;
}

/** Colours of a map over a grey image, into `out` (RGBA bytes): the rules of explain.render.heatmap.overlay.
 * @param shown {low, high, signed, blank} of the map; @param look {opacity, threshold}; values below the threshold's
 * share of the scale are left out; a blank map leaves the image. */
function compose(out, grey, values, table, shown, look) {
  const { low, high, signed, blank } = shown;
  const steps = 255 / (high - low);
  const least = look.threshold * high;
  for (let i = 0, at = 0; i < grey.length; i++, at += 4) {
    const value = values[i];
    const size = signed ? Math.abs(value) : value;
    let alpha = look.opacity;
    const under = grey[i];
    out[at + 3] = 255;
    if (blank || Number.isNaN(value) || (least > 0 && size < least)) {
      out[at] = out[at + 1] = out[at + 2] = under;
      continue;
    }
    if (signed) alpha *= Math.sqrt(Math.min(size / high, 1));
    let index = Math.round((value - low) * steps);
    index = 3 * (index > 0 ? (index < 255 ? index : 255) : 0);
    out[at] = under + (table[index] - under) * alpha;
    out[at + 1] = under + (table[index + 1] - under) * alpha;
    out[at + 2] = under + (table[index + 2] - under) * alpha;
  }
}

/** Means of a map over a coarser grid; a cell on a border counts to both sides by its area. */
function pool(map, h, w) {
  const weights = (cells, parts) =>
    Array.from({ length: parts }, (_, part) => {
      const [from, to] = [(part * cells) / parts, ((part + 1) * cells) / parts];
      const found = [];
      for (let cell = Math.floor(from); cell < Math.min(Math.ceil(to - 1e-9), cells); cell++) {
        found.push([cell, (Math.min(cell + 1, to) - Math.max(cell, from)) / (to - from)]);
      }
      return found;
    });
  const [rows, columns] = [weights(map.h, h), weights(map.w, w)];
  const values = new Float32Array(h * w);
  rows.forEach((row, y) => columns.forEach((column, x) => {
    let sum = 0;
    for (const [i, a] of row) for (const [j, b] of column) sum += a * b * map.values[i * map.w + j];
    values[y * w + x] = sum;
  }));
  return { values, h, w };
}

/** First map minus the second, on the grid they share: their own where it is the same, else the patch grid. */
function difference(first, second, [h, w]) {
  const alike = first.h === second.h && first.w === second.w;
  const coarse = (map) => (alike || (map.h <= h && map.w <= w) ? map : pool(map, h, w));
  const [a, b] = [coarse(first), coarse(second)];
  return { values: a.values.map((value, i) => value - b.values[i]), h: a.h, w: a.w };
}

/** Where a map is largest in magnitude: [row, column], from 0. */
function largestAt(map, signed) {
  let best = 0;
  const size = (i) => (signed ? Math.abs(map.values[i]) : map.values[i]);
  for (let i = 1; i < map.values.length; i++) if (size(i) > size(best)) best = i;
  return [Math.floor(best / map.w), best % map.w];
}

/** Lines along which a map has a value: flat [x0, y0, x1, y1, …] as shares of the map's width and height. */
function isoLines(map, level) {
  const factor = Math.max(1, Math.min(8, Math.floor(256 / Math.max(map.h, map.w)))); // straight pieces look round
  const [w, h] = [map.w * factor, map.h * factor];
  const fine = factor > 1 ? resample(map, [0, 0, 1, 1], [0, 0, 1, 1], w, h, true) : map.values;
  const lines = [];
  for (let y = 0; y < h - 1; y++) {
    for (let x = 0; x < w - 1; x++) {
      const at = y * w + x;
      const above = (fine[at] >= level) + (fine[at + 1] >= level)
        + (fine[at + w] >= level) + (fine[at + w + 1] >= level);
      if (above === 0 || above === 4) continue;
      const corners = [fine[at], fine[at + 1], fine[at + w + 1], fine[at + w]];
      const inside = corners.map((value) => value >= level);
      const crossings = [];
      for (let side = 0; side < 4; side++) {
        const next = (side + 1) % 4;
        if (inside[side] === inside[next]) continue;
        const t = (level - corners[side]) / (corners[next] - corners[side]);
        const [ax, ay] = [side === 1 || side === 2 ? 1 : 0, side >= 2 ? 1 : 0];
        const [bx, by] = [next === 1 || next === 2 ? 1 : 0, next >= 2 ? 1 : 0];
        crossings.push((x + 0.5 + ax + (bx - ax) * t) / w, (y + 0.5 + ay + (by - ay) * t) / h);
      }
      lines.push(...crossings); // two crossings, or four at a saddle: two pieces either way
    }
  }
  return lines;
}

/** A value with three significant digits and a true minus sign, as Python's ".3g" writes it. */
function formatValue(value) {
  if (!value) return "0";
  const [digits, exponent] = value.toExponential(2).split("e").map(Number);
  const power = `${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  const text = exponent < -4 || exponent > 2 ? `${digits}e${power}` : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "\u2212");
}

/** Text with its {placeholders} filled; a value is never read as a placeholder. */
function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
