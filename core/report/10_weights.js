// SPDX-License-Identifier: MIT
// Packed attention as the database has it (schemas/001_tables.sql), read a head at a time. Whatever the format, a row
// is walked the same way: each(row, (key cell, weight) => …), and says up to which cell its query could see.

const HEAD_FIGURES = {
  entropy: { name: 'entropy', unit: ' nats' }, first_mass: { name: 'mass on the first token', share: true }, recent_mass: { name: 'mass on recent tokens', share: true },
  self_mass: { name: 'mass on itself', share: true }, top_weight: { name: 'heaviest weight', share: true },
};
const MEASURES = { weight: 'weight', score: 'score before the softmax', value: 'weight × norm of the value' };

function headReader(part, head) {
  const positions = column(part.positions), cells = column(part.cells), data = column(part.data), heads = part.layers.length * part.heads.length;
  const pool = part.pool || 1, reader = { positions, cells, pool, rows: positions.length, sparse: part.format !== 'full' };
  const view = new DataView(data.buffer);
  const half = halfTable();
  if (part.format === 'full') {
    const offsets = new Float64Array(reader.rows + 1);
    for (let i = 0; i < reader.rows; i++) offsets[i + 1] = offsets[i] + cells[i] * heads;
    const words = new Uint16Array(data.buffer);
    reader.each = (i, f) => { for (let k = 0, at = offsets[i] + head * cells[i]; k < cells[i]; k++) f(k, half[words[at + k]]); };
  } else {
    const size = part.format === 'summary' ? 16 : part.top_k * 8, kept = part.format === 'summary' ? 1 : part.top_k;
    reader.each = (i, f) => {
      const at = (i * heads + head) * size;
      for (let k = 0; k < kept; k++) {
        const key = view.getUint32(part.format === 'summary' ? at + 12 : at + k * 8, true);
        if (key === NONE) return;
        f(key, part.format === 'summary' ? half[view.getUint16(at + 10, true)] : view.getFloat32(at + k * 8 + 4, true));
      }
    };
  }
  reader.columns = 1;
  for (let i = 0; i < reader.rows; i++) reader.columns = Math.max(reader.columns, reader.sparse ? positions[i] + 1 : cells[i]);
  reader.row = i => { const found = new Map(); reader.each(i, (key, w) => found.set(key, w)); return found; };
  // Had the KV cache dropped keys of this query? Cells of a whole row are then no positions.
  reader.chosen = i => !reader.sparse && cells[i] * pool < positions[i] + 1;
  // The range that colours are spread over; weights are of 1, so that heads compare.
  reader.least = 0;
  reader.most = 1;
  if (part.measure !== 'weight') {
    let least = Infinity, most = -Infinity;
    for (let i = 0; i < reader.rows; i++) reader.each(i, (_, w) => { if (w > -60000) { least = Math.min(least, w); most = Math.max(most, w); } });
    Object.assign(reader, { least: part.measure === 'score' ? least : 0, most: most > least ? most : least + 1 });
  }
  reader.shade = w => { const v = Math.min(1, Math.max(0, (w - reader.least) / (reader.most - reader.least))); return part.measure === 'score' ? v : Math.sqrt(v); };
  return reader;
}

// As WCAG defines it: of 0.18 and below white reads better than black.
const luminance = rgb => rgb.map(c => c / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);

// 256 colours from the page's ground to its accent, as little-endian RGBA and as CSS.
function ramp() {
  const from = channels('grid'), to = channels('accent'), deep = channels('ink'), words = new Uint32Array(256);
  const mix = (a, b, t) => Math.round(a + (b - a) * t);
  const at = v => v < 0.75 ? from.map((c, i) => mix(c, to[i], v / 0.75)) : to.map((c, i) => mix(c, deep[i], (v - 0.75) * 2));
  for (let i = 0; i < 256; i++) { const [r, g, b] = at(i / 255); words[i] = (255 << 24 | b << 16 | g << 8 | r) >>> 0; }
  return { words, css: v => { const [r, g, b] = at(Math.min(1, Math.max(0, v))); return `rgb(${r} ${g} ${b})`; }, text: v => luminance(at(Math.min(1, Math.max(0, v)))) < 0.18 ? '#ffffff' : '#111111' };
}

