"use strict";
// The inspector. Text reaches the page by textContent alone: model-written programs are shown and never obeyed.
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const T = D.texts;
  const I = { ID: 0, PROMPT: 1, ROUND: 2, WHY: 3, REFERENCE: 4, TESTS: 5 };
  const R = { INSTRUCTION: 0, ROUND: 1, NAME: 2, OUTCOME: 3, CODE: 4, DETAIL: 5, PASSED: 6, TOKENS: 7, CPU_MS: 8, LEARNT: 9 };
  const LEARNT = ["", "learnt from as good", "learnt from as bad"];
  const HEIGHT = 44; // of a row, as in style.css
  const OVERSCAN = 8;
  const MOST_CELLS = 4e6; // of a diff's table
  const at = (id) => document.getElementById(id);
  const list = at("list"), detail = at("detail"), spacer = document.createElement("div");
  spacer.setAttribute("role", "presentation");
  list.append(spacer);

  const byInstruction = D.instructions.map(() => []);
  D.rows.forEach((row, i) => byInstruction[row[R.INSTRUCTION]].push(i));
  const nameOf = (row) => `${T[D.instructions[row[R.INSTRUCTION]][I.ID]]}/${T[row[R.NAME]]}`;
  let view = "rows", found = [], chosen = -1; // what the list shows now, which may lag behind the controls

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // What is listed.

  function textHits(query) {
    if (!query) return null;
    const wanted = query.toLowerCase();
    return T.map((text) => text.toLowerCase().includes(wanted));
  }

  function filters() {
    return {
      hits: textHits(at("query").value), outcome: at("outcome").value,
      round: at("round").value, learnt: at("learnt").value, instruction: at("instruction").value.trim().toLowerCase(),
    };
  }

  function ofInstruction(f, place) {
    return !f.instruction || T[D.instructions[place][I.ID]].toLowerCase().includes(f.instruction);
  }

  function rowFits(f, row) {
    return (!f.round || String(row[R.ROUND]) === f.round) && (!f.outcome || T[row[R.OUTCOME]] === f.outcome) &&
      (!f.learnt || String(row[R.LEARNT]) === f.learnt) && ofInstruction(f, row[R.INSTRUCTION]) &&
      (!f.hits || f.hits[row[R.CODE]] || f.hits[row[R.DETAIL]] ||
        f.hits[D.instructions[row[R.INSTRUCTION]][I.PROMPT]] || f.hits[D.instructions[row[R.INSTRUCTION]][I.ID]]);
  }

  function pairFits(f, pair) {
    const [good, bad] = [D.rows[pair[1]], D.rows[pair[2]]];
    f = { ...f, learnt: "" }; // a pair was learnt from as a whole
    return rowFits(f, bad) || (rowFits({ ...f, outcome: "" }, good) && (!f.outcome || T[bad[R.OUTCOME]] === f.outcome));
  }

  function instructionFits(f, one, place) {
    const rows = byInstruction[place].map((i) => D.rows[i]);
    const rounds = rows.length ? rows.map((row) => row[R.ROUND]) : [one[I.ROUND]];
    return ofInstruction(f, place) && (!f.round || rounds.some((r) => String(r) === f.round)) &&
      (!f.outcome || rows.some((row) => T[row[R.OUTCOME]] === f.outcome)) &&
      (!f.learnt || rows.some((row) => String(row[R.LEARNT]) === f.learnt)) &&
      (!f.hits || [one[I.ID], one[I.PROMPT], one[I.WHY], ...one[I.TESTS]].some((t) => f.hits[t]));
  }

  function refresh() {
    const f = filters();
    view = at("view").value;
    const fits = { rows: rowFits, pairs: pairFits, instructions: instructionFits }[view];
    found = [];
    D[view].forEach((one, i) => { if (fits(f, one, i)) found.push(i); });
    at("count").textContent = `${found.length} of ${D[view].length} ${{ rows: "programs" }[view] || view}`;
    spacer.style.height = `${found.length * HEIGHT}px`;
    list.scrollTop = 0;
    choose(found.length ? 0 : -1);
  }

  // The list: only the rows in sight exist.

  function lines(place) {
    if (view === "rows") {
      const row = D.rows[place];
      return [`${T[row[R.OUTCOME]]} · ${D.rounds[row[R.ROUND]]} · ${nameOf(row)}`, T[D.instructions[row[R.INSTRUCTION]][I.PROMPT]]];
    }
    if (view === "pairs") {
      const [round, good, bad] = D.pairs[place];
      const row = D.rows[good];
      return [`${T[row[R.OUTCOME]]} against ${T[D.rows[bad][R.OUTCOME]]} · ${D.rounds[round]}`, T[D.instructions[row[R.INSTRUCTION]][I.PROMPT]]];
    }
    const one = D.instructions[place], rows = byInstruction[place];
    const passed = rows.filter((i) => T[D.rows[i][R.OUTCOME]] === "passed").length;
    const said = rows.length ? `${passed} of ${rows.length} passed` : T[one[I.WHY]] ? `tests thrown out: ${T[one[I.WHY]]}` : "no samples";
    return [`${said} · ${T[one[I.ID]]}`, T[one[I.PROMPT]]];
  }

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - OVERSCAN);
    const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + OVERSCAN);
    const made = [];
    for (let i = first; i < last; i++) {
      const row = element("div", undefined, "row");
      row.setAttribute("role", "option");
      row.id = `row-${i}`;
      row.setAttribute("aria-setsize", found.length);
      row.setAttribute("aria-posinset", i + 1);
      row.setAttribute("aria-selected", i === chosen);
      row.style.top = `${i * HEIGHT}px`;
      for (const line of lines(found[i])) row.append(element("span", line));
      row.addEventListener("click", () => choose(i));
      made.push(row);
    }
    spacer.replaceChildren(...made);
    if (chosen >= first && chosen < last) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function choose(i) {
    chosen = i;
    if (i >= 0) {
      const top = i * HEIGHT;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    }
    draw();
    show();
  }

  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1);
    const moves = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: found.length - 1 };
    if (!(event.key in moves) || !found.length) return;
    event.preventDefault();
    choose(Math.min(found.length - 1, Math.max(0, moves[event.key])));
  });
  let waiting = false;
  list.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  });

  // The chosen one.

  function show() {
    detail.replaceChildren();
    if (chosen < 0) { detail.append(element("p", "Nothing fits these filters.")); return; }
    const place = found[chosen];
    if (view === "pairs") showPair(D.pairs[place]);
    else if (view === "rows") showRow(D.rows[place]);
    else showInstruction(place);
  }

  function block(title, text) {
    const code = element("pre", text);
    code.tabIndex = 0;
    return [element("h3", title), code];
  }

  function facts(row) {
    const said = [T[row[R.OUTCOME]], D.rounds[row[R.ROUND]], row[R.TOKENS] < 0 ? "" : `${row[R.TOKENS]} tokens`, `${row[R.CPU_MS]} ms of CPU`, LEARNT[row[R.LEARNT]]];
    return element("p", said.filter(Boolean).join(", "), T[row[R.OUTCOME]] === "passed" ? "yes" : "no");
  }

  function tests(one, bits) {
    const out = element("ol", undefined, "tests");
    one[I.TESTS].forEach((test, i) => {
      const item = element("li");
      if (bits && i < bits.length) item.append(element("span", bits[i] === "1" ? "✓ passed " : "✗ not passed ", bits[i] === "1" ? "yes" : "no"));
      item.append(element("code", T[test]));
      out.append(item);
    });
    return one[I.TESTS].length ? [element("h3", "Tests"), out] : [element("p", "No tests were kept.", "faint")];
  }

  function reference(one) {
    if (!T[one[I.REFERENCE]]) return [];
    const fold = element("details");
    fold.append(element("summary", "Reference solution"), ...block("", T[one[I.REFERENCE]]).slice(1));
    return [fold];
  }

  function jump(words, wanted, place) {
    const button = element("button", words);
    button.type = "button";
    button.addEventListener("click", () => {
      at("view").value = wanted;
      at("instruction").value = T[D.instructions[place][I.ID]];
      at("query").value = at("outcome").value = at("round").value = at("learnt").value = "";
      refresh();
      list.focus();
    });
    return button;
  }

  function jumps(place) {
    const out = element("p");
    out.append(jump("All programs of this instruction", "rows", place), " ", jump("Its pairs", "pairs", place));
    return out;
  }

  function showRow(row) {
    const one = D.instructions[row[R.INSTRUCTION]];
    detail.append(element("h2", nameOf(row)), facts(row), ...block("Prompt", T[one[I.PROMPT]]), ...block("Program", T[row[R.CODE]]));
    if (T[row[R.DETAIL]]) detail.append(...block("What was said", T[row[R.DETAIL]]));
    detail.append(...tests(one, row[R.PASSED]), ...reference(one), jumps(row[R.INSTRUCTION]));
  }

  function showInstruction(place) {
    const one = D.instructions[place];
    detail.append(element("h2", T[one[I.ID]]), ...block("Prompt", T[one[I.PROMPT]]));
    if (T[one[I.WHY]]) detail.append(element("p", `Its tests were thrown out: ${T[one[I.WHY]]}`, "no"));
    detail.append(...tests(one, ""), ...reference(one), jumps(place));
  }

  function showPair(pair) {
    const [good, bad] = [D.rows[pair[1]], D.rows[pair[2]]], one = D.instructions[good[R.INSTRUCTION]];
    detail.append(element("h2", `${nameOf(good)} against ${T[bad[R.NAME]]}`), ...block("Prompt", T[one[I.PROMPT]]));
    const apart = [...good[R.PASSED]].findIndex((bit, i) => bit === "1" && bad[R.PASSED][i] !== "1");
    detail.append(element("h3", "What told them apart"));
    if (apart < 0) detail.append(element("p", "No test did: these labels do not come from the verdicts.", "no"));
    else if (apart < one[I.TESTS].length) detail.append(element("pre", T[one[I.TESTS][apart]]));
    if (T[bad[R.DETAIL]]) detail.append(element("p", T[bad[R.DETAIL]], "no"));
    const [left, right] = diff(T[good[R.CODE]], T[bad[R.CODE]]);
    const two = element("div", undefined, "two");
    for (const [title, row, parts, mark] of [["Chosen", good, left, "ins"], ["Rejected", bad, right, "del"]]) {
      const side = element("div"), code = element("pre");
      code.tabIndex = 0;
      for (const [text, changed] of parts) code.append(changed ? element(mark, text) : document.createTextNode(text));
      side.append(element("h3", title), facts(row), code);
      two.append(side);
    }
    detail.append(two, ...tests(one, bad[R.PASSED]), ...reference(one), jumps(good[R.INSTRUCTION]));
  }

  // Longest common subsequence of words; of lines where the words are too many.
  function diff(a, b) {
    let [x, y] = [a, b].map((text) => text.match(/\n|[^\S\n]+|\w+|[^\s\w]/g) || []);
    if (x.length * y.length > MOST_CELLS) [x, y] = [a, b].map((text) => text.split(/(?<=\n)/));
    if (x.length * y.length > MOST_CELLS) return [[[a, false]], [[b, false]]];
    const width = y.length + 1, table = new Uint32Array((x.length + 1) * width);
    for (let i = x.length - 1; i >= 0; i--) {
      for (let j = y.length - 1; j >= 0; j--) {
        table[i * width + j] = x[i] === y[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
      }
    }
    const left = [], right = [];
    let i = 0, j = 0;
    while (i < x.length || j < y.length) {
      if (i < x.length && j < y.length && x[i] === y[j]) { push(left, x[i++], false); push(right, y[j++], false); }
      else if (j === y.length || (i < x.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) push(left, x[i++], true);
      else push(right, y[j++], true);
    }
    return [left, right];
  }

  function push(parts, text, changed) {
    const last = parts[parts.length - 1];
    if (last && last[1] === changed) last[0] += text;
    else parts.push([text, changed]);
  }

  // The filters.

  function option(select, value, text) {
    const made = element("option", text);
    made.value = value;
    select.append(made);
  }

  const outcomes = new Map();
  for (const row of D.rows) outcomes.set(row[R.OUTCOME], (outcomes.get(row[R.OUTCOME]) || 0) + 1);
  for (const [place, count] of [...outcomes].sort((a, b) => b[1] - a[1])) option(at("outcome"), T[place], `${T[place]} (${count})`);
  for (const place of Object.keys(D.rounds).map(Number).sort((a, b) => (b > 0) - (a > 0) || Math.abs(a) - Math.abs(b))) option(at("round"), place, D.rounds[place]);
  let timer = 0;
  at("controls").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(refresh, 80); });
  at("controls").addEventListener("submit", (event) => { event.preventDefault(); refresh(); list.focus(); });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    event.preventDefault();
    at("query").focus();
  });
  addEventListener("resize", draw);
  refresh();
})();
