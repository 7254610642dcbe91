-- The reference of `gpu`, `host` and every configuration key as Markdown,
-- written from the lists that the program itself uses. llm.stubs writes the
-- file, tests hold it to them.
local docs = require "llm.docs"
local schema = require "llm.schema"

local reference = {}

local function cell(text)
  return (tostring(text):gsub("|", "\\|"):gsub("%s+", " "))
end

local function code(text) return "`" .. tostring(text) .. "`" end

-- --- modules and classes -----------------------------------------------------
local function add_options(out, options)
  for _, o in ipairs(options) do
    local kind = o.words and o.words:gsub("|", " ") or o.type
    out[#out + 1] = ("  - %s %s: %s"):format(code(o.name), kind, o.doc)
  end
end

local function add_entry(out, prefix, entry)
  local field = docs.is_field(entry)
  out[#out + 1] = ("- %s  "):format(code(prefix .. entry.name
    .. (field and ": " or "") .. entry.signature))
  out[#out + 1] = "  " .. entry.doc:gsub("%s+", " ")
  if entry.options and #entry.options > 0 then
    add_options(out, entry.options)
  end
end

local function add_list(out, title, prefix, list)
  if #list == 0 then return end
  out[#out + 1] = ""
  out[#out + 1] = "### " .. title
  out[#out + 1] = ""
  for _, entry in ipairs(list) do
    if not entry.name:find "^__" then add_entry(out, prefix, entry) end
  end
end

local function add_root(out, root)
  out[#out + 1] = ""
  out[#out + 1] = "## The module " .. code(root)
  for _, path in ipairs(docs.paths()) do
    if path == root or path:find("^" .. root .. "%.") then
      local short = path:match "[^.]+$"
      add_list(out, path, path .. ".", docs.functions(path))
      add_list(out, "Objects: " .. path, short .. ":", docs.methods(path))
    end
  end
end

-- --- keys of a configuration -------------------------------------------------
local function default_of(field)
  local v = field.default
  if v == nil then return "" end
  if type(v) == "table" then return code(table.concat(v, ",")) end
  return v == "" and "" or code(v)
end

local function kind_of(field)
  local words = field.words and table.concat(field.words, " ")
  if not words then return field.type .. (field.auto and " or auto" or "") end
  return field.type == "string" and words or field.type .. " or " .. words
end

local function add_keys(out)
  out[#out + 1] = ""
  out[#out + 1] = "## Keys of a configuration"
  out[#out + 1] = ""
  out[#out + 1] = "| key | type | default | meaning |"
  out[#out + 1] = "|---|---|---|---|"
  for _, field in ipairs(schema.fields) do
    out[#out + 1] = ("| %s | %s | %s | %s |"):format(code(field.path),
      cell(kind_of(field)), cell(default_of(field)), cell(field.doc))
  end
end

-- The whole text.
function reference.text()
  local out = { "# Reference", "",
    "Written by `llmhost -e 'require(\"llm.stubs\").write \"lua\"'`; the same "
      .. "texts are behind `help()` at the prompt and the editor's hover. "
      .. "Option tables take their first values by position, too.",
    "The rules of merging, time and batch are in "
      .. "[experiments/README.md](../experiments/README.md)." }
  require "gpu"
  require "host"
  add_root(out, "gpu")
  add_root(out, "host")
  add_keys(out)
  return table.concat(out, "\n") .. "\n"
end

return reference
