# SPDX-License-Identifier: MIT
"""A database of lathe as pandas DataFrames: one file, to be copied beside a notebook.

    import lathe
    lathe.latency("results/x.db").groupby(["scheduler", "rate"]).ttft_p50_ms.mean()

Each frame has the run's factors (what a sweep varied) as columns beside its own; a factor that
has the name of a column is called factor_NAME. Milliseconds are *_ms, nanoseconds *_ns.

    runs(db)      a row a run: label, sweep, seed, state, …
    latency(db)   a row a run: view run_latency, percentiles of its requests
    requests(db)  a row a request: its table and its latencies in milliseconds
    steps(db)     a row a step of the engine

`db` is a path. `where` filters in SQL: requests("x.db", "run_id = 3"). Only what was done, unless
done=False. Reading changes nothing, and works while a run is being recorded.
"""
import json
import pathlib
import sqlite3

import pandas


def query(db, sql, parameters=()):
    """Any SELECT as a frame; tables `attention` and `attention_weights` need lathe_sqlite.so."""
    path = pathlib.Path(db)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such database; lathe run makes results/SCRIPT.db")
    # Read and write, though nothing is written: a connection that may only read and is closed last
    # leaves the write-ahead log beside the file.
    connection = sqlite3.connect(path.absolute().as_uri() + "?mode=rw", uri=True)
    try:
        connection.execute("pragma query_only = on")
        return pandas.read_sql_query(sql, connection, params=parameters)
    finally:
        connection.close()


def _with_factors(db, frame):
    factors = query(db, "select run_id, name, value from run_factor")
    if factors.empty or "run_id" not in frame:
        return frame
    factors["value"] = [_plain(json.loads(text)) for text in factors["value"]]
    wide = factors.pivot(index="run_id", columns="name", values="value").infer_objects()
    wide = wide.rename(columns={name: f"factor_{name}" for name in wide.columns if name in frame})
    wide.columns.name = None
    return frame.merge(wide, how="left", left_on="run_id", right_index=True)


def _plain(value):
    """A list or an object (an option table) can be no group's key: its JSON text can."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value


def _rows(db, select, where, done):
    conditions = ["run_id in (select id from run where state = 'done')"] if done else []
    if where:
        conditions.append(f"({where})")
    clause = f" where {' and '.join(conditions)}" if conditions else ""
    return _with_factors(db, query(db, f"select * from ({select}){clause} order by run_id"))


def runs(db, where=None, done=False):
    return _rows(db, "select id as run_id, * from run", where, done).drop(columns=["id"])


def latency(db, where=None, done=True):
    return _rows(db, "select r.sweep, r.seed, r.seed_index, l.* from run_latency l join run r on r.id = l.run_id", where, done)


def requests(db, where=None, done=True):
    own = "queue_ms, ttft_ms, tpot_ms, itl_max_ms, e2e_ms, met_slo"
    columns = ", ".join(f"l.{name.strip()}" for name in own.split(","))
    return _rows(db, f"select q.*, {columns} from request q join request_latency l on l.run_id = q.run_id and l.request_id = q.id",
                 where, done)


def steps(db, where=None, done=True):
    return _rows(db, "select *, (end_ns - start_ns) / 1e6 as ms from step", where, done)
