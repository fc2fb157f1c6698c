// The table of defenses, by DataTables: sorts, pages, filters.
(() => {
  const { h, svg, percent } = board;
  const WIDTH = 132;
  const at = (share) => (6 + (WIDTH - 12) * Math.min(1, Math.max(0, share))).toFixed(1);

  // One dot a seed on a scale from 0 to 100 %, over the interval of their mean.
  const dots = (group) => {
    const scored = group.seeds.filter((seed) => seed.robust != null);
    if (!scored.length) return h("span", { class: "soft" }, group.seeds.some((seed) => seed.failed) ? "FAILED" : "not judged");
    const words = group.seeds.map((seed) => `${seed.says} ${seed.failed ? "failed" : percent(seed.robust)}`).join("; ");
    const marks = scored.map((seed) =>
      svg("circle", { class: seed.marked ? "dot marked" : "dot", cx: at(seed.robust), cy: 11, r: 3.6 }, svg("title", null, `${seed.says}: ${percent(seed.robust)} %`)),
    );
    return svg(
      "svg",
      { class: "dots", viewBox: `0 0 ${WIDTH} 22`, width: WIDTH, height: 22, role: "img", "aria-label": `robust accuracy by seed: ${words}` },
      svg("path", { class: "rule", d: `M${at(0)} 11H${at(1)}M${at(0)} 7V15M${at(0.5)} 8V14M${at(1)} 7V15` }),
      group.low == null ? null : svg("path", { class: "span", d: `M${at(group.low)} 11H${at(group.high)}` }),
      marks,
    );
  };

  const mark = (group) => (group.marked ? h("abbr", { class: "mark", title: "read the notes first" }, board.all().words.mark) : null);

  const robust = (row) => {
    const { group } = row;
    if (group.robust == null) {
      const word = group.seeds.every((seed) => seed.failed) ? "FAILED" : "not judged";
      return h("span", { class: word === "FAILED" ? "bad" : "soft" }, word);
    }
    const spread = group.low == null ? null : h("small", null, `${percent(group.low)}–${percent(group.high)}`);
    return h("span", { class: "main" }, h("b", null, percent(group.robust)), mark(group), spread);
  };

  const rank = ({ group }) => h("span", { class: "rank", title: group.unranked || null }, board.range(group.rank));

  const name = ({ t, g, group }) => board.link(board.address(board.all().tasks[t].task, group.label), group.label, { class: "name" });

  // Its title, or where several tasks share one, as sweeps do, its name.
  const taskName = (t) => {
    const { tasks } = board.all();
    const { title, task } = tasks[t];
    return tasks.some((other) => other !== tasks[t] && other.title === title) ? task : title;
  };

  const column = (title, value, show, more) => ({
    title,
    data: null,
    render: (row, type) => (type === "display" ? show(row) : value(row)),
    ...more,
  });

  const low = (value) => (value == null ? -1 : value);
  const high = (value) => (value == null ? 1e300 : value);

  const columns = (tasks) => [
    column("Defense", (row) => row.group.label, name, { className: "sticky" }),
    ...(tasks ? [column("Task", (row) => taskName(row.t), (row) => h("span", { class: "soft cut" }, taskName(row.t)))] : []),
    column("Rank", ({ group }) => (group.rank ? group.rank[0] * 1e6 + group.rank[1] : 1e12), rank, { className: "n", type: "num" }),
    column("Robust %", ({ group }) => low(group.robust), robust, { className: "n", type: "num", orderSequence: ["desc", "asc"] }),
    column("Seeds", ({ group }) => group.seeds.length, (row) => dots(row.group), { type: "num" }),
    column("Clean %", ({ group }) => low(group.clean), ({ group }) => h("span", null, percent(group.clean)), { className: "n", type: "num", orderSequence: ["desc", "asc"] }),
    column("Passes", ({ group }) => high(group.passes), ({ group }) => h("span", null, board.amount(group.passes)), { className: "n", type: "num" }),
    column("Time", ({ group }) => high(group.seconds), ({ group }) => h("span", null, board.duration(group.seconds)), { className: "n", type: "num" }),
    column("Notes", ({ group }) => group.notes.length, ({ t, g }) => board.badges(t, g), { className: "notes", type: "num", orderSequence: ["desc", "asc"] }),
  ];

  // The element, and `filter(test)` that shows the rows which pass.
  const standings = (rows, caption, tasks) => {
    const table = h("table", { class: "standings" }, h("caption", { class: "hidden" }, caption));
    const box = h("div", { class: "box", role: "region", "aria-label": caption, tabindex: "0" }, table);
    const home = h("div", { class: "standing-table" }, box);
    let test = () => true;
    let made = null;
    // DataTables measures what it draws, so it waits until the table is on the page.
    const draw = () => {
      made = new window.DataTable(table, {
        data: rows,
        columns: columns(tasks),
        order: [],
        autoWidth: false,
        deferRender: true,
        paging: rows.length > 60,
        pageLength: 50,
        lengthChange: false,
        layout: { topStart: null, topEnd: null, bottomStart: rows.length > 60 ? "info" : null, bottomEnd: rows.length > 60 ? "paging" : null },
        language: { emptyTable: "No defense yet.", zeroRecords: "No defense is left by these filters.", info: "_START_–_END_ of _TOTAL_ defenses", infoFiltered: "(of _MAX_)" },
      });
      made.search.fixed("facets", (text, row, index) => test(rows[index]));
      made.draw();
    };
    const filter = (next) => {
      test = next;
      if (made) made.draw();
    };
    return { element: home, draw, filter };
  };

  Object.assign(board, { standings, dots });
})();
