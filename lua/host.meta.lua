-- Annotations of the module `host` for editors, written by lua/llm/stubs.lua.
---@meta host

---@class host.fetch.options
---@field url? string http:// or https:// address
---@field token? string bearer token, for the address's own origin alone
---@field path? string file for the body; otherwise it is kept in memory
---@field offset? integer bytes that the file holds already (0)
---@field etag? string the ETag of what they are of; without it the file starts over
---@field authorities? string file of certificates to trust; otherwise the system's
---@field most? integer bytes of a body in memory (64 MiB)
---@field connect? number seconds to wait for a connection (20)
---@field idle? number seconds to wait for a byte (60)
---@field [integer] any the first options, by position

---@class host
---@field clock fun(): number Seconds that only grow.
---@field crc32 fun(text: string): string CRC-32 of a string, 8 hexadecimal digits.
---@field crc32c fun(text: string): integer CRC-32C (Castagnoli) of a string.
---@field date fun(seconds?: number): string Local date and time in ISO 8601.
---@field disk fun(path?: string): table|nil, string?, string? free and total bytes of the disk that holds a path.
---@field fetch fun(options: host.fetch.options): userdata|nil, string?, string? Start a GET. Redirects are followed, never from https to http; proxies come from the usual variables. Needs libcurl.
---@field fnv1a64 fun(text: string): string FNV-1a hash of a string, 16 hexadecimal digits.
---@field libraries fun(): table zlib, zstd, curl, microhttpd, edit: versions, or "present"; false: the build has none.
---@field lock fun(path: string, seconds?: number): userdata|nil, string?, string?, integer?, integer? Take a lock file, waiting at most so long. If another holds it: nil, message, "busy", its pid and start time.
---@field machine fun(): table cpu, cores, threads, memory, available, os, kernel, isa, wsl.
---@field nearest fun(word: string, words: string[]): string|nil The word that was probably meant.
---@field options table What the command line said: device, devices, memory, color, json, force, fresh, help, args, script, root.
---@field raise fun(code: string, format: string, ...) Raise an error object with a code word, positioned at the line of the user's script that led here.
---@field size fun(text: string|integer): integer|nil, string?, string? Bytes of "24GB", "1.5GiB", "512MB".
---@field sleep fun(seconds: number) Wait; a signal ends the wait early.
---@field time fun(): number Seconds since 1970.
---@field version string The program's version.
---@field file host.file
---@field journal host.journal
---@field json host.json
---@field process host.process
---@field terminal host.terminal
---@field text host.text
---@field web host.web

---@class host.fetch
---@field answer fun(self: host.fetch): table status, headers (names in lower case), body (empty when it went to a file).
---@field close fun(self: host.fetch) Free what it holds now rather than when it is collected.
---@field progress fun(self: host.fetch): integer, integer|nil Bytes so far, and of all; nil when the server does not say.
---@field wait fun(self: host.fetch, seconds: number): boolean|nil, string?, string? Go on for at most so long; true when the answer is there, whatever its status. Or nil, message, and offline, cut, timeout, untrusted, refused, disk or io.

---@class host.file
---@field append fun(path: string, data: string, sync?: boolean): true|nil, string?, string? Append in one piece; a failed append is cut off again.
---@field crc32 fun(path: string): string|nil, string?, string? CRC-32 of a file's content, 8 hexadecimal digits.
---@field exists fun(path: string): boolean Is anything there?
---@field glob fun(pattern: string): string[]|nil, string?, string? The paths that match a shell pattern, sorted.
---@field is_directory fun(path: string): boolean Is it a folder?
---@field is_file fun(path: string): boolean Is it a regular file?
---@field list fun(path: string): string[]|nil, string?, string? The names in a folder, sorted.
---@field mkdir fun(path: string): true|nil, string?, string? Make a folder and those above it.
---@field mtime fun(path: string): number|nil, string?, string? When the content last changed, in seconds since 1970.
---@field read fun(path: string, max_bytes?: integer): string|nil, string?, string? The whole of a regular file.
---@field realpath fun(path: string): string|nil, string?, string? The absolute path without links.
---@field remove fun(path: string): true|nil, string?, string? Remove a file or an empty folder.
---@field remove_tree fun(path: string): true|nil, string?, string? Remove a folder with everything in it; links are not followed.
---@field rename fun(from: string, to: string): true|nil, string?, string? Rename, durably.
---@field size fun(path: string): integer|nil, string?, string? Bytes.
---@field write fun(path: string, data: string): true|nil, string?, string? Replace a file atomically and durably; on failure the old one stays.

