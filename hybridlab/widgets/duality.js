// The mixing matrix cut into blocks, beside it the chunks with the states that go from one to the next, below both what
// every chunk size costs. Only the outputs' bracketing moves with the chunk; their numbers are computed anew each time.

const INSIDE = SERIES[3].colour, THROUGH = SERIES[2].colour, STATE = SERIES[4].colour, LIT = SERIES[1].colour;
const WIDTH = 460, BOX = { top: 30, bottom: 190 }, LANE = 176, TOKENS = 212, GAP = 46; // the chunks' picture, in its own units
const CHART = { width: 280, height: 84 };
const REST = "…"; // what a long sum leaves out
const MOST_WRITTEN = 4, ROUNDING = 1e-12, NUMBER_BYTES = 4;

function draw(page) {
  const { names, sizes, apart } = page.inputs;
  const [tokens, states, width] = sizes;
  const costs = Array.from({ length: tokens }, (_, at) => work(tokens, states, width, at + 1));
  const heads = Object.fromEntries(Object.entries(page.inputs.heads).map(([decay, packed]) => [decay, unpack_head(packed, sizes)]));
  const found = {}; // by decay and chunk, once computed
  const matrix = draw_matrix(page, names, width);
  const chunks = draw_chunks(page, names, states);
  const sum = draw_sum(page);
  const part = (colour, of) => ({ colour, heights: costs.map(of) });
  const charts = [
    draw_chart(page, "multiplications", count, [
      part(INSIDE, (cost) => cost.diagonal),
      part(THROUGH, (cost) => cost.below),
      part(STATE, (cost) => cost.state),
    ]),
    draw_chart(page, "bytes in between", size, [
      part(INSIDE, (cost) => NUMBER_BYTES * cost.blocks),
      part(STATE, (cost) => NUMBER_BYTES * cost.carried),
    ]),
    draw_chart(page, "states handed on, one by one", count, [part(STATE, (cost) => cost.passes)]),
  ];
  const beside = width > 1 ? "; bars: channel 1" : "";
  page.stage.append(
    html("figure", { class: "hl-panel" }, html("figcaption", {}, "weights: output i by token j, and the outputs y"), matrix.node,
      legend([[INSIDE, "blocks of masked attention"], [THROUGH, `below: through carried states, rank ≤ ${states}`], [STATE, "the states themselves"]])),
    html("figure", { class: "hl-panel" }, html("figcaption", {}, `the same sums, chunk by chunk${beside}`), chunks.node, sum.node),
    html("div", { style: "flex: 1 1 100%; display: grid; gap: 0.6rem 1.6rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr))" },
      ...charts.map((chart) => chart.node)),
  );

  return (view) => {
    const { chunk, decay } = view;
    const head = heads[decay];
    const run = (found[`${chunk} ${decay}`] ??= chunked(head, sizes, chunk));
    const [i, j] = [view.i - 1, view.j - 1];
    matrix.show(head, run, chunk, i, j);
    chunks.show(run, chunk, i, j);
    sum.show(head.weights, chunk, i, j);
    for (const chart of charts) chart.show(chunk);
    return told(head, run, costs[chunk - 1], names, apart[decay][chunk - 1], view);
  };
}

// ---------------------------------------------------------------- the sums

function unpack_head(packed, [tokens, states, width]) {
  const [x, dt, log_decay, B, C] = ["x", "dt", "log_decay", "B", "C"].map((name) => unpack(packed[name]).values);
  let sum = 0;
  const since = log_decay.map((x) => (sum += x));
  const rows = (values, length) => Array.from({ length: tokens }, (_, t) => values.subarray(t * length, (t + 1) * length));
  const [write, read] = [rows(B, states), rows(C, states)];
  const u = rows(x.map((value, at) => value * dt[Math.floor(at / width)]), width);
  const lengths = [write, read].map((vectors) => vectors.map((vector) => Math.sqrt(dot(vector, vector))));
  const dots = new Float64Array(tokens * tokens), weights = new Float64Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) {
    for (let j = 0; j < tokens; j++) {
      const found = dot(read[i], write[j]);
      dots[i * tokens + j] = Math.abs(found) <= ROUNDING * lengths[1][i] * lengths[0][j] ? 0 : found;
      if (j <= i) weights[i * tokens + j] = dots[i * tokens + j] * Math.exp(since[i] - since[j]) * dt[j];
    }
  }
  return { dt, since, write, read, u, dots, weights };
}

