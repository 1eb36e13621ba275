// SPDX-License-Identifier: MIT
// A canvas that is as sharp as the screen, is drawn once a frame at most, and again when its size or the theme changes.

function canvasIn(host, label, height, draw) {
  const canvas = element('canvas', { tabindex: '0', role: 'img', 'aria-label': label });
  replace(host, element('div', { class: 'chart' }, canvas));
  const context = canvas.getContext('2d');
  const made = { canvas, context, width: 0, height: 0, ratio: 1 };
  let due = false;
  const paint = () => {
    due = false;
    const ratio = Math.min(window.devicePixelRatio || 1, 2), width = canvas.clientWidth;
    if (width === 0) return;
    Object.assign(made, { width, height: typeof height === 'function' ? height(width) : height, ratio });
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(made.height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(made.height * ratio);
      canvas.style.height = made.height + 'px';
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, made.height);
    context.font = '12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';
    draw(made);
  };
  made.redraw = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(paint);
  };
  new ResizeObserver(() => { if (canvas.clientWidth !== made.width) made.redraw(); }).observe(canvas);
  redraws.push(made.redraw);
  made.redraw();
  return made;
}

// Drag, wheel and pinch-free buttons: handlers get fractions of the plot and pixels.
function onDrag(canvas, { move, tap, hover, leave }) {
  let from = null, far = false;
  const place = event => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener('pointerdown', event => { from = place(event); far = false; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener('pointermove', event => {
    const at = place(event);
    if (from === null) { hover(...at); return; }
    if (Math.hypot(at[0] - from[0], at[1] - from[1]) > 4 || far) {
      far = true;
      move(at[0] - from[0], at[1] - from[1]);
      from = at;
    }
  });
  canvas.addEventListener('pointerup', event => { if (from !== null && !far) tap(...place(event)); from = null; });
  canvas.addEventListener('pointercancel', () => { from = null; });
  canvas.addEventListener('pointerleave', () => { if (from === null) leave(); });
}

// The wheel is the page's until somebody has clicked the canvas, so that nobody who scrolls by is caught in it.
function onWheel(canvas, act) {
  canvas.addEventListener('wheel', event => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    act(event);
  }, { passive: false });
}

function buttons(host, entries) {
  for (const [id, text, label, act] of entries) host.append(element('button', { type: 'button', id, text, 'aria-label': label, title: label, on: { click: act } }));
}

function keyHelp(...pairs) {
  const p = element('p', { class: 'keys' });
  pairs.forEach(([keys, what], i) => {
    if (i) p.append(' · ');
    for (const key of keys.split(' ')) p.append(element('kbd', { text: key }), ' ');
    p.append(what);
  });
  return p;
}
