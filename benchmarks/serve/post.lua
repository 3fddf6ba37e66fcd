-- wrk: POST the prepared multipart bodies in turn; at the end print one line of JSON.
-- Arguments: folder of the bodies, their number, the boundary, the path.

local requests, turn = {}, 0

function init(args)
   local folder, count, boundary, path = args[1], tonumber(args[2]), args[3], args[4]
   local headers = { ["Content-Type"] = "multipart/form-data; boundary=" .. boundary }
   for i = 1, count do
      local file = assert(io.open(folder .. "/" .. (i - 1) .. ".body", "rb"))
      requests[i] = wrk.format("POST", path, headers, file:read("*a"))
      file:close()
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format(
      'JSON {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, "bad_status": %d, "broken": %d, "timeouts": %d}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1000, latency:percentile(90) / 1000,
      latency:percentile(99) / 1000, latency.max / 1000,
      errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
