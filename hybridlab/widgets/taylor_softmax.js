// Two kernels over the logits that occur, the weights they give, one row of these beside softmax's, and what is carried for
// them. One pair (output i, token j) is lit in all: its logit on the kernels, its entry in the matrix, its bars in the row.

const SOFT = SERIES[0].colour, POLYNOMIAL = SERIES[1].colour, DASH = SERIES[1].dash;
const KERNELS = { width: 420, height: 354, left: 44, right: 376, top: 26, bottom: 312 };
const ROW = { width: 420, height: 164, left: 44, right: 412, top: 26, bottom: 140 };
const SIZES = { width: 420, height: 204, left: 44, right: 344, top: 26, bottom: 166 };
const STRONGEST = 1; // weights beyond it have the colour of 1: an odd order's can be of any size, and would pale the others
const POINTS = 240; // of a curve
const ROUNDING = 1e-12, NO_SUM = 1e-9, NUMBER_BYTES = 4, HIGHEST_ORDER = 4, LONGEST = 1e5;
const ROOTS = { 1: -1, 3: -1.5960716379833215 }; // below these a polynomial is negative
const MINUS = "Taylor's minus softmax's";
const HALO = "paint-order: stroke; stroke: var(--jp-layout-color0, Canvas); stroke-width: 4px; stroke-linejoin: round";

function draw(page) {
  const { names } = page.inputs;
  const [q, k, v] = ["q", "k", "v"].map((name) => unpack(page.inputs[name]));
  const logits = {}; // by K, at scale 1, once computed
  const kernels = draw_kernels(page);
  const matrix = draw_matrix(page, names);
  const row = draw_row(page, names);
  const held = draw_sizes(page, q.shape[1], v.shape[1]);
  page.stage.append(
    panel("eˢ and its polynomial (↑ ↓ order, ← → logits)", kernels.node),
    matrix.panel,
    row.panel,
    panel("what is carried (↑ ↓ order, ← → K)", held.node),
  );
  let last = null;

  return (view) => {
    const { order, scale, width } = view;
    if (!last || last.order !== order || last.scale !== scale || last.width !== width) {
      const scores = (logits[width] ??= logits_of(q, k, width)).map((s) => scale * s);
      last = { order, scale, width, weights: weights_of(scores, names.length, order) };
    }
    const { weights } = last;
    const [i, j] = [view.i - 1, view.j - 1];
    kernels.show(weights, order, i, j);
    matrix.show(weights, view.matrix, i, j);
    row.show(weights, order, i, j);
    const sizes = sizes_of(order, width, v.shape[1]);
    held.show(sizes, order, width);
    return told(weights, sizes, v, names, view);
  };
}

function panel(caption, node) {
  return html("figure", { class: "hl-panel" }, html("figcaption", {}, caption), node);
}

// ---------------------------------------------------------------- the weights (taylor_weights.py has the same)

function polynomial(order, s) {
  let total = 1;
  for (let power = order; power > 0; power--) total = 1 + (s / power) * total;
  return total;
}

function logits_of(q, k, width) {
  const [tokens, stride] = q.shape;
  const logits = new Float64Array(tokens * tokens);
  const vectors = [q, k].map(({ values }) => Array.from({ length: tokens }, (_, t) => values.subarray(t * stride, t * stride + width)));
  for (let i = 0; i < tokens; i++) {
    for (let j = 0; j <= i; j++) {
      const [query, key] = [vectors[0][i], vectors[1][j]];
      const found = dot(query, key);
      const none = Math.abs(found) <= ROUNDING * (length_of(query) * length_of(key));
      logits[i * tokens + j] = none ? 0 : found / Math.sqrt(width);
    }
  }
  return logits;
}

