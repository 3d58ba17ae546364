#!/usr/bin/env bats
# What is asked to be still round the instant of an image, and what is frozen, goes on again whatever becomes of repl-snap.

load lib/setup

setup_file() {
	requires root ext4 xfs btrfs
	local ram=$BATS_FILE_TMPDIR/ram type
	mkdir "$ram"
	mount -t tmpfs -o size=2G tmpfs "$ram"
	echo "$ram" >>"$(undo_dir)/.mounts"
	for type in ext4 xfs btrfs; do
		mkdir "$ram/$type"
		truncate -s 400M "$ram/$type.img"
		"mkfs.$type" -q "$ram/$type.img"
		mount -o loop,noatime "$ram/$type.img" "$ram/$type"
		echo "$ram/$type" >>"$(undo_dir)/.mounts"
	done
	# A filesystem in a file on another one: to freeze it waits for that as soon as that is frozen.
	truncate -s 32M "$ram/ext4/inner.img"
	mkfs.ext4 -q "$ram/ext4/inner.img"
	mkdir "$ram/inner"
	mount -o loop "$ram/ext4/inner.img" "$ram/inner"
	echo "$ram/inner" >>"$(undo_dir)/.mounts"
}

setup() {
	common_setup
	ram=$BATS_FILE_TMPDIR/ram
	at=$(mktemp -d "$ram/XXXXXX")
	cd "$at" || return 1
	mkdir plain
	echo content >plain/file
	: >log
}

# Nothing may stay frozen, or nobody can unmount it.
thaw_all() {
	local type
	for type in ext4 inner xfs btrfs; do fsfreeze -u "$ram/$type" 2>/dev/null || :; done
}

teardown() {
	thaw_all
	touch "$at/stop" # writers
	common_teardown
}

subvolume() { btrfs -q subvolume create "$1"; }

logged() { [[ $(xargs <log) == "$*" ]] || fail "logged: $(xargs <log)"; }

# The guard keeps the state's lock until it is done; afterwards the state is what it was.
after_guard() { repl-snap -s state --lock-wait=120 --abort; }

# Thawing is an error where nothing is frozen.
is_thawed() {
	local what
	for what; do
		! fsfreeze -u "$ram/$what" 2>/dev/null || fail "$what was still frozen"
	done
}

has_gone() { [[ ! -d /proc/$1 ]] || grep -q '^State:.Z' "/proc/$1/status"; }

# The stamp of the image in a file.
stamp() { repl-show --json "$1" | grep -o '"provider":"[a-z]*","consistency":"[a-z]*"'; }

@test "the commands are run round a snapshot, in order, and it is stamped" {
	subvolume "$ram/btrfs/a"
	subvolume "$ram/btrfs/b"
	src=$ram/btrfs/a
	count="ls $src/.repl/images 2>/dev/null | wc -l"
	repl-snap -v --stats -s state --quiesce="echo quiesce \$($count) >>log" --resume="echo resume \$($count) >>log" "$src" \
		>image 2>said || fail "$(cat said)"
	logged quiesce 0 resume 1
	[[ $(stamp image) == '"provider":"btrfs","consistency":"app"' ]]
	grep -qE '^repl-snap: quiesced for [0-9]+ ms$' said
	grep -qE '^repl-snap: quiesced: +[0-9]+ ms$' said
	# One of several, too: they were still for all of them.
	repl-snap -s state --quiesce=true a="$src" b="$ram/btrfs/b" >image
	[[ $(stamp image) == '"provider":"btrfs","consistency":"app"' ]]
	repl-snap -s state --resume=true "$src" >image
	[[ $(stamp image) == '"provider":"btrfs","consistency":"crash"' ]]
	repl-snap -s state --quiesce=false --crash-consistent "$src" >image 2>said
	[[ $(stamp image) == '"provider":"btrfs","consistency":"crash"' ]]
	has "$(cat said)" "the applications are not quiesced: the quiesce command 'false' failed with status 1"
	repl-snap -s state --abort
}

