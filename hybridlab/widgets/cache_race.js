// Bars: what each architecture keeps now. Lines: the same over all contexts. Both on a scale where a step doubles the bytes.

const GIB = 2 ** 30;
const BAR = { width: 440, top: 34, row: 58 };
const PLOT = { width: 540, height: 330, left: 52, right: 150, top: 10, bottom: 40 };
const HALO = "paint-order: stroke; stroke: var(--jp-layout-color0, Canvas); stroke-width: 4px; stroke-linejoin: round";

function draw(page) {
  const { models, as_built, seats } = page.inputs;
  const bars = draw_bars(page);
  const lines = draw_lines(page);
  page.stage.append(
    html("figure", { class: "hl-panel", style: "flex: 1 1 24rem" },
      html("figcaption", {}, "Now, in bytes. Each mark is 32 times the one before."), bars.node),
    html("figure", { class: "hl-panel", style: "flex: 1.25 1 28rem; max-width: 36rem" },
      html("figcaption", {}, "Over the tokens read. Drag, or press ← → for one token, ↑ ↓ for twice and half."), lines.node),
  );

  return (view) => {
    const names = [...new Set(seats.map((seat) => view[seat]))].filter((name) => name in models);
    const shown = names.map((name) => {
      const { footprints } = models[name];
      return runner(page.inputs, name, footprints[view.kv_heads] ?? footprints[as_built], view);
    });
    const context = tokens_of(view.log2_context);
    const floor = floor_of(names.map((name) => models[name].least));
    bars.redraw(shown, context, view.device, floor);
    lines.redraw(shown, context, view.device, floor);
    return said(shown, context, view);
  };
}

function tokens_of(exponent) {
  return Math.round(2 ** exponent);
}

function limit_of(device) {
  return parseInt(device, 10) * GIB;
}

// Where the pictures start: a power of two, a little below the least.
function floor_of(leasts) {
  return 2 ** Math.floor(Math.log2(Math.max(2, leasts.length ? Math.min(...leasts) : GIB)) - 0.5);
}

// ---------------------------------------------------------------- numbers (footprint.py has the same)

// One architecture at a view: its bytes at any context, by parts, and where the device ends.
function runner({ sizes, seats }, name, { parameters, pieces }, view) {
  const at = seats.findIndex((seat) => view[seat] === name);
  const units = sizes[view.dtype];
  const weights = view.weights ? parameters * units.dtype : 0;
  const of_pieces = (chosen, context) => chosen.reduce((sum, piece) => {
    const length = piece.most === null ? context : Math.min(context, piece.most);
    return sum + (piece.fixed + piece.per_token * length) * units[piece.unit] * view.batch;
  }, 0);
  const caches = pieces.filter((piece) => piece.cache);
  const states = pieces.filter((piece) => !piece.cache);
  const kept = (context) => weights + of_pieces(pieces, context);
  const limit = limit_of(view.device);

  function parts(context) {
    const found = { cache: of_pieces(caches, context), state: of_pieces(states, context), weights };
    return Object.entries(found).filter(([, bytes]) => bytes).map(([part, bytes]) => `${part} ${size(bytes)}`).join(" + ");
  }

  return { name, at, kept, parts, limit, first: first_too_long(pieces, kept, limit) };
}

// The first context of at least one token that keeps more than the limit; null if it never comes.
function first_too_long(pieces, kept, limit) {
  const grows = pieces.some(({ most, per_token }) => most === null && per_token > 0);
  const full = Math.max(1, ...pieces.map(({ most }) => most ?? 0));
  if (!grows && kept(full) <= limit) return null;
  let [low, high] = [0, 1]; // the answer is above low and at most high
  while (kept(high) <= limit) [low, high] = [high, 2 * high];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (kept(middle) > limit) high = middle;
    else low = middle;
  }
  return high;
}