---@class host.journal
---@field open fun(path: string): host.journal.object|nil, string?, string? Open a journal for appending; a torn last line is cut off.
---@field read fun(path: string): table[]|nil, table|string, string? The records, and what is wrong: torn, damaged line numbers, gaps.

---@class host.journal.object
---@field append fun(self: host.journal.object, record: table): integer|nil, string?, string? Append a record durably; its number.
---@field close fun(self: host.journal.object) Free what it holds now rather than when it is collected.

---@class host.json.encode.options
---@field indent? any blanks of a level, or the text itself; one line without
---@field [integer] any the first options, by position

---@class host.json.decode.options
---@field ordered? boolean objects keep the order of their keys; false
---@field [integer] any the first options, by position

---@class host.json
---@field array fun(t?: table): table Mark a table as an array, so that an empty one is [].
---@field decode fun(text: string, options?: host.json.decode.options): any, string?, string? The value of a JSON text, null as host.json.null; or nil, message, "format".
---@field encode fun(value: any, options?: host.json.encode.options): string JSON text of a value, keys in a repeatable order, numbers that are not finite as null; raises for what has no JSON form.
---@field null table JSON's null.
---@field object fun(t?: table): table Mark a table as an object, so that whole keys are names.
---@field ordered fun(list?: table): table An object whose keys keep the order they were given in, from { { key, value }… }.

---@class host.process.spawn.options
---@field cwd? string folder to start in (ours)
---@field env? any variables to set; false removes one
---@field stdin? "pipe"|"null"|"inherit" its input (inherit)
---@field stdout? "pipe"|"null"|"inherit" its output (pipe)
---@field stderr? "pipe"|"null"|"inherit" its errors (inherit)
---@field group? boolean a process group of its own, ended as one (true)
---@field die_with_parent? boolean killed when this process ends (true)
---@field [integer] any the first options, by position

---@class host.process
---@field executable fun(): string Path of this program.
---@field interrupted fun(): integer How many INT or TERM came: 0, or 1 to stop at the next step.
---@field memory fun(): table resident and peak bytes of this process.
---@field on_stdin_close fun() End this process when its standard input closes.
---@field pid fun(): integer This process's id.
---@field pid integer Its process id.
---@field poll fun(processes: table, seconds?: number): table Those with something to read or an end to collect.
---@field reset_peak fun(): boolean Start the peak again from what is resident.
---@field signal fun(pid: integer, start: integer, signal?: string): boolean Send a signal to any process, if it still is the one that started then.
---@field spawn fun(command: host.process.spawn.options): host.process.object|nil, string?, string? Start a program: { "name", "word", …, options }.
---@field start_time fun(pid: integer): integer|nil When a process started: with its id, a name for good.

---@class host.process.object
---@field close fun(self: host.process.object) Free what it holds now rather than when it is collected.
---@field close_stdin fun(self: host.process.object) Close its input.
---@field kill fun(self: host.process.object, signal?: string): boolean Send TERM, KILL, INT, … to its whole group.
---@field read_error_line fun(self: host.process.object, seconds?: number): string|nil, string? The next line of its errors.
---@field read_line fun(self: host.process.object, seconds?: number): string|nil, string? The next line of its output; nil and "timeout", "eof" or "oom".
---@field wait fun(self: host.process.object, seconds?: number): table|nil, string? Wait for its end: exit or signal, core, max_rss (bytes), user, system (seconds). What it left in its group is killed.
---@field write fun(self: host.process.object, text: string): true|nil, string?, string? Write to its input.

---@class host.terminal
---@field color fun(name: string, text: string, fd?: integer): string The text in a colour, or plain: --color, NO_COLOR and the terminal decide.
---@field isatty fun(fd?: integer): boolean Is it a terminal? 0 input, 1 output (default), 2 errors.
---@field progress fun(line?: string) Show one line on stderr, over the last one; nil removes it. Without a terminal: a plain line every 5 seconds.
---@field width fun(fd?: integer): integer Columns of the terminal; 80 where there is none.

