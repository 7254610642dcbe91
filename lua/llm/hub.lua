-- Text and tokenizers from the Hugging Face hub, kept in a cache that is never
-- half-written: rows of a dataset by the rows API, files by `resolve`.
--
--   hf:OWNER/NAME/CONFIG/SPLIT        rows (SPLIT: train, CONFIG: default)
--   hf:OWNER/NAME[@REVISION]:PATH     a file of a dataset's repository
--   hf:OWNER/NAME[@REVISION]          as a tokenizer: its tokenizer.json
local download = require "llm.download"
local fail = require "llm.fail"
local hubrows = require "llm.hubrows"
local host = require "host"

local hub = {}

hub.DATASET = "hf:HuggingFaceTB/smollm-corpus/cosmopedia-v2/train"
hub.TOKENIZER = "hf:HuggingFaceTB/SmolLM-135M"

-- Whether a name means something on the hub.
function hub.is(name) return name:find "^hf:" ~= nil end

-- --- names ------------------------------------------------------------------

local FORMS = "write hf:OWNER/NAME/CONFIG/SPLIT for rows, or "
  .. "hf:OWNER/NAME:PATH for a file of the repository"

local function plain(word)
  return word and word:find "^[%w%._%-]+$" and not word:find "^%.+$"
end

-- The parts of a name: repo, and path and revision, or config and split.
-- Raises "usage" for what is none.
function hub.parse(name)
  local text = name:match "^hf:(.*)$" or ""
  local head, path = text:match "^([^:]*):(.+)$"
  local base, revision = (head or text):match "^([^@]*)@(.+)$"
  local words = {}
  for word in ((base or head or text) .. "/"):gmatch "([^/]*)/" do
    words[#words + 1] = word
  end
  local bad = #words < 2 or #words > (path and 2 or 4)
    or (revision and (revision:find("..", 1, true)
      or not revision:find "^[%w._%-][%w._%-/]*$"))
    or (path and (path:find "^/" or ("/" .. path .. "/"):find "/%.%.?/"))
  for _, word in ipairs(words) do bad = bad or not plain(word) end
  if bad then fail.raise("usage", "%q names nothing on the hub; %s", name,
    FORMS) end
  return { name = name, repo = words[1] .. "/" .. words[2], path = path,
    revision = revision, config = words[3] or "default",
    split = words[4] or "train" }
end

-- --- settings ---------------------------------------------------------------

local function first_line(path)
  local text = path and host.file.is_file(path) and host.file.read(path)
  return text and text:match "^%s*(%S+)" or nil
end

local function truthy(text)
  text = (text or ""):lower()
  return text == "1" or text == "true" or text == "yes" or text == "on"
end

-- Where the rows API of an endpoint answers: a host of its own beside https
-- ones, the endpoint itself where that is a server without TLS.
local function rows_of(endpoint)
  return (endpoint:gsub("^https://", "https://datasets-server."))
end

-- What the usual variables say: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE,
-- HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT. `cache`: our own folder; `say`:
-- takes a line of text.
function hub.settings(cache, say, getenv)
  getenv = getenv or os.getenv
  local function get(name)
    local v = getenv(name)
    return v and v:find "%S" and v or nil
  end
  local home = get "HF_HOME" or ((get "XDG_CACHE_HOME"
    or (get "HOME" or ".") .. "/.cache") .. "/huggingface")
  local endpoint = (get "HF_ENDPOINT" or "https://huggingface.co")
    :gsub("/+$", "")
  local token = get "HF_TOKEN" or get "HUGGING_FACE_HUB_TOKEN"
    or first_line(get "HF_TOKEN_PATH" or home .. "/token")
  return { cache = cache .. "/hub", say = say, endpoint = endpoint,
    rows = rows_of(endpoint), token = token and token:match "^%s*(.-)%s*$",
    shared = get "HF_HUB_CACHE" or get "HUGGINGFACE_HUB_CACHE"
      or home .. "/hub",
    offline = truthy(get "HF_HUB_OFFLINE"),
    idle = tonumber(get "HF_HUB_DOWNLOAD_TIMEOUT" or "") or 60 }
end

-- --- failures ---------------------------------------------------------------

local WITHOUT = "; without the hub: data.source=PATH (text or JSONL, plain, "
  .. ".gz or .zst), data.source=system (the text this machine has), "
  .. "data.tokenizer=train"

local ADVICE = { offline = WITHOUT, timeout = WITHOUT, cut = WITHOUT,
  unsupported = WITHOUT }
local REFUSALS = {
  [401] = "; it needs an access token of yours (HF_TOKEN)",
  [403] = "; your access token (HF_TOKEN) is not allowed to read it: ask on "
    .. "its page, or choose another dataset",
  [404] = "; is the name right?",
}

-- Raise what a download could not do, with what can be done about it.
function hub.failed(message, word, status)
  fail.raise(word == "disk" and "disk" or "world", "%s%s", message,
    ADVICE[word] or REFUSALS[status] or "")
end

local function must_be_online(settings, what)
  if settings.offline then
    hub.failed(what .. " is not in the cache, and HF_HUB_OFFLINE is set",
      "offline")
  end
end

-- The hub's folder is one process's at a time.
local function lock(settings)
  host.file.mkdir(settings.cache)
  local held, message, code, pid = host.lock(settings.cache .. "/lock", 10)
  if held then return held end
  fail.raise("world", "%s: %s", settings.cache, code == "busy"
    and "another process is fetching into it"
    .. (pid and " (process " .. pid .. ")" or "") or tostring(message))
end

-- --- files by resolve -------------------------------------------------------

local function encode(text)
  return (text:gsub("[^%w%._~/%-]", function(c)
    return ("%%%02X"):format(c:byte())
  end))
end

-- The file in the folder that Hugging Face's own programs share, or nil.
local function shared(settings, folder, spec, path)
  local base = settings.shared .. "/" .. folder
  local wanted = spec.revision or "main"
  local commit = first_line(base .. "/refs/" .. wanted) or wanted
  local file = base .. "/snapshots/" .. commit .. "/" .. path
  return host.file.is_file(file) and file or nil
end

local function describe(path, answer)
  return { path = path, revision = answer.revision, etag = answer.etag,
    bytes = answer.bytes }
end

-- Our own copy: whole (its note is written before it gets its name), or nil.
local function own(path)
  local text = host.file.read(path .. ".json")
  local note = text and host.json.decode(text)
  if type(note) == "table" and host.file.size(path) == note.bytes then
    return describe(path, note)
  end
end

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

local function fetch_file(settings, spec, prefix, path, to, check)
  local url = ("%s/%s%s/resolve/%s/%s"):format(settings.endpoint, prefix,
    spec.repo, encode(spec.revision or "main"), encode(path))
  must_be_online(settings, spec.name)
  host.file.mkdir(to:match "^(.*)/")
  local note
  local answer, message, word, status = download.get { url = url, path = to,
    token = settings.token, say = settings.say, idle = settings.idle,
    backoff = settings.backoff, attempts = settings.attempts,
    label = spec.repo .. "/" .. path,
    check = function(part)
      local wrong = check_start(part, path) or (check and check(part))
      if wrong then return wrong end
      note = { bytes = host.file.size(part), url = url }
      local ok, why = host.file.write(to .. ".json", host.json.encode(note))
      return not ok and why or nil
    end }
  if not answer then hub.failed(message, word, status) end
  note.revision = answer.headers["x-repo-commit"]
  note.etag = answer.headers["x-linked-etag"] or answer.headers.etag
  host.file.write(to .. ".json", host.json.encode(note))
  return describe(to, note)
end

-- A file of a repository: { path, revision, etag, bytes }. `kind`: datasets or
-- models; check(path) says what is wrong with what came.
local function get_file(settings, spec, kind, path, check)
  local folder = kind .. "--" .. spec.repo:gsub("/", "--")
  local there = shared(settings, folder, spec, path)
  if there then return { path = there, bytes = host.file.size(there) } end
  local to = ("%s/%s/%s/%s"):format(settings.cache, folder,
    (spec.revision or "main"):gsub("/", "--"), path)
  local mine = own(to)
  if mine then return mine end
  local _ <close> = lock(settings)
  return fetch_file(settings, spec, kind == "datasets" and "datasets/" or "",
    path, to, check)
end

-- The path of a model's tokenizer.json, from the shared folder, our cache, or
-- the hub.
function hub.tokenizer(name, settings)
  local spec = hub.parse(name)
  return get_file(settings, spec, "models", spec.path or "tokenizer.json",
    function(part)
      local t, message = host.text.tokenizer { file = part }
      return not t and message or nil
    end).path
end

-- --- sources ----------------------------------------------------------------

-- What is wanted of a source: bytes of text, rows, and the field that holds
-- the text. Gives { source, files (nil: all), revision, rows, bytes }.
function hub.source(name, want, settings)
  local spec = hub.parse(name)
  if spec.path then
    local file = get_file(settings, spec, "datasets", spec.path)
    return { source = file.path, revision = file.revision, bytes = file.bytes }
  end
  local held <close> = lock(settings)
  return held and hubrows.get(spec, want, settings, hub.failed)
end

-- What of it is here already, in words; nil when nothing is.
function hub.present(name, settings)
  local spec = hub.parse(name)
  if not spec.path then return hubrows.present(spec, settings) end
  local folder = "datasets--" .. spec.repo:gsub("/", "--")
  local there = shared(settings, folder, spec, spec.path)
    or own(("%s/%s/%s/%s"):format(settings.cache, folder,
      (spec.revision or "main"):gsub("/", "--"), spec.path))
  return there and "in the cache" or nil
end

-- Whether a tokenizer is here already.
function hub.has_tokenizer(name, settings)
  local spec = hub.parse(name)
  local folder = "models--" .. spec.repo:gsub("/", "--")
  local path = spec.path or "tokenizer.json"
  return shared(settings, folder, spec, path) ~= nil
    or own(("%s/%s/%s/%s"):format(settings.cache, folder,
      (spec.revision or "main"):gsub("/", "--"), path)) ~= nil
end

return hub
