// On the left four channels, a row each: taps by how long ago, and their spectrum. On the right what reaches where, and what
// the layer costs. One tap is lit: a point in every row, a whole diagonal of the matrix.

const CHANNELS = 4, POINTS = 512; // a power of two
const REACH = 0.99, BAND = 0.9, FLOAT = 4;
const ROWS = { width: 560, row: 114, top: 22, high: 82, taps: 330, left: 372 }; // spectra begin at `left`
const LIT = SERIES[1].colour;

function draw(page) {
  const filters = filter_maker(page.inputs);
  const rows = draw_rows(page);
  const costs = draw_costs(page.inputs);
  const matrix = draw_matrix(page);
  page.stage.append(
    html("div", { class: "hl-panel", style: "flex: 1.5 1 28rem; max-width: 36rem" },
      figure("Four of the filters, each on its own scale. Keys: ← → another tap, ↑ ↓ channel.", rows.node)),
    html("div", { class: "hl-panel", style: "flex: 1 1 20rem; max-width: 23rem" },
      matrix.node,
      figure(`Bytes of all ${count(page.inputs.channels)} filters, and of what decoding keeps`, page.picture(costs.node))),
  );

  return (view) => {
    const found = filters(view);
    const at = Number(view.channel) - 1;
    const cost = cost_of(page.inputs.channels, found.length, view);
    rows.show(found, at, view);
    matrix.show(found, at, view.ago);
    costs.show(cost);
    return said(found, at, view, cost, page.inputs.channels);
  };
}

function figure(caption, node) {
  return html("figure", { style: "margin: 0 0 0.6rem" }, html("figcaption", {}, caption), node);
}

// ---------------------------------------------------------------- the numbers (filter_explorer.py has the same)

// The filters at a view; what a move does not touch is not computed again.
function filter_maker({ maps, unit, faded }) {
  const unpacked = maps.map(unpack);
  const kept = {};
  const again = (name, key, make) => {
    if (kept[name]?.key !== key) kept[name] = { key, value: make() };
    return kept[name].value;
  };

  return (view) => {
    const { frequency, hidden, bands, seed, log2_taps, fading, slowest, fastest } = view;
    const length = Math.round(2 ** log2_taps);
    const sources = [frequency, hidden, bands, seed, length].join();
    const network = again("network", sources, () => network_of(unpacked, unit, view, length));
    return again("filters", [sources, fading, slowest, fastest].join(), () => {
      const windows = network.map((_, channel) => window_of(view, faded, channel, length));
      const taps = network.map((numbers, channel) => numbers.map((x, t) => x * windows[channel][t]));
      const spectra = taps.map(spectrum_of);
      return {
        length, network, windows, taps, spectra,
        reach: taps.map((row) => first_with(REACH, row.map((x) => x * x)) + 1),
        band: spectra.map((row) => first_with(BAND, row.map((x, k) => (k % (POINTS / 2) ? 2 : 1) * x * x)) / POINTS),
      };
    });
  };
}

// What the network says of each time, a row for each channel. Weights lie row by row, as wide as the widest network's.
function network_of(maps, unit, { frequency, hidden, bands, seed }, length) {
  const layers = maps.map(({ shape: [, rows, columns], values }) => ({
    columns, values: Float64Array.from(values.subarray((seed - 1) * rows * columns, seed * rows * columns), (x) => unit * x),
  }));
  const found = Array.from({ length: CHANNELS }, () => new Float64Array(length));
  for (let t = 0; t < length; t++) {
    let numbers = features_of(t, length, bands);
    layers.forEach((layer, at) => {
      if (at) numbers = numbers.map((x) => Math.sin(frequency * x));
      numbers = through(layer, numbers, at === layers.length - 1 ? CHANNELS : hidden);
    });
    for (let channel = 0; channel < CHANNELS; channel++) found[channel][t] = numbers[channel];
  }
  return found;
}

function through({ columns, values }, numbers, rows) {
  const found = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let at = 0, from = row * columns; at < numbers.length; at++) sum += values[from + at] * numbers[at];
    found[row] = sum;
  }
  return found;
}

// The share of the way back, cosines, and sines with a minus.
function features_of(t, length, bands) {
  const found = new Float64Array(2 * bands + 1);
  found[0] = t / (length - 1);
  for (let band = 0; band < bands; band++) {
    const angle = t * (2 * Math.PI / length) * (1e-4 + (bands > 1 ? band * ((bands - 1 - 1e-4) / (bands - 1)) : 0));
    found[1 + band] = Math.cos(angle);
    found[1 + bands + band] = -Math.sin(angle);
  }
  return found;
}

