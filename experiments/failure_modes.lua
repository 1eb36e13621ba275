-- What happens when something fails: what did the caller see, and how soon was it served again?
-- SPDX-License-Identifier: MIT
--
-- One failure after the other is made to happen to an engine that is serving: a model whose
-- forward fails for a while (a passing fault, and one that lasts), a KV pool too small for what
-- is asked, token ids that no vocabulary has, a prompt beyond the context, a service that is
-- overloaded, and a worker process that is killed or stopped in the middle of an answer. Each
-- time: what the caller got, and how long until a request was answered again.
--
--   lathe run experiments/failure_modes.lua
local lathe = require "lathe"

local PROMPT <const> = "The lathe turns the work and the tool is still."

-- What a request came to, in words.
local function outcome(r)
  if r.error then return ("%s after %d tokens: %s"):format(r.finish_reason, #r.tokens, r.error) end
  return ("%s, %d tokens"):format(r.finish_reason, #r.tokens)
end

-- Seconds until a request is answered without an error, asking again and again.
local function served_again(e, tokens)
  local from = lathe.now()
  for _ = 1, 1000 do
    local post = e:post { prompt = PROMPT, max_tokens = tokens or 1, ignore_eos = true }
    if post and not post:await().error then return lathe.now() - from end
    e:advance(0.005)
  end
  return nil
end

local cases = {}

-- A fault of the model, injected by model/tiny: `count` forwards in a row fail, from the fifth on.
local function faulty(name, count, status)
  return { name = name, run = function(o)
    local model <close> = lathe.model { "tiny", fail_after = 5, fail_count = count, fail_status = status }
    local e <close> = lathe.engine { model = model, bus = { "sync", breaker_open_ms = 200 }, label = name, database = o.database }
    local r = e:post { prompt = PROMPT, max_tokens = 12, ignore_eos = true }:await()
    return r, served_again(e), e:health()
  end }
end
cases[#cases + 1] = faulty("a forward fails once, for a passing reason", 1, "io")
cases[#cases + 1] = faulty("a forward fails once, for good", 1, "internal")
cases[#cases + 1] = faulty("the model fails 30 times in a row", 30, "io")

cases[#cases + 1] = { name = "KV memory runs out", run = function(o)
  local model <close> = lathe.model { "tiny", context = 4096 }
  local e <close> = lathe.engine { model = model, bus = "sync", label = "out of blocks", database = o.database,
                                   kvcache = { "paged", block_tokens = 16 }, engine = { kv_memory_mb = 0.05, context_tokens = 4096 } }
  local r = e:post { prompt = PROMPT, max_tokens = 2000, ignore_eos = true }:await()
  return r, served_again(e), e:health()
end }

cases[#cases + 1] = { name = "a token id outside the vocabulary", run = function(o)
  local model <close> = lathe.model { "tiny" }
  local e <close> = lathe.engine { model = model, bus = "sync", label = "invalid ids", database = o.database }
  local r = e:post { tokens = { 1, 2, 2000000000 }, max_tokens = 4 }:await()
  return r, served_again(e), e:health()
end }

cases[#cases + 1] = { name = "a prompt beyond the context", run = function(o)
  local model <close> = lathe.model { "tiny" }
  local e <close> = lathe.engine { model = model, bus = "sync", label = "too long", database = o.database,
                                   engine = { context_tokens = 64 } }
  local r = e:post { prompt = PROMPT:rep(20), max_tokens = 4 }:await()
  return r, served_again(e), e:health()
end }

cases[#cases + 1] = { name = "overload, degraded mode on", run = function(o)
  local model <close> = lathe.model { "tiny", delay_us = 5000 }
  local e <close> = lathe.engine { model = model, bus = "sync", label = "overload", database = o.database,
                                   engine = { batch_requests = 2, degrade_wait_s = 0.1 }, trace = { attention = "summary" } }
  local posts, refused = {}, nil
  for i = 1, 60 do posts[i] = e:post { prompt = PROMPT:rep(1 + i % 7), max_tokens = 20, ignore_eos = true } end
  local count = 0
  for i = 1, 60 do
    local r = posts[i]:await()
    if r.error then
      refused, count = r, count + 1
    end
  end
  if refused then refused.error = ("%d of 60: %s"):format(count, refused.error) end
  return refused or posts[1]:await(), served_again(e), e:health()
end }

-- A worker process of the real model, killed (or stopped) after the second token.
local function lost(name, signal)
  return { name = name, run = function(o)
    local model <close> = lathe.model { "llama", path = o.model }
    local e <close> = lathe.engine { model = model, bus = "shm", label = name, database = o.database }
    local quiet = e:post { prompt = PROMPT, max_tokens = 16, ignore_eos = true }:await()
    local post = e:post { prompt = PROMPT, max_tokens = 16, ignore_eos = true }
    e:advance(0.05)
    local from = lathe.now()
    os.execute(("kill -%s %d"):format(signal, e:health().services.model.pid))
    local r = post:await()
    local whole = lathe.now() - from
    local same = table.concat(r.tokens, " ") == table.concat(quiet.tokens, " ")
    if not r.error then r.note = same and "the same tokens as undisturbed" or "OTHER tokens than undisturbed" end
    return r, whole, e:health()
  end }
end
cases[#cases + 1] = lost("a worker process is killed (SIGKILL)", "KILL")
cases[#cases + 1] = lost("a worker process hangs (SIGSTOP)", "STOP")

return {
  options = {
    model    = { default = "smollm2-135m", help = "for the killed worker: a short name or a GGUF file" },
    database = { default = "results/failure_modes.db", help = "where rows land" },
  },

  run = function(o)
    local rows = {}
    for i, case in ipairs(cases) do
      local r, seconds, health = case.run(o)
      rows[i] = { failure = case.name, caller = outcome(r) .. (r.note and ("; " .. r.note) or ""), again = seconds,
                  restarts = health.services.model.restarts, losses = health.losses }
    end
    return rows
  end,

  report = function(_, rows)
    local unserved, worst = 0, rows[1]
    print ""
    for _, row in ipairs(rows) do
      print(("%s\n    the caller saw   %s\n    served again     %s%s"):format(row.failure, row.caller,
        row.again and ("after %.0f ms"):format(1000 * row.again) or "never",
        row.restarts > 0 and (" (%d worker restarted)"):format(row.restarts) or ""))
      if not row.again then unserved = unserved + 1
      elseif row.again > worst.again then worst = row end
    end
    print(("\nWhat was found: %d of %d failures ended with the engine serving again; the slowest was back after %.0f ms (%s).\n" ..
           "Every caller got either its answer or one sentence. One trial each: times vary with the machine's load, and a larger model\n" ..
           "takes longer to be started again.")
      :format(#rows - unserved, #rows, 1000 * worst.again, worst.failure))
  end,
}
