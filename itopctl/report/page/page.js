"use strict";
// What the page does beyond being read: tables sort and filter, texts are copied. Without this file all of it is there.
(() => {
  const FILTER_FROM = 8; // rows

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Sorting: by the number that a cell stands for where the column is of numbers, else by its words. ---------------

  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const keyOf = (cell, numeric) => {
    if (!numeric) return cell.textContent.trim() || null;
    const text = cell.dataset.s ?? cell.textContent.trim();
    const value = text === "" ? NaN : Number(text);
    return Number.isNaN(value) ? null : value;
  };

  const sortRows = (rows, place, numeric, sign) => {
    const keyed = rows.map((row) => [keyOf(row.cells[place], numeric), row]);
    keyed.sort(([one], [other]) => {
      if (one === null || other === null) return (one === null) - (other === null); // what has none comes last
      return sign * (numeric ? one - other : words.compare(one, other));
    });
    return keyed.map(([, row]) => row);
  };

  const makeSortable = (table) => {
    const body = table.tBodies[0];
    const asWritten = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const numeric = head.classList.contains("n");
      const button = make("button", { type: "button", className: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const sign = next === "descending" ? -1 : 1;
        const ordered = document.createDocumentFragment();
        for (const row of next === "none" ? asWritten : sortRows(asWritten, place, numeric, sign)) ordered.append(row);
        body.append(ordered);
      });
    });
  };

  // Filtering: what has every word that was typed stays. -------------------------------------------------------

  const makeFilter = (before, items, what) => {
    const texts = new Map();
    const textOf = (item) => {
      if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase());
      return texts.get(item);
    };
    const input = make("input", { type: "search", autocomplete: "off", spellcheck: false });
    const said = make("output", {});
    const say = (count) => {
      const all = items.length.toLocaleString("en");
      said.textContent = count === items.length ? `${all} ${what}` : `${count.toLocaleString("en")} of ${all} ${what}`;
    };
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const item of items) {
        const shown = wanted.every((word) => textOf(item).includes(word));
        item.hidden = !shown;
        count += shown;
      }
      say(count);
    });
    say(items.length);
    before.before(make("div", { className: "filter" }, make("label", {}, `Filter ${what} `, input), said));
  };

  for (const table of document.querySelectorAll("table")) {
    if (!table.tHead || table.tBodies[0].rows.length < 2) continue;
    makeSortable(table);
    const rows = [...table.tBodies[0].rows];
    if (rows.length >= FILTER_FROM) makeFilter(table.parentElement, rows, "rows");
  }
  const runs = [...document.querySelectorAll("details.run")];
  if (runs.length >= FILTER_FROM) makeFilter(document.querySelector(".each"), runs, "runs");

  // Copying and saving. ------------------------------------------------------------------------------------------

  const flash = (button, text) => {
    const before = button.dataset.name;
    button.textContent = text;
    setTimeout(() => { button.textContent = before; }, 2000);
  };

  const copyButton = (name, textOf, shownAt) => {
    const button = make("button", { type: "button", className: "act" }, name);
    button.dataset.name = name;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(textOf());
        flash(button, "Copied");
      } catch {
        if (shownAt) getSelection().selectAllChildren(shownAt);
        flash(button, shownAt ? "Selected: press Ctrl-C" : "The browser does not allow it");
      }
    });
    return button;
  };

  for (const text of document.querySelectorAll("pre")) {
    const acts = make("div", { className: "acts" }, copyButton("Copy", () => text.textContent, text));
    const named = text.closest("details.data");
    if (named) {
      const save = make("button", { type: "button", className: "act" }, "Save");
      save.addEventListener("click", () => {
        const url = URL.createObjectURL(new Blob([text.textContent], { type: "text/csv" }));
        make("a", { href: url, download: named.dataset.name }).click();
        setTimeout(() => URL.revokeObjectURL(url), 10000);
      });
      acts.append(save);
    }
    text.before(acts);
  }

  // A run's whole config, from the three places where it stands, as a spec of that run alone.
  const lines = (place) =>
    place ? [...place.querySelectorAll(".settings > div")].map((one) => `  ${one.children[0].textContent}: ${one.children[1].textContent}`) : [];

  const specOf = (run) => {
    const places = [document.getElementById("shared"), document.getElementById(`kind-${run.dataset.kind}`), run];
    const id = run.querySelector("code").textContent;
    return [`name: run-${id}`, "base:", ...places.flatMap(lines), ""].join("\n");
  };

  document.addEventListener("toggle", (event) => {
    const run = event.target;
    if (!run.matches?.("details.run[open]") || run.querySelector(".spec")) return;
    const button = copyButton("Copy as a spec", () => specOf(run));
    run.lastElementChild.append(make("div", { className: "acts spec" }, button));
  }, true);

  // A link to a run opens it, where a browser does not do so by itself.
  const openTarget = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = target && target.closest("details");
    if (!details) return;
    details.hidden = false;
    if (!details.open) {
      details.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", openTarget);
  openTarget();
})();
