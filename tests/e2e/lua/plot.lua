-- Pictures: what is drawn is what was given, texts stay texts, and what can't be drawn is a sentence.
-- SPDX-License-Identifier: MIT
local lathe    = require "lathe"
local gnuplot  = require "lathe.plot_gnuplot"
local heat     = require "lathe.plot_heat"
local lines    = require "lathe.plot_lines"
local timeline = require "lathe.plot_timeline"
local t        = require "support"

local plot = lathe.plot
local function text_of(program) return table.concat(program, "\n") end
local function has(program, ...)
  for _, piece in ipairs { ... } do t.truth(text_of(program):find(piece, 1, true), piece .. " in " .. text_of(program)) end
end

-- texts: nothing in single quotes has a meaning but the quote
local evil = "`touch hacked` $(touch hacked) it's \"q\" 50% {a}_b \\n @x\n!touch hacked"
t.equal(gnuplot.quoted(evil), "'`touch hacked` $(touch hacked) it''s \"q\" 50% {a}_b \\n @x !touch hacked'")
t.equal(gnuplot.tick "50%", "'50%%'")
t.equal(gnuplot.tick(("é"):rep(30)), "'" .. ("é"):rep(21) .. "…'")
t.equal(gnuplot.number(0 / 0), "NaN")
t.equal(gnuplot.number(1 / 3), "0.3333333333")
t.equal(gnuplot.block("a", { { 1, 2 }, { 3, 1 / 0 } }), "$a << EOD\n1 2\n3 NaN\nEOD")

-- lines
local program = lines.program { file = "a.svg", x = "rate", y = "ms", title = "t", log = "y", marks = { 90 }, lines = {
  { title = "fcfs", { 1, 10 }, { 2, 20, 18, 25 } }, {}, { title = "sjf", { 1, 5 }, { 2, 6 } } } }
has(program, "set logscale y", "1 10 10 10\n2 20 18 25",
  "$line1 using 1:2:3:4 with yerrorlines title 'fcfs' lt 1", "$line3 using 1:2 with linespoints title 'sjf' lt 3",
  "90 notitle", "set xrange [0.97:2.03]")
t.truth(not text_of(program):find("$line2", 1, true), "a line without points is left out")
has(lines.program { file = "a.png", band = true, lines = { { { 1, 0, -1, 1 }, { 2, 3 } } } }, "set terminal pngcairo size 800,500",
  "$line1 using 1:3:4 with filledcurves",
  "set yrange [-1.2:3.2]")
has(lines.program { file = "a.png", lines = { { { 1, 7 } } }, ticks = { "one%" } }, "('one%%' 1)", "set xrange [0.7:1.3]")

-- ecdf: up at each value, ties at once; the band is Massart's
program = lines.ecdf_program { file = "a.svg", samples = { { title = "x", 3, 1, 2, 2 } } }
local half = math.sqrt(math.log(40) / 8)
has(program, "title 'x (n = 4)'", ("1 0.25 0 %.10g"):format(0.25 + half), ("2 0.25 0 %.10g\n2 0.75 %.10g 1"):format(0.25 + half, 0.75 - half), "3 1 ")
local many = { title = "many" }
for i = 1, 100000 do many[i] = i end
local _, count = text_of(lines.ecdf_program { file = "a.svg", samples = { many } }):gsub("\n", "")
t.truth(count > 2000 and count < 4000, "a long sample is thinned: " .. count)

-- heat
program = heat.program { file = "a.svg", rows = { { 0.5, nil, 2 }, { 1 } }, y_ticks = { "a", "b" }, down = true, label = "weight" }
has(program, "0 0 0.5\n1 0 NaN\n2 0 2\n0 1 1\n1 1 NaN", "set yrange [1.5:-0.5]", "set ytics font ',9' ('a' 0, 'b' 1)")

-- timeline
program = timeline.program { file = "a.svg", tracks = { { name = "r1", { 0, 1, "queue" }, { 1, 3, "decode" } }, { name = "r2", { 2, 3, "odd" } } } }
has(program, "set ytics font ',9' ('r1' 1, 'r2' 2)", "2 1 1 3 0.6 1.4", "lt 7 title 'queue'", "lt 1 title 'decode'", "title 'odd'")

-- of a run
local model = lathe.model "tiny"
local r = lathe.run { model = model, workload = { { prompt = "hello there", output_tokens = 5 }, { prompt = "hi", output_tokens = 9, at = 0.001 } },
                      trace = { attention = "full", tokens = "all" } }