function window_of({ fading, slowest, fastest }, faded, channel, length) {
  const decay = (1 / slowest + (channel / (CHANNELS - 1)) * (1 / fastest - 1 / slowest)) * -Math.log(faded);
  return Float64Array.from({ length }, (_, t) => (fading ? Math.exp(-decay * (t / (length - 1))) : 1));
}

const COSINES = Float64Array.from({ length: POINTS }, (_, at) => Math.cos((2 * Math.PI * at) / POINTS));

function spectrum_of(taps) {
  return Float64Array.from({ length: POINTS / 2 + 1 }, (_, k) => {
    let real = 0, imaginary = 0;
    for (let t = 0; t < taps.length; t++) {
      real += taps[t] * COSINES[(k * t) & (POINTS - 1)];
      imaginary += taps[t] * COSINES[(k * t + POINTS / 4) & (POINTS - 1)]; // cos(x + 90 degrees) = -sin(x)
    }
    return Math.sqrt(real * real + imaginary * imaginary);
  });
}

// The first place at which so much of the whole has come together.
function first_with(share, energies) {
  const enough = share * energies.reduce((sum, x) => sum + x, 0);
  let together = 0;
  return energies.findIndex((x) => (together += x) >= enough);
}

// Bytes: the network's maps with their biases and frequencies, the times, the taps one by one.
function cost_of(channels, length, { hidden, bands }) {
  const inner = 2, features = 2 * bands + 1;
  const fixed = hidden * (features + 1) + inner * hidden * (hidden + 1) + channels * hidden + hidden;
  const saved = channels - features;
  return {
    network: FLOAT * (fixed + features * length),
    explicit: FLOAT * channels * length,
    first: saved > 0 ? Math.floor(fixed / saved) + 1 : null,
  };
}

// ---------------------------------------------------------------- the words

function said({ length, taps, reach, band }, at, { bands, hidden, frequency, ago }, { network, explicit, first }, channels) {
  const from = `${length} taps from ${2 * bands + 1} features, width ${hidden}, sine frequency ${short(frequency)}.`;
  const energy = `99 % of its energy in ${reach[at]} taps, 90 % below ${short(band[at])} waves a token`;
  return {
    text: `${from} Channel ${at + 1}: ${energy}; ${weighs(taps[at], ago)}.`,
    readout: {
      [`tap ${ago}`]: beside_largest(taps[at], ago),
      "99 % of the energy": `in ${reach.join(", ")} of ${length} taps`,
      "90 % of the energy": `below ${band.map(short).join(", ")} waves a token`,
      [`filters of ${channels} channels`]: `${size(network)} as a network, ${size(explicit)} tap by tap`,
      "the network is smaller": first === null ? "at no length" : `from ${count(first)} taps on`,
      "kept at decode": `${length} inputs a channel, ${size(explicit)}`,
    },
  };
}

function weighs(taps, ago) {
  const which = ago === 0 ? "the present input" : `an input ${ago} step${ago === 1 ? "" : "s"} ago`;
  return ago < taps.length ? `${which} weighs ${short(taps[ago])}` : `${which} is out of reach`;
}

function beside_largest(taps, ago) {
  if (ago >= taps.length) return "0, after the last one";
  return `${short(taps[ago])}, ${short((100 * Math.abs(taps[ago])) / strongest(taps))} % of the largest`;
}

// ---------------------------------------------------------------- the pictures

const words = (x, y, text, more = {}) => svg("text", { x, y, "font-size": 12, ...more }, text);
const line = (points) => `M${Array.from(points, (point) => point.join(" ")).join("L")}`;
const joined = (numbers, x, y) => line(Array.from(numbers, (number, at) => [x(at), y(number)]));

