#!/usr/bin/env bats
# Manners, the same in all programs: options, terminals, files, signals, statuses, silence.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

PROGRAMS="repl-snap repl-track repl-diff repl-pack repl-apply repl-show"

# on_tty WHICH COMMAND...: runs it with a terminal as standard input (0) or output (1); prints what it said on
# standard error, and hands its status on
on_tty() {
	python3 - "$@" 3>&- <<-'PY'
		import os, pty, subprocess, sys
		main, side = pty.openpty()
		which = int(sys.argv[1])
		r = subprocess.run(sys.argv[2:], stdin=side if which == 0 else open("/dev/null"), stdout=side if which == 1 else subprocess.PIPE,
		                   stderr=subprocess.PIPE, timeout=20)
		os.set_blocking(main, False)
		try:
		    shown = os.read(main, 4096)
		except OSError:
		    shown = b""
		sys.stdout.write(r.stderr.decode())
		if shown:
		    sys.exit("something was written to the terminal: %r" % shown)
		sys.exit(r.returncode)
	PY
}

@test "--help, --usage and --version go to standard output, with status 0" {
	for p in $PROGRAMS; do
		for option in --help --usage --version; do
			run -0 --separate-stderr "$p" $option
			[[ -z $stderr && $output == *"$p"* ]] || fail "$p $option: $output $stderr"
		done
	done
}

