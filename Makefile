# repl: build, check, install. GNU make; this comment is the manual.
#
# Targets
#   all         the programs, in build/release (the default; installs missing libraries first, see DEPS)
#   check       everything: gcc and clang with warnings as errors, units and bats on the release build, a good part of them
#               once more with sanitizers, about a minute of fuzzing. Prints TAP; ends in "N passed, N failed".
#   check-databases   databases in use, image after image: does each one open on the replica, with what was committed?
#               SQLite, and PostgreSQL; as root. A check has some of it
#   soak        all tests with all their samples, on FLAVOUR; hours
#   unit bats   only these, on FLAVOUR. "make bats T=tests/house.bats" runs one file.
#   asan        units and all bats with AddressSanitizer and UndefinedBehaviorSanitizer
#   fuzz-smoke  replays every corpus under gcc with sanitizers, then fuzzes FUZZ_SMOKE seconds in all
#   fuzz        fuzzes each target FUZZ_SECONDS, one after the other
#   crash       the crash tests to their end: every fault point, not a sample
#   lint        the house checks: headers, floors, names, pages, scripts
#   analyze     gcc -fanalyzer, scan-build and cppcheck
#   track-torture   dozens of writers against every kind of recorder, for minutes (tests/torture; as root)
#   demo bench  the tour and the measurements (tests/demo, tests/bench)
#   install uninstall   to DESTDIR and PREFIX
#   deps        installs what building and checking need and this machine lacks (Debian)
#   clean       removes build/
#
# Variables
#   CC (gcc; clang for its flavours), CFLAGS, CPPFLAGS, LDFLAGS   yours; our own flags are added to them
#   PREFIX (/usr/local), DESTDIR          where install puts things; BINDIR, MANDIR, DATADIR follow PREFIX
#   WERROR=1      warnings are errors (what check uses; the default is 0, for packagers)
#   FLAVOUR       release, asan, tsan, clang or fuzz; each has its own folder below build/
#   V=1           shows the commands
#   DEPS=no       never installs anything, not even in check
#   INSTRUMENT    runs every program of a test under this command, e.g. INSTRUMENT='valgrind -q'
#   FUZZ_SMOKE (42), FUZZ_SECONDS (600)
#   SOURCE_DATE_EPOCH   is handed on; no build time gets into the programs, which hold no build path either

.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

FLAVOUR ?= release
ifeq ($(origin CC),default)
CC := $(if $(filter clang fuzz,$(FLAVOUR)),clang,gcc)
endif
CFLAGS ?= -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection
LDFLAGS ?= -Wl,-z,relro,-z,now
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
WERROR ?= 0
DEPS ?= yes
FUZZ_SMOKE ?= 42
FUZZ_SECONDS ?= 600
export SOURCE_DATE_EPOCH INSTRUMENT

B := build/$(FLAVOUR)
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),@:,@printf '  %-5s %s\n' $(1) $(2))

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wcast-align -Wformat=2 \
	-Wimplicit-fallthrough -Wmissing-prototypes -Wstrict-prototypes -Wold-style-definition -Wpointer-arith \
	-Wundef -Wvla -Wwrite-strings -Wredundant-decls -Wnull-dereference -Wdouble-promotion
WARN_gcc := -Wlogical-op -Wduplicated-cond -Wduplicated-branches -Wformat-signedness
WARN_clang := -Wcomma -Wunreachable-code -Wassign-enum
# Asked when a recipe runs, not when this file is read: on a fresh machine deps has to run before there is a compiler.
COMPILER = $(if $(findstring clang,$(shell $(CC) --version 2>/dev/null)),clang,gcc)

SANITIZE := -O1 -g1 -U_FORTIFY_SOURCE -fno-omit-frame-pointer -fno-sanitize-recover=all
FLAGS_release :=
FLAGS_clang :=
FLAGS_asan := $(SANITIZE) -fsanitize=address,undefined
FLAGS_tsan := $(SANITIZE) -fsanitize=thread
FLAGS_fuzz := $(SANITIZE) -fsanitize=fuzzer-no-link,address,undefined

OUR_CFLAGS := -std=c17 -D_GNU_SOURCE -Ilibcore -pthread -fPIE -fno-common -ffile-prefix-map=$(CURDIR)=.
OUR_LDFLAGS := -pie -pthread
LIBS := -lzstd -lb2 -lpopt -llmdb -lpthread
compile = $(CC) $(CPPFLAGS) $(CFLAGS) $(OUR_CFLAGS) $(WARN) $(WARN_$(COMPILER)) $(if $(filter 1,$(WERROR)),-Werror) \
	$(FLAGS_$(FLAVOUR))
link = $(CC) $(CFLAGS) $(OUR_CFLAGS) $(FLAGS_$(FLAVOUR)) $(LDFLAGS) $(OUR_LDFLAGS)

