-- What do exports look like?
local lathe = require "lathe"
local workload = require "lathe.workload"
lathe.run { model = lathe.model "tiny", label = 'a "label", of\ntwo lines', bus = "async",
  trace = { attention = "summary", tokens = "all", hops = true, kv = 1 }, workload = {
    { prompt = "hello there you", output_tokens = 12, tenant = "</x>" },
    { prompt = "a longer one", output_tokens = 8, at = 0.002, correlation_id = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
    { prompt = "one that is named", output_tokens = 3, at = 0.002, correlation_id = "mine" } } }
lathe.run { model = lathe.model { "sim", noise = 0.05 }, clock = "virtual", label = "pressure", workers = { model = 2 }, router = "p2c",
  kvcache = { "paged", blocks = 40 }, scheduler = "srpt", trace = { tokens = "output" }, workload = workload.poisson { rate = 12, requests = 60,
    seed = 1, prompt = workload.lognormal { median = 100, sigma = 1, max = 500 }, output = workload.lognormal { median = 40, sigma = 0.8, max = 100 } } }
lathe.run { model = lathe.model "sim", clock = "virtual", label = "requests only", trace = { rows = "requests" }, workload = workload.poisson {
  rate = 5, requests = 20, seed = 2, prompt = workload.fixed(50), output = workload.uniform { from = 1, to = 30 } } }
