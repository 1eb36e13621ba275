// SPDX-License-Identifier: MIT
// Intervals of paired differences: of their mean by Student's t, of their median by order statistics (the sign test turned
// around), which supposes nothing about their shape.

function logGamma(x) {
  const c = [76.18009172947146, -86.50532032941677, 24.01409824083091, -1.231739572450155, 0.1208650973866179e-2, -0.5395239384953e-5];
  let sum = 1.000000000190015;
  c.forEach((v, i) => { sum += v / (x + 1 + i); });
  return -(x + 5.5) + (x + 0.5) * Math.log(x + 5.5) + Math.log(2.5066282746310005 * sum / x);
}

// The regularised incomplete beta function, by its continued fraction (Lentz).
function incompleteBeta(a, b, x) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(b, a, 1 - x);
  const keep = v => Math.abs(v) < 1e-300 ? 1e-300 : v;
  let c = 1, d = 1 / keep(1 - (a + b) * x / (a + 1)), h = d;
  for (let m = 1; m < 500; m++) {
    for (const step of [m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))]) {
      d = 1 / keep(1 + step * d);
      c = keep(1 + step / c);
      h *= c * d;
    }
    if (Math.abs(c * d - 1) < 1e-14) break;
  }
  return h * Math.exp(a * Math.log(x) + b * Math.log(1 - x) + logGamma(a + b) - logGamma(a) - logGamma(b)) / a;
}

// t such that a share p of Student's distribution with so many degrees of freedom lies below it; p > 1/2.
function studentQuantile(p, freedom) {
  let low = 0, high = 1000;
  for (let i = 0; i < 80; i++) {
    const t = (low + high) / 2;
    if (1 - incompleteBeta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2 < p) low = t;
    else high = t;
  }
  return (low + high) / 2;
}

// The largest k such that fewer than k of n fair coins fall heads with a probability of 2.5% at most; 0: there is none.
function signRank(n) {
  if (n > 1000) return Math.floor(n / 2 - 1.959963985 * Math.sqrt(n) / 2);
  let term = -n * Math.LN2, sum = 0, k = 0;
  while (k <= n && sum + Math.exp(term) <= 0.025) {
    sum += Math.exp(term);
    term += Math.log((n - k) / (k + 1));
    k++;
  }
  return k;
}

function pairedSummary(differences) {
  const d = Float64Array.from(differences).sort(), n = d.length;
  if (n === 0) return { n };
  const mean = d.reduce((a, b) => a + b, 0) / n, middle = (n - 1) / 2;
  const median = (d[Math.floor(middle)] + d[Math.ceil(middle)]) / 2;
  const made = { n, mean, median, sorted: d, below: firstWhere(n, i => d[i] >= 0) / n };
  if (n > 1) {
    const half = studentQuantile(0.975, n - 1) * Math.sqrt(d.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1) / n);
    Object.assign(made, { meanLow: mean - half, meanHigh: mean + half });
  }
  const k = signRank(n);
  if (k > 0) Object.assign(made, { medianLow: d[k - 1], medianHigh: d[n - k] });
  return made;
}
