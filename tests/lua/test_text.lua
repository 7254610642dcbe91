-- host.text: tokenizers, corpora, token files, loaders, and the pipeline with
-- its cache.
local check = require "check"
local host = require "host"

local folder = (os.getenv("TMPDIR") or "/tmp") .. "/llmhost-test-text-lua"
host.file.remove_tree(folder)
assert(host.file.mkdir(folder .. "/texts"))

-- 40 files of different sentences: about 90 KB.
local WORDS = { "the", "model", "reads", "a", "token", "and", "writes",
  "another", "one", "layer", "after", "step", "doesn't", "loss", "rate", "42",
  "falls", "while", "memory", "stays", "größer", "naïve", "世界", "x=1;" }

local function put_texts()
  local state = 12345
  local function random(n)
    state = (state * 1103515245 + 12345) % 2147483648
    return state // 65536 % n + 1
  end
  for i = 1, 40 do
    local lines = {}
    for k = 1, 50 do
      local words = {}
      for w = 1, 8 do words[w] = WORDS[random(#WORDS)] end
      lines[k] = table.concat(words, " ") .. "."
    end
    local path = string.format("%s/texts/%02d.txt", folder, i)
    assert(host.file.write(path, table.concat(lines, "\n") .. "\n"))
  end
end
put_texts()

local function prepare(options)
  local all = { source = folder .. "/texts", vocab = 350, validation = 0.2,
    cache = folder .. "/cache" }
  for k, v in pairs(options or {}) do all[k] = v end
  return assert(host.text.prepare(all))
end

local function all_ids(tokens)
  return table.concat(tokens:get(1, tokens:count()), " ")
end

-- --- tokenizer --------------------------------------------------------------

local corpus = assert(host.text.corpus{ source = folder .. "/texts",
  validation = 0.2 })
local tokenizer = assert(host.text.tokenizer{ train = corpus, vocab = 350 })

check.case("encode and decode give every byte back", function()
  local every = {}
  for byte = 0, 255 do every[#every + 1] = string.char(byte) end
  for _, text in ipairs{ "", "Hello, world", table.concat(every),
      "größer als 世界 🙂", ("ab "):rep(1000) } do
    check.equal(tokenizer:decode(tokenizer:encode(text)), text)
  end
  check.equal(tokenizer:dropped(), 0)
end)

check.case("words of the corpus are few tokens", function()
  check.equal(#tokenizer:encode(" the model reads"), 3)
  check.equal(#tokenizer:encode("42"), 2, "digits stand alone")
  check.equal(tokenizer:count(), 350)
  check.equal(tokenizer:missing(), 0)
end)

check.case("special tokens", function()
  check.equal(tokenizer:special("<|endoftext|>"), 0)
  check.equal(tokenizer:special("<|other|>"), nil)
  local text = "a<|endoftext|>b"
  check.equal(tokenizer:decode(tokenizer:encode(text)), text)
  local ids = tokenizer:encode(text, { special = true })
  check.equal(#ids, 3)
  check.equal(ids[2], 0)
  check.equal(tokenizer:decode(ids), text)
  check.equal(tokenizer:decode(ids, { skip_special = true }), "ab")
  local name, special = tokenizer:token(0)
  check.equal(name, "<|endoftext|>")
  check.equal(special, true)
end)

check.case("save and load", function()
  local path = folder .. "/tokenizer.json"
  assert(tokenizer:save(path))
  local back = assert(host.text.tokenizer{ file = path })
  check.equal(back:hash(), tokenizer:hash())
  check.equal(#tokenizer:hash(), 16)
  local text = "the model doesn't fall; größer"
  check.equal(table.concat(back:encode(text), " "),
    table.concat(tokenizer:encode(text), " "))
  local data = host.json.decode((assert(host.file.read(path))))
  check.equal(data.model.type, "BPE")
  check.equal(#data.model.merges, 350 - 257)
end)

check.case("world errors are nil, message, code", function()
  local nothing, message, code = host.text.tokenizer{ file = "no/such.json" }
  check.equal(nothing, nil)
  check.equal(message,
    "cannot open 'no/such.json': No such file or directory")
  check.equal(code, "io")
  local bad = folder .. "/bad.json"
  assert(host.file.write(bad, "{\n\"model\": nil}"))
  nothing, message, code = host.text.tokenizer{ file = bad }
  check.equal(nothing, nil)
  check.equal(message, bad .. ":2: expected a value")
  check.equal(code, "format")
end)

check.case("programmer errors raise and say what was wrong", function()
  local text = host.text
  check.raises("give one of train (a corpus), file (a tokenizer.json) and "
    .. "merges (a merges.txt)", text.tokenizer, {})
  check.raises("did you mean 'vocab'?", text.tokenizer, { vocabs = 4 })
  check.raises("vocab", text.tokenizer, { train = corpus, vocab = 3 })
  check.raises("expected host.text.corpus, got", text.tokenizer,
    { train = "text" })
  check.raises("the text must be a string, got 12", function()
    tokenizer:encode(12)
  end)
  check.raises("ids must be a list of integers, got 'a' at place 2",
    function() tokenizer:decode{ 1, "a" } end)
  check.raises("id 350 at place 1 is outside the vocabulary of 350",
    function() tokenizer:decode{ 350 } end)
  check.raises("give one of source and texts", text.corpus, {})
  check.raises("texts must be a list of strings, got 7 at place 2",
    text.corpus, { texts = { "a", 7 } })
  check.raises("require(\"llm.hub\").source fetches it", text.corpus,
    { source = "hf:owner/name" })
  check.raises("give a path, or a corpus and a tokenizer", text.tokens,
    { corpus = corpus })
  check.raises("expected host.text.tokens, got", text.loader, corpus)
end)

-- --- corpus -----------------------------------------------------------------

check.case("a corpus holds whole documents out", function()
  local info, held, bytes = corpus:info(), 0, 0
  check.equal(corpus:count(), 40)
  for i = 1, corpus:count() do
    local text, out = corpus:document(i)
    bytes = bytes + #text
    if out then held = held + #text end
  end
  check.equal(bytes, corpus:bytes())
  check.equal(held, info.held_bytes)
  check.near(held / bytes, 0.2, 0.03)
  check.raises("document must be from 1 to 40", function()
    corpus:document(41)
  end)
end)

check.case("a corpus from strings, limited", function()
  local c = assert(host.text.corpus{ texts = { "größer", "x", " ", "yy" },
    max_chars = 4 })
  check.equal(c:count(), 3, "blank texts do not count")
  check.equal(c:document(1), "größ")
  check.equal(c:document(3), "yy")
  check.equal(assert(host.text.corpus{ texts = { "a", "b", "c" },
    max_documents = 2 }):count(), 2)
end)

check.case("standard input is a source", function()
  local p = assert(host.process.spawn{ host.process.executable(), "-e",
    "local h = require 'host'; local c = h.text.corpus{source = '-'}; "
    .. "print(c:count(), c:bytes(), (c:document(1)))", stdin = "pipe",
    stdout = "pipe" })
  p:write("one line of text")
  p:close_stdin()
  check.equal(p:read_line(20), "1\t16\tone line of text")
  check.equal(p:wait(20).exit, 0)
end)

-- --- the pipeline -----------------------------------------------------------

check.case("the cache gives the same bytes", function()
  local first = prepare()
  check.equal(first.reused, false)
  check.equal(#first.messages, 0)
  check.equal(first.documents, 40)
  check.equal(first.bytes, corpus:bytes())
  check.equal(first.tokens, first.train:count())
  check.equal(first.eval_tokens, first.validation:count())
  local second = prepare()
  check.equal(second.reused, true)
  check.equal(second.key, first.key)
  check.equal(second.train_checksum, first.train_checksum)
  check.equal(second.tokenizer:hash(), first.tokenizer:hash())
  check.equal(all_ids(second.train), all_ids(first.train))
  check.equal(second.train:info().path, first.train_path)
  local third = prepare{ fresh = true, threads = 1 }
  check.equal(third.reused, false)
  check.equal(third.train_checksum, first.train_checksum)
  check.equal(third.validation_checksum, first.validation_checksum)
end)

check.case("training and validation texts are disjoint", function()
  local p = prepare()
  local held = p.tokenizer:decode(p.validation:get(1, p.validation:count()))
  local train = p.tokenizer:decode(p.train:get(1, p.train:count()))
  local documents = 0
  for text in held:gmatch("(.-)<|endoftext|>") do
    documents = documents + 1
    check.equal(train:find(text, 1, true), nil)
  end
  check.truthy(documents > 2, "several documents are held out")
  check.equal(#held + #train, p.bytes + 40 * #"<|endoftext|>")
end)

check.case("every option and a changed source are another key", function()
  local keys = { [prepare().key] = "none" }
  for _, options in ipairs{ { vocab = 300 }, { validation = 0.1 },
      { seed = 1 }, { max_chars = 100 }, { documents = 9 },
      { tokens = 2000 }, { eval_tokens = 300 }, { max_bytes = 50000 } } do
    local name = next(options)
    local key = prepare(options).key
    check.equal(keys[key], nil, name)
    keys[key] = name
  end
  local before = prepare().key
  assert(host.file.append(folder .. "/texts/07.txt", "one more line\n"))
  local changed = prepare()
  check.truthy(changed.key ~= before)
  check.equal(changed.reused, false)
end)

-- Flip one bit of a byte of a file.
local function flip(path, place)
  local data = assert(host.file.read(path))
  local byte = string.char(data:byte(place) ~ 1)
  assert(host.file.write(path,
    data:sub(1, place - 1) .. byte .. data:sub(place + 1)))
end

check.case("a damaged cache is noticed and made again", function()
  local first = prepare()
  for name, case in pairs{
      train = { first.train_path, 1000, "the checksum of its ids differs" },
      validation = { first.validation_path, 20,
        "the header's checksum differs" } } do
    flip(case[1], case[2])
    local again = prepare()
    check.equal(again.reused, false, name)
    check.equal(again.messages[1], "token file '" .. case[1] .. "': "
      .. case[3] .. "; the cache is made again.")
    check.equal(again.train_checksum, first.train_checksum)
    check.equal(prepare().reused, true)
  end
  assert(host.file.write(first.tokenizer_path, "{"))
  check.equal(prepare().messages[1], first.tokenizer_path
    .. ":1: expected a name in quotes; the cache is made again.")
  assert(host.file.remove(first.train_path))
  local missing = prepare()
  check.equal(missing.reused, false)
  check.equal(#missing.messages, 0, "a missing file is no damage")
end)

check.case("limits on tokens, and what could not be had", function()
  local p = prepare{ tokens = 3000, eval_tokens = 500 }
  check.equal(p.tokens, 3000)
  check.equal(p.eval_tokens, 500)
  p = prepare{ tokens = 10000000, vocab = 35000 }
  check.equal(p.messages[1], string.format("'%s/texts' gives %d training "
    .. "tokens, fewer than the 10000000 wanted.", folder, p.tokens))
  check.equal(p.messages[2], string.format("'%s/texts' teaches a vocabulary "
    .. "of %d ids only, fewer than the 35000 wanted.", folder, p.vocab))
end)

check.case("without a cache nothing is written", function()
  local p = prepare{ cache = "" }
  check.equal(p.train_path, nil)
  check.equal(p.train:info().path, nil)
  check.truthy(p.train:count() > 1000)
end)

check.case("a given tokenizer, and no validation", function()
  local path = folder .. "/given.json"
  assert(tokenizer:save(path))
  local p = prepare{ tokenizer = path, validation = 0 }
  check.equal(p.tokenizer:hash(), tokenizer:hash())
  check.equal(p.validation, nil)
  check.equal(p.documents, 40)
end)

check.case("SmolLM's merges drop and count what they lack", function()
  local merges = "../shared/data/smollm_merges.txt"
  if not host.file.exists(merges) then check.skip("no merges.txt here") end
  local t = assert(host.text.tokenizer{ merges = merges, rules = "smollm" })
  check.equal(t:count(), 49152)
  check.equal(t:missing(), 21)
  check.equal(#t:encode("a\255b"), 2)
  check.equal(t:dropped(), 1)
  local p = prepare{ merges = merges }
  check.equal(p.vocab, 49152)
  check.equal(p.dropped, 0)
end)

-- --- tokens and loader ------------------------------------------------------

check.case("tokens of a corpus, saved and opened", function()
  local tokens = assert(host.text.tokens{ corpus = corpus,
    tokenizer = tokenizer })
  local path = folder .. "/x.tokens"
  assert(tokens:save(path))
  local back = assert(host.text.tokens{ path })
  check.equal(all_ids(back), all_ids(tokens))
  local info = back:info()
  check.equal(info.vocab, 350)
  check.equal(info.tokenizer, tokenizer:hash())
  check.equal(info.held_out, false)
  check.raises("last must be from 5 to", function() back:get(5, 4) end)
  local _, message, code = host.text.tokens{ folder .. "/tokenizer.json" }
  check.equal(message, "token file '" .. folder
    .. "/tokenizer.json': not a token file (its first bytes differ)")
  check.equal(code, "format")
end)

-- --- token files of other programs -------------------------------------------

local function u16(...)
  return string.pack("<" .. ("I2"):rep(select("#", ...)), ...)
end

-- llm.c's header as its own dev/data scripts write it.
local function llmc_header(magic, version, count)
  return string.pack("<i4i4i4", magic, version, count) .. ("\0"):rep(253 * 4)
end

check.case("llm.c's .bin: read, written, and back", function()
  local path = folder .. "/a.bin"
  assert(host.file.write(path, llmc_header(20240520, 1, 4)
    .. u16(50256, 0, 7, 65535)))
  local t = assert(host.text.tokens { path })
  check.equal(all_ids(t), "50256 0 7 65535")
  check.equal(t:info().vocab, 65536)
  check.equal(t:info().source, "a.bin")
  local p = prepare()
  assert(p.train:save(path, { format = "llm.c" }))
  local bytes = assert(host.file.read(path))
  local magic, version, count = string.unpack("<i4i4i4", bytes)
  check.equal(magic .. " " .. version, "20240520 1")
  check.equal(count, p.train:count())
  check.equal(#bytes, 1024 + 2 * count)
  local back = assert(host.text.tokens { path, vocab = p.vocab })
  check.equal(all_ids(back), all_ids(p.train))
  check.equal(back:info().vocab, p.vocab)
  assert(back:save(folder .. "/again.tokens"))
  local own = assert(host.text.tokens { folder .. "/again.tokens" })
  check.equal(all_ids(own), all_ids(p.train))
  local how = { batch = 2, seq = 16 }
  local x = assert(host.text.loader(back, how)):fill(1, 1, 2)
  local y = assert(host.text.loader(p.train, how)):fill(1, 1, 2)
  check.equal(table.concat(x[2], " "), table.concat(y[2], " "))
end)

check.case("32-bit ids of llm.c", function()
  local path = folder .. "/b.bin"
  local bytes = llmc_header(20240801, 7, 2) .. string.pack("<I4I4", 128000, 9)
  assert(host.file.write(path, bytes))
  local t = assert(host.text.tokens { path })
  check.equal(all_ids(t), "128000 9")
  assert(t:save(folder .. "/c.bin", { format = "llm.c" }))
  check.equal(host.file.read(folder .. "/c.bin"), bytes)
  check.raises("nanoGPT's format keeps ids in 16 bits; this vocabulary has "
    .. "128001", t.save, t, path, { format = "nanogpt" })
end)

check.case("nanoGPT's raw ids", function()
  local path = folder .. "/n.bin"
  assert(host.file.write(path, u16(3, 1, 4, 1, 5)))
  local t = assert(host.text.tokens { path, format = "nanogpt", vocab = 6 })
  check.equal(all_ids(t), "3 1 4 1 5")
  assert(t:save(folder .. "/m.bin", { format = "nanogpt" }))
  check.equal(host.file.read(folder .. "/m.bin"), u16(3, 1, 4, 1, 5))
end)

check.case("what is wrong with another program's file is said", function()
  local path = folder .. "/w.bin"
  local function refused(bytes, options, want)
    assert(host.file.write(path, bytes))
    options[1] = path
    local got, message, code = host.text.tokens(options)
    check.equal(got, nil)
    check.equal(message, "token file '" .. path .. "': " .. want)
    check.equal(code, "format")
  end
  local good = llmc_header(20240520, 1, 2) .. u16(1, 2)
  refused(good:sub(1, -2), {},
    "its length is not the one llm.c's header says")
  refused(good .. "x", {}, "its length is not the one llm.c's header says")
  refused(good:sub(1, 600), {},
    "too short for llm.c's header of 1024 bytes")
  refused(llmc_header(20240520, 2, 0), {},
    "an unknown version of llm.c's format")
  refused(llmc_header(1, 1, 0), { format = "llm.c" },
    "llm.c's magic number (20240520 or 20240801) is not there")
  refused(good, { vocab = 2 }, "it holds id 2, outside the vocabulary of 2")
  refused("abc", { format = "nanogpt" },
    "16-bit ids, but an odd number of bytes")
  refused(llmc_header(20240801, 7, 1) .. "\255\255\255\255", {},
    "it holds an id over 2^31")
end)

check.case("a loader's samples do not depend on the split", function()
  local p = prepare()
  local a = assert(host.text.loader(p.train, { batch = 6, seq = 16 }))
  local b = assert(host.text.loader(p.train, { batch = 6, seq = 16 }))
  for step = 1, 5 do
    local x, y = a:fill(step, 1, 6)
    for first = 1, 6, 2 do
      local px, py = b:fill(step, first, 2)
      for i = 1, 2 do
        check.equal(table.concat(px[i], " "), table.concat(x[first + i - 1],
          " "))
        check.equal(table.concat(py[i], " "), table.concat(y[first + i - 1],
          " "))
      end
    end
    check.equal(table.concat(x[1], " ", 2), table.concat(y[1], " ", 1, 15))
  end
  check.near(a:epochs(10), 60 / a:windows(), 1e-12)
  check.raises("count must be from 1 to 2, got 3", function()
    a:fill(1, 5, 3)
  end)
end)

check.case("an evaluation loader goes through once", function()
  local p = prepare()
  local l = assert(host.text.loader(p.validation, { batch = 4, seq = 16,
    sequential = true, max_tokens = 100 }))
  check.equal(l:windows(), 6)
  check.equal(l:steps(), 2)
  local x, y = l:fill(2, 1, 4)
  check.equal(table.concat(x[1], " "),
    table.concat(p.validation:get(65, 80), " "))
  check.equal(y[3][1], -1, "no window left")
end)

check.case("closed objects are refused", function()
  local p = prepare()
  local l = assert(host.text.loader(p.train, { seq = 8 }))
  p.train:close()
  check.equal(#l:fill(1, 1, 1)[1], 8, "a loader keeps its tokens")
  l:close()
  check.raises("this host.text.loader is closed", function() l:windows() end)
  check.raises("this host.text.tokens is closed", host.text.loader, p.train)
end)

host.file.remove_tree(folder)
check.done()
