// One head's state as cells, beside it the clock of each row, under it what the present token reads; and the text that
// made it. All states of a run are computed once for each decay, so that going back is as fast as going on.

const BARS = 100, SHORTEST = 0.1, LONGEST = 1e5; // half-lives between which a bar's length tells them apart
const CHART = { width: 400, height: 96, left: 4, top: 14 };
const WIDEST = 2.5; // of a matrix's picture, to its height
const ROWS = { matrix: "key rows", delta: "key rows", gated: "key rows", scan: "numbers a channel (rows)" };
const COLUMNS = { matrix: "value columns", delta: "value columns", gated: "value columns", scan: "channels" };
const FAR = 10; // tokens that the up and down arrows move
const CHANGED = SERIES[1].colour;
const LOUD = 3; // full colour is at so many root mean squares of the run's fullest state: its largest cell alone would pale the rest

function draw(page) {
  const { heads, names, tokens, said } = page.inputs;
  const traces = heads.map(unpack_head);
  const stage = {};
  for (const trace of traces) stage[trace.shape] ??= draw_state(page, trace, tokens.length);
  const text = draw_text(page, page.inputs);
  const chart = draw_norms(page, tokens.length);
  page.stage.append(
    ...Object.values(stage).map((state) => state.node),
    html("figure", { class: "hl-panel" }, html("figcaption", {}, "the text, up to the present token"), text.node,
      html("p", { style: "margin: 1rem 0 0.2rem; color: var(--hl-soft)" }, "norm of the state after each token"), chart.node),
  );
  let last = null;

  return (view) => {
    const at = Math.max(0, names.indexOf(view.head));
    const trace = traces[at], t = view.t - 1;
    if (last?.trace !== trace || last.decay !== view.decay) last = { trace, decay: view.decay, ...run_through(trace, view.decay) };
    const found = measure_state(trace, last, t, view.decay, view.bonus ?? 0);
    for (const [shape, state] of Object.entries(stage)) state.node.hidden = shape !== trace.shape;
    stage[trace.shape].show(trace, last, t, found);
    text.show(t);
    chart.show(last.norms, t);
    return told(trace, found, view.t, names[at], said[t]);
  };
}

// What stands beside the picture, as state_scope.py writes it.
function told(trace, found, token, name, said) {
  const { row, column } = found;
  const where = said === String(token) ? `token ${token}` : `token ${token} (${said})`;
  const change = short(found.changes[row]);
  const most = trace.lines ? `channel ${row + 1} by ${change}` : `row ${row + 1} by ${change}, most in column ${column + 1}`;
  return {
    text: `After ${where}, ${name}: norm ${short(found.norm)}; changed most: ${most}.`,
    readout: {
      norm: short(found.norm),
      ...structure(trace, found),
      "changed most": most,
      "half-lives": `${short(Math.min(...found.half_lives))} to ${short(Math.max(...found.half_lives))} tokens`,
      output: short(length_of(found.output)),
      "present token's share": short(found.share),
    },
  };
}

function structure(trace, { rank, loudest, loudness, state }) {
  if (!trace.lines) return { "effective rank": `${short(rank)} of ${Math.min(trace.rows, trace.columns)}` };
  if (loudness) return { loudest: `channel ${loudest + 1}, e^${short(loudness[loudest])}` };
  return { largest: `channel ${loudest + 1}, ${short(state[loudest])}` };
}

// ---------------------------------------------------------------- the run

function unpack_head({ kind, ...packed }) {
  const arrays = Object.fromEntries(Object.entries(packed).map(([name, array]) => [name, unpack(array)]));
  const lines = kind === "vector" || kind === "average"; // one number a channel
  const [tokens, width] = arrays.values.shape;
  const [rows, columns] = lines ? [width, 1] : [arrays.write.shape[1], width];
  const trace = { kind, lines, tokens, rows, columns, shape: `${kind} ${rows} ${columns}` };
  for (const [name, { shape, values }] of Object.entries(arrays)) {
    const one = shape[shape.length - 1];
    const count = values.length / one;
    trace[name] = (t) => values.subarray((t % count) * one, (t % count + 1) * one); // (1, K): the same at every token
  }
  if (arrays.log_decay && !lines && arrays.log_decay.shape[1] < rows) { // (T, 1): the same in every row
    const shared = Array.from(arrays.log_decay.values, (x) => new Float32Array(rows).fill(x));
    trace.log_decay = (t) => shared[t % shared.length];
  }
  return trace;
}