@test "the commands are run round a live image, which stays one, and do not disturb the stream" {
	repl-snap -s state --quiesce='echo quiesce >>log' --resume='echo resume >>log' plain >image
	logged quiesce resume
	[[ $(stamp image) == '"provider":"live","consistency":"live"' ]]
	repl-snap --time=@1000000 plain >silent
	echo input | repl-snap --time=@1000000 --quiesce='echo noise; wc -c' --resume='echo more' plain 2>said >noisy
	cmp silent noisy
	[[ $(xargs <said) == "noise 0 more" ]]
	# Without each other.
	repl-snap --quiesce='echo alone >>log' plain >image
	repl-snap --resume='echo only >>log' plain >image
	logged quiesce resume alone only
}

@test "a quiesce command that fails: resume runs, there is no image, and the state is what it was" {
	repl-snap -s state plain >image
	cp -a state was
	for how in 'exit 3' 'kill -9 $$' 'no-such-command'; do
		: >log
		run -1 repl-snap -s state --quiesce="echo quiesce >>log; $how" --resume='echo resume >>log' -o new plain
		has "$output" "no image: the quiesce command 'echo quiesce >>log; "
		logged quiesce resume
		[[ ! -e new ]]
		diff -r was state
	done
	run -1 repl-snap -s state --quiesce='exit 3' plain
	[[ $output == "repl-snap: no image: the quiesce command 'exit 3' failed with status 3 (state 'state')" ]]
	run -1 repl-snap -s state --quiesce='kill -9 $$' plain
	has "$output" "was ended by signal 9"
	run -0 repl-snap -s state --quiesce='exit 3' --crash-consistent -o new plain
	has "$output" "the applications are not quiesced: the quiesce command 'exit 3' failed with status 3"
	# Both fail, and both are said, with -q too.
	run -1 repl-snap -q -s state --quiesce='exit 3' --resume='exit 4' plain
	has "$output" "no image: the quiesce command 'exit 3' failed with status 3"
	has "$output" "the resume command 'exit 4' failed with status 4"
}

@test "a quiesce command that hangs is ended with all that it started" {
	repl-snap -s state plain >image
	cp -a state was
	run -9 repl-snap -s state --quiesce-timeout=300ms --quiesce='sleep 1000 & echo $! >pid; trap "" TERM; wait; sleep 1000' \
		--resume='echo resume >>log' plain
	has "$output" "took longer than 300 ms and was ended"
	logged resume
	diff -r was state
	# On a machine that is busy it may not have come so far.
	[[ ! -s pid ]] || until_true has_gone "$(cat pid)"
	run -0 repl-snap -s state --quiesce-timeout=100ms --quiesce='sleep 1000' --crash-consistent --resume=true -o new plain
	has "$output" "took longer than 100 ms and was ended"
}

@test "a resume command that fails or hangs: the image stands, and the status says that something is left" {
	run -3 repl-snap -q -s state --resume='exit 4' -o new plain
	[[ $output == "repl-snap: the image stands, but the resume command 'exit 4' failed with status 4" ]]
	[[ $(repl-show new) == *"seq=1 "* && $(repl-snap -s state --list) == *"pending  - seq 1 "* ]]
	run -3 repl-snap -s state --resume='sleep 1000' --quiesce-timeout=100ms -o newer plain
	has "$output" "the image stands, but the resume command 'sleep 1000' took longer than 100 ms and was ended"
	[[ $(repl-show newer) == *"seq=2 "* ]]
}

@test "killed while applications are still: they go on, once, and nothing of the quiesce command is left" {
	repl-snap -s state plain >image
	repl-snap -s state --abort
	cp -a state was
	for signal in KILL TERM INT HUP; do
		: >log
		run -$((128 + $(kill -l $signal))) env --default-signal=INT,HUP repl-snap -s state --quiesce="echo quiesce \$\$ >>log; kill -$signal \$PPID; exec sleep 1000" \
			--resume='echo resume >>log' -o new plain
		after_guard
		read -r _ pid <log
		logged quiesce "$pid" resume
		until_true has_gone "$pid"
		[[ $(echo .new* new*) == ".new* new*" || $signal == KILL ]]
		diff -r -x lock -x follow was state
	done
	rm -f .new*
}

