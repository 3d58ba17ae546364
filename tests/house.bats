#!/usr/bin/env bats
# The house checks itself: the rules that a compiler does not know.

load lib/setup

setup() {
	common_setup
	cd "$repl_root" || return 1
	# Most tests here print what is wrong into a pipe whose end wants silence; a check that breaks must not be taken for one
	# that found nothing.
	set -o pipefail
}

# A module includes headers from the floors below, or from its left on its own floor. The engines call everything below and
# never one another. A new module gets its place here first.
floors="
err clock bytes json words lanes pool
digest window writeback freeing numbers sorted value codec record blocks object stamp stream token filter names
inode attr meta file extents path entry fit room owners confine subvol control lock spill listing ahead walk input sink tape mounts volume where gaps holders handles fanevent watch fanmarks fanotify inotify tap command freeze guard provider snapbtrfs snaptree snapexec providers
pages store rows trail chunks seal catalog prefetch image head state pending queue backlog snapshots
anchors content replica scan changes merge batches journal heard clients redo shifts history stage partial plan check undo edits install attach place restore land
named generations since moves spool target guess emit clones ship regions diff source
job charge receive rewind
engines: delta pack apply adopt past recorder snap track join show verify
follow outbox
terminal output options policy cli forced
"

# foo.c exports foo_*; these few modules export a handful of other names as well.
declare -gA also_exports=(
	[err]="warn_"
	[bytes]="buf_ bits_ wr_ rd_ span_ put_ get_ add_ mul_ esc_ x is_zero hex unhex free_ptr close_fd"
	[digest]="roll_"
	[record]="rec_ obj_ name_is_sane xattr_next"
	[stream]="kind_"
)

# Each library that is not ours is named in one module.
declare -gA door=([zstd]=codec [zstd_errors]=codec [blake2]=digest [popt]=options [lmdb]=store)

all_files() {
	find . \( -name build -o -name .git -o -path ./tests/fuzz/corpus -o -path ./tests/golden \) -prune -o -type f -print | sort
}

c_files() {
	all_files | grep '\.[ch]$'
}

programs() {
	local f
	for f in cmd/*.c; do
		f=${f##*/}
		echo "${f%.c}"
	done
}

# The long options that --help of a program lists.
help_options() {
	"$REPL_BUILD/$1" --help | grep -oE '^ +(-., )?--[a-z0-9][a-z0-9-]*' | grep -oE -- '--.*' | sort -u
}

# compare LIST NAME LIST NAME: says what only one of two sorted lists has.
compare() {
	{ diff <(echo "$1") <(echo "$3") || :; } | sed -n "s|^<|only in $2:|p; s|^>|only in $4:|p"
}

# Prints what its standard input says and fails when that is anything.
nothing() {
	local found
	found=$(cat)
	[[ -z $found ]] || fail "$found"
}

@test "every header compiles alone, and twice" {
	for h in libcore/*.h; do
		h=${h##*/}
		printf '#include "%s"\n#include "%s"\n' "$h" "$h" >"$BATS_TEST_TMPDIR/${h%.h}.c"
	done
	# clang reads them all in its own build.
	gcc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -Ilibcore -fsyntax-only "$BATS_TEST_TMPDIR"/*.c
}

@test "every header is guarded by its name" {
	for h in libcore/*.h; do
		name=${h##*/}
		name=${name%.h}
		grep -q "^#ifndef REPL_${name^^}_H$" "$h" || echo "$h: no REPL_${name^^}_H"
	done | nothing
}

@test "every source includes its own header first" {
	for c in libcore/*.c; do
		name=${c##*/}
		[[ $(grep -m 1 '^#include' "$c") == "#include \"${name%.c}.h\"" ]] || echo "$c"
	done | nothing
}

@test "includes only go down the floors" {
	python3 - "$floors" libcore/*.[ch] <<-'PY' | nothing
		import re, sys
		rank, engines, n = {}, set(), 0
		for line in sys.argv[1].split("\n"):
		    if line.startswith("engines:"):
		        engines = set(line.split()[1:])
		    for name in line.replace("engines:", "").split():
		        rank[name] = n
		        n += 1
		for path in sys.argv[2:]:
		    me = re.sub(r".*/|\.[ch]$", "", path)
		    if me not in rank:
		        print("%s: give it a floor in tests/house.bats" % path)
		        continue
		    for other in re.findall(r'^#include "(\w+)\.h"', open(path).read(), re.M):
		        if other == me:
		            continue
		        if other not in rank or rank[other] > rank[me] or (me in engines and other in engines):
		            print("%s includes %s.h" % (path, other))
	PY
}