// The states after all tokens, cell by cell, and the norms. The averages of RWKV-4 have their loudness beside them.
function run_through(trace, decay) {
  const { tokens, rows, columns } = trace;
  const cells = new Float64Array(tokens * rows * columns);
  const loudness = trace.kind === "average" ? new Float64Array(tokens * rows) : null;
  for (let t = 0; t < tokens; t++) STEPS[trace.kind](trace, decay, t, cells, loudness);
  const state = (t) => cells.subarray(t * rows * columns, (t + 1) * rows * columns);
  const norms = Array.from({ length: tokens }, (_, t) => length_of(state(t)));
  const limit = Math.min(strongest(cells), LOUD * Math.max(...norms) / Math.sqrt(rows * columns));
  const run = { state, norms, limit, ranks: [], loudness: (t) => loudness?.subarray(t * rows, (t + 1) * rows) };
  const read = Array.from({ length: tokens }, (_, t) => PARTS[trace.kind](trace, run, t, decay, 0));
  run.most_read = Math.max(...read.map(({ past, now }) => strongest(past.map((x, at) => x + now[at]))));
  return run;
}

function step_matrix(trace, decay, t, cells) {
  const { rows, columns } = trace;
  const [write, log_decay, value] = [trace.write(t), trace.log_decay(t), trace.values(t)];
  let at = t * rows * columns;
  for (let row = 0; row < rows; row++) {
    const keep = t ? Math.exp(decay * log_decay[row]) : 0;
    for (let column = 0; column < columns; column++, at++) {
      cells[at] = (t ? keep * cells[at - rows * columns] : 0) + write[row] * value[column];
    }
  }
}

// What token t makes of the state before it writes its value; a gated delta rule looks at what has already faded.
function corrected(trace, decay, t, before) {
  const { rows, columns } = trace;
  const [seek, replace] = [trace.seek(t), trace.replace(t)];
  const kept = Float64Array.from(trace.log_decay(t), (x) => Math.exp(decay * x));
  const found = new Float64Array(columns);
  for (let row = 0, at = 0; row < rows; row++) {
    const looked = seek[row] * (trace.kind === "gated" ? kept[row] : 1);
    for (let column = 0; column < columns; column++, at++) found[column] += looked * before[at];
  }
  return before.map((x, at) => {
    const row = Math.floor(at / columns);
    return kept[row] * x + replace[row] * found[at % columns];
  });
}

function step_delta(trace, decay, t, cells) {
  const { rows, columns } = trace;
  const [write, value] = [trace.write(t), trace.values(t)];
  const start = t * rows * columns;
  if (t) cells.set(corrected(trace, decay, t, cells.subarray(start - rows * columns, start)), start);
  for (let row = 0, at = start; row < rows; row++) {
    for (let column = 0; column < columns; column++, at++) cells[at] += write[row] * value[column];
  }
}

function step_averages(trace, decay, t, cells, loudness) {
  const [key, log_decay, value] = [trace.keys(t), trace.log_decay(t), trace.values(t)];
  for (let row = 0, at = t * trace.rows; row < trace.rows; row++, at++) {
    const before = t ? cells[at - trace.rows] : 0;
    loudness[at] = t ? log_add(loudness[at - trace.rows] + decay * log_decay[row], key[row]) : key[row];
    cells[at] = before + Math.exp(key[row] - loudness[at]) * (value[row] - before);
  }
}

