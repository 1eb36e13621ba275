#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe export --format otlp`: counts are SQL's, parents exist, and the official protobufs read the file; --push against a
collector that refuses, answers late, takes a part, or isn't there."""
import base64
import collections
import http.server
import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

source = pathlib.Path(os.environ["LATHE_SOURCE"])
if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):  # what test.sh installs is for Debian's Python
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
sys.path[0] = str(source / "build/python")
try:
    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
except ImportError:
    ExportTraceServiceRequest = None

lathe = os.environ["LATHE"]
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def call(*words):
    return subprocess.run([lathe, *words], cwd=here, capture_output=True, text=True, timeout=120)


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}", flush=True)
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-800:]}\n  stderr: {result.stderr[-800:]}" if hasattr(result, "returncode") else f"  {result}")


def value(v):
    return int(v["intValue"]) if "intValue" in v else v["arrayValue"]["values"] if "arrayValue" in v else next(iter(v.values()))


def spans_of(lines):
    for line in lines:
        for resource in json.loads(line)["resourceSpans"]:
            about = {a["key"]: value(a["value"]) for a in resource["resource"]["attributes"]}
            for span in resource["scopeSpans"][0]["spans"]:
                span["about"], span["has"] = about, {a["key"]: value(a["value"]) for a in span.get("attributes", [])}
                yield span


r = call("run", "-q", "--database", "x.db", str(source / "tests/support/export_runs.lua"))
check("runs are made", r.returncode == 0, r)
db = sqlite3.connect(here / "x.db")
db.execute("insert into hop values (1, 9001, 5, null, 0, 'model.inner', 50000, 60000, 70000, 1, -16, 1)")
db.execute("update request set finish_reason = 'deadline' where run_id = 2 and id = 7")
db.commit()


def one(query):
    return db.execute(query).fetchone()[0]


r = call("export", "x.db", "--format", "otlp", "-o", "x.jsonl")
check("exports", r.returncode == 0 and r.stderr == "", r)
lines = (here / "x.jsonl").read_text().splitlines()
spans = list(spans_of(lines))
kinds = collections.Counter("request" if "lathe.request" in s["has"] else "step" if "lathe.step" in s["has"] else "hop" if "lathe.hop" in s["has"]
                            else "run" if "lathe.run" in s["has"] else "phase" for s in spans)
sql = {name: one(f"select count(*) from {name}") for name in ("request", "step", "hop", "run")}
check("spans are counted by SQL", all(kinds[name] == n for name, n in sql.items()) and kinds["phase"] > 2 * sql["request"], (kinds, sql))
check("several batches, a run in none with another", len(lines) > 3 and all(len({r["resource"]["attributes"][2]["value"]["stringValue"] for r in
      json.loads(line)["resourceSpans"]}) == 1 for line in lines))
ids = [s["spanId"] for s in spans]
by_id = {s["spanId"]: s for s in spans}
check("ids are W3C's, each once", len(set(ids)) == len(ids) and all(len(s["spanId"]) == 16 and int(s["spanId"], 16) and len(s["traceId"]) == 32
      and int(s["traceId"], 16) for s in spans))
