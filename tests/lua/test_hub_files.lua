-- Files and tokenizers from the hub, a sweep on both, and the README's recipe
-- for Parquet; over real sockets, from tests/hub_server.py.
local check = require "check"
local download = require "llm.download"
local host = require "host"
local hub = require "llm.hub"
local micro = require "micro"
local t = require("hubtest").start "hubfiles"

local case, settings, requests = t.case, t.settings, t.requests
local text_of, row_text, refused = t.text_of, t.row_text, t.refused
local folder, here = t.folder, t.here

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
  t.no_leftovers(s)
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
  t.no_leftovers(s)
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
    env = { HF_ENDPOINT = here, HF_HOME = folder .. "/hf" } })
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
  t.no_leftovers(s)
end)

case("files that match a pattern, as many as are wanted", function()
  local s = settings()
  local name = "hf:t/files:shards/part-*.jsonl.gz"
  requests()
  local got = hub.source(name, { bytes = 100 }, s)
  check.equal(got.files, 1)
  local list = requests()
  check.equal(#list, 3)
  check.equal(list[1].path, "/api/datasets/t/files/tree/main/shards")
  check.equal(list[3].path,
    "/datasets/t/files/resolve/main/shards/part-0.jsonl.gz")
  got = hub.source(name, {}, s)
  check.equal(got.files, 4)
  check.equal(#requests(), 3, "the list and one file were there")
  check.equal(#text_of(got.source), 150 + 50)
  check.equal(hub.present(name, s), "4 files in the cache")
  local p = assert(host.text.prepare { source = got.source, files = 2,
    cache = "", vocab = 300 })
  check.equal(p.documents, 100)
  refused("hf:t/files:shards/none-*.jsonl", "no file of the repository "
    .. "matches", s)
  refused("hf:t/files:nowhere/*.jsonl", "the server answers 404", s)
end)

-- --- tokenizers -------------------------------------------------------------

local function put_tokenizer()
  local corpus = assert(host.text.corpus { texts = { ("ab bc "):rep(200) } })
  local made = assert(host.text.tokenizer { train = corpus, vocab = 260 })
  assert(made:save(folder .. "/tokenizer.json"))
  return made
end

case("a tokenizer by resolve, then from the cache", function()
  local made, s = put_tokenizer(), settings()
  requests()
  local path = hub.tokenizer("hf:t/model", s)
  check.equal(requests()[1].path, "/t/model/resolve/main/tokenizer.json")
  check.equal(assert(host.text.tokenizer { file = path }):hash(), made:hash())
  check.equal(hub.tokenizer("hf:t/model", s), path)
  check.equal(#requests(), 0)
  check.equal(hub.has_tokenizer("hf:t/model", s), true)
  assert(host.file.write(folder .. "/tokenizer.json", '{"model": 1}'))
  check.raises("what came is not what it should be", hub.tokenizer,
    "hf:t/model", settings())
end)

case("the folder of other programs is looked at first", function()
  local made = put_tokenizer()
  local base = folder .. "/hf/hub/models--t--shared"
  assert(host.file.mkdir(base .. "/refs"))
  assert(host.file.mkdir(base .. "/snapshots/abc"))
  assert(host.file.write(base .. "/refs/main", "abc"))
  assert(made:save(base .. "/snapshots/abc/tokenizer.json"))
  requests()
  check.equal(hub.tokenizer("hf:t/shared", settings()),
    base .. "/snapshots/abc/tokenizer.json")
  check.equal(#requests(), 0)
end)

case("what huggingface_hub has fetched is found, where it put it", function()
  local made = put_tokenizer()
  local p = host.process.spawn { os.getenv "LLMHOST_PYTHON" or "python3", "-c",
    "from huggingface_hub import hf_hub_download as get\n"
    .. "print(get('t/theirs', 'tokenizer.json'))", stdin = "null",
    stdout = "pipe", stderr = "null", env = { HF_ENDPOINT = here,
      HF_HOME = folder .. "/hf", HF_HUB_DISABLE_TELEMETRY = "1" } }
  local path = p and p:read_line(60)
  if not path then check.skip "no python3 with huggingface_hub" end
  p:wait(20)
  requests()
  check.equal(hub.tokenizer("hf:t/theirs", settings()), path)
  check.equal(#requests(), 0)
  check.equal(assert(host.text.tokenizer { file = path }):hash(), made:hash())
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

-- Rows and a file into a cache; "done", or the error.
local FILL = [[
local hub = require "llm.hub"
local s = hub.settings(%q)
s.attempts = 1
local ok, e = pcall(function()
  hub.source("hf:t/good/c/s", { rows = 110 }, s)
  hub.source("hf:t/files:same.jsonl", {}, s)
end)
print(ok and "done" or "failed: " .. tostring(e.code))]]

case("every write fails once: nothing wrong is ever kept", function()
  local n, text, met = 0
  local log = folder .. "/faults.log"
  repeat
    n = n + 1
    local cache = folder .. "/faults"
    host.file.remove_tree(log)
    local p <close> = assert(host.process.spawn { host.process.executable(),
      "-e", FILL:format(cache), stdin = "null", stdout = "pipe",
      stderr = "null", env = { HF_ENDPOINT = here, HF_HOME = folder .. "/hf",
        LLMHOST_FAIL_WRITE = tostring(n), LLMHOST_FAIL_LOG = log } })
    text = p:read_line(20)
    p:wait(10)
    met = host.file.read(log):find(" fail ", 1, true)
    check.truthy(text == "done" or text == "failed: disk"
      or text == "failed: world", n .. ": " .. tostring(text))
    local s = settings(nil, cache)
    check.equal(#text_of(hub.source("hf:t/good/c/s", { rows = 110 },
      s).source), 200, "after fault " .. n)
    check.equal(#text_of(hub.source("hf:t/files:same.jsonl", {}, s).source),
      50)
    t.no_leftovers(s)
    host.file.remove_tree(cache)
  until not met -- a note that stays, say, is no failure
  check.equal(text, "done")
  check.truthy(n > 40, n .. " calls")
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
  check.equal(p:read_line(10), "false\tstopped by a signal while fetching")
  p:wait(10)
  check.equal(host.file.size(path .. ".part"), 100)
end)

-- --- a sweep ----------------------------------------------------------------

case("a sweep on text and a tokenizer of the hub", function()
  put_tokenizer()
  local root = micro.folder "hub"
  micro.script(root, '{ name = "baseline" }', nil, "steps = 2")
  local env = { HF_ENDPOINT = here, HF_HOME = folder .. "/hf" }
  local function sweep(...)
    local spec = { host.process.executable(), "sweep.lua",
      "data.source=hf:t/good/c/s", "data.tokenizer=hf:t/model", ... }
    spec.cwd, spec.stdin, spec.stdout, spec.stderr, spec.env = root, "null",
      "pipe", "pipe", env
    return micro.finish(assert(host.process.spawn(spec)))
  end
  requests()
  local status, out, err = sweep()
  check.equal(status.exit, 0, out .. err)
  check.equal(#requests(), 4, "three pages and a tokenizer")
  check.truthy(out:find("data: hf:t/good/c/s: ", 1, true), out)
  local s = require("llm.state").read(root .. "/out/journal.jsonl")
  check.equal(s.data.source, "hf:t/good/c/s")
  check.equal(s.data.revision, "rev1")
  check.truthy(host.file.read(root .. "/out/experiment_report.md"):find(
    "- text: hf:t/good/c/s (revision rev1), ", 1, true))
  check.truthy(s.data.documents > 20, s.data.documents)
  check.equal(s.data.vocab, 260)
  status, out, err = sweep "--fresh"
  check.equal(status.exit, 0, out .. err)
  check.equal(#requests(), 0, "all of it is in the cache")
  local again = require("llm.state").read(root .. "/out/journal.jsonl")
  check.equal(again.data.train.crc32, s.data.train.crc32)
  check.equal(again.data.reused, true)
  host.file.remove_tree(root)
end)

-- --- Parquet ----------------------------------------------------------------

-- The recipe as the README prints it.
local function recipe()
  for block in assert(host.file.read "README.md"):gmatch "```sh\n(.-)```" do
    if block:find("pyarrow", 1, true) then return block end
  end
  error "README.md has no recipe for Parquet"
end

check.case("the README's recipe for Parquet", function()
  local python = os.getenv "LLMHOST_PYTHON" or "python3"
  local work = folder .. "/parquet"
  assert(host.file.mkdir(work))
  local function run(...)
    local spec = { ... }
    spec.cwd, spec.stdin, spec.stdout, spec.stderr = work, "null", "pipe",
      "pipe"
    local p = host.process.spawn(spec)
    if not p then return { exit = 127 }, "", "" end
    return micro.finish(p)
  end
  if run(python, "-c", "import pyarrow.parquet").exit ~= 0 then
    check.skip "no python3 with pyarrow"
  end
  local status, _, err = run(python, "-c", [[
import pyarrow as pa, pyarrow.parquet as pq
for k in range(2):
    t = pa.table({"id": list(range(30)), "text": ["Größe %d\n\"%d\"" % (k, i)
                  for i in range(30)]})
    pq.write_table(t, "train-%d.parquet" % k, row_group_size=7)]])
  check.equal(status.exit, 0, err)
  status, _, err = run("sh", "-ec", (recipe():gsub("python3", python)))
  check.equal(status.exit, 0, err)
  local texts = text_of(work .. "/corpus.jsonl.gz")
  check.equal(#texts, 60)
  check.equal(texts[1], 'Größe 0\n"0"')
  check.equal(texts[60], 'Größe 1\n"29"')
end)

t.done()
