-- Read by wrk. Arguments: the method, the size of the body, and the pattern of a path with a count n: if that is not
-- 0, the n paths are asked for in turn.

init = function(args)
  wrk.method = args[1]
  if tonumber(args[2]) > 0 then wrk.body = string.rep("x", tonumber(args[2])) end
  local pattern, count, turn = args[3], tonumber(args[4]), -1
  if count == 0 then return end
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
