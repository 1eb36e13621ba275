// SPDX-License-Identifier: MIT
// Light, dark, or whatever the system says. What is drawn on a canvas asks for colours here, and is drawn again.

const themes = ['auto', 'light', 'dark'];
const redraws = [];
let theme = 'auto';
let colours = new Map();

function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim());
  return colours.get(name);
}

// Red, green, blue of '#rrggbb'.
function channels(name) {
  const hex = colour(name);
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
}

const systemDark = matchMedia('(prefers-color-scheme: dark)');

function applyTheme() {
  const dark = theme === 'dark' || (theme === 'auto' && systemDark.matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  byId('theme').textContent = 'Theme: ' + theme;
  byId('theme').setAttribute('aria-label', 'Theme: ' + theme + '. Switch to ' + themes[(themes.indexOf(theme) + 1) % 3]);
  colours = new Map();
  for (const redraw of redraws) redraw();
}

// A page that was opened from a file may have no storage.
function remembered(key, value) {
  try {
    if (value !== undefined) localStorage.setItem(key, value);
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function startTheme() {
  const before = remembered('lathe-theme');
  if (themes.includes(before)) theme = before;
  byId('theme').addEventListener('click', () => {
    theme = themes[(themes.indexOf(theme) + 1) % 3];
    remembered('lathe-theme', theme);
    applyTheme();
  });
  systemDark.addEventListener('change', applyTheme);
  applyTheme();
}

// Runs are told apart by colour and by dashes.
const dashes = ['', '7 3', '2 3', '9 3 2 3', '4 4', '12 4', '1 2', '6 2 1 2'];
const runColour = i => 'c' + i % 8;
const runDash = i => dashes[(i + (i >> 3)) % 8];