// The outputs, `chunk` tokens at a time, and the states that are carried between; chunks.py has the same.
function chunked({ since, write, read, u }, [tokens, states, width], chunk) {
  const inside = new Float64Array(tokens * width), through = new Float64Array(tokens * width);
  const carried = [];
  for (let start = 0; start < tokens; start += chunk) {
    const stop = Math.min(tokens, start + chunk);
    const before = start ? since[start - 1] : 0;
    for (let i = start; i < stop; i++) {
      for (let j = start; j <= i; j++) add(inside, i * width, u[j], dot(read[i], write[j]) * Math.exp(since[i] - since[j]));
      if (!start) continue;
      const left = Math.exp(since[i] - before);
      for (let n = 0; n < states; n++) add(through, i * width, row_of(carried.at(-1), n, width), left * read[i][n]);
    }
    if (stop === tokens) break;
    const whole = Math.exp(since[stop - 1] - before);
    const state = start ? carried.at(-1).map((x) => whole * x) : new Float64Array(states * width);
    for (let j = start; j < stop; j++) {
      const left = Math.exp(since[stop - 1] - since[j]);
      for (let n = 0; n < states; n++) add(state, n * width, u[j], left * write[j][n]);
    }
    carried.push(state);
  }
  const outputs = inside.map((x, at) => x + through[at]);
  const first = carried.map((state) => Float64Array.from({ length: states }, (_, n) => state[n * width])); // channel 1
  return { inside, through, outputs, largest: strongest(outputs), first, width };
}

function add(sums, at, values, factor) {
  for (let p = 0; p < values.length; p++) sums[at + p] += factor * values[p];
}

function row_of(state, n, width) {
  return state.subarray(n * width, (n + 1) * width);
}

// What one head costs in chunks; chunks.py says what is counted.
function work(tokens, states, width, chunk) {
  const passes = Math.ceil(tokens / chunk) - 1;
  const last = tokens - passes * chunk;
  const blocks = passes * chunk ** 2 + last ** 2;
  return {
    diagonal: blocks * (states + 1 + width),
    below: (tokens - chunk) * states * (1 + width),
    state: (tokens - last) * states * (1 + width) + Math.max(0, passes - 1) * states * width,
    passes,
    blocks,
    carried: passes * states * width,
  };
}

// ---------------------------------------------------------------- the words, as duality.py writes them

function told(head, run, cost, names, apart, view) {
  const { chunk } = view;
  const tokens = names.length;
  const [i, j] = [view.i - 1, view.j - 1];
  const ends = passed(chunk, i, j);
  const face = chunk === 1 ? "Chunk 1, the recurrence"
    : chunk === tokens ? `Chunk ${chunk}, masked attention`
      : `Chunk ${chunk}, ${cost.passes + 1} blocks`;
  const handed = cost.passes === 1 ? "1 state" : `${cost.passes} states`;
  const between = size(NUMBER_BYTES * (cost.blocks + cost.carried));
  const same = apart <= ROUNDING ? "the same to 1e-12" : `${short(apart)} apart from the recurrence's`;
  const entry = entry_of(head, names, ends, i, j);
  return {
    text: `${face}: ${count(cost.diagonal + cost.below + cost.state)} multiplications, ${handed} handed on, ${between} in between; `
      + `the outputs are ${same}. ${entry}`,
    readout: {
      ...factors_of(head, ends, i, j),
      ...output_of(run, chunk, i),
      multiplications: `${count(cost.diagonal)} in blocks + ${count(cost.below)} below + ${count(cost.state)} for states`,
      "apart from the recurrence": short(apart),
    },
  };
}

// The last tokens of the chunks whose states the way from j to i goes through; null: i's chunk comes before j's.
function passed(chunk, i, j) {
  const [to, since] = [Math.floor(i / chunk), Math.floor(j / chunk)];
  if (to < since) return null;
  return Array.from({ length: to - since }, (_, at) => (since + 1 + at) * chunk);
}

function entry_of({ weights, dt }, names, ends, i, j) {
  const name = names[j] === String(j + 1) ? names[j] : `${j + 1} (${names[j]})`;
  if (j > i) {
    const fate = ends === null ? "their block is never computed" : "their entry is computed in its block, and masked";
    return `Token ${name} comes after output ${i + 1}: ${fate}.`;
  }
  return `Token ${name} reaches output ${i + 1} with weight ${short(weights[i * dt.length + j])}, ${way(ends)}.`;
}

