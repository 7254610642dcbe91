-- SmolLM's vocabulary from merges.txt: the ids are those that Hugging Face's
-- tokenizers give (tests/reference/text/smollm.py), stored, and asked for again
-- where that library is installed. Needs the merges beside the project.
local check = require "check"
local host = require "host"

local MERGES = "../shared/data/smollm_merges.txt"
local REFERENCE = "tests/reference/text/"
local folder = (os.getenv "TMPDIR" or "/tmp") .. "/llmhost-test-tokenizers"
host.file.remove_tree(folder)
assert(host.file.mkdir(folder))

local function need_merges()
  if not host.file.exists(MERGES) then
    check.skip "no smollm_merges.txt beside the project"
  end
end

local function read(name) return assert(host.file.read(name)) end

-- The texts of the reference: the lines of hostile.txt, then 4000 characters.
local function texts()
  local list = {}
  for line in read(REFERENCE .. "hostile.txt"):gmatch "([^\n]*)\n" do
    list[#list + 1] = line
  end
  local train = read(REFERENCE .. "train.txt")
  list[#list + 1] = train:sub(1, (utf8.offset(train, 4001) or 0) - 1)
  return list
end

local function compare(t)
  local list, i = texts(), 0
  for want in read(REFERENCE .. "smollm_ids.txt"):gmatch "([^\n]*)\n" do
    i = i + 1
    check.equal(table.concat(t:encode(list[i]), " "), want, "text " .. i)
  end
  check.equal(i, #list)
end

check.case("merges.txt gives the ids of the reference", function()
  need_merges()
  local t = assert(host.text.tokenizer { merges = MERGES })
  check.equal(t:count(), 49152)
  check.equal(t:missing(), 21)
  check.equal(t:special "<|endoftext|>", 0)
  check.equal(t:special "<empty_output>", 16)
  compare(t)
  check.equal(t:dropped(), 0)
end)

check.case("saved as tokenizer.json and read again: the same ids", function()
  need_merges()
  local t = assert(host.text.tokenizer { merges = MERGES })
  assert(t:save(folder .. "/tokenizer.json"))
  local back = assert(host.text.tokenizer { file = folder
    .. "/tokenizer.json" })
  check.equal(back:hash(), t:hash())
  compare(back)
end)

-- A python3 that has a module, or a skip.
local function python(module)
  for _, name in ipairs { os.getenv "LLMHOST_PYTHON" or "python3",
    "python3" } do
    local p = host.process.spawn { name, "-c", "import " .. module,
      stdin = "null", stdout = "null", stderr = "null" }
    if p and p:wait(60).exit == 0 then return name end
  end
  check.skip("no python3 with " .. module)
end

check.case("tokenizers itself agrees", function()
  need_merges()
  local p = assert(host.process.spawn { python "tokenizers",
    REFERENCE .. "smollm.py", MERGES, "--check", stdin = "null",
    stdout = "pipe" })
  check.equal(p:read_line(60), "same")
  check.equal(p:wait(10).exit, 0)
end)

check.case("tokenizers reads what we save, and gives our ids", function()
  need_merges()
  local name = python "tokenizers"
  local t = assert(host.text.tokenizer { merges = MERGES })
  assert(t:save(folder .. "/tokenizer.json"))
  local text = texts()[220]
  assert(host.file.write(folder .. "/text", text))
  local p = assert(host.process.spawn { name, "-c", [[
import sys, tokenizers
t = tokenizers.Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
ids = t.encode(open(sys.argv[1] + "/text", newline="").read()).ids
print(" ".join(map(str, ids)))]], folder, stdin = "null", stdout = "pipe" })
  check.equal(p:read_line(60), table.concat(t:encode(text), " "))
  check.equal(p:wait(10).exit, 0)
end)

check.case("what tokenizers saves is read, and gives its ids", function()
  need_merges()
  local path = folder .. "/theirs.json"
  local p = assert(host.process.spawn { python "tokenizers",
    REFERENCE .. "smollm.py", MERGES, "--save", path, stdin = "null" })
  check.equal(p:wait(60).exit, 0)
  local t = assert(host.text.tokenizer { file = path })
  check.equal(t:count(), 49152)
  check.equal(t:special "<empty_output>", 16)
  check.equal(t:hash(), assert(host.text.tokenizer { merges = MERGES })
    :hash())
  compare(t)
end)

host.file.remove_tree(folder)
check.done()
