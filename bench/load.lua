-- Sends each request of a file once, in its order, and stops when the last of them is answered.
-- Arguments: the file, how many requests it holds, the bytes of each, how many connections send them.

local ffi = require("ffi")
ffi.cdef("struct timespec { long seconds; long nanoseconds; }; int clock_gettime(int, struct timespec *);")
local CLOCK_MONOTONIC = 1
local clock = ffi.new("struct timespec")

local file, total, size, connections
local asked, sent, idle = false, 0, 0
local began

local function now()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, clock)
    return tonumber(clock.seconds) + tonumber(clock.nanoseconds) / 1e9
end

function init(arguments)
    file = assert(io.open(arguments[1], "rb"))
    file:setvbuf("full", 2 ^ 20)
    total, size, connections = tonumber(arguments[2]), tonumber(arguments[3]), tonumber(arguments[4])
end

function request()
    if not asked then
        -- wrk asks once to learn how many requests a call gives, and sends nothing of that.
        asked = true
        local first = file:read(size)
        file:seek("set", 0)
        return first
    end
    if sent == 0 then
        began = now()
    end
    if sent < total then
        sent = sent + 1
        return file:read(size)
    end
    -- A connection asks for the next request when its last one is answered; given nothing, it never asks again.
    idle = idle + 1
    if idle == connections then
        io.write(string.format("answered %.9f %.9f\n", began, now()))
        io.flush()
        wrk.thread:stop()
    end
    return ""
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format(
        "summary %d %d %d %d %d %d %.2f\n",
        summary.requests, failed, errors.status,
        latency:percentile(50), latency:percentile(99), latency.max, os.clock()
    ))
end
