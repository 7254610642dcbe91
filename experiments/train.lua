-- One model: the original baseline on a GPU (6 layers, 384 wide; 1250 updates
-- of 24 x 512 tokens by 4 micro-steps, evaluated every 125 updates over 100
-- batches, the best checkpoint kept), its nano form on a CPU unless
-- profile=full asks otherwise. With from=FOLDER a Llama as Hugging Face keeps
-- one is trained on instead, with its own tokenizer.
local from = require("llm.import").requested()

local function model(row) return { from and from.row or row } end

return require("llm.sweep") {
  name = "train",
  description = "One baseline model, best validation loss kept",
  profile = "auto",
  matrix = { { name = "baseline" } },
  data = from and from.data,
  profiles = {
    full = {
      models = model { name = "base", d_model = 384, n_layers = 6,
        n_heads = 8, d_ff = 1536 },
      train = { steps = 1250, seq = 512, batch = 24,
        tokens_per_step = 24 * 512 * 4, eval_every = 125,
        eval_tokens = 100 * 24 * 512, keep_best = true },
    },
    nano = {
      models = model { name = "base", d_model = 128, n_layers = 2,
        n_heads = 4, d_ff = 512 },
      train = { steps = 50, seq = 256, batch = 8,
        tokens_per_step = 8 * 256 * 4, eval_every = 10,
        eval_tokens = 8 * 256 * 8, keep_best = true },
    },
  },
  out = "train_results",
}
