// What the page carries, compressed: each part is unpacked when a view first needs it, and kept.
(() => {
  const unpacked = new Map();

  // The text of a part; null where the page has none of that name.
  const text = async (id) => {
    const element = document.getElementById(id);
    if (!element) return null;
    const letters = atob(element.textContent);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };

  // Whoever waits for these parts may ask for them afterwards.
  const need = (...ids) =>
    Promise.all(
      ids.filter((id) => !unpacked.has(id)).map(async (id) => {
        const found = await text(id);
        unpacked.set(id, found === null ? null : JSON.parse(found));
      }),
    );

  // A library, run as a script of the page.
  const run = (script) => document.head.append(board.h("script", null, script));

  const all = () => unpacked.get("board");
  const more = (t) => unpacked.get(`task-${t}`);
  const recordPart = (t, g, s) => `record-${t}-${g}-${s}`;
  // Of one record: what the charts of its task draw, and with its own part unpacked all of it. Null where the page had no
  // room for it.
  const record = (t, g, s) => {
    const course = more(t).held[`${g}-${s}`];
    return course ? { ...course, ...unpacked.get(recordPart(t, g, s)) } : null;
  };

  // The parts that a view is made from: those of a task, and of one defense or one record of it.
  const needed = ({ t, g, s }) => {
    if (t === undefined) return [];
    const { groups } = all().tasks[t];
    const seeds = g === undefined ? [] : s === undefined ? groups[g].seeds.map((_, i) => i) : [s];
    return [`task-${t}`, ...seeds.map((i) => recordPart(t, g, i))];
  };

  // By name, as addresses have it: the numbers of a task, a group and a seed, or null.
  const find = (task, label, seed) => {
    const t = all().tasks.findIndex((found) => found.task === task);
    if (t < 0 || label === undefined) return t < 0 ? null : { t };
    const g = all().tasks[t].groups.findIndex((found) => found.label === label);
    if (g < 0 || seed === undefined) return g < 0 ? null : { t, g };
    const s = all().tasks[t].groups[g].seeds.findIndex((found) => String(found.seed) === seed);
    return s < 0 ? null : { t, g, s };
  };

  const address = (...names) => `#/${names.map((name) => encodeURIComponent(String(name))).join("/")}`;

  // Every seed of a task with what the page holds of it.
  const seeds = (t) =>
    all().tasks[t].groups.flatMap((group, g) =>
      group.seeds.map((seed, s) => ({ group, g, seed, s, name: `${group.label}, seed ${seed.seed}`, held: record(t, g, s) })),
    );

  Object.assign(board, { text, need, run, all, more, record, needed, find, address, seeds });
})();
