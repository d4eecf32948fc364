// The bar above the maps. Every control changes the look and nothing else; the maps are drawn again in the browser.

/** Build the bar for the present texts and tables; `panel.updates` show the look in the controls. */
function buildControls(panel) {
  const { texts } = panel.data;
  panel.updates = [];
  const bar = panel.bar;
  bar.replaceChildren();
  bar.setAttribute("aria-label", texts.controls);
  const rare = rareControls(panel);
  bar.append(
    viewChoice(panel),
    choice(panel, "scope", texts.scale, scopeOptions(panel.data), withKey(texts.scale_help, "E")),
    slider(panel, "opacity", texts.opacity, { step: 0.05, unit: "%", keys: "o / O" }),
    slider(panel, "threshold", texts.threshold, { step: 0.01, unit: "%", keys: "t / T", help: texts.threshold_help }),
    group(texts.marks,
      toggle(panel, "average", texts.average, "A", texts.average_help),
      toggle(panel, "contour", texts.contour, "C", texts.contour_help),
      toggle(panel, "grid", texts.grid, "G", texts.grid_help)),
    zoomControls(panel),
    saveControls(panel),
    moreButton(panel, rare),
    rare,
  );
  showLook(panel);
}

/** Opens and closes the row of controls that are seldom needed. */
function moreButton(panel, rare) {
  const element = button(panel.data.texts.more, withKey(panel.data.texts.more_help, "X"), () => {
    panel.more = !panel.more;
    showLook(panel);
  });
  element.classList.add("more");
  element.dataset.control = "more";
  panel.updates.push(() => {
    rare.hidden = !panel.more;
    element.setAttribute("aria-expanded", String(Boolean(panel.more)));
  });
  return element;
}

function rareControls(panel) {
  const { texts, colormaps, known } = panel.data;
  const box = make("div", "rare");
  const names = (signed) => colormaps.filter((one) => one.signed === signed).map(({ name, uniform }) =>
    [name, uniform ? name : `${name} (${texts.not_uniform})`]);
  box.append(
    choice(panel, "positive", texts.colours_positive, names(false), withKey(texts.colours_positive, "P")),
    choice(panel, "signed", texts.colours_signed, names(true), withKey(texts.colours_signed, "P")),
    slider(panel, "clip", texts.clip, { step: 0.5, keys: "q / Q", help: texts.clip_help }),
    slider(panel, "brightness", texts.brightness, { step: 0.05, unit: "%", keys: "i / I" }),
    slider(panel, "contrast", texts.contrast, { step: 0.05, unit: "%", keys: "u / U" }),
    group(texts.marks_more,
      toggle(panel, "smooth", texts.smooth, "N", texts.smooth_help),
      toggle(panel, "region", texts.region, "M", texts.region_help),
      toggle(panel, "crop", texts.crop, "V", texts.crop_help)),
    button(texts.defaults, texts.defaults_help, () => changeLook(panel, defaultLook(known))),
  );
  return box;
}

function button(text, title, act) {
  const element = make("button", "button", text);
  element.type = "button";
  element.title = title;
  element.addEventListener("click", act);
  return element;
}

function group(label, ...members) {
  const element = make("div", "group");
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
  element.append(...members);
  return element;
}

function withKey(text, key) {
  return key ? `${text} (${key})` : text;
}

/** A button that is on or off. */
function toggle(panel, name, text, key, help) {
  const element = button(text, withKey(help, key), () => changeLook(panel, { [name]: !panel.look[name] }));
  element.dataset.control = name;
  panel.updates.push(() => {
    element.setAttribute("aria-pressed", String(panel.look[name]));
    element.hidden = !(CONTROL_IS_OF_USE[name]?.(panel.data) ?? true);
  });
  return element;
}

const CONTROL_IS_OF_USE = {
  average: (data) => [...data.cells.values()].some((cell) => cell.pooled),
  region: (data) => data.outlines.length + data.boxes.length > 0,
  crop: (data) => data.crop.join() !== "0,0,1,1",
};

/** A range with its value behind it, in per cent where `unit` says so. */
function slider(panel, name, text, { step, unit, keys, help }) {
  const { low, high } = LOOK_FIELDS[name];
  const label = make("label", "slider");
  label.title = withKey(help ?? text, keys);
  const input = make("input");
  Object.assign(input, { type: "range", min: low, max: high, step });
  input.dataset.control = name;
  const value = make("output");
  label.append(make("span", "", text), input, value);
  input.addEventListener("input", () => changeLook(panel, { [name]: Number(input.value) }));
  panel.updates.push(() => {
    input.value = panel.look[name];
    value.textContent = unit ? `${Math.round(100 * panel.look[name])} %` : panel.look[name];
  });
  return label;
}

