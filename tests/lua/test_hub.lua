-- Data from the hub, over real sockets, from a server that speaks its protocol
-- well and badly (tests/hub_server.py).
local check = require "check"
local download = require "llm.download"
local host = require "host"
local hub = require "llm.hub"

local folder = (os.getenv "TMPDIR" or "/tmp") .. "/llmhost-test-hub"
host.file.remove_tree(folder)
assert(host.file.mkdir(folder))

local server = host.process.spawn { "python3", "tests/hub_server.py", folder,
  stdin = "pipe", stdout = "pipe" }
local line = server and server:read_line(20) or ""
local port, other = line:match "^(%d+) (%d+)$"
local here = port and "http://127.0.0.1:" .. port

local function case(name, body)
  check.case(name, function()
    if not host.libraries().curl then check.skip "no libcurl" end
    if not here then check.skip "no python3 to serve" end
    body()
  end)
end

-- --- helpers ----------------------------------------------------------------

local said, caches = {}, 0

local function settings(env, cache)
  local all = { HF_ENDPOINT = here, HF_HOME = folder .. "/home",
    HF_HUB_DOWNLOAD_TIMEOUT = "10" }
  for key, value in pairs(env or {}) do all[key] = value end
  said, caches = {}, caches + 1
  local s = hub.settings(cache or folder .. "/cache" .. caches, function(text)
    said[#said + 1] = text
  end, function(name) return all[name] end)
  s.backoff, s.attempts = .01, 3
  return s
end

-- Requests since the last call.
local read_so_far = 0
local function requests()
  local all, list = host.file.read(folder .. "/requests") or "", {}
  for text in all:sub(read_so_far + 1):gmatch "[^\n]+" do
    list[#list + 1] = assert(host.json.decode(text))
  end
  read_so_far = #all
  return list
end

local function text_of(source, field)
  local corpus = assert(host.text.corpus { source = source, field = field })
  local texts = {}
  for i = 1, corpus:count() do texts[i] = corpus:document(i) end
  return texts
end

local function row_text(i)
  return ("Row %d tells of größe %d.\nIt has 2 lines."):format(i, i * i)
end

local function no_leftovers(s)
  local p = assert(host.process.spawn { "find", s.cache, "(", "-name",
    "*.part*", "-o", "-name", "*.tmp.*", ")", stdin = "null",
    stdout = "pipe" })
  check.equal(p:read_line(10), nil, "left in the cache")
  p:wait(10)
end

local function refused(name, want, s, how)
  local e = check.raises(want, hub.source, name, how or {}, s or settings())
  check.equal(#(host.file.glob((s or {}).cache or "none") or {}) <= 1, true)
  return e
end

-- --- names and settings -----------------------------------------------------

check.case("names", function()
  local function parts(name)
    local s = hub.parse(name)
    return table.concat({ s.repo, s.path or s.config .. "|" .. s.split,
      s.revision }, "|")
  end
  check.equal(parts "hf:a/b/c/d", "a/b|c|d")
  check.equal(parts "hf:a/b/c", "a/b|c|train")
  check.equal(parts "hf:a/b", "a/b|default|train")
  check.equal(parts "hf:a/b:x/y.jsonl.zst", "a/b|x/y.jsonl.zst")
  check.equal(parts "hf:a/b@v1:y.jsonl", "a/b|y.jsonl|v1")
  for _, bad in ipairs { "hf:", "hf:a", "hf:a/../b", "hf:a/b/c/d/e",
    "hf:a/b:", "hf:a/b:../x", "hf:a/b:/x", "hf:a/b:x/../../y", "hf:a b/c",
    "hf:a/b/c:x", "hf:a//b", "hf:a/b@../x:y" } do
    local e = check.raises("names nothing on the hub; write hf:OWNER/NAME",
      hub.parse, bad)
    check.equal(e.code, "usage")
  end
end)

check.case("what the usual variables say", function()
  local function with(env)
    return hub.settings("c", nil, function(name) return env[name] end)
  end
  local s = with { HOME = "/h" }
  check.equal(s.endpoint, "https://huggingface.co")
  check.equal(s.rows, "https://datasets-server.huggingface.co")
  check.equal(s.shared, "/h/.cache/huggingface/hub")
  check.equal(s.offline, false)
  check.equal(s.idle, 60)
  s = with { HF_ENDPOINT = "http://x:1/", HF_HOME = "/y", HF_TOKEN = " t\n",
    HF_HUB_OFFLINE = "1", HF_HUB_DOWNLOAD_TIMEOUT = "7" }
  check.equal(s.endpoint .. " " .. s.rows, "http://x:1 http://x:1")
  check.equal(s.shared, "/y/hub")
  check.equal(s.token, "t")
  check.equal(s.offline, true)
  check.equal(s.idle, 7)
  check.equal(with { HF_HUB_CACHE = "/z" }.shared, "/z")
  assert(host.file.mkdir(folder .. "/login"))
  assert(host.file.write(folder .. "/login/token", "hf_file\n"))
  check.equal(with { HF_HOME = folder .. "/login" }.token, "hf_file")
end)

-- --- rows -------------------------------------------------------------------

case("rows in pages, cached, all of them", function()
  local s = settings()
  requests()
  local got = hub.source("hf:t/good/c/s", {}, s)
  check.equal(got.rows, 250)
  check.equal(got.revision, "rev1")
  check.equal(got.files, 3)
  local list = requests()
  check.equal(#list, 3)
  check.equal(list[2].path,
    "/rows?dataset=t%2Fgood&config=c&split=s&offset=100&length=100")
  check.truthy(list[1].headers["User-Agent"]:find "^llmhost/")
  check.equal(list[1].headers.Authorization, nil)
  local texts = text_of(got.source)
  check.equal(#texts, 250)
  for i = 1, 250 do check.equal(texts[i], row_text(i - 1)) end
  check.equal(hub.source("hf:t/good/c/s", {}, s).source, got.source)
  check.equal(#requests(), 0, "the cache was enough")
  check.equal(hub.present("hf:t/good/c/s", s), "250 of 250 rows in the cache")
  no_leftovers(s)
end)

case("only as many rows as are wanted, and later more", function()
  local s = settings()
  requests()
  check.equal(hub.source("hf:t/good/c/s", { rows = 90 }, s).files, 1)
  check.equal(#requests(), 1)
  local few = hub.source("hf:t/good/c/s", { bytes = 6000 }, s)
  check.equal(few.files, 2)
  check.equal(#requests(), 1)
  hub.source("hf:t/good/c/s", {}, s)
  check.equal(#requests(), 1)
  local again = hub.source("hf:t/good/c/s", { rows = 90 }, s)
  local p = assert(host.text.prepare { source = again.source,
    files = again.files, cache = "", vocab = 300 })
  check.equal(p.documents, 100)
  check.equal(#requests(), 0)
end)

case("another field is another set of pages", function()
  local s = settings()
  local got = hub.source("hf:t/good/c/s", { field = "body", rows = 10 }, s)
  check.equal(text_of(got.source, "body")[8], "body 7")
  check.raises('no field "txt"; the columns are: id, text, body '
    .. '(data.field=NAME)', hub.source, "hf:t/good/c/s", { field = "txt" }, s)
  check.raises('field "text" is not text', hub.source, "hf:t/numbers/c/s", {},
    s)
end)

case("busy servers are asked again, after the time they say", function()
  local s = settings()
  requests()
  check.equal(hub.source("hf:t/flaky/c/s", {}, s).rows, 250)
  check.equal(#requests(), 6)
  check.equal(#said, 3)
  check.truthy(said[1]:find("the server answers 503; again in 0.01 s (attempt "
    .. "2 of 3)", 1, true), said[1])
  check.truthy(said[2]:find("the server answers 429; again in 0.1 s", 1, true),
    said[2])
end)

case("a server that stays down is given up", function()
  local s = settings()
  requests()
  refused("hf:t/down/c/s", "the server answers 503: down for repairs", s)
  check.equal(#requests(), 3)
  check.equal(hub.present("hf:t/down/c/s", s), nil)
end)

case("a connection that ends early is tried again", function()
  local s = settings()
  local got = hub.source("hf:t/cut/c/s", {}, s)
  check.equal(#text_of(got.source), 250)
  check.equal(#said, 3)
  check.truthy(said[1]:find("; again in 0.01 s (attempt 2 of 3)", 1, true))
end)

case("answers that are not what they should be", function()
  refused("hf:t/truncated/c/s", "the answer is no page of rows (no type; ")
  refused("hf:t/html/c/s", "the answer is no page of rows (text/html")
  refused("hf:t/badgzip/c/s", "cannot fetch '" .. here .. "/rows?")
  local e = refused("hf:t/good/c/none",
    "the server answers 404: The split does not exist; is the name right?")
  check.equal(e.code, "world")
end)

case("coded answers are decoded", function()
  local s = settings()
  check.equal(text_of(hub.source("hf:t/gzip/c/s", {}, s).source)[250],
    row_text(249))
end)

case("a slow server runs into the time-out", function()
  local s = settings { HF_HUB_DOWNLOAD_TIMEOUT = "0.3" }
  s.attempts = 2
  local began = host.clock()
  local e = refused("hf:t/slow/c/s", "nothing came for 0.3 seconds; without "
    .. "the hub: data.source=PATH", s)
  check.truthy(host.clock() - began < 3, "it waited too long")
  check.truthy(tostring(e):find("data.source=system", 1, true))
end)

case("a dataset that changes meanwhile is fetched again, whole", function()
  local s = settings()
  local got = hub.source("hf:t/moving/c/s", {}, s)
  check.equal(got.revision, "rev2")
  check.equal(#text_of(got.source), 250)
  check.equal(said[1], "hf:t/moving/c/s has changed on the hub; its rows are "
    .. "fetched again")
  refused("hf:t/restless/c/s", "changes on the hub while it is fetched")
end)

case("rows cut short, empty, or fewer than said", function()
  local s = settings()
  local got = hub.source("hf:t/cells/c/s", {}, s)
  check.equal(got.cut, 1)
  local texts = text_of(got.source)
  check.equal(#texts, 248)
  check.equal(texts[4], row_text(5))
  requests()
  got = hub.source("hf:t/short/c/s", {}, s)
  check.equal(got.rows, 140)
  check.equal(#requests(), 2)
  check.equal(hub.source("hf:t/short/c/s", {}, s).rows, 140)
  check.equal(#requests(), 0)
end)

-- --- tokens, redirects, proxies ---------------------------------------------

case("a token is sent, and never told", function()
  local e = refused("hf:t/gated/c/s", "the server answers 401: The dataset is "
    .. "gated; it needs an access token of yours (HF_TOKEN)")
  check.equal(e.code, "world")
  local s = settings { HF_TOKEN = "hf_secret" }
  requests()
  check.equal(hub.source("hf:t/gated/c/s", {}, s).rows, 250)
  check.equal(requests()[1].headers.Authorization, "Bearer hf_secret")
  e = check.raises("401", hub.source, "hf:t/gated/c/s", {},
    settings { HF_TOKEN = "hf_other" })
  check.equal(tostring(e):find("hf_other", 1, true), nil)
  check.equal(table.concat(said):find("hf_other", 1, true), nil)
  check.raises("holds spaces or other characters", hub.source,
    "hf:t/gated/c/s", {}, settings { HF_TOKEN = "a\r\nX-Evil: 1" })
end)

case("a redirect to another origin does not get the token", function()
  local s = settings { HF_TOKEN = "hf_secret" }
  requests()
  local got = hub.source("hf:t/files:moved.jsonl", {}, s)
  check.equal(#text_of(got.source), 50)
  local list = requests()
  check.equal(#list, 2)
  check.equal(tostring(list[1].port), port)
  check.equal(list[1].headers.Authorization, "Bearer hf_secret")
  check.equal(tostring(list[2].port), other)
  check.equal(list[2].headers.Authorization, nil)
  check.equal(#got.revision, 40)
  hub.source("hf:t/files:renamed.jsonl", {}, s)
  list = requests()
  check.equal(list[2].headers.Authorization, "Bearer hf_secret",
    "the same origin does")
end)

case("redirects that go nowhere", function()
  refused("hf:t/files:loop.jsonl", "more than 8 redirects")
  refused("hf:t/files:ftp.jsonl", "which is not safe to follow")
end)

-- Run code in a process with these variables; its output.
local function run(code, env)
  local all = { HF_HOME = folder .. "/home", http_proxy = "", https_proxy = "" }
  for key, value in pairs(env) do all[key] = value end
  local p <close> = assert(host.process.spawn { host.process.executable(),
    "-e", code, stdin = "null", stdout = "pipe", env = all })
  local out, text = {}, p:read_line(30)
  while text do
    out[#out + 1] = text
    text = p:read_line(30)
  end
  p:wait(10)
  return table.concat(out, "\n")
end

local ASK = [[
local s = require("llm.hub").settings(%q)
s.attempts, s.backoff = 1, .01
print(pcall(require("llm.hub").source, "hf:t/good/c/s", {rows = 1}, s))]]

case("proxies are used, but not for what no_proxy names", function()
  requests()
  local out = run(ASK:format(folder .. "/p1"), {
    HF_ENDPOINT = "https://hub.invalid", https_proxy = here })
  check.truthy(out:find("^false"), out)
  local list = requests()
  check.equal(#list, 1)
  check.equal(list[1].method .. " " .. list[1].path,
    "CONNECT datasets-server.hub.invalid:443")
  out = run(ASK:format(folder .. "/p2"), { HF_ENDPOINT = here,
    http_proxy = "http://127.0.0.1:1", no_proxy = "127.0.0.1" })
  check.truthy(out:find("^true"), out)
  out = run(ASK:format(folder .. "/p3"), { HF_ENDPOINT = here,
    http_proxy = "http://127.0.0.1:1" })
  check.truthy(out:find("^false.*connect"), out)
end)

case("offline: what else there is", function()
  local s = settings { HF_ENDPOINT = "http://127.0.0.1:1" }
  s.attempts = 1
  local e = refused("hf:t/good/c/s", "; without the hub: data.source=PATH "
    .. "(text or JSONL, plain, .gz or .zst), data.source=system", s)
  check.truthy(tostring(e):find("cannot fetch 'http://127.0.0.1:1/rows?", 1,
    true), tostring(e))
  e = refused("hf:t/good/c/s", "hf:t/good/c/s is not in the cache as far as "
    .. "it is wanted, and HF_HUB_OFFLINE is set", settings {
    HF_HUB_OFFLINE = "1" })
  check.truthy(tostring(e):find("data.source=system", 1, true))
  local cache = folder .. "/offline"
  hub.source("hf:t/good/c/s", {}, settings(nil, cache))
  requests()
  check.equal(hub.source("hf:t/good/c/s", {}, settings({
    HF_HUB_OFFLINE = "1" }, cache)).rows, 250)
  check.equal(#requests(), 0)
end)

-- --- files ------------------------------------------------------------------

case("a file of a repository, once", function()
  local s = settings()
  requests()
  local got = hub.source("hf:t/files@v1:data/good.jsonl.gz", {}, s)
  check.equal(text_of(got.source)[50], row_text(49))
  check.equal(requests()[1].path,
    "/datasets/t/files/resolve/v1/data/good.jsonl.gz")
  check.equal(hub.source("hf:t/files@v1:data/good.jsonl.gz", {}, s).revision,
    got.revision)
  check.equal(#requests(), 0)
  check.equal(hub.present("hf:t/files@v1:data/good.jsonl.gz", s),
    "in the cache")
  assert(host.file.append(got.source, "x"))
  hub.source("hf:t/files@v1:data/good.jsonl.gz", {}, s)
  check.equal(#requests(), 1, "another size: not what was fetched")
  no_leftovers(s)
end)

case("a file cut short is continued where it ended", function()
  local s = settings()
  requests()
  local got = hub.source("hf:t/files:cut.jsonl", {}, s)
  check.equal(#text_of(got.source), 50)
  local list = requests()
  check.equal(#list, 2)
  check.equal(list[1].headers.Range, nil)
  check.equal(list[2].headers.Range, ("bytes=%d-"):format(
    host.file.size(got.source) // 2))
  check.equal(list[2].headers["If-Range"], '"one"')
  no_leftovers(s)
end)

case("a file that changed, or whose tag is weak, starts over", function()
  local s = settings()
  check.equal(#text_of(hub.source("hf:t/files:changed.jsonl", {}, s).source),
    60)
  requests()
  check.equal(#text_of(hub.source("hf:t/files:weak.jsonl", {}, s).source), 50)
  check.equal(requests()[2].headers.Range, nil)
  s.attempts = 2
  refused("hf:t/files:wrongpart.jsonl", "the server sent another part than "
    .. "was asked for", s)
end)

case("a download that was killed is continued by the next one", function()
  local cache = folder .. "/killed"
  local path = cache .. "/hub/datasets--t--files/main/trickle.jsonl"
  local p = assert(host.process.spawn { host.process.executable(), "-e",
    ([[local s = require("llm.hub").settings(%q)
    require("llm.hub").source("hf:t/files:trickle.jsonl", {}, s)]]):format(
      cache), stdin = "null", stderr = "null",
    env = { HF_ENDPOINT = here, HF_HOME = folder .. "/home" } })
  local deadline = host.clock() + 15
  while not host.file.exists(path .. ".part.json") do
    check.truthy(host.clock() < deadline, "no part appeared")
    host.sleep(.02)
  end
  p:kill "KILL"
  p:wait(10)
  check.equal(host.file.exists(path), false)
  check.equal(host.file.size(path .. ".part"), 100)
  requests()
  local s = settings({ HF_HUB_DOWNLOAD_TIMEOUT = "0.3" }, cache)
  s.attempts = 1
  refused("hf:t/files:trickle.jsonl", "nothing came for 0.3 seconds", s)
  check.equal(requests()[1].headers.Range, "bytes=100-")
end)

case("files that are not what their name says are not kept", function()
  local s = settings()
  for name, want in pairs {
    ["page.jsonl"] = 'not JSONL (it begins with "<html>Please log in</html>")',
    ["wrong.jsonl.zst"] = "not Zstandard (it begins with",
    ["empty.jsonl"] = "nothing" } do
    refused("hf:t/files:" .. name, "what came is not what it should be: "
      .. want, s)
    check.equal(hub.present("hf:t/files:" .. name, s), nil)
  end
  check.equal(#text_of(hub.source("hf:t/files:coded.jsonl", {}, s).source), 50)
  refused("hf:t/files:absent.jsonl", "the server answers 404: Entry not found;"
    .. " is the name right?", s)
  no_leftovers(s)
end)

-- --- tokenizers -------------------------------------------------------------

local function put_tokenizer()
  local corpus = assert(host.text.corpus { texts = { ("ab bc "):rep(200) } })
  local t = assert(host.text.tokenizer { train = corpus, vocab = 260 })
  assert(t:save(folder .. "/tokenizer.json"))
  return t
end

case("a tokenizer by resolve, then from the cache", function()
  local t, s = put_tokenizer(), settings()
  requests()
  local path = hub.tokenizer("hf:t/model", s)
  check.equal(requests()[1].path, "/t/model/resolve/main/tokenizer.json")
  check.equal(assert(host.text.tokenizer { file = path }):hash(), t:hash())
  check.equal(hub.tokenizer("hf:t/model", s), path)
  check.equal(#requests(), 0)
  check.equal(hub.has_tokenizer("hf:t/model", s), true)
  assert(host.file.write(folder .. "/tokenizer.json", '{"model": 1}'))
  check.raises("what came is not what it should be", hub.tokenizer,
    "hf:t/model", settings())
end)

case("the folder of other programs is looked at first", function()
  local t = put_tokenizer()
  local base = folder .. "/home/hub/models--t--shared"
  assert(host.file.mkdir(base .. "/refs"))
  assert(host.file.mkdir(base .. "/snapshots/abc"))
  assert(host.file.write(base .. "/refs/main", "abc"))
  assert(t:save(base .. "/snapshots/abc/tokenizer.json"))
  requests()
  check.equal(hub.tokenizer("hf:t/shared", settings()),
    base .. "/snapshots/abc/tokenizer.json")
  check.equal(#requests(), 0)
end)

-- --- the rest ---------------------------------------------------------------

case("a disk that cannot be written to costs nothing else", function()
  local s = settings()
  assert(host.file.write(folder .. "/file", ""))
  local ok, e = pcall(download.get, { url = here .. "/blob/x",
    path = folder .. "/file/x", attempts = 1 })
  check.equal(ok, true)
  check.equal(e, nil)
  local answer, message, word = download.get { url = here .. "/blob/x",
    path = folder .. "/file/x", attempts = 1 }
  check.equal(answer, nil)
  check.equal(word, "disk", message)
  check.equal(s.offline, false)
end)

case("host.fetch: programmer errors, and an answer of any status", function()
  check.raises("an address begins with https:// or http://", host.fetch,
    { "ftp://x" })
  check.raises("host.fetch: give a url", host.fetch, {})
  check.raises("did you mean 'token'?", host.fetch, { here, tokens = "x" })
  local f = assert(host.fetch { here .. "/nothing" })
  while not f:wait(1) do end
  check.equal(f:answer().status, 404)
  check.equal(f:answer().body, '{"error": "no such page"}')
  check.equal(f:answer().headers["content-type"], "application/json")
  f:close()
  check.raises("this host.fetch is closed", function() f:wait(1) end)
end)

case("a signal ends a download at once; the part is kept", function()
  local path = folder .. "/stopped.jsonl"
  local p = assert(host.process.spawn { host.process.executable(), "-e", ([[
    print(pcall(require("llm.download").get, { path = %q,
      url = "%s/datasets/t/files/resolve/main/trickle.jsonl" }))]]):format(
    path, here), stdin = "null", stdout = "pipe" })
  local deadline = host.clock() + 15
  while not host.file.exists(path .. ".part.json") do
    check.truthy(host.clock() < deadline, "no part appeared")
    host.sleep(.02)
  end
  p:kill "TERM"
  check.equal(p:read_line(10), "false\t(command line):1: stopped by a signal "
    .. "while fetching")
  p:wait(10)
  check.equal(host.file.size(path .. ".part"), 100)
end)

if server then
  server:close_stdin()
  server:wait(10)
end
host.file.remove_tree(folder)
check.done()
