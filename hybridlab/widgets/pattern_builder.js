// The stack, one cell a layer, and three sums beside those of a stack that attends everywhere.

const CELL = { width: 38, height: 46, gap: 3, bar: 15 };
const SUM = { width: 440, row: 62, bar: 18 };

// The pattern's control: a list of patterns to start from. It says "your own" as soon as a letter differs.
make_control.pattern = (control, page) => {
  const own = html("option", { disabled: "" }, "your own");
  const options = control.options.map((name, at) => html("option", { value: control.patterns[at] }, name));
  const input = html("select", { "data-lm-suppress-shortcuts": "true" }, own, ...options);
  input.addEventListener("change", () => page.move({ pattern: input.value, layers: input.value.length, layer: 1 }));
  const show = (pattern) => {
    const letters = letters_of(page.view);
    const known = control.patterns.includes(letters);
    own.value = known ? "" : pattern;
    input.value = known ? letters : pattern;
  };
  return { node: html("label", { class: "hl-control" }, html("span", {}, control.label), input), show };
};

// The chosen layer's slider ends where the layers do.
make_control.place = (control, page) => {
  const { node, show } = make_control.slider(control, page);
  const input = node.querySelector("input");
  return { node, show: (layer) => { input.max = Math.max(layer, page.view.layers); show(layer); } };
};

function draw(page) {
  const stack = draw_stack(page);
  const keys = draw_letters(page);
  const sums = draw_sums(page);
  page.stage.append(
    html("figure", { class: "hl-panel", style: "flex: 1.4 1 27rem; max-width: 42rem" },
      html("figcaption", {}, "The layers, from first to last; bars: what each keeps. Type letters, or ← → and ↑ ↓, or click."),
      stack.node, keys.node),
    html("figure", { class: "hl-panel", style: "flex: 1 1 20rem" },
      html("figcaption", {}, "All together; marks: with attention in every layer."), sums.node),
  );

  return (view) => {
    const found = model_at(page.inputs, view);
    const rival = model_at(page.inputs, { ...view, pattern: page.inputs.attention });
    stack.redraw(found, chosen_layer(view));
    keys.redraw(found.letters, found.letters[chosen_layer(view) - 1]);
    sums.redraw(found.sums, rival.sums);
    return said(page.inputs, found, rival.sums, view);
  };
}

// ---------------------------------------------------------------- numbers (pattern_builder.py has the same)

function letters_of({ pattern, layers }) {
  return pattern.repeat(layers).slice(0, layers);
}

function chosen_layer({ layer, layers }) {
  return Math.min(layer, layers);
}

// Its letters, each layer by itself, and all together with what is outside of the layers.
function model_at({ costs, sizes, outside, first }, view) {
  const at_width = costs[2 ** view.log2_width];
  const letters = letters_of(view);
  const layers = [...letters].map((letter, at) => {
    const cost = letters.indexOf(letter) === at ? at_width[first + letter] ?? at_width[letter] : at_width[letter];
    return amounts(cost, sizes[view.dtype], view);
  });
  const sums = [amounts(at_width[outside], sizes[view.dtype], view), ...layers].reduce(plus);
  return { letters, layers, sums };
}

function amounts({ parameters, cache, recurrent, conv, flops }, sizes, { log2_context, batch }) {
  const context = Math.round(2 ** log2_context);
  const after = ({ fixed, per_token, most }) => fixed + per_token * (most === null ? context : Math.min(context, most));
  const state = after(recurrent) * sizes.state_dtype + after(conv) * sizes.dtype;
  return { parameters, cache: batch * after(cache) * sizes.dtype, state: batch * state, flops: after(flops) };
}

function plus(a, b) {
  return Object.fromEntries(Object.keys(a).map((name) => [name, a[name] + b[name]]));
}

function kept({ cache, state }) {
  return cache + state;
}

