// Elements from names, attributes and children. A string becomes a text node, so no name is ever read as HTML.
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value == null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
    return element;
  };

  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const link = (href, text, attributes) => h("a", { href, ...attributes }, text);

  // A table of text: `head` has words or {text, number}; cells are text, numbers or elements.
  const grid = (caption, head, rows, attributes) => {
    const columns = head.map((name) => (typeof name === "string" ? { text: name } : name));
    // A name of ten thousand characters takes three lines, and is whole where it is chosen.
    const clamp = (value) => (typeof value === "string" && value.length > 60 ? h("span", { class: "clamp" }, value) : value);
    // A name such as adversarial_accuracy breaks where its words do.
    const broken = (value) => (typeof value === "string" && value.length <= 60 ? value.split(/(?<=_)/).flatMap((word, i) => (i ? [h("wbr"), word] : [word])) : clamp(value));
    const cell = (value, i) =>
      i === 0
        ? h("th", { scope: "row" }, broken(value))
        : h("td", { class: columns[i].number ? "n" : null }, value == null ? board.NOTHING : value);
    return h(
      "div",
      { class: "box", role: "region", "aria-label": caption, tabindex: "0" },
      h(
        "table",
        { class: "grid", ...attributes },
        h("caption", { class: "hidden" }, caption),
        h("thead", null, h("tr", null, columns.map((c) => h("th", { scope: "col", class: c.number ? "n" : null }, clamp(c.text))))),
        h("tbody", null, rows.map((row) => h("tr", null, row.map(cell)))),
      ),
    );
  };

  // What is only read by who wants it; made when it is opened.
  const fold = (summary, make, open) => {
    const found = h("details", { class: "fold", open }, h("summary", null, summary));
    const show = () => found.open && found.children.length === 1 && found.append(make());
    found.addEventListener("toggle", show);
    show();
    return found;
  };

  // A heading of a name that a stranger chose: a very long one is cut, and whole below.
  const given = (name) => (name.length > 120 ? [h("h1", null, `${name.slice(0, 119)}…`), fold("The whole name", () => h("p", { class: "whole" }, name))] : [h("h1", null, name)]);

  // Radio buttons that look like a switch; `choose` gets the value.
  let switches = 0;
  const choice = (label, values, now, choose) => {
    switches += 1;
    const name = `choice-${switches}`;
    return h(
      "fieldset",
      { class: "choice" },
      h("legend", null, label),
      Object.entries(values).map(([value, text]) =>
        h("label", null, h("input", { type: "radio", name, value, checked: value === now, onchange: () => choose(value) }), h("span", null, text)),
      ),
    );
  };

  const select = (label, values, now, choose) =>
    h(
      "label",
      { class: "select" },
      h("span", null, label),
      h(
        "select",
        { onchange: (event) => choose(event.target.value) },
        Object.entries(values).map(([value, text]) => h("option", { value, selected: value === now }, text)),
      ),
    );

  // JSON as people read it.
  const pretty = (value) => h("pre", { tabindex: "0" }, JSON.stringify(value, null, 2));

  const copyable = (text) => {
    const said = h("span", { class: "said", role: "status" });
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(text);
        said.textContent = "Copied.";
      } catch {
        said.textContent = "Select it and copy by hand.";
      }
    };
    return h("div", { class: "command" }, h("pre", { tabindex: "0" }, text), h("button", { type: "button", onclick: copy }, "Copy"), said);
  };

  Object.assign(board, { h, svg, link, grid, fold, given, choice, select, pretty, copyable });
})();