const tokenText = (part, position) => part.tokens[position];
const tokenName = (part, position) => missing(tokenText(part, position)) ? String(position) : position + ' “' + tokenText(part, position).replace(/\n/g, '⏎') + '”';

// The layers × heads, a button each, shaded by a mean. Arrow keys walk over it.
function headGrid(host, part, key, chosen, pick) {
  const readout = element('p', { class: 'readout', role: 'status' }), heads = part.heads.length;
  const grid = element('div', { class: 'heads', role: 'listbox', 'aria-label': 'Heads: layers down, heads across' });
  grid.style.gridTemplateColumns = `2.2rem repeat(${heads}, minmax(.7rem, 1fr))`;
  const values = new Float32Array(part.layers.length * heads).fill(NaN);
  if (key) {
    const layer = column(part.means.layer), head = column(part.means.head), of = column(part.means[key]);
    layer.forEach((l, i) => { values[part.layers.indexOf(l) * heads + part.heads.indexOf(head[i])] = of[i]; });
  }
  const known = values.filter(v => !Number.isNaN(v)), most = known.reduce((a, b) => Math.max(a, b), 0) || 1;
  const label = i => 'Layer ' + part.layers[Math.floor(i / heads)] + ', head ' + part.heads[i % heads]
    + (key && !Number.isNaN(values[i]) ? ': ' + HEAD_FIGURES[key].name + ' ' + number(values[i], 4) + (HEAD_FIGURES[key].unit || '') : '');
  const cells = [];
  grid.append(element('span', { 'aria-hidden': 'true' }), ...part.heads.map((h, i) => element('span', { class: 'top', 'aria-hidden': 'true', text: heads <= 16 || i % 4 === 0 ? String(h) : '' })));
  part.layers.forEach((layer, row) => {
    grid.append(element('span', { 'aria-hidden': 'true', text: String(layer) }));
    for (let c = 0; c < heads; c++) {
      const i = row * heads + c;
      cells.push(element('button', { type: 'button', role: 'option', tabindex: '-1', 'data-head': i, 'aria-label': label(i), 'data-value': Number.isNaN(values[i]) ? null : values[i] }));
      grid.append(cells[i]);
    }
  });
  const choose = i => {
    cells[chosen].setAttribute('aria-selected', 'false');
    cells[chosen].tabIndex = -1;
    chosen = i;
    cells[i].setAttribute('aria-selected', 'true');
    cells[i].tabIndex = 0;
    readout.textContent = label(i);
  };
  const paint = () => { const colours = ramp(); cells.forEach((cell, i) => { cell.style.background = Number.isNaN(values[i]) ? 'var(--grid)' : colours.css(values[i] / most); }); };
  const of = event => { const cell = event.target.closest('[data-head]'); return cell ? Number(cell.dataset.head) : -1; };
  grid.addEventListener('click', event => { const i = of(event); if (i >= 0) { choose(i); pick(i); } });
  grid.addEventListener('pointerover', event => { const i = of(event); if (i >= 0) readout.textContent = label(i); });
  grid.addEventListener('pointerleave', () => { readout.textContent = label(chosen); });
  grid.addEventListener('keydown', event => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -heads, ArrowDown: heads, Home: -chosen, End: cells.length - 1 - chosen }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    const i = chosen + move;
    if (i < 0 || i >= cells.length) return;
    choose(i);
    cells[i].focus();
    pick(i);
  });
  choose(chosen);
  paint();
  const scale = key ? element('p', { class: 'ramp', text: '0 ' }) : null;
  if (scale) {
    const bar = element('canvas', { width: '128', height: '1', 'aria-hidden': 'true' });
    scale.append(bar, number(most, 3) + (HEAD_FIGURES[key].unit || ''));
    scale.bar = bar;
  }
  const paintBar = () => { if (scale) { const c = scale.bar.getContext('2d'), colours = ramp(); for (let i = 0; i < 128; i++) { c.fillStyle = colours.css(i / 127); c.fillRect(i, 0, 1, 1); } } };
  paintBar();
  replace(host, grid, ...(scale ? [scale] : []), readout);
  return () => { paint(); paintBar(); };
}
