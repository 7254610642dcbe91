-- What the tests of the hub share: the server (tests/hub_server.py), settings
-- that lead to it, what it was asked, and what came of it.
local check = require "check"
local host = require "host"
local hub = require "llm.hub"

local hubtest = {}

local folder, server, here

-- Start the server, with a folder of its own for everything.
function hubtest.start(name)
  folder = (os.getenv "TMPDIR" or "/tmp") .. "/llmhost-test-" .. name
  host.file.remove_tree(folder)
  assert(host.file.mkdir(folder))
  server = host.process.spawn { "python3", "tests/hub_server.py", folder,
    stdin = "pipe", stdout = "pipe" }
  local line = server and server:read_line(20) or ""
  hubtest.port, hubtest.other, hubtest.tls = line:match
    "^(%d+) (%d+) ?(%d*)$"
  here = hubtest.port and "http://127.0.0.1:" .. hubtest.port
  hubtest.folder, hubtest.here = folder, here
  return hubtest
end

function hubtest.done()
  if server then
    server:close_stdin()
    server:wait(10)
  end
  host.file.remove_tree(folder)
  check.done()
end

-- A case that needs the server.
function hubtest.case(name, body)
  check.case(name, function()
    if not host.libraries().curl then check.skip "no libcurl" end
    if not here then check.skip "no python3 to serve" end
    body()
  end)
end

hubtest.said = {} -- what the last settings' `say` was told
local caches = 0

-- Settings for the server, with a cache of their own unless one is named.
function hubtest.settings(env, cache)
  local all = { HF_ENDPOINT = here, HF_HOME = folder .. "/hf",
    HF_HUB_DOWNLOAD_TIMEOUT = "10" }
  for key, value in pairs(env or {}) do all[key] = value end
  caches = caches + 1
  local said = {}
  hubtest.said = said
  local s = hub.settings(cache or folder .. "/cache" .. caches, function(text)
    said[#said + 1] = text
  end, function(name) return all[name] end)
  s.backoff, s.attempts = .01, 3
  return s
end

-- Requests since the last call.
local read_so_far = 0
function hubtest.requests()
  local all, list = host.file.read(folder .. "/requests") or "", {}
  for text in all:sub(read_so_far + 1):gmatch "[^\n]+" do
    list[#list + 1] = assert(host.json.decode(text))
  end
  read_so_far = #all
  return list
end

function hubtest.text_of(source, field)
  local corpus = assert(host.text.corpus { source = source, field = field })
  local texts = {}
  for i = 1, corpus:count() do texts[i] = corpus:document(i) end
  return texts
end

-- The text of the server's row i.
function hubtest.row_text(i)
  return ("Row %d tells of größe %d.\nIt has 2 lines."):format(i, i * i)
end

function hubtest.no_leftovers(s)
  local p = assert(host.process.spawn { "find", s.cache, "(", "-name",
    "*.part*", "-o", "-name", "*.tmp.*", ")", stdin = "null",
    stdout = "pipe" })
  check.equal(p:read_line(10), nil, "left in the cache")
  p:wait(10)
end

-- The source must be refused with these words; gives the error.
function hubtest.refused(name, want, s)
  return check.raises(want, hub.source, name, {}, s or hubtest.settings())
end

return hubtest
