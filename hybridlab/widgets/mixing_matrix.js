// The matrix on the left, the recurrence unrolled on the right; an entry (i, j) of the one is a path in the other.

const WIDTH = 380, OUTPUTS = 34, STATES = 104, TOKENS = 174; // the unrolled picture, in its own units
const MOST_MEMORIES = 4;

function draw(page) {
  const { title, names, law } = page.inputs;
  const weights = unpack(page.inputs.weights).values;
  const tokens = names.length;
  const way = page.inputs.recurrence ? way_through(page.inputs.recurrence) : null;
  const matrix = token_matrix(page, names);
  matrix.paint(weights);
  const unrolled = draw_unrolled(page, names, way !== null);
  const sum = draw_sum(page, weights, names);
  const caption = way ? "written below, kept along the middle, read above" : "each output reaches for its tokens itself";
  page.stage.append(
    html("figure", { class: "hl-panel" }, html("figcaption", {}, title), html("div", { class: "hl-matrix" }, matrix.node)),
    html("figure", { class: "hl-panel" }, html("figcaption", {}, law || caption), unrolled.node, sum.node),
  );

  return ({ i, j }) => {
    const weight = weights[(i - 1) * tokens + j - 1];
    matrix.light(i - 1, j - 1);
    unrolled.light(i - 1, j - 1, way);
    sum.light(i - 1, j - 1);
    const name = names[j - 1] === String(j) ? names[j - 1] : `${j} (${names[j - 1]})`;
    if (j > i) return { text: `Token ${name} comes after output ${i} and cannot reach it.`, readout: { weight: "0" } };
    const row = weights.subarray((i - 1) * tokens, i * tokens);
    const factors = way ? way.said(i - 1, j - 1) : { "all of this row": short(row.reduce((sum, x) => sum + x, 0)) };
    return { text: `Token ${name} reaches output ${i} with weight ${short(weight)}.`, readout: { weight: short(weight), ...factors } };
  };
}

// The factors between token j and output i, as recurrence.py multiplies them.
function way_through(packed) {
  const [write, keep, read] = [packed.write, packed.keep, packed.read].map(unpack);
  const memories = write.shape[1];
  const delay = packed.now ? 1 : 0;
  const skip = packed.skip ? unpack(packed.skip).values : null;
  const at = ({ values }, t) => values.subarray(t * memories, (t + 1) * memories);

  function left(i, j) {
    const numbers = at(write, j).slice();
    for (let s = j + 1; s <= i - delay; s++) numbers.forEach((_, c) => { numbers[c] *= at(keep, s)[c]; });
    return numbers;
  }

  function vector(numbers) {
    if (numbers.length <= MOST_MEMORIES) return Array.from(numbers, short).join(", ");
    return `${numbers.length} numbers, length ${short(length_of(numbers))}`;
  }

  function said(i, j) {
    if (i === j && delay) return { "not through the state": "the present token" };
    return {
      [`written at ${j + 1}`]: vector(at(write, j)),
      [`left for output ${i + 1}`]: vector(left(i, j)),
      [`read at ${i + 1}`]: vector(at(read, i)),
      ...(skip && i === j ? { "beside the state": short(skip[i]) } : {}),
    };
  }

  // What step s leaves, where it is the same for every memory.
  const kept = (s) => at(keep, s).every((x) => x === at(keep, s)[0]) ? `× ${short(at(keep, s)[0])}` : "";

  return { delay, said, kept };
}

// Tokens below, the states that hand each other what is left in the middle, outputs above. Without a recurrence there
// are no states: each output reaches for its tokens itself.
function draw_unrolled(page, names, recurrent) {
  const tokens = names.length;
  const step = WIDTH / tokens;
  const middle = (t) => (t + 0.5) * step;
  const node = svg("svg", { viewBox: `0 0 ${WIDTH} 200` });
  const pale = { stroke: "currentColor", "stroke-opacity": 0.25, "stroke-width": Math.min(1.5, step / 8), fill: "none" };
  for (let t = 0; t < tokens; t++) {
    const x = middle(t);
    if (recurrent) {
      node.append(svg("path", { d: `M${x} ${TOKENS - 14}V${STATES}M${x} ${STATES}V${OUTPUTS + 8}`, ...pale }));
      if (t) node.append(svg("path", { d: `M${middle(t - 1)} ${STATES}H${x}`, ...pale }));
      node.append(svg("circle", { cx: x, cy: STATES, r: Math.min(5, step / 5), fill: "currentColor", "fill-opacity": 0.4 }));
    }
    if (!is_named(t, tokens)) continue;
    const font = { "text-anchor": "middle", "font-size": 12 };
    node.append(svg("text", { x, y: TOKENS + 6, ...font }, names[t]));
    node.append(svg("text", { x, y: OUTPUTS - 4, ...font }, String(t + 1)));
  }
  const lit = svg("path", { fill: "none", stroke: "#D55E00", "stroke-width": 4, "stroke-linecap": "round", "stroke-linejoin": "round" });
  const labels = svg("g", { "font-size": 11, "text-anchor": "middle" });
  node.append(lit, labels);
  node.addEventListener("pointermove", (event) => pick(page, node, event, tokens));
  node.addEventListener("pointerdown", (event) => pick(page, node, event, tokens));

  function light(i, j, way) {
    labels.replaceChildren();
    const [from, to] = [middle(j), middle(i)];
    if (j > i) return set(lit, { d: "" });
    if (!recurrent || (way.delay && i === j)) {
      return set(lit, { d: `M${from} ${TOKENS - 14}C${from} ${STATES} ${to} ${STATES} ${to} ${OUTPUTS + 8}` });
    }
    const last = middle(i - way.delay);
    set(lit, { d: `M${from} ${TOKENS - 14}V${STATES}H${last}L${to} ${OUTPUTS + 8}` });
    if (tokens > MOST_NAMED) return;
    for (let s = j + 1; s <= i - way.delay; s++) {
      labels.append(svg("text", { x: middle(s) - step / 2, y: STATES - 9 }, way.kept(s)));
    }
  }

  return { node: page.picture(node), light };
}

// Output i written out as a sum over its tokens; with many tokens only the lit term and its neighbours fit.
function draw_sum(page, weights, names) {
  const tokens = names.length;
  const node = html("p", { class: "hl-sum" });

  function light(i, j) {
    const terms = [];
    for (let t = 0; t <= i; t++) {
      const weight = weights[i * tokens + t];
      if (t !== j && (weight === 0 || Math.abs(t - j) > MOST_NAMED / 2)) continue;
      const term = html("span", t === j ? { class: "hl-lit" } : {}, `${short(weight)} v`, html("sub", {}, String(t + 1)));
      term.addEventListener("pointerenter", () => page.move({ j: t + 1 }));
      terms.push(terms.length ? " + " : "", term);
    }
    const whole = tokens <= MOST_NAMED ? " = " : " = … + ";
    node.replaceChildren("output", html("sub", {}, String(i + 1)), whole, ...(terms.length ? terms : ["0"]));
  }

  return { node, light };
}

function pick(page, node, event, tokens) {
  const box = node.getBoundingClientRect();
  const t = Math.max(1, Math.min(tokens, Math.ceil(((event.clientX - box.left) / box.width) * tokens)));
  page.move((event.clientY - box.top) / box.height < 0.35 ? { i: t } : { j: t });
}
