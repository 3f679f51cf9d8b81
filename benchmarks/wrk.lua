-- Read by wrk. Arguments: none, or the pattern of a path and a count n: then the n paths are asked for in turn.

init = function(args)
  if #args < 2 then return end
  local pattern, count, turn = args[1], tonumber(args[2]), -1
  request = function()
    turn = (turn + 1) % count
    return wrk.format(nil, (pattern:gsub("{}", turn)))
  end
end

-- Prints what a run was like as one line of JSON, latencies in microseconds.
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "failed": %d, "refused": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