function way(ends) {
  if (!ends.length) return "inside its block";
  if (ends.length === 1) return `through the state after token ${ends[0]}`;
  if (ends.length <= MOST_WRITTEN) return `through the states after tokens ${ends.slice(0, -1).join(", ")} and ${ends.at(-1)}`;
  return `through ${ends.length} states, after tokens ${ends[0]} to ${ends.at(-1)}`;
}

function factors_of({ weights, dots, dt, since }, ends, i, j) {
  if (j > i) return { weight: "0" };
  const at = i * dt.length + j;
  return {
    weight: short(weights[at]),
    [`C${i + 1} · B${j + 1}`]: short(dots[at]),
    decay: decays(since, i, j, ends),
    [`dt${j + 1}`]: short(dt[j]),
  };
}

// From token j by way of the states to output i; in a block token by token.
function stops_of(i, j, ends) {
  if (!ends.length) return Array.from({ length: i - j + 1 }, (_, at) => j + at);
  return [...new Set([j, ...ends.map((end) => end - 1), i])];
}

function decays(since, i, j, ends) {
  const left = (at, to) => short(Math.exp(since[to] - since[at]));
  const stops = stops_of(i, j, ends);
  const legs = stops.slice(1).map((to, at) => left(stops[at], to));
  if (legs.length > MOST_WRITTEN) {
    const across = `${left(stops[1], stops.at(-2))} across ${legs.length - 2} ${ends.length ? "chunks" : "steps"}`;
    return `${legs[0]} × ${across} × ${legs.at(-1)} = ${left(j, i)}`;
  }
  if (legs.length < 2) return legs[0] ?? "1, no step between";
  return `${legs.join(" × ")} = ${left(j, i)}`;
}

function clean(number, largest) {
  return Math.abs(number) <= ROUNDING * largest ? 0 : number;
}

// How output i is bracketed, and the state that its chunk is handed; of several channels, the first.
function output_of({ inside, through, largest, first, width }, chunk, i) {
  const [own, past] = [inside, through].map((part) => clean(part[i * width], largest));
  const which = width === 1 ? "" : ", channel 1";
  const whole = short(clean(own + past, largest));
  const said = { [`output ${i + 1}${which}`]: `${short(own)} in its block ${added(short(past))} from the state = ${whole}` };
  const before = Math.floor(i / chunk);
  return before ? { ...said, [`state after ${before * chunk}${which}`]: vector(first[before - 1]) } : said;
}

// A number that follows others: + 2.5, - 2.5.
function added(text) {
  return text.startsWith("-") ? `- ${text.slice(1)}` : `+ ${text}`;
}

function vector(numbers) {
  const length = length_of(numbers);
  if (numbers.length > MOST_WRITTEN) return `${numbers.length} numbers, length ${short(length)}`;
  return Array.from(numbers, (x) => short(clean(x, length))).join(", ");
}

// ---------------------------------------------------------------- the pictures

function legend(entries) {
  const sign = (colour) => html("span", { style: `display: inline-block; width: 0.9em; height: 0.9em; margin-right: 0.4em; vertical-align: -0.1em; background: color-mix(in srgb, ${colour} 30%, transparent); border: 1.5px solid ${colour}` });
  const line = entries.map(([colour, text]) => html("span", { style: "white-space: nowrap" }, sign(colour), text));
  return html("p", { style: "display: flex; flex-wrap: wrap; gap: 0 1.2rem; color: var(--hl-soft)" }, ...line);
}

