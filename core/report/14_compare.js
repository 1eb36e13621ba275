// SPDX-License-Identifier: MIT
// Two runs, request by request: the same request id met the same prompt at the same time, so the difference of each is free
// of what varies between requests.

const compared = { ttft: 'TTFT', tpot: 'TPOT', e2e: 'E2E' };

function pairs(a, b, name) {
  const idsA = column(a.requests_shown.id), idsB = column(b.requests_shown.id), xs = column(a.requests_shown[name]), ys = column(b.requests_shown[name]);
  const place = new Map();
  idsB.forEach((id, i) => place.set(id, i));
  const differences = [], base = [];
  for (let i = 0; i < idsA.length; i++) {
    const k = place.get(idsA[i]);
    if (k === undefined || Number.isNaN(xs[i]) || Number.isNaN(ys[k])) continue;
    differences.push(xs[i] - ys[k]);
    base.push(ys[k]);
  }
  const summary = pairedSummary(differences);
  summary.base = base.reduce((sum, v) => sum + v, 0) / base.length;
  return summary;
}

function forest(host, rows) {
  const width = Math.max(300, host.clientWidth), left = 64, right = 16, line = 40, height = rows.length * line + 44;
  const share = (row, key) => row[key] / row.base * 100;
  const values = rows.flatMap(row => ['meanLow', 'meanHigh', 'mean'].map(key => share(row, key))).filter(v => Number.isFinite(v));
  const reach = Math.max(1e-3, ...values.map(Math.abs)) * 1.12;
  const x = v => left + (v + reach) / (2 * reach) * (width - left - right);
  const svg = element('svg:svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'Mean paired differences with 95% intervals, in percent; the table below has them in milliseconds' });
  for (const v of ticksOf(-reach, reach, width / (width < 500 ? 75 : 110))) {
    svg.append(element('svg:line', { class: v === 0 ? 'axis' : 'grid', x1: x(v), x2: x(v), y1: 4, y2: height - 36 }),
      element('svg:text', { x: x(v), y: height - 20, 'text-anchor': 'middle', text: (v > 0 ? '+' : '') + number(v, 3).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '') + '%' }));
  }
  svg.append(element('svg:text', { x: width - right, y: height - 3, 'text-anchor': 'end', text: 'mean difference, % of the other run\'s mean' }));
  rows.forEach((row, i) => {
    const y = 24 + i * line, apart = row.meanLow > 0 || row.meanHigh < 0;
    svg.append(element('svg:text', { x: 4, y: y + 4, text: row.name }));
    if (Number.isFinite(row.meanLow)) svg.append(element('svg:line', { x1: x(share(row, 'meanLow')), x2: x(share(row, 'meanHigh')), y1: y, y2: y, stroke: 'var(--accent)', 'stroke-width': 2.5 }),
      ...['meanLow', 'meanHigh'].map(key => element('svg:line', { x1: x(share(row, key)), x2: x(share(row, key)), y1: y - 6, y2: y + 6, stroke: 'var(--accent)', 'stroke-width': 1.5 })));
    svg.append(element('svg:circle', { cx: x(share(row, 'mean')), cy: y, r: 5.5, fill: apart ? 'var(--accent)' : 'var(--raised)', stroke: 'var(--accent)', 'stroke-width': 2 }));
  });
  return element('div', { class: 'chart' }, svg);
}

