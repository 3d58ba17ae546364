#!/usr/bin/env bats
# repl-track --follow and --wait: changes as they settle, each a delta of its own, down one connection; whatever ends it, the next
# start goes on from what the replica has.

load lib/setup

setup() {
	common_setup
	recorder=
	pipe=
	answer='repl-snap -s S --commit'
}

teardown() {
	local p
	for p in $(stages) $pipe $recorder; do
		kill -CONT "$p" 2>/dev/null || :
		kill "$p" 2>/dev/null || :
		wait "$p" 2>/dev/null || :
	done
	common_teardown
}

# A filesystem of its own, where nobody else changes anything.
source_here() {
	requires ext4
	fs=$(mk_fs ext4 64M)
	src=$fs/src
	mkdir "$src"
	echo one >"$src/one"
}

is_recording() {
	grep -q 'recording with' record.log && return
	kill -0 "$recorder" 2>/dev/null && return 1
	fail "the recorder ended: $(cat record.log)" || return 99
}

record() {
	: >record.log
	repl-track -v -j "$PWD/J" --record "$src" 2>record.log 3>&- &
	recorder=$!
	until_true is_recording
}

stop_recorder() {
	kill "$recorder"
	wait "$recorder" || :
	recorder=
}

# follow [OPTION...]: the whole pipeline in the background. $far: what is put in front of repl-apply; $apply: its options.
follow() {
	: >status
	# shellcheck disable=SC2016
	far="${far:-}" apply="${apply:-}" answer=$answer src=$src bash -c '
		repl-track -v -s S --follow --settle=20ms "$@" "$src" 2>track.log | repl-diff -v -s S 2>diff.log | repl-pack --flush 2>pack.log |
			$far repl-apply $apply "$PWD/R" 2>apply.log | tee -a answers | $answer 2>commit.log
		echo "${PIPESTATUS[*]}" >status' - "$@" 3>&- &
	pipe=$!
}

stages() { [[ -z $pipe ]] || pgrep -P "$pipe"; }
stage() { pgrep -P "$pipe" -x "repl-$1"; }
arrived() { cmp -s "$src/$1" "R/$1"; }
is_settled() { [[ -z $(ls S/plans) && ! -e S/image ]]; }
is_base() { [[ $(repl-snap -s S --list | sed -n 's/^base *//p') == *" seq $1 "* ]]; }
plans() { find S/plans -type f | wc -l; }
has_plans() { [[ -d S/plans ]] && (($(plans) >= $1)); }

# change NAME: a small change, and its way to the replica.
change() {
	echo "$1 $RANDOM" >"$src/$1"
	until_true arrived "$1"
}

# The first stage ends as it is asked to, all others with success.
finish() {
	kill "$(stage track)"
	wait "$pipe" || :
	pipe=
	[[ $(cat status) == "143 0 0 0 0 0" ]] || fail "statuses $(cat status); $(cat ./*.log)"
}

# Whatever ended it: all stages have.
ended() {
	wait "$pipe" || :
	pipe=
	echo "statuses $(cat status)"
}

@test "changes arrive as they settle, each is acknowledged, and nothing is left behind" {
	source_here
	record
	follow -j J
	until_true arrived one
	change two
	mkdir "$src/dir"
	mv "$src/one" "$src/dir/moved"
	change dir/three
	rm "$src/two"
	ln "$src/dir/three" "$src/link"
	change four
	until_true is_settled
	same_tree "$src" R
	[[ -e S/tip ]]
	run ! grep -E 'image ([2-9]|1[0-9]).*as compared' track.log
	finish
	run -0 ls S
	[[ ! -e S/tip && -z $(ls S/plans) ]] || fail "$output"
	# The ordinary run goes on from there, by the same recorder.
	echo five >"$src/five"
	repl-snap -s S "$src" | repl-track -v -s S 2>track.log | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	grep -q 'the recorder knows of 1 names' track.log || fail "$(cat track.log)"
	same_tree "$src" R
}

# is_larger FILE BYTES
is_larger() { (($(stat -c %s "$1") > $2)); }

@test "any answer commits all that led to it" {
	local size=(0) i mid
	source_here
	record
	answer='cat'
	follow -j J >all
	until_true arrived one
	for i in 1 2 3 4 5; do
		change "f$i"
		# The replica has it a moment before the answer is written.
		until_true is_larger answers "${size[i - 1]}"
		size[i]=$(stat -c %s answers)
	done
	# A plan each, and none is the base.
	until_true has_plans 6
	finish
	(($(plans) >= 6)) || fail "$(ls S/plans)"
	has "$(repl-snap -s S --list)" "base     none"
	# Of those in the middle only one; what led to it is done, what comes behind it still waits.
	mid=$(repl-show <(tail -c "+$((size[2] + 1))" answers | head -c $((size[3] - size[2]))) | sed -n 's/^ack .*seq=\([0-9]*\).*/\1/p' | tail -n 1)
	tail -c "+$((size[2] + 1))" answers | head -c $((size[3] - size[2])) | repl-snap -s S --commit
	is_base "$mid" || fail "$(repl-snap -s S --list)"
	(($(plans) > 0))
	# An earlier one says nothing new any more; the last one is all that was missing.
	repl-apply --ack R | repl-snap -s S --commit
	until_true is_settled
	same_tree "$src" R
	run -0 bash -o pipefail -c "repl-snap -s S '$src' | repl-track -s S | repl-diff --stats -s S 2>stats | repl-apply R | repl-snap -s S --commit"
	grep -q '^repl-diff: changed:  *0' stats || fail "$(cat stats)"
	# Each answer in turn does the same as the last one.
	cp -a S T
	run -5 repl-snap -s T --commit <answers
}

