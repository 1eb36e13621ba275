// SPDX-License-Identifier: MIT
// The data of the page, elements, and numbers as people read them.
// Text from the database is only ever handed to text nodes and attributes, never parsed as markup.

const report = JSON.parse(document.getElementById('data').textContent);
const NONE = 0xffffffff; // NULL in a column of u32

const decoded = new Map();

// The numbers behind a reference: typed arrays, decoded when first asked for.
function column(reference) {
  let found = decoded.get(reference.column);
  if (!found) {
    const text = atob(document.getElementById('column-' + reference.column).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    found = reference.type === 'u8' ? bytes : reference.type === 'f32' ? new Float32Array(bytes.buffer) : new Uint32Array(bytes.buffer);
    decoded.set(reference.column, found);
  }
  return found;
}

// Half precision, by a table.
let halves = null;
function halfTable() {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let h = 0; h < 65536; h++) {
    const e = h >> 10 & 31, m = h & 1023;
    const v = e === 0 ? m * 2 ** -24 : e === 31 ? (m ? NaN : Infinity) : (1 + m / 1024) * 2 ** (e - 15);
    halves[h] = h & 0x8000 ? -v : v;
  }
  return halves;
}

const byId = id => document.getElementById(id);

// element('td', { class: 'number', text: '4', on: { click } }, child, …)
function element(name, attributes = {}, ...children) {
  const made = name.startsWith('svg:') ? document.createElementNS('http://www.w3.org/2000/svg', name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'text') made.textContent = value;
    else if (key === 'on') for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children);
  return made;
}

function replace(host, ...children) {
  host.replaceChildren(...children);
}

const missing = x => x === null || x === undefined || Number.isNaN(x);

// Four digits, thousands apart, whole numbers whole: 0.01234, 12.34, 12 345.
function number(x, digits = 4) {
  if (missing(x)) return '–';
  if (x === 0) return '0';
  if (Number.isInteger(x) && Math.abs(x) < 1e15) return String(x).replace(/\B(?=(\d{3})+$)/g, '\u202f').replace('-', '−');
  const size = Math.abs(x);
  if (size >= 1e15 || size < 1e-6) return x.toExponential(2).replace('-', '−');
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  let [whole, part] = x.toFixed(Math.min(places, 10)).split('.');
  whole = whole.replace(/\B(?=(\d{3})+$)/g, '\u202f').replace('-', '−');
  return part ? whole + '.' + part : whole;
}

const count = (n, one, many = one + 's') => number(n) + ' ' + (n === 1 ? one : many);

// Milliseconds, in the unit that reads best.
function duration(ms) {
  if (missing(ms)) return '–';
  const size = Math.abs(ms);
  return size !== 0 && size < 1 ? number(ms * 1000, 3) + ' µs' : size < 10000 ? number(ms, 3) + ' ms' : number(ms / 1000, 4) + ' s';
}

const clipped = (text, most) => text.length > most ? text.slice(0, most - 1) + '…' : text;
const runName = run => run.label ? run.id + ' · ' + clipped(run.label, 48) : 'run ' + run.id;
const runById = id => report.runs.find(run => run.id === id);

function note(text) {
  return element('p', { class: 'note', text });
}

// A sentence when every n-th of something is shown.
const thinned = (what, total, every, remedy = '') => every > 1
  ? 'One ' + what + ' in ' + number(every) + ' (of ' + number(total) + ') is drawn here; all of them would make the page slow. ' + remedy : '';

// And when only steps of some seconds were asked for.
const windowed = () => report.window[1] === null ? '' : 'Only steps from ' + number(report.window[0]) + ' to ' + number(report.window[1]) + ' s are drawn, as --window asked.';

function choose(select, options, value) {
  replace(select, ...options.map(([key, text]) => element('option', { value: key, text })));
  if (value !== undefined) select.value = value;
}

// The index of the first item for which `after` holds, in an ordered list of n.
function firstWhere(n, after) {
  let low = 0, high = n;
  while (low < high) {
    const middle = low + high >> 1;
    if (after(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
