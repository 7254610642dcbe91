-- What a script takes, told to people (--help), to programs (--help --json) and
-- by them to shells: its heading, its keys with types, defaults and meanings,
-- its flags and words. And what was meant by a script that is not there.
local host = require "host"
local keys = require "llm.keys"

local usage = {}

-- Flags of every script that returns a sweep: { flag, meaning }.
usage.sweep_flags = {
  { "--dry-run", "the matrix with memory and batch; touches no device" },
  { "--retry", "run again what failed" },
}

-- --- the heading of a script -----------------------------------------------

-- The comment at the start of a Lua text, without its dashes.
local function heading(text)
  local lines = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    local comment = line:match "^%-%- ?(.*)$"
    if not comment then
      if #lines > 0 or not line:find "^#!" then break end
    else
      lines[#lines + 1] = comment
    end
  end
  return (table.concat(lines, "\n"):gsub("%s+$", ""))
end

usage.heading = heading

local function text_of(path) return host.file.read(path, 1 << 22) or "" end

-- The path as a person would type it: below the root when it lies there.
local function shown(path)
  local root = host.options.root or ""
  local whole = host.file.realpath(path) or path
  if root ~= "" and whole:sub(1, #root + 1) == root .. "/" then
    return whole:sub(#root + 2)
  end
  return path
end

-- Keys that a heading names as `key=default`, for scripts that declare none.
local function spoken_keys(about)
  local list, seen = {}, {}
  for key, default in about:gmatch "([%a][%w_]*)=([^%s%],;]*)" do
    if not seen[key] then
      seen[key] = true
      list[#list + 1] = { path = key, type = "string", default = default,
        doc = "" }
    end
  end
  return list
end

-- --- telling ---------------------------------------------------------------

local function key_record(field)
  return { name = field.path, type = field.type, doc = field.doc,
    default = keys.shown(field.default), words = field.words
      and host.json.array(table.move(field.words, 1, #field.words, 1, {})) }
end

local function as_json(d)
  local list, flags, plain = {}, {}, {}
  for i, field in ipairs(d.fields) do list[i] = key_record(field) end
  for i, f in ipairs(d.flags) do flags[i] = { name = f[1], doc = f[2] } end
  for i, w in ipairs(d.words) do plain[i] = { name = w[1], doc = w[2] } end
  return host.json.encode(host.json.ordered {
    { "script", d.script }, { "about", d.about },
    { "keys", host.json.array(list) }, { "flags", host.json.array(flags) },
    { "words", host.json.array(plain) },
    { "models", host.json.array(d.models or {}) },
    { "matrix", host.json.array(d.matrix or {}) } }, { indent = 2 })
end

local WIDTH = 80

local function wrapped(lines, left, text, indent)
  local line = left
  for word in text:gmatch "%S+" do
    if utf8.len(line) + 1 + utf8.len(word) > WIDTH then
      lines[#lines + 1], line = line, (" "):rep(indent - 1)
    end
    line = line .. " " .. word
  end
  lines[#lines + 1] = line
end

-- Rows { left, right } in two columns.
local function two_columns(lines, rows)
  local wide = 0
  for _, row in ipairs(rows) do
    if #row[1] <= 28 then wide = math.max(wide, #row[1]) end
  end
  for _, row in ipairs(rows) do
    local left = "  " .. row[1]
    if #row[1] > wide then
      lines[#lines + 1], left = left, "  "
    end
    wrapped(lines, left .. (" "):rep(wide + 3 - #left), row[2], wide + 4)
  end
end

local function key_row(field)
  local kind = field.words and field.type == "string"
    and table.concat(field.words, "|") or field.type
  if field.words and field.type ~= "string" then
    kind = kind .. "|" .. table.concat(field.words, "|")
  end
  local parts = { field.doc ~= "" and field.doc or nil }
  if field.default ~= nil then parts[#parts + 1] = keys.shown(field.default) end
  return { field.path .. "=" .. kind, table.concat(parts, "; ") }
end

local function add_rows(lines, d)
  if not (d.models and #d.models > 0) then return end
  lines[#lines + 1] = ""
  wrapped(lines, "keys of one model or variant:", "models.NAME.KEY=… for "
    .. table.concat(d.models, ", ") .. "; matrix.NAME.KEY=… for "
    .. table.concat(d.matrix, ", "), 3)
end

local function as_text(d)
  local lines, rows = {}, {}
  local plain = {}
  for i, w in ipairs(d.words) do
    plain[i] = "[" .. w[1] .. "]"
    rows[i] = { w[1], w[2] }
  end
  lines[1] = ("usage: llmhost %s %s%s[options]"):format(d.script,
    #plain > 0 and table.concat(plain, " ") .. " " or "",
    (#d.fields > 0 or d.spoken) and "[key=value …] " or "")
  if d.about ~= "" then
    lines[#lines + 1] = ""
    lines[#lines + 1] = d.about
  end
  if #rows > 0 then
    lines[#lines + 1] = ""
    two_columns(lines, rows)
  end
  if #d.fields > 0 and not d.spoken then
    lines[#lines + 1] = ""
    lines[#lines + 1] = d.models and "keys, with the defaults of this script "
      .. "here and now (the last name alone will" or "keys, with defaults:"
    if d.models then
      lines[#lines + 1] = "do where only one section has it):"
    end
    rows = {}
    for i, field in ipairs(d.fields) do rows[i] = key_row(field) end
    two_columns(lines, rows)
  end
  add_rows(lines, d)
  if #d.flags > 0 then
    lines[#lines + 1] = ""
    two_columns(lines, d.flags)
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "llmhost --help lists the options of the program."
  return table.concat(lines, "\n")
end

-- Print what the running script takes. d: fields (of llm.schema's form), words
-- and flags ({ name, meaning } each), models and matrix (names) of a sweep.
function usage.explain(d)
  local path = host.options.script
  d.script, d.about = shown(path or "script.lua"), heading(text_of(path or ""))
  d.words, d.flags = d.words or {}, d.flags or {}
  print(host.options.json and as_json(d) or as_text(d))
end

-- The same of a sweep, with its own defaults.
function usage.sweep(sweep)
  local fields, models, variants = {}, {}, {}
  local schema = require "llm.schema"
  for _, field in ipairs(schema.fields) do
    if field.where ~= "model" then
      local copy = setmetatable({ default = sweep.config.values[field.path] },
        { __index = function(_, key)
          if key ~= "default" then return field[key] end
        end })
      fields[#fields + 1] = copy
    end
  end
  for i, row in ipairs(sweep.config.models or {}) do models[i] = row.name end
  for i, row in ipairs(sweep.config.matrix or {}) do variants[i] = row.name end
  usage.explain { fields = fields, flags = usage.sweep_flags,
    models = models, matrix = variants }
end

-- Does the script explain itself when it is run with --help?
local function explains_itself(text)
  for _, module in ipairs { "llm.sweep", "llm.keys", "llm.words" } do
    if text:find("require%s*%(?%s*[\"']" .. module:gsub("%.", "%%.")) then
      return true
    end
  end
  return text:find("-help", 1, true) ~= nil
end

-- For the host, when --help follows a script: true when there is nothing to
-- run, because its heading was all there is to say.
function usage.script(path)
  local text = text_of(path)
  if explains_itself(text) then return false end
  host.options.script = path
  usage.explain { fields = spoken_keys(heading(text)), spoken = true }
  return true
end

-- --- what was meant --------------------------------------------------------

local COMMANDS = { help = "--help", version = "-v", repl = "-i",
  shell = "-i", prompt = "-i" }

-- The scripts that come with the program, as paths below its root.
function usage.scripts()
  local root, list = host.options.root, {}
  for _, name in ipairs(root and host.file.list(root .. "/experiments")
    or {}) do
    if name:find "%.lua$" then list[#list + 1] = "experiments/" .. name end
  end
  return list
end

-- "; did you mean 'llmhost …'?" for a script that does not exist, or nil.
function usage.suggest(name)
  local stem = name:match "([^/]*)$":gsub("%.lua$", "")
  local meant, stems, paths = COMMANDS[stem], {}, {}
  for _, path in ipairs(usage.scripts()) do
    local own = path:match "([^/]*)%.lua$"
    stems[#stems + 1], paths[own] = own, path
  end
  for _, file in ipairs(host.file.list(name:match "^(.*)/" or ".") or {}) do
    local own = file:match "^(.*)%.lua$"
    if own and not paths[own] then
      stems[#stems + 1] = own
      paths[own] = (name:match "^(.*/)" or "") .. file
    end
  end
  if name:find("/", 1, true) then meant = nil end
  meant = meant or paths[stem] or paths[host.nearest(stem, stems) or ""]
  return meant and ("; did you mean 'llmhost %s'?"):format(meant) or nil
end

return usage