@test "each stage killed in turn: the others end, and the next start goes on from what the replica has" {
	local s
	source_here
	record
	follow -j J
	until_true arrived one
	for s in track diff pack apply snap; do
		change "before-$s"
		kill -KILL "$(stage "$s")"
		# Those in front find out when they write.
		echo "$s" >"$src/while-$s"
		ended
		repl-apply --ack R | repl-snap -s S --commit
		echo "$s" >"$src/without-$s"
		follow
		until_true arrived "without-$s"
		until_true arrived "while-$s"
	done
	until_true is_settled
	finish
	same_tree "$src" R
}

@test "what the replica has is not known to the base: with --timeout the answer mends it, and the run after the next goes on" {
	source_here
	record
	answer='cat'
	follow -j J >all
	until_true arrived one
	change two
	finish
	echo three >"$src/three"
	answer='repl-snap -s S --commit'
	apply=--timeout=10m
	follow
	ended
	grep -q 'holds image' apply.log || fail "$(cat apply.log)"
	[[ $(cat status) == *" 5 0 0" ]] || fail "$(cat status)"
	follow
	until_true arrived three
	until_true is_settled
	finish
	same_tree "$src" R
}

@test "the base moved otherwise: repl-diff says so and ends" {
	source_here
	record
	answer='cat'
	follow -j J >all
	until_true arrived one
	change two
	repl-snap --digest "$src" | repl-snap -s S --adopt
	echo three >"$src/three"
	ended
	grep -q 'does not follow from the base any more' track.log diff.log || fail "$(cat status track.log diff.log)"
}

@test "a link that dies and comes back: the loop of repl(7) goes on by itself" {
	local loop
	requires sshd
	source_here
	record
	start_sshd
	cat >far <<-END
		#!/bin/sh
		exec ${SSH[*]@Q} "cd '$PWD' && \$*"
	END
	chmod +x far
	repl-snap -s S "$src" | repl-track -s S -j J | repl-diff -s S | ./far repl-apply R | repl-snap -s S --commit
	cat >loop <<-'END'
		trap 'exit' TERM
		while :; do
			./far repl-apply --ack R | repl-snap -s S --commit
			repl-track -v -s S --follow 2>>track.log | repl-diff -s S | repl-pack --flush |
				./far repl-apply --timeout=2m R | repl-snap -s S --commit
			sleep 0.2
		done
	END
	bash loop 2>loop.log 3>&- &
	pipe=$!
	change two
	# The connection's own process, and what it runs there.
	pkill -P "$(cat "$SSHD_DIR/pid")"
	change three
	pkill -KILL -P "$(cat "$SSHD_DIR/pid")"
	rm "$src/two"
	change four
	loop=$pipe
	until_true is_settled
	same_tree "$src" R
	kill "$loop"
	kill "$(stage track)"
	wait "$pipe" || :
	pipe=
}

