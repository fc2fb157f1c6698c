// From the address to a view: #/task, #/task/label, #/task/label/seed, #/task/label/seed/example, and ?part of a task.
// A study has the address of its task: #/task.
(() => {
  const { h } = board;

  const read = () => {
    const [path, rest = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const part = rest.includes("=") ? undefined : rest;
    try {
      return { names: path.split("/").filter(Boolean).map(decodeURIComponent), part };
    } catch {
      return { names: [path], part };
    }
  };

  // What is filtered stands in the address too, so that a view can be sent to somebody: ?threat=Linf+3%2F20.
  board.asked = () => {
    const rest = location.hash.split("?")[1] || "";
    return new URLSearchParams(rest.includes("=") ? rest : "");
  };
  board.ask = (values) => {
    const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();
    const path = location.hash.split("?")[0] || "#/";
    history.replaceState(history.state, "", query ? `${path}?${query}` : path);
  };

  const nowhere = (names) => ({
    title: "not here",
    trail: [],
    content: [h("h1", null, "Not on this board"), h("p", null, `Nothing here is called ${names.join(", ").slice(0, 200)}.`), h("p", null, board.link("#/", "To the board"))],
  });

  const view = (names) => {
    const [task, label, seed, example] = names;
    const { tasks } = board.all();
    const { studies } = board.all();
    if (task === undefined) return tasks.length === 1 && !studies ? board.views.task(0) : board.views.home();
    const found = board.find(task, label, seed);
    const study = names.length === 1 && !found ? (studies || []).findIndex((one) => one.task === task) : -1;
    if (study >= 0) return board.views.study(study);
    if (!found || names.length > 4) return nowhere(names);
    if (seed !== undefined) return board.views.record(found.t, found.g, found.s, example);
    return label === undefined ? board.views.task(found.t) : board.views.defense(found.t, found.g);
  };

  const trail = (steps) => {
    const home = board.all().tasks.length > 1 || board.all().studies ? [["All tasks", "#/"]] : [];
    const all = steps.length ? [...home, ...steps] : [];
    document.getElementById("trail").replaceChildren(
      h("ol", null, all.map(([text, href], i) => h("li", null, href && i < all.length - 1 ? board.link(href, text) : h("span", { "aria-current": "page" }, text)))),
    );
  };

  // Back and forward return to where the reader was: an address that is met again has a number in its state.
  const places = [];
  const arrive = () => {
    const again = history.state !== null && places[history.state] !== undefined;
    if (!again) {
      places.push(0);
      history.replaceState(places.length - 1, "");
    }
    return again ? places[history.state] : 0;
  };

  // What a view is made from: of a board of a single task, whose view is the first, or by the address.
  const asked = ([task, label, seed]) => {
    const { tasks, studies } = board.all();
    if (task === undefined) return tasks.length === 1 && !studies ? { t: 0 } : {};
    return board.find(task, label, seed) || {};
  };

  let shown = null;
  let turn = 0;
  const show = async () => {
    const height = arrive();
    const { names, part } = read();
    const key = names.join("/");
    const main = document.getElementById("main");
    const { dataset } = document.documentElement;
    const mine = (turn += 1);
    delete dataset.ready;
    // An explanation is of the view that it was opened on: Back leaves both.
    document.getElementById("explain").close();
    await board.need(...board.needed(asked(names)));
    // Whoever has gone on meanwhile is shown the later view alone.
    if (mine !== turn) return;
    dataset.ready = "";
    // A part of what is shown already is only scrolled to.
    if (shown !== key) {
      const found = view(names);
      document.title = `${found.title.slice(0, 80)} · advbench leaderboard`;
      trail(found.trail);
      main.replaceChildren(...found.content.flat(Infinity).filter(Boolean));
      if (found.ready) found.ready();
      if (shown !== null) main.focus({ preventScroll: true });
      shown = key;
      scrollTo(0, height);
      if (height) return;
    }
    const target = document.getElementById(names.length === 4 ? "at-example" : `at-${part}`);
    if (target) {
      target.scrollIntoView({ block: "start" });
      target.focus({ preventScroll: true });
    }
  };

  board.start = async () => {
    if (!("DecompressionStream" in window)) {
      document.getElementById("main").append(h("p", null, "This page needs a browser of 2023 or later. ", board.link("README.md", "README.md"), " beside it has the same tables."));
      return;
    }
    history.scrollRestoration = "manual";
    const [tables] = await Promise.all([board.text("tables"), board.need("board")]);
    board.run(tables);
    addEventListener("hashchange", show);
    // An address is a view, and this one is a place within whatever is shown.
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    });
    addEventListener("scroll", () => { if (history.state !== null) places[history.state] = scrollY; }, { passive: true });
    await show();
    // For whoever prints before having scrolled to a chart.
    setTimeout(board.warm, 500);
  };
})();
