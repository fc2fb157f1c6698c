// The claims of the studies: a table of all of them, and a view of each study with its curves.
(() => {
  const { h, number, colour, dash } = board;
  const text = (value) => ({ text: value, number: true });
  const all = () => board.all().studies || [];

  const VERDICTS = ["holds", "does not hold", "undecided"];

  // As it was written down: 1.001 is not 1.
  const required = (claim) => `${claim.sense} ${String(claim.required)}${claim.over === "every seed" ? ", in every seed" : ""}`;
  const interval = (claim) => (claim.low == null ? null : `${number(claim.low)} to ${number(claim.high)}`);
  const verdict = (claim) => h("span", { class: `verdict ${claim.verdict === "holds" ? "holds" : claim.verdict === "undecided" ? "open" : "fails"}` }, claim.verdict);
  const counted = (claims) => {
    const count = (word) => claims.filter((claim) => claim.verdict === word).length;
    const said = [[count("holds"), "hold"], [count("does not hold"), "do not"], [count("undecided"), "undecided"]];
    return said.filter(([n]) => n).map(([n, word]) => `${n} ${word}`).join(", ");
  };

  const row = (claim) => [h("span", { class: "meaning claim" }, claim.statement, h("small", null, claim.source)), verdict(claim), number(claim.found), required(claim), interval(claim)];
  const HEAD = ["Claim", "Verdict", text("Found"), "Required", "Interval"];

  const claims = () => {
    if (!all().length) return null;
    const link = (study) => board.link(board.address(study.task), study.task);
    const rows = () => all().flatMap((study) => study.claims.map((claim) => [link(study), ...row(claim)]));
    const every = all().flatMap((study) => study.claims);
    const count = (study, word) => study.claims.filter((claim) => claim.verdict === word).length;
    const short = all().map((study) => [link(study), h("span", { class: "meaning" }, study.about || study.title), ...VERDICTS.map((word) => count(study, word)), study.failed.length || null]);
    return h(
      "section",
      { id: "at-claims", class: "wide", tabindex: "-1" },
      board.all().tasks.length ? h("h2", null, "What theory claims") : null,
      h("p", null, `${board.plural(every.length, "claim")} of ${all().length === 1 ? "one study" : `${all().length} studies`}: ${counted(every)}.`),
      h("p", { class: "soft" }, board.all().words.claims),
      board.grid("Studies", ["Study", "What it asks", ...["Hold", "Do not", "Undecided", "Failed seeds"].map(text)], short),
      board.fold(`All ${board.plural(every.length, "claim")}`, () => board.grid("Claims of the studies", ["Study", ...HEAD], rows())),
    );
  };

  const curves = (study) => {
    const found = study.curves;
    if (!found) return null;
    const names = Object.keys(found.lines);
    const { plot } = study;
    const make = () => ({
      says: `${plot.y} over ${plot.x}: means of ${board.plural(found.seeds, "seed")}, shaded from the lowest to the highest.`,
      head: [plot.x, ...names.map(text)],
      rows: found.x.map((x, i) => [number(x), ...names.map((name) => number(found.lines[name][0][i]))]),
      traces: () =>
        names.flatMap((name, i) => {
          const [mean, low, high] = found.lines[name];
          const band = { type: "scatter", mode: "lines", x: found.x, line: { width: 0 }, legendgroup: name, showlegend: false, hoverinfo: "skip" };
          return [
            { ...band, y: low },
            { ...band, y: high, fill: "tonexty", fillcolor: `${colour(i)}33` },
            { type: "scatter", mode: "lines+markers", name: board.brief(name), legendgroup: name, x: found.x, y: mean, line: { color: colour(i), dash: dash(i), width: 2 }, marker: { size: 5 }, hovertemplate: "%{x:.3g}: %{y:.3g}<extra>%{fullData.name}</extra>" },
          ];
        }),
      layout: (axis) => ({
        xaxis: axis(plot.x, plot.log.includes("x") ? { type: "log", exponentformat: "power" } : {}),
        yaxis: axis(plot.y, plot.log.includes("y") ? { type: "log", exponentformat: "power" } : {}),
      }),
    });
    return board.figure("curves", `${plot.y} over ${plot.x}`, make);
  };

  const study = (s) => {
    const found = all()[s];
    const seeds = found.seeds.map((seed) => text(`Seed ${seed}`));
    const rows = found.claims.map((claim) => [...row(claim), ...claim.numbers.map(number)]);
    return {
      title: found.title,
      trail: [[found.title]],
      content: [
        h("h1", null, found.title),
        h("p", { class: "setting" }, h("code", null, found.task), ` the study ${found.study}${found.paper ? ` · ${found.paper}` : ""}`),
        found.about ? h("p", { class: "leads" }, found.about) : null,
        found.claims.length ? h("p", null, `Of ${board.plural(found.claims.length, "claim")}: ${counted(found.claims)}.`) : null,
        found.failed.map((one) => h("p", { class: "error" }, `Seed ${one.seed} FAILED: ${one.error}`)),
        h("section", { id: "at-claims", class: "wide", tabindex: "-1" }, h("h2", null, "Claims"), board.grid("Claims", [...HEAD, ...seeds], rows), h("p", { class: "soft" }, board.all().words.claims)),
        h("div", { class: "figures" }, curves(found)),
        found.notes.length ? h("section", { class: "wide" }, h("h2", null, "Remarks"), h("ul", null, found.notes.map((note) => h("li", null, note)))) : null,
        h("p", { class: "soft" }, `advbench run ${found.task}.toml runs it again; each seed's numbers lie in records/${found.task}.`),
      ],
    };
  };

  Object.assign(board, { claims });
  board.views.study = study;
})();