@test "a wrong command line is one line on standard error, with status 2" {
	for c in "repl-snap" "repl-snap --commit --abort -s S" "repl-snap --list" "repl-track" "repl-track operand -s S" "repl-diff" \
		"repl-diff a b c" "repl-diff -s S operand" "repl-diff --block-size 5000 ." "repl-diff --time yesterday ." "repl-pack operand" \
		"repl-apply" "repl-apply a b" "repl-show a b" "repl-apply --map-owner x:y R" "repl-pack --level"; do
		run -2 --separate-stderr bash -c "$c </dev/null"
		[[ -z $output && ${#stderr_lines[@]} == 1 && $stderr == "${c%% *}: "*"--help'" ]] || fail "$c: $output $stderr"
	done
	[[ ! -e S && ! -e R ]]
}

# bats test_tags=slow
@test "no stream is written to a terminal, and none is read from one" {
	mkdir src
	echo x >src/x
	repl-snap -s S src >image
	repl-diff src >delta
	for c in "repl-snap src" "repl-snap --digest src" "repl-diff src"; do
		# shellcheck disable=SC2086 # words
		run -2 on_tty 1 $c
		has "$output" "terminal"
	done
	for c in "repl-track -s S <image" "repl-pack <delta" "repl-pack -d <delta"; do
		run -2 on_tty 1 bash -c "$c"
		has "$output" "terminal"
	done
	for c in "repl-pack" "repl-pack -d" "repl-apply R" "repl-snap -s S --commit" "repl-show"; do
		# shellcheck disable=SC2086 # words
		run -2 on_tty 0 $c
		has "$output" "terminal"
	done
	[[ ! -e R ]]
	# An acknowledgement is not for people: on a terminal, nothing is shown.
	run -0 on_tty 1 bash -c "repl-apply R <delta"
	[[ -z $output && -e R/x ]]
}

@test "-o writes all of the file or nothing, and replaces one only when forced" {
	small_tree src
	repl-diff src >delta
	run -0 --separate-stderr repl-diff -o out src
	[[ -z $output && -z $stderr ]]
	cmp delta out
	run -6 repl-diff -o out src
	has "$output" "--force"
	inode=$(stat -c %i out)
	run -0 repl-diff --force -o out src
	cmp delta out
	[[ $(stat -c %i out) != "$inode" ]]
	run -0 bash -c 'repl-pack --output packed <delta'
	zstd -q -d -c packed | cmp - delta
	# When it fails, what was there stays, and nothing else is left.
	before=$(ls -A)
	run -4 bash -c 'head -c 1000 delta | repl-pack --force -o packed'
	zstd -q -d -c packed | cmp - delta
	run -1 repl-diff --force -o nowhere/out src
	run -1 repl-diff --force -o out missing
	cmp delta out
	[[ $(ls -A) == "$before" ]]
	# What is no file is written as it is.
	run -0 repl-diff -o /dev/null src
	[[ -c /dev/null ]]
	run -0 bash -c 'repl-diff -o /dev/fd/1 src | cmp - delta'
	run -0 bash -c 'repl-diff -o - src | cmp - delta'
	run -1 repl-diff -o /dev/full src
	has "$output" "No space left"
	run -1 bash -c 'repl-diff src >/dev/full'
	has "$output" "No space left"
}

@test "a reader that goes away ends every stage quietly" {
	mkdir src
	noise src/big 3000000
	repl-diff src >delta
	repl-snap -s S src >image
	for c in "repl-diff src" "repl-pack <delta" "repl-snap --digest src" "repl-show delta" "repl-pack --level 1 <delta"; do
		run --separate-stderr bash -c "{ $c; echo \$? >status; } | head -c 1 >one"
		[[ -z $stderr ]] || fail "$c: $stderr"
		[[ $(cat status) == @(141|0) ]] || fail "$c: $(cat status)"
	done
	run -141 --separate-stderr bash -o pipefail -c 'repl-diff -s S <image | head -c 1000 >part'
	[[ -z $stderr ]]
	run -0 repl-snap -s S --list
	has "$output" "base     none"
}

# bats test_tags=slow
@test "a signal stops a program at once, with its status and without temporary files" {
	mkdir src
	noise src/big 30000000
	repl-diff src >delta
	repl-snap -s S src >image
	mkdir tmp
	export TMPDIR=$PWD/tmp
	for signal in TERM INT HUP; do
		case $signal in TERM) code=143 ;; INT) code=130 ;; HUP) code=129 ;; esac
		for c in "repl-pack --rate 100K -o out" "repl-apply R" "repl-pack --rate 100K"; do
			mkfifo in
			# A background job of a script ignores INT, and all under nohup(1) HUP: not these.
			run "-$code" --separate-stderr bash -c "env --default-signal=INT,HUP $c <in 3>&- >/dev/null & pid=\$!
				{ head -c 2000000 delta; sleep 0.3; kill -$signal \$pid; sleep 0.1; } >in
				wait \$pid"
			rm in
			[[ -z $output ]]
			[[ $(ls -A tmp) == "" && ! -e out && -z $(compgen -G '.repl-*') ]] || fail "$c: $(ls -A . tmp)"
		done
		# It waits for a change stream that never comes; its unfinished output file tells that it has come so far.
		mkfifo in
		run "-$code" bash -c "exec 9<>in; env --default-signal=INT,HUP repl-diff -s S -o out <in 3>&- 9>&- & pid=\$!
			until compgen -G '.repl-diff.*' >/dev/null || ! kill -0 \$pid; do sleep 0.02; done
			kill -$signal \$pid; wait \$pid"
		rm in
		[[ $(ls -A tmp) == "" && ! -e out && -z $(compgen -G '.repl-*') ]] || fail "$(ls -A . tmp)"
	done
	# What was interrupted is no obstacle.
	run -0 bash -c 'repl-apply R <delta >ack'
	same_tree src R
}

@test "a stage that gets the wrong kind of stream says which one is missing" {
	small_tree src
	repl-snap -s S src >image
	repl-track -s S <image >change
	repl-diff -s S <change >delta
	repl-apply R <delta >ack
	run -4 bash -c 'repl-apply R2 <image'
	has "$output" "repl-diff is missing"
	run -4 bash -c 'repl-apply R2 <change'
	has "$output" "repl-diff is missing"
	run -4 bash -c 'repl-apply R2 <ack'
	has "$output" "repl-snap --commit"
	run -4 bash -c 'repl-track -s S <delta'
	has "$output" "repl-track"
	run -4 bash -c 'repl-diff -s S <delta'
	has "$output" "repl-track or repl-snap"
	run -4 bash -c 'repl-snap -s S --commit <delta'
	has "$output" "repl-apply"
	run -4 repl-diff delta src
	has "$output" "repl-snap --digest"
	[[ ! -e R2 ]]
}

