-- One address, fetched with patience: progress, retries that wait longer each
-- time, parts of files continued where they broke off, and files that appear
-- whole or not at all.
local fail = require "llm.fail"
local host = require "host"
local size = require "llm.size"

local download = {}

-- Answers that may be better a moment later.
local BUSY = { [408] = true, [425] = true, [429] = true, [500] = true,
  [502] = true, [503] = true, [504] = true }
-- Failures of the connection that may be gone a moment later.
local PASSING = { offline = true, cut = true, timeout = true }
local WAIT_MOST = 120 -- seconds that a server may make us wait

local function show(how, f)
  local got, total = f:progress()
  if got == 0 or how.quiet then return end
  host.terminal.progress(("%s: %s%s"):format(how.label or how.url,
    size.bytes(got), total and " of " .. size.bytes(total) or ""))
end

local function stop_if_asked()
  if host.process.interrupted() > 0 then
    host.terminal.progress()
    fail.raise("interrupted", "stopped by a signal while fetching")
  end
end

-- Sleep in short pieces, so that Ctrl-C ends it.
local function pause(seconds)
  local until_ = host.clock() + seconds
  while host.clock() < until_ do
    stop_if_asked()
    host.sleep(math.min(.25, math.max(0, until_ - host.clock())))
  end
end

-- --- parts of files ---------------------------------------------------------

local function part_of(path) return path .. ".part" end
local function note_of(path) return path .. ".part.json" end

local function drop_part(path)
  for _, name in ipairs { part_of(path), note_of(path) } do
    if host.file.exists(name) then host.file.remove(name) end
  end
end

-- How much of `url` is there already, and its ETag; 0 when nothing usable is.
local function part(how)
  local text = host.file.read(note_of(how.path))
  local note = text and host.json.decode(text)
  local there = host.file.size(part_of(how.path))
  if type(note) == "table" and note.url == how.url
    and type(note.etag) == "string" and there and there > 0 then
    return there, note.etag
  end
  drop_part(how.path)
  return 0
end

-- Write down what the part is of, once that is known, so that even a killed
-- download can be continued. Weak tags and coded bodies cannot be.
local function note_part(how, f)
  local got = f:progress()
  if not how.path or how.noted or got == 0 then return end
  local h = f:answer().headers
  how.noted = true
  if h.etag and not h.etag:find "^W/" and not h["content-encoding"] then
    host.file.write(note_of(how.path), host.json.encode {
      url = how.url, etag = h.etag })
  else
    if host.file.exists(note_of(how.path)) then
      host.file.remove(note_of(how.path))
    end
  end
end

-- --- one attempt ------------------------------------------------------------

local function start(how)
  local request = { url = how.url, token = how.token, most = how.most,
    connect = how.connect, idle = how.idle, authorities = how.authorities }
  if how.path then
    request.path = part_of(how.path)
    request.offset, request.etag = part(how)
  end
  how.noted = false
  return host.fetch(request)
end

-- The answer of one attempt; or nil, message, word.
local function attempt(how)
  local f <close>, message, code = start(how)
  if not f then return nil, message, code end
  while true do
    local done, why, word = f:wait(.2)
    note_part(how, f)
    if done then return f:answer() end
    if done == nil then return nil, why, word end
    stop_if_asked()
    show(how, f)
  end
end

-- What a server said, fit for a terminal and not too long.
function download.quoted(text)
  return (tostring(text):sub(1, 300):gsub("[%c\x7f]", " "))
end

-- What a server says about its refusal: JSON's "error", or a header.
local function reason(answer)
  local body = host.json.decode(answer.body)
  local text = type(body) == "table" and body.error
    or answer.headers["x-error-message"]
  return type(text) == "string" and ": " .. download.quoted(text) or ""
end

-- Seconds to wait before the next attempt.
local function patience(how, n, answer)
  local told = answer and tonumber(answer.headers["retry-after"])
  if told and told >= 0 then return math.min(told, WAIT_MOST) end
  return math.min(how.backoff * 2 ^ (n - 1), WAIT_MOST)
end

-- --- the whole --------------------------------------------------------------

-- Give the finished part its name, if `how.check(path, answer)` finds nothing
-- wrong.
local function keep(how, answer)
  local wrong = how.check and how.check(part_of(how.path), answer)
  if wrong then
    drop_part(how.path)
    return nil, ("%s: what came is not what it should be: %s"):format(how.url,
      wrong), "refused"
  end
  -- The note goes first: after the part no one would look for it.
  local ok, message, code = host.file.remove_tree(note_of(how.path))
  if ok then
    ok, message, code = host.file.rename(part_of(how.path), how.path)
  end
  if not ok then return nil, message, code end
  return answer
end

local function finished(how, answer)
  if answer.status == 200 or answer.status == 206 then
    if how.path then return keep(how, answer) end
    return answer
  end
  return nil, ("%s: the server answers %d%s"):format(how.url, answer.status,
    reason(answer)), "status", answer.status
end

-- Fetch how.url: into how.path, or into memory. how: token, label, most,
-- check, say(text), connect, idle, authorities, attempts (5), backoff (seconds
-- before the second attempt, then twice as many each time; 1), quiet, reached
-- (the server has answered before: a lost connection is worth all attempts).
-- Gives the answer (status, headers, body); or nil, message, word ("status"
-- and the number as a fourth for an answer that refuses). Raises "interrupted"
-- on a signal.
function download.get(how)
  how.attempts, how.backoff = how.attempts or 5, how.backoff or 1
  for n = 1, how.attempts do
    local answer, message, word = attempt(how)
    local again = answer and BUSY[answer.status] or PASSING[word]
    if answer and answer.status == 416 and how.path then
      drop_part(how.path)
      again = true
    end
    -- Where nothing answered before, there is probably no network.
    local most = word == "offline" and not how.reached
      and math.min(how.attempts, 2) or how.attempts
    if not again or n >= most then
      host.terminal.progress()
      if answer then return finished(how, answer) end
      return nil, message, word
    end
    local wait = patience(how, n, answer)
    if how.say then
      how.say(("%s; again in %.3g s (attempt %d of %d)"):format(message
        or ("%s: the server answers %d"):format(how.url, answer.status), wait,
        n + 1, most))
    end
    pause(wait)
  end
end

return download
