-- Every key of a configuration: type, default, unit, meaning. Validation,
-- command-line overrides, help texts and the documentation read this list.
local schema = {}

-- { path, type, default, doc, options }; `nil` defaults are written as none.
-- Types: string integer number boolean size any list (of integers) function.
-- options: least, most; auto = the word "auto" is allowed; words = the allowed
-- words; where = "sweep" (the whole sweep only), "model" (a model's row or a
-- matrix entry), "any" (also for all models at once).
local none = nil
local FIELDS = {
  { "name", "string", "sweep", "title of the sweep" },
  { "description", "string", "", "what it asks" },
  { "notes", "string", "", "printed in the report" },
  { "target_gpu", "string", "", "the card the budget stands for" },
  { "profile", "string", "auto",
    "nano | full | auto: full on a GPU, nano on a CPU" },
  { "out", "string", "experiment_results", "folder of results" },
  { "only", "string", none,
    "names (with *) to run, by commas; others are skipped" },

  { "d_model", "integer", none, "width C of the model",
    { where = "model", least = 4 } },
  { "n_layers", "integer", none, "blocks",
    { where = "model", least = 1, most = 1000 } },
  { "n_heads", "integer", none, "query heads",
    { where = "model", least = 1 } },
  { "d_ff", "integer", none, "width of the feed-forward layer",
    { where = "model", least = 1 } },
  { "n_kv_heads", "integer", none, "key/value heads, instead of kv_groups",
    { where = "any", least = 1 } },
  { "kv_groups", "integer", 1, "query heads that share one key/value head",
    { where = "any", least = 1 } },
  { "fp4", "boolean", false, "storage = \"nf4r\", nothing else",
    { where = "any" } },
  { "storage", "string", none,
    "how linear weights are kept; default: f32. Controls that should learn "
    .. "worse than nf4r: nf4_frozen (codes stay), nf4_nearest and "
    .. "nf4_stochastic (no residual, that rounding)",
    { where = "any", words = { "f32", "nf4r", "nf4_frozen", "nf4_nearest",
      "nf4_stochastic" } } },
  { "scale_search", "boolean", false, "five candidate scales a 4-bit block",
    { where = "any" } },
  { "preset", "string", "original",
    "original | llama: gated SiLU, full rotary as Hugging Face turns it, no "
    .. "dropout; gives the keys down to norm_eps their defaults",
    { where = "any", words = { "original", "llama" } } },
  { "dropout", "number", none,
    "share of activations dropped; default: 0.1, llama 0",
    { where = "any", least = 0, most = .95 } },
  { "attention_dropout", "number", none, "of attention; default: dropout",
    { where = "any", least = 0, most = .95 } },
  { "gated", "boolean", none,
    "feed-forward down(silu(gate) x up) instead of down(silu(up)); default: "
    .. "false, llama true", { where = "any" } },
  { "rope_base", "number", none, "rotary base; default: 10000",
    { where = "any", least = 1 } },
  { "rope_fraction", "number", none,
    "share of a head that rotates; default: 0.5, llama 1",
    { where = "any", least = 0, most = 1 } },
  { "rope_inclusive", "boolean", none,
    "frequencies reach 1/base: exponent i/(h-1) instead of i/h; default: "
    .. "true, llama false", { where = "any" } },
  { "rope_inverse", "boolean", none,
    "turn the other way, as Llama does; default: false, llama true",
    { where = "any" } },
  { "scaled_embedding", "boolean", none,
    "embedding times sqrt(d_model); default: true, llama false",
    { where = "any" } },
  { "qk_norm", "boolean", none,
    "normalize each query and key head; default: false", { where = "any" } },
  { "norm_eps", "number", none,
    "keeps a norm's root finite; default: 2^-23, llama 1e-5",
    { where = "any", least = 0, most = 1 } },
  { "tied", "boolean", true, "output projection = embedding",
    { where = "any" } },

  { "train.minutes", "number", 30, "training time of one experiment, minutes",
    { least = 1e-4, most = 1e6 } },
  { "train.steps", "integer", none,
    "optimizer steps instead of a time; \"equal\": the smallest count that a "
    .. "model's variants reach in the time",
    { least = 1, words = { "equal" } } },
  { "train.tokens", "integer", none, "training tokens instead of a time",
    { least = 1 } },
  { "train.seq", "integer", 512, "context length T, tokens",
    { least = 2, most = 1 << 20 } },
  { "train.tokens_per_step", "integer", 98304,
    "tokens of one optimizer step, for the whole matrix", { least = 2 } },
  { "train.batch", "integer", "auto",
    "micro-batch, sequences; auto: the largest divisor that fits",
    { least = 1, auto = true } },
  { "train.precision", "string", "auto",
    "arithmetic: f32 on a CPU and bf16 on a GPU, or as said; tf32: f32 whose "
    .. "products round what they multiply to 10 bits, on a GPU; fp8: as auto, "
    .. "with linear layers multiplied in e4m3, one scale a row",
    { words = { "auto", "f32", "tf32", "bf16", "fp16", "fp8" } } },
  { "train.tune", "string", "auto",
    "auto: algorithms of a GPU's products are chosen by measuring, once, and "
    .. "kept in a file; off: by the library",
    { words = { "auto", "off" } } },
  { "train.recompute", "string", "light", "what backward makes again",
    { words = { "none", "light", "mlp", "block" } } },
  { "train.saved", "string", "native", "format of saved activations",
    { words = { "native", "int8" } } },
  { "train.optimizer", "string", "muon",
    "muon (with AdamW for the rest) | adamw | sgd",
    { words = { "muon", "adamw", "sgd" } } },
  { "train.lr", "number", .001, "AdamW's rate (SGD's, too)", { least = 0 } },
  { "train.muon_lr", "number", .01, "Muon's rate", { least = 0 } },
  { "train.momentum", "number", .95, "of Muon and SGD",
    { least = 0, most = 1 } },
  { "train.weight_decay", "number", .1, "AdamW's", { least = 0 } },
  { "train.warmup", "number", .05, "share of the steps",
    { least = 0, most = 1 } },
  { "train.final", "number", .1, "last rate over the first",
    { least = 0, most = 1 } },
  { "train.clip", "number", 1.0, "gradient norm; 0: off", { least = 0 } },
  { "train.seeds", "list", { 42 }, "one run of everything for each" },
  { "train.eval_tokens", "integer", 98304, "held-out tokens an evaluation",
    { least = 1 } },
  { "train.evaluations", "integer", 20, "evaluations in a run",
    { least = 1 } },
  { "train.eval_every", "integer", none, "steps; instead of evaluations",
    { least = 1 } },
  { "train.checkpoint_seconds", "number", 300, "between checkpoints",
    { least = 0 } },
  { "train.keep_best", "boolean", false,
    "keep the checkpoint of the best evaluation" },
  { "train.profile_steps", "integer", 0,
    "steps profiled after the end, for the speed-of-light share; 0: none",
    { least = 0, most = 1000 } },
  { "train.from", "string", none,
    "folder of a Llama model as Hugging Face keeps it, to start from" },
  { "train.tensorboard", "boolean", true,
    "write an event file for TensorBoard beside the metrics" },
  { "train.hang_seconds", "number", 300,
    "without a sign of life before a run is ended", { least = 1 } },
  { "train.diverge", "number", 3,
    "ends a run whose loss is this many times its first", { least = 1 } },

  { "memory.budget", "size", "24GB",
    "device memory a run may take; \"device\": what is free",
    { words = { "device" } } },
  { "memory.fraction", "number", .85, "of the budget that a plan may fill",
    { least = .01, most = 1 } },

  { "search.candidates", "integer", 3, "smaller micro-batches that are timed",
    { least = 0, most = 16 } },
  { "search.share", "number", .15,
    "of the training time that timing candidates may take",
    { least = 0, most = 1 } },
  { "search.timed_steps", "integer", 10,
    "warmed micro-steps whose median turns the time into steps",
    { least = 1 } },
  { "search.timing_share", "number", .1,
    "of the training time that these may take, unless 2 take longer",
    { least = 0, most = 1 } },

  { "data.source", "string", "auto",
    "file, folder, glob, - (stdin), system, hf:OWNER/NAME/CONFIG/SPLIT, "
    .. "hf:OWNER/NAME:FILE, train.bin (tokens, with val.bin beside); auto: "
    .. "system (nano) or hf (full)" },
  { "data.field", "string", "text", "of a JSONL row, the text" },
  { "data.tokenizer", "string", "auto",
    "tokenizer.json, merges.txt or hf:OWNER/NAME; train: on the corpus; "
    .. "auto: SmolLM's for hf text, else trained" },
  { "data.vocab", "integer", 49152, "ids of the tokenizer",
    { least = 257, most = 1 << 24 } },
  { "data.documents", "integer", none, "at most, of the source",
    { least = 2 } },
  { "data.max_chars", "integer", none, "at most, of a document",
    { least = 1 } },
  { "data.tokens", "integer", "auto",
    "training tokens kept; auto: enough for at most 4 epochs",
    { least = 1000, auto = true } },
  { "data.validation", "number", .1, "share of documents held out",
    { least = .001, most = .9 } },
  { "data.cache", "string", "data_cache", "folder of token files" },
  { "data.seed", "integer", 1, "which documents are held out" },
  { "data.preset", "string", none,
    "original: 2000 documents of 3000 characters, 500 000 tokens",
    { words = { "original" } } },
}

