// The look: everything a reader may change about the panel, and its short text in the address ("o40.t20.z250").

const VIEWS = { side: "s", difference: "d", swipe: "w", blink: "b" };
const SCOPES = { map: "m", sample: "s", dataset: "d" };
const MAX_ZOOM = 20;
const LOOK_PARAMETER = "look";
const STORED = "saliency-panel-look";

const number = (letter, low, high, unit, initial) => ({ letter, low, high, unit, initial });
const flag = (letter, initial) => ({ letter, flag: true, initial });
const LOOK_FIELDS = {
  view: { letter: "v", choices: VIEWS, initial: "side" },
  scope: { letter: "e", choices: SCOPES, initial: "map" },
  positive: { letter: "c", names: "positive" },
  signed: { letter: "q", names: "signed" },
  opacity: number("o", 0, 1, 100),
  clip: number("p", 50, 100, 10),
  threshold: number("t", 0, 0.95, 100, 0),
  contour: flag("k", false),
  grid: flag("g", false),
  average: flag("a", true),
  smooth: flag("n", true),
  region: flag("r", true),
  crop: flag("f", true),
  brightness: number("b", 0.2, 2, 100, 1),
  contrast: number("u", 0.2, 2, 100, 1),
  divider: number("w", 0, 1, 1000, 0.5),
  zoom: number("z", 1, MAX_ZOOM, 100, 1),
  x: number("x", 0, 1, 10000, 0.5),
  y: number("y", 0, 1, 10000, 0.5),
};

/** The look before anybody changed it. @param known {opacity, clip, positive: names, signed: names} of the panel. */
function defaultLook(known) {
  const look = {};
  for (const [name, field] of Object.entries(LOOK_FIELDS)) {
    look[name] = field.names ? known[field.names][0] : field.initial ?? known[name];
  }
  return look;
}

/** What differs from the defaults, as text for the address; "" when nothing does. */
function writeLook(look, known) {
  const initial = defaultLook(known);
  const parts = [];
  for (const [name, field] of Object.entries(LOOK_FIELDS)) {
    const write = (value) => {
      if (field.choices) return field.choices[value];
      if (field.names) return value;
      return field.flag ? Number(value) : Math.round(value * field.unit);
    };
    if (write(look[name]) !== write(initial[name])) parts.push(field.letter + write(look[name]));
  }
  return parts.join(".");
}

/** The look that a text names; whatever it does not name, or names wrongly, is the default. */
function readLook(text, known) {
  const look = defaultLook(known);
  const given = new Map((text || "").split(".").map((part) => [part.slice(0, 1), part.slice(1)]));
  for (const [name, field] of Object.entries(LOOK_FIELDS)) {
    const found = given.get(field.letter);
    if (found === undefined) continue;
    if (field.choices) {
      look[name] = Object.keys(field.choices).find((choice) => field.choices[choice] === found) ?? look[name];
    } else if (field.names) {
      if (known[field.names].includes(found)) look[name] = found;
    } else if (/^\d{1,6}$/.test(found)) {
      const value = Number(found) / (field.unit ?? 1);
      look[name] = field.flag ? value === 1 : Math.min(Math.max(value, field.low), field.high);
    }
  }
  return look;
}

/** Part of the image that is seen, [x0, y0, x1, y1] as shares; never beyond its edges. */
function visibleRect(look) {
  const half = 0.5 / look.zoom;
  const clamp = (centre) => Math.min(Math.max(centre, half), 1 - half);
  const [x, y] = [clamp(look.x), clamp(look.y)];
  return [x - half, y - half, x + half, y + half];
}

/** The zoom after a step about a point of the view (shares of its width and height): that point stays where it is. */
function zoomAbout(look, factor, u, v) {
  const [x0, y0, x1, y1] = visibleRect(look);
  const zoom = Math.min(Math.max(look.zoom * factor, 1), MAX_ZOOM);
  const [atX, atY] = [x0 + u * (x1 - x0), y0 + v * (y1 - y0)];
  return centred({ zoom, x: atX + (0.5 - u) / zoom, y: atY + (0.5 - v) / zoom });
}

/** The same zoom with a centre that keeps the view inside the image. */
function centred(look) {
  const [x0, y0, x1, y1] = visibleRect(look);
  return { zoom: look.zoom, x: (x0 + x1) / 2, y: (y0 + y1) / 2 };
}

/** The look a page opens with: of the link, else of this tab. */
function openingLook(known) {
  const linked = new URLSearchParams(location.search).get(LOOK_PARAMETER);
  return readLook(linked ?? sessionStorage.getItem(STORED), known);
}

/** Keep the look in this tab and in the address, without a step in the browser's history. */
function keepLook(look, known) {
  const text = writeLook(look, known);
  sessionStorage.setItem(STORED, text);
  const address = new URL(location.href);
  if ((address.searchParams.get(LOOK_PARAMETER) ?? "") === text) return;
  if (text) address.searchParams.set(LOOK_PARAMETER, text);
  else address.searchParams.delete(LOOK_PARAMETER);
  history.replaceState(history.state, "", address);
}