---@class host.text.tokenizer.options
---@field train? any corpus to learn a vocabulary from
---@field vocab? integer ids of a learned vocabulary (4096)
---@field threads? integer threads to count words on (0: one per core)
---@field file? string path of a tokenizer.json
---@field merges? string path of a merges.txt
---@field rules? "smollm" how merges.txt becomes ids (smollm)
---@field [integer] any the first options, by position

---@class host.text.corpus.options
---@field source? string file of text or JSONL (plain, .gz, .zst), folder, pattern, '-' for standard input, or 'system'
---@field field? string the field of a JSONL row that is text (text)
---@field texts? any a list of strings, each a document, in place of a source
---@field validation? number share of the bytes held out, in whole documents (0)
---@field seed? integer decides which documents are held out (42)
---@field max_documents? integer documents at most (0: all)
---@field max_chars? integer characters of a document at most (0: all)
---@field max_bytes? integer bytes of all documents at most (0: all)
---@field max_tokens? integer read only what so many tokens need: 8 bytes for each (0: all)
---@field [integer] any the first options, by position

---@class host.text.tokens.options
---@field path? string token file to open
---@field format? "llmhost"|"llm.c"|"nanogpt"|"auto" of the file; nanogpt (raw 16-bit ids) must be named (auto)
---@field vocab? integer of a file of llm.c or nanoGPT: every id is below (0: one more than the largest)
---@field corpus? any corpus to encode
---@field tokenizer? any tokenizer to encode by
---@field held_out? boolean the documents for validation instead of those for training (false)
---@field max_tokens? integer tokens at most, of documents from all over (0: all)
---@field threads? integer threads to encode on (0: one per core)
---@field [integer] any the first options, by position

---@class host.text.loader.options
---@field batch? integer samples of one optimizer step, all micro-batches together (1)
---@field seq? integer tokens of a sample (256)
---@field seed? integer decides the order of the samples (42)
---@field sequential? boolean windows one after the other, for evaluation (false)
---@field max_tokens? integer sequential: targets at most (0: all)
---@field [integer] any the first options, by position

---@class host.text.prepare.options
---@field source? string file of text or JSONL (plain, .gz, .zst), folder, pattern, '-' for standard input, or 'system' (system)
---@field field? string the field of a JSONL row that is text (text)
---@field files? integer files of the source at most, in order (0: all)
---@field tokenizer? string path of a tokenizer.json; otherwise one is learned
---@field merges? string path of a merges.txt, read by SmolLM's rules
---@field vocab? integer ids of a learned vocabulary (4096)
---@field validation? number share of the bytes held out, in whole documents (0.1)
---@field seed? integer decides which documents are held out (42)
---@field documents? integer documents at most (0: all)
---@field max_chars? integer characters of a document at most (0: all)
---@field max_bytes? integer bytes to read at most (0: what the tokens need, or all)
---@field tokens? integer training tokens wanted (0: all)
---@field eval_tokens? integer validation tokens at most (0: all)
---@field cache? string folder of the cache (data_cache); '' for none
---@field threads? integer threads to use (0: one per core)
---@field fresh? boolean make everything again (false)
---@field [integer] any the first options, by position

---@class host.text
---@field corpus fun(options: host.text.corpus.options): host.text.corpus|nil, string?, string? Documents in memory, some held out whole for validation.
---@field loader fun(tokens: host.text.tokens, options?: host.text.loader.options): host.text.loader|nil, string?, string? Batches from tokens, in an order that seed and step decide.
---@field prepare fun(options?: host.text.prepare.options): table|nil, string?, string? From a source to training and validation tokens, through the cache: tokenizer, train, validation, key, counts, paths, messages.
---@field tokenizer fun(options: host.text.tokenizer.options): host.text.tokenizer|nil, string?, string? A byte-level BPE tokenizer: learned from a corpus, or read.
---@field tokens fun(options: host.text.tokens.options): host.text.tokens|nil, string?, string? Token ids: opened from a file, or a corpus encoded.

---@class host.text.corpus
---@field bytes fun(self: host.text.corpus): integer Bytes of all documents.
---@field close fun(self: host.text.corpus) Free what it holds now rather than when it is collected.
---@field count fun(self: host.text.corpus): integer Documents.
---@field document fun(self: host.text.corpus, i: integer): string, boolean A document's text, and whether it is held out for validation.
---@field info fun(self: host.text.corpus): table documents, bytes, held_documents, held_bytes, files, skipped (not UTF-8 text), duplicates, key.

