-- Configurations: merging, overrides, the texts of refusals, the matrix.
local check = require "check"
local config = require "llm.config"
local matrix = require "llm.matrix"
local schema = require "llm.schema"
local size = require "llm.size"

local MODEL = { name = "m", d_model = 64, n_layers = 1, n_heads = 4,
  d_ff = 128 }

local function resolve(user, words)
  return config.resolve(user or {}, words or {}, "cpu")
end

local function expand(user, words)
  return matrix.expand(resolve(user, words))
end

check.case("profiles: nano on a CPU, full on a GPU", function()
  check.equal(resolve().profile, "nano")
  check.equal(config.resolve({}, {}, "cuda").profile, "full")
  check.equal(resolve({}, { "profile=full" }).profile, "full")
  check.equal(resolve({ profile = "full" }).values["train.seq"], 512)
end)

check.case("full profile is the sweep of the interface", function()
  local list = expand({ profile = "full" })
  check.equal(#list, 16)
  local e = list[16]
  check.equal(e.name, "xlarge_gqa_fp4")
  check.equal(e.shape.n_kv_heads, 5)
  check.equal(e.shape.storage, "nf4r")
  check.equal(e.shape.vocab, 49152)
  check.equal(e.train.minutes, 30)
  check.equal(e.sequences, 192)
  check.equal(e.memory.budget, "24GB")
end)

check.case("controls of 4-bit storage are no fp4, and compile", function()
  for _, storage in ipairs { "nf4_frozen", "nf4_nearest", "nf4_stochastic" } do
    local e = expand({ profile = "nano", models = { MODEL },
      matrix = { { name = "x", storage = storage } } })[1]
    check.equal(e.shape.fp4, false)
    local p <close> = require("llm.program").compile(e, nil, { batch = 1,
      plan = "cpu" })
    check.truthy(p:count().quantized > 0)
  end
end)

check.case("order: defaults, profile, script, row, entry, command line",
  function()
    local user = { models = { MODEL }, train = { minutes = 3, lr = .5 },
      matrix = { { name = "a", ["train.lr"] = .25 }, { name = "b" },
        { name = "c", train = { lr = .125 } } } }
    local list = expand(user, { "train.minutes=7" })
    check.equal(list[1].train.lr, .25)
    check.equal(list[2].train.lr, .5)
    check.equal(list[3].train.lr, .125)
    check.equal(list[1].train.minutes, 7)
    check.equal(list[1].train.seq, 256)
  end)

check.case("overrides of rows and by last names", function()
  local c = resolve({}, { "models.small.d_ff=1024", "minutes=2",
    "matrix.gqa.recompute=mlp", "train.seeds=1,2", "dropout=0" })
  local list = matrix.expand(c)
  check.equal(#list, 32)
  check.equal(list[1].name, "small_baseline_s1")
  check.equal(list[1].shape.d_ff, 1024)
  check.equal(list[3].train.recompute, "mlp")
  check.equal(list[1].train.recompute, "light")
  check.equal(list[1].train.minutes, 2)
  check.equal(list[1].shape.attention_dropout, 0)
  check.equal(c.taken[1].key, "models.small.d_ff")
  check.equal(c.taken[1].before, 512)
  check.equal(c.taken[2].key, "train.minutes")
end)

check.case("unknown keys name the nearest", function()
  check.raises("unknown key 'train.minuts'; did you mean 'train.minutes'?",
    resolve, {}, { "train.minuts=5" })
  check.raises("unknown key 'train.minuts'; did you mean 'train.minutes'?",
    resolve, { train = { minuts = 5 } })
  check.raises("unknown key 'models.small.dff'; did you mean "
    .. "'models.small.d_ff'?", resolve, {}, { "models.small.dff=3" })
  check.raises("unknown key 'models.smal.d_ff': models has no 'smal'; did you "
    .. "mean 'small'?", resolve, {}, { "models.smal.d_ff=3" })
  check.raises("unknown key 'matrix.a.recompte'; did you mean "
    .. "'matrix.a.recompute'?", resolve,
    { models = { MODEL }, matrix = { { name = "a", recompte = "none" } } })
  check.raises("unknown key 'modles'; did you mean 'models'?", resolve,
    { modles = {} })
  check.raises("unknown key 'xyzzyplugh'", resolve, { xyzzyplugh = 1 })
end)

check.case("wrong values name key, value and what is expected", function()
  check.raises('train.recompute = "lite": expected none | light | mlp | block',
    resolve, {}, { "recompute=lite" })
  check.raises("; did you mean 'light'?", resolve, {}, { "recompute=ligth" })
  check.raises("; did you mean 'fp16'?", resolve, {},
    { "train.precision=f16" })
  check.raises('train.batch = "x": expected an integer or "auto"', resolve,
    {}, { "train.batch=x" })
  check.raises("data.vocab = 3: out of range, 257 … 16777216", resolve, {},
    { "data.vocab=3" })
  check.raises('memory.budget = "lots": expected a size such as "24GB" or '
    .. '"device"', resolve, { memory = { budget = "lots" } })
  check.raises('profile = "ful": expected nano | full | auto; did you mean '
    .. "'full'?", resolve, {}, { "profile=ful" })
  check.raises('train.lr = "fast": expected a number', resolve,
    { train = { lr = "fast" } })
  check.raises("train.seeds = a table: expected a list of integers", resolve,
    { train = { seeds = {} } })
end)

check.case("words of the command line", function()
  local a = config.arguments { "--dry-run", "a=b", "--retry" }
  check.truthy(a.flags["dry-run"] and a.flags.retry)
  check.equal(a.overrides[1][2], "b")
  check.raises("unknown argument '--dry-runn'; did you mean '--dry-run'?",
    config.arguments, { "--dry-runn" })
  check.raises("unknown argument 'word' (options of a script are written "
    .. "key=value)", config.arguments, { "word" })
  local e = check.raises("unknown key", resolve, {}, { "nope_nope=1" })
  check.equal(e.code, "usage")
  check.raises("did you mean 'minutes=5'?", config.arguments,
    { "--minutes=5" })
  check.raises("did you mean '--help'?", config.arguments, { "-h" })
  check.raises("'d_ff' is a key of one model: models.small.d_ff=9", resolve,
    {}, { "d_ff=9" })
end)

check.case("a shape that the command line made impossible is its error",
  function()
    local sweep = require "llm.sweep"
    local e = check.raises("d_model = 128 is not a multiple of n_heads = 3",
      sweep, { profile = "nano", args = { "models.small.n_heads=3" } })
    check.equal(e.code, "usage")
    check.equal(e.where, nil)
    e = check.raises("train.batch = 7 does not divide", sweep,
      { profile = "nano", train = { batch = 7 }, args = { "lr=.1" } })
    check.equal(e.code, "argument")
  end)

check.case("errors of a script's table carry its line", function()
  local f = assert(load("local c = ...\n\nc.resolve({ train = { sek = 1 } }, "
    .. "{}, 'cpu')", "@my/script.lua"))
  local _, e = pcall(f, config)
  check.equal(tostring(e),
    "my/script.lua:3: unknown key 'train.sek'; did you mean 'train.seq'?")
  check.equal(e.code, "argument")
end)

check.case("key/value heads: largest divisor within the group rule", function()
  for _, c in ipairs { { 8, 4, 2 }, { 12, 4, 3 }, { 16, 4, 4 }, { 20, 4, 5 },
    { 4, 4, 1 }, { 8, 3, 2 }, { 7, 2, 1 }, { 6, 1, 6 }, { 6, 100, 1 },
    { 12, 5, 2 } } do
    check.equal(matrix.kv_heads(c[1], c[2]), c[3], c[1] .. "/" .. c[2])
  end
  local e = expand({ models = { MODEL },
    matrix = { { name = "x", n_kv_heads = 2, kv_groups = 4 } } })[1]
  check.equal(e.shape.n_kv_heads, 2)
  check.raises("m_x: n_heads = 4 is not a multiple of n_kv_heads = 3", expand,
    { models = { MODEL }, matrix = { { name = "x", n_kv_heads = 3 } } })
end)

check.case("divisors", function()
  check.equal(table.concat(matrix.divisors(36), " "),
    "1 2 3 4 6 9 12 18 36")
  check.equal(table.concat(matrix.divisors(1), " "), "1")
  check.equal(#matrix.divisors(192), 14)
end)

check.case("what cannot work is refused", function()
  local function one(more, train)
    local row = {}
    for k, v in pairs(MODEL) do row[k] = v end
    for k, v in pairs(more) do row[k] = v end
    return { models = { row }, matrix = { { name = "x" } }, train = train }
  end
  check.raises("m_x: d_model = 66 is not a multiple of n_heads = 4", expand,
    one { d_model = 66 })
  check.raises("m_x: head width d_model / n_heads = 6 is not a multiple of 4",
    expand, one { d_model = 24 })
  check.raises("m_x: train.tokens_per_step = 1000 is not a multiple of "
    .. "train.seq = 256", expand, one({}, { tokens_per_step = 1000 }))
  check.raises("m_x: train.batch = 5 does not divide the 32 sequences of a "
    .. "step; it could be 1, 2, 4, 8, 16, 32", expand, one({}, { batch = 5 }))
  check.raises("m_x: fp4 = true means storage = \"nf4r\", but storage = "
    .. "\"f32\"", expand, one { fp4 = true, storage = "f32" })
  check.raises("matrix has two entries named 'x'", expand,
    { models = { MODEL }, matrix = { { name = "x" }, { name = "x" } } })
  check.raises("models is empty", expand, { models = {} })
  check.raises("missing", expand, { models = { { name = "q", d_model = 8 } } })
end)

check.case("names default to width and depth", function()
  local row = { d_model = 1024, n_layers = 24, n_heads = 16, d_ff = 4096 }
  check.equal(expand({ models = { row } })[1].name, "1024d-24L_baseline")
end)

check.case("tokens become steps of the whole matrix", function()
  local e = expand({ models = { MODEL } }, { "train.tokens=100000" })[1]
  check.equal(e.train.steps, 100000 // 8192)
  e = expand({ models = { MODEL } }, { "train.steps=equal" })[1]
  check.equal(e.train.steps, "equal")
end)

check.case("grid: a product with names, in a fixed order", function()
  local rows = matrix.grid { fp4 = { false, true }, kv_groups = { 1, 4 } }
  check.equal(#rows, 4)
  check.equal(rows[2].name, "fp4-false_kv_groups-4")
  check.equal(rows[4].fp4, true)
  check.equal(#expand { models = { MODEL }, matrix = rows }, 4)
end)

check.case("every field has a type and a text", function()
  for _, f in ipairs(schema.fields) do
    check.truthy(f.doc and #f.doc > 3, f.path)
    check.truthy(({ string = 1, integer = 1, number = 1, boolean = 1,
      size = 1, list = 1 })[f.type], f.path)
  end
end)

check.case("sizes", function()
  check.equal(size.parse "24GB", 24000000000)
  check.equal(size.parse "1.5GiB", 1610612736)
  check.equal(size.parse "512 MB", 512000000)
  check.equal(size.parse "12 parsecs", nil)
  check.equal(size.bytes(1234567890), "1.23 GB")
  check.equal(size.count(912384), "912.4k")
  check.equal(size.seconds(75), "1 min 15 s")
end)

check.done()