@test "nothing is said when all is well: no terminal, no home, a poor PATH, as from cron" {
	small_tree src
	for program in $PROGRAMS; do
		ln -s "$(command -v "$program")" "$program"
	done
	for n in 1 2; do
		echo "$n" >src/n
		run -0 env -i PATH=/usr/bin:/bin "BIN=$PWD" setsid /bin/sh -c 'cd "$BIN" && ./repl-snap -s S src | ./repl-track -s S |
			./repl-diff -s S | ./repl-pack | ./repl-apply R | ./repl-snap -s S --commit' </dev/null
		[[ -z $output ]]
		same_tree src R
	done
}

@test "with -v, --stats and --progress it is standard error that gets longer, never the stream" {
	small_tree src
	repl-diff src >plain
	for options in -v -vv --stats --progress -q "-q --stats" --no-progress; do
		# shellcheck disable=SC2086 # words
		run -0 bash -c "repl-diff $options src 2>said | cmp - plain"
		case $options in
		--stats) [[ -s said ]] ;;
		-q) [[ ! -s said ]] ;;
		esac
	done
}

@test "the state and the temporary folder come from the environment" {
	small_tree src
	export REPL_STATE=$PWD/from-env
	run -0 run_pipe 'repl-snap -s "$REPL_STATE" src | repl-track | repl-diff | repl-apply R | repl-snap --commit'
	same_tree src R
	[[ -e from-env/catalog ]]
	run -1 env TMPDIR=/nonexistent repl-diff src
	has "$output" /nonexistent
}

@test "with SOURCE_DATE_EPOCH the stream does not know when it was made" {
	small_tree src
	export SOURCE_DATE_EPOCH=1000000000
	repl-diff src >one
	sleep 1.1
	repl-diff src >two
	cmp one two
	run -0 repl-show -n one
	has "$output" "time=2001-09-09T01:46:40"
	run -0 repl-snap --time 2026-01-31T12:00:00Z -o image src
	run -0 repl-show -n image
	has "$output" "time=2026-01-31T12:00:00"
}

@test "a state directory is kept from others, and what is no state is not made one" {
	mkdir src full
	echo x >full/x
	run -0 bash -c 'repl-snap -s S src >image'
	[[ $(stat -c %a S) == 700 ]]
	for c in "repl-snap -s full src" "repl-snap -s full --list" "repl-track -s full <image"; do
		run bash -c "$c >out"
		[[ $status == @(2|6) ]] || fail "$c: $status"
	done
	[[ $(ls -A full) == x ]]
	run -2 repl-snap -s missing --list
	[[ ! -e missing ]]
	echo "repl-state 99" >S/repl-state
	run bash -c 'repl-snap -s S src >out'
	[[ $status != 0 ]]
}

@test "a lock that somebody holds is status 8, with the number of the process" {
	small_tree src
	repl-snap -s S src >image
	flock S/lock sleep 20 3>&- &
	pid=$!
	while flock -n S/lock true; do sleep 0.05; done
	run -8 bash -c 'repl-snap -s S src >out'
	run -8 bash -c 'repl-diff --lock-wait 0 -s S <image >out'
	kill "$pid"
	wait "$pid" || :
	pkill -P "$pid" 2>/dev/null || :
}

@test "--list and --abort tell and forget what is under way" {
	small_tree src
	repl-snap -s S --bookmark 'before the release' src >image
	run -0 repl-snap -s S --list
	has "$output" "pending"
	has "$output" "before the release"
	run -0 repl-snap -s S --list --json
	python3 -c 'import json, sys
d = json.loads(sys.argv[1])
assert d["base"] is None and d["pending"]["seq"] == 1, d' "$output"
	run -0 repl-snap -s S --abort
	run -0 repl-snap -s S --list
	has "$output" "pending  none"
}
