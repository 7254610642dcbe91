-- Files of a repository on the hub, by `resolve`: one, or all that match a
-- pattern. Each appears whole, beside a hidden note of what it is.
local download = require "llm.download"
local host = require "host"

local hubfiles = {}

local function first_line(path)
  local text = host.file.is_file(path) and host.file.read(path)
  return text and text:match "^%s*(%S+)" or nil
end

local function encode(text)
  return (text:gsub("[^%w%._~/%-]", function(c)
    return ("%%%02X"):format(c:byte())
  end))
end

local function revision_of(spec) return spec.revision or "main" end

local function folder_of(spec, kind)
  return kind .. "--" .. spec.repo:gsub("/", "--")
end

-- Where our own copies of a repository's revision are.
local function base_of(spec, kind, settings)
  return ("%s/%s/%s"):format(settings.cache, folder_of(spec, kind),
    (revision_of(spec):gsub("/", "--")))
end

local function must_be_online(spec, settings)
  if settings.offline then
    settings.failed(spec.name .. " is not in the cache, and HF_HUB_OFFLINE is "
      .. "set", "offline")
  end
end

-- --- what is here -----------------------------------------------------------

-- The file in the folder that Hugging Face's own programs share, or nil.
local function shared(spec, kind, settings)
  local base = settings.shared .. "/" .. folder_of(spec, kind)
  local commit = first_line(base .. "/refs/" .. revision_of(spec))
    or revision_of(spec)
  local file = base .. "/snapshots/" .. commit .. "/" .. spec.path
  return host.file.is_file(file) and file or nil
end

local function note_of(path) return (path:gsub("([^/]*)$", ".%1.json")) end

-- Our own copy: whole (its note is written before it gets its name), or nil.
local function own(path)
  local text = host.file.read(note_of(path))
  local note = text and host.json.decode(text)
  if type(note) == "table" and host.file.size(path) == note.bytes then
    return { path = path, revision = note.revision, bytes = note.bytes }
  end
end

-- The file if it is here: { path, revision, bytes }, or nil.
function hubfiles.present(spec, kind, settings)
  local there = shared(spec, kind, settings)
  if there then return { path = there, bytes = host.file.size(there) } end
  return own(base_of(spec, kind, settings) .. "/" .. spec.path)
end

-- --- fetching one -----------------------------------------------------------

local MAGIC = { gz = { "^\x1f\x8b", "gzip" },
  zst = { "^\x28\xb5\x2f\xfd", "Zstandard" },
  jsonl = { "^%s*{", "JSONL" }, ndjson = { "^%s*{", "JSONL" },
  json = { "^%s*[{%[]", "JSON" } }

-- What is wrong with the beginning of a file of that name, or nil.
local function check_start(path, name)
  local file = io.open(path, "rb")
  local head = file and file:read(512) or ""
  if file then file:close() end
  local magic = MAGIC[name:match "%.(%w+)$" or ""]
  if #head == 0 then return "nothing" end
  if magic and not head:find(magic[1]) then
    return ("not %s (it begins with %q)"):format(magic[2],
      head:sub(1, 40):gsub("[%c\x80-\xff]", "?"))
  end
end

local function request(spec, settings, url, label)
  return { url = url, token = settings.token, say = settings.say,
    idle = settings.idle, backoff = settings.backoff,
    attempts = settings.attempts, reached = settings.reached,
    authorities = settings.authorities,
    label = spec.repo .. "/" .. label }
end

-- The file, from the hub unless it is here: { path, revision, bytes }.
-- `kind`: datasets or models; check(path) says what is wrong with what came.
function hubfiles.get(spec, kind, settings, check)
  local there = hubfiles.present(spec, kind, settings)
  if there then return there end
  must_be_online(spec, settings)
  local to = base_of(spec, kind, settings) .. "/" .. spec.path
  local how = request(spec, settings, ("%s/%s%s/resolve/%s/%s"):format(
    settings.endpoint, kind == "datasets" and "datasets/" or "", spec.repo,
    encode(revision_of(spec)), encode(spec.path)), spec.path)
  how.path = to
  how.check = function(part, answer)
    local wrong = check_start(part, spec.path) or (check and check(part))
    if wrong then return wrong end
    local h = answer.headers
    local ok, why = host.file.write(note_of(to), host.json.encode {
      bytes = host.file.size(part), url = how.url,
      revision = h["x-repo-commit"], etag = h["x-linked-etag"] or h.etag })
    return not ok and why or nil
  end
  host.file.mkdir(to:match "^(.*)/")
  local answer, message, word, status = download.get(how)
  if not answer then settings.failed(message, word, status) end
  settings.reached = true
  return own(to) or settings.failed(to .. " cannot be read again", "disk")
