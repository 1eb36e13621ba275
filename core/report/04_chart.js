// SPDX-License-Identifier: MIT
// Curves over an axis, as SVG, with a cursor that the pointer or the arrow keys move and a sentence below that
// says what is under it.
//
// series: { name, colour, dash, xs, ys, low, high, fill, mark }: a staircase that holds ys[i] from xs[i] on; low and high
// are its band.

const ticksOf = (from, to, about) => {
  const raw = (to - from) / Math.max(1, about), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw) || power;
  const list = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) list.push(i * step);
  return list;
};

const logTicks = (from, to, about) => {
  const list = [], decades = Math.log10(to / from);
  const steps = decades > about ? [1] : decades > about / 3 ? [1, 3] : decades > about / 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  for (let e = Math.floor(Math.log10(from)); e <= Math.ceil(Math.log10(to)); e++) {
    for (const m of steps) {
      const v = m * 10 ** e;
      if (v >= from * 0.999 && v <= to * 1.001) list.push(v);
    }
  }
  return list.length > 3 ? list : ticksOf(from, to, about).filter(v => v > 0);
};

// SVG paths need no more than a point or two a pixel.
function stairs(xs, ys, x, y, left, right) {
  let d = '', column = -1, lowest = 0, highest = 0, last = null;
  const flush = () => { if (column >= 0 && highest !== lowest) d += `M${column} ${lowest}V${highest}M${column} ${last}`; };
  let first = firstWhere(xs.length, i => x(xs[i]) > left) - 1;
  if (first < 0) first = 0;
  for (let i = first; i < xs.length; i++) {
    const px = Math.round(Math.min(Math.max(x(xs[i]), left), right) * 2) / 2, py = Math.round(y(ys[i]) * 4) / 4;
    if (px === column) {
      lowest = Math.min(lowest, py, last);
      highest = Math.max(highest, py, last);
      last = py;
      continue;
    }
    flush();
    d += last === null ? `M${px} ${py}` : `H${px}V${py}`;
    column = px;
    lowest = last === null ? py : Math.min(py, last);
    highest = last === null ? py : Math.max(py, last);
    last = py;
    if (px >= right) break;
  }
  flush();
  return last === null ? '' : d + `H${right}`;
}

// A staircase's corners, one pair a half pixel: where it stood before and where it stands after.
function corners(xs, ys, x, y, left, right) {
  const points = [];
  for (let i = 0; i < xs.length; i++) {
    const px = Math.round(Math.min(Math.max(x(xs[i]), left), right) * 2) / 2, py = Math.round(y(ys[i]) * 4) / 4, last = points[points.length - 1];
    if (last && last[0] === px) last[1] = py;
    else points.push(...(last ? [[px, last[1]]] : []), [px, py]);
  }
  points.push([right, points[points.length - 1][1]]);
  return points;
}

const bandPath = (s, x, y, left, right) => 'M' + [...corners(s.xs, s.high, x, y, left, right), ...corners(s.xs, s.low, x, y, left, right).reverse()].map(p => p[0] + ' ' + p[1]).join('L') + 'Z';