/** A list to choose one of: options are [value, text, why it cannot be chosen]. */
function choice(panel, name, text, options, help) {
  const label = make("label", "choice");
  label.title = help ?? text;
  const select = make("select");
  select.dataset.control = name;
  for (const [value, shown, why] of options) {
    const option = make("option", "", shown);
    option.value = value;
    option.disabled = Boolean(why);
    option.title = why ?? "";
    select.append(option);
  }
  label.append(make("span", "", text), select);
  select.addEventListener("change", () => changeLook(panel, { [name]: select.value }));
  panel.updates.push(() => { select.value = name === "scope" ? scopeOf(panel.data, panel.look) : panel.look[name]; });
  return label;
}

function scopeOptions(data) {
  const why = knowsDataset(data) ? null : data.texts.scale_no_dataset;
  return [["map", data.texts.scale_map], ["sample", data.texts.scale_sample],
    ["dataset", why ? `${data.texts.scale_dataset} (${why})` : data.texts.scale_dataset, why]];
}

function viewChoice(panel) {
  const { texts, rows } = panel.data;
  const keys = { side: "", difference: "D", swipe: "S", blink: "B" };
  const buttons = Object.keys(VIEWS).map((view) => {
    const element = button(texts[`view_${view}`], withKey(texts[`view_${view}_help`], keys[view]),
      () => chooseView(panel, view));
    element.dataset.control = view;
    element.disabled = view !== "side" && rows.length < 2;
    panel.updates.push(() => element.setAttribute("aria-pressed", String(panel.look.view === view)));
    return element;
  });
  return group(texts.view, ...buttons);
}

/** Change the view. To blink is the reader's wish only when he asks for it while the system asks for less motion. */
function chooseView(panel, view) {
  panel.mayBlink = view === "blink" || panel.mayBlink;
  changeLook(panel, { view });
}

function zoomControls(panel) {
  const { texts } = panel.data;
  const shown = button("", withKey(texts.zoom_reset, "0"), () => changeLook(panel, NO_ZOOM));
  shown.dataset.control = "zoom";
  panel.updates.push(() => {
    shown.textContent = `${Math.round(100 * panel.look.zoom)} %`;
    shown.setAttribute("aria-label", `${texts.zoom_reset}: ${shown.textContent}`);
  });
  const step = (text, name, factor, key) => {
    const element = button(text, withKey(name, key), () => changeLook(panel, zoomAbout(panel.look, factor, 0.5, 0.5)));
    element.setAttribute("aria-label", name);
    return element;
  };
  return group(texts.zoom, step("\u2212", texts.zoom_out, 1 / ZOOM_STEP, "\u2212"), shown,
    step("+", texts.zoom_in, ZOOM_STEP, "+"));
}

const NO_ZOOM = { zoom: 1, x: 0.5, y: 0.5 };
const ZOOM_STEP = 1.4;

function saveControls(panel) {
  const { texts } = panel.data;
  const link = button(texts.link, texts.link_help, async () => {
    keepLook(panel.look, panel.data.known);
    let done = texts.link_done;
    try {
      await navigator.clipboard.writeText(location.href);
    } catch (error) { // no clipboard here: another machine without https, or the browser was told not to
      if (!(error instanceof DOMException || error instanceof TypeError)) throw error;
      done = texts.link_by_hand;
    }
    say(panel, done);
  });
  const full = button("", withKey(texts.fullscreen_help, "F"), () => changeFullscreen(panel));
  full.setAttribute("aria-label", texts.fullscreen);
  full.classList.add("corners");
  return group(texts.save,
    button("PNG", texts.png_help, () => savePng(panel)),
    button("SVG", texts.svg_help, () => saveSvg(panel)), link, full);
}

function changeFullscreen(panel) {
  if (document.fullscreenElement) document.exitFullscreen();
  else panel.root.requestFullscreen();
}

/** A short message in the line under the bar, read out too. */
function say(panel, text) {
  panel.message.textContent = text;
  clearTimeout(panel.saying);
  panel.saying = setTimeout(() => { panel.message.textContent = ""; }, 4000);
}

/** Show the look in every control. */
function showLook(panel) {
  panel.grid.classList.toggle("zoomed", panel.look.zoom > 1);
  for (const update of panel.updates) update();
}