function startComparison() {
  const section = byId('comparison');
  if (report.runs.length < 2) {
    replace(section, section.querySelector('h2'), note('Two runs are needed to compare, and this page has one.'));
    return;
  }
  const a = byId('compare-a'), b = byId('compare-b'), first = report.compare || [report.runs[1].id, report.runs[0].id];
  const names = report.runs.map(run => [run.id, runName(run)]);
  choose(a, names, first[0]);
  choose(b, names, first[1]);
  let chosen = 'ttft';
  const drawing = chart(byId('compare-chart'), 'Distribution of paired differences; arrow keys move a cursor');
  let rows = [];
  const forestHost = byId('compare-forest');
  const drawForest = () => replace(forestHost, ...(rows.length ? [forest(forestHost, rows)] : []));
  let wide = 0;
  new ResizeObserver(() => { if (forestHost.clientWidth !== wide) { wide = forestHost.clientWidth; drawForest(); } }).observe(forestHost);

  function curve() {
    const row = rows.find(one => one.key === chosen);
    const n = row ? row.n : 0, sorted = n ? row.sorted : new Float64Array(0);
    const ranks = Uint32Array.from(sorted, (_, i) => i + 1), reach = n ? [sorted[0], sorted[n - 1]] : [-1, 1];
    const pad = (reach[1] - reach[0]) * 0.03 || Math.abs(reach[0]) * 0.1 || 1;
    drawing.show({
      series: n ? [ecdf(compared[chosen] + ', ' + count(n, 'pair'), 'c0', '', sorted, ranks, n)] : [],
      x: [Math.min(reach[0] - pad, 0), Math.max(reach[1] + pad, 0)], y: [0, 1], share: true, lines: [0], height: 260, name: 'difference of ' + compared[chosen] + ', ms',
      hint: n ? 'Left of the dashed line requests were quicker in ' + runName(runById(Number(a.value))) + '.' : 'No request has this figure in both runs.',
      say: at => { const i = firstWhere(n, k => sorted[k] > at); return number(i / n * 100, 3) + '% of the pairs differ by ' + duration(at) + ' or less (band ± ' + number(dkw(n) * 100, 2) + '%).'; },
    });
  }

  function show() {
    const runA = runById(Number(a.value)), runB = runById(Number(b.value));
    rows = Object.keys(compared).map(key => ({ key, name: compared[key], ...pairs(runA, runB, key) })).filter(row => row.n > 0);
    if (runA === runB || rows.length === 0) {
      byId('compare-lead').textContent = runA === runB ? 'Choose two different runs.' : 'These runs have no request in common that came to a token in both.';
      rows = [];
      drawForest();
      replace(byId('compare-table'));
      curve();
      return;
    }
    byId('compare-lead').textContent = runName(runA) + ' minus ' + runName(runB) + ', request by request (paired by id); below zero: ' + runName(runA) + ' was quicker. Intervals are 95%: of the mean by Student\'s t, of the median by order statistics.';
    const interval = (low, high) => row => missing(row[low]) ? '–' : number(row[low], 3) + ' to ' + number(row[high], 3);
    const same = (column(runA.requests_shown.prompt)).length === column(runB.requests_shown.prompt).length;
    drawForest();
    replace(byId('compare-table'), table('Paired differences', [
      { key: 'name', name: 'figure', head: true }, { key: 'n', name: 'pairs', number: true, text: row => number(row.n) },
      { key: 'mean', name: 'mean, ms', number: true }, { key: 'meanLow', name: '95% interval', number: true, text: interval('meanLow', 'meanHigh') },
      { key: 'median', name: 'median, ms', number: true }, { key: 'medianLow', name: '95% interval', number: true, text: interval('medianLow', 'medianHigh') },
      { key: 'below', name: 'quicker', number: true, text: row => number(row.below * 100, 3) + '%', title: 'share of the pairs below zero' },
    ], rows).box,
      ...[thinned('request', Math.max(runA.requests_shown.count, runB.requests_shown.count), Math.max(runA.requests_shown.every, runB.requests_shown.every))].filter(Boolean).map(text => note(text + ' The intervals are of those pairs.')),
      ...(same ? [] : [note('The runs have different numbers of requests; only those with an id in both are compared.')]),
      ...differentWork(runA, runB));
    curve();
  }
  a.addEventListener('change', show);
  b.addEventListener('change', show);
  radios(byId('compare-figure'), 'compare', Object.entries(compared), chosen, key => { chosen = key; curve(); });
  show();
}

// Pairs are only fair if the same id is the same work.
function differentWork(runA, runB) {
  const idsB = column(runB.requests_shown.id), promptA = column(runA.requests_shown.prompt), promptB = column(runB.requests_shown.prompt), place = new Map();
  idsB.forEach((id, i) => place.set(id, i));
  let differ = 0;
  column(runA.requests_shown.id).forEach((id, i) => { const k = place.get(id); if (k !== undefined && promptA[i] !== promptB[k]) differ++; });
  return differ ? [note(count(differ, 'pair') + (differ === 1 ? ' has' : ' have') + ' prompts of different lengths: the runs had different workloads, so pairing says little.')] : [];
}