function weights_of(logits, tokens, order) {
  const [kernel, softmax, taylor, off] = Array.from({ length: 4 }, () => new Float64Array(tokens * tokens));
  const sums = [], lost = [];
  for (let i = 0; i < tokens; i++) {
    const seen = logits.subarray(i * tokens, i * tokens + i + 1);
    const values = seen.map((s) => polynomial(order, s));
    const most = Math.max(...seen);
    const exponentials = seen.map((s) => Math.exp(s - most));
    const [sum, all] = [total(values), total(exponentials)];
    const none = Math.abs(sum) <= NO_SUM * total(values.map(Math.abs));
    sums.push(sum);
    if (none) lost.push(i);
    for (let j = 0; j <= i; j++) {
      const at = i * tokens + j;
      kernel[at] = values[j];
      softmax[at] = exponentials[j] / all;
      taylor[at] = none ? 0 : values[j] / sum;
      const apart = none ? 0 : taylor[at] - softmax[at];
      off[at] = Math.abs(apart) <= ROUNDING ? 0 : apart;
    }
  }
  return { tokens, logits, kernel, softmax, taylor, off, sums, lost };
}

function total(numbers) {
  return numbers.reduce((sum, x) => sum + x, 0);
}

// The first of the largest, but for rounding: errors of two tokens can be each other's negative.
function first_of_largest(numbers) {
  const most = numbers.reduce((most, x) => Math.max(most, x), -Infinity);
  return numbers.findIndex((x) => x >= most - 1e-9 * Math.abs(most));
}

function worst_of({ off, tokens }) {
  const at = first_of_largest(off.map(Math.abs));
  return { i: Math.floor(at / tokens), j: at % tokens, most: Math.abs(off[at]) };
}

function sizes_of(order, width, values) {
  let features = 0;
  for (let power = 0; power <= order; power++) features += width ** power;
  const [state, per_token] = [features * (values + 1), width + values];
  return { features, state, per_token, longer: Math.floor(state / per_token) + 1 };
}

// ---------------------------------------------------------------- the words, as taylor_softmax.py writes them

function told(weights, held, v, names, view) {
  const tokens = names.length;
  const cache = held.per_token * tokens;
  return {
    text: `Order ${view.order}, logits × ${short(view.scale)}: ${error_of(weights, names)}; ${signs_of(weights, view.order)}. `
      + `${entry_of(weights, names, view)} The state holds ${count(held.state)} numbers, the cache of ${tokens_as_text(tokens)} `
      + `${count(cache)}; from ${tokens_as_text(held.longer)} on the cache holds more.`,
    readout: {
      ...pair_of(weights, view),
      ...whole_of(weights, v, view),
      state: `${count(held.features)} × ${held.state / held.features} = ${count(held.state)} numbers, ${size(NUMBER_BYTES * held.state)}`,
      [`cache of ${tokens_as_text(tokens)}`]: `${count(cache)} numbers, ${size(NUMBER_BYTES * cache)}`,
      "cache holds more from": tokens_as_text(held.longer),
    },
  };
}

function tokens_as_text(tokens) {
  return tokens === 1 ? "1 token" : `${count(tokens)} tokens`;
}

function name_of(names, j) {
  return names[j] === String(j + 1) ? names[j] : `${j + 1} (${names[j]})`;
}

function error_of(weights, names) {
  if (weights.lost.length) return `output ${weights.lost[0] + 1} has no weights, for their sum is 0`;
  const { i, j, most } = worst_of(weights);
  if (!most) return "every weight is softmax's";
  return `the worst weight is ${short(most)} off, at output ${i + 1}, token ${name_of(names, j)}`;
}

function signs_of({ kernel, tokens }, order) {
  if (!(order in ROOTS)) return order ? "an even order is never negative" : "order 0 weighs all tokens alike";
  const found = kernel.filter((x) => x < -ROUNDING).length;
  const below = `below logit ${short(ROOTS[order])}`;
  return found ? `the polynomial is negative ${below}, as ${found} of ${(tokens * (tokens + 1)) / 2} logits are` : `no logit lies ${below}`;
}

function entry_of({ taylor, softmax, lost, tokens }, names, view) {
  const [i, j] = [view.i - 1, view.j - 1];
  const at = i * tokens + j;
  if (j > i) return `Token ${name_of(names, j)} comes after output ${i + 1} and cannot reach it.`;
  if (lost.includes(i)) return `Token ${name_of(names, j)} has no weight at output ${i + 1}; softmax gives ${short(softmax[at])}.`;
  return `Token ${name_of(names, j)} reaches output ${i + 1} with weight ${short(taylor[at])}, in softmax ${short(softmax[at])}.`;
}