@test "a storm becomes few deltas, and no stage takes more than 64 MiB" {
	local p peak
	requires no-sanitizer
	source_here
	record
	follow -j J
	until_true arrived one
	mkdir "$src/storm"
	(cd "$src/storm" && python3 -c '
for i in range(10000):
    open("f%d" % i, "w").write(str(i))')
	change last
	for p in track diff pack apply snap; do
		peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$(stage $p)/status")
		((peak < 65536)) || fail "repl-$p took $peak KiB"
	done
	until_true is_settled
	finish
	same_tree "$src" R
	(($(grep -c 'image ' track.log) < 100)) || fail "$(cat track.log)"
}

@test "a stage that stands still for a while does no harm" {
	local s
	source_here
	record
	follow -j J
	until_true arrived one
	for s in track diff pack apply snap; do
		kill -STOP "$(stage $s)"
		echo "$s" >"$src/1-$s"
		echo "$s" >"$src/2-$s"
		kill -CONT "$(stage $s)"
		until_true arrived "1-$s"
	done
	change last
	until_true is_settled
	finish
	same_tree "$src" R
}

@test "nothing happens: images go out all the same, so that both ends know that the other lives" {
	source_here
	record
	follow -j J --keepalive=100ms
	until_true arrived one
	is_seq() { (($(cat S/seq) >= $1)); }
	until_true is_seq 4
	until_true grep -q 'image 4: 0 names' track.log
	finish
	same_tree "$src" R
}

@test "nothing comes: repl-apply and repl-snap --commit give up with status 9, and lose nothing" {
	source_here
	# A pipe that has a writer for ever.
	mkfifo line
	exec 7<>line
	run -9 repl-apply --timeout=100ms R <&7
	has "$output" "nothing came for"
	repl-snap -s S "$src" >/dev/null
	run -9 repl-snap -s S --commit --timeout=100ms <&7
	has "$output" "no answer came"
	head -c 3000000 /dev/urandom >"$src/large"
	repl-diff "$src" >delta.rpl
	head -c 2000000 delta.rpl >&7 3>&- &
	run -9 repl-apply --timeout=2s R <&7
	has "$output" "what came is kept for repl-apply --resume-token"
	repl-pack --resume="$(repl-apply --resume-token R)" <delta.rpl | repl-apply R >answer.rpl
	same_tree "$src" R
	head -c 20 answer.rpl >&7
	run -9 repl-snap -s S --commit --timeout=100ms <&7
	exec 7<&-
	run -2 repl-snap -s S --list --timeout=1s
}

@test "a state directory in the tree is no reason for the next image" {
	local was
	source_here
	record
	mkdir -p "$src/own/S"
	ln -s "$src/own/S" S
	follow -j J --keepalive=0
	until_true arrived one
	change two
	change three
	until_true is_settled
	is_quiet() {
		was=$(cat S/seq)
		sleep 1
		[[ $(cat S/seq) == "$was" ]]
	}
	until_true is_quiet
	finish
	[[ ! -e R/own/S ]]
}

@test "one follows, and nobody else takes images from its state" {
	source_here
	record
	follow -j J
	until_true arrived one
	run -8 repl-track -s S --follow "$src" >/dev/null
	has "$output" "is followed by process $(stage track)"
	run -8 repl-snap -s S "$src"
	finish
	run -0 repl-snap -s S "$src"
}

@test "without a recorder it looks in intervals, and when one comes back it is used again" {
	source_here
	follow --interval=100ms
	until_true arrived one
	change two
	grep -q 'nobody records what changes: looking every 0.1 s instead' track.log
	finish
	record
	follow -j J --interval=100ms
	change three
	stop_recorder
	change four
	until_true grep -q 'no recorder is running: looking every' track.log
	record
	change five
	change six
	until_true grep -q 'as recorded' track.log
	until_true is_settled
	finish
	same_tree "$src" R
}

@test "too many deltas without an answer: it waits, and goes on when there is room" {
	local i
	source_here
	record
	answer='cat'
	follow -j J >all
	until_true arrived one
	for i in {1..4000}; do
		printf -v i '%016x-%016x-%064d' 0 "$i" 0
		: >"S/plans/$i"
	done
	echo two >"$src/two"
	until_true grep -q 'waiting for answers' diff.log
	[[ ! -e R/two ]]
	rm S/plans/0000000000000000-*
	until_true arrived two
	finish
	repl-apply --ack R | repl-snap -s S --commit
	same_tree "$src" R
}

@test "--follow wants to know what to follow, and to be read" {
	source_here
	run -2 repl-track -s S --follow
	repl-snap -s S "$src" >/dev/null
	run -2 repl-track -s S --follow
	has "$output" "there is no base yet that says it"
	run -2 repl-track -s S --follow -o file "$src"
	run -2 repl-track -s S --follow --interval=0 "$src"
	run -2 repl-track -s S --follow --wait
}

@test "--wait returns when the interval is over, or enough has changed" {
	source_here
	repl-snap -s S "$src" | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	run -2 repl-track -s S --wait --interval=0
	run -2 repl-track -s S --wait "$src"
	run -7 repl-track -s S --wait --interval=0 --changes=2
	has "$output" "nobody records what changes"
	run -0 repl-track -s S --wait --interval=100ms
	run -0 repl-track -s S --wait --interval=100ms --changes=1000000
	record
	repl-snap -s S "$src" | repl-track -s S -j J | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	repl-track -s S --wait --interval=0 --changes=3 3>&- &
	pipe=$!
	echo a >"$src/a"
	echo b >"$src/b"
	kill -0 $pipe
	echo c >"$src/c"
	wait $pipe
	# What has changed since is counted, whether the image got through or not; the size of what changed, too.
	run -0 repl-track --stats -s S --wait --changes=2
	repl-snap -s S "$src" >/dev/null
	repl-track -s S --wait --bytes=1M 3>&- &
	pipe=$!
	# Sizes are taken when a name is first heard of.
	head -c 2000000 /dev/zero >"$fs/d"
	mv "$fs/d" "$src/d"
	wait $pipe
	pipe=
	# Another recorder knows nothing: that is enough.
	stop_recorder
	run -7 repl-track -s S --wait --interval=0 --changes=1000
	has "$output" "there is no record: no recorder is running"
	run -0 repl-track -s S --wait --interval=100ms --changes=1000
	record
	run -0 repl-track -s S --wait --changes=1000
}
