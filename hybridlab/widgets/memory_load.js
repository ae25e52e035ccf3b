// On the left what each memory answers, on the right how many it gets right, and which.

const MEMORIES = { list: "list", sum: "sum", fading: "fading sum", delta: "delta rule", gated: "gated delta" };
const FADING = ["fading", "gated"], CORRECTING = ["delta", "gated"]; // which memories decay and beta are for
const VALUES = 16, NOT_SURE = -1, LEAST_LEAD = 1e-9, HELD = 0.9, FLOAT = 4;
const LOOKS = Object.fromEntries(Object.keys(MEMORIES).map((memory, at) => [memory, SERIES[at]]));

function draw(page) {
  const phone = phone_books(page.inputs);
  const { pairs: most } = phone;
  const replies = draw_replies();
  const shares = draw_shares(page, most);
  const strips = draw_strips(page, most);
  page.stage.append(
    html("div", { class: "hl-panel" }, figure("each memory's scores, on a scale of its own", page.picture(replies.node))),
    html("div", { class: "hl-panel" },
      figure(`pairs answered right, of all that were written: mean of ${phone.books} books`, shares.node),
      figure("which pairs of the first book are answered right", strips.node)),
  );

  return (view) => {
    const { pairs, asked } = view;
    const width = Number(view.width);
    const number = asked <= pairs ? phone.number(0, asked - 1) : null;
    const slip = number !== null && view.corrected ? phone.slip(0, asked - 1) : null;
    const found = Object.keys(MEMORIES).filter((memory) => view[memory]).map((memory) => {
      const rules = {
        memory, width, corrected: view.corrected, orthogonal: view.orthogonal,
        decay: FADING.includes(memory) ? view.decay : 1,
        beta: CORRECTING.includes(memory) ? view.beta : 1,
      };
      const scores = phone.scores(rules, pairs);
      const right = Array.from({ length: pairs }, (_, i) => answer(scores, i) === phone.number(0, i));
      const counts = phone.right(rules);
      return {
        memory, right, counts,
        scores: scores.subarray((asked - 1) * VALUES, asked * VALUES),
        reply: answer(scores, asked - 1),
        ends: capacity_ends(counts, phone.books),
        bytes: size(FLOAT * (memory === "list" ? pairs * (view.corrected ? 2 : 1) * (width + VALUES) : width * VALUES)),
      };
    });
    replies.show(found, number, slip);
    shares.show(found, phone.books, pairs);
    strips.show(found, pairs, asked);
    return { text: sentence(found, view, number), readout: facts(found, phone.books, pairs, number) };
  };
}

function figure(caption, node) {
  return html("figure", { style: "margin: 0 0 0.6rem" }, html("figcaption", {}, caption), node);
}

// ---------------------------------------------------------------- the numbers (memory_load.py has the same)