// From the logit at (i, j) to its weights.
function pair_of({ logits, kernel, taylor, softmax, lost, tokens }, view) {
  if (view.j > view.i) return { logit: "none", weight: "0" };
  const at = (view.i - 1) * tokens + view.j - 1;
  return {
    logit: short(logits[at]),
    polynomial: `${short(kernel[at])}, exp ${short(Math.exp(logits[at]))}`,
    weight: `${lost.includes(view.i - 1) ? "none" : short(taylor[at])}, softmax ${short(softmax[at])}`,
  };
}

// What output i is, of several numbers the first, and the lowest sum that weights are divided by.
function whole_of({ taylor, softmax, sums, lost, tokens }, v, view) {
  const i = view.i - 1;
  const width = v.shape[1];
  const output = (weights) => short(clean_sum(Array.from({ length: tokens }, (_, t) => weights[i * tokens + t] * v.values[t * width])));
  const lowest = first_of_largest(sums.map((x) => -x));
  return {
    [`output ${view.i}${width === 1 ? "" : ", number 1"}`]: `${lost.includes(i) ? "none" : output(taylor)}, softmax ${output(softmax)}`,
    "lowest sum of weights": `${short(lost.includes(lowest) ? 0 : sums[lowest])} at output ${lowest + 1}`,
  };
}

function clean_sum(terms) {
  const sum = total(terms);
  return Math.abs(sum) <= ROUNDING * total(terms.map(Math.abs)) ? 0 : sum;
}

// ---------------------------------------------------------------- the pictures

function scale_between(low, high, from, to) {
  return (x) => from + ((x - low) / (high - low)) * (to - from);
}

function path_of(points) {
  return `M${points.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L")}`;
}

const FONT = { "font-size": 11 };

// What an axis counts: under its middle, or over its upper end.
function axis_name(box, text, upwards = false) {
  const place = upwards ? { x: 2, y: 12 } : { x: (box.left + box.right) / 2, y: box.height - 6, "text-anchor": "middle" };
  return svg("text", { ...place, opacity: 0.75, ...FONT }, text);
}

// Numbers beside an axis, those first in the list before others; what would lie on another is left out.
function ticks_up(layer, box, y, wanted, text = short) {
  const taken = [];
  for (const value of wanted) {
    const at = y(value);
    if (at < box.top - 1 || at > box.bottom + 1 || taken.some((other) => Math.abs(other - at) < 18)) continue;
    taken.push(at);
    layer.append(
      svg("path", { d: `M${box.left} ${at}H${box.right}`, stroke: "currentColor", "stroke-opacity": value === 0 ? 0.5 : 0.12 }),
      svg("text", { x: box.left - 6, y: at + 4, "text-anchor": "end", opacity: 0.75, ...FONT }, text(value)),
    );
  }
}

// 0, 1 and -1 first, then powers of ten, then what lies between: for a scale that is even near 0.
function around_zero(low, high) {
  const decades = Math.ceil(Math.log10(Math.max(10, -low, high)));
  const step = Math.ceil(decades / 5);
  const found = [0, 1, -1];
  for (let power = step; power <= decades; power += step) found.push(10 ** power, -(10 ** power));
  return [...found, 2, -2, 5, -5, 0.5, -0.5];
}

// About six round numbers.
function round_numbers(low, high) {
  const rough = (high - low) / 6;
  const one = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * one).find((step) => step >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, n) => (first + n) * step);
}

function seen_logits({ logits, tokens }) {
  return logits.filter((_, at) => at % tokens <= Math.floor(at / tokens));
}

// What is drawn of the logits: 0, where both kernels are 1, and a little more than the lowest and the highest.
function span_of(lowest, highest) {
  const [least, most] = [Math.min(0, lowest), Math.max(0, highest)];
  const edge = Math.max(0.04 * (most - least), 0.02);
  return [least < 0 ? least - edge : 0, most > 0 || least === 0 ? most + edge : 0];
}