function draw_rows(page) {
  const foot = CHANNELS * ROWS.row;
  const node = svg("svg", { viewBox: `0 0 ${ROWS.width} ${foot + 32}`, style: "touch-action: pan-y" });
  const rows = SERIES.slice(0, CHANNELS).map(({ colour }, at) => draw_row(node, at, colour));
  const soft = { opacity: 0.8, "font-size": 11 };
  const last = words(ROWS.taps, foot + 12, "", { "text-anchor": "end", ...soft });
  const middle = (ROWS.left + ROWS.width) / 2;
  node.append(
    words(0, foot + 12, "0", soft), last,
    words(ROWS.taps / 2, foot + 26, "taps, by age (steps ago)", { "text-anchor": "middle", ...soft }),
    words(ROWS.left, foot + 12, "0", soft), words(middle, foot + 12, "0.25", { "text-anchor": "middle", ...soft }),
    words(ROWS.width, foot + 12, "0.5", { "text-anchor": "end", ...soft }),
    words(middle, foot + 26, "spectrum |H|, by waves a token", { "text-anchor": "middle", ...soft }),
  );
  const lit = svg("path", { class: "hl-lit-tap", stroke: "currentColor", "stroke-opacity": 0.6 });
  node.append(lit);
  const channel = (step) => ({ channel: String(Math.max(1, Math.min(CHANNELS, Number(page.view.channel) + step))) });
  page.picture(node, {
    ArrowLeft: () => ({ ago: page.view.ago - 1 }),
    ArrowRight: () => ({ ago: page.view.ago + 1 }),
    ArrowUp: () => channel(-1),
    ArrowDown: () => channel(1),
  });
  let length = 2;
  const pick = (event) => {
    const box = node.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * ROWS.width;
    const ago = Math.max(0, Math.min(length - 1, Math.round((x / ROWS.taps) * (length - 1))));
    const row = Math.floor((((event.clientY - box.top) / box.height) * (foot + 32)) / ROWS.row);
    const chosen = event.type === "pointerdown" && row < CHANNELS ? { channel: String(row + 1) } : {};
    page.move(x <= ROWS.taps + 10 ? { ago, ...chosen } : chosen);
  };
  for (const type of ["pointerdown", "pointermove"]) node.addEventListener(type, pick);
  let shown = null;

  function show(found, chosen, { ago, fading }) {
    length = found.length;
    if (shown !== found) {
      rows.forEach((row, at) => row.show(found, at, fading));
      last.textContent = String(length - 1);
      shown = found;
    }
    rows.forEach((row, at) => row.light(found.taps[at], ago, at === chosen));
    const x = (ago / (length - 1)) * ROWS.taps;
    set(lit, { d: ago < length ? `M${x} ${ROWS.top - 4}V${foot}` : "" });
  }

  return { node, show };
}

