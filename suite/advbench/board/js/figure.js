// A chart: drawn by plotly when it comes into sight, with a sentence and a table that say the same.
(() => {
  const { h } = board;
  // Okabe and Ito's colours, which colour-blind readers tell apart; beyond them everything is grey and has its name.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px 2px 1px 2px"];
  const CONFIG = { displayModeBar: false, displaylogo: false, showSendToCloud: false, showEditInChartStudio: false, responsive: true, scrollZoom: false, doubleClick: "reset" };

  const others = (g) => g >= COLOURS.length;
  const night = matchMedia("(prefers-color-scheme: dark)");
  // On a dark page the darkest of them are lighter, and the sky with them, which the blue would meet.
  const LIGHTER = { "#0072b2": "#3a8fd0", "#56b4e9": "#b9e4ff", "#8c564b": "#c49386" };
  const colour = (g) => (others(g) ? "#8f8f8f" : (night.matches && LIGHTER[COLOURS[g]]) || COLOURS[g]);
  const symbol = (g, open) => SYMBOLS[g % SYMBOLS.length] + (open ? "-open" : "");
  const dash = (g) => (g < DASHES.length ? DASHES[g] : "solid");

  // Five megabytes of script that nobody needs before the first chart.
  let script;
  let unpacking;
  const warm = () => (unpacking ??= board.text("charts").then((text) => { script = text; }));
  const run = () => {
    if (!window.Plotly) board.run(script);
  };

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const axis = (title, more) => ({
    title: { text: title, standoff: 8 },
    gridcolor: ink("--line"),
    zerolinecolor: ink("--line"),
    linecolor: ink("--line"),
    automargin: true,
    ...more,
  });

  const layout = (spec, traces) => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: ink("--ink") },
    margin: { l: 48, r: 12, t: 8, b: 44 },
    hoverlabel: { bgcolor: ink("--tint"), bordercolor: ink("--line"), font: { color: ink("--ink") }, namelength: 40 },
    legend: { orientation: "h", y: -0.24, yanchor: "top", x: 0, itemclick: "toggle" },
    // A legend of hundreds would be the whole chart; whoever points at a line sees its name.
    showlegend: spec.legend !== false && traces.filter((trace) => trace.showlegend !== false).length <= 14,
    dragmode: false,
    hovermode: "closest",
    ...spec.layout(axis, ink),
  });

  const shown = new Set();

  // Hundreds of grey lines are one trace with gaps, which draws at once.
  const gather = (traces) => {
    const grey = traces.filter((trace) => trace.others);
    if (grey.length < 2) return traces;
    const join = (read) => grey.flatMap((trace) => [...read(trace), null]);
    const symbols = Array.isArray(grey[0].marker?.symbol) ? { symbol: join((trace) => trace.marker.symbol) } : {};
    const one = { ...grey[0], name: "others", showlegend: true, legendgroup: "others", ...Object.fromEntries(["x", "y", "text"].map((name) => [name, join((trace) => trace[name])])) };
    return [...traces.filter((trace) => !trace.others), { ...one, marker: { ...grey[0].marker, ...symbols } }];
  };

  const paint = (plot) => {
    run();
    const traces = gather(plot.spec.traces(ink));
    window.Plotly.react(plot, traces, layout(plot.spec, traces), CONFIG);
  };

  const draw = (plot) => {
    if (!plot.isConnected || shown.has(plot)) return;
    shown.add(plot);
    paint(plot);
  };

  const seen = new IntersectionObserver(
    async (entries) => {
      const near = entries.filter((found) => found.isIntersecting).map((found) => found.target);
      for (const plot of near) seen.unobserve(plot);
      if (near.length) await warm();
      for (const plot of near) draw(plot);
    },
    { rootMargin: "300px" },
  );

  // What is no longer on the page is forgotten; the rest is painted in the new colours.
  const again = () => {
    for (const plot of shown) {
      if (plot.isConnected) paint(plot);
      else shown.delete(plot);
    }
  };
  night.addEventListener("change", again);

  // Paper has no scrolling: what was never in sight is drawn for it.
  addEventListener("beforeprint", async () => {
    const plots = [...document.querySelectorAll(".plot")];
    for (const plot of plots) seen.unobserve(plot);
    // A printer does not wait: within the first half second of the page the paper has the tables alone.
    if (!script) await warm();
    for (const plot of plots) draw(plot);
  });

  // `make(state)` gives {traces, layout, says, head, rows}; `controls` are made with a function that sets the state.
  const figure = (id, title, make, controls) => {
    const plot = h("div", { class: "plot", role: "img" });
    const caption = h("figcaption");
    const numbers = h("div");
    const state = {};
    const update = () => {
      const spec = make(state);
      plot.spec = spec;
      plot.setAttribute("aria-label", `${title}. ${spec.says}`);
      caption.textContent = spec.says;
      numbers.replaceChildren(board.fold("Numbers of this chart", () => board.grid(`Numbers: ${title}`, spec.head, spec.rows), numbers.querySelector("details")?.open));
      if (shown.has(plot)) paint(plot);
    };
    const set = (name) => (value) => {
      state[name] = value;
      update();
    };
    const bar = controls ? h("div", { class: "controls" }, controls(set)) : null;
    update();
    seen.observe(plot);
    return h("section", { class: "figure", id: `at-${id}`, tabindex: "-1", "aria-labelledby": `at-${id}-title` }, h("h2", { id: `at-${id}-title` }, title), bar, h("figure", null, plot, caption), numbers);
  };

  Object.assign(board, { figure, warm, others, colour, symbol, dash });
})();
