// What every live picture shares: controls from Python's list, one redraw a change, the same numbers for eyes and for screen readers.
// A picture's own file follows this one in the same module and defines
//     draw(page): builds its picture once; returns redraw(view), which paints a view and returns {text, readout}.

const NAMESPACE = "http://www.w3.org/2000/svg";
const SYNC_MILLISECONDS = 120; // how often Python hears where the controls stand

// Okabe and Ito's colours, told apart by colour-blind readers, each with a dash of its own for those who see none.
const BLUE = "#0072B2", ORANGE = "#E69F00";
const SERIES = [
  { colour: BLUE, dash: "none" },
  { colour: "#D55E00", dash: "7 3" },
  { colour: "#009E73", dash: "2 3" },
  { colour: "#CC79A7", dash: "9 3 2 3" },
  { colour: "#56B4E9", dash: "4 2" },
  { colour: ORANGE, dash: "12 4" },
];

// ---------------------------------------------------------------- numbers as text (text.py has the same)

function short(number) {
  if (Number.isNaN(number)) return "not a number";
  if (!Number.isFinite(number)) return number > 0 ? "infinite" : "-infinite";
  const rounded = Number((number * (1 + 2 ** -40)).toPrecision(4));
  if (rounded === 0) return "0";
  if (Math.abs(rounded) >= 1e-4 && Math.abs(rounded) < 1e6) return String(rounded);
  return rounded.toExponential().replace("+", "");
}

function size(bytes) {
  for (const [unit, one] of [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (bytes >= one) return `${(bytes / one).toFixed(2)} ${unit}`;
  }
  return `${bytes} B`;
}

// A whole number in full: 131,072.
function count(number) {
  return Math.round(number).toLocaleString("en-US");
}

// ---------------------------------------------------------------- arithmetic

function dot(a, b) {
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += a[at] * b[at];
  return sum;
}

function length_of(numbers) {
  return Math.sqrt(dot(numbers, numbers));
}

function strongest(numbers) {
  let most = 0;
  for (let at = 0; at < numbers.length; at++) most = Math.max(most, Math.abs(numbers[at]));
  return most;
}

// ---------------------------------------------------------------- elements

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(NAMESPACE, tag), attributes, children);
}

function fill(element, attributes, children) {
  set(element, attributes);
  element.append(...children);
  return element;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

// An array from Python: {shape, values}, row by row.
function unpack({ kind, shape, data }) {
  const types = { float64: Float64Array, float32: Float32Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array };
  const bytes = typeof data === "string"
    ? Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))
    : new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(); // aligned for wider numbers
  return { shape, values: new types[kind](bytes.buffer) };
}

// A heat map: `rows` by `columns` cells; its colour says the sign and its strength the size, over whatever the page's
// background is. `marks` is an SVG layer on top of it whose units are cells.
function heat(rows, columns) {
  const canvas = html("canvas", { width: columns, height: rows, class: "hl-heat" });
  const marks = svg("svg", { viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none", class: "hl-marks", "aria-hidden": "true" });
  const node = html("div", { class: "hl-cells", style: `aspect-ratio: ${columns} / ${rows}` }, canvas, marks);
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const inks = [BLUE, ORANGE].map((ink) => [1, 3, 5].map((at) => parseInt(ink.slice(at, at + 2), 16)));

  function paint(values, limit) {
    for (let at = 0; at < rows * columns; at++) {
      const strength = limit > 0 ? Math.min(1, Math.abs(values[at]) / limit) : 0;
      image.data.set(inks[values[at] < 0 ? 1 : 0], 4 * at);
      image.data[4 * at + 3] = Math.round(255 * strength);
    }
    context.putImageData(image, 0, 0);
  }

  function cell_at(event) {
    const box = node.getBoundingClientRect();
    const at = (offset, length, cells) => Math.max(0, Math.min(cells - 1, Math.floor((offset / length) * cells)));
    return { row: at(event.clientY - box.top, box.height, rows), column: at(event.clientX - box.left, box.width, columns) };
  }

  return { node, marks, paint, cell_at };
}

// ---------------------------------------------------------------- controls

const make_control = {
  slider(control, page) {
    // JupyterLab swallows arrow keys, unless the element itself says that it wants them.
    const input = html("input", {
      type: "range", min: control.low, max: control.high, step: control.step, "data-lm-suppress-shortcuts": "true",
    });
    const written = (x) => control.power ? count(control.power ** x) : short(x);
    const text = (x) => control.texts.length ? control.texts[Math.round((x - control.low) / control.step)] : written(x);
    const style = `min-width: max(3.2em, ${text(control.high).length}ch)`; // the bar stays still while numbers grow
    const value = html("span", { class: "hl-value", style, "aria-hidden": "true" }); // screen readers hear aria-valuetext
    input.addEventListener("input", () => page.move({ [control.name]: Number(input.value) }));
    const show = (x) => {
      input.value = x;
      value.textContent = text(x);
      input.setAttribute("aria-valuetext", text(x));
    };
    return { node: html("label", { class: "hl-control" }, html("span", {}, control.label), input, value), show };
  },

  choice(control, page) {
    const options = control.options.map((option) => html("option", { value: option }, option));
    const input = html("select", { "data-lm-suppress-shortcuts": "true" }, ...options);
    input.addEventListener("change", () => page.move({ [control.name]: input.value }));
    const node = html("label", { class: "hl-control" }, html("span", {}, control.label), input);
    return { node, show: (x) => { input.value = x; } };
  },

  toggle(control, page) {
    const input = html("input", { type: "checkbox", "data-lm-suppress-shortcuts": "true" });
    input.addEventListener("change", () => page.move({ [control.name]: input.checked }));
    const node = html("label", { class: "hl-control" }, input, html("span", {}, control.label));
    return { node, show: (x) => { input.checked = x; } };
  },

  play(control, page) {
    const slider = page.controls.find((other) => other.kind === "slider" && other.name === control.name);
    const button = html("button", { type: "button", class: "hl-button", "data-lm-suppress-shortcuts": "true" }, control.label);
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      button.textContent = control.label;
      page.speak(true);
    };
    const step = () => {
      page.move({ [control.name]: Math.min(page.view[control.name] + slider.step, slider.high) });
      if (page.view[control.name] >= slider.high) stop();
    };
    button.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (page.view[control.name] >= slider.high) page.move({ [control.name]: slider.low });
      page.speak(false); // a sentence a step would never end
      button.textContent = "Pause";
      timer = setInterval(step, control.milliseconds);
    });
    page.at_end(stop);
    return { node: button, show: () => {} };
  },
};

