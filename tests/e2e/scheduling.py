#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The experiments on scheduling, small, in virtual time: each report, the rows behind it, and the sign of what is known."""
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(folder, name, *options):
    words = [lathe, "run", "--quiet", str(source / f"experiments/{name}.lua"), "--", *options]
    r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    print(r.stdout, r.stderr)
    check(f"{name} ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    check(f"{name} says what was found, with intervals, and what would change it",
          "What was found:" in r.stdout and "95% interval" in r.stdout and "What would change this:" in r.stdout)
    return r.stdout


def database(folder, name):
    return sqlite3.connect(pathlib.Path(folder) / f"results/{name}.db")


def refused(folder, name, *options, says):
    words = [lathe, "run", "--quiet", str(source / f"experiments/{name}.lua"), "--", *options]
    r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    check(f"{name} {' '.join(options)}: one sentence", r.returncode == 1 and says in r.stderr and r.stderr.count("\n") == 1)


def schedulers(folder):
    run(folder, "schedulers", "--schedulers", "srpt,mlfq", "--loads", "0.95", "--requests", "600", "--seeds", "3", "--noise", "0.1")
    db = database(folder, "schedulers")
    mean = dict(db.execute("""select json_extract(f.value, '$'), avg(r.finish_ns - r.planned_ns) from run
        join run_factor f on f.run_id = run.id and f.name = 'scheduler' join request r on r.run_id = run.id
        where run.sweep = 'schedulers' group by 1"""))
    check("SRPT's mean response is below FCFS's", mean["srpt"] < 0.9 * mean["fcfs"])
    # what each request took alone is the least that it can take
    check("nobody is quicker than alone", db.execute("""select count(*) from request r join run on run.id = r.run_id
        join run a on a.sweep = 'schedulers, alone' and a.seed = run.seed join request q on q.run_id = a.id and q.id = r.id
        where run.sweep = 'schedulers' and (q.prompt_tokens <> r.prompt_tokens or q.output_tokens <> r.output_tokens
          or r.finish_ns - r.planned_ns < q.finish_ns - q.planned_ns - 1000)""").fetchone() == (0,))
    refused(folder, "schedulers", "--loads", "full", says='"full" is no load')
    refused(folder, "schedulers", "--schedulers", "fifo", says="no scheduler plugin `fifo`")


# Counted once more, from the rows: over any stretch in which both tenants had requests waiting, how far apart was their service?
def largest_difference(db, run_id, weight):
    requests = db.execute("select tenant, arrival_ns, admitted_ns from request where run_id = ?", (run_id,)).fetchall()
    service = {}
    for step, tenant, got in db.execute("""select c.step_id, q.tenant, sum(case when c.phase = 'prefill' then c.tokens else 0 end
            + case when c.phase = 'decode' or c.first_position + c.tokens = q.prompt_tokens then 2 else 0 end)
          from step_request c join request q on q.run_id = c.run_id and q.id = c.request_id
          where c.run_id = ? group by 1, 2""", (run_id,)):
        service.setdefault(step, {})[tenant] = got
    prefix, largest, steps = [0.0], 0.0, 0
    for step, start in db.execute("select id, start_ns from step where run_id = ? order by id", (run_id,)):
        waiting = {t for t, arrival, admitted in requests if arrival <= start and (admitted is None or admitted > start)}
        if waiting == {"a", "b"}:
            got = service[step]
            prefix.append(prefix[-1] + got.get("a", 0) - got.get("b", 0) / weight)
            steps += 1
            largest = max(largest, max(prefix) - prefix[-1], prefix[-1] - min(prefix))
        else:
            prefix = [0.0]
    return largest, steps


def fairness(folder):
    text = run(folder, "fairness", "--requests", "400", "--seeds", "3", "--places", "4")
    bound = int(re.search(r"bound 2 · max\(.*\) = (\d+)", text).group(1))
    check("the bound is twice the pool's tokens, each at w_q", bound == 2 * 2 * 4 * 480)
    db = database(folder, "fairness")
    for name, weight in ("fcfs", 1), ("vtc", 1), ("vtc, b weighs 2", 2):
        runs = [i for i, in db.execute("select id from run where label = 'promise: ' || ?", (name,))]
        found = [largest_difference(db, i, weight) for i in runs]
        worst, steps = max(f[0] for f in found), sum(f[1] for f in found)
        said = re.search(rf"^{re.escape(name)} (kept|BROKE) the bound: ([\d.]+)% of it at most, over (\d+) steps", text, re.M)
        check(f"{name}: the report counts as the rows do", abs(float(said.group(2)) - 100 * worst / bound) < 0.06 and int(said.group(3)) == steps)
        check(f"{name}: enough steps with both waiting", steps > 1000)
        if name == "fcfs":
            check("FCFS does not keep VTC's bound", worst > bound and said.group(1) == "BROKE")
        else:
            check(f"{name} keeps its bound at every step", worst <= bound and said.group(1) == "kept")
            check(f"{name}: and isn't trivially apart", worst > 0)
        check(f"{name}: the paper's assumptions held", db.execute(f"""select sum(preemptions), sum(cached_tokens) from request
            where run_id in ({','.join(map(str, runs))})""").fetchone() == (0, 0))
    ttft = dict(db.execute("""select run.label, avg(first_token_ns - planned_ns) from run join request r on r.run_id = run.id
        where run.label in ('flood: fcfs', 'flood: vtc') and tenant <> 'flooder' group by 1"""))
    check("the polite wait less under VTC", ttft["flood: vtc"] < 0.5 * ttft["flood: fcfs"])


