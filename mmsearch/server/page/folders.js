// Folders as a tree: what is chosen becomes the filter of the search.

import { ask } from "./api.js";
import { folderOf, icon, make, nameOf } from "./dom.js";

/** {path, count, total, children} of each root, from folders with the counts of what lies directly in them. */
export function treeOf(folders) {
  const nodes = new Map();
  const node = (path) => {
    if (!nodes.has(path)) nodes.set(path, { path, count: 0, total: 0, children: [] });
    return nodes.get(path);
  };
  for (const { path, count } of folders) node(path).count += count;
  const common = commonOf([...nodes.keys()]);
  for (const path of [...nodes.keys()]) {
    for (let at = path; at !== common && at.length > common.length;) {  // folders that hold nothing but folders
      const above = folderOf(at);
      if (nodes.has(above) && node(above).children.includes(nodes.get(at))) break;
      node(above).children.push(nodes.get(at));
      at = above;
    }
  }
  const top = node(common);
  sum(top);
  return top.count || top.children.length === 1 ? [top] : top.children;
}

function commonOf(paths) {
  if (!paths.length) return "/";
  let common = paths[0];
  for (const path of paths) while (!`${path}/`.startsWith(common === "/" ? "/" : `${common}/`)) common = folderOf(common);
  return common;
}

function sum(node) {
  node.children.sort((a, b) => a.path.localeCompare(b.path, undefined, { numeric: true }));
  node.total = node.count + node.children.reduce((total, child) => total + sum(child), 0);
  return node.total;
}

export class Folders {
  /** `choose(path)`: the person wants to see what lies in this folder; null: everything. */
  constructor(host, { chosen, choose, failed }) {
    Object.assign(this, { host, chosen, choose, failed });
    this.open = new Set();
  }

  async load() {
    try {
      const { folders } = await ask("/folders", {});
      this.roots = treeOf(folders);
    } catch (problem) {
      this.failed(problem);
      return;
    }
    for (const root of this.roots) this.open.add(root.path);
    this.draw();
  }

  /** Marks a folder as chosen, and opens what it lies in. */
  show(chosen) {
    this.chosen = chosen;
    if (this.roots) this.draw();
  }

  draw() {
    for (let path = this.chosen; path && path !== "/"; path = folderOf(path)) this.open.add(path === this.chosen ? "" : path);
    const hadFocus = this.host.contains(document.activeElement) && document.activeElement.dataset.path;
    this.tree = make("ul", { class: "tree", role: "tree", "aria-label": "Folders" }, ...this.roots.map((root) => this.branch(root, 1)));
    this.host.replaceChildren(this.tree);
    const items = [...this.tree.querySelectorAll("[role=treeitem]")];
    const current = items.find((one) => one.dataset.path === (hadFocus || this.chosen)) ?? items[0];
    if (current) current.tabIndex = 0;
    if (hadFocus) current.focus();
    this.tree.addEventListener("keydown", (event) => this.onkey(event));
  }

  branch(node, level) {
    const isOpen = this.open.has(node.path);
    const hasMore = node.children.length > 0;
    const twist = make("span", { class: "twist", "aria-hidden": "true" }, hasMore ? icon("right") : "");
    twist.onclick = (event) => { event.stopPropagation(); this.toggle(node); };
    const item = make("li", {
      role: "treeitem", tabIndex: -1, "data-path": node.path, "aria-level": level, "aria-selected": String(node.path === this.chosen),
      "aria-expanded": hasMore ? String(isOpen) : undefined, "aria-label": `${nameOf(node.path)}, ${node.total} files`,
    }, make("span", { class: "row" }, twist, icon("folder"), make("span", { class: "name" }, nameOf(node.path)), make("span", { class: "count" }, node.total.toLocaleString("en"))));
    item.node = node;
    item.querySelector(".row").onclick = () => this.choose(node.path === this.chosen ? null : node.path);
    if (hasMore && isOpen) item.append(make("ul", { role: "group" }, ...node.children.map((child) => this.branch(child, level + 1))));
    return item;
  }

  toggle(node, on = !this.open.has(node.path)) {
    if (on) this.open.add(node.path); else this.open.delete(node.path);
    this.draw();
  }

  onkey(event) {
    const item = event.target.closest("[role=treeitem]");
    const items = [...this.tree.querySelectorAll("[role=treeitem]")];
    const at = items.indexOf(item);
    const { node } = item;
    const isOpen = this.open.has(node.path);
    let to = null;
    if (event.key === "ArrowDown") to = items[at + 1];
    else if (event.key === "ArrowUp") to = items[at - 1];
    else if (event.key === "Home") to = items[0];
    else if (event.key === "End") to = items.at(-1);
    else if (event.key === "ArrowRight") { if (node.children.length && !isOpen) this.toggle(node, true); else if (isOpen) to = items[at + 1]; }
    else if (event.key === "ArrowLeft") { if (isOpen && node.children.length) this.toggle(node, false); else to = item.parentElement.closest("[role=treeitem]"); }
    else if (event.key === "Enter" || event.key === " ") this.choose(node.path === this.chosen ? null : node.path);
    else return;
    event.preventDefault();
    if (to) { item.tabIndex = -1; to.tabIndex = 0; to.focus(); }
  }
}
