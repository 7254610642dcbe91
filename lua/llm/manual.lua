-- The manual page llmhost(1), written from the lists that the program itself
-- uses: options, scripts, keys. What is not a list is told here.
--
--   llmhost -e 'require("llm.manual").write "FOLDER"'
local completion = require "llm.completion"
local host = require "host"
local keys = require "llm.keys"
local schema = require "llm.schema"

local manual = {}

-- --- troff -----------------------------------------------------------------

-- Text whose signs troff would take for its own.
local function plain(text)
  return (text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("…", "...")
    :gsub("–", "\\(en"):gsub("−", "\\-"):gsub("×", "\\(mu")
    :gsub("\n([.'])", "\n\\&%1"):gsub("^([.'])", "\\&%1"))
end

local function add(out, format, ...)
  out[#out + 1] = select("#", ...) > 0 and format:format(...) or format
end

-- A tagged paragraph: name in bold, the rest in italics, and its text.
local function tagged(out, name, value, text)
  add(out, ".TP")
  add(out, value and "\\fB%s\\fR\\fI%s\\fR" or "\\fB%s\\fR", plain(name),
    value and plain(value))
  add(out, "%s", plain(text))
end

local function section(out, name) add(out, ".SH %s", name) end

local function paragraphs(out, text)
  add(out, ".PP")
  for line in text:gmatch "[^\n]+" do add(out, "%s", plain(line)) end
end

-- --- what is told by hand --------------------------------------------------

local DESCRIPTION = [[
llmhost trains small language models from Lua scripts and measures what
grouped-query attention and 4-bit weights save in memory and cost in speed and
loss. It is Lua 5.4 with two modules: gpu computes, host does everything around
it. A script that returns a sweep is run; its configuration can be overridden
key by key on the command line.]]

local PROMPT = [[
llmhost -i prints the value of an expression without return, reads on while a
chunk is incomplete, completes names, options and files by Tab, searches its
history by Ctrl-R, and explains itself by help(). Ctrl-C drops the line that is
typed, or ends what runs; Ctrl-D leaves. Keys are those of editline(7), which
~/.editrc changes. Without a terminal, or on one that cannot move its cursor,
lines are read plainly.]]

-- Variables of the environment: { name, meaning }.
manual.environment = {
  { "LLMHOST_THREADS", "threads of the CPU backend; all by default. Results "
    .. "do not depend on it." },
  { "LLMHOST_CPU_LEVEL", "v1, v3 or v4: an older instruction-set level." },
  { "LLMHOST_NVTX", "1: on CUDA every call of an operator is an NVTX range of "
    .. "its name, called one by one." },
  { "LLMHOST_PYTHON", "the python that has torch, for the bench's peer; "
    .. "python3 by default." },
  { "HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, "
    .. "HF_HUB_DOWNLOAD_TIMEOUT, https_proxy, no_proxy",
    "what they mean elsewhere, for data of the Hugging Face hub." },
  { "LLMHOST_LUA_MEMORY", "limit of a Lua state, such as 2GB." },
  { "NO_COLOR", "no colours, unless --color=always." },
  { "XDG_CACHE_HOME", "where choices made by measuring on a GPU are kept; "
    .. "~/.cache by default." },
  { "XDG_STATE_HOME", "where the prompt keeps its history; ~/.local/state "
    .. "by default." },
}

manual.exits = {
  { "0", "fine" }, { "1", "failed" },
  { "2", "the command line makes no sense" },
  { "3", "nothing fitted in memory" },
  { "130", "interrupted; state is saved, and the same command continues" },
}

local FILES = {
  { "$XDG_STATE_HOME/llmhost/history", "what was typed at the prompt." },
  { "$XDG_CACHE_HOME/llmhost/tuning-*.txt", "which algorithms a GPU's matrix "
    .. "products take." },
  { "experiment_results/", "what a sweep writes, unless out= says otherwise: "
    .. "journal, log, results, report, plots, checkpoints." },
  { "data_cache/", "token files, unless data.cache= says otherwise." },
  { "~/.editrc", "key bindings of the prompt." },
}

local EXAMPLES = {
  { "llmhost experiments/check.lua", "Can this machine run it?" },
  { "llmhost experiments/sweep.lua --dry-run profile=full",
    "The matrix of a 24 GB card with its memory, on any machine." },
  { "llmhost experiments/sweep.lua train.steps=100 only=small_*",
    "Some of it, briefly." },
  { "llmhost experiments/train.lua --help", "What a script takes." },
}

-- --- the page --------------------------------------------------------------

local function add_keys(out)
  section(out, "KEYS OF A CONFIGURATION")
  paragraphs(out, "Written key=value after a script that returns a sweep; the "
    .. "last name alone will do where only one section has it. A key of one "
    .. "model or variant is written models.NAME.KEY or matrix.NAME.KEY.")
  for _, field in ipairs(schema.fields) do
    local kind = field.words and field.type == "string"
      and table.concat(field.words, "|") or field.type
    local text = field.doc
    if field.default ~= nil then
      text = text .. "; default: " .. keys.shown(field.default)
    end
    tagged(out, field.path .. "=", kind, text)
  end
end

local function add_list(out, list)
  for _, entry in ipairs(list) do tagged(out, entry[1], nil, entry[2]) end
end

-- The page as troff. `scripts` as completion.scripts gives them.
function manual.page(scripts)
  local out = {}
  add(out, ".\\\" Written by lua/llm/manual.lua.")
  add(out, ".TH LLMHOST 1 \"\" \"llmhost %s\"", host.version)
  section(out, "NAME")
  add(out, "llmhost \\- train and compare small language models")
  section(out, "SYNOPSIS")
  add(out, ".B llmhost\n[\\fIoptions\\fR] \\fIscript.lua\\fR "
    .. "[\\fIkey=value\\fR | \\fIargs\\fR ...]\n.br\n.B llmhost \\-i\n"
    .. "[\\fIscript.lua\\fR ...]")
  section(out, "DESCRIPTION")
  paragraphs(out, DESCRIPTION)
  section(out, "OPTIONS")
  paragraphs(out, "Before or after the script, the short ones before it.")
  for _, o in ipairs(completion.options()) do
    tagged(out, o.name .. (o.value and " " or ""), o.value, o.doc .. ".")
  end
  tagged(out, "-", nil, "run standard input.")
  section(out, "SCRIPTS")
  paragraphs(out, "They come with the program and are found from any folder; "
    .. "each explains itself by --help.")
  for _, s in ipairs(scripts) do
    tagged(out, s.path, nil, s.doc .. (s.doc:find "%?$" and "" or "."))
  end
  add_keys(out)
  section(out, "THE PROMPT")
  paragraphs(out, PROMPT)
  section(out, "ENVIRONMENT")
  add_list(out, manual.environment)
  section(out, "FILES")
  add_list(out, FILES)
  section(out, "EXIT STATUS")
  add_list(out, manual.exits)
  section(out, "EXAMPLES")
  add_list(out, EXAMPLES)
  section(out, "SEE ALSO")
  add(out, ".BR lua (1),\n.BR editline (7)")
  return table.concat(out, "\n") .. "\n"
end

-- Write man1/llmhost.1 below `folder` (PREFIX/share/man).
function manual.write(folder)
  assert(host.file.mkdir(folder .. "/man1"))
  assert(host.file.write(folder .. "/man1/llmhost.1",
    manual.page(completion.scripts())))
end

return manual