function step_scan(trace, decay, t, cells) {
  const { rows, columns } = trace;
  const [write, steps, value] = [trace.write(t), trace.steps(t), trace.values(t)];
  let at = t * rows * columns;
  for (let row = 0; row < rows; row++) {
    const rates = trace.rates(row);
    for (let column = 0; column < columns; column++, at++) {
      const kept = t ? Math.exp(decay * steps[column] * rates[column]) * cells[at - rows * columns] : 0;
      cells[at] = kept + write[row] * (steps[column] * value[column]);
    }
  }
}

function step_vector(trace, decay, t, cells) {
  const [write, log_decay, value] = [trace.write(t), trace.log_decay(t), trace.values(t)];
  for (let row = 0, at = t * trace.rows; row < trace.rows; row++, at++) {
    cells[at] = (t ? Math.exp(decay * log_decay[row]) * cells[at - trace.rows] : 0) + write[row] * value[row];
  }
}

const STEPS = { matrix: step_matrix, delta: step_delta, gated: step_delta, scan: step_scan, vector: step_vector, average: step_averages };

// What output t takes from the past and from its own token.
const PARTS = { matrix: matrix_parts, delta: delta_parts, gated: delta_parts, scan: scan_parts, vector: vector_parts, average: averaged_parts };

function matrix_parts(trace, run, t, decay, bonus) {
  const { rows, columns } = trace;
  const [write, read, log_decay, value] = [trace.write(t), trace.read(t), trace.log_decay(t), trace.values(t)];
  const [own, skip] = [trace.bonus?.(0), trace.skip?.(0)];
  const past = new Float64Array(columns);
  const before = t ? run.state(t - 1) : null;
  let weight = 0;
  for (let row = 0; row < rows; row++) {
    weight += read[row] * (own ? own[row] + bonus : 1) * write[row];
    const kept = read[row] * (own ? 1 : Math.exp(decay * log_decay[row]));
    if (before) for (let column = 0; column < columns; column++) past[column] += kept * before[row * columns + column];
  }
  return { past, now: Float64Array.from(value, (x, column) => (weight + (skip ? skip[column] : 0)) * x) };
}

function delta_parts(trace, run, t, decay) {
  const { rows, columns } = trace;
  const [read, value] = [trace.read(t), trace.values(t)];
  const past = new Float64Array(columns);
  const before = t ? corrected(trace, decay, t, run.state(t - 1)) : null;
  for (let at = 0; before && at < rows * columns; at++) past[at % columns] += read[Math.floor(at / columns)] * before[at];
  const weight = dot(read, trace.write(t));
  return { past, now: Float64Array.from(value, (x) => weight * x) };
}

function scan_parts(trace, run, t, decay) {
  const { rows, columns } = trace;
  const [read, steps, value, skip] = [trace.read(t), trace.steps(t), trace.values(t), trace.skip(0)];
  const past = new Float64Array(columns);
  const before = t ? run.state(t - 1) : null;
  for (let row = 0; before && row < rows; row++) {
    const rates = trace.rates(row);
    for (let column = 0; column < columns; column++) {
      past[column] += read[row] * (Math.exp(decay * steps[column] * rates[column]) * before[row * columns + column]);
    }
  }
  const weight = dot(read, trace.write(t));
  return { past, now: Float64Array.from(value, (x, column) => (weight * steps[column] + skip[column]) * x) };
}

function vector_parts(trace, run, t, decay) {
  const [write, log_decay, value] = [trace.write(t), trace.log_decay(t), trace.values(t)];
  const before = t ? run.state(t - 1) : null;
  return {
    past: Float64Array.from(log_decay, (x, row) => (before ? Math.exp(decay * x) * before[row] : 0)),
    now: Float64Array.from(write, (x, row) => x * value[row]),
  };
}

function averaged_parts(trace, run, t, decay, bonus) {
  const [key, value, own] = [trace.keys(t), trace.values(t), trace.bonus(0)];
  if (t === 0) return { past: new Float64Array(trace.rows), now: Float64Array.from(value) };
  const [before, loudness] = [run.state(t - 1), run.loudness(t - 1)];
  const louder = Float64Array.from(loudness, (x, row) => x - (own[row] + bonus + key[row]));
  return {
    past: louder.map((x, row) => Math.exp(-log_add(0, -x)) * before[row]),
    now: louder.map((x, row) => Math.exp(-log_add(0, x)) * value[row]),
  };
}