outside = "00f067aa0ba902b7"
orphans = [s for s in spans if s.get("parentSpanId") and s["parentSpanId"] != outside and by_id.get(s["parentSpanId"], {}).get("traceId") != s["traceId"]]
check("each parent is there, in the same trace", not orphans, orphans[:2])
roots = [s for s in spans if not s.get("parentSpanId")]
check("roots are runs and requests", len(roots) == sql["run"] + sql["request"] - 1)
given = next(s for s in spans if s.get("parentSpanId") == outside)
check("a traceparent is gone on from", given["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736" and given["has"]["lathe.request"] == 2)
links = [link for s in spans for link in s.get("links", [])]
check("a link for each request in a step", len(links) == one("select count(*) from step_request") and all(by_id[k["spanId"]]["traceId"] == k["traceId"]
      and by_id[k["spanId"]]["kind"] == 2 for k in links))
late = [s for s in spans if s.get("parentSpanId") in by_id and s["name"] in ("queue", "prefill", "decode", "preempted")
        and not int(by_id[s["parentSpanId"]]["startTimeUnixNano"]) <= int(s["startTimeUnixNano"]) <= int(s["endTimeUnixNano"])
        <= int(by_id[s["parentSpanId"]]["endTimeUnixNano"])]
check("phases lie inside their request", not late, late[:2])
parents = collections.Counter((s["name"], by_id[s["parentSpanId"]]["name"] if s.get("parentSpanId") in by_id else "") for s in spans if "lathe.hop" in s["has"])
check("hops hang where they belong", parents["scheduler.rank", "step"] > 0 and parents["model.forward", "step"] > 0 and
      parents["tokenizer.encode", "text_completion tiny"] == 3 and parents["tokenizer.decode", "text_completion tiny"] == 23 and parents["model.inner", "model.forward"] == 1, parents)
row = db.execute("select started_at + planned_ns, started_at + finish_ns, prompt_tokens, output_tokens, first_token_ns - planned_ns from request q "
                 "join run on run.id = run_id where run_id = 2 and q.id = 5").fetchone()
fifth = next(s for s in spans if s["has"].get("lathe.request") == 5 and s["has"]["lathe.run"] == 2)
check("a request's span says what its row says", (int(fifth["startTimeUnixNano"]), int(fifth["endTimeUnixNano"]), fifth["has"]["gen_ai.usage.input_tokens"],
      fifth["has"]["gen_ai.usage.output_tokens"], fifth["has"]["lathe.ttft_ns"]) == row and fifth["has"]["gen_ai.request.model"] == "sim"
      and fifth["has"]["gen_ai.response.finish_reasons"] == [{"stringValue": "length"}], (fifth, row))
failed = [s for s in spans if s.get("status", {}).get("code") == 2]
check("failures have a status", sorted(s["has"]["error.type"] for s in failed) == ["deadline", "status -16"], failed)
check("resources name the run", spans[0]["about"]["lathe.run.label"] == 'a "label", of\ntwo lines' and spans[0]["about"]["service.instance.id"] == one("select uid from run where id = 1"))
call("export", "x.db", "-f", "chrome", "-o", "x.json")
call("export", "x.db", "-o", "csv")
chrome = {(e["pid"] // 10, e["tid"]): e["args"]["trace_id"] for e in json.loads((here / "x.json").read_text())["traceEvents"] if e.get("cat") == "request"}
otlp = {(s["has"]["lathe.run"], s["has"]["lathe.request"]): s["traceId"] for s in spans if "lathe.request" in s["has"]}
import csv  # noqa: E402
table = {(int(row["run_id"]), int(row["id"])): row["trace_id"] for row in csv.DictReader(open(here / "csv/request.csv", newline=""))}
check("one trace id in all three formats", chrome == otlp == table and len(otlp) == sql["request"])


# ── the official protobufs ───────────────────────────────────────────────────────────────
def parse(text):
    """OTLP's JSON has ids in hexadecimal, protobuf's own in base64: this is the one difference."""
    def rewrite(o):
        if isinstance(o, dict):
            return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ("traceId", "spanId", "parentSpanId") else rewrite(v) for k, v in o.items()}
        return [rewrite(v) for v in o] if isinstance(o, list) else o
    return json_format.ParseDict(rewrite(json.loads(text)), ExportTraceServiceRequest())


if ExportTraceServiceRequest:
    messages = [parse(line) for line in lines]
    found = [s for m in messages for rs in m.resource_spans for ss in rs.scope_spans for s in ss.spans]
    check("the official protobufs read every span", len(found) == len(spans) and [s.span_id.hex() for s in found] == ids)
    check("and every link, attribute and time", sum(len(s.links) for s in found) == len(links) and sum(len(s.attributes) for s in found)
          == sum(len(s["has"]) for s in spans) and all(s.end_time_unix_nano >= s.start_time_unix_nano > 1.6e18 for s in found))
else:
    print("not asked: the official protobufs; absent: python3 -m pip install --target build/python opentelemetry-proto")

# ── a collector ──────────────────────────────────────────────────────────────────────────
answers, bodies, seen = [], [], []


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen.append((time.monotonic(), self.path, dict(self.headers)))
        status, reply, headers = answers.pop(0) if answers else (200, b"{}", {})
        if status == 200:
            bodies.append(body.decode())
        if status == 0:  # no answer at all
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}"


def push(*words, says=()):
    answers[:], bodies[:], seen[:] = says, [], []
    return call("export", "x.db", "-f", "otlp", "--push", *(words or (url,)))


r = push()
check("a collector gets the lines of the file", r.returncode == 0 and bodies == lines and {p for _, p, _ in seen} == {"/v1/traces"} and
      all(h["Content-Type"] == "application/json" for _, _, h in seen), r)
if ExportTraceServiceRequest:
    check("and reads them with the official protobufs", sum(len(ss.spans) for b in bodies for rs in parse(b).resource_spans for ss in rs.scope_spans) == len(spans))
r = push(url + "/elsewhere/traces", "--header", "Authorization: Bearer abc", "--run", "1", "-o", "both.jsonl")
check("path, header, run and file", r.returncode == 0 and seen[0][1] == "/elsewhere/traces" and seen[0][2]["Authorization"] == "Bearer abc"
      and (here / "both.jsonl").read_text().splitlines() == bodies, r)
r = push(says=[(503, b"busy", {}), (0, b"", {})])
check("what passes is asked again", r.returncode == 0 and bodies == lines and len(seen) == len(lines) + 2, r)
r = push(says=[(429, b"", {"Retry-After": "1"})])
check("Retry-After is waited for", r.returncode == 0 and bodies == lines and seen[1][0] - seen[0][0] >= 0.95, r)
r = push(says=[(503, b"too\nbusy", {})] * 3)
check("three attempts, then one sentence", r.returncode == 1 and len(seen) == 3 and "503, in 3 attempts" in r.stderr and "too busy" in r.stderr and r.stderr.count("\n") == 1, r)
r = push(says=[(400, b'{"code": 3, "message": "no such thing"}', {})])
check("what lasts is not asked again", r.returncode == 1 and len(seen) == 1 and "400" in r.stderr and "no such thing" in r.stderr and r.stderr.count("\n") == 1, r)
r = push(says=[(200, b'{"partialSuccess": {"rejectedSpans": "7", "errorMessage": "too old"}}', {})])
check("spans that were refused are told", r.returncode == 1 and "too old" in r.stderr and f"{len(spans) - 7} of {len(spans)}" in r.stderr, r)
unused = socket.socket()
unused.bind(("127.0.0.1", 0))
for words, said in (((f"http://127.0.0.1:{unused.getsockname()[1]}",), "is a collector listening"), (("ftp://127.0.0.1/x",), "URL is expected"),
                    (("localhost",), "URL is expected"), (("http://nowhere.invalid",), "nowhere.invalid")):
    r = push(*words)
    check(f"--push {words[0].split(':')[0]} {said}: one sentence", r.returncode == 1 and said in r.stderr and r.stderr.count("\n") == 1 and r.stdout == "", r)
for words, said in ((("-f", "otlp"), "--push"), (("-f", "otlp", "-o", "y", "--header", "a: b"), "--push"), (("-f", "otlp", "-o", "y", "--header", "ab"), "Name: value"),
                    (("-f", "otlp", "-o", "y", "--header", "a: b\r\nc: d", "--push", url), "Name: value"), (("-o", "y", "--push", url), "otlp")):
    r = call("export", "x.db", *words)
    check(f"export {' '.join(words).encode()}: one sentence", r.returncode == 2 and said in r.stderr and r.stderr.count("\n") == 1, r)
sys.exit(1 if failures else 0)