LIB_O := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard libcore/*.c)))
PROGRAMS := $(patsubst cmd/%.c,%,$(sort $(wildcard cmd/*.c)))
# One program of all tests/unit/*.c; it prints TAP. The writers of the golden streams are built with it, so that they stay
# in order.
UNIT_O := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/unit/*.c)))
UNITS := $(if $(UNIT_O),$(B)/unit/unit) $(patsubst %.c,$(B)/%,$(wildcard tests/golden/*.c))
# Programs that the tests use.
TOOLS := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/lib/*.c)))
# Each tests/fuzz/fuzz_*.c is a target; what else lies there (but the driver) is linked to all of them.
FUZZERS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_O := $(patsubst %.c,$(B)/%.o,$(filter-out tests/fuzz/fuzz_%.c tests/fuzz/driver.c,$(wildcard tests/fuzz/*.c)))
# Under the fuzz flavour libFuzzer brings main; elsewhere driver.c replays files.
FUZZ_MAIN := $(if $(filter fuzz,$(FLAVOUR)),,$(B)/tests/fuzz/driver.o)

# One make a flavour. Says -j itself unless the user did.
flavour = +$(Q)$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc)) FLAVOUR=$(1)
deps = $(if $(filter yes,$(DEPS)),$(Q)tests/lib/deps $(1),@:)

.PHONY: all check unit bats asan tsan fuzz-smoke fuzz crash check-databases soak lint analyze demo bench track-torture install uninstall deps clean
.PHONY: programs unit-programs fuzz-programs objects tools FORCE

all:
	$(call deps,build)
	$(call flavour,$(FLAVOUR)) programs

# gcc and clang by name: this is the place where both have to agree. What clang says is heard where it compiles for fuzzing.
check:
	$(call deps,check)
	$(call flavour,release) CC=gcc WERROR=1 programs unit-programs tools
	$(call flavour,asan) CC=gcc WERROR=1 programs unit-programs tools fuzz-programs
	$(call flavour,fuzz) CC=clang WERROR=1 fuzz-programs objects
	+$(Q)FUZZ_SECONDS=$(FUZZ_SMOKE) tests/run -j $(shell nproc) \
		release:unit release:bats asan:unit asan:replay asan:short fuzz:fuzz

unit:
	$(call flavour,$(FLAVOUR)) unit-programs
	$(Q)tests/run $(FLAVOUR):unit

bats:
	$(call flavour,$(FLAVOUR)) programs tools
	$(Q)tests/run $(FLAVOUR):bats $(T)

asan tsan:
	$(call flavour,$@) programs unit-programs tools
	$(Q)tests/run $@:unit $@:bats $(T)

fuzz-smoke:
	$(call flavour,asan) CC=gcc fuzz-programs
	$(call flavour,fuzz) CC=clang fuzz-programs
	$(Q)FUZZ_SECONDS=$(FUZZ_SMOKE) tests/run asan:replay fuzz:fuzz

fuzz:
	$(call flavour,fuzz) CC=clang fuzz-programs
	$(Q)FUZZ_EACH=$(FUZZ_SECONDS) tests/run fuzz:fuzz

crash:
	$(call flavour,release) programs tools
	$(Q)REPL_CRASH=all BATS_TEST_TIMEOUT=36000 tests/run release:bats tests/crash.bats

check-databases:
	$(call deps,check)
	$(call flavour,$(FLAVOUR)) programs tools
	$(Q)REPL_LONG=1 BATS_TEST_TIMEOUT=36000 tests/run $(FLAVOUR):bats tests/databases.bats tests/postgresql.bats

soak:
	$(call flavour,$(FLAVOUR)) programs unit-programs tools
	$(Q)REPL_LONG=1 BATS_TEST_TIMEOUT=36000 tests/run -j $(shell nproc) $(FLAVOUR):unit $(FLAVOUR):bats $(T)

lint:
	$(call flavour,release) programs
	$(Q)tests/run release:bats tests/house.bats

demo bench:
	$(call deps,build)
	$(call flavour,release) programs $(if $(filter bench,$@),tools)
	$(Q)PATH="$(CURDIR)/build/release:$$PATH" tests/$@

track-torture:
	$(call flavour,release) programs tools
	$(Q)tests/torture

deps:
	$(Q)tests/lib/deps check

# A silenced finding carries its reason next to it, in the source.
analyze:
	$(call deps,analyze)
	$(Q)mkdir -p build/analyze
	$(Q)set -e; for f in libcore/*.c cmd/*.c; do \
		echo "  -fanalyzer $$f"; gcc $(OUR_CFLAGS) -O2 -fanalyzer -Werror -c -o build/analyze/out.o $$f; done
	$(Q)rm -rf build/scan
	+$(Q)scan-build --status-bugs -o build/analyze/report --use-cc=clang \
		$(MAKE) --no-print-directory FLAVOUR=scan programs
	$(Q)cppcheck --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 --quiet \
		-D_GNU_SOURCE -Ilibcore libcore cmd

programs: $(addprefix $(B)/,$(PROGRAMS))
unit-programs: $(UNITS)
tools: $(TOOLS)
fuzz-programs: $(FUZZERS)
objects: $(LIB_O) $(addprefix $(B)/cmd/,$(PROGRAMS:=.o)) $(UNIT_O) $(TOOLS:=.o) \
	$(patsubst %.c,$(B)/%.o,$(wildcard tests/golden/*.c))

# Other flags than last time: everything in this flavour is built again.
$(B)/flags: export FLAGS_NOW = $(compile) $(link) $(LIBS)
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$FLAGS_NOW" | cmp -s - $@ || printf '%s\n' "$$FLAGS_NOW" >$@
FORCE:

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(compile) -MMD -MP -c -o $@ $<

# The list of members is a prerequisite as well: a module that was removed must leave the archive.
$(B)/members: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_O)' | cmp -s - $@ || echo '$(LIB_O)' >$@

$(B)/libcore.a: $(LIB_O) $(B)/members
	$(call say,AR,$@)
	$(Q)rm -f $@
	$(Q)ar rcsD $@ $(LIB_O)

$(addprefix $(B)/,$(PROGRAMS)): $(B)/%: $(B)/cmd/%.o $(B)/libcore.a
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS)

$(B)/unit/unit: $(UNIT_O) $(B)/libcore.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS)

$(B)/tests/golden/%: $(B)/tests/golden/%.o $(B)/libcore.a
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS)

$(TOOLS): $(B)/%: $(B)/%.o
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(if $(filter %.a,$^),$(LIBS))
$(B)/tests/lib/speed: $(B)/libcore.a

$(B)/fuzz/%: $(B)/tests/fuzz/%.o $(FUZZ_O) $(FUZZ_MAIN) $(B)/libcore.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(link) $(if $(filter fuzz,$(FLAVOUR)),-fsanitize=fuzzer) -o $@ $^ $(LIBS)

.SECONDARY:

MAN1 := $(sort $(wildcard man/*.1))
MAN5 := $(sort $(wildcard man/*.5))
MAN7 := $(sort $(wildcard man/*.7))
INSTALLED = $(addprefix $(BINDIR)/,$(PROGRAMS)) $(MAN1:man/%=$(MANDIR)/man1/%) $(MAN5:man/%=$(MANDIR)/man5/%) \
	$(MAN7:man/%=$(MANDIR)/man7/%) $(BASH_TO) $(ZSH_TO) $(FISH_TO) $(PROVIDERS:cmd/%=$(DATADIR)/repl/%)
# What makes snapshots; repl-snap looks for them beside the folder that it is in, see repl-provider(5).
PROVIDERS := $(sort $(wildcard cmd/providers/*))
# One completion file may serve several programs: bash loads them by the program's name, so each gets a link.
BASH := $(wildcard completions/*.bash)
ZSH := $(wildcard completions/_*)
FISH := $(wildcard completions/*.fish)
BASH_TO = $(if $(BASH),$(addprefix $(DATADIR)/bash-completion/completions/,$(PROGRAMS)))
ZSH_TO = $(ZSH:completions/%=$(DATADIR)/zsh/vendor-completions/%)
FISH_TO = $(FISH:completions/%=$(DATADIR)/fish/vendor_completions.d/%)

install: all
	$(Q)set -e; for p in $(PROGRAMS); do install -D -m 755 $(B)/$$p "$(DESTDIR)$(BINDIR)/$$p"; done
	$(Q)set -e; for m in $(MAN1) $(MAN5) $(MAN7); do \
		install -D -m 644 $$m "$(DESTDIR)$(MANDIR)/man$${m##*.}/$${m#man/}"; done
	$(Q)set -e; for f in $(BASH); do for p in $(PROGRAMS); do case $$f in */repl.bash|*/$$p.bash) \
		install -D -m 644 $$f "$(DESTDIR)$(DATADIR)/bash-completion/completions/$$p";; esac; done; done
	$(Q)set -e; for f in $(ZSH); do \
		install -D -m 644 $$f "$(DESTDIR)$(DATADIR)/zsh/vendor-completions/$${f##*/}"; done
	$(Q)set -e; for f in $(FISH); do \
		install -D -m 644 $$f "$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/$${f##*/}"; done
	$(Q)set -e; for f in $(PROVIDERS); do \
		install -D -m 755 $$f "$(DESTDIR)$(DATADIR)/repl/providers/$${f##*/}"; done

uninstall:
	$(Q)set -e; for f in $(INSTALLED); do rm -f "$(DESTDIR)$$f"; done

clean:
	$(Q)rm -rf build

-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d)