// ---------------------------------------------------------------- the page

function mount(model, root) {
  const { question, controls, inputs } = model.get("_spec");
  const endings = [];
  const stage = html("div", { class: "hl-stage" });
  const status = html("p", { class: "hl-status", role: "status", "aria-live": "polite" });
  const readout = html("dl", { class: "hl-readout" });
  let timer = null;

  const page = {
    inputs,
    controls,
    stage,
    view: { ...model.get("view") },

    // Moves controls; what lies outside a slider stops at its end.
    move(values) {
      const wanted = Object.entries(values).map(([name, x]) => [name, within(name, x)]);
      if (wanted.every(([name, x]) => page.view[name] === x)) return; // a mouse that moves inside one cell
      page.view = { ...page.view, ...Object.fromEntries(wanted) };
      refresh();
      if (timer === null) timer = setTimeout(tell_python, SYNC_MILLISECONDS);
    },

    // Makes a picture one that can be focused: it has a name for screen readers and answers to keys, {ArrowLeft: () => values}.
    picture(node, keys = {}) {
      set(node, { role: "img", "data-lm-suppress-shortcuts": "true", class: `${node.getAttribute("class") ?? ""} hl-picture` });
      if (Object.keys(keys).length) node.tabIndex = 0;
      node.addEventListener("keydown", (event) => {
        if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        page.move(keys[event.key]());
      });
      pictures.push(node);
      return node;
    },

    speak(aloud) { status.setAttribute("aria-live", aloud ? "polite" : "off"); },
    at_end(callback) { endings.push(callback); },
  };
  const pictures = [];

  function within(name, value) {
    const slider = controls.find((control) => control.kind === "slider" && control.name === name);
    return slider ? Math.max(slider.low, Math.min(slider.high, value)) : value;
  }

  function tell_python() {
    timer = null;
    model.set("view", page.view);
    model.save_changes();
  }

  function refresh() {
    for (const [name, show] of shows) show(page.view[name]);
    const shown = redraw(page.view);
    status.textContent = shown.text;
    for (const node of pictures) node.setAttribute("aria-label", shown.text);
    readout.replaceChildren(...Object.entries(shown.readout).map(([label, text]) => (
      html("div", {}, html("dt", {}, label), html("dd", {}, text))
    )));
  }

  function follow_python() {
    if (timer !== null) return; // the learner is moving: Python will hear of it, and must not pull back
    page.view = { ...model.get("view") };
    refresh();
  }

  const made = controls.map((control) => [control.name, make_control[control.kind](control, page)]);
  const shows = made.map(([name, control]) => [name, control.show]);
  const bar = html("div", { class: "hl-controls" }, ...made.map(([, control]) => control.node));
  root.classList.add("hl");
  root.replaceChildren(html("p", { class: "hl-question" }, question), bar, stage, readout, status);
  const redraw = draw(page);
  refresh();
  model.on("change:view", follow_python);
  return () => {
    model.off("change:view", follow_python);
    if (timer !== null) { clearTimeout(timer); tell_python(); }
    for (const end of endings) end();
  };
}

// What stands for Python in a page that has none.
function model_of(values) {
  return {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    save_changes() {},
    on() {},
    off() {},
  };
}

export default { render: ({ model, el }) => mount(model, el) };