schema.fields, schema.by_path, schema.leaves = {}, {}, {}

local function add(path, kind, default, doc, options)
  local field = { path = path, type = kind, default = default, doc = doc }
  for key, value in pairs(options or {}) do field[key] = value end
  field.section, field.leaf = path:match("^(%w+)%.([%w_]+)$")
  field.leaf = field.leaf or path
  field.where = field.where
    or (field.section and field.section ~= "data" and "any" or "sweep")
  schema.fields[#schema.fields + 1] = field
  schema.by_path[path] = field
  if field.section then
    local taken = schema.leaves[field.leaf]
    schema.leaves[field.leaf] = taken == nil and field or false
  end
end

for _, f in ipairs(FIELDS) do add(f[1], f[2], f[3], f[4], f[5]) end
for _, f in ipairs(FIELDS) do
  if schema.leaves[f[1]] then schema.leaves[f[1]] = false end
end

schema.sections = { "train", "memory", "search", "data" }

-- Keys of a sweep that are not plain values.
schema.structures = { models = true, matrix = true, model = true,
  profiles = true, on_start = true, on_step = true, on_eval = true,
  on_result = true, on_finish = true, args = true }

-- The field a key means: a full path, or a last name only one section has.
function schema.find(key)
  return schema.by_path[key] or schema.leaves[key] or nil
end

-- Every name that `schema.find` takes and `keep(field)` accepts, sorted.
function schema.names(keep)
  local names = {}
  for path, field in pairs(schema.by_path) do
    if not keep or keep(field) then names[#names + 1] = path end
  end
  for leaf, field in pairs(schema.leaves) do
    if field and (not keep or keep(field)) then names[#names + 1] = leaf end
  end
  table.sort(names)
  return names
end

return schema