function phone_books(inputs) {
  const [keys, numbers, slips] = [inputs.keys, inputs.numbers, inputs.slips].map(unpack);
  const [books, pairs, widest] = keys.shape;
  const alike = new Map(), known = new Map();

  // k_i . k_j of the unit keys; whole numbers until the last step, so that Python gets the same bits.
  function likeness(book, width) {
    const key = `${book} ${width}`;
    if (alike.has(key)) return alike.get(key);
    const dots = new Float64Array(pairs * pairs);
    for (let i = 0; i < pairs; i++) {
      for (let j = 0; j <= i; j++) {
        const [left, right] = [(book * pairs + i) * widest, (book * pairs + j) * widest];
        let dot = 0;
        for (let c = 0; c < width; c++) dot += keys.values[left + c] * keys.values[right + c];
        dots[i * pairs + j] = dots[j * pairs + i] = dot;
      }
    }
    const squares = Array.from({ length: pairs }, (_, i) => dots[i * (pairs + 1)]);
    const found = dots.map((dot, at) => dot / Math.sqrt(squares[Math.floor(at / pairs)] * squares[at % pairs]));
    alike.set(key, found);
    return found;
  }

  // The same of orthogonal keys, which are used again from pair width + 1 on.
  function shared_directions(width) {
    return Float64Array.from({ length: pairs * pairs }, (_, at) => (Math.floor(at / pairs) % width === (at % pairs) % width ? 1 : 0));
  }

  // Scores (pairs, VALUES) of every key after the first `last` pairs; `seen` gets them after each.
  function written({ memory, width, decay, corrected, beta, orthogonal }, book, last, seen = () => {}) {
    const near = orthogonal ? shared_directions(width) : likeness(book, width);
    const weights = memory === "list" ? near.map((x) => Math.exp(Math.sqrt(width) * (x - 1))) : near;
    const scores = new Float64Array(pairs * VALUES);
    const news = new Float64Array(VALUES);
    for (let pair = 0; pair < last; pair++) {
      for (const source of corrected ? [slips, numbers] : [numbers]) {
        const value = source.values[book * pairs + pair];
        if (FADING.includes(memory)) for (let at = 0; at < scores.length; at++) scores[at] *= decay;
        if (CORRECTING.includes(memory)) {
          for (let v = 0; v < VALUES; v++) news[v] = beta * ((v === value ? 1 : 0) - scores[pair * VALUES + v]);
          for (let i = 0; i < pairs; i++) {
            for (let v = 0; v < VALUES; v++) scores[i * VALUES + v] += weights[i * pairs + pair] * news[v];
          }
        } else {
          for (let i = 0; i < pairs; i++) scores[i * VALUES + value] += weights[i * pairs + pair];
        }
      }
      seen(scores, pair);
    }
    return scores;
  }

  function scores(rules, last) {
    const found = written(rules, 0, last);
    if (rules.memory !== "list") return found;
    for (let i = 0; i < pairs; i++) {
      const row = found.subarray(i * VALUES, (i + 1) * VALUES);
      const sum = row.reduce((sum, x) => sum + x, 0);
      row.forEach((x, v) => { row[v] = x / sum; });
    }
    return found;
  }

  // How many of all pairs written so far are answered right after each pair, over all books.
  function right(rules) {
    const key = Object.values(rules).join(" ");
    if (known.has(key)) return known.get(key);
    const counts = new Int32Array(pairs);
    for (let book = 0; book < books; book++) {
      written(rules, book, pairs, (scores, last) => {
        for (let i = 0; i <= last; i++) counts[last] += answer(scores, i) === numbers.values[book * pairs + i];
      });
    }
    known.set(key, counts);
    return counts;
  }

  const of = (source) => (book, pair) => source.values[book * pairs + pair];
  return { books, pairs, scores, right, number: of(numbers), slip: of(slips) };
}

// The value with the highest score in row i, NOT_SURE where none leads.
function answer(scores, i) {
  let best = 0, first = -Infinity, second = -Infinity, largest = 0;
  for (let v = 0; v < VALUES; v++) {
    const score = scores[i * VALUES + v];
    largest = Math.max(largest, Math.abs(score));
    if (score > first) {
      second = first;
      first = score;
      best = v;
    } else if (score > second) {
      second = score;
    }
  }
  return first - second > LEAST_LEAD * largest ? best : NOT_SURE;
}

function capacity_ends(counts, books) {
  const at = counts.findIndex((count, n) => count < HELD * books * (n + 1));
  return at < 0 ? null : at + 1;
}

// ---------------------------------------------------------------- the words

const reply_text = (reply) => (reply === NOT_SURE ? "undecided" : String(reply));

function sentence(found, { pairs, asked, width, orthogonal }, number) {
  const keys = `${orthogonal ? "orthogonal " : ""}keys of width ${width}`;
  const pair = number === null ? `Pair ${asked} was never written` : `Pair ${asked} has number ${number}`;
  const said = found.map(({ memory, reply }) => `the ${MEMORIES[memory]} ${reply_text(reply)}`).join(", ");
  return `${pairs} pair${pairs === 1 ? "" : "s"}, ${keys}. ${pair}; ${said ? `answers: ${said}` : "no memory is shown"}.`;
}

function facts(found, books, pairs, number) {
  return Object.fromEntries(found.map(({ memory, scores, reply, right, counts, ends, bytes }) => [MEMORIES[memory], [
    reply_text(reply) + verdict(scores, reply, number),
    `${right.filter(Boolean).length} of ${pairs} right`,
    `${short((100 * counts[pairs - 1]) / (books * pairs))} % on average`,
    ends === null ? `90 % and more up to n = ${counts.length}` : `under 90 % from n = ${ends}`,
    bytes,
  ].join("; ")]));
}

function verdict(scores, reply, number) {
  if (number === null) return `, best score ${short(Math.max(...scores))}`;
  const other = Math.max(...scores.filter((_, v) => v !== number));
  return `, ${reply === number ? "right" : "wrong"}: ${short(scores[number])} against ${short(other)}`;
}

// ---------------------------------------------------------------- the pictures

const pen = (memory) => ({ stroke: LOOKS[memory].colour, "stroke-dasharray": LOOKS[memory].dash, "stroke-width": 2, fill: "none" });
const words = (x, y, text, more = {}) => svg("text", { x, y, "font-size": 12, ...more }, text);

