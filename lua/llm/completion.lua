-- Completion for bash, zsh and fish, written from the lists that the program
-- itself uses: its options, the scripts that come with it, what each says of
-- itself (--help --json), and the keys of a configuration.
--
--   llmhost -e 'require("llm.completion").write "FOLDER"'
local host = require "host"
local schema = require "llm.schema"
local usage = require "llm.usage"

local completion = {}

-- --- what there is ---------------------------------------------------------

-- Words that an option's value may be; nil: a file or anything.
local VALUES = { ["--device"] = { "auto", "cpu", "cuda", "cuda:0" },
  ["--devices"] = { "cuda:0", "cuda:0,1" },
  ["--memory"] = { "device", "8GB", "16GB", "24GB", "32GB", "80GB" },
  ["--color"] = { "auto", "always", "never" } }

-- The program's options: { name, value, doc }, as --help lists them.
function completion.options()
  return debug.getregistry()["llmhost.arguments"] or {}
end

-- What a script says of itself, or nil: the answer of another process.
local function asked(path)
  local p = host.process.spawn { host.process.executable(), path, "--help",
    "--json", stdin = "null", stdout = "pipe", stderr = "null" }
  if not p then return nil end
  local lines = {}
  for line in function() return p:read_line(20) end do
    lines[#lines + 1] = line
  end
  p:wait(5)
  p:close()
  local d = host.json.decode(table.concat(lines, "\n"))
  return type(d) == "table" and d or nil
end

local function first_sentence(text)
  local line = text:match "^(.-)\n\n" or text
  line = line:gsub("%s+", " ") .. " "
  return (line:match "^(.-[.?:;]) " or line):gsub("[.:;%s]+$", "")
end

-- Every script with what it takes, { path, name, keys, flags, doc }.
function completion.scripts()
  local list = {}
  for _, path in ipairs(usage.scripts()) do
    local d = asked(host.options.root .. "/" .. path)
    list[#list + 1] = { path = path, name = path:match "([^/]+)%.lua$",
      keys = d and d.keys or {}, flags = d and d.flags or {},
      doc = first_sentence(d and d.about or "") }
  end
  return list
end

local function key_names(keys)
  local names = {}
  for i, key in ipairs(keys) do names[i] = key.name .. "=" end
  return names
end

-- The keys of a sweep of the user's own.
local function sweep_keys()
  local keys = {}
  for _, field in ipairs(schema.fields) do
    if field.where ~= "model" then
      keys[#keys + 1] = { name = field.path, doc = field.doc }
    end
  end
  return keys
end

-- Words of the keys that have some: { "train.recompute", "recompute" } to
-- their words.
local function key_values(scripts)
  local list, seen = {}, {}
  local function add(name, words)
    if not seen[name] and words and #words > 0 then
      seen[name] = true
      list[#list + 1] = { name = name, words = words }
    end
  end
  for _, field in ipairs(schema.fields) do
    local words = field.words
    if field.type == "boolean" then words = { "true", "false" } end
    add(field.path, words)
    if schema.leaves[field.leaf] == field then add(field.leaf, words) end
  end
  add("profile", { "auto", "nano", "full" })
  for _, s in ipairs(scripts) do
    for _, key in ipairs(s.keys) do
      local words = type(key.words) == "table" and key.words
        or key.type == "boolean" and { "true", "false" } or nil
      add(key.name, words)
    end
  end
  return list
end

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function flag_names(flags)
  local names = {}
  for i, flag in ipairs(flags) do names[i] = flag.name end
  return names
end

-- --- bash ------------------------------------------------------------------

local function case_lines(out, rows)
  for _, row in ipairs(rows) do
    out[#out + 1] = ("  %s) echo %s ;;"):format(row[1], quoted(row[2]))
  end
end

local function bash_functions(scripts)
  local options, rows = {}, {}
  for _, o in ipairs(completion.options()) do options[#options + 1] = o.name end
  local out = { "# bash completion for llmhost; written by `make install`.",
    "_llmhost_options=" .. quoted(table.concat(options, " ")) }
  local paths = {}
  for i, s in ipairs(scripts) do paths[i] = s.path end
  out[#out + 1] = "_llmhost_scripts=" .. quoted(table.concat(paths, " "))
  out[#out + 1] = "_llmhost_keys() {\n  case ${1##*/} in"
  for i, s in ipairs(scripts) do
    rows[i] = { s.name .. ".lua", table.concat(key_names(s.keys), " ") .. " "
      .. table.concat(flag_names(s.flags), " ") }
  end
  rows[#rows + 1] = { "*", table.concat(key_names(sweep_keys()), " ")
    .. " --dry-run --retry" }
  case_lines(out, rows)
  out[#out + 1] = "  esac\n}\n_llmhost_values() {\n  case $1 in"
  rows = {}
  for i, v in ipairs(key_values(scripts)) do
    rows[i] = { v.name, table.concat(v.words, " ") }
  end
  for _, o in ipairs(completion.options()) do
    if VALUES[o.name] then
      rows[#rows + 1] = { o.name, table.concat(VALUES[o.name], " ") }
    end
  end
  case_lines(out, rows)
  out[#out + 1] = "  esac\n}"
  return table.concat(out, "\n")
end

-- `=` and `:` split words in bash: what is completed is the part after the last
-- of them, so the whole word is taken from the line.
local BASH = [==[
_llmhost_value_options=' @VALUED@ '
# The script on the line before the cursor, or nothing.
_llmhost_script() {
  local word skip=''
  for word; do
    if [ -n "$skip" ]; then skip=''; continue; fi
    case $word in
    --*=*) ;;
    -*) case $_llmhost_value_options in *" $word "*) skip=1 ;; esac ;;
    *) printf '%s\n' "$word"; return ;;
    esac
  done
}
_llmhost_reply() { # WORDS PREFIX CUT: the words that begin with PREFIX
  local IFS=$' \t\n'
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
  [ -z "$3" ] || COMPREPLY=("${COMPREPLY[@]#"$3"}")
}
_llmhost_files() { # PREFIX [GLOB]
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(
    compgen -d -- "$1"
    if [ -n "$2" ]; then compgen -f -X "!$2" -- "$1"; else compgen -f -- "$1"
    fi | sort -u)
}
_llmhost() {
  local line=${COMP_LINE:0:COMP_POINT} word script before cut=''
  local -a words
  read -ra words <<<"$line"
  case $line in *[[:space:]]) words+=('') ;; esac
  word=${words[${#words[@]} - 1]}
  before=${words[${#words[@]} - 2]}
  script=$(_llmhost_script "${words[@]:1:${#words[@]}-2}")
  case $word in *[=:]*) cut=${word%"${word##*[=:]}"} ;; esac
  if [[ $_llmhost_value_options == *" $before "* ]]; then
    _llmhost_reply "$(_llmhost_values "$before")" "$word" "$cut"
  elif [[ $word == *=* ]]; then
    local value=${word#*=} values
    values=$(_llmhost_values "${word%%=*}")
    if [ -n "$values" ]; then
      _llmhost_reply "$values" "$value" "${value%"${value##*[=:]}"}"
    else
      _llmhost_files "$value"
    fi
  elif [[ $word == -* ]]; then
    local more=''
    [ -z "$script" ] || more=$(_llmhost_keys "$script")
    _llmhost_reply "$_llmhost_options $more" "$word" ''
  elif [ -z "$script" ]; then
    _llmhost_files "$word" '*.lua'
    local path
    for path in $_llmhost_scripts; do
      [ -e "$path" ] || [[ $path != "$word"* ]] || COMPREPLY+=("$path")
    done
  else
    _llmhost_reply "$(_llmhost_keys "$script")" "$word" "$cut"
    [[ ${COMPREPLY[*]} != *= ]] || compopt -o nospace 2>/dev/null
    [ ${#COMPREPLY[@]} -gt 0 ] || _llmhost_files "$word"
  fi
}
complete -F _llmhost llmhost
]==]

local function valued()
  local names = {}
  for _, o in ipairs(completion.options()) do
    if o.value then names[#names + 1] = o.name end
  end
  return names
end

-- The completion of bash, as text.
function completion.bash(scripts)
  local body = BASH:gsub("@VALUED@", table.concat(valued(), " "))
  return bash_functions(scripts) .. "\n" .. body
end

-- --- zsh -------------------------------------------------------------------

local function zsh_text(text)
  return (text:gsub("[%[%]:\\]", "\\%0"):gsub("'", "'\\''"))
end

local function zsh_option(o)
  local action = ""
  if o.value then
    local words = VALUES[o.name]
    action = (":%s:%s"):format(zsh_text(o.value), words
      and "(" .. table.concat(words, " "):gsub(":", "\\:") .. ")"
      or o.name == "-l" and "" or "")
    if o.name:find "^%-%-" then
      return ("  '%s=[%s]%s'"):format(o.name, zsh_text(o.doc), action)
    end
  end
  return ("  '%s[%s]%s'"):format(o.name, zsh_text(o.doc), action)
end

local ZSH = [==[
_llmhost() {
  local context state state_descr line
  typeset -A opt_args
  _arguments -C \
@OPTIONS@
    '1:script:_llmhost_script' '*::word:_llmhost_word'
}
_llmhost_script() {
  local known
  local -a missing
  for known in @SCRIPTS@; do [[ -e $known ]] || missing+=($known); done
  _files -g '*.lua'
  (( $#missing )) && compadd -- $missing
}
_llmhost_word() {
  local script=${line[1]:t}
  if compset -P 1 '*='; then
    local -a values=(${=$(_llmhost_values ${IPREFIX%=})})
    if (( $#values )); then compadd -- $values; else _files; fi
    return
  fi
  compadd -S '' -- ${=$(_llmhost_keys $script)}
  compadd -- ${=$(_llmhost_flags $script)}
  _files
}
]==]

local function zsh_cases(name, rows)
  local out = { name .. "() {", "  case ${1##*/} in" }
  for _, row in ipairs(rows) do
    out[#out + 1] = ("  %s) print -r -- %s ;;"):format(row[1],
      quoted(row[2]))
  end
  out[#out + 1] = "  esac\n}"
  return table.concat(out, "\n")
end

-- The completion of zsh, as text.
function completion.zsh(scripts)
  local options, paths, keys, flags, values = {}, {}, {}, {}, {}
  for i, o in ipairs(completion.options()) do
    options[i] = "  " .. zsh_option(o) .. " \\"
  end
  for i, s in ipairs(scripts) do
    paths[i] = s.path
    keys[i] = { s.name .. ".lua", table.concat(key_names(s.keys), " ") }
    flags[i] = { s.name .. ".lua", table.concat(flag_names(s.flags), " ") }
  end
  keys[#keys + 1] = { "*", table.concat(key_names(sweep_keys()), " ") }
  flags[#flags + 1] = { "*", "--dry-run --retry" }
  for i, v in ipairs(key_values(scripts)) do
    values[i] = { v.name, table.concat(v.words, " ") }
  end
  local body = ZSH:gsub("@(%u+)@", { OPTIONS = table.concat(options, "\n"),
    SCRIPTS = table.concat(paths, " ") })
  return "#compdef llmhost\n# zsh completion for llmhost; written by "
    .. "`make install`.\n" .. zsh_cases("_llmhost_keys", keys) .. "\n"
    .. zsh_cases("_llmhost_flags", flags) .. "\n"
    .. zsh_cases("_llmhost_values", values) .. "\n" .. body
    .. "_llmhost \"$@\"\n"
end

-- --- fish ------------------------------------------------------------------

local function fish_text(text)
  return "'" .. text:gsub("[\\']", "\\%0") .. "'"
end

local function fish_option(o)
  local long = o.name:match "^%-%-(.*)"
  local words = VALUES[o.name]
  return ("complete -c llmhost %s %s%s -d %s"):format(
    long and "-l" or "-s", long or o.name:sub(2),
    o.value and " -x" .. (words and " -a "
      .. fish_text(table.concat(words, " ")) or "") or "", fish_text(o.doc))
end

local FISH = [==[
# The script on the line, or nothing.
function __llmhost_script
  string match -r -- '[^\s/]+\.lua(?=\s)' (commandline -cp)
end
function __llmhost_runs
  set -l script (__llmhost_script)
  test (count $script) -gt 0; and contains -- $script[1] $argv
end
function __llmhost_no_script
  test (count (__llmhost_script)) -eq 0
end
complete -c llmhost -n __llmhost_no_script -k -a '(__fish_complete_suffix .lua)'
]==]

-- Lines of one script's keys, values spelt out.
local function fish_keys(out, condition, s, values)
  for _, key in ipairs(s.keys) do
    local words = values[key.name]
    local cells = { key.name .. "=" }
    for i, word in ipairs(words or {}) do cells[i] = key.name .. "=" .. word end
    out[#out + 1] = ("complete -c llmhost -n %s -a %s -d %s"):format(
      fish_text(condition), fish_text(table.concat(cells, " ")),
      fish_text(key.doc or ""))
  end
  for _, flag in ipairs(s.flags or {}) do
    out[#out + 1] = ("complete -c llmhost -n %s -l %s -d %s"):format(
      fish_text(condition), flag.name:sub(3), fish_text(flag.doc or ""))
  end
end

-- The completion of fish, as text.
function completion.fish(scripts)
  local out = { "# fish completion for llmhost; written by `make install`." }
  for _, o in ipairs(completion.options()) do
    out[#out + 1] = fish_option(o)
  end
  local values, names = {}, {}
  for _, v in ipairs(key_values(scripts)) do values[v.name] = v.words end
  out[#out + 1] = FISH:gsub("%s+$", "")
  for i, s in ipairs(scripts) do
    names[i] = s.name .. ".lua"
    out[#out + 1] = ("complete -c llmhost -n __llmhost_no_script -a %s -d %s")
      :format(s.path, fish_text(s.doc))
    fish_keys(out, "__llmhost_runs " .. s.name .. ".lua", s, values)
  end
  fish_keys(out, "not __llmhost_no_script; and not __llmhost_runs "
    .. table.concat(names, " "), { keys = sweep_keys() }, values)
  return table.concat(out, "\n") .. "\n"
end

-- --- files -----------------------------------------------------------------

-- Where each goes below share/.
completion.places = {
  { "bash-completion/completions/llmhost", "bash" },
  { "zsh/site-functions/_llmhost", "zsh" },
  { "fish/vendor_completions.d/llmhost.fish", "fish" },
}

-- Write all of them below `folder` (PREFIX/share).
function completion.write(folder)
  local scripts = completion.scripts()
  for _, place in ipairs(completion.places) do
    local path = folder .. "/" .. place[1]
    assert(host.file.mkdir(path:match "^(.*)/"))
    assert(host.file.write(path, completion[place[2]](scripts)))
  end
end

return completion
