-- Text and tokenizers from the Hugging Face hub, kept in a cache that is never
-- half-written: rows of a dataset by the rows API, files by `resolve`.
--
--   hf:OWNER/NAME/CONFIG/SPLIT        rows (SPLIT: train, CONFIG: default)
--   hf:OWNER/NAME[@REVISION]:PATH     a file of a dataset's repository; with *
--                                     or ? in its name, files in their order
--   hf:OWNER/NAME[@REVISION]          as a tokenizer: its tokenizer.json
local fail = require "llm.fail"
local host = require "host"
local hubfiles = require "llm.hubfiles"
local hubrows = require "llm.hubrows"

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

-- --- failures ---------------------------------------------------------------

local WITHOUT = "; without the hub: data.source=PATH (text or JSONL, plain, "
  .. ".gz or .zst), data.source=system (the text this machine has), "
  .. "data.tokenizer=train"

local ADVICE = { offline = WITHOUT, timeout = WITHOUT, cut = WITHOUT,
  unsupported = WITHOUT, untrusted = "; if a proxy of yours answers, name its "
    .. "certificate in CURL_CA_BUNDLE" }
local REFUSALS = {
  [401] = "; it needs an access token of yours (HF_TOKEN)",
  [403] = "; your access token (HF_TOKEN) is not allowed to read it: ask on "
    .. "its page, or choose another dataset",
  [404] = "; is the name right?",
}

-- Raise what a download could not do, with what can be done about it.
local function failed(message, word, status)
  fail.raise(word == "disk" and "disk" or "world", "%s%s", message,
    ADVICE[word] or REFUSALS[status] or "")
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
-- HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT, CURL_CA_BUNDLE. `cache`: our own
-- folder; `say`: takes a line of text.
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
  return { cache = cache .. "/hub", say = say, failed = failed,
    endpoint = endpoint,
    rows = rows_of(endpoint), token = token and token:match "^%s*(.-)%s*$",
    shared = get "HF_HUB_CACHE" or get "HUGGINGFACE_HUB_CACHE"
      or home .. "/hub",
    offline = truthy(get "HF_HUB_OFFLINE"),
    authorities = get "CURL_CA_BUNDLE" or get "SSL_CERT_FILE"
      or get "REQUESTS_CA_BUNDLE",
    idle = tonumber(get "HF_HUB_DOWNLOAD_TIMEOUT" or "") or 60 }
end

-- The hub's folder is one process's at a time.
local function lock(settings)
  host.file.mkdir(settings.cache)
  local held, message, code, pid = host.lock(settings.cache .. "/lock", 10)
  if held then return held end
  fail.raise(code == "disk" and "disk" or "world", "%s: %s", settings.cache,
    code == "busy"
    and "another process is fetching into it"
    .. (pid and " (process " .. pid .. ")" or "") or tostring(message))
end

-- --- tokenizers and sources -------------------------------------------------

local function check_tokenizer(path)
  local t, message = host.text.tokenizer { file = path }
  return not t and message or nil
end

-- The path of a model's tokenizer.json, from the shared folder, our cache, or
-- the hub.
function hub.tokenizer(name, settings)
  local spec = hub.parse(name)
  spec.path = spec.path or "tokenizer.json"
  local there = hubfiles.present(spec, "models", settings)
  if there then return there.path end
  local held <close> = lock(settings)
  return held and hubfiles.get(spec, "models", settings, check_tokenizer).path
end

-- Whether a tokenizer is here already.
function hub.has_tokenizer(name, settings)
  local spec = hub.parse(name)
  spec.path = spec.path or "tokenizer.json"
  return hubfiles.present(spec, "models", settings) ~= nil
end

-- What is wanted of a source: bytes of text, rows, and the field that holds
-- the text. Gives { source, files (nil: all), revision, rows, bytes }.
function hub.source(name, want, settings)
  local spec = hub.parse(name)
  local there = spec.path and not hubfiles.is_pattern(spec)
    and hubfiles.present(spec, "datasets", settings)
  if there then
    return { source = there.path, revision = there.revision,
      bytes = there.bytes }
  end
  local held <close> = lock(settings)
  if not spec.path then return held and hubrows.get(spec, want, settings) end
  if hubfiles.is_pattern(spec) then
    return hubfiles.matching(spec, want, settings)
  end
  local file = hubfiles.get(spec, "datasets", settings)
  return { source = file.path, revision = file.revision, bytes = file.bytes }
end

-- What of a source is here already, in words; nil when nothing is.
function hub.present(name, settings)
  local spec = hub.parse(name)
  if not spec.path then return hubrows.present(spec, settings) end
  if hubfiles.is_pattern(spec) then
    return hubfiles.present_matching(spec, settings)
  end
  return hubfiles.present(spec, "datasets", settings) and "in the cache"
    or nil
end

return hub
