// The view of one record: scores, flags with their evidence, training, measures, settings, origin, and its command.
(() => {
  const { h, percent } = board;

  // In the order of the ladder, and of the radii.
  const shares = (title, order, values, of) => {
    if (!values || !Object.keys(values).length) return null;
    const rows = order.filter((name) => name in values).map((name) => [name, percent(values[name]), of && of[name] != null ? of[name].toLocaleString("en") : null]);
    return h("div", null, h("h3", null, title), board.grid(title, [title.startsWith("By") ? "Radius" : "Attack", { text: "Accuracy %", number: true }, ...(of ? [{ text: "of examples", number: true }] : [])], rows.map((row) => (of ? row : row.slice(0, 2)))));
  };

  const accuracy = (found) => (found ? `${percent(found.accuracy)} % (${percent(found.low)}–${percent(found.high)}, of ${found.n.toLocaleString("en")})` : "none");

  const flags = (held, seed) =>
    held.flags.map((flag) =>
      h(
        "article",
        { class: "raised" },
        board.flag(flag.name, flag.name, () => [[`seed ${seed}`, flag.message]]),
        h("p", null, flag.message),
        Object.keys(flag.evidence).length ? board.fold("Evidence", () => board.pretty(flag.evidence)) : null,
      ),
    );

  const history = (t, held, name) => {
    if (!held.history) return null;
    const { epoch, pgd, fgsm, clean, loss } = held.history;
    const found = board.passing(held.history).sort();
    const measured = (what) => {
      const at = board.looks(held.history, what);
      const [x, y] = [at.map((i) => epoch[i]), at.map((i) => held.history[what][i])];
      const unit = board.unit(t, what);
      return {
        says: y.length ? `${what} by epoch${unit ? `, in ${unit}` : ""}: ${board.number(y[0])} after epoch ${x[0]}, ${board.number(y[y.length - 1])} after epoch ${x[x.length - 1]}.` : `${what} was finite in no epoch.`,
        head: ["Epoch", { text: what, number: true }],
        rows: x.map((e, i) => [e, board.number(y[i])]),
        legend: false,
        traces: () => [{ type: "scatter", mode: "lines+markers", name: what, x, y, line: { color: board.colour(0), width: 2 } }],
        layout: (axis) => ({ xaxis: axis("epoch"), yaxis: axis([what, unit].filter(Boolean).join(", ")) }),
      };
    };
    const make = ({ what }) => (what ? measured(what) : accuracies());
    const accuracies = () => ({
      says: `Accuracy on validation data by epoch. PGD-10 was highest in epoch ${epoch[pgd.indexOf(Math.max(...pgd))]} (${percent(Math.max(...pgd))} %) and ended at ${percent(pgd[pgd.length - 1])} %.`,
      head: ["Epoch", ...["Clean %", "FGSM %", "PGD %", "Loss"].map((text) => ({ text, number: true }))],
      rows: epoch.map((e, i) => [e, percent(clean[i]), percent(fgsm[i]), percent(pgd[i]), board.number(loss[i])]),
      traces: () => [["clean", clean], ["FGSM", fgsm], ["PGD-10", pgd]].map(([label, values], i) => ({ type: "scatter", mode: "lines", name: label, x: epoch, y: values.map((value) => 100 * value), line: { color: board.colour(i), dash: board.dash(i), width: 2 } })),
      layout: (axis) => ({ xaxis: axis("epoch"), yaxis: axis("accuracy", { ticksuffix: " %", rangemode: "tozero" }) }),
    });
    const kinds = { "": "accuracy", ...Object.fromEntries(found.map((what) => [what, what])) };
    return board.figure("history", "Training", make, found.length ? (set) => [board.select("Show", kinds, "", set("what"))] : null);
  };

  // Units and meanings are said once for all records of a task.
  const measures = (held, words) => {
    const rows = Object.entries(held.measures).flatMap(([collector, values]) => Object.entries(values).map(([name, [value, at]]) => [`${collector} ${name}`, value == null ? "not finite" : board.number(value), words[at][0], h("span", { class: "meaning" }, words[at][1])]));
    const remarks = Object.entries(held.remarks).map(([collector, notes]) => h("li", null, h("b", null, collector), `: ${notes.join("; ")}`));
    if (!rows.length && !remarks.length) return null;
    return [h("h2", null, "Measures"), remarks.length ? h("ul", null, remarks) : null, rows.length ? board.grid("Measures", ["Measure", { text: "Value", number: true }, "Unit", "What it is"], rows) : null];
  };

  // A cost of nought is one that nobody measured.
  const spent = (seconds, passes) => [seconds ? board.duration(seconds) : "", passes ? `${board.amount(passes)} passes` : ""].filter(Boolean).join(", ") || board.NOTHING;

  const cost = ({ cost: found }) => [
    ["Training", spent(found.train_seconds, found.train_forward + found.train_backward)],
    ["Evaluation", spent(found.eval_seconds, found.forward + found.backward)],
    ["Peak memory", found.peak_memory_bytes ? `${(found.peak_memory_bytes / 2 ** 20).toFixed(0)} MiB` : board.NOTHING],
    ...(found.joules == null ? [] : [["Energy", `${board.amount(found.joules)} J`]]),
  ];

  // The weights that fill the scores climbed the whole ladder, the others most often one rung: not the same test.
  const checkpoints = (held) =>
    Object.entries(held.checkpoints).map(([name, kept]) => [name, accuracy(kept.clean), kept.robust ? accuracy(kept.robust) : Object.entries(kept.attacks || {}).map(([attack, value]) => `${percent(value)} % after ${attack}`).join(", ") || board.NOTHING, (kept.robust && kept.robust.protocol) || board.NOTHING]);

  const facts = (pairs) => h("dl", { class: "facts" }, pairs.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));

  const missing = (held) => {
    const words = { arrays: "Arrays of its measures", examples: "Its examples", images: "Its images" };
    const left = Object.entries(held.left || {});
    return left.length ? h("ul", { class: "soft", id: "left-out" }, left.map(([kind, why]) => h("li", null, `${words[kind]}: ${why}.`))) : null;
  };

  // What works as it is printed, and where: a record knows its task file's name, and not where it lay.
  const again = (held) => {
    const soft = (text) => h("p", { class: "soft" }, text);
    const file = held.job && held.job.defense && held.job.defense.file;
    return [
      h("h2", null, held.elsewhere ? "Judge it again" : "Make it again"),
      held.again ? [soft(`In the folder of this page, where its records/ are: this runs the job of the record again and compares${file ? `; --task-folder says where ${file} lies` : ""}.`), board.copyable(held.again)] : null,
      soft(`${held.again ? "Or, for a record of your own, in" : "In"} the folder of its task file, ${held.task_file}${held.elsewhere ? ", with the weights that were judged" : ""}:`),
      board.copyable(held.command),
      soft("Whoever has this page alone finds below the resolved job, which is all that decides what comes out."),
    ];
  };

  const record = (t, g, s, index) => {
    const task = board.all().tasks[t];
    const group = task.groups[g];
    const seed = group.seeds[s];
    const held = board.record(t, g, s);
    const name = `${group.label}, seed ${seed.seed}`;
    const base = {
      title: name,
      trail: [[task.title, board.address(task.task)], [group.label, board.address(task.task, group.label)], [`seed ${seed.seed}`]],
    };
    const head = [...board.given(name), h("p", { class: "setting" }, task.title)];
    if (!held) {
      const rest = h("p", { id: "left-out" }, `This page has no room for the details of this record; they lie in records/${task.task}, in the folder of ${group.label} with seed ${seed.seed}. A board of fewer records has room: copy those that matter below another records/ and run advbench board on its folder.`);
      return { ...base, content: [...head, facts([["Robust", `${percent(seed.robust)} %`], ["Clean", `${percent(seed.clean)} %`]]), rest] };
    }
    const scores = held.scores;
    const { rungs, alone, radii, words } = board.more(t);
    return {
      ...base,
      content: [
        ...head,
        h("p", { class: "soft" }, h("code", null, held.id), ` in ${held.folder}`),
        held.error == null ? facts([["Robust", scores ? accuracy(scores.robust) : "none"], ["Clean", scores ? accuracy(scores.clean) : "none"], ["Best epoch", held.best ?? board.NOTHING], ...cost(held)]) : [h("p", { class: "leads bad" }, "This job FAILED."), h("pre", { tabindex: "0" }, held.error)],
        held.unlike.length ? [h("h2", null, "Under other settings"), h("ul", null, held.unlike.map((text) => h("li", null, text)))] : null,
        held.flags.length ? [h("h2", null, "Flags"), flags(held, seed.seed)] : held.error == null ? h("p", null, "No flag was raised.") : null,
        again(held),
        scores ? h("div", { class: "columns" }, shares("After each attack", rungs, scores.attacks), shares("Under an attack alone", alone, scores.alone, scores.alone_n || {}), shares("By radius", radii.map(([eps]) => eps), scores.curve)) : null,
        checkpoints(held).length ? [h("h2", null, "Checkpoints"), board.grid("Checkpoints", ["Checkpoint", "Clean", "Withstood", "Attacked by"], checkpoints(held)), new Set(checkpoints(held).map((row) => row[3])).size > 1 ? h("p", { class: "soft" }, "Attacked differently, these rows are not to be compared: a weaker attack leaves more.") : null] : null,
        history(t, held, name),
        board.exampleView(t, g, s, index),
        measures(held, words),
        missing(held),
        h("h2", null, "Settings"),
        board.fold("The resolved job", () => board.pretty(held.job)),
        board.fold("Where it comes from", () => board.pretty(held.provenance)),
        board.fold("Files beside it, by sha256", () => board.pretty(held.files)),
      ],
    };
  };

  board.views.record = record;
})();