// The whole matrix, which no chunk changes, over the blocks it is computed in; beside it the outputs, a row each.
function draw_matrix(page, names, width) {
  const tokens = names.length;
  const map = token_matrix(page, names);
  const outputs = heat(tokens, width);
  const under = (node) => set(node, { style: "position: absolute; inset: 0; width: 100%; height: 100%" });
  const below = svg("path", { class: "hl-below", fill: THROUGH, "fill-opacity": 0.06 }); // faint: weak entries lie over it
  const lines = svg("path", { fill: "none", stroke: THROUGH, "vector-effect": "non-scaling-stroke" });
  const diagonal = svg("path", { class: "hl-diagonal", fill: INSIDE, "fill-opacity": 0.14, stroke: INSIDE, "vector-effect": "non-scaling-stroke" });
  const blocks = svg("svg", { viewBox: `0 0 ${tokens} ${tokens}`, preserveAspectRatio: "none", "aria-hidden": "true" }, below, lines, diagonal);
  under(blocks);
  set(map.node.querySelector("canvas"), { style: "position: relative" }); // over the blocks
  map.node.prepend(blocks);
  set(map.entry, { stroke: LIT, "stroke-width": 0.06 * Math.max(1, tokens / 10) });
  set(outputs.node, { style: "" }); // as long as the matrix is
  under(outputs.node.querySelector("canvas"));
  const written = html("div", { "aria-hidden": "true", style: "position: absolute; inset: 0; display: grid; grid-auto-rows: 1fr; place-items: center; font-size: 0.8em; pointer-events: none" });
  outputs.node.append(written, html("span", { "aria-hidden": "true", style: "position: absolute; top: 100%; width: 100%; text-align: center; color: var(--hl-soft)" }, "y"));
  const in_cells = width === 1 && tokens <= MOST_IN_CELLS;
  outputs.marks.append(svg("rect", { class: "hl-output", x: 0, width, height: 1, fill: "none", stroke: LIT, "stroke-width": 2, "vector-effect": "non-scaling-stroke" }));
  const node = html("div", { class: "hl-matrix", style: `display: grid; grid-template-columns: minmax(0, 1fr) ${in_cells ? 3 : 1.6}rem; gap: 0.6rem; max-width: 24rem` }, map.node, outputs.node);
  let last = null;

  function show(head, run, chunk, i, j) {
    if (last !== run) {
      map.paint(head.weights);
      outputs.paint(run.outputs, run.largest);
      if (in_cells) written.replaceChildren(...Array.from(run.outputs, (y) => in_cell(clean(y, run.largest), run.largest)));
      const line = Math.max(0.5, Math.min(2, (48 * chunk) / tokens));
      set(diagonal, { d: squares(tokens, chunk), "stroke-width": line });
      set(below, { d: stairs(tokens, chunk) });
      set(lines, { d: seams(tokens, chunk), "stroke-width": 0.75 * line, "stroke-dasharray": `${3 * line} ${2 * line}` });
      last = run;
    }
    map.light(i, j);
    set(outputs.marks.querySelector(".hl-output"), { y: i });
  }

  return { node, show };
}

function in_cell(number, largest) {
  const ink = number > 0.6 * largest ? "color: white" : number < -0.6 * largest ? "color: black" : "";
  return html("span", { class: "hl-number", style: ink }, short(number));
}

function squares(tokens, chunk) {
  let path = "";
  for (let at = 0; at < tokens; at += chunk) {
    const side = Math.min(chunk, tokens - at);
    path += `M${at} ${at}h${side}v${side}h${-side}z`;
  }
  return path;
}

// What lies below the blocks, and the lines that cut it: the left and lower edge of every piece.
function stairs(tokens, chunk) {
  let path = "";
  for (let row = chunk; row < tokens; row += chunk) path += `M0 ${row}h${row}v${Math.min(chunk, tokens - row)}h${-row}z`;
  return path;
}

function seams(tokens, chunk) {
  let path = "";
  for (let at = chunk; at < tokens; at += chunk) {
    path += `M0 ${Math.min(tokens, at + chunk)}h${at}M${at - chunk} ${at}V${tokens}`;
  }
  return path;
}