@test "a module exports names that begin with its own" {
	for name in "${!also_exports[@]}"; do
		echo "$name ${also_exports[$name]}"
	done >"$BATS_TEST_TMPDIR/also"
	nm -g --defined-only "$REPL_BUILD"/libcore/*.o | awk '
		FILENAME == also_file { for (i = 2; i <= NF; i++) also[$1] = also[$1] " " $i; next }
		/\.o:$/ { name = $1; sub(/.*\//, "", name); sub(/\.o:/, "", name); n = split(name "_" also[name], allowed, " "); next }
		NF == 3 && $3 !~ /^__/ {
			for (i = 1; i <= n; i++)
				if (index($3, allowed[i]) == 1)
					next
			print name " exports " $3
		}' also_file="$BATS_TEST_TMPDIR/also" "$BATS_TEST_TMPDIR/also" - | nothing
}

@test "nothing in libcore but the front door prints, and only cli exits or reads the environment" {
	# Out of memory is the one thing that bytes says itself, and then aborts; options aborts when popt has none.
	leaves='exit|_exit|_Exit|quick_exit|(secure_)?getenv'
	prints='perror|psignal|err|errx|v?warnx?|(__)?v?printf(_chk)?|(__)?v?dprintf(_chk)?|puts|putchar|syslog|error'
	nm -u "$REPL_BUILD"/libcore/*.o | awk -v leaves="$leaves" -v prints="$prints" '
		/\.o:$/ {
			name = $1
			sub(/.*\//, "", name)
			sub(/\.o:/, "", name)
			calls = leaves "|abort|stdout|stderr|" prints
			if (name == "terminal") calls = leaves "|abort|stdout|" prints
			if (name == "output") calls = leaves "|abort|stderr|" prints
			if (name == "options") calls = leaves "|stdout|stderr|" prints
			# The processes that they start end in them.
			if (name == "command" || name == "guard") calls = "exit|_Exit|quick_exit|(secure_)?getenv|abort|stdout|stderr|" prints
			if (name == "bytes") calls = leaves "|stdout|" prints
			next
		}
		name != "cli" && NF == 2 { sub(/@.*/, "", $2); if ($2 ~ "^(" calls ")$") print name " uses " $2 }' | nothing
	{ grep -nE 'STD(OUT|ERR)_FILENO' libcore/*.c | grep -vE '^libcore/(bytes|terminal|output|cli)\.c:' || :; } | nothing
}

@test "each library of others is named in one module only" {
	for lib in "${!door[@]}"; do
		{ grep -nE "^#include <$lib\.h>" libcore/*.[ch] cmd/*.c | grep -v "^libcore/${door[$lib]}\.c:" || :; }
	done | nothing
}

@test "sources hold no unfinished business" {
	{ c_files | xargs grep -nE 'TODO|FIXME|\<XXX\>|^#if 0' || :; } | nothing
}

@test "no source has blanks at line ends, or spaces where a tab should be" {
	{ c_files | xargs grep -nE $'[ \t]+$|^ {4}' || :; } | nothing
}

@test "every program answers --help on standard output, within 80 columns" {
	for p in $(programs); do
		run -0 --separate-stderr "$REPL_BUILD/$p" --help
		# shellcheck disable=SC2154 # run sets it
		[[ -z $stderr && $output == "Usage: $p "* ]] || echo "$p: not a help text"
		LC_ALL=C awk -v p="$p" 'length > 80 { print p ": " $0 }' <<<"$output"
	done | nothing
}

@test "every program says its version, and what it can read" {
	for p in $(programs); do
		run -0 "$REPL_BUILD/$p" --version
		[[ ${lines[0]} =~ ^$p\ [0-9]+\.[0-9]+\.[0-9]+$ && ${lines[1]} =~ ^stream\ [0-9]+$ &&
			${lines[2]} == "features: "* ]] || echo "$p: $output"
	done | nothing
}

@test "every program refuses an unknown option with status 2 and the way to --help" {
	for p in $(programs); do
		run -2 --separate-stderr "$REPL_BUILD/$p" --no-such-option
		[[ -z $output && $stderr == *"'--no-such-option'"*"$p --help"* ]] || echo "$p: $output $stderr"
		# popt knows no abbreviations; nobody shall come to rely on them.
		run -2 "$REPL_BUILD/$p" --versio
	done | nothing
}

@test "a help text that cannot be written is a failure" {
	for p in $(programs); do
		run -1 bash -c '"$1" --help >/dev/full' - "$REPL_BUILD/$p"
		has "$output" "No space left on device" || echo "$p: $output"
	done | nothing
}

@test "manual pages list the options that --help lists" {
	[[ -n $(ls man/*.1 2>/dev/null) ]] || skip "no pages yet"
	for p in $(programs); do
		[[ -e man/$p.1 ]] || {
			echo "man/$p.1 is missing"
			continue
		}
		in_page=$(grep '^\.It ' "man/$p.1" | grep -oE 'Fl -[a-z0-9][a-z0-9-]*' | sed 's/Fl -/--/' | sort -u)
		compare "$(help_options "$p")" "$p --help" "$in_page" "man/$p.1"
	done | nothing
}

@test "completions know the options that --help lists" {
	[[ -n $(ls completions 2>/dev/null) ]] || skip "no completions yet"
	all=$(for p in $(programs); do help_options "$p"; done | sort -u)
	for f in completions/*; do
		# fish writes -l name.
		known=$(grep -v '^ *#' "$f" | grep -oE -- '(^|[^a-z0-9-])(--|-l )[a-z0-9][a-z0-9-]*' |
			grep -oE -- '(--|-l )[a-z0-9].*' | sed 's/^-l /--/' | sort -u)
		# A file serves one program when it has its name, and else all of them.
		name=${f##*/}
		name=${name#_}
		name=${name%%.*}
		of=$all
		[[ ! -e cmd/$name.c ]] || of=$(help_options "$name")
		compare "$of" "--help" "$known" "$f"
	done | nothing
}

