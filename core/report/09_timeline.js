// SPDX-License-Identifier: MIT
// The timeline. Far away it shows how many requests waited and ran; nearer, a bar a request; nearer still, which
// steps each was in. Only what is in view is looked at, and never more than a shape a pixel.

const STEP_BAND = 96, AXIS = 26, LANE_MIN = 5, LANE_MAX = 20, GAP = 10;

function startTimeline() {
  const section = byId('timeline'), runs = report.runs.filter(run => run.requests_shown.id.count + run.steps.id.count > 0);
  if (runs.length === 0) {
    replace(section, section.querySelector('h2'), note('These runs have neither requests nor steps.'));
    return;
  }
  let model = null, from = 0, to = 1, selected = -1;
  const readout = element('p', { class: 'readout', role: 'status' }), notes = element('div');
  const view = canvasIn(byId('timeline-chart'), 'Timeline of steps and requests', heightOf, draw);
  const left = 8;
  const x = t => left + (t - from) / (to - from) * (view.width - 2 * left);
  const back = px => from + (px - left) / (view.width - 2 * left) * (to - from);
  byId('timeline-chart').append(
    element('div', { class: 'legend' }, ...[['prefill', 'prefill'], ['decode', 'decode'], ['wait', 'waiting'], ['run-body', 'running, between its steps']].map(([name, text]) => {
      const box = element('i');
      box.style.background = `var(--${name})`;
      return element('span', {}, box, text);
    })),
    keyHelp(['← →', 'move'], ['+ −', 'zoom'], ['0', 'whole run'], [', .', 'step before, after'], ['click wheel', 'zoom'], ['drag', 'move']), readout, notes);

  // As high as its lanes need, up to what a screen has.
  function heightOf(width) {
    return Math.min(width < 560 ? 400 : 460, STEP_BAND + GAP + AXIS + Math.max(2, model ? model.lanes : 2) * LANE_MAX);
  }

  function visibleRequests() {
    const q = model.requests, list = [];
    for (let i = firstWhere(q.n, k => q.latest[k] > from); i < q.n && q.planned[i] < to; i++) if (q.finish[i] >= from) list.push(i);
    return list;
  }

  // Steps in view, by index: first and one after the last.
  function visibleSteps() {
    const s = model.steps;
    let first = firstWhere(s.n, k => s.start[k] >= from - model.longest);
    while (first < s.n && s.end[first] < from) first++;
    return [first, firstWhere(s.n, k => s.start[k] > to)];
  }

  function drawAxis(c) {
    c.fillStyle = colour('muted');
    c.strokeStyle = colour('grid');
    const unit = to - from < 1 ? 1000 : 1, list = ticksOf(from * unit, to * unit, view.width / (view.width < 500 ? 70 : 100)), digits = Math.max(3, Math.ceil(Math.log10(Math.abs(to) / ((to - from) / 5) + 1)) + 1);
    for (const t of list) {
      const px = Math.round(x(t / unit)) + 0.5;
      c.beginPath();
      c.moveTo(px, 0);
      c.lineTo(px, view.height - AXIS + 4);
      c.stroke();
      c.textAlign = px < 40 ? 'left' : px > view.width - 40 ? 'right' : 'center';
      c.fillText(number(t, digits).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '') + (unit === 1 ? ' s' : ' ms'), px, view.height - 6);
    }
  }

  // Tokens of a step, the largest of those that share a pixel.
  function drawSteps(c, first, after) {
    const s = model.steps, columns = Math.ceil(view.width), prefill = new Float64Array(columns), decode = new Float64Array(columns);
    let most = 1;
    for (let i = first; i < after; i++) most = Math.max(most, s.prefill[i] + s.decode[i]);
    const high = STEP_BAND - 20;
    const bar = (px, width, p, d) => {
      const hp = p && Math.max(1.5, p / most * high), hd = d && Math.max(1.5, d / most * high);
      c.fillStyle = colour('decode');
      c.fillRect(px, STEP_BAND - hd, width, hd);
      c.fillStyle = colour('prefill');
      c.fillRect(px, STEP_BAND - hd - hp, width, hp);
    };
    for (let i = first; i < after; i++) {
      const a = x(s.start[i]), b = x(s.end[i]);
      if (b - a >= 2) bar(a, Math.max(1, b - a - 1), s.prefill[i], s.decode[i]);
      else {
        const k = Math.min(columns - 1, Math.max(0, Math.floor(a)));
        if (s.prefill[i] + s.decode[i] > prefill[k] + decode[k]) { prefill[k] = s.prefill[i]; decode[k] = s.decode[i]; }
      }
    }
    for (let k = 0; k < columns; k++) if (prefill[k] + decode[k] > 0) bar(k, 1, prefill[k], decode[k]);
    c.fillStyle = colour('muted');
    c.textAlign = 'left';
    c.fillText('tokens a step, up to ' + number(most), left, 12);
  }

  // Waiting on top of running, a pixel at a time.
  function drawCounts(c, list, top, floor) {
    const q = model.requests, columns = Math.ceil(view.width) + 1, running = new Int32Array(columns + 1), waiting = new Int32Array(columns + 1);
    const cell = t => Math.min(columns, Math.max(0, Math.round(x(t))));
    for (const i of list) {
      waiting[cell(q.planned[i])]++;
      waiting[cell(q.admitted[i])]--;
      running[cell(q.admitted[i])]++;
      running[cell(q.finish[i])]--;
    }
    let most = 1;
    for (let k = 0, r = 0, w = 0; k < columns; k++) {
      r = running[k] += k ? running[k - 1] : 0;
      w = waiting[k] += k ? waiting[k - 1] : 0;
      most = Math.max(most, r + w);
    }
    for (let k = 0; k < columns; k++) {
      const hr = running[k] / most * (floor - top - 16), hw = waiting[k] / most * (floor - top - 16);
      c.fillStyle = colour('decode');
      c.globalAlpha = 0.75;
      c.fillRect(k, floor - hr, 1, hr);
      c.globalAlpha = 1;
      c.fillStyle = colour('wait');
      c.fillRect(k, floor - hr - hw, 1, hw);
    }
    c.fillStyle = colour('muted');
    c.textAlign = 'left';
    c.fillText('requests waiting and running, up to ' + number(most) + '; zoom in for one bar each', left, top + 10);
  }

  function drawLanes(c, list, rows, top, height, first, after) {
    const q = model.requests, s = model.steps, thick = Math.max(2, height - 2), rowOf = new Map();
    for (const i of list) {
      const y = top + rows.get(q.lane[i]) * height, a = Math.max(x(q.planned[i]), -2), b = Math.min(x(q.admitted[i]), view.width + 2), e = Math.min(x(q.finish[i]), view.width + 2);
      rowOf.set(q.id[i], i);
      c.fillStyle = colour('wait');
      c.fillRect(a, y + thick * 0.3, Math.max(0.5, b - a), thick * 0.4);
      c.fillStyle = colour('run-body');
      c.fillRect(Math.max(b, -2), y, Math.max(1, e - Math.max(b, -2)), thick);
    }
    const wide = (after - first) / view.width;
    if (model.members.any && wide < 3) {
      for (let k = first; k < after; k++) {
        const a = x(s.start[k]), b = x(s.end[k]);
        for (const member of model.members.of(s.id[k])) {
          const i = rowOf.get(member.request);
          if (i === undefined) continue;
          c.fillStyle = colour(member.phase);
          c.fillRect(a, top + rows.get(q.lane[i]) * height, Math.max(0.7, b - a - (b - a > 4 ? 1 : 0)), thick);
        }
      }
    }
    if (height >= 13) {
      c.textAlign = 'left';
      for (const i of list) {
        const a = Math.max(x(q.planned[i]), 0), e = Math.min(x(q.finish[i]), view.width), text = String(q.id[i]);
        if (e - a < 14 + text.length * 7) continue;
        const y = top + rows.get(q.lane[i]) * height;
        c.fillStyle = colour('raised');
        c.globalAlpha = 0.85;
        c.fillRect(a + 2, y + 1, text.length * 7 + 6, thick - 2);
        c.globalAlpha = 1;
        c.fillStyle = colour('ink');
        c.fillText(text, a + 5, y + thick / 2 + 4);
      }
    }
  }

  function draw(v) {
    if (!model) return;
    const c = v.context, top = STEP_BAND + GAP, floor = v.height - AXIS, list = visibleRequests(), [first, after] = visibleSteps();
    drawAxis(c);
    drawSteps(c, first, after);
    const lanes = [...new Set(list.map(i => model.requests.lane[i]))].sort((a, b) => a - b);
    const height = Math.min(LANE_MAX, (floor - top) / Math.max(1, lanes.length));
    const near = height >= LANE_MIN && list.length <= 4000;
    if (near) drawLanes(c, list, new Map(lanes.map((lane, row) => [lane, row])), top, height, first, after);
    else drawCounts(c, list, top, floor);
    v.canvas.dataset.from = from;
    v.canvas.dataset.to = to;
    v.canvas.dataset.detail = near ? 'requests' : 'counts';
    if (selected >= 0) {
      const a = x(model.steps.start[selected]), b = Math.max(a + 2, x(model.steps.end[selected]));
      c.strokeStyle = colour('mark');
      c.lineWidth = 1.5;
      c.strokeRect(a, 15, b - a, floor - 15);
      c.lineWidth = 1;
    }
  }

  function limit() {
    const span = Math.min(Math.max(to - from, (model.end - model.begin) * 1e-7, 1e-8), (model.end - model.begin) * 1.04);
    const middle = (from + to) / 2, pad = (model.end - model.begin) * 0.02;
    from = Math.min(Math.max(middle - span / 2, model.begin - pad), model.end + pad - span);
    to = from + span;
    view.redraw();
  }

  function zoom(by, around = (from + to) / 2) {
    from = around - (around - from) * by;
    to = around + (to - around) * by;
    limit();
  }

  function pan(share) {
    const by = (to - from) * share;
    from += by;
    to += by;
    limit();
  }

  const all = () => { from = model.begin; to = model.end; limit(); };

  function sentence(i) {
    const s = model.steps;
    return 'Step ' + s.id[i] + ' took ' + duration((s.end[i] - s.start[i]) * 1000) + ' (' + duration(s.forward[i] * 1000) + ' of it forward) with ' + count(s.requests[i], 'request') + ': '
      + count(s.prefill[i], 'token') + ' of prefill, ' + number(s.decode[i]) + ' of decode; ' + number(s.waiting[i]) + ' waited; KV blocks ' + number(s.kv_used[i]) + ' of ' + number(s.kv_total[i]) + '.';
  }

  function select(i) {
    const s = model.steps;
    if (i < 0 || i >= s.n) return;
    selected = i;
    if (s.end[i] < from || s.start[i] > to) pan((s.start[i] - (from + to) / 2) / (to - from));
    readout.textContent = sentence(i);
    const members = model.members.of(s.id[i]);
    replace(byId('timeline-step'), members.length ? table('Requests in step ' + s.id[i], [
      { key: 'request', name: 'request', number: true, head: true, text: row => String(row.request) }, { key: 'phase', name: 'phase' },
      { key: 'tokens', name: 'tokens', number: true }, { key: 'context', name: 'context before', number: true },
    ], members, { tall: members.length > 12 }).box : note('Who was in it is not recorded: it needs trace = { rows = "step_requests" } or "tokens".'));
    view.redraw();
  }

  const stepAt = t => {
    const s = model.steps, i = firstWhere(s.n, k => s.start[k] > t) - 1;
    return i >= 0 && (s.end[i] >= t || i + 1 < s.n) ? i : -1;
  };

  function hover(px) {
    if (selected >= 0) return;
    const i = stepAt(back(px));
    readout.textContent = i >= 0 ? sentence(i) : hint();
  }
  const hint = () => model.steps.n ? 'Point at the steps to read them; click one, or press . to see who was in it.' : 'Steps are not recorded: they need trace = { rows = "steps" } or more.';

  onDrag(view.canvas, {
    hover,
    leave() { if (selected < 0) readout.textContent = hint(); },
    tap(px) { select(stepAt(back(px))); },
    move(dx) { pan(-dx / (view.width - 2 * left)); },
  });
  onWheel(view.canvas, event => {
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / view.width);
    else zoom(Math.exp(Math.max(-200, Math.min(200, event.deltaY)) * 0.002), back(event.offsetX));
  });

  const middle = () => selected >= 0 ? selected : stepAt((from + to) / 2);
  const acts = {
    ArrowLeft: () => pan(-0.15), ArrowRight: () => pan(0.15), '+': () => zoom(1 / 1.6), '=': () => zoom(1 / 1.6), '-': () => zoom(1.6), 0: all,
    ',': () => select(Math.max(0, middle() - 1)), '.': () => select(selected < 0 ? Math.max(0, middle()) : selected + 1),
    Escape: () => { selected = -1; readout.textContent = hint(); replace(byId('timeline-step')); view.redraw(); },
  };
  view.canvas.addEventListener('keydown', event => {
    if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    acts[event.key]();
  });
  buttons(byId('timeline-buttons'), [
    ['timeline-in', '+', 'Zoom in', acts['+']], ['timeline-out', '−', 'Zoom out', acts['-']], ['timeline-all', 'Whole run', 'Show the whole run', all],
    ['timeline-before', '‹ step', 'The step before', acts[',']], ['timeline-after', 'step ›', 'The next step', acts['.']],
  ]);

  function open(run, replica) {
    model = timelineModel(run, replica);
    selected = -1;
    replace(byId('timeline-step'));
    replace(notes, ...[thinned('request', run.requests_shown.count, run.requests_shown.every), windowed(), thinned('step', run.steps.count, run.steps.every, 'Fewer runs (--run) or some seconds (--window) have them all.')].filter(Boolean).map(note));
    readout.textContent = hint();
    all();
    if (report.window[1] !== null && report.window[0] < model.end) {
      from = Math.max(model.begin, report.window[0]);
      to = Math.min(model.end, report.window[1]);
      limit();
    }
  }
  const runSelect = byId('timeline-run'), replicaSelect = byId('timeline-replica');
  choose(runSelect, runs.map(run => [run.id, runName(run)]));
  const openRun = () => {
    const run = runById(Number(runSelect.value));
    const replicas = replicasOf(run);
    byId('timeline-replica-label').hidden = replicas.length < 2;
    choose(replicaSelect, replicas.map(r => [r, String(r)]), replicas[0]);
    open(run, replicas.length < 2 ? null : replicas[0]);
  };
  runSelect.addEventListener('change', openRun);
  replicaSelect.addEventListener('change', () => open(runById(Number(runSelect.value)), Number(replicaSelect.value)));
  openRun();
}

function replicasOf(run) {
  const list = new Set(column(run.steps.replica));
  if (list.size === 0) for (const r of column(run.requests_shown.replica)) list.add(r);
  return [...list].filter(r => r !== NONE).sort((a, b) => a - b);
}
