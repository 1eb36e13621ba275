// SPDX-License-Identifier: MIT
// Empirical distribution functions, and their bands: with probability 95% the whole true function lies within
// ε = √(ln(2 / 0.05) / 2n) of the empirical one (Dvoretzky, Kiefer, Wolfowitz 1956; Massart 1990). Of fewer than eight values ε is
// more than a half: such a band says nothing, and isn't drawn.

const latencies = {
  ttft: { name: 'TTFT', long: 'time to first token', of: 'request' },
  tpot: { name: 'TPOT', long: 'mean time a token after the first, of each request', of: 'request' },
  itl: { name: 'ITL', long: 'gap between two tokens, all gaps pooled', of: 'gap' },
  e2e: { name: 'E2E', long: 'time to the last token', of: 'request' },
};

const dkw = n => Math.min(1, Math.sqrt(Math.log(2 / 0.05) / (2 * n)));

// A curve of sorted values and their ranks, with its band.
function ecdf(name, colourName, dash, values, ranks, n) {
  const epsilon = dkw(n), ys = Float32Array.from(ranks, k => k / n);
  const curve = { name, colour: colourName, dash, n, epsilon, xs: values, ys };
  return epsilon > 0.5 ? curve : { ...curve, low: ys.map(y => Math.max(0, y - epsilon)), high: ys.map(y => Math.min(1, y + epsilon)) };
}

function radios(host, name, entries, chosen, changed) {
  for (const [key, text] of entries) {
    host.append(element('label', {}, element('input', { type: 'radio', name, value: key, checked: key === chosen, on: { change: () => changed(key) } }), element('span', { text })));
  }
}

function startLatency() {
  const has = key => report.runs.some(run => run.latency[key]);
  const figures = Object.keys(latencies).filter(has);
  const host = byId('latency');
  if (figures.length === 0) {
    replace(host, host.querySelector('h2'), note('No request of these runs came to a token, so there is no latency to show.'));
    return;
  }
  let chosen = figures[0];
  const drawing = chart(byId('latency-chart'), 'Distribution of latency; arrow keys move a cursor');
  const log = byId('latency-log');

  function show() {
    const figureOf = latencies[chosen];
    const runs = report.runs.filter(run => shown.has(run.id) && run.latency[chosen]);
    const series = runs.map(run => {
      const d = run.latency[chosen], i = report.runs.indexOf(run);
      return ecdf(runName(run), runColour(i), runDash(i), column(d.values), column(d.ranks), d.n);
    });
    const least = Math.min(...series.map(s => s.xs[0])), most = Math.max(...series.map(s => s.xs[s.xs.length - 1]));
    byId('latency-lead').textContent = figureOf.name + ': ' + figureOf.long + '. Each curve is the share of ' + figureOf.of + 's that took at most so long; its band holds the whole true curve with 95% confidence.';
    const logarithmic = log.checked && least > 0;
    const pad = logarithmic ? [least / 1.05, Math.max(most, least * 1.02) * 1.05] : [Math.min(0, least), most * 1.03 || 1];
    drawing.show({
      series, x: series.length ? pad : [0, 1], y: [0, 1], share: true, log: logarithmic, name: figureOf.name + ', ms',
      hint: series.length ? 'Point at the chart, or focus it and press ← or →, to read it.' : 'No run is chosen in the table above, or none has this figure.',
      say: at => duration(at) + ': ' + series.map(s => {
        const i = firstWhere(s.xs.length, k => s.xs[k] > at) - 1, y = i < 0 ? 0 : s.ys[i];
        return s.name + ' ' + number(y * 100, 3) + '% (' + number(Math.max(0, y - s.epsilon) * 100, 3) + ' to ' + number(Math.min(1, y + s.epsilon) * 100, 3) + ')';
      }).join('; '),
    });
    const columns = [
      { key: 'name', name: 'run', head: true, value: runName },
      { key: 'n', name: figureOf.of + 's', number: true, value: figure(chosen, 'n'), text: run => number(run.latency[chosen].n) },
      ...['mean', 'p50', 'p90', 'p99', 'max'].map(key => ({ key, name: key + ', ms', number: true, value: figure(chosen, key),
        title: key === 'p99' ? 'not given for fewer than 368: no 95% interval for it exists' : null })),
      { key: 'band', name: '± of the band', number: true, value: run => dkw(run.latency[chosen].n), text: run => number(dkw(run.latency[chosen].n) * 100, 2) + '%' },
    ];
    const absent = report.runs.filter(run => shown.has(run.id) && !run.latency[chosen]).length;
    const few = runs.filter(run => dkw(run.latency[chosen].n) > 0.5).length;
    const sparse = runs.filter(run => run.latency[chosen].every > 1);
    replace(byId('latency-table'), table(figureOf.name + ' by run', columns, runs).box,
      ...(sparse.length ? [note('Curves of ' + count(sparse.length, 'run') + ' are drawn through every n-th value and the last hundred (n at most '
        + number(Math.max(...sparse.map(run => run.latency[chosen].every))) + '); each point is exact, and the table is of all values.')] : []),
      ...(few ? [note('Bands of fewer than eight values would fill the chart, and are not drawn.')] : []),
      ...(absent ? [note(count(absent, 'run') + (absent === 1 ? ' has' : ' have') + ' no such figure: ' + (chosen === 'itl' ? 'gaps need rows of tokens (trace = { rows = "tokens" }).' : 'no request of it came so far.'))] : []));
  }
  radios(byId('latency-figure'), 'latency', figures.map(key => [key, latencies[key].name]), chosen, key => { chosen = key; show(); });
  log.addEventListener('change', show);
  afterShown = show;
  show();
}