function chart(host, label) {
  let options = null, at = null;
  const svg = element('svg:svg', { role: 'img', 'aria-label': label, tabindex: '0' });
  const readout = element('p', { class: 'readout', role: 'status' });
  const legend = element('div', { class: 'legend' });
  replace(host, element('div', { class: 'chart' }, svg), legend, readout);
  const scale = {};

  function measure() {
    const narrow = svg.clientWidth < 560;
    Object.assign(scale, { width: svg.clientWidth || 900, height: options.height || (narrow ? 280 : 360), left: 52, top: 12, bottom: 42 });
    scale.right = scale.width - 14;
    scale.floor = scale.height - scale.bottom;
    const [from, to] = options.x, log = options.log && from > 0;
    const a = log ? Math.log(from) : from, b = log ? Math.log(to) : to, span = b - a || 1;
    scale.x = v => scale.left + ((log ? Math.log(Math.max(v, from * 1e-3)) : v) - a) / span * (scale.right - scale.left);
    scale.back = px => { const v = a + (px - scale.left) / (scale.right - scale.left) * span; return log ? Math.exp(v) : v; };
    scale.y = v => scale.floor - (v - options.y[0]) / (options.y[1] - options.y[0] || 1) * (scale.floor - scale.top);
    scale.log = log;
  }

  function axes() {
    const parts = [], wide = scale.right - scale.left;
    for (const v of (scale.log ? logTicks : ticksOf)(options.x[0], options.x[1], wide / (wide < 500 ? 60 : 90))) {
      const px = scale.x(v);
      parts.push(element('svg:line', { class: 'grid', x1: px, x2: px, y1: scale.top, y2: scale.floor }),
        element('svg:text', { x: Math.min(px, scale.width - 1), y: scale.floor + 17, 'text-anchor': px > scale.right - 12 ? 'end' : 'middle', text: number(v, 3).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '') }));
    }
    for (const v of ticksOf(options.y[0], options.y[1], 5)) {
      parts.push(element('svg:line', { class: 'grid', x1: scale.left, x2: scale.right, y1: scale.y(v), y2: scale.y(v) }),
        element('svg:text', { x: scale.left - 7, y: scale.y(v) + 4, 'text-anchor': 'end', text: options.share ? Math.round(v * 100) + '%' : number(v, 3).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '') }));
    }
    parts.push(element('svg:line', { class: 'axis', x1: scale.left, x2: scale.right, y1: scale.floor, y2: scale.floor }),
      element('svg:text', { x: scale.right, y: scale.height - 6, 'text-anchor': 'end', text: options.name }));
    for (const v of options.lines || []) parts.push(element('svg:line', { class: 'axis', x1: scale.x(v), x2: scale.x(v), y1: scale.top, y2: scale.floor, 'stroke-dasharray': '3 3' }));
    return parts;
  }

  function curves() {
    const parts = [];
    for (const s of options.series) {
      if (s.low) parts.push(element('svg:path', { d: bandPath(s, scale.x, scale.y, scale.left, scale.right), fill: `var(--${s.colour})`, 'fill-opacity': '0.14' }));
      const d = stairs(s.xs, s.ys, scale.x, scale.y, scale.left, scale.right);
      parts.push(element('svg:path', { d, fill: 'none', stroke: `var(--${s.colour})`, 'stroke-width': '1.8', 'stroke-dasharray': s.dash || null, 'stroke-linejoin': 'round', 'data-series': s.name }));
    }
    return parts;
  }

  function cursor() {
    svg.querySelector('.cursor')?.remove();
    if (at === null) {
      readout.textContent = options.hint;
      return;
    }
    const px = Math.min(Math.max(scale.x(at), scale.left), scale.right);
    const group = element('svg:g', { class: 'cursor' }, element('svg:line', { class: 'axis', x1: px, x2: px, y1: scale.top, y2: scale.floor }));
    for (const s of options.series) {
      const i = firstWhere(s.xs.length, k => s.xs[k] > at) - 1;
      if (i >= 0) group.append(element('svg:circle', { cx: px, cy: scale.y(s.ys[i]), r: 3.5, fill: `var(--${s.colour})` }));
    }
    svg.append(group);
    readout.textContent = options.say(at);
  }

  function draw() {
    if (!options) return;
    measure();
    svg.setAttribute('viewBox', `0 0 ${scale.width} ${scale.height}`);
    svg.setAttribute('height', scale.height);
    replace(svg, ...axes(), ...curves());
    replace(legend, ...options.series.map(s => element('span', {}, swatch(s.colour, s.dash), s.name)));
    cursor();
  }

  svg.addEventListener('pointermove', event => {
    if (!options) return;
    const box = svg.getBoundingClientRect();
    at = Math.min(Math.max(scale.back(event.clientX - box.left), options.x[0]), options.x[1]);
    cursor();
  });
  svg.addEventListener('pointerleave', () => { if (options && document.activeElement !== svg) { at = null; cursor(); } });
  svg.addEventListener('keydown', event => {
    if (!options) return;
    const move = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
    const px = at === null ? (scale.left + scale.right) / 2 : scale.x(at);
    if (move) at = scale.back(px + move * (scale.right - scale.left) / 200);
    else if (event.key === 'Home' || event.key === 'End') at = options.x[event.key === 'Home' ? 0 : 1];
    else if (event.key === 'Escape') at = null;
    else return;
    event.preventDefault();
    if (at !== null) at = Math.min(Math.max(at, options.x[0]), options.x[1]);
    cursor();
  });
  new ResizeObserver(() => { if (options && svg.clientWidth !== scale.width) draw(); }).observe(svg);
  return { show(more) { options = more; at = null; draw(); } };
}

function swatch(name, dash) {
  return element('svg:svg', { width: '26', height: '10', viewBox: '0 0 26 10', 'aria-hidden': 'true' },
    element('svg:line', { x1: '0', x2: '24', y1: '5', y2: '5', stroke: `var(--${name})`, 'stroke-width': '2.5', 'stroke-dasharray': dash || null }));
}