end

-- --- fetching some ----------------------------------------------------------

-- Bytes of text that a byte of a file stands for, at least.
local TEXT_PER_BYTE = { gz = 2, zst = 2 }
local LISTS_MOST = 100 -- pages of a folder's listing

function hubfiles.is_pattern(spec)
  return spec.path ~= nil and spec.path:find "[*?]" ~= nil
end

local function split(path) return path:match "^(.-)/?([^/]*)$" end

-- A shell pattern of a file's name as Lua's.
local function lua_pattern(name)
  return "^" .. name:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("[*?]",
    { ["*"] = ".*", ["?"] = "." }) .. "$"
end

local function next_page(answer)
  return (answer.headers.link or ""):match '<([^>]+)>%s*;%s*rel="next"'
end

-- Add the names of a listing that match.
local function add_names(names, body, pattern)
  for _, entry in ipairs(body) do
    local path = type(entry) == "table" and entry.type == "file" and entry.path
    local name = type(path) == "string" and select(2, split(path))
    if name and name:find(pattern) and not name:find "^%." then
      names[#names + 1] = name
    end
  end
end

-- The names in the pattern's folder that match it, sorted, from the hub.
local function fetch_names(spec, settings)
  local folder, last = split(spec.path)
  local names, pattern = {}, lua_pattern(last)
  local url = ("%s/api/datasets/%s/tree/%s%s"):format(settings.endpoint,
    spec.repo, encode(revision_of(spec)), folder ~= "" and "/"
    .. encode(folder) or "")
  for _ = 1, LISTS_MOST do
    if url:sub(1, #settings.endpoint + 1) ~= settings.endpoint .. "/" then
      settings.failed(url .. ": a listing that goes on elsewhere", "refused")
    end
    local how = request(spec, settings, url, folder)
    local answer, message, word, status = download.get(how)
    if not answer then settings.failed(message, word, status) end
    settings.reached = true
    local body = host.json.decode(answer.body)
    if type(body) ~= "table" then
      settings.failed(url .. ": the answer is no list of files", "refused")
    end
    add_names(names, body, pattern)
    url = next_page(answer)
    if not url then break end
  end
  table.sort(names)
  return names
end

local function list_path(spec, settings)
  local folder, last = split(spec.path)
  return ("%s/%s/.list %s.json"):format(base_of(spec, "datasets", settings),
    folder, last):gsub("//", "/")
end

-- The same, from here if they were asked for before.
local function names_of(spec, settings)
  local path = list_path(spec, settings)
  local text = host.file.read(path)
  local known = text and host.json.decode(text)
  if type(known) == "table" then return known end
  must_be_online(spec, settings)
  local names = fetch_names(spec, settings)
  if #names == 0 then
    settings.failed(spec.name .. ": no file of the repository matches",
      "refused")
  end
  host.file.mkdir(path:match "^(.*)/")
  local ok, why = host.file.write(path, host.json.encode(
    host.json.array(names)))
  if not ok then settings.failed(why, "disk") end
  return names
end

-- The first files that match and hold the text wanted: { source, files,
-- revision, bytes }.
function hubfiles.matching(spec, want, settings)
  local folder = split(spec.path)
  local got = { bytes = 0, files = 0,
    source = base_of(spec, "datasets", settings) .. "/" .. spec.path }
  local alone = setmetatable({ shared = settings.cache .. "/none" },
    { __index = settings }) -- one folder holds them all
  for _, name in ipairs(names_of(spec, settings)) do
    local path = (folder ~= "" and folder .. "/" or "") .. name
    local file = hubfiles.get({ name = spec.name, repo = spec.repo,
      revision = spec.revision, path = path }, "datasets", alone)
    got.files = got.files + 1
    got.bytes = got.bytes + file.bytes
      * (TEXT_PER_BYTE[path:match "%.(%w+)$"] or 1)
    got.revision = got.revision or file.revision
    if want.bytes and got.bytes >= want.bytes then break end
  end
  return got
end

-- How many of them are here, in words; nil: none.
function hubfiles.present_matching(spec, settings)
  local there = host.file.glob(base_of(spec, "datasets", settings) .. "/"
    .. spec.path) or {}
  return #there > 0 and #there .. " files in the cache" or nil
end

return hubfiles