function measure_state(trace, run, t, decay, bonus) {
  const { rows, columns } = trace;
  const state = run.state(t);
  const before = t ? run.state(t - 1) : null;
  const change = state.map((x, at) => (before ? x - before[at] : x));
  const line = (row) => change.subarray(row * columns, (row + 1) * columns);
  const changes = Array.from({ length: rows }, (_, row) => length_of(line(row)));
  const row = largest(changes);
  const { past, now } = PARTS[trace.kind](trace, run, t, decay, bonus);
  const [from_past, from_now] = [length_of(past), length_of(now)];
  const loudness = run.loudness(t);
  return {
    norm: run.norms[t],
    changes,
    row,
    column: largest(line(row).map(Math.abs)),
    state,
    half_lives: Array.from(log_decays(trace, t), (x) => Math.LN2 / Math.abs(decay * x)),
    rank: trace.lines ? null : (run.ranks[t] ??= effective_rank(state, rows, columns)), // the dearest number
    output: past.map((x, at) => x + now[at]),
    share: from_past + from_now ? from_now / (from_past + from_now) : 0,
    loudness,
    loudest: trace.lines ? largest(loudness ?? state.map(Math.abs)) : null,
  };
}

// Of each row; in a scan, whose cells have clocks of their own, the mean of the row.
function log_decays(trace, t) {
  if (trace.kind !== "scan") return trace.log_decay(t);
  const steps = trace.steps(t);
  return Float64Array.from({ length: trace.rows }, (_, row) => dot(steps, trace.rates(row)) / trace.columns);
}

function log_add(a, b) {
  return Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
}

function largest(numbers) {
  return numbers.reduce((best, x, at) => (x > numbers[best] ? at : best), 0);
}

// exp of the entropy of the singular values divided by their sum. One-sided Jacobi: turns pairs of rows until all are at
// right angles; their lengths are then the singular values.
function effective_rank(matrix, count, width) {
  const most = strongest(matrix);
  if (most === 0) return 0;
  const flat = count <= width; // the fewer vectors, the fewer pairs
  const entry = flat ? (row, at) => matrix[row * width + at] : (row, at) => matrix[at * width + row];
  const [vectors, length] = flat ? [count, width] : [width, count];
  const rows = Array.from({ length: vectors }, (_, row) => Float64Array.from({ length }, (_, at) => entry(row, at) / most));
  const nothing = 1e-30; // a row whose square is this small says nothing beside a cell of 1
  for (let sweep = 0, turned = true; turned && sweep < 40; sweep++) {
    rows.sort((a, b) => dot(b, b) - dot(a, a)); // the longest first: fewer sweeps
    turned = false;
    for (let i = 0; i < vectors - 1; i++) {
      for (let j = i + 1; j < vectors; j++) turned = turn(rows[i], rows[j], nothing) || turned;
    }
  }
  const values = rows.map(length_of);
  const sum = values.reduce((total, x) => total + x, 0);
  return Math.exp(values.reduce((entropy, x) => (x > 0 ? entropy - (x / sum) * Math.log(x / sum) : entropy), 0));
}

function turn(a, b, nothing) {
  const [aa, bb, ab] = [dot(a, a), dot(b, b), dot(a, b)];
  if (Math.min(aa, bb) <= nothing || ab * ab <= 1e-18 * aa * bb) return false;
  const zeta = (bb - aa) / (2 * ab);
  const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
  const cosine = 1 / Math.hypot(1, tangent), sine = cosine * tangent;
  for (let at = 0; at < a.length; at++) {
    const [x, y] = [a[at], b[at]];
    a[at] = cosine * x - sine * y;
    b[at] = sine * x + cosine * y;
  }
  return true;
}

// ---------------------------------------------------------------- the picture

function moving(page) {
  const by = (steps) => () => ({ t: page.view.t + steps });
  return {
    ArrowLeft: by(-1), ArrowRight: by(1), ArrowUp: by(-FAR), ArrowDown: by(FAR),
    Home: by(-Infinity), End: by(Infinity),
  };
}