// One channel: its taps within its window, those that hold 99 % of the energy on darker ground; beside them its spectrum.
function draw_row(parent, at, colour) {
  const top = at * ROWS.row + ROWS.top, middle = top + ROWS.high / 2, bottom = top + ROWS.high;
  const ground = { y: top, height: ROWS.high, fill: "currentColor", "fill-opacity": 0.07 };
  const held = svg("rect", { class: "hl-held", x: 0, ...ground });
  const below = svg("rect", { class: "hl-below", x: ROWS.left, ...ground });
  const faint = { stroke: "currentColor", "stroke-opacity": 0.3 };
  const zero = svg("path", { d: `M0 ${middle}H${ROWS.taps}M${ROWS.left} ${bottom}H${ROWS.width}`, ...faint });
  const window = svg("path", { class: "hl-window", fill: "none", stroke: "currentColor", "stroke-opacity": 0.45, "stroke-dasharray": "3 3" });
  const taps = svg("path", { class: "hl-taps", fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round" });
  const spectrum = svg("path", { class: "hl-spectrum", fill: colour, "fill-opacity": 0.3, stroke: colour, "stroke-width": 1.5 });
  const dot = svg("circle", { class: "hl-dot", r: 4, fill: colour, stroke: "currentColor", "stroke-width": 1.5 });
  const name = words(0, top - 6, `channel ${at + 1}`);
  const reach = words(ROWS.taps, top - 6, "", { "text-anchor": "end" });
  const band = words(ROWS.width, top - 6, "", { "text-anchor": "end" });
  parent.append(held, below, zero, window, taps, spectrum, name, reach, band, dot);
  let limit = 1;

  const y = (tap) => middle - (tap / limit) * (ROWS.high / 2);

  function show(found, channel, fading) {
    const [numbers, curve] = [found.taps[channel], found.spectra[channel]];
    const x = (t) => (t / (found.length - 1)) * ROWS.taps;
    limit = strongest(numbers);
    set(held, { width: x(found.reach[channel] - 1) });
    set(taps, { d: joined(numbers, x, y) });
    const most = strongest(found.network[channel]);
    const edge = found.windows[channel].map((share) => Math.min(limit, most * share));
    set(window, { d: fading ? joined(edge, x, y) + joined(edge, x, (tap) => y(-tap)) : "" });
    const wide = ROWS.width - ROWS.left, high = strongest(curve);
    const frequency = (k) => ROWS.left + (k / (POINTS / 2)) * wide;
    const heights = joined(curve, frequency, (size) => bottom - (size / high) * ROWS.high);
    set(spectrum, { d: `${heights}L${ROWS.width} ${bottom}L${ROWS.left} ${bottom}Z` });
    set(below, { width: 2 * found.band[channel] * wide });
    reach.textContent = `99 % in ${found.reach[channel]} taps`;
    band.textContent = `90 % below ${short(found.band[channel])}`;
  }

  function light(numbers, ago, chosen) {
    set(name, { "font-weight": chosen ? 700 : 400 });
    set(dot, { display: ago < numbers.length ? "inline" : "none" });
    if (ago < numbers.length) set(dot, { cx: (ago / (numbers.length - 1)) * ROWS.taps, cy: y(numbers[ago]) });
  }

  return { show, light };
}

// Every diagonal of the matrix is one tap.
function draw_matrix(page) {
  const { tokens } = page.inputs;
  const map = heat(tokens, tokens);
  const font = 0.035 * tokens;
  for (const t of [1, tokens / 4, tokens / 2, (3 * tokens) / 4, tokens]) {
    map.marks.append(svg("text", { x: -0.4 * font, y: t - 0.5 + 0.35 * font, "font-size": font, "text-anchor": "end" }, String(t)));
    const under = t === tokens ? { x: t, "text-anchor": "end" } : { x: t - 0.5, "text-anchor": "middle" };
    map.marks.append(svg("text", { y: tokens + 1.2 * font, "font-size": font, ...under }, String(t)));
  }
  const lit = svg("path", { class: "hl-diagonal", stroke: LIT, "stroke-width": 2, fill: "none", "vector-effect": "non-scaling-stroke" });
  map.marks.append(lit);
  const longer = () => ({ ago: page.view.ago + 1 }), shorter = () => ({ ago: page.view.ago - 1 });
  page.picture(map.node, { ArrowLeft: longer, ArrowDown: longer, ArrowRight: shorter, ArrowUp: shorter });
  const pick = (event) => {
    const { row, column } = map.cell_at(event);
    page.move({ ago: row - column });
  };
  for (const type of ["pointerdown", "pointermove"]) map.node.addEventListener(type, pick);
  const caption = html("span");
  const node = figure(caption, html("div", { class: "hl-matrix" }, map.node));
  let shown = null;

  function show({ taps: filters }, at, ago) {
    const taps = filters[at];
    if (shown !== taps) {
      const cells = new Float64Array(tokens * tokens);
      for (let i = 0; i < tokens; i++) {
        for (let j = Math.max(0, i - taps.length + 1); j <= i; j++) cells[i * tokens + j] = taps[i - j];
      }
      map.paint(cells, strongest(taps));
      caption.textContent = `Channel ${at + 1}: how much token j (below) reaches output i (left). A diagonal is one tap.`;
      shown = taps;
    }
    set(lit, { d: ago < tokens ? `M0 ${ago}L${tokens - ago} ${tokens}` : "" });
  }

  return { node, show };
}

const COSTS = { row: 34, wide: 360 };

function draw_costs({ channels, most }) {
  const node = svg("svg", { viewBox: `0 0 ${COSTS.wide} ${3 * COSTS.row}` });
  const bars = ["as a network, with its times", "tap by tap", "inputs kept at decode"].map((label, at) => {
    const y = at * COSTS.row;
    const bar = svg("rect", { class: "hl-bytes", x: 0, y: y + 19, height: 9, fill: "currentColor", "fill-opacity": 0.55 });
    const bytes = svg("tspan", { dx: 8, "font-weight": 600 });
    node.append(bar, words(0, y + 14, "", {}));
    node.lastChild.append(label, bytes);
    return { bar, bytes };
  });

  function show({ network, explicit }) {
    const unit = COSTS.wide / Math.max(FLOAT * channels * most, network);
    [network, explicit, explicit].forEach((each, at) => {
      set(bars[at].bar, { width: each * unit });
      bars[at].bytes.textContent = size(each);
    });
  }

  return { node, show };
}
