-- One model: the original baseline on a GPU (6 layers, 384 wide; 1250 updates
-- of 24 x 512 tokens by 4 micro-steps, evaluated every 125 updates over 100
-- batches, the best checkpoint kept), its nano form on a CPU unless
-- profile=full asks otherwise.
return require("llm.sweep") {
  name = "train",
  description = "One baseline model, best validation loss kept",
  profile = "auto",
  matrix = { { name = "baseline" } },
  profiles = {
    full = {
      models = { { name = "base", d_model = 384, n_layers = 6, n_heads = 8,
        d_ff = 1536 } },
      train = { steps = 1250, seq = 512, batch = 24,
        tokens_per_step = 24 * 512 * 4, eval_every = 125,
        eval_tokens = 100 * 24 * 512, keep_best = true },
    },
    nano = {
      models = { { name = "base", d_model = 128, n_layers = 2, n_heads = 4,
        d_ff = 512 } },
      train = { steps = 50, seq = 256, batch = 8,
        tokens_per_step = 8 * 256 * 4, eval_every = 10,
        eval_tokens = 8 * 256 * 8, keep_best = true },
    },
  },
  out = "train_results",
}
