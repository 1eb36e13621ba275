// SPDX-License-Identifier: MIT
// The map of one head: queries down, keys across. It is painted a pixel at a time: a pixel shows the heaviest of the weights
// that it covers, so a spike never vanishes however far away one is, and a frame costs what is in view.

function attentionMap(host, pickQuery) {
  const MARGIN = 68, TOP = 22, CELL_MAX = 30;
  let part = null, reader = null, x0 = 0, y0 = 0, kx = 1, ky = 1, at = null, pinned = false, whole = true;
  const tall = width => !reader ? 300 : Math.max(160, Math.min(width < 560 ? 380 : 520, TOP + reader.rows * CELL_MAX + 6));
  const view = canvasIn(host, 'Attention map: queries down, keys across', tall, draw);
  const readout = element('p', { class: 'readout', role: 'status' }), notes = element('div');
  host.append(keyHelp(['← → ↑ ↓', 'move the cell'], ['Enter', 'read its query below'], ['+ −', 'zoom'], ['0', 'all'], ['click wheel', 'zoom'], ['drag', 'move']), readout, notes);
  const fitX = () => Math.min(CELL_MAX, (view.width - MARGIN - 4) / reader.columns), fitY = () => Math.min(CELL_MAX, (view.height - TOP - 4) / reader.rows);

  function paint(c) {
    const ratio = view.ratio, w = Math.floor((view.width - MARGIN) * ratio), h = Math.floor((view.height - TOP) * ratio);
    if (w < 1 || h < 1) return;
    const image = c.createImageData(w, h), words = new Uint32Array(image.data.buffer), colours = ramp().words, line = new Float32Array(w);
    const px = kx * ratio, py = ky * ratio;
    let before = -1, beforeEnd = -1;
    for (let y = 0; y < h; y++) {
      const r0 = Math.floor(y0 + y / py), r1 = Math.min(reader.rows, Math.max(r0 + 1, Math.floor(y0 + (y + 1) / py)));
      if (r0 >= reader.rows) break;
      if (r0 === before && r1 === beforeEnd) {
        words.copyWithin(y * w, (y - 1) * w, y * w);
        continue;
      }
      before = r0;
      beforeEnd = r1;
      line.fill(-1);
      for (let r = r0; r < r1; r++) {
        const seen = Math.min(w, Math.ceil(((reader.sparse ? reader.positions[r] + 1 : reader.cells[r]) - x0) * px));
        for (let x = 0; x < seen; x++) if (line[x] < 0) line[x] = 0;
        reader.each(r, (key, weight) => {
          const from = Math.floor((key - x0) * px);
          if (from >= w) return;
          const to = Math.min(w, Math.max(from + 1, Math.floor((key + 1 - x0) * px))), shade = reader.shade(weight);
          for (let x = Math.max(0, from); x < to; x++) if (shade > line[x]) line[x] = shade;
        });
      }
      for (let x = 0; x < w; x++) if (line[x] >= 0) words[y * w + x] = colours[Math.min(255, Math.round(line[x] * 255))];
    }
    c.putImageData(image, Math.round(MARGIN * ratio), Math.round(TOP * ratio));
  }

  const keyOf = cell => cell * reader.pool;
  const clip = (c, text, most) => { let t = text; while (t.length > 1 && c.measureText(t + '…').width > most) t = t.slice(0, -1); return t === text ? t : t + '…'; };

  function labels(c) {
    c.fillStyle = colour('muted');
    c.textAlign = 'right';
    const skip = Math.max(1, Math.ceil(14 / ky));
    for (let r = Math.ceil(y0 / skip) * skip; r < reader.rows; r += skip) {
      const y = TOP + (r + 0.5 - y0) * ky;
      if (y < TOP + 4 || y > view.height - 2) continue;
      const position = reader.positions[r], text = tokenText(part, position);
      c.fillText(clip(c, ky >= 13 && !missing(text) ? text.replace(/\n/g, '⏎') : String(position), MARGIN - 10), MARGIN - 6, y + 4);
    }
    c.textAlign = 'center';
    const skipX = Math.max(1, Math.ceil(38 / kx));
    for (let k = Math.ceil(x0 / skipX) * skipX; k < reader.columns; k += skipX) {
      const x = MARGIN + (k + 0.5 - x0) * kx;
      if (x > view.width - 8) break;
      if (x >= MARGIN) c.fillText(String(keyOf(k)), x, 14);
    }
  }

  function draw() {
    if (!reader) return;
    const c = view.context;
    if (whole) [kx, ky] = [fitX(), fitY()];
    paint(c);
    labels(c);
    view.canvas.dataset.zoom = kx / fitX();
    if (at) {
      c.save();
      c.beginPath();
      c.rect(MARGIN, TOP, view.width - MARGIN, view.height - TOP);
      c.clip();
      c.strokeStyle = colour('mark');
      c.lineWidth = 1.5;
      c.strokeRect(MARGIN + (at.key - x0) * kx - 1, TOP + (at.row - y0) * ky - 1, Math.max(kx, 3) + 2, Math.max(ky, 3) + 2);
      c.restore();
    }
  }

  function limit() {
    if (whole) [kx, ky] = [fitX(), fitY()];
    kx = Math.min(Math.max(kx, fitX()), Math.max(40, fitX()));
    ky = Math.min(Math.max(ky, fitY()), Math.max(40, fitY()));
    x0 = Math.min(Math.max(0, x0), Math.max(0, reader.columns - (view.width - MARGIN) / kx));
    y0 = Math.min(Math.max(0, y0), Math.max(0, reader.rows - (view.height - TOP) / ky));
    view.redraw();
  }

  function zoom(by, px = view.width / 2, py = view.height / 2) {
    whole = false;
    const cx = x0 + (px - MARGIN) / kx, cy = y0 + (py - TOP) / ky;
    kx = Math.min(Math.max(kx * by, fitX()), Math.max(40, fitX()));
    ky = Math.min(Math.max(ky * by, fitY()), Math.max(40, fitY()));
    x0 = cx - (px - MARGIN) / kx;
    y0 = cy - (py - TOP) / ky;
    limit();
  }

  function say() {
    if (!at) {
      readout.textContent = 'Point at the map, or focus it and press the arrow keys, to read a weight.';
      return;
    }
    const weight = reader.row(at.row).get(at.key), n = reader.pool, query = reader.positions[at.row], key = keyOf(at.key);
    const seen = reader.sparse ? at.key <= query : at.key < reader.cells[at.row];
    const value = weight !== undefined ? number(weight, 4) : !seen ? 'not seen' : part.format === 'summary' ? 'not its heaviest key' : 'not among its ' + part.top_k + ' heaviest';
    const gap = column(part.gaps)[query + 1];
    if (n === 1 && reader.chosen(at.row)) {
      readout.textContent = 'Query ' + tokenName(part, query) + ' → number ' + (at.key + 1) + ' of the ' + reader.cells[at.row] + ' keys that it could see: ' + value + '.';
      return;
    }
    readout.textContent = n > 1
      ? 'Queries ' + query + ' to ' + (query + n - 1) + ', keys ' + key + ' to ' + (key + n - 1) + ': at most ' + value + '.'
      : 'Query ' + tokenName(part, query) + ' → key ' + tokenName(part, key) + ': ' + (weight !== undefined ? MEASURES[part.measure] + ' ' : '') + value + '.'
        + (missing(gap) ? '' : ' The token it predicted came ' + duration(gap) + ' after the one before.');
  }

  function put(row, key, scroll) {
    at = { row: Math.min(Math.max(0, row), reader.rows - 1), key: Math.min(Math.max(0, key), reader.columns - 1) };
    if (scroll) {
      const across = (view.width - MARGIN) / kx, down = (view.height - TOP) / ky;
      if (at.key < x0 || at.key + 1 > x0 + across) x0 = at.key - across / 2;
      if (at.row < y0 || at.row + 1 > y0 + down) y0 = at.row - down / 2;
    }
    say();
    limit();
  }

  const cellAt = (px, py) => [Math.floor(y0 + (py - TOP) / ky), Math.floor(x0 + (px - MARGIN) / kx)];
  onDrag(view.canvas, {
    hover(px, py) {
      if (!reader) return;
      const [row, key] = cellAt(px, py);
      if (px >= MARGIN && py >= TOP && row < reader.rows && key < reader.columns) { pinned = false; put(row, key, false); }
    },
    leave() { if (!pinned && document.activeElement !== view.canvas) { at = null; say(); view.redraw(); } },
    tap(px, py) { const [row, key] = cellAt(px, py); if (px >= MARGIN && py >= TOP && row < reader.rows && key < reader.columns) { pinned = true; put(row, key, false); pickQuery(at.row); } },
    move(dx, dy) { x0 -= dx / kx; y0 -= dy / ky; limit(); },
  });
  onWheel(view.canvas, event => zoom(Math.exp(-Math.max(-200, Math.min(200, event.deltaY)) * 0.003), event.offsetX, event.offsetY));
  const all = () => { whole = true; x0 = y0 = 0; view.redraw(); };
  const step = (rows, keys) => () => { pinned = true; if (at) put(at.row + rows, at.key + keys, true); else put(reader.rows - 1, 0, true); };
  const acts = {
    ArrowLeft: step(0, -1), ArrowRight: step(0, 1), ArrowUp: step(-1, 0), ArrowDown: step(1, 0), '+': () => zoom(1.5), '=': () => zoom(1.5), '-': () => zoom(1 / 1.5), 0: all,
    Enter: () => { if (at) pickQuery(at.row); }, Escape: () => { at = null; pinned = false; say(); view.redraw(); },
  };
  view.canvas.addEventListener('keydown', event => {
    if (!reader || !acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    acts[event.key]();
  });
  buttons(byId('attention-buttons'), [['attention-in', '+', 'Zoom in', acts['+']], ['attention-out', '−', 'Zoom out', acts['-']], ['attention-all', 'All', 'Show the whole map', all]]);
  return {
    show(newPart, newReader) {
      const same = newPart === part;
      part = newPart;
      reader = newReader;
      if (!same) {
        at = null;
        x0 = y0 = 0;
        whole = true;
        replace(notes, ...(part.pool > 1 ? [note('This trace is long: a cell is the largest of ' + part.pool + ' × ' + part.pool + ' weights. The weights themselves are in the table attention_weights.')] : []),
          ...(part.dropped > 0 ? [note('The KV cache had dropped keys of ' + count(part.dropped, 'query', 'queries') + '. Columns of those rows are the keys that were left, in their order, not positions.')] : []),
          ...(part.every > 1 ? [note('This trace is long: one position in ' + part.every + ' is shown.')] : []));
      }
      say();
      view.redraw();
    },
    go: (row, key) => put(row, key, true),
  };
}

// The tokens of a request in a row, shaded by what one query saw of them.
function tokenStrip(host, pickQuery) {
  const PAGE = 256;
  const box = element('div', { class: 'strip', role: 'group', 'aria-label': 'Tokens, shaded by the weight of each as a key' }), readout = element('p', { class: 'readout', role: 'status' });
  let part = null, reader = null, row = 0, page = 0, weights = new Map();
  const paging = element('span', { class: 'buttons' });
  replace(host, box, readout, paging);
  const weightOf = position => reader.chosen(row) ? undefined : weights.get(Math.floor(position / reader.pool));
  const say = position => {
    const w = weightOf(position), query = reader.positions[row];
    return 'Query ' + tokenName(part, query) + ' → ' + tokenName(part, position) + ': '
      + (w !== undefined ? number(w, 4) : position > query ? 'later than the query' : 'not recorded') + '.';
  };
  function fill() {
    const colours = ramp(), query = reader.positions[row], last = reader.columns * reader.pool, end = Math.min(last, (page + 1) * PAGE), list = [];
    for (let p = page * PAGE; p < end; p++) {
      const text = tokenText(part, p), w = weightOf(p), shade = w === undefined ? 0 : reader.shade(w);
      const made = element('button', { type: 'button', tabindex: '-1', 'data-position': p, class: p === query ? 'query' : p > query ? 'unseen' : null,
        text: missing(text) ? ' ' + p + ' ' : text.replace(/\n/g, '⏎\n'), 'aria-label': 'token ' + tokenName(part, p) + (w === undefined ? '' : ', ' + number(w, 3)) });
      if (shade > 0.02) {
        made.style.background = colours.css(shade);
        made.style.color = colours.text(shade);
      }
      list.push(made);
    }
    replace(box, ...list);
    (list.find(b => Number(b.dataset.position) === query) || list[0])?.setAttribute('tabindex', '0');
    byId('attention-strip-lead').textContent = 'Shaded by what the query at ' + tokenName(part, query) + ' (underlined) looked at. Choose another token to make it the query.'
      + (reader.chosen(row) ? ' Its keys were chosen by the KV cache, and which they are is not recorded: nothing is shaded.' : '')
      + (part.tokens.every(missing) ? ' The tokens\' text is not recorded; numbers are positions.' : part.tokens.slice(0, 1).every(missing) ? ' The prompt\'s text is not recorded (trace = { tokens = "all" } does); numbers are positions.' : '');
    readout.textContent = '';
    const pages = Math.ceil(last / PAGE);
    replace(paging);
    if (pages > 1) {
      const turn = by => () => { page = Math.min(Math.max(0, page + by), pages - 1); fill(); };
      buttons(paging, [['strip-before', '‹', 'Earlier tokens', turn(-1)], ['strip-after', '›', 'Later tokens', turn(1)]]);
      paging.append(element('span', { class: 'muted', text: ' tokens ' + page * PAGE + ' to ' + (end - 1) + ' of ' + number(last) }));
    }
  }
  const of = event => { const b = event.target.closest('[data-position]'); return b ? Number(b.dataset.position) : -1; };
  const query = position => { const r = firstWhere(reader.rows, i => reader.positions[i] >= position); return Math.min(r, reader.rows - 1); };
  box.addEventListener('pointerover', event => { if (of(event) >= 0) readout.textContent = say(of(event)); });
  box.addEventListener('focusin', event => { if (of(event) >= 0) readout.textContent = say(of(event)); });
  box.addEventListener('click', event => { const p = of(event); if (p >= 0) { pickQuery(query(p)); box.querySelector('[tabindex="0"]')?.focus(); } });
  box.addEventListener('keydown', event => {
    const move = { ArrowLeft: 'previousElementSibling', ArrowRight: 'nextElementSibling' }[event.key];
    if (!move || !event.target[move]) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    event.target[move].tabIndex = 0;
    event.target[move].focus();
  });
  return {
    show(newPart, newReader, newRow) {
      [part, reader, row] = [newPart, newReader, newRow];
      weights = reader.row(row);
      page = Math.floor(reader.positions[row] / PAGE);
      fill();
    },
    repaint() { if (reader) fill(); },
  };
}

function startAttention() {
  const section = byId('attention');
  const parts = report.attention.filter(part => part.positions.count > 0);
  if (parts.length === 0) {
    replace(section, section.querySelector('h2'), note('These runs recorded no attention; trace = { attention = "summary" } (or "top", "full") does, on a model that has heads.'));
    return;
  }
  const formats = { summary: 'the heaviest key of each query', top: 'the heaviest keys of each query', full: 'every weight' };
  let part = null, reader = null, head = 0, row = 0, repaintGrid = () => {};
  const map = attentionMap(byId('attention-map'), pickRow), strip = tokenStrip(byId('attention-strip'), pickRow);
  const partSelect = byId('attention-part'), figureSelect = byId('attention-figure');
  redraws.push(() => { repaintGrid(); strip.repaint(); });

  function pickRow(r) {
    row = r;
    strip.show(part, reader, row);
  }
  function pickHead(i) {
    head = i;
    reader = headReader(part, head);
    byId('attention-map-title').textContent = 'Layer ' + part.layers[Math.floor(i / part.heads.length)] + ', head ' + part.heads[i % part.heads.length];
    map.show(part, reader);
    strip.show(part, reader, row);
  }
  const drawGrid = () => { repaintGrid = headGrid(byId('attention-heads'), part, figureSelect.value, head, pickHead); };
  function open() {
    part = parts[Number(partSelect.value)];
    const known = Object.keys(HEAD_FIGURES).filter(key => part.means && column(part.means[key]).some(v => !Number.isNaN(v)));
    choose(figureSelect, known.map(key => [key, HEAD_FIGURES[key].name]), known.includes('first_mass') ? 'first_mass' : known[0]);
    figureSelect.parentElement.hidden = known.length === 0;
    byId('attention-lead').textContent = 'Means of the heads are over all ' + count(part.rows, 'probed query', 'probed queries') + ' but position 0. The map has ' + formats[part.format] + (part.measure === 'weight' ? ', shaded by √weight.' : ' (' + MEASURES[part.measure] + ').');
    head = 0;
    if (known.includes('first_mass')) { // not a sink: those are alike
      let least = Infinity;
      column(part.means.first_mass).forEach((v, i) => { if (v < least) { least = v; head = part.layers.indexOf(column(part.means.layer)[i]) * part.heads.length + part.heads.indexOf(column(part.means.head)[i]); } });
    }
    row = column(part.positions).length - 1;
    drawGrid();
    pickHead(head);
  }
  choose(partSelect, parts.map((p, i) => [i, 'run ' + p.run + ' · request ' + p.request + ' · probe ' + p.probe + ' (' + p.format + (p.measure === 'weight' ? '' : ', ' + p.measure) + ', ' + count(p.layers.length, 'layer') + ' × ' + count(p.heads.length, 'head') + ')']), 0);
  if (report.attention_left_out > 0) section.append(note('Attention of ' + count(report.attention_left_out, 'more request') + ' is in the database and not here: the page would be slow. Name requests with --request to have them.'));
  partSelect.addEventListener('change', open);
  figureSelect.addEventListener('change', drawGrid);
  open();
}
