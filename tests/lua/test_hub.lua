-- Rows from the hub, over real sockets, from a server that speaks its protocol
-- well and badly (tests/hub_server.py); names, tokens, redirects, proxies.
local check = require "check"
local data = require "llm.data"
local host = require "host"
local hub = require "llm.hub"
local t = require("hubtest").start "hub"

local case, settings, requests = t.case, t.settings, t.requests
local text_of, row_text, refused = t.text_of, t.row_text, t.refused
local folder, here = t.folder, t.here

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

check.case("what a sweep asks for by itself", function()
  local function options(changes, amount)
    local d = { source = "auto", tokenizer = "auto", tokens = "auto",
      vocab = 49152, validation = .1, cache = "c", field = "text" }
    for key, value in pairs(changes) do d[key] = value end
    return data.options(d, "full", amount or 1e8, 1000)
  end
  local o, note = options {}
  check.equal(o.source, "hf:HuggingFaceTB/smollm-corpus/cosmopedia-v2/train")
  check.equal(o.tokenizer, "hf:HuggingFaceTB/SmolLM-135M")
  check.equal(o.tokens, 50000000)
  check.truthy(note:find("50 million training tokens are fetched where 100 "
    .. "million would be 4 epochs", 1, true), note)
  o, note = options({}, 1000000)
  check.equal(o.tokens, 1000000)
  check.equal(note, nil)
  check.equal(options({ tokens = 70000000 }).tokens, 70000000)
  check.equal(options({ vocab = 8192 }).tokenizer, nil)
  check.equal(options({ tokenizer = "train" }).tokenizer, nil)
  check.equal(options({ source = "x" }).tokenizer, nil)
  check.equal(options({ source = "hf:a/b:c.jsonl" }).tokens, 1e8)
  check.equal(options({ preset = "original" }).tokens, 500000)
  o, note = options({ source = "x" }, 1 << 50)
  check.truthy(o.tokens < 1 << 40 and note:find("memory allows", 1, true))
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
  t.no_leftovers(s)
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
  check.equal(#t.said, 3)
  local first, second = t.said[1], t.said[2]
  check.truthy(first:find("the server answers 503; again in 0.01 s (attempt "
    .. "2 of 3)", 1, true), first)
  check.truthy(second:find("the server answers 429; again in 0.1 s", 1, true),
    second)
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
  check.equal(#t.said, 3)
  check.truthy(t.said[1]:find("; again in 0.01 s (attempt 2 of 3)", 1, true))
end)

case("answers that are not what they should be", function()
  refused("hf:t/truncated/c/s", "the answer is no page of rows (no type; ")
  refused("hf:t/html/c/s", "the answer is no page of rows (text/html")
  refused("hf:t/badgzip/c/s", "cannot fetch '" .. here .. "/rows?")
  local e = refused("hf:t/good/c/none",
    "the server answers 404: The split does not exist; is the name right?")
  check.equal(e.code, "world")
end)

case("what a server says cannot steer a terminal", function()
  local e = refused("hf:t/escape/c/s", "the server answers 404:  [31mred")
  check.equal(tostring(e):find("%c"), nil)
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
  check.equal(t.said[1], "hf:t/moving/c/s has changed on the hub; its rows are "
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
  check.equal(table.concat(t.said):find("hf_other", 1, true), nil)
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
  check.equal(tostring(list[1].port), t.port)
  check.equal(list[1].headers.Authorization, "Bearer hf_secret")
  check.equal(tostring(list[2].port), t.other)
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
  local all = { HF_HOME = folder .. "/hf", http_proxy = "", https_proxy = "" }
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

case("TLS: only with a certificate that is trusted, and never back", function()
  if t.tls == "" then check.skip "no openssl to make a certificate" end
  local env = { HF_ENDPOINT = "https://localhost:" .. t.tls,
    HF_TOKEN = "hf_secret" }
  requests()
  local e = refused("hf:t/good/c/s", "certificate", settings(env))
  check.truthy(tostring(e):find("; if a proxy of yours answers, name its "
    .. "certificate in CURL_CA_BUNDLE", 1, true), tostring(e))
  check.equal(#requests(), 0, "nothing was asked of a stranger")
  env.CURL_CA_BUNDLE = folder .. "/cert.pem"
  check.equal(hub.source("hf:t/good/c/s", {}, settings(env)).rows, 250)
  local first = requests()[1]
  check.equal(tostring(first.port), t.tls)
  check.equal(first.headers.Host, "datasets-server.localhost:" .. t.tls)
  check.equal(first.headers.Authorization, "Bearer hf_secret")
  refused("hf:t/files:moved.jsonl", "it redirects to '" .. "http://127.0.0.1:"
    .. t.other .. "', which is not safe to follow", settings(env))
  check.equal(#requests(), 1)
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

t.done()
