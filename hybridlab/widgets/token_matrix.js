// A matrix of outputs by tokens: numbers beside its rows, names under its columns, weights in its cells where they are few,
// and one entry (i, j) that mouse and arrow keys move.

const MOST_NAMED = 16; // tokens up to which each has its name
const MOST_IN_CELLS = 8; // and its weights in their cells
const SMALLEST = 0.2; // type, as a share of a cell

function token_matrix(page, names) {
  const tokens = names.length;
  const map = heat(tokens, tokens);
  const font = Math.max(SMALLEST, 0.035 * tokens); // of the whole matrix, so that it is read whatever its cells are
  const longest = Math.max(...names.map((name) => name.length));
  const of_names = tokens > MOST_NAMED ? font : Math.max(SMALLEST, Math.min(font, 1.4 / longest)); // a cell wide
  const text = (x, y, content, size, attributes) => svg("text", { x, y, "font-size": size, ...attributes }, content);
  for (let t = 0; t < tokens; t++) {
    if (!is_named(t, tokens)) continue;
    map.marks.append(text(-0.3 * font, t + 0.5 + 0.3 * font, String(t + 1), font, { "text-anchor": "end" }));
    map.marks.append(text(t + 0.5, tokens + 1.2 * of_names, names[t], of_names, { "text-anchor": "middle" }));
  }
  const written = svg("g", { "text-anchor": "middle" });
  const entry = svg("rect", { width: 1, height: 1, fill: "none", stroke: "currentColor", "stroke-width": 0.05 * Math.max(1, tokens / 12) });
  map.marks.append(written, entry);
  const pick = (event) => {
    const { row, column } = map.cell_at(event);
    page.move({ i: row + 1, j: column + 1 });
  };
  map.node.addEventListener("pointermove", pick);
  map.node.addEventListener("pointerdown", pick);
  page.picture(map.node, {
    ArrowUp: () => ({ i: page.view.i - 1 }),
    ArrowDown: () => ({ i: page.view.i + 1 }),
    ArrowLeft: () => ({ j: page.view.j - 1 }),
    ArrowRight: () => ({ j: page.view.j + 1 }),
  });
  function paint(weights, limit = strongest(weights)) {
    map.paint(weights, limit);
    if (tokens > MOST_IN_CELLS) return;
    written.replaceChildren();
    weights.forEach((weight, at) => {
      if (weight === 0) return;
      const style = weight > 0.6 * limit ? "fill: white" : weight < -0.6 * limit ? "fill: black" : "";
      written.append(text((at % tokens) + 0.5, Math.floor(at / tokens) + 0.57, short(weight), SMALLEST, { style }));
    });
  }

  return { node: map.node, paint, entry, light: (i, j) => set(entry, { x: j, y: i }) };
}

// Of many tokens every eighth has its name.
function is_named(t, tokens) {
  return tokens <= MOST_NAMED || t === 0 || (t + 1) % 8 === 0;
}