function said(shown, context, { batch, device }) {
  if (!shown.length) return { text: "No model takes part.", readout: {} };
  const ranked = shown.map((runner) => ({ ...runner, bytes: runner.kept(context) })).sort((a, b) => b.bytes - a.bytes);
  const who = batch === 1 ? `${count(context)} tokens` : `${count(context)} tokens in each of ${batch} sequences`;
  const sizes = ranked.map(({ name, bytes }) => `${name} ${size(bytes)}`).join(", ");
  const large = ranked.filter(({ bytes, limit }) => bytes > limit).map(({ name }) => name);
  const fits = large.length ? `Too much for ${device}: ${large.join(", ")}.` : `Each fits into ${device}.`;
  const readout = Object.fromEntries(
    shown.map((runner) => [runner.name, `${count(runner.kept(context))} bytes, ${verdict(runner.first)}`]),
  );
  if (ranked.length > 1) readout["largest to smallest"] = `${short(ranked[0].bytes / ranked.at(-1).bytes)} : 1`;
  return { text: `After ${who}: ${sizes}. ${fits}`, readout };
}

function verdict(first) {
  if (first === null) return "fits at any length";
  return first === 1 ? "does not fit at all" : `does not fit from ${count(first)} tokens on`;
}

// ---------------------------------------------------------------- pictures

// Where so many bytes stand between `from` and `to`.
function bytes_scale(floor, ceiling, from, to) {
  const [low, high] = [Math.log2(floor), Math.log2(ceiling)];
  return (bytes) => from + ((Math.log2(Math.max(bytes, floor)) - low) / (high - low)) * (to - from);
}

// Every fifth doubling, in units that need no fraction.
function byte_ticks(floor, ceiling) {
  const ticks = [];
  for (let x = 5 * Math.ceil(Math.log2(floor) / 5); x <= Math.log2(ceiling); x += 5) {
    ticks.push([2 ** x, `${2 ** (x % 10)} ${["B", "KiB", "MiB", "GiB", "TiB"][Math.floor(x / 10)]}`]);
  }
  return ticks;
}

// Arrow keys of both pictures: one token fewer or more, half or twice.
function walk(page) {
  const by = (change) => () => ({ log2_context: Math.log2(change(tokens_of(page.view.log2_context))) });
  return {
    ArrowLeft: by((tokens) => tokens - 1),
    ArrowRight: by((tokens) => tokens + 1),
    ArrowDown: by((tokens) => tokens / 2),
    ArrowUp: by((tokens) => tokens * 2),
  };
}

function draw_bars(page) {
  const { seats, ceiling } = page.inputs;
  const node = svg("svg", { style: "max-width: 30rem" });
  const grid = svg("g");
  const device = svg("text", { y: BAR.top - 14, "font-size": 12, "text-anchor": "middle", "font-weight": 600 });
  const pin = svg("path", { stroke: "currentColor", "stroke-width": 1.5 });
  node.append(grid, device, pin);
  const rows = seats.map((_, at) => draw_row(node, SERIES[at].colour));

  function redraw(shown, context, limit, floor) {
    const x = bytes_scale(floor, ceiling, 0, BAR.width);
    const bottom = BAR.top + Math.max(1, shown.length) * BAR.row;
    set(node, { viewBox: `0 0 ${BAR.width} ${bottom + 20}` });
    grid.replaceChildren(...byte_ticks(floor, ceiling).flatMap((tick) => draw_tick(x, bottom, ...tick)));
    const edge = x(limit_of(limit));
    device.textContent = limit;
    set(device, { x: edge });
    set(pin, { d: `M${edge} ${BAR.top - 9}V${BAR.top - 2}` });
    for (const row of rows) row.hide();
    shown.forEach((runner, place) => rows[runner.at].redraw(runner, context, BAR.top + place * BAR.row, x, edge));
  }

  return { node: page.picture(node, walk(page)), redraw };
}

