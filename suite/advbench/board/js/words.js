"use strict";
// Numbers and lists as people read them. Everything else hangs on this one name.
const board = {};

(() => {
  const NOTHING = "–";

  const percent = (share) => (share == null ? NOTHING : (100 * share).toFixed(1));

  const amount = (count) => {
    if (count == null) return NOTHING;
    let value = count;
    for (const unit of ["", " k", " M", " G"]) {
      if (Number(value.toFixed(1)) < 1000) return unit ? value.toFixed(1) + unit : value.toFixed(0);
      value /= 1000;
    }
    return `${value.toFixed(1)} T`;
  };

  const duration = (seconds) => {
    if (seconds == null) return NOTHING;
    if (seconds < 120) return `${seconds.toFixed(1)} s`;
    return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
  };

  // Three digits of any size.
  const number = (value) => (value == null ? NOTHING : String(Number(Number(value).toPrecision(3))));

  const range = (found) => {
    if (!found) return NOTHING;
    return found[0] === found[1] ? String(found[0]) : `${found[0]}–${found[1]}`;
  };

  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  // A name cut for an axis or a legend; the whole one stands in the table.
  const brief = (name) => (name.length > 28 ? `${name.slice(0, 27)}…` : name);

  // "a, b and c"; of many the first three and how many more.
  const listed = (names) => {
    const few = names.length > 4 ? [...names.slice(0, 3).map(brief), `${names.length - 3} others`] : names.map(brief);
    return few.length < 2 ? few.join("") : `${few.slice(0, -1).join(", ")} and ${few[few.length - 1]}`;
  };

  const mean = (values) => {
    const known = values.filter((value) => value != null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };

  Object.assign(board, { NOTHING, percent, amount, duration, number, range, plural, listed, mean, brief });
})();
