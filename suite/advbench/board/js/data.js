// The JSON that the page carries, each part parsed when it is first asked for.
(() => {
  const parsed = new Map();

  const part = (id) => {
    if (!parsed.has(id)) {
      const element = document.getElementById(id);
      parsed.set(id, element ? JSON.parse(element.textContent) : null);
    }
    return parsed.get(id);
  };

  const all = () => part("board");
  const more = (t) => part(`task-${t}`);
  // Of one record: null where the page had no room for it.
  const record = (t, g, s) => part(`record-${t}-${g}-${s}`);

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

  Object.assign(board, { all, more, record, find, address, seeds });
})();