// A vector has one number a channel, so its columns are the tokens so far; a matrix fills the cells itself.
function draw_state(page, trace, tokens) {
  const matrix = !trace.lines;
  const { rows } = trace;
  const columns = matrix ? trace.columns : tokens;
  const map = heat(rows, columns);
  const output = matrix ? heat(1, columns) : heat(rows, 1);
  const loudness = trace.kind === "average" ? heat(rows, 1) : null;
  const bars = draw_clocks(rows);
  map.node.style.aspectRatio = matrix ? Math.max(1, Math.min(WIDEST, columns / rows)) : "1";
  for (const strip of [output, loudness].filter(Boolean)) {
    set(strip.node, { style: "" }); // as long as the cells are
    set(strip.node.querySelector("canvas"), { style: "position: absolute; inset: 0" });
  }
  const light = { fill: "none", "vector-effect": "non-scaling-stroke" };
  const line = svg("rect", { x: 0, width: columns, height: 1, stroke: "currentColor", "stroke-width": 1.2, ...light });
  const now = svg("rect", { y: 0, width: 1, height: rows, stroke: "currentColor", "stroke-width": 1.2, ...light });
  const cell = svg("rect", { class: "hl-cell", width: 1, height: 1, stroke: CHANGED, "stroke-width": 2.5, ...light });
  map.marks.append(...(matrix ? [line] : [now, line]), cell);
  page.picture(map.node, moving(page));
  if (!matrix) map.node.addEventListener("pointerdown", (event) => page.move({ t: map.cell_at(event).column + 1 }));

  const label = (text) => html("span", { style: "color: var(--hl-soft)" }, text);
  const parts = matrix
    ? [label(`state: ${rows} ${ROWS[trace.kind]}, ${columns} ${COLUMNS[trace.kind]}`), label("half-life"), map.node, bars.node,
      output.node, bars.ticks, label("what this token reads")]
    : [label(`${loudness ? "averages" : "state"}: ${rows} channels, a column a token`), label("read"),
      ...(loudness ? [label("loud")] : []), label("half-life"),
      map.node, output.node, ...(loudness ? [loudness.node] : []), bars.node,
      label(""), label(""), ...(loudness ? [label("")] : []), bars.ticks];
  const tracks = `minmax(0, 1fr) ${matrix ? "" : loudness ? "1.9rem 1.9rem" : "1.9rem"} 5.5rem`;
  const strips = matrix ? "auto auto 1.1rem auto" : "auto auto auto";
  const grid = html("div", { style: `display: grid; gap: 0.3rem 0.6rem; grid-template: ${strips} / ${tracks}` }, ...parts);
  const scale = label("");
  const node = html("figure", { class: "hl-panel" }, grid, scale);
  const averages = matrix ? null : new Float64Array(rows * columns);

  function show(trace, run, t, found) {
    if (averages) {
      averages.fill(0);
      for (let at = 0; at <= t; at++) run.state(at).forEach((x, row) => { averages[row * columns + at] = x; });
    }
    map.paint(averages ?? run.state(t), run.limit);
    output.paint(found.output, run.most_read);
    loudness?.paint(found.loudness.map((x) => Math.exp(x - found.loudness[found.loudest])), 1);
    set(line, { y: found.row });
    set(now, { x: t });
    set(cell, { x: matrix ? found.column : t, y: found.row });
    bars.show(found.half_lives, found.row);
    scale.textContent = `full blue from ${short(run.limit)} up, full orange from ${short(-run.limit)} down`;
  }

  return { node, show };
}