// Tokens below, outputs above, a box a chunk; in the gaps the states that one hands to the next, a bar a number.
function draw_chunks(page, names, states) {
  const tokens = names.length;
  const node = svg("svg", { viewBox: `0 0 ${WIDTH} ${TOKENS + 12}` });
  const boxes = svg("path", { class: "hl-boxes", fill: INSIDE, "fill-opacity": 0.24, stroke: INSIDE, "stroke-width": 1 });
  const line = svg("path", { fill: "none", stroke: THROUGH, "stroke-width": 1.5 });
  const bars = [BLUE, ORANGE].map((fill) => svg("path", { class: "hl-bars", fill }));
  const lit = svg("path", { class: "hl-way", fill: "none", stroke: LIT, "stroke-width": 3.5, "stroke-linecap": "round", "stroke-linejoin": "round" });
  const numbers = svg("g", { class: "hl-numbers", "font-size": 11, "text-anchor": "middle" });
  const labels = svg("g", { "font-size": 12, "text-anchor": "middle" });
  const stops = svg("path", { class: "hl-stops", stroke: LIT, "stroke-linecap": "round" });
  node.append(boxes, line, ...bars, numbers, labels, lit, stops);
  page.picture(node);
  let place = null, last = null;

  function pick(event) {
    const box = node.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    const near = names.reduce((best, _, t) => (Math.abs(place.x(t) - x) < Math.abs(place.x(best) - x) ? t : best), 0);
    page.move((event.clientY - box.top) / box.height < 0.5 ? { i: near + 1 } : { j: near + 1 });
  }
  node.addEventListener("pointermove", pick);
  node.addEventListener("pointerdown", pick);

  function set_out(run, chunk) {
    place = placed(tokens, chunk);
    set(boxes, { d: place.starts.map((left, at) => `M${left} ${BOX.top}h${place.lengths[at]}v${BOX.bottom - BOX.top}h${-place.lengths[at]}z`).join("") });
    set(line, { d: run.first.map((_, at) => `M${place.gap_at(at)} ${LANE}h${place.gap}`).join("") });
    draw_states(run, place);
    labels.replaceChildren();
    for (let t = 0; t < tokens; t++) {
      if (!is_named(t, tokens)) continue;
      labels.append(svg("text", { x: place.x(t), y: 14 }, String(t + 1)), svg("text", { x: place.x(t), y: TOKENS + 8 }, names[t]));
    }
  }

  function draw_states(run, { gap, gap_at }) {
    const most = Math.max(...run.first.map(strongest));
    const row = (LANE - 8 - BOX.top) / states;
    const written = states <= MOST_WRITTEN && gap >= 34;
    const paths = ["", ""];
    numbers.replaceChildren();
    run.first.forEach((state, at) => state.forEach((x, n) => {
      const long = most ? Math.abs(x) / most * gap * 0.84 : 0;
      const high = written ? 6 : row * 0.8;
      const top = BOX.top + row * n + (written ? row - 10 : row * 0.1);
      const left = gap_at(at) + gap * 0.08;
      paths[x < 0 ? 1 : 0] += `M${left} ${top}h${long}v${high}h${-long}z`;
      if (written) numbers.append(svg("text", { x: gap_at(at) + gap / 2, y: top - 5 }, short(clean(x, length_of(state)))));
    }));
    bars.forEach((path, at) => set(path, { d: paths[at] }));
  }

  function show(run, chunk, i, j) {
    if (last !== run) set_out(run, chunk);
    last = run;
    const [from, to] = [place.x(j), place.x(i)];
    const ends = j > i ? [] : passed(chunk, i, j);
    const middle = (BOX.top + BOX.bottom) / 2;
    const across = ends.length ? `V${LANE}H${to}V18` : `V${BOX.bottom}C${from} ${middle} ${to} ${middle} ${to} ${BOX.top}V18`;
    set(lit, { d: j > i ? "" : `M${from} ${TOKENS - 6}${across}` });
    set(stops, { d: ends.map((end) => `M${place.gap_at(end / chunk - 1) + place.gap / 2} ${LANE}h0`).join(""), "stroke-width": Math.min(11, 0.9 * place.gap + 2) });
  }

  return { node, show };
}

// Where everything stands along the picture: a place for every token, and a gap before each chunk but the first.
function placed(tokens, chunk) {
  const passes = Math.ceil(tokens / chunk) - 1;
  const gap = passes ? Math.min(GAP, (0.45 * WIDTH) / passes) : 0;
  const step = (WIDTH - passes * gap) / tokens;
  const starts = Array.from({ length: passes + 1 }, (_, at) => at * (chunk * step + gap));
  const lengths = starts.map((_, at) => Math.min(chunk, tokens - at * chunk) * step);
  return {
    gap, starts, lengths,
    gap_at: (at) => starts[at + 1] - gap,
    x: (t) => (t + 0.5) * step + Math.floor(t / chunk) * gap,
  };
}

