// Reading the payload, and numbers to text. Nothing here draws.

/** A sheet from its bytes: the header with every place in it replaced by what lies there. */
function readSheet(bytes) {
  const { header: data, blob } = readPayload(bytes);
  const floats = (place) => place && { values: new Float32Array(blob(place).buffer), shape: place.shape };
  for (const model of data.models) {
    model.values = floats(model.values);
    model.tops = floats(model.tops);
    model.prompts = model.prompts.map(floats);
    model.shares = floats(model.shares);
  }
  for (const name of ["picture", "grey", "table"]) data[name] = blob(data[name]);
  [data.h, data.w] = data.models[0].values.shape.slice(2);
  return data;
}

/** Whether a model has a map there: models may differ in their number of blocks. */
function hasMap(model, row, column) {
  return row < model.values.shape[0] && column < model.values.shape[1];
}

/** One map's values, row by row over the patches. */
function mapAt(model, row, column) {
  const [, columns, h, w] = model.values.shape;
  const at = (row * columns + column) * h * w;
  return model.values.values.subarray(at, at + h * w);
}

/** Value of a map's last colour. */
function topAt(model, row, column) {
  return model.tops.values[row * model.tops.shape[1] + column];
}

/** What each prompt gets in a map; empty where there are none. */
function promptsAt(model, row, column) {
  const { values, shape } = model.prompts[row];
  return values.subarray(column * shape[1], (column + 1) * shape[1]);
}

/** Shares of the kinds of tokens [name, share], without those that no map of the model has; empty when not known. */
function sharesAt(data, model, row, column) {
  if (!model.shares) return [];
  const [, columns, kinds] = model.shares.shape;
  const { values } = model.shares;
  const at = (row * columns + column) * kinds;
  const used = (kind) => values.some((value, i) => i % kinds === kind && value > 0);
  if (Number.isNaN(values[at])) return []; // a maximum over heads is no share
  return data.kinds.map((name, kind) => [name, values[at + kind], kind])
    .filter(([, , kind]) => used(kind)).map(([name, share]) => [name, share]);
}

/** A value with a few significant digits. */
function formatValue(value, digits = 3) {
  if (!value) return "0";
  return value >= 1e5 || value < 1e-4 ? value.toExponential(digits - 2) : String(Number(value.toPrecision(digits)));
}

/** A share in percent; with a digit behind the point where it says something. */
function formatShare(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
}

/** Text with its {placeholders} filled; a value is never read as a placeholder. */
function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
