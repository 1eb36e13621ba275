// SPDX-License-Identifier: MIT
// A run as the timeline asks for it: requests by the time they came, each in a lane that nobody else is in meanwhile, and
// for each step who was in it.

// The first free lane, by a heap of [free from, lane].
function assignLanes(starts, ends) {
  const lanes = new Uint32Array(starts.length), heap = [];
  let used = 0;
  const less = (a, b) => a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
  const push = item => {
    let i = heap.push(item) - 1;
    while (i > 0 && less(heap[i], heap[i - 1 >> 1])) {
      [heap[i], heap[i - 1 >> 1]] = [heap[i - 1 >> 1], heap[i]];
      i = i - 1 >> 1;
    }
  };
  const pop = () => {
    const top = heap[0], last = heap.pop();
    if (heap.length) {
      heap[0] = last;
      for (let i = 0;;) {
        let child = 2 * i + 1;
        if (child + 1 < heap.length && less(heap[child + 1], heap[child])) child++;
        if (child >= heap.length || !less(heap[child], heap[i])) break;
        [heap[i], heap[child]] = [heap[child], heap[i]];
        i = child;
      }
    }
    return top;
  };
  for (let i = 0; i < starts.length; i++) {
    const lane = heap.length && heap[0][0] <= starts[i] ? pop()[1] : used++;
    lanes[i] = lane;
    push([ends[i], lane]);
  }
  return lanes;
}

const timelineModels = new Map();

function timelineModel(run, replica) {
  const key = run.id + '/' + replica;
  if (timelineModels.has(key)) return timelineModels.get(key);
  const unit = run.unit_ns / 1e9, q = run.requests_shown, s = run.steps;
  const pick = (name, of) => column(of[name]);
  const replicas = pick('replica', q), keep = [];
  for (let i = 0; i < replicas.length; i++) if (replica === null || replicas[i] === replica) keep.push(i);
  const stepKeep = [], stepReplicas = pick('replica', s);
  for (let i = 0; i < stepReplicas.length; i++) if (replica === null || stepReplicas[i] === replica) stepKeep.push(i);
  const seconds = (name, of, list, otherwise) => {
    const values = pick(name, of);
    return Float64Array.from(list, (i, k) => values[i] === NONE ? otherwise(k) : values[i] * unit);
  };
  const whole = (name, of, list) => { const values = pick(name, of); return Uint32Array.from(list, i => values[i]); };
  const steps = {
    n: stepKeep.length, start: seconds('start', s, stepKeep, () => 0), end: seconds('end', s, stepKeep, () => 0), forward: seconds('forward', s, stepKeep, () => 0),
    ...Object.fromEntries(['id', 'requests', 'prefill', 'decode', 'waiting', 'kv_used', 'kv_total'].map(name => [name, whole(name, s, stepKeep)])),
  };
  const planned = seconds('planned', q, keep, () => 0);
  let end = 0;
  for (const v of planned) end = Math.max(end, v);
  for (const v of steps.end) end = Math.max(end, v);
  for (const v of pick('finish', q)) if (v !== NONE) end = Math.max(end, v * unit);
  const finish = seconds('finish', q, keep, () => end);
  const admitted = seconds('admitted', q, keep, k => finish[k]);
  const latest = new Float64Array(keep.length);
  for (let i = 0; i < keep.length; i++) latest[i] = Math.max(i ? latest[i - 1] : 0, finish[i]);
  const requests = { n: keep.length, planned, admitted, finish, latest, id: whole('id', q, keep), prompt: whole('prompt', q, keep), output: whole('output', q, keep), lane: assignLanes(planned, finish) };
  const begin = Math.min(requests.n ? planned[0] : Infinity, steps.n ? steps.start[0] : Infinity);
  let longest = 0;
  for (let i = 0; i < steps.n; i++) longest = Math.max(longest, steps.end[i] - steps.start[i]);
  const lanes = requests.lane.reduce((most, lane) => Math.max(most, lane + 1), 0);
  const model = { run, lanes, requests, steps, longest, begin: Number.isFinite(begin) ? begin : 0, end: Math.max(end, (Number.isFinite(begin) ? begin : 0) + 1e-6), members: memberIndex(run), place: null };
  timelineModels.set(key, model);
  return model;
}

// Rows of step_request are by step: from and to of a step by its id.
function memberIndex(run) {
  const m = run.steps.members, step = column(m.step);
  const request = column(m.request), tokens = column(m.tokens), context = column(m.context);
  return {
    any: step.length > 0,
    of(id) {
      const list = [];
      for (let i = firstWhere(step.length, k => step[k] >= id); i < step.length && step[i] === id; i++) {
        list.push({ request: request[i], phase: tokens[i] >>> 31 ? 'prefill' : 'decode', tokens: tokens[i] & 0x7fffffff, context: context[i] });
      }
      return list;
    },
  };
}
