// Badges: notes of a defense, and flags that open what docs/flags.md says of them.
(() => {
  const { h } = board;
  const HEADS = { Seen: "What was seen", Means: "What it means", Do: "What to do next", Source: "Source" };

  const paragraph = (tokens) =>
    h(
      "p",
      null,
      tokens.map(([text, address]) => {
        if (address) return h("a", { href: address, rel: "noreferrer" }, text);
        return text.startsWith("`") ? h("code", null, text.slice(1)) : text;
      }),
    );

  const explain = (name, raised) => {
    const known = board.all().flags[name];
    const dialog = document.getElementById("explain");
    const title = h("h2", { id: "explain-title", tabindex: "-1" }, name);
    const close = h("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close");
    const told = known
      ? Object.entries(known).flatMap(([head, tokens]) => [h("h3", null, HEADS[head] || head), paragraph(tokens)])
      : [h("p", null, "This version of the page has no explanation of this flag.")];
    const seen = (raised || []).map(([seed, message]) => h("li", null, `${seed}: ${message}`));
    dialog.replaceChildren(h("header", null, title, close), ...(seen.length ? [h("h3", null, "Here"), h("ul", null, seen)] : []), ...told);
    dialog.showModal();
    title.focus();
  };

  // A flag as a button; `raised` has [seed, message] where they are known.
  const flag = (name, text, raised) =>
    h("button", { type: "button", class: "badge flag", "aria-haspopup": "dialog", onclick: async () => explain(name, await raised()) }, text);

  const raisedBy = (t, g, name) => async () => {
    await board.need(...board.needed({ t }));
    return board.all().tasks[t].groups[g].seeds.flatMap((seed, s) => {
      const held = board.record(t, g, s);
      const found = held ? held.flags.filter((one) => one.name === name) : [];
      return found.map((one) => [`seed ${seed.seed}`, one.message]);
    });
  };

  // The notes of a group: flags as buttons, the rest as text.
  const badges = (t, g) => {
    const group = board.all().tasks[t].groups[g];
    const plain = board.all().plain;
    const flags = Object.entries(group.flags).map(([name, count]) =>
      flag(name, `${count} of ${group.seeds.length} ${short(plain[name] || name)}`, raisedBy(t, g, name)),
    );
    const others = group.notes
      .filter(([kind]) => kind !== "flag")
      .map(([kind, text]) => h("span", { class: `badge ${kind}` }, text));
    return h("div", { class: "badges" }, flags, others);
  };

  // The first half of "was not attacked to the end, so ...": the dialog has the rest.
  const short = (words) => words.split(", so ")[0];

  Object.assign(board, { flag, badges, raisedBy });
})();
