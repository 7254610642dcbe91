-- The sweep: does grouped-query attention, 4-bit weights, or both save memory,
-- and what do they cost in speed and loss? Sixteen runs: four models by four
-- variants. Copy this file and change it; any key can also be given on the
-- command line (train.minutes=5 models.small.d_ff=1024).
--
--   llmhost experiments/sweep.lua                what is below, here and now
--   llmhost experiments/sweep.lua --dry-run profile=full
--
-- `profile` brings models, times and budget: nano (a CPU, minutes) or full (a
-- 24 GB card, hours); lua/llm/profile.lua is where to read them.
return require("llm.sweep") {
  name = "sweep",
  description = "Memory, speed and loss of GQA and 4-bit weights",
  profile = "auto",
  matrix = {
    { name = "baseline" },
    { name = "gqa", kv_groups = 4 },
    { name = "fp4", fp4 = true },
    { name = "gqa_fp4", kv_groups = 4, fp4 = true },
  },
  out = "experiment_results",
}
