// The view of a task: who leads, the table, the charts, equal budgets, what collectors found. And the view of all tasks.
(() => {
  const { h, percent } = board;
  // Rows of a lesser table that are shown unasked, and tasks that have a card.
  const MANY = 40;

  const rowsOf = (t) => board.all().tasks[t].groups.map((group, g) => ({ t, g, group }));

  const standing = (rows, caption, tasks, changed) => {
    const table = board.standings(rows, caption, tasks);
    const bar = board.filters(rows, (test) => {
      table.filter(test);
      if (changed) changed(test);
    });
    return { element: h("div", null, bar.element, table.element), ready: () => { table.draw(); bar.apply(); } };
  };

  const budgetName = ({ kind, amount }) => ({ seconds: board.duration(amount), epochs: board.plural(amount, "epoch"), passes: `${board.amount(amount)} passes` })[kind];

  const budgets = (t) => {
    const { budgets: found } = board.more(t);
    if (!found.length) return null;
    const { mark, budgets: words } = board.all().words;
    const head = ["Defense", ...found.flatMap((one) => [{ text: `# after ${budgetName(one)}`, number: true }, { text: "PGD %", number: true }, { text: "Epochs", number: true }])];
    const long = found[0].places.length > MANY;
    const rows = () => found[0].places.map((place, i) => [
      place.label,
      ...found.flatMap((one) => {
        const here = one.places[i];
        const seeds = here.seeds.map((pgd) => percent(pgd)).join(", ");
        return [here.rank, h("span", { class: "main" }, h("b", null, percent(here.pgd)), here.pgd != null && here.marked ? mark : null, h("small", null, seeds)), board.range(here.epochs)];
      }),
    ]);
    const table = () => board.grid("At equal budgets", head, rows());
    return h("section", { id: "at-budgets", class: "wide", tabindex: "-1" }, h("h2", null, "At equal budgets"), long ? board.fold(`All ${found[0].places.length} defenses`, table) : table(), h("p", { class: "soft" }, words));
  };

  const measures = (t) => {
    const { measures: found, measured } = board.more(t);
    if (!found.length) return null;
    const cell = (values) => {
      if (!values.length) return null;
      const range = values.length > 1 ? h("small", null, ` ${board.number(Math.min(...values))}–${board.number(Math.max(...values))}`) : null;
      return h("span", null, board.number(board.mean(values)), range);
    };
    const head = ["Measure", ...measured.map((label) => ({ text: label, number: true })), "Unit", "What it is"];
    const rows = () => found.map((m) => [`${m.collector} ${m.name}`, ...m.values.map(cell), m.unit, h("span", { class: "meaning" }, m.meaning)]);
    return h(
      "section",
      { id: "at-measures", class: "wide", tabindex: "-1" },
      h("h2", null, "Measures"),
      h("p", { class: "soft" }, board.all().words.measures),
      board.fold(`All ${found.length} measures`, () => board.grid("Measures", head, rows())),
    );
  };

  const explained = (text) => board.fold("How to read this table", () => h("p", { class: "soft" }, text));

  const jump = (task, sections) => {
    const names = sections.map((section) => [section.id.slice(3), section.querySelector("h2").textContent]);
    return h("nav", { class: "jump", "aria-label": "Parts of this page" }, h("ul", null, names.map(([id, name]) => h("li", null, board.link(`${board.address(task)}?${id}`, name)))));
  };

  const task = (t) => {
    const found = board.all().tasks[t];
    const table = standing(rowsOf(t), `${found.title}: one row a defense, seeds together`, false);
    const figures = [board.cleanRobust, board.radii, board.cost, board.training, ...board.loss].map((make) => make(t)).filter(Boolean);
    const wide = [budgets(t), measures(t)].filter(Boolean);
    return {
      title: found.title,
      trail: [[found.title]],
      ready: table.ready,
      content: [
        h("h1", null, found.title),
        h("p", { class: "setting" }, h("code", null, found.task), ` ${found.setting}${found.protocol ? ` · ${found.protocol}` : ""}`),
        h("p", { class: "leads" }, found.leads),
        h("p", { class: "soft" }, found.certainty),
        table.element,
        explained(`${board.all().words.caveat} ${board.all().words.legend}`),
        jump(found.task, [...figures, ...wide]),
        h("div", { class: "figures" }, figures),
        wide,
        left(t),
      ],
    };
  };

  // Whether the page had room for everything.
  const left = (t) => {
    const seeds = board.seeds(t);
    const held = seeds.filter((line) => line.held).length;
    if (held === seeds.length) return null;
    return h("p", { class: "soft", id: "left-out" }, `Details of ${board.plural(held, "record")} of ${seeds.length.toLocaleString("en")} are on this page, which has so much room for them; those of the others lie in records/${board.all().tasks[t].task}, and advbench board on a folder with fewer records shows them.`);
  };

  const home = () => {
    const { tasks, records, words } = board.all();
    const rows = tasks.flatMap((_, t) => rowsOf(t));
    const cards = tasks.map((found) =>
      h(
        "li",
        { class: "card" },
        h("h2", null, board.link(board.address(found.task), found.title)),
        h("p", { class: "setting" }, h("code", null, found.task), ` ${found.setting}`),
        h("p", null, found.leads),
        h("p", { class: "soft" }, `${board.plural(found.groups.length, "defense")}, ${board.plural(found.groups.reduce((sum, group) => sum + group.seeds.length, 0), "record")}`),
      ),
    );
    // A task of which no defense is left by the filters goes with them.
    if (!rows.length) return { title: "studies", trail: [], content: [h("h1", null, "What theory claims"), board.claims()] };
    const table = standing(rows, "All defenses of all tasks", true, (test) => {
      const left = new Set(rows.filter(test).map((row) => row.t));
      cards.forEach((card, t) => { card.hidden = !left.has(t); });
    });
    return {
      title: "all tasks",
      trail: [],
      ready: table.ready,
      content: [
        h("h1", null, "Which defense holds?"),
        h("p", { class: "soft" }, words.legend),
        h("ul", { class: "cards", "aria-label": `${tasks.length} tasks, ${records} records` }, cards),
        h("h2", null, "All defenses"),
        h("p", { class: "soft" }, "Ranks are within a task: only what met the same examples under the same threat is compared. The filters choose tasks above, too."),
        table.element,
        explained(words.caveat),
        board.claims(),
      ],
    };
  };

  Object.assign(board, { views: { task, home } });
})();
