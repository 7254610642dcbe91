# llmhost: build, tests, set-up, install. `make help` lists the targets.

# --- settings: override on the command line, `make VARIANT=asan` -----------
VARIANT  ?= release#   release debug asan tsan: each in build/VARIANT
PREFIX   ?= /usr/local
DESTDIR  ?=
JOBS     ?= $(shell nproc 2>/dev/null || echo 1)
GPU_ARCH ?= auto#      auto, native, all, or compute capabilities: "80 90"
BLAS     ?=#           a pkg-config module to prefer: BLAS=blis make configure
ARGS     ?=#           passed on by sweep and bench: ARGS="train.minutes=1"
T        ?=#           test: only the programs whose names contain these words
V        ?=#           V=1 shows the commands
ifeq ($(origin CC),default)
  CC := $(if $(shell command -v gcc),gcc,cc)
endif

# As many jobs as there are cores, unless the command line says otherwise.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
  MAKEFLAGS += -j$(JOBS)
endif

BUILD  := build/$(VARIANT)
CONFIG := build/config.mk
Q      := $(if $(strip $(V)),,@)
export CC BLAS

CFLAGS_release := -O2 -g
CFLAGS_debug   := -O0 -g3
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer \
                  -fno-sanitize-recover=undefined
CFLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined \
                  -fno-omit-frame-pointer -fno-sanitize-recover=undefined
CFLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes \
            -Werror=implicit-function-declaration \
            $(if $(findstring clang,$(CC)),-Wno-unknown-pragmas)
# A warning fails CI; a user's newer compiler may still warn.
WERROR   := $(if $(CI),$(if $(filter release,$(VARIANT)),-Werror))

# --- what this machine has (tests/packages, found by .ci/setup) ------------
# Goals that must work before anything is installed do without it.
BARE := help deps clean lint test test-long tsan-test prove sweep uninstall \
        configure fuzz defects
ifneq ($(filter-out $(BARE),$(or $(MAKECMDGOALS),all)),)
  include $(CONFIG)
endif

CFLAGS  := -std=gnu11 $(WARNINGS) $(WERROR) -fPIC -pthread -ffp-contract=off \
           -fno-math-errno $(CFLAGS_$(VARIANT)) $(CONFIG_CFLAGS)
LDFLAGS := -rdynamic -pthread $(filter -fsanitize%,$(CFLAGS_$(VARIANT)))
LDLIBS  := -Wl,--as-needed $(CONFIG_LIBS) -lm -ldl

# The CPU backend's loops (the .c files that level.c includes) are compiled
# once for each instruction-set level and chosen at run time.
LEVELS   := $(if $(filter x86_64,$(shell uname -m)),v1 v3 v4,base)
MARCH_v1 := -march=x86-64
MARCH_v3 := -march=x86-64-v3
MARCH_v4 := -march=x86-64-v4 -mprefer-vector-width=512
LEVEL    := $(wildcard kernels/cpu/level.c)
LEVELED  := $(LEVEL) $(if $(LEVEL),$(addprefix kernels/cpu/,$(shell \
  awk -F '"' '/include "[^"]*[.]c"/ { print $$2 }' $(LEVEL))))

, := ,

# CUDA: the architectures that both we and this nvcc know; the newest of
# several also as PTX.
# auto: native where there is a GPU, else one of them.
GPU_FILES := /dev/nvidiactl /dev/dxg#  of the driver, of WSL's
GPU_HERE  := $(wildcard $(GPU_FILES))
CUDA_OURS := 80 86 89 90 100 120
CUDA_ALL  := $(filter $(CUDA_KNOWN),$(CUDA_OURS))
CUDA_SET  := $(strip $(GPU_ARCH))
ifeq ($(CUDA_SET),auto)
  CUDA_SET := $(if $(GPU_HERE),native,90)
endif
ifeq ($(CUDA_SET),native)
  CUDA_SET := $(or $(sort $(subst .,,$(shell nvidia-smi \
    --query-gpu=compute_cap --format=csv$(,)noheader 2>/dev/null))),all)