function draw_kernels(page) {
  const { width, height, left, right, top, bottom } = KERNELS;
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  const negative = svg("rect", { class: "hl-negative", y: top, height: bottom - top, x: left, fill: ORANGE, "fill-opacity": 0.25 });
  const warning = svg("text", { x: left + 6, y: top + 15, style: HALO, ...FONT }, "negative");
  const axes = svg("g");
  const rug = svg("path", { class: "hl-logits", stroke: "currentColor", "stroke-opacity": 0.35 });
  const of_row = svg("path", { stroke: "currentColor", "stroke-width": 2 });
  const now = svg("path", { class: "hl-now", stroke: "currentColor", "stroke-opacity": 0.5 });
  const curve = (stroke, dash, name) => svg("path", { class: name, stroke, fill: "none", "stroke-width": 2.5, "stroke-dasharray": dash });
  const curves = [curve(SOFT, "none", "hl-exp"), curve(POLYNOMIAL, DASH, "hl-polynomial")];
  const dots = [SOFT, POLYNOMIAL].map((fill) => svg("circle", { r: 4.5, fill }));
  const labels = [SOFT, POLYNOMIAL].map(() => svg("text", { x: right + 6, "font-size": 12 }));
  const titles = [axis_name(KERNELS, "logit s"), axis_name(KERNELS, "weight before it is divided; beyond 1 by powers of ten", true)];
  node.append(negative, axes, rug, of_row, now, ...curves, ...dots, warning, ...labels, ...titles);
  page.picture(node, {
    ArrowUp: () => ({ order: page.view.order + 1 }),
    ArrowDown: () => ({ order: page.view.order - 1 }),
    ArrowLeft: () => ({ scale: page.view.scale - 0.25 }),
    ArrowRight: () => ({ scale: page.view.scale + 0.25 }),
  });
  let x = null, y = null, last = null, order_shown = null;

  // The token of this row whose logit lies nearest.
  function pick(event) {
    const box = node.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    const i = page.view.i - 1;
    const row = last.logits.subarray(i * last.tokens, i * last.tokens + i + 1);
    const near = row.reduce((best, s, j) => (Math.abs(x(s) - at) < Math.abs(x(row[best]) - at) ? j : best), 0);
    page.move({ j: near + 1 });
  }
  node.addEventListener("pointermove", pick);
  node.addEventListener("pointerdown", pick);

  function set_out(weights, order) {
    const found = seen_logits(weights);
    const [low, high] = span_of(Math.min(...found), Math.max(...found));
    const s = Array.from({ length: POINTS + 1 }, (_, n) => low + (n / POINTS) * (high - low));
    const heights = [s.map(Math.exp), s.map((s) => polynomial(order, s))];
    const [floor, ceiling] = [Math.min(0, ...heights[1]), Math.max(...heights.flat())];
    x = scale_between(low, high, left, right);
    const even = scale_between(Math.asinh(floor), Math.asinh(ceiling), bottom - (floor < 0 ? 4 : 0), top);
    y = (value) => even(Math.asinh(value));
    curves.forEach((path, at) => set(path, { d: path_of(s.map((s, n) => [x(s), y(heights[at][n])])) }));
    axes.replaceChildren();
    ticks_up(axes, KERNELS, y, around_zero(floor, ceiling));
    for (const value of round_numbers(low, high)) axes.append(svg("text", { x: x(value), y: bottom + 19, "text-anchor": "middle", opacity: 0.75, ...FONT }, short(value)));
    set(rug, { d: Array.from(found, (s) => `M${x(s).toFixed(2)} ${bottom}v6`).join("") });
    const root = order in ROOTS ? Math.max(low, Math.min(high, ROOTS[order])) : low;
    set(negative, { width: x(root) - left });
    set(warning, { visibility: x(root) - left > 54 ? "visible" : "hidden" });
    name_curves(heights.map((values) => y(values.at(-1))), order);
  }

  function name_curves(ends, order) {
    const apart = Math.max(0, 15 - Math.abs(ends[0] - ends[1])) / 2;
    const upper = ends[0] <= ends[1] ? 0 : 1;
    labels.forEach((label, at) => set(label, { y: ends[at] + 4 + (at === upper ? -apart : apart) }));
    labels[0].textContent = "eˢ";
    labels[1].textContent = `order ${order}`;
  }

  function show(weights, order, i, j) {
    if (last !== weights || order_shown !== order) set_out(weights, order);
    [last, order_shown] = [weights, order];
    const row = weights.logits.subarray(i * weights.tokens, i * weights.tokens + i + 1);
    set(of_row, { d: Array.from(row, (s) => `M${x(s).toFixed(2)} ${bottom}v6`).join("") });
    const visibility = j > i ? "hidden" : "visible";
    for (const part of [now, ...dots]) set(part, { visibility });
    if (j > i) return;
    const s = row[j];
    set(now, { d: `M${x(s)} ${top}V${bottom}` });
    [Math.exp(s), polynomial(order, s)].forEach((value, at) => set(dots[at], { cx: x(s), cy: y(value) }));
  }

  return { node, show };
}

