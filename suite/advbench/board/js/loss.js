// The charts of what collectors found: spectra, surfaces, distances, and how far attacks had converged.
(() => {
  const { brief, colour, dash, number } = board;
  const text = (value) => ({ text: value, number: true });
  const held = (t, read) => board.seeds(t).map((line) => ({ ...line, found: line.held && line.held.arrays && read(line.held.arrays) })).filter((line) => line.found);
  // One entry of the legend a defense; whoever points at a line sees its seed too.
  const style = (line, i, lines) => ({
    type: "scatter",
    mode: "lines",
    name: brief(line.group.label),
    meta: brief(line.name),
    legendgroup: String(line.g),
    showlegend: lines.findIndex((other) => other.g === line.g) === i,
    line: { color: colour(line.g), dash: dash(line.g), width: 1.8 },
  });
  // Of `names` those that any record has, so that no chart begins with one that none has.
  const having = (names, lines) => Object.fromEntries(Object.entries(names).filter(([name]) => lines.some((line) => line.found[name])));
  const first = (names) => Object.keys(names)[0];
  const LOSSES = { clean: "clean loss", adversarial: "adversarial loss" };
  const of = (lines) => board.listed([...new Set(lines.map((line) => line.group.label))]);

  const spectra = (t) => {
    const lines = held(t, (arrays) => arrays.density);
    if (!lines.length) return null;
    const there = having({ fixed: "adversarial, attack fixed", moving: "adversarial, attack moving", clean: "clean" }, lines);
    const make = (state) => {
      const loss = state.loss || first(there);
      const some = lines.filter((line) => line.found[loss]);
      // The curve is smoothed and ends beyond the last eigenvalue; what was measured stands in the record.
      const edge = (line, which) => line.held.measures["param-hessian"]?.[`${loss}_${which}`]?.[0];
      const sharp = some.filter((line) => edge(line, "top1") != null).reduce((a, b) => (a && edge(a, "top1") >= edge(b, "top1") ? a : b), null);
      return {
        says: `Density of the eigenvalues of the weight Hessian, smoothed, on a log scale. ${sharp ? `The largest eigenvalue is that of ${brief(sharp.name)} (${number(edge(sharp, "top1"))}).` : ""}`,
        head: ["Record", text("Lowest"), text("Highest"), text("Densest at")],
        rows: some.map((line) => {
          const [x, y] = line.found[loss];
          return [line.name, number(edge(line, "lowest")), number(edge(line, "top1")), number(x[y.indexOf(Math.max(...y))])];
        }),
        traces: () => some.map((line, i) => ({ ...style(line, i, some), x: line.found[loss][0], y: line.found[loss][1].map((d) => Math.max(d, 1e-8)), hovertemplate: "%{x:.3g}: %{y:.2g}<extra>%{meta}</extra>" })),
        layout: (axis) => ({ xaxis: axis("eigenvalue"), yaxis: axis("density", { type: "log", range: [-8, 2], exponentformat: "power" }) }),
      };
    };
    return board.figure("hessian", "Weight Hessian", make, (set) => [board.select("Loss", there, first(there), set("loss"))]);
  };

  const slice = (t) => {
    const lines = held(t, (arrays) => arrays.line);
    if (!lines.length) return null;
    const there = having({ adversarial: "adversarial", clean: "clean" }, lines);
    const make = (state) => {
      const loss = state.loss || first(there);
      const some = lines.filter((line) => line.found[loss]);
      const rise = (line) => {
        const y = line.found[loss][1];
        return (y[0] + y[y.length - 1]) / 2 - y[Math.floor(y.length / 2)];
      };
      const steep = some.reduce((a, b) => (a && rise(a) >= rise(b) ? a : b), null);
      return {
        says: `The ${LOSSES[loss]} along one random direction, filter-normalised. ${steep ? `It rises most for ${brief(steep.name)}, by ${number(rise(steep))} nats at the ends.` : ""}`,
        head: ["Record", text("At the weights"), text("Rise at the ends")],
        rows: some.map((line) => [line.name, number(line.found[loss][1][Math.floor(line.found[loss][1].length / 2)]), number(rise(line))]),
        traces: () => some.map((line, i) => ({ ...style(line, i, some), x: line.found[loss][0], y: line.found[loss][1], hovertemplate: "%{x:.2f}: %{y:.3g} nats<extra>%{meta}</extra>" })),
        layout: (axis) => ({ xaxis: axis("step, in filter lengths"), yaxis: axis("loss, nats", { rangemode: "tozero" }) }),
      };
    };
    return board.figure("slice", "Loss along a line", make, (set) => [board.choice("Loss", there, first(there), set("loss"))]);
  };

  const surface = (t) => {
    const lines = held(t, (arrays) => arrays.surface);
    if (!lines.length) return null;
    const there = having({ adversarial: "adversarial", clean: "clean" }, lines);
    const make = (state) => {
      const loss = state.loss || first(there);
      const line = lines[Number(state.record || 0)];
      const { at, loss: z } = line.found[loss] || { at: [], loss: [] };
      const flat = z.flat();
      const middle = z.length ? z[Math.floor(z.length / 2)][Math.floor(z.length / 2)] : null;
      return {
        says: `The ${LOSSES[loss]} of ${brief(line.name)} over two random directions: ${number(middle)} nats at the weights themselves, between ${number(Math.min(...flat))} and ${number(Math.max(...flat))}.`,
        head: ["First direction", ...at.map((b) => text(number(b)))],
        rows: z.map((row, i) => [number(at[i]), ...row.map(number)]),
        legend: false,
        traces: (ink) => [
          {
            type: "contour",
            x: at,
            y: at,
            z,
            colorscale: "Cividis",
            ncontours: 16,
            contours: { coloring: "heatmap" },
            line: { width: 0.6, color: "rgba(255,255,255,.5)" },
            colorbar: { thickness: 10, outlinewidth: 0, title: { text: "nats", side: "top" }, tickfont: { color: ink("--ink") } },
            hovertemplate: "%{z:.3g} nats<extra></extra>",
          },
        ],
        layout: (axis) => ({ xaxis: axis("second direction"), yaxis: axis("first direction") }),
      };
    };
    const names = Object.fromEntries(lines.map((line, i) => [String(i), brief(line.name)]));
    return board.figure("surface", "Loss surface", make, (set) => [
      board.select("Record", names, "0", set("record")),
      board.choice("Loss", there, first(there), set("loss")),
    ]);
  };

  const SPREADS = {
    "input-hessian/clean_values": ["largest eigenvalue of the input Hessian (clean)", "nats/pixel²"],
    "input-hessian/adversarial_values": ["largest eigenvalue of the input Hessian (adversarial)", "nats/pixel²"],
    "margins/clean_distance": ["first-order distance (clean)", "pixels"],
    "margins/adversarial_distance": ["first-order distance (adversarial)", "pixels"],
  };

  const spread = (t) => {
    const lines = held(t, (arrays) => arrays.each);
    const there = having(Object.fromEntries(Object.entries(SPREADS).map(([name, [words]]) => [name, words])), lines);
    if (!first(there)) return null;
    const make = (state) => {
      const what = state.what || first(there);
      const some = lines.filter((line) => line.found[what]);
      const middle = (line) => line.found[what][Math.floor(line.found[what].length / 2)];
      const most = some.reduce((a, b) => (a && middle(a) >= middle(b) ? a : b), null);
      return {
        says: `Share of examples whose ${SPREADS[what][0]} is at most so large. ${most ? `The median is largest for ${brief(most.name)} (${number(middle(most))}).` : ""}`,
        head: ["Record", text("Lowest"), text("Lower quartile"), text("Median"), text("Upper quartile"), text("Highest")],
        rows: some.map((line) => [line.name, ...[0, 0.25, 0.5, 0.75, 1].map((q) => number(line.found[what][Math.round(q * (line.found[what].length - 1))]))]),
        traces: () => some.map((line, i) => ({ ...style(line, i, some), x: line.found[what], y: line.found[what].map((_, i, q) => (100 * i) / (q.length - 1)), hovertemplate: "%{y:.0f} % up to %{x:.3g}<extra>%{meta}</extra>" })),
        layout: (axis) => ({ xaxis: axis(SPREADS[what][1], what.startsWith("input") ? { type: "log", exponentformat: "power" } : {}), yaxis: axis("share of examples", { ticksuffix: " %" }) }),
      };
    };
    return board.figure("spread", "Example by example", make, (set) => [board.select("Show", there, first(there), set("what"))]);
  };

  const fosc = (t) => {
    const lines = held(t, (arrays) => arrays.fosc);
    if (!lines.length) return null;
    const make = () => ({
      says: `How much the linearised loss could still gain where PGD stands, as a share of the most it could (FOSC, median over examples): 0 is converged. Curves of ${of(lines)}.`,
      head: ["Record", text("Start"), text("Last step, lower quartile"), text("median"), text("upper quartile")],
      rows: lines.map((line) => [line.name, number(line.found[1][0]), ...line.found.map((steps) => number(steps[steps.length - 1]))]),
      traces: () => lines.map((line, i) => ({ ...style(line, i, lines), x: line.found[1].map((_, i) => i), y: line.found[1], hovertemplate: "step %{x}: %{y:.3g}<extra>%{meta}</extra>" })),
      layout: (axis) => ({ xaxis: axis("step of the attack"), yaxis: axis("share left to gain", { rangemode: "tozero" }) }),
    });
    return board.figure("fosc", "Convergence of the attack", make);
  };

  // Of all examples, not those of collectors: the table of verdicts has each one's distance.
  const distance = (t) => {
    const lines = board.seeds(t).filter((line) => line.held && line.held.standing && line.held.standing[0].length > 1);
    if (!lines.length) return null;
    const make = () => ({
      says: `Share of test examples for which no point that fools the model is known within the distance: an upper bound of what it withstands there. Curves of ${of(lines)}.`,
      head: ["Record", text("Known from"), text("to"), text("Share standing there, %")],
      rows: lines.map((line) => {
        const [at, share] = line.held.standing;
        return [line.name, number(at[0]), number(at[at.length - 1]), board.percent(share[share.length - 1])];
      }),
      traces: () =>
        lines.map((line, i) => ({
          ...style(line, i, lines),
          line: { color: colour(line.g), dash: dash(line.g), width: 1.5, shape: "hv" },
          x: line.held.standing[0],
          y: line.held.standing[1].map((share) => 100 * share),
          hovertemplate: "%{y:.1f} % beyond %{x:.3g}<extra>%{meta}</extra>",
        })),
      layout: (axis) => ({ xaxis: axis("distance, in the threat's norm"), yaxis: axis("examples standing", { ticksuffix: " %", rangemode: "tozero" }) }),
    });
    return board.figure("distance", "Distance to the nearest known failure", make);
  };

  Object.assign(board, { loss: [distance, spectra, slice, surface, spread, fosc] });
})();
