// SPDX-License-Identifier: MIT
// What is far down the page is made when it comes near, so that the page opens at once.

function whenNear(id, start) {
  const section = byId(id);
  let begun = false;
  const begin = () => {
    if (begun) return;
    begun = true;
    start();
    section.dataset.made = '';
  };
  const watch = new IntersectionObserver(entries => {
    if (entries.some(entry => entry.isIntersecting)) { watch.disconnect(); begin(); }
  }, { rootMargin: '600px' });
  watch.observe(section);
  addEventListener('beforeprint', begin);
}

const questions = [...new Set(report.runs.map(run => run.question).filter(Boolean))];
byId('title').textContent = questions.length === 1 ? questions[0] : report.database;
byId('subtitle').textContent = report.database + ' · ' + count(report.runs.length, 'run') + ' · '
  + number(report.runs.reduce((sum, run) => sum + run.requests, 0)) + ' requests';
document.title = byId('title').textContent + ' – Lathe report';
byId('made').textContent = 'Made by lathe ' + report.version + ' from ' + report.database + '. Every figure is a query away: lathe sql ' + report.database + '.';
startTheme();
startRuns();
startLatency();
whenNear('timeline', startTimeline);
whenNear('attention', startAttention);
whenNear('memory', startMemory);
whenNear('comparison', startComparison);
