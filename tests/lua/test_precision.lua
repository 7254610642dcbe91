-- Words of precision: what each compiles to, and what a CPU says to those that
-- it does not compute in.
local check = require "check"
local datasheet = require "llm.datasheet"
local gpu = require "gpu"
local model = require "llm.model"
local program = require "llm.program"

local function compile(precision, plan)
  return gpu.compile(model.transformer { vocab = 61, d_model = 32,
    n_layers = 2, n_heads = 4, d_ff = 64 }, { plan = plan, seq = 16,
    precision = precision, optimizer = gpu.optim.groups { {
      gpu.optim.adamw {} } } })
end

check.case("a CPU computes in f32 and refuses what it has not", function()
  for _, plan in ipairs { "cpu", false } do
    for _, word in ipairs { "tf32", "bf16", "f16" } do
      check.raises(("gpu.compile: precision = '%s' needs a GPU; the cpu "
        .. "computes in f32"):format(word), compile, word, plan or nil)
    end
    for _, word in ipairs { "auto", "f32", "fp8" } do
      compile(word, plan or nil):close()
    end
  end
  check.raises("precision", compile, "tf23")
end)

check.case("a sweep in tf32 is refused the same way", function()
  local e = { shape = { vocab = 61, d_model = 32, n_layers = 1, n_heads = 4,
    d_ff = 64, storage = "f32" }, seed = 1, train = { precision = "tf32",
    seq = 16, recompute = "none", saved = "native", optimizer = "adamw",
    lr = .001, weight_decay = 0, clip = 1, warmup = 0, final = 1 } }
  check.raises("precision = 'tf32' needs a GPU; the cpu computes in f32",
    program.compile, e, nil, { batch = 1, accumulate = 1, plan = "cpu" })
  program.compile(e, nil, { batch = 1, accumulate = 1, plan = "cuda" }):close()
end)

check.case("on a GPU tf32 is f32 but for its products", function()
  local f32 <close> = compile("f32", "cuda")
  local tf32 <close> = compile("tf32", "cuda")
  check.equal(tf32:listing(), f32:listing())
  check.equal(tf32:memory().peak, f32:memory().peak)
  local bf16 <close> = compile("bf16", "cuda")
  check.truthy(tf32:listing() ~= bf16:listing())
end)

check.case("auto is the backend's own", function()
  local auto <close> = compile("auto", "cpu")
  local f32 <close> = compile("f32", "cpu")
  check.equal(auto:listing(), f32:listing())
  local cuda <close> = compile("auto", "cuda")
  local bf16 <close> = compile("bf16", "cuda")
  check.equal(cuda:listing(), bf16:listing())
end)

check.case("no data sheet's bf16 peak is the measure of f32 or tf32", function()
  check.equal(datasheet.peak("NVIDIA H200", "f32"), nil)
  check.equal(datasheet.peak("NVIDIA H200", "tf32"), nil)
  check.equal(datasheet.peak("NVIDIA H200", "fp16"), 989e12)
end)

check.done()
