-- Requests of one size for wrk, each prompt with a beginning of its own; what came as one JSON line.
--
--   wrk -s gateway.lua URL -- KEY BYTES TEXT
--
-- An answer is an error when its status is not 2xx, or TEXT or its end is missing: some gateways
-- write it anew, so its size says nothing.
local prompts = 64
local bodies, turn, expected = {}, 0, ""
errors = 0

function init(args)
  local key, size = args[1], tonumber(args[2])
  expected = args[3]
  local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. key }
  local head = '{"model":"m","max_tokens":64,"messages":[{"role":"user","content":"'
  local tail = '"}]}'
  for i = 1, prompts do
    local text = string.format("%04d ", i)
    text = text .. string.rep("word ", size / 5):sub(1, size - #head - #text - #tail)
    bodies[i] = wrk.format("POST", "/v1/chat/completions", headers, head .. text .. tail)
  end
end

function request()
  turn = turn % prompts + 1
  return bodies[turn]
end

function response(status, headers, body)
  local whole = body:find(expected, 1, true) and body:find("}%s*$")
  if status < 200 or status > 299 or not whole then
    errors = errors + 1
  end
end

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function done(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
  failed = failed + summary.errors.timeout
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("errors")
  end
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"errors":%d}\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
