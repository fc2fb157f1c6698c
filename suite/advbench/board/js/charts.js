// The charts of a task: what its defenses hold, what that cost, and how they came to it.
(() => {
  const { percent, mean, brief, listed, colour, symbol, dash } = board;
  const PERCENT = { ticksuffix: " %", rangemode: "tozero" };
  const share = (value) => (value == null ? null : 100 * value);
  const text = (value) => ({ text: value, number: true });

  const groupsOf = (t) => board.all().tasks[t].groups;

  // A dot for each seed, and its group's name once in the legend.
  const scattered = (t, x, y, says) =>
    groupsOf(t).map((group, g) => {
      const dots = group.seeds.map((seed, s) => ({ seed, x: x(group, g, seed, s), y: y(group, g, seed, s) })).filter((d) => d.x != null && d.y != null);
      return {
        type: "scatter",
        mode: "markers",
        others: board.others(g),
        name: brief(group.label),
        x: dots.map((d) => d.x),
        y: dots.map((d) => d.y),
        text: dots.map((d) => `${brief(group.label)}, ${d.seed.says}`),
        hovertemplate: `%{text}<br>${says}<extra></extra>`,
        marker: { color: colour(g), size: 9, symbol: dots.map((d) => symbol(g, d.seed.marked)), line: { width: 1.4, color: colour(g) } },
      };
    });

  const judged = (t) => groupsOf(t).some((group) => group.robust != null && group.clean != null);

  const cleanRobust = (t) => {
    if (!judged(t)) return null;
    const make = () => {
      const scored = groupsOf(t).filter((group) => group.robust != null && group.clean != null);
      const best = scored.reduce((a, b) => (a && a.clean >= b.clean ? a : b), null);
      const says = scored.length
        ? `Highest robust accuracy: ${brief(scored[0].label)} (${percent(scored[0].robust)} %, clean ${percent(scored[0].clean)} %). Highest clean accuracy: ${brief(best.label)} (${percent(best.clean)} %, robust ${percent(best.robust)} %).${scored.some((group) => group.seeds.some((seed) => seed.marked)) ? " Hollow marks are seeds with †." : ""}`
        : "No defense here has a robust accuracy.";
      return {
        says,
        head: ["Defense", text("Clean %"), text("Robust %"), text("95 % interval")],
        rows: groupsOf(t).map((g) => [g.label, percent(g.clean), percent(g.robust), g.low == null ? null : `${percent(g.low)}–${percent(g.high)}`]),
        traces: () => scattered(t, (g, i, seed) => share(seed.clean), (g, i, seed) => share(seed.robust), "clean %{x:.1f} %, robust %{y:.1f} %"),
        layout: (axis) => ({ xaxis: axis("clean accuracy", { ticksuffix: " %" }), yaxis: axis("robust accuracy", PERCENT) }),
      };
    };
    return board.figure("scatter", "Clean and robust accuracy", make);
  };

  // By group, the mean over its seeds of each entry of their lists.
  const means = (lists) => {
    const known = lists.filter(Boolean);
    return known.length ? known[0].map((_, i) => mean(known.map((list) => list[i]))) : null;
  };

  const radii = (t) => {
    const { radii: at, curves } = board.more(t);
    const lines = groupsOf(t).map((group, g) => ({ group, g, mean: means(curves[g]) })).filter((line) => line.mean);
    if (at.length < 2 || !lines.length) return null;
    const task = board.all().tasks[t];
    const make = () => {
      const last = at.length - 1;
      const far = lines.reduce((a, b) => ((a.mean[last] ?? -1) >= (b.mean[last] ?? -1) ? a : b));
      return {
        says: `Share of examples that nothing tried within the radius broke, means over seeds: a short attack, and the ladder up to the task's own radius, the upright line. At ${at[last][0]} ${brief(far.group.label)} keeps most (${percent(far.mean[last])} %).`,
        head: ["Defense", ...at.map(([eps]) => text(eps))],
        rows: lines.map((line) => [line.group.label, ...line.mean.map(percent)]),
        traces: () =>
          lines.map(({ group, g, mean: values }) => ({
            type: "scatter",
            mode: "lines+markers",
            others: board.others(g),
            name: brief(group.label),
            x: at.map(([, radius]) => radius),
            y: values.map(share),
            connectgaps: true, // records need not have met the same radii
            text: at.map(([eps]) => `${brief(group.label)} at ${eps}`),
            hovertemplate: "%{text}: %{y:.1f} %<extra></extra>",
            line: { color: colour(g), dash: dash(g), width: 2 },
            marker: { symbol: symbol(g, group.marked), size: 7 },
          })),
        layout: (axis, ink) => ({
          xaxis: axis("radius", { tickvals: at.map(([, r]) => r), ticktext: at.map(([eps]) => eps) }),
          yaxis: axis("accuracy", PERCENT),
          shapes: [{ type: "line", x0: task.eps, x1: task.eps, yref: "paper", y0: 0, y1: 1, line: { color: ink("--soft"), width: 1, dash: "dot" } }],
        }),
      };
    };
    return board.figure("radius", "Accuracy by radius", make);
  };

  // Those that nothing is at least as good as and cheaper than, from the cheapest.
  const front = (points) => {
    const sorted = [...points].sort((a, b) => a.cost - b.cost || b.robust - a.robust);
    let best = -1;
    return sorted.filter((point) => point.robust > best && ((best = point.robust), true));
  };

  // 1, 2 and 5 of every decade between the least and the most: a log axis shorter than a decade has ticks too.
  const ticks = (values, said) => {
    const [least, most] = [Math.min(...values) / 2, Math.max(...values) * 2];
    const at = [];
    for (let decade = 10 ** Math.floor(Math.log10(least)); decade <= most; decade *= 10) at.push(...[1, 2, 5].map((digit) => digit * decade));
    const inside = at.filter((value) => value >= least && value <= most);
    const some = inside.length > 8 ? inside.filter((value) => /^1(e|0|$)|^0\.0*1$/.test(String(value))) : inside;
    return { tickvals: some, ticktext: some.map((value) => said(value).replace(".0", "")) };
  };

  const cost = (t) => {
    if (!judged(t)) return null;
    const { costs } = board.more(t);
    const KINDS = { passes: ["example passes of training", 1, board.amount], seconds: ["seconds of training", 0, board.duration] };
    const make = (state) => {
      const [words, column, said] = KINDS[state.kind || "passes"];
      const points = groupsOf(t)
        .map((group, g) => ({ group, g, cost: mean(costs[g].map((seed) => seed && seed[column])), robust: group.robust }))
        .filter((point) => point.cost != null && point.robust != null);
      const best = front(points);
      return {
        says: points.length
          ? `Cost in ${words}. On the line (nothing cheaper holds as much): ${best.map((p) => `${brief(p.group.label)} (${said(p.cost)}, ${percent(p.robust)} %)`).join(", ")}.`
          : "Nobody counted what these trainings cost.",
        head: ["Defense", text("Passes"), text("Seconds"), text("Robust %"), "On the front"],
        rows: groupsOf(t).map((group, g) => [
          group.label,
          board.amount(mean(costs[g].map((seed) => seed && seed[1]))),
          board.duration(mean(costs[g].map((seed) => seed && seed[0]))),
          percent(group.robust),
          best.some((point) => point.g === g) ? "yes" : "",
        ]),
        traces: (ink) => [
          { type: "scatter", mode: "lines", name: "front", x: best.map((p) => p.cost), y: best.map((p) => share(p.robust)), line: { color: ink("--soft"), width: 1.5, dash: "dot", shape: "hv" }, hoverinfo: "skip" },
          ...scattered(t, (g, i, seed, s) => costs[i][s] && costs[i][s][column], (g, i, seed) => share(seed.robust), "%{x:.3s}, robust %{y:.1f} %"),
        ],
        layout: (axis) => ({ xaxis: axis(words, { type: "log", ...(points.length ? ticks(points.map((p) => p.cost), said) : {}) }), yaxis: axis("robust accuracy", PERCENT) }),
      };
    };
    return board.figure("cost", "Accuracy against cost", make, (set) => [board.choice("Cost in", { passes: "passes", seconds: "seconds" }, "passes", set("kind"))]);
  };

  const WHAT = { pgd: "PGD-10 accuracy", fgsm: "FGSM accuracy", clean: "clean accuracy", loss: "training loss" };
  const KNOWN = new Set(["epoch", "top_class", "eps", "lr", "seconds", "passes", ...Object.keys(WHAT)]);

  // What had been spent at the end of each epoch.
  const SPENT = { epoch: "epoch", passes: "example passes", seconds: "seconds" };
  const spent = (line, by) => {
    let sum = 0;
    return by === "epoch" ? line.held.history.epoch : line.held.history[by].map((value) => (sum += value || 0));
  };

  // Where a training collapsed, by its flag.
  const fell = (line) => {
    const flag = line.held.flags.find((one) => one.name === "catastrophic-overfitting");
    const epoch = flag && flag.evidence.epoch;
    return typeof epoch === "number" ? line.held.history.epoch.indexOf(epoch) : -1;
  };

  // What collectors measured in passing, beside what every epoch has: every so many epochs a value, and none between.
  const passing = (history) => Object.keys(history).filter((name) => !KNOWN.has(name));
  const looks = (history, name) => history.epoch.map((_, i) => i).filter((i) => history[name] && history[name][i] != null);
  const unit = (t, name) => board.more(t).measures.find((m) => `${m.collector} ${m.name}` === name)?.unit || "";

  const training = (t) => {
    const all = board.seeds(t);
    const lines = all.filter((line) => line.held && line.held.history);
    if (!lines.length) return null;
    const more = [...new Set(lines.flatMap((line) => passing(line.held.history)))].sort();
    const kinds = { ...WHAT, ...Object.fromEntries(more.map((name) => [name, name])) };
    const make = (state) => {
      const what = state.what || "pgd";
      const by = state.by || "epoch";
      const share = ["pgd", "fgsm", "clean"].includes(what);
      const scale = share ? 100 : 1;
      const values = (line) => looks(line.held.history, what).map((i) => scale * line.held.history[what][i]);
      const collapsed = lines.filter((line) => fell(line) >= 0);
      const crossed = collapsed.filter((line) => looks(line.held.history, what).includes(fell(line)));
      const left = all.length - lines.length;
      const measured = more.includes(what);
      const having = lines.filter((line) => values(line).length);
      return {
        says: `${kinds[what]} by ${SPENT[by]} of ${board.plural(having.length, "training")}${share ? ", on validation data" : ""}. ${
          collapsed.length ? `Collapsed${crossed.length ? ", at the crosses" : ""}: ${listed(collapsed.map((l) => `${brief(l.name)} in epoch ${l.held.history.epoch[fell(l)]}`))}.` : "None of them collapsed."
        }${left ? ` ${board.plural(left, "record")} without a history on this page.` : ""}`,
        head: measured ? ["Training", text("First"), text("in epoch"), text("Last"), text("in epoch")] : ["Training", text("Best PGD %"), text("in epoch"), text("Last PGD %"), "Collapsed"],
        rows: having.map((line) => {
          if (measured) {
            const at = looks(line.held.history, what);
            return [line.name, ...[at[0], at[at.length - 1]].flatMap((i) => [board.number(line.held.history[what][i]), line.held.history.epoch[i]])];
          }
          const { pgd, epoch } = line.held.history;
          const top = pgd.indexOf(Math.max(...pgd));
          return [line.name, percent(pgd[top]), epoch[top], percent(pgd[pgd.length - 1]), fell(line) < 0 ? "" : `epoch ${epoch[fell(line)]}`];
        }),
        traces: (ink) => [
          ...having.map((line) => ({
            type: "scatter",
            mode: measured ? "lines+markers" : "lines",
            others: board.others(line.g),
            name: brief(line.group.label),
            legendgroup: String(line.g),
            showlegend: line === having.find((other) => other.g === line.g),
            x: looks(line.held.history, what).map((i) => spent(line, by)[i]),
            y: values(line),
            text: values(line).map(() => `${brief(line.group.label)}, ${line.seed.says}`),
            hovertemplate: `%{text}, ${by === "epoch" ? "epoch " : ""}%{x:.4~s}: %{y:.3g}<extra></extra>`,
            line: { color: colour(line.g), dash: dash(line.g), width: 1.5 },
          })),
          {
            type: "scatter",
            mode: "markers",
            name: "collapsed",
            x: crossed.map((line) => spent(line, by)[fell(line)]),
            y: crossed.map((line) => scale * line.held.history[what][fell(line)]),
            marker: { symbol: "x", size: 12, color: ink("--bad") },
            showlegend: crossed.length > 0,
            hovertemplate: "collapsed<extra></extra>",
          },
        ],
        layout: (axis) => ({ xaxis: axis(SPENT[by], by === "epoch" ? {} : { type: "log", tickformat: "~s", nticks: 6 }), yaxis: axis([kinds[what], measured ? unit(t, what) : ""].filter(Boolean).join(", "), what === "loss" ? { type: "log" } : share ? PERCENT : {}) }),
      };
    };
    return board.figure("training", "Training", make, (set) => [board.select("Show", kinds, "pgd", set("what")), board.choice("By", { epoch: "epochs", passes: "passes", seconds: "seconds" }, "epoch", set("by"))]);
  };

  Object.assign(board, { cleanRobust, radii, cost, training, passing, looks, unit });
})();