// One of the three matrices; the row that holds the worst weight has a dashed frame.
function draw_matrix(page, names) {
  const map = token_matrix(page, names);
  const line = 0.05 * Math.max(1, names.length / 12);
  const worst = svg("rect", { class: "hl-worst", x: 0, height: 1, fill: "none", stroke: POLYNOMIAL, "stroke-width": line, "stroke-dasharray": `${3 * line} ${2 * line}` });
  map.entry.before(worst);
  const caption = html("figcaption", {});
  const panel = html("figure", { class: "hl-panel" }, caption, html("div", { class: "hl-matrix" }, map.node));
  let last = null, last_name = null;

  function show(weights, name, i, j) {
    if (last !== weights || last_name !== name) {
      const numbers = name === MINUS ? weights.off : name.startsWith("Taylor") ? weights.taylor : weights.softmax;
      const [most, limit] = [strongest(numbers), Math.min(strongest(numbers), STRONGEST)];
      map.paint(numbers, limit);
      const frame = weights.lost.length ? weights.lost[0] : worst_of(weights).i;
      set(worst, { y: frame, width: frame + 1 });
      const why = weights.lost.length ? "a row without weights" : "the worst row";
      const beyond = most > limit ? `, at most ${short(most)}` : "";
      caption.textContent = `${name} to ${short(limit)}${beyond}; dashed: ${why}`;
    }
    [last, last_name] = [weights, name];
    map.light(i, j);
  }

  return { panel, show };
}

// Output i: two bars a token.
function draw_row(page, names) {
  const { width, height, left, right, top, bottom } = ROW;
  const tokens = names.length;
  const step = (right - left) / tokens;
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  const lit = svg("rect", { class: "hl-token", y: top - 6, height: bottom - top + 12, width: step, fill: "currentColor", "fill-opacity": 0.12 });
  const axes = svg("g");
  const bars = [
    svg("path", { class: "hl-softmax", fill: SOFT }),
    svg("path", { class: "hl-taylor", fill: POLYNOMIAL, "fill-opacity": 0.35, stroke: POLYNOMIAL, "stroke-width": Math.min(1.5, 0.1 * step) }),
  ];
  const warning = svg("text", { class: "hl-warning", x: right, y: top + 12, "text-anchor": "end", style: HALO, "font-size": 12 });
  node.append(lit, axes, ...bars, warning, axis_name(ROW, "weight", true));
  for (let t = 0; t < tokens; t++) {
    if (is_named(t, tokens)) node.append(svg("text", { x: left + (t + 0.5) * step, y: height - 6, "text-anchor": "middle", ...FONT }, names[t]));
  }
  page.picture(node, { ArrowLeft: () => ({ j: page.view.j - 1 }), ArrowRight: () => ({ j: page.view.j + 1 }) });
  const pick = (event) => {
    const box = node.getBoundingClientRect();
    page.move({ j: Math.ceil((((event.clientX - box.left) / box.width) * width - left) / step) });
  };
  node.addEventListener("pointermove", pick);
  node.addEventListener("pointerdown", pick);
  const caption = html("figcaption", {});
  const panel = html("figure", { class: "hl-panel" }, caption, node);

  function show(weights, order, i, j) {
    const [soft, taylor] = [weights.softmax, weights.taylor].map((numbers) => numbers.subarray(i * tokens, i * tokens + i + 1));
    const [low, high] = [Math.min(0, ...taylor), Math.max(...soft, ...taylor)];
    const y = scale_between(low, high, bottom, top);
    const bar = (at, value, t) => `M${left + (t + 0.12 + 0.4 * at) * step} ${y(0)}h${0.36 * step}V${y(value)}h${-0.36 * step}z`;
    [soft, taylor].forEach((row, at) => set(bars[at], { d: Array.from(row, (value, t) => bar(at, value, t)).join("") }));
    set(bars[1], { visibility: weights.lost.includes(i) ? "hidden" : "visible" });
    axes.replaceChildren();
    ticks_up(axes, ROW, y, [0, ...round_numbers(low, high)]);
    set(lit, { x: left + j * step });
    caption.textContent = `weights of output ${i + 1}: softmax's filled, order ${order}'s pale`;
    warning.textContent = weights.lost.includes(i) ? `order ${order} has no weights here: their sum is 0` : "";
  }

  return { panel, show };
}