---@class host.text.loader
---@field close fun(self: host.text.loader) Free what it holds now rather than when it is collected.
---@field epochs fun(self: host.text.loader, steps: integer): number Epochs that so many optimizer steps are.
---@field fill fun(self: host.text.loader, step: integer, first: integer, count: integer): integer[][]|nil, integer[][]|string, string? Samples first … first + count - 1 of an optimizer step: rows of ids, and of their targets, one token ahead.
---@field info fun(self: host.text.loader): table batch, seq, seed, windows, steps, tokens, sequential.
---@field steps fun(self: host.text.loader): integer Optimizer steps that cover all windows once, rounded up.
---@field windows fun(self: host.text.loader): integer Samples of one epoch.

---@class host.text.tokenizer.encode.options
---@field special? boolean names of special tokens in the text give their ids (false)
---@field [integer] any the first options, by position

---@class host.text.tokenizer.decode.options
---@field skip_special? boolean special tokens give nothing instead of their names (false)
---@field [integer] any the first options, by position

---@class host.text.tokenizer
---@field close fun(self: host.text.tokenizer) Free what it holds now rather than when it is collected.
---@field count fun(self: host.text.tokenizer): integer Ids of the vocabulary.
---@field decode fun(self: host.text.tokenizer, ids: integer[], options?: host.text.tokenizer.decode.options): string The bytes the ids stand for; decode(encode(s)) is s.
---@field dropped fun(self: host.text.tokenizer): integer Bytes without a token that encode has left out so far.
---@field encode fun(self: host.text.tokenizer, text: string, options?: host.text.tokenizer.encode.options): integer[] The text's token ids. Bytes without a token are left out and counted.
---@field hash fun(self: host.text.tokenizer): string 16 hexadecimal digits that differ when any encoding could.
---@field json fun(self: host.text.tokenizer): string The text of tokenizer.json, as save writes it.
---@field missing fun(self: host.text.tokenizer): integer How many of the 256 byte values have no token.
---@field save fun(self: host.text.tokenizer, path: string): true|nil, string?, string? Write tokenizer.json, as Hugging Face's tokenizers read it.
---@field special fun(self: host.text.tokenizer, name: string): integer|nil The id of a special token such as <|endoftext|>.
---@field token fun(self: host.text.tokenizer, id: integer): string, boolean A token's bytes, and whether it is special.

---@class host.text.tokens.save.options
---@field format? "llmhost"|"llm.c"|"nanogpt"|"auto" llmhost, llm.c (.bin) or nanogpt (raw 16-bit ids); auto is llmhost
---@field [integer] any the first options, by position

---@class host.text.tokens
---@field close fun(self: host.text.tokens) Free what it holds now rather than when it is collected.
---@field count fun(self: host.text.tokens): integer Tokens.
---@field get fun(self: host.text.tokens, first: integer, last: integer): integer[] The ids from place first to place last.
---@field info fun(self: host.text.tokens): table count, vocab, documents, bytes, dropped, tokenizer, source, source_key, checksum, path, held_out.
---@field save fun(self: host.text.tokens, path: string, options?: host.text.tokens.save.options): true|nil, string?, string? Write a token file, ours or another program's.

---@class host.web.serve.options
---@field port? integer port on 127.0.0.1; 0: any free one (8501)
---@field handler? any function(path, query): status, type, body, filename? or "stream"
---@field [integer] any the first options, by position

---@class host.web
---@field serve fun(options: host.web.serve.options): host.web.object|nil, string?, string? A web server on the loopback address that answers GET and HEAD of its own pages with what the handler gives.

---@class host.web.object
---@field close fun(self: host.web.object) Free what it holds now rather than when it is collected.
---@field port fun(self: host.web.object): integer The port it listens on.
---@field run fun(self: host.web.object, seconds: number): true|nil, string?, string? Answer what comes, for at most so long; gives back earlier after an answer or a signal. What the handler raised is the message.
---@field send fun(self: host.web.object, text: string): integer Send text down every event stream; the number of streams.

---@type host
local host
return host
