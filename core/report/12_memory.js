// SPDX-License-Identifier: MIT
// The KV pool over time: blocks in use from the steps' rows, and what they were used for from the rows of kv_usage.

function startMemory() {
  const section = byId('memory');
  const pool = run => column(run.pool.total).some(total => total > 0 && total !== NONE);
  const runs = report.runs.filter(run => pool(run) || run.memory);
  if (runs.length === 0) {
    replace(section, section.querySelector('h2'), note('No step of these runs says what of the KV pool was in use: it needs trace = { rows = "steps" } or more, and a KV cache with a pool.'));
    return;
  }
  const drawing = chart(byId('memory-chart'), 'KV blocks over time; arrow keys move a cursor');
  const room = chart(byId('memory-room'), 'Positions given out and filled over time; arrow keys move a cursor');

  // Columns of one replica, times in seconds.
  function rowsOf(source, names, timeName, run, replica) {
    const of = column(source.replica), keep = [];
    for (let i = 0; i < of.length; i++) if (replica === null || of[i] === replica) keep.push(i);
    const times = column(source[timeName]), rows = { time: Float64Array.from(keep, i => times[i] * run.unit_ns / 1e9) };
    for (const name of names) {
      const values = column(source[name]);
      rows[name] = Float64Array.from(keep, i => values[i] === NONE ? NaN : values[i]);
    }
    return rows;
  }

  // A replica's figure over the whole run, whatever of it is drawn.
  const figureOf = (source, name, replica) => {
    const i = replica === null ? 0 : column(source.replica).indexOf(replica), value = column(source[name])[i];
    return value === NONE ? NaN : value;
  };
  const largest = values => values.reduce((most, v) => Math.max(most, v), 0);

  function show(run, replica) {
    const notes = [], series = [], rooms = [], facts = [];
    let total = 0, last = 1e-9;
    const add = (name, colourName, dash, xs, ys) => { if (xs.length) { series.push({ name, colour: colourName, dash, xs, ys }); last = Math.max(last, xs[xs.length - 1]); } };
    if (pool(run)) {
      const s = rowsOf(run.steps, ['kv_used'], 'end', run, replica);
      total = figureOf(run.pool, 'total', replica);
      add('blocks in use', 'c0', '', s.time, s.kv_used);
      facts.push(['blocks in use, mean over steps', figureOf(run.pool, 'mean', replica)], ['blocks in use, most', figureOf(run.pool, 'most', replica)], ['blocks in the pool', total],
        ['requests left waiting, most', figureOf(run.pool, 'waiting', replica)]);
      notes.push(windowed(), thinned('step', run.steps.count, run.steps.every));
    }
    if (run.memory) {
      const m = rowsOf(run.memory, ['total', 'used', 'cached', 'shared', 'reserved', 'filled'], 'time', run, replica);
      total = Math.max(total, largest(m.total));
      if (!pool(run)) add('blocks in use', 'c0', '', m.time, m.used);
      if (largest(m.cached) > 0) add('blocks cached for reuse', 'c1', '7 3', m.time, m.cached);
      if (largest(m.shared) > 0) add('blocks shared by requests', 'c2', '2 3', m.time, m.shared);
      rooms.push({ name: 'positions given out', colour: 'c3', dash: '7 3', xs: m.time, ys: m.reserved }, { name: 'of them filled', colour: 'c2', dash: '', xs: m.time, ys: m.filled });
      const of = name => figureOf(run.memory.figures, name, replica);
      if (!missing(of('filled_share'))) facts.push(['room given out that was filled', of('filled_share') * 100, '%']);
      facts.push(['positions evicted', of('evicted')]);
      if (of('looked_up') > 0) facts.push(['prompt tokens found cached', of('hit') / of('looked_up') * 100, '%']);
      notes.push(thinned('row', run.memory.count, run.memory.every));
    } else {
      notes.push('What the blocks held (shared, cached, filled) is in rows of kv_usage, which this run has not: trace = { kv = 1 } records them.');
    }
    const unit = last < 1 ? 1000 : 1;
    for (const s of [...series, ...rooms]) s.xs = s.xs.map(t => t * unit);
    const most = Math.max(1, ...series.map(s => largest(s.ys))), near = total <= most * 2.5;
    const told = (list, at) => duration(at * 1000 / unit) + ': ' + list.map(s => {
      const i = firstWhere(s.xs.length, k => s.xs[k] > at) - 1;
      return s.name + ' ' + (i < 0 ? '0' : number(s.ys[i]));
    }).join('; ');
    const hint = 'Point at the chart, or focus it and press ← or →, to read it.';
    drawing.show({
      series, x: [0, last * unit], y: [0, (near ? Math.max(total, most) : most) * 1.05], name: unit === 1 ? 'time, s' : 'time, ms', height: 280,
      hint: hint + (near ? '' : ' The pool of ' + number(total) + ' blocks is far above the curve.'),
      say: at => told(series, at) + ' of ' + number(total) + '.',
    });
    byId('memory-room').hidden = rooms.length === 0;
    if (rooms.length) {
      room.show({ series: rooms, x: [0, last * unit], y: [0, Math.max(1, ...rooms.map(s => largest(s.ys))) * 1.05], name: unit === 1 ? 'time, s' : 'time, ms', height: 240,
        hint: 'Between the curves is room that was reserved and not used. ' + hint, say: at => told(rooms, at) + '.' });
    }
    replace(byId('memory-table'), table('Use of the KV pool in ' + runName(run), [
      { key: 'what', name: 'figure', head: true, value: row => row[0] }, { key: 'value', name: 'value', number: true, value: row => row[1], text: row => number(row[1]) + (row[2] || '') },
    ], facts).box, ...notes.filter(Boolean).map(note));
  }
  const runSelect = byId('memory-run'), replicaSelect = byId('memory-replica');
  choose(runSelect, runs.map(run => [run.id, runName(run)]));
  const open = () => {
    const run = runById(Number(runSelect.value)), replicas = replicasOf(run);
    byId('memory-replica-label').hidden = replicas.length < 2;
    choose(replicaSelect, replicas.map(r => [r, String(r)]), replicas[0]);
    show(run, replicas.length < 2 ? null : replicas[0]);
  };
  runSelect.addEventListener('change', open);
  replicaSelect.addEventListener('change', () => show(runById(Number(runSelect.value)), Number(replicaSelect.value)));
  open();
}
