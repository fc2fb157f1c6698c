// The examples of a record one by one: what broke each, at what cost, how far it was, and the image where there is one.
(() => {
  const { h } = board;
  const MANY = 25;

  // Bytes of H x W x C in base64, as pixels on a canvas; `other` shows the difference, magnified to what can be seen.
  const canvas = (pixels, shape, words, other) => {
    const [channels, height, width] = shape;
    const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const [mine, less] = [bytes(pixels), other ? bytes(other) : null];
    const most = less ? Math.max(1, ...mine.map((value, i) => Math.abs(value - less[i]))) : 1;
    const level = (i) => (less ? 128 + (127 * (mine[i] - less[i])) / most : mine[i]);
    const found = h("canvas", { width, height, role: "img", "aria-label": words, class: "pixels" });
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i += 1) {
      for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = level(i * channels + (channels === 3 ? c : 0));
      image.data[4 * i + 3] = 255;
    }
    found.getContext("2d").putImageData(image, 0, 0);
    return found;
  };

  const pictures = (held, index, label) => {
    const { images } = held;
    const at = images ? images.index.indexOf(index) : -1;
    if (at < 0) return null;
    const clean = images.clean && images.clean[at];
    const shown = [["what broke it", images.pixels[at], null], ...(clean ? [["the image", clean, null], ["the difference, magnified", images.pixels[at], clean]] : [])];
    return h("div", { class: "pictures" }, shown.map(([words, pixels, other]) => h("figure", null, canvas(pixels, images.shape, `example ${index} of class ${label}: ${words}`, other), h("figcaption", null, words))));
  };

  const fate = (examples, i) => {
    const attack = examples.broken[i] < 0 ? null : examples.attacks[examples.broken[i]];
    return attack === null ? "stands" : attack === "clean" ? "wrong without an attack" : `broken by ${attack}`;
  };

  // One example in full.
  const one = (held, examples, i) => {
    const facts = [
      ["Class", examples.label[i]],
      ["Predicted, unattacked", examples.predicted[i]],
      ["Outcome", fate(examples, i)],
      ["Margin", `${board.number(examples.margin[i])} logits`],
      ["Nearest known failure", examples.distance[i] == null ? "none known" : board.number(examples.distance[i])],
      ["Cost", `${examples.passes[i].toLocaleString("en")} passes`],
    ];
    return h(
      "div",
      { class: "one", id: "at-example", tabindex: "-1", "aria-label": `Example ${examples.index[i]}` },
      h("h3", null, `Example ${examples.index[i]}`),
      h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, String(value))))),
      pictures(held, examples.index[i], examples.label[i]) || h("p", { class: "soft" }, "This page has no image of it."),
    );
  };

  const exampleView = (t, g, s, index) => {
    const task = board.all().tasks[t];
    const group = task.groups[g];
    const seed = group.seeds[s].seed;
    const held = board.record(t, g, s);
    const { examples } = held;
    if (!examples) return null;
    const all = examples.index.map((_, i) => i);
    const count = (attack) => examples.broken.filter((number) => (number < 0 ? null : examples.attacks[number]) === attack).length;
    const fates = { "": "all", stands: `stand (${count(null)})`, ...Object.fromEntries(examples.attacks.map((attack) => [`a:${attack}`, `${attack === "clean" ? "wrong without an attack" : `broken by ${attack}`} (${count(attack)})`])) };
    let wanted = "";
    let from = 0;
    const home = h("div");
    const attackOf = (i) => (examples.broken[i] < 0 ? "stands" : `a:${examples.attacks[examples.broken[i]]}`);
    const to = (i) => board.address(task.task, group.label, seed, examples.index[i]);
    const render = () => {
      const left = all.filter((i) => !wanted || attackOf(i) === wanted);
      const rows = left.slice(from, from + MANY).map((i) => {
        const { images } = held;
        const at = images ? images.index.indexOf(examples.index[i]) : -1;
        return [
          board.link(to(i), String(examples.index[i])),
          ...(images ? [at < 0 ? "" : canvas(images.pixels[at], images.shape, `example ${examples.index[i]} as it was broken`)] : []),
          examples.label[i],
          examples.predicted[i],
          fate(examples, i),
          board.number(examples.margin[i]),
          board.number(examples.distance[i]),
          board.amount(examples.passes[i]),
        ];
      });
      const head = ["Example", ...(held.images ? ["Image"] : []), "Class", "Predicted", "Outcome", { text: "Margin", number: true }, { text: "Distance", number: true }, { text: "Passes", number: true }];
      const turn = (by, words) => h("button", { type: "button", disabled: from + by < 0 || from + by >= left.length, onclick: () => { from += by; render(); } }, words);
      home.replaceChildren(
        board.grid("Examples", head, rows, { class: "grid examples" }),
        h("p", { class: "pages" }, turn(-MANY, "Back"), h("span", { role: "status" }, left.length ? ` ${from + 1}–${Math.min(from + MANY, left.length)} of ${left.length.toLocaleString("en")} ` : " none "), turn(MANY, "On")),
      );
    };
    render();
    const chosen = index === undefined ? -1 : examples.index.indexOf(Number(index));
    const shown = examples.index.length;
    return h(
      "section",
      { id: "at-examples", tabindex: "-1" },
      h("h2", null, "Examples"),
      h("p", { class: "soft" }, `${shown < examples.n ? `The first ${shown.toLocaleString("en")} of ${examples.n.toLocaleString("en")} test examples; all lie in examples.parquet.` : `All ${board.plural(shown, "test example")}.`} ${held.images ? `Images of ${held.images.pixels.length} of ${held.images.n} that the record keeps${held.images.step > 1 ? `, every ${held.images.step} pixels` : ""}.` : ""}`),
      chosen >= 0 ? one(held, examples, chosen) : null,
      index !== undefined && chosen < 0 ? h("p", { class: "bad" }, `Example ${index.slice(0, 40)} is not among them.`) : null,
      board.select("Show", fates, "", (now) => { wanted = now; from = 0; render(); }),
      home,
    );
  };

  Object.assign(board, { exampleView });
})();