def preemption(folder):
    text = run(folder, "preemption", "--contexts", "128", "--swap", "50,600,6000", "--requests", "40", "--seeds", "3")
    meet = re.search(r"the two meet where a block moves in (\d+) us .* the sum says (\d+) us", text)
    check("recompute and swap meet where the sum says", meet and 0.6 < int(meet.group(1)) / int(meet.group(2)) < 1.6)
    db = database(folder, "preemption")
    rows = {way: (r, n, spans) for way, r, n, spans in db.execute("""select json_extract(f.value, '$'),
          avg((select avg(finish_ns - planned_ns) from request q where q.run_id = run.id)),
          sum((select sum(preemptions) from request q where q.run_id = run.id)),
          sum((select count(*) from request_span p where p.run_id = run.id and p.state = 'swapped'))
        from run join run_factor f on f.run_id = run.id and f.name = 'way' group by 1""")}
    check("a cheap move beats recomputing, a dear one doesn't", rows[50][0] < rows["recompute"][0] < rows[6000][0])
    check("somebody was preempted in each", all(n > 0 for _, n, _ in rows.values()))
    check("who is preempted was swapped, or wasn't", rows["recompute"][2] == 0 and rows[50][2] == rows[50][1])
    table = [line.split() for line in text.splitlines() if re.match(r" *128  ", line)]
    check("recomputed tokens and moved blocks are where they belong", int(table[0][3]) > 0 and int(table[0][4]) == 0
          and int(table[1][-8]) == 0 and int(table[1][-7]) > 0)
    refused(folder, "preemption", "--swap", "300,200", says="not above the one before")


def mean_response(db, case):
    return db.execute("""select avg(r.finish_ns - r.planned_ns) from run join run_factor f on f.run_id = run.id and f.name = 'case'
        join request r on r.run_id = run.id where json_extract(f.value, '$') = ?""", (case,)).fetchone()[0]


def length_prediction(folder):
    run(folder, "length_prediction", "--requests", "600", "--seeds", "3", "--sigmas", "0,1,3")
    db = database(folder, "length_prediction")
    fcfs = mean_response(db, "fcfs")
    known, noisy, lost = (mean_response(db, f"srpt {s}") for s in (0, 1, 3))
    check("SRPT gains over FCFS, and noise takes from it", known < 0.8 * fcfs and known < noisy < lost)
    check("preempting gains over SJF", known < mean_response(db, "sjf 0"))
    check("without predictions SRPT is FCFS", mean_response(db, "srpt none") == fcfs)
    check("with the mean for everybody SJF is FCFS", mean_response(db, "sjf mean") == fcfs)
    refused(folder, "length_prediction", "--sigmas", "1,2", says="begin with 0")


def predictor_bias(folder):
    run(folder, "predictor_bias", "--requests", "600", "--seeds", "3", "--factor", "8")
    db = database(folder, "predictor_bias")
    exact = mean_response(db, "srpt, exact")
    check("any error costs", all(mean_response(db, f"srpt, {e}") > exact for e in
          ("both ways", "all too short", "short ones too long", "long ones too short", "some long ones too short")))
    check("a factor that all share hardly moves SJF", abs(mean_response(db, "sjf, all too long") / mean_response(db, "sjf, exact") - 1) < 0.02)
    sign = db.execute("""select sum(r.predicted_tokens < r.output_tokens), sum(r.predicted_tokens > r.output_tokens) from run
        join run_factor f on f.run_id = run.id and f.name = 'case' join request r on r.run_id = run.id
        where json_extract(f.value, '$') = 'srpt, some long ones too short'""").fetchone()
    check("errors lean to their side", sign[0] > 0 and sign[1] == 0)


for experiment in schedulers, fairness, preemption, length_prediction, predictor_bias:
    with tempfile.TemporaryDirectory() as fresh:
        experiment(fresh)
sys.exit(1 if failures else 0)