@test "a guard that is killed is stood in for" {
	requires pgrep
	# Not reaped: repl-snap waits for this.
	kill_guard='for p in $(pgrep -P $PPID); do
		[ $p = $$ ] || { kill -9 $p; until grep -q "^State:.Z" /proc/$p/status; do sleep 0.01; done; }
	done'
	run -0 repl-snap -v -s state --quiesce="$kill_guard; echo quiesce >>log" \
		--resume='echo resume >>log' -o new plain
	logged quiesce resume
	# While it runs the resume command: that is not run twice, and whether it came to its end is not known.
	: >log
	run -3 repl-snap -s state --quiesce=true --resume='echo resume >>log; kill -9 $PPID' -o newer plain
	has "$output" "the image stands, but the resume command 'echo resume >>log; kill -9 \$PPID' was not run to its end"
	logged resume
	run -1 repl-snap -s state --freeze --quiesce="$kill_guard" \
		--resume='echo again >>log' "$ram/xfs"
	has "$output" "the guard is gone: nothing more is frozen"
	logged resume again
	is_thawed xfs
}

@test "the guard holds no stream, but the lock: the next run waits for a resume" {
	repl-snap -s state plain >image
	mkfifo go
	{ repl-snap -s state --quiesce='kill -9 $PPID; exec sleep 1000' --resume='cat go >>log' plain 2>/dev/null 3>&- || :; } |
		timeout 120 cat >out
	run -8 repl-snap -s state --quiesce='echo quiesce >>log' plain
	has "$output" "is in use"
	logged
	echo resume >go
	after_guard
	logged resume
}

@test "filesystems are frozen for the instant, each once, while somebody writes; and writing goes on" {
	writers=()
	for type in ext4 xfs; do
		mkdir -p "$ram/$type/d"
		(while [[ ! -e $at/stop ]]; do
			date >"$ram/$type/d/file"
			sync "$ram/$type/d/file"
		done) >/dev/null 2>&1 3>&- &
		writers+=($!)
		for _ in 1 2 3; do
			run -0 repl-snap -v --stats -s state --freeze --quiesce=true --resume="touch $ram/$type/d/resumed" -o new --force \
				a="$ram/$type" b="$ram/$type/d"
			[[ $output =~ "repl-snap: frozen for "[0-9]+" ms" && $output == *"repl-snap: frozen: "* ]] || fail "$output"
			[[ -e $ram/$type/d/resumed ]]
			is_thawed "$type"
			rm "$ram/$type/d/resumed"
		done
		[[ $(stamp new) == '"provider":"live","consistency":"live"' ]]
	done
	run -0 repl-snap -v -s state --freeze -o both "$ram/ext4" "$ram/xfs"
	touch "$at/stop" # writers
	is_thawed ext4 xfs
	rm -r "$ram"/{ext4,xfs}/d
}

@test "a btrfs snapshot needs no freezing; a live image of btrfs can have it" {
	subvolume "$ram/btrfs/c"
	run -0 repl-snap -v -s state --freeze -o snapshot "$ram/btrfs/c"
	has "$output" "not frozen: a btrfs snapshot is of one instant by itself"
	[[ $output != *"frozen for"* && $(stamp snapshot) == '"provider":"btrfs","consistency":"crash"' ]]
	run -0 repl-snap -v -s state --freeze --provider=live -o live "$ram/btrfs/c"
	has "$output" "frozen for"
	is_thawed btrfs
	# The state in another subvolume is on the same filesystem, though stat has another device for it.
	subvolume "$ram/btrfs/d"
	run -6 repl-snap -s "$ram/btrfs/d/state" --freeze --provider=live "$ram/btrfs/c"
	has "$output" "the state directory is on it"
	is_thawed btrfs
}

@test "what repl-snap itself would have to wait for is not frozen" {
	fs=$ram/xfs
	run -6 repl-snap -s "$fs/state" --freeze --quiesce='echo quiesce >>log' "$fs"
	has "$output" "will not freeze the filesystem of '$fs': the state directory is on it, and who writes there while it is frozen cannot"
	logged
	run -6 repl-snap -s state --freeze -o "$fs/new" "$fs"
	has "$output" "the output is on it"
	run -6 bash -c 'repl-snap -s state --freeze "$1" >"$1/new"' - "$fs"
	has "$output" "the output is on it"
	run -6 bash -c 'repl-snap -s state --freeze "$1" 2>"$1/said" >new' - "$fs"
	has "$(cat "$fs/said")" "what standard error goes to is on it"
	is_thawed xfs
	# Of all that was frozen nothing stays so when one cannot be; what somebody else froze does.
	fsfreeze -f "$ram/ext4"
	run -1 repl-snap -s state --freeze --resume='echo resume >>log' a="$fs" b="$ram/ext4"
	fsfreeze -u "$ram/ext4"
	has "$output" "cannot freeze the filesystem of '$ram/ext4' (somebody else has frozen it)"
	logged resume
	is_thawed xfs
	run -1 repl-snap -s state --freeze a="$fs" b=/proc
	has "$output" "cannot freeze the filesystem of '/proc' (it is of a kind that cannot be frozen)"
	is_thawed xfs
}