function draw_tick(x, bottom, bytes, label) {
  const anchor = x(bytes) < 20 ? "start" : x(bytes) > BAR.width - 20 ? "end" : "middle";
  return [
    svg("path", { d: `M${x(bytes)} ${BAR.top}V${bottom}`, stroke: "currentColor", "stroke-opacity": 0.12 }),
    svg("text", { x: x(bytes), y: bottom + 15, "font-size": 11, "text-anchor": anchor, opacity: 0.7 }, label),
  ];
}

// A name, its bytes, a bar on a track that ends where the device does, and what the bytes are made of.
function draw_row(parent, colour) {
  const name = svg("tspan", { "font-weight": 600 });
  const bytes = svg("tspan", { dx: 10 });
  const heading = svg("text", { y: 16, "font-size": 13 }, name, bytes);
  const refusal = svg("text", { x: BAR.width, y: 16, "font-size": 13, "font-weight": 600, "text-anchor": "end" }, "does not fit");
  const track = svg("rect", { x: 0, y: 22, height: 14, fill: "currentColor", "fill-opacity": 0.08 });
  const bar = svg("rect", { x: 0, y: 23, height: 12, fill: colour, class: "hl-bar" });
  const edge = svg("path", { stroke: "currentColor", "stroke-width": 1.5 });
  const parts = svg("text", { y: 49, "font-size": 11, opacity: 0.75 });
  const row = svg("g", {}, heading, refusal, track, bar, edge, parts);
  parent.append(row);

  function redraw(runner, context, y, x, limit) {
    const kept = runner.kept(context);
    name.textContent = runner.name;
    bytes.textContent = size(kept);
    parts.textContent = runner.parts(context);
    set(row, { transform: `translate(0 ${y})`, display: "inline" });
    set(refusal, { display: kept > runner.limit ? "inline" : "none" });
    set(track, { width: limit });
    set(bar, { width: Math.min(x(kept), BAR.width) });
    set(edge, { d: `M${limit} 20V38` });
  }

  return { redraw, hide: () => set(row, { display: "none" }) };
}

function draw_lines(page) {
  const { steps: [low, high, octave], ceiling } = page.inputs;
  const [right, bottom] = [PLOT.width - PLOT.right, PLOT.height - PLOT.bottom];
  const x = (tokens) => PLOT.left + ((Math.log2(tokens) - low) / (high - low)) * (right - PLOT.left);
  let y = null; // it follows from who takes part
  const node = svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, style: "touch-action: pan-y; cursor: ew-resize" });
  const axes = svg("g");
  const beyond = svg("rect", { x: PLOT.left, y: PLOT.top, width: right - PLOT.left, fill: "currentColor", "fill-opacity": 0.08 });
  const edge = svg("path", { stroke: "currentColor", "stroke-width": 1.5 });
  const now = svg("path", { stroke: "currentColor", "stroke-opacity": 0.5 });
  const layer = svg("g");
  const device = svg("text", { x: PLOT.left + 6, y: PLOT.top + 15, "font-size": 12, "font-weight": 600, style: HALO });
  node.append(axes, beyond, edge, now, layer, device);
  const tokens = Array.from({ length: (high - low) * octave + 1 }, (_, step) => tokens_of(low + step / octave));
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = node.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * PLOT.width;
    page.move({ log2_context: low + ((at - PLOT.left) / (right - PLOT.left)) * (high - low) });
  };
  node.addEventListener("pointerdown", drag);
  node.addEventListener("pointermove", drag);

  // Caches only grow: a line that has left the picture does not come back.
  function path(kept) {
    const points = [];
    for (const context of tokens) {
      if (kept(context) > ceiling) break;
      points.push(`${x(context).toFixed(2)} ${y(kept(context)).toFixed(2)}`);
    }
    const rest = tokens[points.length];
    if (rest && points.length) {
      const [from, to] = [tokens[points.length - 1], rest].map((context) => [x(context), y(kept(context))]);
      const part = (from[1] - PLOT.top) / (from[1] - to[1]);
      points.push(`${(from[0] + part * (to[0] - from[0])).toFixed(2)} ${PLOT.top}`);
    }
    return points.length ? `M${points.join("L")}` : "";
  }

  function line({ name, at, kept, first, limit }, context) {
    const { colour, dash } = SERIES[at];
    const stroke = { stroke: colour, "stroke-width": 2.5, fill: "none" };
    const found = [svg("path", { d: path(kept), "stroke-dasharray": dash, class: "hl-line", "data-name": name, ...stroke })];
    if (kept(context) <= ceiling) found.push(svg("circle", { cx: x(context), cy: y(kept(context)), r: 4.5, fill: colour }));
    if (first >= tokens[0] && first <= tokens.at(-1)) {
      const [cx, cy] = [x(first), y(limit)];
      const cross = `M${cx - 5} ${cy - 5}L${cx + 5} ${cy + 5}M${cx - 5} ${cy + 5}L${cx + 5} ${cy - 5}`;
      found.push(svg("path", { d: cross, ...stroke, class: "hl-cross" }));
    }
    return found;
  }

  function redraw(shown, context, limit, floor) {
    y = bytes_scale(floor, ceiling, bottom, PLOT.top);
    axes.replaceChildren(...draw_axes(byte_ticks(floor, ceiling), [low, high], x, y, right, bottom));
    const top = y(limit_of(limit));
    set(beyond, { height: top - PLOT.top });
    set(edge, { d: `M${PLOT.left} ${top}H${right}` });
    set(now, { d: `M${x(context)} ${PLOT.top}V${bottom}` });
    device.textContent = `more than ${limit}`;
    layer.replaceChildren(...shown.flatMap((runner) => line(runner, context)), ...names_beside(shown, tokens.at(-1), y, right));
  }

  return { node: page.picture(node, walk(page)), redraw };
}