function said({ names, row }, { letters, layers, sums }, rival, view) {
  const at = chosen_layer(view);
  const layer = layers[at - 1];
  const many = view.batch === 1 ? "" : ` in each of ${view.batch} sequences`;
  const text = `${spelled(letters, row)}: ${several(letters.length, "layer")}, ${counted(letters, names)}, `
    + `of width ${count(2 ** view.log2_width)}. `
    + `After ${several(Math.round(2 ** view.log2_context), "token")}${many}: cache ${size(sums.cache)}, state ${size(sums.state)}, `
    + `${share(kept(sums), kept(rival))} of what attention everywhere would keep.`;
  const readout = {
    parameters: count(sums.parameters),
    "cache bytes": count(sums.cache),
    "state bytes": count(sums.state),
    "FLOPs a token": count(sums.flops),
    "of attention everywhere": `parameters ${share(sums.parameters, rival.parameters)}, `
      + `memory ${share(kept(sums), kept(rival))}, FLOPs ${share(sums.flops, rival.flops)}`,
    [`layer ${at}, ${names[letters[at - 1]]}`]: `${count(layer.parameters)} parameters, ${count(kept(layer))} bytes, `
      + `${count(layer.flops)} FLOPs a token`,
  };
  return { text, readout };
}

// A word that repeats as how often and what, 4 x MMMMAMMM; one that does not in pieces as long as the picture's rows.
function spelled(letters, row) {
  let period = 1;
  while (letters.length % period || letters.slice(0, period).repeat(letters.length / period) !== letters) period += 1;
  const pieces = letters.slice(0, period).match(new RegExp(`.{1,${row}}`, "g")).join(" ");
  return period === letters.length ? pieces : `${letters.length / period} x ${pieces}`;
}

function several(number, what) {
  return number === 1 ? `1 ${what}` : `${count(number)} ${what}s`;
}

// How often each letter is there, the most frequent first: 28 Mamba, 4 attention.
function counted(letters, names) {
  const often = Object.keys(names).map((letter) => [letters.split(letter).length - 1, names[letter]]);
  return often.filter(([times]) => times).sort((a, b) => b[0] - a[0]).map(([times, name]) => `${times} ${name}`).join(", ");
}

function share(amount, whole) {
  return `${short((100 * amount) / whole)} %`;
}

function powers(amount) {
  for (const [one, word] of [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]]) {
    if (amount >= one) return `${short(amount / one)} ${word}`;
  }
  return count(amount);
}

// ---------------------------------------------------------------- changes

// The view with another letter at a layer.
function written(view, layer, letter) {
  const letters = letters_of(view);
  return { pattern: letters.slice(0, layer - 1) + letter + letters.slice(layer) };
}

// One letter is typed: it stands at the chosen layer, and the next is chosen.
function typed(view, letter) {
  const layer = chosen_layer(view);
  return { ...written(view, layer, letter), layer: Math.min(layer + 1, view.layers) };
}

// The next letter at a layer, or the one before.
function turned(view, layer, by, known) {
  const now = known.indexOf(letters_of(view)[layer - 1]);
  return { ...written(view, layer, known[(now + by + known.length) % known.length]), layer };
}

// ---------------------------------------------------------------- pictures

// Orange is what has a cache.
function ink({ cache }) {
  return cache ? ORANGE : BLUE;
}

function draw_stack(page) {
  const { names, row } = page.inputs;
  const known = Object.keys(names);
  const node = svg("svg", { style: "cursor: pointer" });
  const step = (by) => () => ({ layer: Math.max(1, Math.min(chosen_layer(page.view) + by, page.view.layers)) });
  const turn = (by) => () => turned(page.view, chosen_layer(page.view), by, known);
  const keys = { ArrowLeft: step(-1), ArrowRight: step(1), ArrowUp: turn(1), ArrowDown: turn(-1) };
  for (const letter of known) {
    keys[letter] = keys[letter.toLowerCase()] = () => typed(page.view, letter);
  }
  node.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-layer]");
    if (cell) page.move(turned(page.view, Number(cell.dataset.layer), 1, known));
  });

  function redraw({ letters, layers }, chosen) {
    const rows = Math.ceil(letters.length / row);
    const most = Math.max(1, ...layers.map(kept));
    set(node, { viewBox: `0 0 ${row * CELL.width} ${rows * CELL.height}` });
    node.replaceChildren(...layers.map((layer, at) => {
      const place = `translate(${(at % row) * CELL.width} ${Math.floor(at / row) * CELL.height})`;
      return draw_cell(letters[at], layer, kept(layer) / most, at + 1, place, at + 1 === chosen);
    }));
  }

  return { node: page.picture(node, keys), redraw };
}

