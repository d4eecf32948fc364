// The grid: thumbnails as a list of links. A click opens one in place; a click with Ctrl or the middle button opens it
// beside, as links do. Arrow keys, Home and End walk, Enter opens.

export default placed(startGrid, (grid, { data, setTriggerValue }) => {
  grid.open = (name) => setTriggerValue("opened", name);
  receive(grid, data);
}, stopGrid);

function startGrid(parent) {
  const grid = { list: make("ul", "grid"), urls: [] };
  parent.append(grid.list);
  grid.list.addEventListener("keydown", (event) => walk(grid, event));
  grid.list.addEventListener("focusin", (event) => settle(grid, event.target));
  return grid;
}

function stopGrid(grid) {
  grid.list.remove();
  grid.urls.forEach((url) => URL.revokeObjectURL(url));
}

/** Build the new cells, and put them in place of the old ones at once when their pictures are there. */
async function receive(grid, bytes) {
  if (grid.bytes && sameBytes(grid.bytes, bytes)) return;
  grid.bytes = bytes;
  const { header, blob } = readPayload(bytes);
  for (const cell of header.cells) cell.picture = blob(cell.picture);
  const urls = [];
  const items = header.cells.map((cell) => makeCell(grid, header, cell, urls));
  const pictures = items.map((item) => item.querySelector("img")).filter(Boolean);
  await Promise.allSettled(pictures.map((picture) => picture.decode()));
  if (grid.bytes !== bytes) return; // something newer came meanwhile
  const focused = grid.list.getRootNode().activeElement?.dataset?.name;
  grid.list.lang = header.lang;
  grid.list.setAttribute("aria-label", header.label);
  grid.list.replaceChildren(...items);
  grid.urls.forEach((url) => URL.revokeObjectURL(url));
  grid.urls = urls;
  const links = linksOf(grid);
  const place = Math.max(0, links.findIndex((link) => link.dataset.name === focused));
  links.forEach((link, number) => (link.tabIndex = number === place ? 0 : -1));
  if (focused !== undefined) links[place]?.focus({ preventScroll: true });
  grid.list.dataset.painted = `${header.cells.length}`;
  performance.mark("grid-painted", { detail: header.cells[0]?.name ?? "" });
}

function makeCell(grid, header, cell, urls) {
  const [item, link, frame] = [make("li", ""), make("a", "cell"), make("div", "frame")];
  link.href = cell.href;
  link.title = cell.name;
  link.dataset.name = cell.name;
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return; // the browser's own
    event.preventDefault();
    grid.open(cell.name);
  });
  frame.append(makePicture(cell, urls));
  if (cell.badge) frame.append(make("span", "badge", cell.badge));
  link.append(frame, make("div", "name", cell.name.split("/").at(-1)));
  if (cell.truth) link.append(make("div", "truth", cell.truth));
  for (const answer of cell.answers) link.append(makeAnswer(header, answer));
  if (cell.value) link.append(make("div", "value", cell.value));
  item.append(link);
  return item;
}

function makePicture(cell, urls) {
  if (!cell.picture.length) return make("div", cell.trouble ? "trouble" : "waiting", cell.trouble);
  const picture = make("img", "");
  const url = URL.createObjectURL(new Blob([cell.picture], { type: "image/jpeg" }));
  urls.push(url);
  picture.src = url;
  picture.alt = ""; // the name follows as text
  return picture;
}

function makeAnswer(header, answer) {
  const line = make("div", "answer");
  const model = make("span", "model", answer.model);
  model.style.setProperty("--model", answer.colour);
  line.append(model);
  if (answer.right !== null) {
    const sign = make("span", answer.right ? "right" : "wrong", answer.right ? "✓" : "✗");
    sign.setAttribute("role", "img");
    sign.setAttribute("aria-label", answer.right ? header.right : header.wrong);
    line.append(sign);
  }
  line.append(make("span", "said", answer.text));
  return line;
}

function linksOf(grid) {
  return [...grid.list.querySelectorAll("a.cell")];
}

/** One link of the grid is reached by Tab: that which had the focus last. */
function settle(grid, target) {
  const link = target.closest("a.cell");
  if (link) linksOf(grid).forEach((other) => (other.tabIndex = other === link ? 0 : -1));
}

function walk(grid, event) {
  const links = linksOf(grid);
  const at = links.indexOf(event.target.closest("a.cell"));
  const below = links.findIndex((link) => link.offsetTop > links[0].offsetTop);
  const columns = below < 0 ? links.length : below;
  const to = {
    ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns,
    Home: 0, End: links.length - 1,
  }[event.key];
  if (to === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  event.stopPropagation(); // the page's own keys
  links[to]?.focus();
}
