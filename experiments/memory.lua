-- What does memory cost in speed? One model, one batch, every way to keep
-- less for the backward pass: recompute none, light, mlp, block, each with
-- saved activations as they are and in 8 bits.
--
--   llmhost experiments/memory.lua [key=value …]
--   llmhost experiments/memory.lua --dry-run profile=full    the plan alone
local sweep = require "llm.sweep"

return sweep {
  name = "memory",
  description = "Recompute and 8-bit activations: bytes against speed",
  notes = "All runs take the same micro-batch and number of steps. "
    .. "recompute changes no bit of a run; saved = int8 does.",
  profile = "auto",
  matrix = {
    { name = "baseline", recompute = "none" }, -- keeps everything, as it is
    { name = "int8", recompute = "none", saved = "int8" },
    { name = "light", recompute = "light" },
    { name = "light_int8", recompute = "light", saved = "int8" },
    { name = "mlp", recompute = "mlp" },
    { name = "mlp_int8", recompute = "mlp", saved = "int8" },
    { name = "block", recompute = "block" },
    { name = "block_int8", recompute = "block", saved = "int8" },
  },
  profiles = {
    full = {
      models = { { name = "small", d_model = 512, n_layers = 8, n_heads = 8,
        d_ff = 2048 } },
      train = { steps = 200, batch = 24 },
    },
    nano = {
      models = { { name = "small", d_model = 128, n_layers = 2, n_heads = 4,
        d_ff = 512 } },
      train = { steps = 10, batch = 8, evaluations = 1 },
    },
  },
  out = "memory_results",
}