function draw_axes(ticks, [low, high], x, y, right, bottom) {
  const grid = { stroke: "currentColor", "stroke-opacity": 0.12 };
  const font = { "font-size": 11, opacity: 0.75 };
  const exponents = Array.from({ length: (high - low) / 2 + 1 }, (_, at) => low + 2 * at);
  return [
    ...ticks.flatMap(([bytes, label]) => [
      svg("path", { d: `M${PLOT.left} ${y(bytes)}H${right}`, ...grid }),
      svg("text", { x: PLOT.left - 6, y: y(bytes) + 4, "text-anchor": "end", ...font }, label),
    ]),
    ...exponents.flatMap((exponent) => [
      svg("path", { d: `M${x(2 ** exponent)} ${PLOT.top}V${bottom}`, ...grid }),
      svg("text", { x: x(2 ** exponent), y: bottom + 15, "text-anchor": "middle", ...font }, tokens_label(exponent)),
    ]),
    svg("text", { x: (PLOT.left + right) / 2, y: bottom + 33, "text-anchor": "middle", ...font }, "tokens"),
  ];
}

function tokens_label(exponent) {
  return `${2 ** (exponent % 10)}${["", "K", "M"][Math.floor(exponent / 10)]}`;
}

// Each line's name at its end; where lines end close together, the names move apart.
function names_beside(shown, last, y, right) {
  const gap = 15;
  const ends = shown.map(({ name, at, kept }) => ({ name, at, end: Math.max(PLOT.top, y(kept(last))) }));
  ends.sort((a, b) => a.end - b.end);
  let least = PLOT.top;
  for (const each of ends) least = (each.place = Math.max(each.end, least)) + gap;
  let most = PLOT.height - PLOT.bottom;
  for (const each of ends.toReversed()) most = (each.place = Math.min(each.place, most)) - gap;
  return ends.flatMap(({ name, at, end, place }) => [
    svg("path", { d: `M${right + 2} ${end}L${right + 9} ${place}`, stroke: SERIES[at].colour, fill: "none" }),
    svg("text", { x: right + 12, y: place + 4, "font-size": 12 }, name),
  ]);
}