@test "manual pages are clean" {
	[[ -n $(ls man 2>/dev/null) ]] || skip "no pages yet"
	# Whether the pages that are referred to are installed says nothing about ours.
	{ mandoc -T lint man/* | grep -v 'referenced manual not found\|outdated mandoc.db' || :; } | nothing
}

@test "scripts are clean" {
	requires shellcheck
	scripts=$(all_files | while read -r f; do
		case $f in
		*.bats | *.bash) echo "$f" ;;
		*) head -n 1 "$f" | grep -aqE '^#!.*[/ ](ba|da)?sh$' && echo "$f" || : ;;
		esac
	done)
	[[ $scripts == *tests/run* ]]
	some() { grep "$@" <<<"$scripts" || :; }
	# One process for many files: what it costs to start is more than most of them need.
	mapfile -t words < <(some '^\./completions/')
	mapfile -t tests < <(some '\.bats$')
	mapfile -t others < <(some -v -e '^\./completions/' -e '\.bats$')
	{
		# Its words are the shell's, not ours: completion functions set and read what bash hands them.
		shellcheck -s bash -e SC2034,SC2154,SC2207 "${words[@]}" || echo "in the completions"
		# run sets status, output, lines and stderr; tests are functions that nobody calls; pipelines are
		# given to run_pipe in single quotes; each test is a subshell of its own.
		shellcheck -s bats -e SC2154,SC2317,SC2016,SC2030,SC2031 "${tests[@]}" || echo "in the tests"
		shellcheck -x "${others[@]}" || echo "in the scripts"
	} | nothing
}

@test "python scripts compile" {
	all_files | python3 -c '
import ast, sys
for path in sys.stdin.read().split("\n")[:-1]:
    with open(path, "rb") as f:
        text = f.read()
    if not path.endswith(".py") and not text.split(b"\n")[0].endswith(b"python3"):
        continue
    try:
        ast.parse(text)
    except SyntaxError as e:
        print(path, e)' | nothing
}
