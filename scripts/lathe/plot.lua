-- SPDX-License-Identifier: MIT
-- require "lathe.plot", or lathe.plot: pictures as .svg or .png files, drawn by gnuplot.
--
--   plot.lines { file = "x.svg", x = "requests a second", y = "TTFT, ms", lines = {
--     { title = "fcfs", { 1, 180 }, { 2, 240, 220, 265 } }, … } }    a third and fourth number are an interval
--       band = true: intervals as bands, not bars; marks = { 90 }: grey lines across; ticks = { "fcfs", "sjf" }: names of
--       x = 1, 2, …; points = false; from, to: of y; log = "x", "y" or "xy"
--   plot.ecdf { file = …, x = "TTFT, ms", samples = { { title = "fcfs", 180, 170, … }, … } }   with its 95% band (level = 0.95)
--   plot.heat { file = …, rows = { { 0.1, 0.9 }, … }, x = …, y = …, label = "weight" }   x_ticks, y_ticks: names;
--       down = true: the first row on top
--   plot.heads { file = …, run = r, measure = "first_mass" }          a layer a row, a head a column (entropy, recent_mass, …)
--   plot.attention { file = …, run = r, request = 1, layer = 3, head = 2 }   a query a row, a key a column; log = true
--   plot.timeline { file = …, run = r, from = 0, to = 2 }             steps and requests, in seconds
--   plot.timeline { file = …, tracks = { { name = "worker 1", { 0, 1.5, "busy" }, … }, … } }
--
-- All take title, width and height (pixels). They return the file's name; without gnuplot nil and a sentence, which
-- is no error: figures are in the database all the same. `s:plot` of a sweep draws with plot.lines.
local heat     = require "lathe.plot_heat"
local lines    = require "lathe.plot_lines"
local timeline = require "lathe.plot_timeline"

return { lines = lines.draw, ecdf = lines.ecdf, heat = heat.draw, heads = heat.heads, attention = heat.attention, timeline = timeline.draw }