const BAR = { step: 25, width: 17, height: 46, row: 80, top: 24 };

function draw_replies() {
  const node = svg("svg");

  function show(found, number, slip) {
    const foot = BAR.row * found.length;
    set(node, { viewBox: `0 0 ${BAR.step * VALUES} ${foot + (slip === null ? 30 : 44)}` });
    node.replaceChildren(...found.map((one, at) => row(one, BAR.row * at, number)));
    for (let v = 0; v < VALUES; v++) node.append(under(v, foot + 10, v, v === number ? 700 : 400));
    if (number !== null) node.append(under(number, foot + 25, "right", 700));
    if (slip !== null) node.append(under(slip, foot + 39, "slip", 400)); // a line of its own: the two can be neighbours
  }

  function under(value, y, text, weight) {
    return words((value + 0.5) * BAR.step, y, text, { "text-anchor": "middle", "font-weight": weight });
  }

  function row({ memory, scores, reply, bytes }, y, number) {
    const group = svg("g", { class: `hl-${memory}` });
    const [high, low] = [Math.max(0, ...scores), Math.min(0, ...scores)];
    const unit = high > low ? BAR.height / (high - low) : 0;
    const zero = y + BAR.top + high * unit;
    if (number !== null) {
      const band = { x: number * BAR.step, y: y + BAR.top - 3, width: BAR.step, height: BAR.height + 6, rx: 3 };
      group.append(svg("rect", { ...band, fill: "currentColor", "fill-opacity": 0.13, class: "hl-right" }));
    }
    group.append(svg("path", { d: `M0 ${zero}H${BAR.step * VALUES}`, stroke: "currentColor", "stroke-opacity": 0.3 }));
    scores.forEach((score, v) => group.append(svg("rect", {
      x: v * BAR.step + (BAR.step - BAR.width) / 2, y: zero - Math.max(0, score) * unit, width: BAR.width, height: Math.abs(score) * unit,
      fill: LOOKS[memory].colour, "fill-opacity": v === reply ? 1 : 0.4, class: "hl-score",
    })));
    const outcome = number === null ? "" : reply === number ? ", right" : ", wrong";
    group.append(
      svg("path", { d: `M0 ${y + 10}H24`, ...pen(memory) }),
      words(30, y + 14, MEMORIES[memory], { "font-weight": 600 }),
      words(BAR.step * VALUES / 2, y + 14, reply_text(reply) + outcome, { "text-anchor": "middle" }),
      words(BAR.step * VALUES, y + 14, bytes, { "text-anchor": "end" }),
    );
    return group;
  }

  return { node, show };
}

const PLOT = { left: 42, step: 2.6, top: 30, foot: 186, wide: 460, gap: 14 };
const pair_x = (pair) => PLOT.left + (pair - 0.5) * PLOT.step;
const share_y = (share) => PLOT.foot - share * (PLOT.foot - PLOT.top);

function pair_at(node, event, most) {
  const box = node.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * PLOT.wide;
  return Math.max(1, Math.min(most, Math.floor((x - PLOT.left) / PLOT.step) + 1));
}

// Labels next to each other, none on top of another, none beyond `last`.
function apart(places, gap, last) {
  const order = places.map((place, at) => ({ place, at })).sort((a, b) => a.place - b.place);
  order.forEach((one, at) => { if (at) one.place = Math.max(one.place, order[at - 1].place + gap); });
  let limit = last;
  for (const one of order.reverse()) {
    one.place = Math.min(one.place, limit);
    limit = one.place - gap;
  }
  return order.reduce((found, { place, at }) => Object.assign(found, { [at]: place }), []);
}