// State and cache over the length of the text, both axes by powers of ten; the states of all orders, the present one bold.
function draw_sizes(page, most_width, values) {
  const { width, height, left, right, top, bottom } = SIZES;
  const crossing = sizes_of(HIGHEST_ORDER, most_width, values).longer;
  const longest = Math.max(LONGEST, 10 ** String(crossing).length);
  const ceiling = 10 ** Math.ceil(Math.log10((most_width + values) * longest));
  const x = (tokens) => scale_between(0, Math.log10(longest), left, right)(Math.log10(tokens));
  const y = (numbers) => scale_between(0, Math.log10(ceiling), bottom, top)(Math.log10(numbers));
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  const axes = svg("g");
  for (let power = 0; 10 ** power <= longest; power++) {
    axes.append(svg("text", { x: x(10 ** power), y: bottom + 16, "text-anchor": "middle", opacity: 0.75, ...FONT }, short(10 ** power)));
  }
  const powers = Math.log10(ceiling);
  ticks_up(axes, SIZES, y, Array.from({ length: powers + 1 }, (_, power) => 10 ** power).filter((_, power) => power % Math.ceil(powers / 6) === 0));
  const others = svg("path", { stroke: POLYNOMIAL, "stroke-opacity": 0.35, "stroke-dasharray": DASH });
  const state = svg("path", { class: "hl-state", stroke: POLYNOMIAL, "stroke-width": 2.5, "stroke-dasharray": DASH });
  const cache = svg("path", { class: "hl-cache", stroke: SOFT, "stroke-width": 2.5 });
  const mark = svg("circle", { class: "hl-crossing", r: 5, fill: "none", stroke: "currentColor", "stroke-width": 2 });
  const labels = [svg("text", { x: right + 6, "font-size": 12 }), svg("text", { x: right + 6, "font-size": 12 }, "cache")];
  const where = svg("text", { "font-size": 12, style: HALO });
  node.append(axes, others, state, cache, mark, ...labels, where, axis_name(SIZES, "tokens"), axis_name(SIZES, "numbers", true));
  page.picture(node, {
    ArrowUp: () => ({ order: page.view.order + 1 }),
    ArrowDown: () => ({ order: page.view.order - 1 }),
    ArrowLeft: () => ({ width: page.view.width - 1 }),
    ArrowRight: () => ({ width: page.view.width + 1 }),
  });

  function show(held, order, keys) {
    const level = y(held.state);
    const all = Array.from({ length: HIGHEST_ORDER + 1 }, (_, p) => y(sizes_of(p, keys, values).state));
    set(others, { d: all.filter((_, p) => p !== order).map((at) => `M${left} ${at}H${right}`).join("") });
    set(state, { d: `M${left} ${level}H${right}` });
    set(cache, { d: path_of([[x(1), y(held.per_token)], [x(longest), y(held.per_token * longest)]]) });
    const at = x(held.longer);
    set(mark, { cx: at, cy: y(held.per_token * held.longer) });
    labels[0].textContent = `order ${order}`;
    set(labels[0], { y: level + 4 });
    const end = y(held.per_token * longest);
    set(labels[1], { y: Math.abs(end - level) < 14 ? level - 11 : end + 4 });
    where.textContent = tokens_as_text(held.longer);
    set(where, at > (left + right) / 2 ? { x: at - 10, "text-anchor": "end", y: level - 9 } : { x: at + 10, "text-anchor": "start", y: Math.min(level + 17, bottom - 4) });
  }

  return { node, show };
}