local bare = lathe.run { model = model, workload = { { prompt = "hello", output_tokens = 2 } } }
local tracks = timeline.tracks_of("x", { run = r })
local steps = r:query "select count(*) as n from step where run_id = :run" [1].n
t.equal(#tracks, 3)
t.equal(#tracks[1], steps)
t.equal(tracks[3].name, "request 2")
t.equal(tracks[3][#tracks[3]][3], "decode")
t.near(tracks[3][#tracks[3]][2], r:query "select finish_ns / 1e9 as f from request where run_id = :run and id = 2" [1].f, 1e-12)

local function read(name)
  local file <close> = io.open(name, "rb")
  return file and file:read "a"
end
local drawn, why = plot.lines { file = "lines.svg", title = evil, x = evil, lines = { { title = evil, { 1, 2 }, { 2, 3, 2, 4 } } }, ticks = { evil, "b" } }
if drawn then
  t.equal(drawn, "lines.svg")
  local _, found = read "lines.svg":gsub("`touch hacked` $%(touch hacked%) it's \"q\" 50%% {a}_b \\n @x !touch hacked", "")
  t.equal(found, 3, "title, axis and key, letter by letter")
  t.truth(read "lines.svg":find("`touch hacked` $(touch hacked) it's \"q\" 50", 1, true), "a tick, as far as there is room")
  t.equal(read "hacked", nil)
  t.equal(plot.ecdf { file = "ecdf.png", samples = { { 1, 2, 3 }, many } }, "ecdf.png")
  t.equal(read "ecdf.png":sub(1, 8), "\137PNG\r\n\26\n")
  t.equal(plot.heads { file = "heads.svg", run = r, measure = "entropy", request = 1 }, "heads.svg")
  t.equal(plot.attention { file = "attention.png", run = r, request = 1, layer = 1, head = 0, width = 640, height = 480 }, "attention.png")
  t.equal(string.unpack(">I4I4", read "attention.png", 17), 640)
  t.equal(plot.attention { file = "log.svg", run = r, request = 2, layer = 1, head = 0, log = true }, "log.svg")
  t.equal(plot.timeline { file = "timeline.svg", run = r }, "timeline.svg")
  t.truth(read "timeline.svg":find("request 2", 1, true), "tracks are named")
  t.equal(plot.heat { file = "it's.svg", rows = { { 1, 2 }, { 3 } } }, "it's.svg")
  t.truth(read "it's.svg":find "<svg", "a name with a quote")
  t.fails(function() plot.lines { file = "no/such/x.svg", lines = { { { 1, 2 } } } } end, "no/such/x.svg can't be written")
else
  t.truth(why:find("gnuplot", 1, true), why)
end

-- mistakes
t.fails(function() plot.lines { file = "x.pdf", lines = { { { 1, 2 } } } } end, ".svg or .png")
t.fails(function() plot.lines { file = "x.svg", lines = { {} } } end, "no point")
t.fails(function() plot.lines { file = "x.svg", lines = { { { 1 } } } } end, "line 1, point 1")
t.fails(function() plot.lines { file = "x.svg", line = {} } end, "did you mean \"lines\"?")
t.fails(function() plot.lines { lines = { { { 1, 2 } } } } end, "\"file\"")
t.fails(function() plot.lines { file = "x.svg", log = "z", lines = { { { 1, 2 } } } } end, "\"log\"")
t.fails(function() plot.ecdf { file = "x.svg", samples = { {} } } end, "at least 1")
t.fails(function() plot.ecdf { file = "x.svg", samples = { 1, 2 } } end, "array")
t.fails(function() plot.heat { file = "x.svg", rows = { {} } } end, "no cell")
t.fails(function() plot.heads { file = "x.svg", run = bare } end, "attention = \"summary\"")
t.fails(function() plot.heads { file = "x.svg", run = r, measure = "mass" } end, "first_mass")
t.fails(function() plot.heads { file = "x.svg", run = 7 } end, "lathe.run")
t.fails(function() plot.attention { file = "x.svg", run = r, request = 1, layer = 9, head = 0 } end, "layer 9")
t.fails(function() plot.timeline { file = "x.svg", tracks = {} } end, "no track")
t.fails(function() plot.timeline { file = "x.svg", tracks = { { { 1 } } } } end, "bar 1")
