// SPDX-License-Identifier: MIT
// The table of runs, its filters, and which runs the latency chart shows.

const shown = new Set(report.runs.slice(0, 6).map(run => run.id));
let afterShown = () => {};

const figure = (name, key) => run => run.latency[name] ? run.latency[name][key] : null;

function runColumns() {
  const any = key => report.runs.some(run => run[key] !== null && run[key] !== '');
  const box = run => element('input', {
    type: 'checkbox', 'aria-label': 'show ' + runName(run) + ' below', checked: shown.has(run.id),
    on: { change: event => { if (event.target.checked) shown.add(run.id); else shown.delete(run.id); afterShown(); } },
  });
  const plugins = run => (run.plugins || '').split(', ').filter(p => /^(scheduler|batching|kvcache|router|model)\//.test(p)).map(p => p.split('/')[1]).join(' · ');
  return [
    { key: 'id', name: 'run', number: true },
    { key: 'label', name: 'label', head: true, value: run => run.label || run.experiment || 'run ' + run.id },
    { key: 'show', name: 'drawn', plain: true, cell: box },
    { key: 'state', name: 'state', text: run => run.state.replace('_', ' ') },
    { key: 'requests', name: 'requests', number: true, text: run => number(run.requests) },
    any('failed') && report.runs.some(run => run.failed > 0) && { key: 'failed', name: 'failed', number: true },
    { key: 'ttft_p50', name: 'TTFT p50, ms', number: true, value: figure('ttft', 'p50'), title: 'time to first token, median' },
    { key: 'ttft_p99', name: 'TTFT p99, ms', number: true, value: figure('ttft', 'p99'), title: 'a p99 of fewer than 368 requests is not given: no 95% interval for it exists' },
    { key: 'tpot_p50', name: 'TPOT p50, ms', number: true, value: figure('tpot', 'p50'), title: 'mean time a token after the first, median over requests' },
    { key: 'e2e_p50', name: 'E2E p50, ms', number: true, value: figure('e2e', 'p50') },
    { key: 'tokens_per_s', name: 'tokens/s', number: true },
    { key: 'goodput', name: 'goodput, 1/s', number: true, title: 'requests a second that met their targets' },
    any('factors') && { key: 'factors', name: 'factors' },
    { key: 'plugins', name: 'stages', value: plugins, title: 'model, scheduler, batching, KV cache, router' },
    { key: 'clock', name: 'clock' },
    { key: 'seed', name: 'seed', number: true, text: run => String(run.seed) },
    { key: 'started_at', name: 'began, UTC' },
    report.runs.some(run => run.dropped_events > 0) && { key: 'dropped_events', name: 'rows dropped', number: true },
  ].filter(Boolean);
}

function startRuns() {
  const made = table('Runs', runColumns(), report.runs, { sort: 'id', tall: report.runs.length > 12, attributes: run => ({ 'data-run': run.id }) });
  const filter = byId('run-filter'), state = byId('run-state');
  const dropped = report.runs.filter(run => run.dropped_events > 0).length;
  replace(byId('run-table'), made.box, ...report.notes.map(note),
    ...(dropped ? [note(count(dropped, 'run') + ' dropped rows while recording: figures of them are of the rows that were kept.')] : []),
    ...(report.runs.length > shown.size ? [note('The first ' + shown.size + ' runs are drawn below; the boxes in the table choose others.')] : []));
  choose(state, [['', 'any'], ...[...new Set(report.runs.map(run => run.state))].sort().map(s => [s, s.replace('_', ' ')])]);
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = run => [run.id, run.label, run.experiment, run.question, run.sweep, run.factors, run.plugins, run.clock].join(' ').toLowerCase();
    const left = report.runs.filter(run => (!state.value || run.state === state.value) && words.every(word => text(run).includes(word)));
    made.show(left);
    byId('run-count').textContent = left.length === report.runs.length ? count(left.length, 'run') : left.length + ' of ' + count(report.runs.length, 'run');
  };
  filter.addEventListener('input', apply);
  state.addEventListener('change', apply);
  apply();
}