endif
CUDA_WANT := $(if $(filter all,$(CUDA_SET)),$(CUDA_ALL),$(CUDA_SET))
CUDA_NEW  := $(if $(word 2,$(CUDA_WANT)),$(lastword $(CUDA_WANT)))
CUDA_CODE := $(foreach a,$(CUDA_WANT:90=90a),\
  -gencode arch=compute_$a$(,)code=sm_$a) $(CUDA_NEW:%=\
  -gencode arch=compute_%$(,)code=compute_$(CUDA_NEW))
NVCCFLAGS = -std=c++17 -O3 -lineinfo \
  -Xcompiler -fPIC,-Wall,-fvisibility=hidden $(CUDA_CODE)
# Products and sums are contracted only where speed needs it: elsewhere the
# bits are the CPU's.
CUDA_FMA := attention% loss activation

# --- what there is to build ------------------------------------------------
SOURCES := $(filter-out host/main.c $(LEVELED),$(wildcard kernels/*/*.c \
             host/*.c host/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) \
           $(if $(LEVEL),$(LEVELS:%=$(BUILD)/kernels/cpu/level.%.o))
PROGRAM := $(if $(wildcard host/main.c),$(BUILD)/llmhost \
             $(if $(filter release,$(VARIANT)),build/llmhost))
CHART   := $(if $(HAVE_PLOT),$(if $(HAVE_STB),$(if $(wildcard plots/*.c),\
             $(BUILD)/chart.so)))
LIBRARY := $(if $(wildcard host/embed.c),$(BUILD)/libllmhost.so)
CUDA    := $(if $(HAVE_CUDA),$(if $(filter release,$(VARIANT)),\
             $(BUILD)/llmhost_cuda.so))
# A test's tier is its name's first word. Files of tests/c without a main()
# are linked to every test.
TIERS   := test
TESTS_C := $(wildcard tests/c/*.c)
HELPERS := $(if $(TESTS_C),$(shell grep -L '^int main\>' $(TESTS_C)))
MAINS   := $(filter $(foreach t,$(TIERS),tests/c/$t_%),$(TESTS_C))
C_TESTS := $(patsubst tests/c/%.c,$(BUILD)/tests/%,\
             $(filter-out $(HELPERS),$(MAINS)))

all: $(PROGRAM) $(LIBRARY) $(CHART) $(CUDA) ## Build build/llmhost (the default)

# Objects depend on the flags they were compiled with: a file that changes
# only when the flags do.
FLAGS := $(strip $(CC) $(CFLAGS) $(LDFLAGS) $(LDLIBS))
ifneq ($(CONFIG_LIBS),)
  $(shell mkdir -p $(BUILD))
  ifneq ($(FLAGS),$(file <$(BUILD)/flags))
    $(file >$(BUILD)/flags,$(FLAGS))
  endif
  ifneq ($(strip $(NVCCFLAGS)),$(file <$(BUILD)/flags.cuda))
    $(file >$(BUILD)/flags.cuda,$(strip $(NVCCFLAGS)))
  endif
endif

$(CONFIG): Makefile tests/packages .ci/setup
	@.ci/setup configure $@

build/llmhost: build/release/llmhost
	@ln -sfn release/llmhost $@
	@echo "built $@"

$(BUILD)/llmhost: $(OBJECTS) $(BUILD)/host/main.o
	@echo "  link  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  cc    $<"
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/kernels/cpu/level.%.o: kernels/cpu/level.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  cc    $< ($*)"
	$(Q)$(CC) $(CFLAGS) -O3 -fno-trapping-math $(MARCH_$*) \
	  -DLK_CPU_LEVEL=$* -MMD -MP -c -o $@ $<

# The chart module keeps its names to itself: only luaopen_* is visible.
CHART_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard plots/*.c))
$(BUILD)/chart.so: $(CHART_OBJECTS)
	@echo "  link  $@"
	@echo '{ global: luaopen_*; local: *; };' >$(BUILD)/module.map
	$(Q)$(CC) -shared $(filter -fsanitize%,$(LDFLAGS)) -o $@ $^ \
	  -Wl,--version-script=$(BUILD)/module.map -lplot \
	  $(if $(HAVE_ZLIB),-lz) -lm

# libllmhost: everything but the program itself, for other programs and, under
# the names of its modules, for a stock lua5.4. It brings no Lua of its own. Its
# threads outlive a state that closes it, so it is never unloaded.
LIBRARY_OBJECTS := $(filter-out $(patsubst %.c,$(BUILD)/%.o,$(filter-out \
  host/embed.c,$(wildcard host/*.c))),$(OBJECTS))
$(BUILD)/libllmhost.so: $(LIBRARY_OBJECTS)
	@echo "  link  $@"
	@echo '{ global: luaopen_gpu; luaopen_host; llmhost_*; lk_*; local: *; };' \
	  >$(BUILD)/library.map
	$(Q)$(CC) -shared $(filter -fsanitize%,$(LDFLAGS)) -pthread -o $@ $^ \
	  -Wl,-soname,libllmhost.so.0 -Wl,-z,nodelete \
	  -Wl,--version-script=$(BUILD)/library.map \
	  $(filter-out -llua%,$(LDLIBS))
	@ln -sfn libllmhost.so $(BUILD)/libllmhost.so.0
	@ln -sfn libllmhost.so $(BUILD)/gpu.so
	@ln -sfn libllmhost.so $(BUILD)/host.so

CUDA_OBJECTS := $(patsubst %,$(BUILD)/%.o,$(wildcard kernels/cuda/*.cu))
$(BUILD)/llmhost_cuda.so: $(CUDA_OBJECTS)
	@echo "  link  $@"
	$(Q)$(HAVE_CUDA) -ccbin $(CC) -shared -o $@ $^ -lcublasLt -Xlinker \
	  -rpath,$(patsubst %/bin/nvcc,%/lib64,$(HAVE_CUDA))

$(BUILD)/%.cu.o: %.cu $(BUILD)/flags.cuda
	@mkdir -p $(@D)
	@echo "  nvcc  $< ($(CUDA_WANT))"
	$(Q)$(HAVE_CUDA) $(NVCCFLAGS) $(if $(filter $(CUDA_FMA),$(*F)),,\
	  -fmad=false) -ccbin $(CC) -MMD -MP -c -o $@ $<

# tests/c/NAME.c -> build/VARIANT/tests/NAME
$(BUILD)/tests/%: $(BUILD)/tests/c/%.o $(HELPERS:%.c=$(BUILD)/%.o) $(OBJECTS)
	@echo "  link  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The parsers' fuzz targets, and the seeds that each test run replays.
FUZZ_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/fuzz/main.c,\
                  $(wildcard tests/fuzz/*.c)))
$(BUILD)/tests/test_fuzz: $(FUZZ_OBJECTS)

# Makes allocations fail: preloaded, so without the variant's sanitizer.
$(BUILD)/tests/alloc.so: tests/faults/alloc.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  link  $@"
	$(Q)$(CC) -std=gnu11 $(WARNINGS) -O1 -g -fPIC -pthread -shared \
	  $(CONFIG_CFLAGS) -o $@ $< -ldl

c-tests: $(C_TESTS) $(BUILD)/tests/alloc.so

# --- set-up ----------------------------------------------------------------
deps: ## Install what is missing; OPTIONAL=1 takes the optional parts too
	@.ci/setup install build plots test $(if $(OPTIONAL),optional browser)

configure: ## Look again at what this machine has
	@.ci/setup configure $(CONFIG)

# Without a GPU the sweep has no use for the plugin, whose build takes minutes.
sweep: ## Install what is missing, build, run the sweep of 16 experiments
	@.ci/setup install build plots +optional
	@$(MAKE) --no-print-directory \
	  $(if $(GPU_HERE),,CUDA=) all
	@build/llmhost experiments/sweep.lua $(ARGS)

# --- checks ----------------------------------------------------------------
# C tests run a second time under the address and undefined-behaviour
# sanitizers.
RUN_TESTS = tests/run --variant $(VARIANT) \
  $(if $(filter release,$(VARIANT)),--sanitized asan)

test: build-tests ## Install what is missing, build, run the tests (T=name)
	@$(RUN_TESTS) $(T)

# What has threads and processes: loader, thread pool, web server, supervisor.
TSAN_C     := test_sys_process test_text_loader test_cpu test_web_http
TSAN_TESTS := $(TSAN_C) test_host_process test_threads test_kills
tsan-test: ## Loader, pool and supervisor under the thread sanitizer
	@$(MAKE) --no-print-directory VARIANT=tsan build/tsan/llmhost \
	  $(TSAN_C:%=build/tsan/tests/%)
	@TSAN_OPTIONS=exitcode=66 tests/run --variant tsan $(TSAN_TESTS)

# Fault campaigns, the thread sanitizer and every GPU architecture come on top.
test-long: TIERS := test long
test-long: build-tests ## The tests, fault campaigns, all GPU architectures
	@$(MAKE) --no-print-directory VARIANT=asan all
	@$(MAKE) --no-print-directory GPU_ARCH=all all
	@$(MAKE) --no-print-directory tsan-test
	@$(RUN_TESTS) --sanitized-lua --limit 7200 --tier test --tier long $(T)

prove: TIERS := test prove
prove: build-tests ## What 4-bit weights cost, 3 seeds (an hour or more)
	@tests/run --variant $(VARIANT) --tier prove --limit 86400 $(T)

build-tests:
	@.ci/setup install build plots test +optional +browser
	@$(MAKE) --no-print-directory TIERS="$(TIERS)" all c-tests
	$(if $(filter release,$(VARIANT)),@$(MAKE) --no-print-directory \
	  VARIANT=asan TIERS="$(TIERS)" c-tests)

lint: ## luacheck over every Lua file; a warning is an error
	@luacheck --quiet lua experiments plots tests

defects: ## Plant defects in a copy of the tree; each must be caught (T=name)
	@tests/defects/run --jobs $(JOBS) $(T)

bench: ## Tokens per second and memory beside PyTorch's, profile
	@$(MAKE) --no-print-directory \
	  $(if $(GPU_HERE),,CUDA=) all
	@build/llmhost experiments/bench.lua $(ARGS)

# One after the other, SECONDS each; what is new and interesting collects in
# build/fuzz/corpus, what fails in build/fuzz/findings.
FUZZ    := json tokenizer merges tokens jsonl safetensors checkpoint journal
SECONDS ?= 60
fuzz: ## Fuzz the parsers with clang's libFuzzer (T=name, SECONDS=60)
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=clang \
	  $(addprefix build/fuzz/fuzz_,$(or $(T),$(FUZZ)))
	@mkdir -p build/fuzz/findings
	@for t in $(or $(T),$(FUZZ)); do mkdir -p build/fuzz/corpus/$$t; \
	  build/fuzz/fuzz_$$t -max_total_time=$(SECONDS) -rss_limit_mb=1024 \
	  -timeout=10 -max_len=65536 -verbosity=1 -print_final_stats=1 \
	  -artifact_prefix=build/fuzz/findings/$$t- build/fuzz/corpus/$$t \
	  tests/fuzz/seeds/$$t || exit 1; done

$(BUILD)/fuzz_%: $(FUZZ_OBJECTS) $(OBJECTS) tests/fuzz/main.c
	@echo "  link  $@"
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer,address,undefined -DTARGET=fuzz_$* \
	  -rdynamic -o $@ $^ $(LDLIBS)

asan tsan debug: ## Build that variant in build/<variant>
	@$(MAKE) --no-print-directory VARIANT=$@ all

# --- install ---------------------------------------------------------------
SHARE := $(DESTDIR)$(PREFIX)/share/llmhost
LIB   := $(DESTDIR)$(PREFIX)/lib/llmhost
DOC   := $(DESTDIR)$(PREFIX)/share/doc/llmhost
DEVELOP := include lib/pkgconfig lib/lua/5.4 share/lua/5.4
VERSION := $(shell sed -n 's/.*LH_VERSION "\(.*\)"/\1/p' host/version.h)

install: all ## Install below DESTDIR and PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(LIB) $(DOC)
	install $(BUILD)/llmhost $(DESTDIR)$(PREFIX)/bin/llmhost
	$(if $(CHART)$(CUDA),install -m 644 $(CHART) $(CUDA) $(LIB))
	find lua experiments plots \( -name '*.lua' -o -path 'lua/web/*' \) \
	  -type f -exec install -D -m 644 {} \
	  $(SHARE)/{} \;
	install -m 644 $(wildcard README.md LICENSE lua/REFERENCE.md) $(DOC)
	install -d $(DEVELOP:%=$(DESTDIR)$(PREFIX)/%)
	install -m 644 host/llmhost.h $(DESTDIR)$(PREFIX)/include
	install $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/libllmhost.so.0
	ln -sfn libllmhost.so.0 $(DESTDIR)$(PREFIX)/lib/libllmhost.so
	for m in gpu host; do ln -sfn ../../libllmhost.so.0 \
	  $(DESTDIR)$(PREFIX)/lib/lua/5.4/$$m.so; done
	for m in host llm; do ln -sfn ../../llmhost/lua/$$m \
	  $(DESTDIR)$(PREFIX)/share/lua/5.4/$$m; done
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
	  host/llmhost.pc >$(DESTDIR)$(PREFIX)/lib/pkgconfig/llmhost.pc

	$(DESTDIR)$(PREFIX)/bin/llmhost \
	  -e 'require("llm.completion").write "$(DESTDIR)$(PREFIX)/share"' \
	  -e 'require("llm.manual").write "$(DESTDIR)$(PREFIX)/share/man"'
	@$(if $(CUDA),echo "GPU code installed for: $(CUDA_WANT)$(if \
	  $(GPU_HERE)$(filter all,$(GPU_ARCH)),, \
	  (no GPU is here; GPU_ARCH=all builds for every card))")

uninstall: ## Remove what install put there
	rm -rf $(SHARE) $(LIB) $(DOC) $(DESTDIR)$(PREFIX)/bin/llmhost
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,include/llmhost.h \
	  lib/libllmhost.so lib/libllmhost.so.0 lib/pkgconfig/llmhost.pc \
	  lib/lua/5.4/gpu.so lib/lua/5.4/host.so share/lua/5.4/host \
	  share/lua/5.4/llm share/man/man1/llmhost.1 \
	  $(addprefix share/,bash-completion/completions/llmhost \
	  zsh/site-functions/_llmhost fish/vendor_completions.d/llmhost.fish))

# --- the rest --------------------------------------------------------------
compile_commands.json: $(SOURCES) Makefile ## For editors
	@for f in $(SOURCES) host/main.c $(wildcard plots/*.c); do \
	  printf '{"directory":"%s","file":"%s","command":"%s"},\n' \
	    "$(CURDIR)" "$$f" '$(subst ",\\",$(CC) $(CFLAGS)) -c '"$$f"; \
	done | sed '1s/^/[/; $$s/,$$/]/' >$@

clean: ## Remove everything that was built
	rm -rf build compile_commands.json

help: ## This list
	@echo "make [TARGET] [VARIANT=release|debug|asan|tsan] [V=1]" \
	  "[GPU_ARCH=auto|native|all|90]"
	@sed -n 's/^\([a-z][a-z. _-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | \
	  awk -F '\t' '{ printf "  %-22s %s\n", $$1, $$2 }'

# Written by the compiler beside each object: no implicit rule makes them.
%.d: ;
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all c-tests build-tests $(BARE) bench asan tsan debug install