@test "somebody who may not freeze is told so, and what was quiesced goes on" {
	run -1 setpriv --bounding-set=-sys_admin repl-snap -s state --freeze --quiesce='echo quiesce >>log' --resume='echo resume >>log' "$ram/xfs"
	has "$output" "cannot freeze the filesystem of '$ram/xfs' (only root may): Operation not permitted"
	logged quiesce resume
	is_thawed xfs
}

@test "what somebody else thawed meanwhile is said" {
	# Once it is frozen nothing else on it can be: freezing hangs until it is thawed.
	run -3 repl-snap -s state --freeze --freeze-limit=120s --quiesce="$(meanwhile 'fsfreeze -u ../ext4')" -o new a="$ram/ext4" b="$ram/inner"
	has "$output" "the image stands, but cannot thaw the filesystem of '$ram/ext4' (somebody else had thawed it)"
	is_thawed ext4 inner
}

# The text of a quiesce command that leaves something behind: once repl-snap waits in the kernel to freeze the filesystem inner, because
# ext4 is frozen, it does this, with repl-snap's number in $p.
meanwhile() {
	cat >later <<-'SH'
		p=$1
		# FIFREEZE (linux/fs.h); the numbers of the system calls differ. It waits where it has been before.
		freezes() { grep -qi '0xc0045877' "/proc/$p/syscall" 2>/dev/null && grep -q '^State:.D' "/proc/$p/status" 2>/dev/null; }
		waits=0
		while [ $waits -lt 5 ] && [ -d "/proc/$p" ]; do
			freezes && waits=$((waits + 1)) || waits=0
			sleep 0.01
		done
	SH
	printf '%s\n' "$1" >>later
	echo 'sh ./later $PPID >/dev/null 2>&1 &'
}

@test "killed while filesystems are frozen: they are thawed, and the applications go on" {
	for signal in KILL TERM; do
		: >log
		# It ends when it comes out of the kernel: with the filesystem inner frozen, which only the guard knows.
		run -$((128 + $(kill -l $signal))) repl-snap -s state --freeze --freeze-limit=120s \
			--quiesce="$(meanwhile "kill -$signal \$p; echo killed >>log; fsfreeze -u ../ext4")" --resume='echo resume >>log' a="$ram/ext4" b="$ram/inner"
		after_guard
		[[ $(sort log | xargs) == "killed resume" ]] || fail "$(cat log)"
		is_thawed ext4 inner
		touch "$ram/ext4/written" "$ram/inner/written"
	done
}

@test "what is frozen for too long is thawed though repl-snap hangs, and there is no image then" {
	repl-snap -s state plain >image
	repl-snap -s state --list | grep ^pending >was
	run -9 repl-snap -s state --freeze --freeze-limit=300ms --quiesce='echo quiesce >>log' --resume='echo resume >>log' -o new \
		a="$ram/ext4" b="$ram/inner"
	has "$output" "no image: filesystems were frozen for longer than 300 ms, and were thawed"
	logged quiesce resume
	[[ ! -e new ]]
	repl-snap -s state --list | grep ^pending | cmp - was
	is_thawed ext4 inner
	touch "$ram/ext4/written" "$ram/inner/written"
}

@test "options that do not go together" {
	for option in --quiesce=true --resume=true --freeze; do
		run -2 repl-snap -s state $option --list
		has "$output" "--quiesce, --resume and --freeze go with opening an image"
		run -2 repl-snap --digest $option plain
	done
	run -2 repl-snap -s state --crash-consistent plain
	has "$output" "--crash-consistent goes with --quiesce"
	run -2 repl-snap -s state --crash-consistent --list
	run -2 repl-snap -s state --quiesce=true --quiesce-timeout=soon plain
	# A time that is refused is refused before anything is asked to be still.
	run -2 repl-snap -s state --quiesce='echo quiesce >>log' --time=2999-01-01T00:00:00Z plain
	logged
}