function draw_clocks(rows) {
  const path = svg("path", { fill: "currentColor", "fill-opacity": 0.45 });
  const lit = svg("rect", { x: 0, height: 0.8, fill: CHANGED });
  const box = { viewBox: `0 0 ${BARS} ${rows}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  const along = (tokens) => (Math.log(tokens / SHORTEST) / Math.log(LONGEST / SHORTEST)) * BARS;
  const marks = { 1: "1", 100: "100", 10000: "10⁴" };
  const lines = svg("path", {
    d: Object.keys(marks).map((tokens) => `M${along(tokens)} 0V${rows}`).join(""), stroke: "currentColor", "stroke-opacity": 0.3,
    "vector-effect": "non-scaling-stroke", "stroke-dasharray": "2 3",
  });
  const drawing = svg("svg", { ...box, class: "hl-clocks", style: "position: absolute; inset: 0; width: 100%; height: 100%" }, lines, path, lit);
  const node = html("div", { style: "position: relative" }, drawing);
  const texts = Object.entries(marks).map(([tokens, text]) => (
    svg("text", { x: along(tokens), y: 11, "font-size": 12, "text-anchor": "middle" }, text)
  ));
  const ticks = svg("svg", { viewBox: `0 0 ${BARS} 14`, "aria-hidden": "true" }, ...texts);

  function show(half_lives, row) {
    const widths = half_lives.map((tokens) => Math.max(0.5, along(Math.max(SHORTEST, Math.min(LONGEST, tokens)))));
    set(path, { d: widths.map((width, at) => `M0 ${at + 0.1}h${width}v0.8h${-width}z`).join("") });
    set(lit, { y: row + 0.1, width: widths[row] });
  }

  return { node, ticks, show };
}

function draw_text(page, { tokens, between }) {
  const node = html("p", { class: "hl-text", style: "max-height: 11.5em; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace; line-height: 1.6; margin: 0" });
  const written = (token) => (token === "\n" ? "↵\n" : token === "\t" ? "    " : token + between);
  const spans = tokens.map((token, t) => {
    const span = html("span", { style: "opacity: 0.4" }, written(token));
    span.addEventListener("click", () => page.move({ t: t + 1 }));
    return span;
  });
  node.append(...spans);
  let last = -1;

  function show(t) {
    spans[last]?.classList.remove("hl-lit");
    for (let at = Math.min(last, t) + 1; at <= Math.max(last, t); at++) spans[at].style.opacity = at <= t ? 1 : 0.4;
    spans[t].classList.add("hl-lit");
    last = t;
    const below = spans[t].offsetTop - node.offsetTop - node.scrollTop;
    if (below < 0 || below > node.clientHeight - 24) node.scrollTop += below - node.clientHeight / 2;
  }

  return { node, show };
}

function draw_norms(page, tokens) {
  const { width, height, left, top } = CHART;
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  const x = (t) => left + (tokens > 1 ? (t / (tokens - 1)) * (width - 2 * left) : (width - 2 * left) / 2);
  const path = svg("path", { fill: "none", stroke: BLUE, "stroke-width": 2, "stroke-linejoin": "round" });
  const floor = svg("path", { d: `M0 ${height - 6}H${width}`, stroke: "currentColor", "stroke-opacity": 0.3 });
  const stem = svg("path", { stroke: CHANGED, "stroke-dasharray": "3 3" });
  const dot = svg("circle", { class: "hl-now", r: 4.5, fill: CHANGED });
  const most = svg("text", { x: left, y: 10, "font-size": 12 });
  node.append(floor, path, stem, dot, most);
  page.picture(node, moving(page));
  const pick = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = node.getBoundingClientRect();
    page.move({ t: Math.round(((event.clientX - box.left) / box.width) * (tokens - 1)) + 1 });
  };
  for (const type of ["pointerdown", "pointermove"]) node.addEventListener(type, pick);
  let drawn = null;

  function show(norms, t) {
    const highest = Math.max(...norms);
    const y = (norm) => height - 6 - (highest > 0 ? norm / highest : 0) * (height - 6 - top - 6);
    if (drawn !== norms) {
      set(path, { d: norms.map((norm, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(norm).toFixed(1)}`).join("") });
      most.textContent = `highest ${short(highest)}`;
      drawn = norms;
    }
    set(dot, { cx: x(t), cy: y(norms[t]) });
    set(stem, { d: `M${x(t)} ${y(norms[t])}V${height - 6}` });
  }

  return { node, show };
}
