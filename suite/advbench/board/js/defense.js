// The view of a defense: its place, its notes, its seeds, and how to make it again.
(() => {
  const { h, percent } = board;

  const place = (task, group) => {
    if (!group.rank) return group.unranked ? `Not ranked: ${group.unranked}.` : "Not ranked.";
    const said = [`Rank ${board.range(group.rank)} of ${task.ranked}.`];
    const ranked = task.groups.filter((other) => other.rank && other !== group);
    if (ranked.some((other) => other.better) || group.better) {
      const below = group.better || [];
      const above = ranked.filter((other) => (other.better || []).includes(group.label)).map((other) => other.label);
      const level = ranked.map((other) => other.label).filter((label) => !below.includes(label) && !above.includes(label));
      if (above.length) said.push(`Worse than ${board.listed(above)}.`);
      if (below.length) said.push(`Better than ${board.listed(below)}.`);
      if (level.length) said.push(`Not told apart from ${board.listed(level)}.`);
    }
    return said.join(" ");
  };

  const seedRow = (task, t, g) => (seed, s) => {
    const held = board.record(t, g, s);
    const group = task.groups[g];
    const scores = held && held.scores;
    return [
      board.link(board.address(task.task, group.label, seed.seed), `seed ${seed.seed}`),
      seed.failed ? h("span", { class: "bad" }, "FAILED") : percent(seed.robust),
      scores && scores.robust ? `${percent(scores.robust.low)}–${percent(scores.robust.high)}` : null,
      percent(seed.clean),
      held ? held.best : null,
      held ? board.amount(held.cost.train_forward + held.cost.train_backward || null) : null,
      held ? board.duration(held.cost.train_seconds || null) : null,
      seed.says.includes(":") ? seed.says.split(": ").slice(1).join(": ") : "",
    ];
  };

  // The fields of its class; the rest of the table says which file it was.
  const fields = (held) => {
    const job = (held && held.job && held.job.defense) || {};
    return typeof job === "object" ? Object.entries(job).filter(([name]) => !["name", "file", "sha256"].includes(name)) : [];
  };
  const said = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : value === null ? "not set" : String(value));

  const settings = (held) => {
    const rows = fields(held).map(([name, value]) => [name, said(value)]);
    const lines = [held && held.paper ? h("p", { id: "paper" }, held.paper) : null, rows.length ? board.grid("Hyper-parameters", ["Field", "Value"], rows) : null];
    return lines.some(Boolean) ? [h("h2", null, "What it is"), lines] : null;
  };

  const HEAD = ["Seed", "Robust %", "95 % interval", "Clean %", "Best epoch", "Passes", "Time"].map((text, i) => (i ? { text, number: true } : text));

  const defense = (t, g) => {
    const task = board.all().tasks[t];
    const group = task.groups[g];
    const first = group.seeds.map((_, s) => board.record(t, g, s)).find(Boolean);
    const facts = [
      ["Robust", group.robust == null ? "no robust accuracy" : `${percent(group.robust)} %${group.low == null ? "" : ` (95 %: ${percent(group.low)}–${percent(group.high)})`}`],
      ["Clean", `${percent(group.clean)} %`],
      ["Training", group.passes == null ? "not measured here" : `${board.amount(group.passes)} passes, ${board.duration(group.seconds)}`],
      ["Model", group.model || board.NOTHING],
      ["Extra data", group.extra || "none"],
    ];
    return {
      title: group.label,
      trail: [[task.title, board.address(task.task)], [group.label]],
      content: [
        ...board.given(group.label),
        h("p", { class: "setting" }, `${group.defense === group.label ? "" : `${group.defense} · `}${task.title} · ${group.budget}`),
        h("p", { class: "leads" }, place(task, group)),
        h("p", { class: "soft" }, task.certainty),
        h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))),
        group.notes.length ? [h("h2", null, "Read this first"), board.badges(t, g)] : null,
        h("h2", null, "Seeds"),
        board.dots(group),
        board.grid(`Seeds of ${group.label}`, [...HEAD, "Notes"], group.seeds.map(seedRow(task, t, g))),
        settings(first),
        first ? [h("h2", null, "Make it again"), h("p", { class: "soft" }, `In the folder of its task file, ${first.task_file}:`), board.copyable(first.command.replace(/-s-?\d+$/, "-s*").replace(/--only (?!')(\S+\*)$/, "--only '$1'"))] : null,
      ],
    };
  };

  board.views.defense = defense;
})();