function draw_shares(page, most) {
  const right_edge = pair_x(most) + PLOT.step / 2;
  const node = svg("svg", { viewBox: `0 0 ${PLOT.wide} ${PLOT.foot + 36}` });
  for (const share of [0, 0.5, HELD, 1]) {
    const faint = { stroke: "currentColor", "stroke-opacity": share === HELD ? 0.55 : 0.2, "stroke-dasharray": share === HELD ? "2 2" : "none" };
    node.append(svg("path", { d: `M${PLOT.left} ${share_y(share)}H${right_edge}`, ...faint }));
    node.append(words(PLOT.left - 5, share_y(share) + 4, `${100 * share} %`, { "text-anchor": "end" }));
  }
  for (const pair of [1, most / 4, most / 2, (3 * most) / 4, most]) {
    node.append(words(pair_x(pair), PLOT.foot + 15, pair, { "text-anchor": "middle" }));
  }
  node.append(words((PLOT.left + right_edge) / 2, PLOT.foot + 31, "pairs written", { "text-anchor": "middle" }));
  const layer = svg("g");
  node.append(layer);
  const pick = (event) => page.move({ pairs: pair_at(node, event, most) });
  node.addEventListener("pointerdown", pick);
  node.addEventListener("pointermove", (event) => { if (event.buttons) pick(event); });
  page.picture(node, {
    ArrowLeft: () => ({ pairs: page.view.pairs - 1 }),
    ArrowRight: () => ({ pairs: page.view.pairs + 1 }),
  });

  function show(found, books, pairs) {
    const share = (counts, pair) => counts[pair - 1] / (books * pair);
    const names = apart(found.map(({ counts }) => share_y(share(counts, most))), PLOT.gap, PLOT.foot - 4);
    const ending = found.filter(({ ends }) => ends !== null);
    const ends = apart(ending.map(({ ends }) => pair_x(ends)), 26, right_edge);
    layer.replaceChildren(svg("path", { d: `M${pair_x(pairs)} ${PLOT.top - 4}V${PLOT.foot}`, stroke: "currentColor", class: "hl-now" }));
    found.forEach(({ memory, counts }, at) => {
      const points = Array.from(counts, (_, n) => `${pair_x(n + 1)} ${share_y(share(counts, n + 1))}`);
      layer.append(
        svg("path", { d: `M${points.join("L")}`, ...pen(memory), class: `hl-${memory}` }),
        svg("circle", { cx: pair_x(pairs), cy: share_y(share(counts, pairs)), r: 3.5, fill: LOOKS[memory].colour }),
        words(right_edge + 6, names[at] + 4, MEMORIES[memory]),
      );
    });
    ending.forEach(({ memory, ends: end }, at) => {
      const [x, y] = [pair_x(end), share_y(HELD)];
      const r = 3.5 + 3 * ending.slice(0, at).filter(({ ends }) => ends === end).length; // a ring around the ring that is there
      layer.append(
        svg("path", { d: `M${ends[at]} 14L${x} ${y - r}`, stroke: LOOKS[memory].colour, "stroke-opacity": 0.7 }),
        svg("circle", { cx: x, cy: y, r, fill: "none", stroke: LOOKS[memory].colour, "stroke-width": 2 }),
        words(ends[at], 11, end, { "text-anchor": "middle", class: "hl-end" }),
      );
    });
  }

  return { node, show };
}

const STRIP = { row: 19, height: 14 };

function draw_strips(page, most) {
  const node = svg("svg");
  const pick = (event) => page.move({ asked: pair_at(node, event, most) });
  node.addEventListener("pointermove", pick);
  node.addEventListener("pointerdown", pick);
  page.picture(node, {
    ArrowLeft: () => ({ asked: page.view.asked - 1 }),
    ArrowRight: () => ({ asked: page.view.asked + 1 }),
  });

  function cells(right, wanted, y) {
    return right.map((is, i) => (is === wanted ? `M${pair_x(i + 1) - PLOT.step / 2} ${y}h${PLOT.step}v${STRIP.height}h-${PLOT.step}z` : "")).join("");
  }

  function show(found, pairs, asked) {
    const foot = 4 + STRIP.row * found.length;
    const x = pair_x(asked);
    set(node, { viewBox: `0 0 ${PLOT.wide} ${foot + 20}` });
    node.replaceChildren();
    found.forEach(({ memory, right }, at) => {
      const y = 4 + STRIP.row * at;
      node.append(
        svg("path", { d: cells(right, true, y), fill: LOOKS[memory].colour, class: `hl-${memory}` }),
        svg("path", { d: cells(right, false, y), fill: "currentColor", "fill-opacity": 0.12 }),
        words(pair_x(most) + PLOT.step / 2 + 6, y + 11, MEMORIES[memory]),
      );
    });
    node.append(
      svg("path", { d: `M${x - 5} ${foot + 8}L${x} ${foot}L${x + 5} ${foot + 8}Z`, fill: "currentColor", class: "hl-asked" }),
      svg("path", { d: `M${x} ${foot}V2`, stroke: "currentColor", "stroke-opacity": 0.6 }),
      words(asked > most / 2 ? x - 9 : x + 9, foot + 11, `pair ${asked}${asked > pairs ? ", never written" : ""}`, {
        "text-anchor": asked > most / 2 ? "end" : "start",
      }),
    );
  }

  return { node, show };
}