// Output i as the sum that it is, in the chunks' brackets; of many tokens only the lit one and its neighbours.
function draw_sum(page) {
  const node = html("p", { class: "hl-sum" });

  function show(weights, chunk, i, j) {
    const tokens = Math.sqrt(weights.length);
    const written = (t) => tokens <= MOST_NAMED || Math.abs(t - j) <= MOST_WRITTEN;
    const parts = [];
    for (let start = 0; start <= i; start += chunk) {
      const terms = [];
      for (let t = start; t <= Math.min(i, start + chunk - 1); t++) {
        const weight = weights[i * tokens + t];
        if (weight === 0 && t !== j) continue;
        if (written(t)) add_term(terms, page, short(weight), t, t === j);
        else add_rest(terms);
      }
      if (!terms.length) continue;
      if (terms.length === 1 && terms[0] === REST) add_rest(parts);
      else parts.push(...plus(parts), bracket(i < start + chunk ? INSIDE : THROUGH, terms));
    }
    node.replaceChildren("y", html("sub", {}, String(i + 1)), " = ", ...(parts.length ? parts : ["0"]));
  }

  return { node, show };
}

function add_term(terms, page, weight, t, lit) {
  const [sign, size] = terms.length ? added(weight).split(" ") : ["", weight];
  if (sign) terms.push(` ${sign} `);
  const node = html("span", lit ? { class: "hl-lit" } : {}, `${size} x`, html("sub", {}, String(t + 1)));
  node.addEventListener("pointerenter", () => page.move({ j: t + 1 }));
  terms.push(node);
}

// What is left out is said once.
function add_rest(parts) {
  if (parts.at(-1) !== REST) parts.push(...plus(parts), REST);
}

function plus(parts) {
  return parts.length ? [" + "] : [];
}

function bracket(colour, terms) {
  const style = `white-space: normal; border-bottom: 3px solid ${colour}; border-radius: 0; padding: 0 0 1px`;
  return html("span", { class: "hl-bracket", style }, "(", ...terms, ")");
}

// One bar a chunk size, in its parts; the present one outlined. That it is the least is said of the present one only: to find.
function draw_chart(page, title, written, parts) {
  const { width, height } = CHART;
  const totals = parts[0].heights.map((_, at) => parts.reduce((sum, part) => sum + part.heights[at], 0));
  const most = Math.max(...totals, 1);
  const step = width / totals.length;
  const y = (value) => height - 18 - (value / most) * (height - 34);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, style: "width: 100%; height: auto; overflow: visible" });
  const below = totals.map(() => 0);
  for (const { colour, heights } of parts) {
    const bars = heights.map((value, at) => {
      const [top, bottom] = [y(below[at] + value), y(below[at])];
      below[at] += value;
      return `M${at * step} ${bottom}h${step * 0.86}V${top}h${-step * 0.86}z`;
    });
    node.append(svg("path", { fill: colour, d: bars.join("") }));
  }
  const least = Math.min(...totals);
  const mark = svg("text", { y: height - 3, "font-size": 12, "text-anchor": "middle" });
  node.append(svg("path", { d: `M0 ${height - 18}H${width}`, stroke: "currentColor", "stroke-opacity": 0.3 }), mark);
  const now = svg("rect", { class: "hl-chunk", width: step * 0.86, fill: "none", stroke: LIT, "stroke-width": 2 });
  node.append(now);
  page.picture(node, { ArrowLeft: () => ({ chunk: page.view.chunk - 1 }), ArrowRight: () => ({ chunk: page.view.chunk + 1 }) });
  const pick = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = node.getBoundingClientRect();
    page.move({ chunk: Math.ceil(((event.clientX - box.left) / box.width) * totals.length) });
  };
  for (const type of ["pointerdown", "pointermove"]) node.addEventListener(type, pick);
  const value = html("strong", {});
  const caption = html("div", { style: "color: var(--hl-soft)" }, `${title}: `, value);

  function show(chunk) {
    const top = y(totals[chunk - 1]);
    set(now, { x: (chunk - 1) * step, y: top, height: Math.max(1, height - 18 - top) });
    value.textContent = written(totals[chunk - 1]);
    mark.textContent = totals[chunk - 1] === least ? `chunk ${chunk}: the least` : `chunk ${chunk}`;
    const half = totals[chunk - 1] === least ? 54 : 27;
    set(mark, { x: Math.max(half, Math.min(width - half, (chunk - 0.57) * step)) });
  }

  return { node: html("div", { style: "min-width: 0" }, caption, node), show };
}