function draw_cell(letter, layer, part, number, place, chosen) {
  const [width, height] = [CELL.width - CELL.gap, CELL.height - CELL.gap];
  const bar = part * CELL.bar;
  const cell = svg("g", { transform: place, "data-layer": number },
    svg("rect", { width, height, rx: 3, fill: ink(layer), "fill-opacity": 0.2 }),
    svg("rect", { y: height - bar, width, height: bar, fill: ink(layer), class: "hl-kept" }),
    svg("text", { x: width / 2, y: 20, "font-size": 15, "text-anchor": "middle" }, letter),
    svg("title", {}, `layer ${number}`));
  if (chosen) {
    const outline = { fill: "none", stroke: "currentColor", "stroke-width": 2, class: "hl-chosen" };
    cell.append(svg("rect", { x: 1, y: 1, width: width - 2, height: height - 2, rx: 3, ...outline }));
  }
  return cell;
}

// What each letter means and how often it is there; pressed, it is written at the chosen layer.
function draw_letters(page) {
  const { names } = page.inputs;
  const buttons = Object.entries(names).map(([letter, name]) => {
    const often = html("span");
    const button = html("button", { type: "button", class: "hl-button", "data-lm-suppress-shortcuts": "true" },
      html("b", {}, letter), ` ${name}`, often);
    button.addEventListener("click", () => page.move(typed(page.view, letter)));
    return { letter, button, often };
  });
  const style = "display: flex; flex-wrap: wrap; gap: 0.3rem; margin-top: 0.6rem; font-size: 0.9em";
  const node = html("div", { style, role: "group", "aria-label": "letter of the chosen layer" },
    ...buttons.map(({ button }) => button));

  function redraw(letters, chosen) {
    for (const { letter, button, often } of buttons) {
      const times = letters.split(letter).length - 1;
      often.textContent = times ? ` × ${times}` : "";
      button.style.borderColor = times ? "" : "var(--hl-line)";
      button.style.background = letter === chosen ? "var(--hl-line)" : "";
      set(button, { "aria-pressed": letter === chosen });
    }
  }

  return { node, redraw };
}

function draw_sums(page) {
  const node = svg("svg", { viewBox: `0 0 ${SUM.width} ${3 * SUM.row}` });
  const rows = ["parameters", "memory", "FLOPs"].map((name, at) => draw_sum(node, name, at * SUM.row));

  function redraw(sums, rival) {
    rows[0](`parameters ${powers(sums.parameters)}`, [[sums.parameters, BLUE]], rival.parameters);
    rows[1](`cache ${size(sums.cache)} + state ${size(sums.state)}`, [[sums.cache, ORANGE], [sums.state, BLUE]], kept(rival));
    rows[2](`FLOPs a token ${powers(sums.flops)}`, [[sums.flops, BLUE]], rival.flops);
  }

  return { node: page.picture(node), redraw };
}

// What it is and how much, a bar of its parts, a mark where attention everywhere stands, and the share of that.
function draw_sum(parent, name, y) {
  const heading = svg("text", { y: 16, "font-size": 13 });
  const bars = svg("g");
  const mark = svg("path", { stroke: "currentColor", "stroke-width": 2, class: "hl-mark", "data-name": name });
  parent.append(svg("g", { transform: `translate(0 ${y})` }, heading, bars, mark));
  return (text, parts, rival) => {
    const total = parts.reduce((sum, [amount]) => sum + amount, 0);
    const x = (amount) => (amount / Math.max(total, rival)) * (SUM.width - 2) + 1;
    heading.textContent = text;
    let done = 0;
    bars.replaceChildren(...parts.map(([amount, colour]) => {
      const [from, to] = [x(done), x(done + amount)];
      done += amount;
      return svg("rect", { x: from, y: 24, width: to - from, height: SUM.bar, fill: colour, class: "hl-sum-bar" });
    }));
    set(mark, { d: `M${x(rival)} 20V${28 + SUM.bar}` });
  };
}
