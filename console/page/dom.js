// Building and changing the page. Whatever comes from outside becomes text here
// and nothing else: there is no way from a string to markup.

/** Makes an element; props are class, title, type, scope; children are nodes or text. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  if (props.class) node.className = props.class;
  if (props.title) node.title = props.title;
  if (props.type) node.type = props.type;
  if (props.scope) node.scope = props.scope;
  node.append(...children);
  return node;
}

/** Sets text where it differs, so that a selection survives the next second. */
export function text(node, value) {
  const s = value === undefined || value === null ? "" : String(value);
  if (node.textContent !== s) node.textContent = s;
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

export function attr(node, name, value) {
  if (node.dataset[name] !== value) node.dataset[name] = value;
}

/** Gives a parent as many children as there are items, and fills each. */
export function each(parent, items, make, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, i) => {
    let row = parent.children[i];
    if (!row) {
      row = make();
      parent.append(row);
    }
    fill(row, item, i);
  });
}

/** A table row of n cells; names label them where the table folds into blocks. */
export function row(names) {
  const tr = el("tr");
  for (const name of names) {
    const cell = el("td");
    cell.dataset.name = name;
    tr.append(cell);
  }
  return tr;
}

/** A horizontal bar of parts: [{kind, value}], as wide as its parts of the whole. */
export function bar(parent, parts, whole) {
  each(parent, parts, () => el("i"), (node, part) => {
    attr(node, "kind", part.kind);
    const share = whole > 0 ? Math.min(100, (100 * part.value) / whole) : 0;
    const width = share === 0 ? "0" : `max(2px, ${share.toFixed(2)}%)`;
    if (node.style.width !== width) node.style.width = width;
  });
}

const svg = "http://www.w3.org/2000/svg";

/** A line of the last values; its top is the greatest of them. */
export class Spark {
  constructor(points) {
    this.points = points;
    this.values = [];
    this.node = document.createElementNS(svg, "svg");
    this.node.setAttribute("class", "spark");
    this.node.setAttribute("viewBox", `0 0 ${points - 1} 20`);
    this.node.setAttribute("preserveAspectRatio", "none");
    this.node.setAttribute("aria-hidden", "true");
    this.area = document.createElementNS(svg, "path");
    this.area.setAttribute("class", "area");
    this.line = document.createElementNS(svg, "path");
    this.node.append(this.area, this.line);
  }

  push(value) {
    this.values.push(value);
    if (this.values.length > this.points) this.values.shift();
    this.node.classList.toggle("flat", this.values.length < 4 || Math.max(...this.values) === 0);
    const top = Math.max(1e-9, ...this.values);
    const from = this.points - this.values.length;
    const at = this.values.map((v, i) => `${from + i} ${(18.5 - (17 * v) / top).toFixed(2)}`);
    this.line.setAttribute("d", `M${at.join("L")}`);
    this.area.setAttribute("d", `M${from} 20L${at.join("L")}L${this.points - 1} 20Z`);
  }
}
