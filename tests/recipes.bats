#!/usr/bin/env bats
# The examples in the manual pages are run, as they stand there. Only paths are put below the test's folder, and ssh is a
# script that runs the command here.

load lib/setup

setup() {
	common_setup
	mkdir bin
	printf '#!/bin/sh\nwhile [ "$1" = -o ]; do shift 2; done\nshift\nexec sh -c "$*"\n' >bin/ssh
	chmod +x bin/ssh
	PATH=$PWD/bin:$PATH
	unset S
	export S=$PWD/state
}

# Literal blocks of a page as the files block.1, block.2, ...; the words for paths become ours.
blocks() {
	awk '/^\.Bd -literal/ { f = "block." ++n; next } /^\.Ed/ { f = "" } f { print > f }' "$repl_root/man/$1"
	sed -i -e 's/\\e/\\/g; s/\\&//g' \
		-e "s,/var/lib/repl/dr,$PWD/state,g; s,/var/lib/repl/journal,$PWD/journal,g; s,/var/lib/db,$PWD/db,g; s,/srv/www,$PWD/www,g" \
		-e "s,/srv,$PWD/srv,g; s,/run/still,$PWD/still,g; s,/replica,$PWD/replica,g" block.*
}

# What the examples take for granted: trees; when the replica exists already, it has an older image, theirs.img says which,
# and delta.rpl leads from there to the present.
scene() {
	local i
	rm -rf srv www db old new state replica ./*.rpl ./*.img
	mkdir srv www db old new
	for i in {1..30}; do
		head -c $((i * 1000)) /dev/urandom >"srv/file $i"
	done
	echo w >www/w
	echo d >db/d
	echo o >old/a
	echo n >new/a
	[[ -z $1 ]] || repl-diff srv | repl-apply replica >first.rpl
	if [[ $1 == with-replica ]]; then
		repl-snap --digest replica >theirs.img
		rm "srv/file 7"
		mv "srv/file 8" "srv/moved"
		echo new >srv/new
	fi
	if [[ $1 == damaged || $1 == stamped ]]; then
		rm -rf replica
		run_pipe "repl-snap -s $S srv | repl-diff -s $S | repl-apply replica | repl-snap -s $S --commit"
	fi
	if [[ $1 == damaged ]]; then
		echo edited >"replica/file 3"
		rm "replica/file 4"
		echo stray >replica/stray
	fi
	[[ $1 != verified && $1 != damaged && $1 != stamped ]] || return 0
	repl-diff ${1:+theirs.img} srv | repl-pack -o delta.rpl
	repl-diff srv | repl-pack -o full.rpl
}

# A first run of which only a part arrived.
scene_broken() {
	scene ''
	repl-snap -s "$S" srv | repl-track -s "$S" | repl-diff -s "$S" >delta.rpl
	head -c 200000 delta.rpl | repl-apply replica || [[ $? == 4 ]]
}

# One that arrived, without its answer.
scene_unanswered() {
	scene ''
	repl-snap -s "$S" srv | repl-track -s "$S" | repl-diff -s "$S" | repl-apply replica >answer.rpl
}

# with_recorder LINE COMMAND...: LINE is a daemon: it runs until it is asked to stop.
with_recorder() {
	local deadline=$((SECONDS + 120)) status=0 recorder
	scene ''
	bash -c "exec $1" 3>&- &
	recorder=$!
	until repl-track -j journal --cut >"cut"; do
		((SECONDS < deadline)) || fail "no recorder after two minutes"
		sleep 0.05
	done
	echo new >srv/new
	run -0 "${@:2}"
	kill $recorder
	wait $recorder || status=$?
	((status == 143)) || fail "the recorder ended with $status"
}

# with_two SCRIPT: there is another machine's recorder as well.
with_two() {
	local deadline=$((SECONDS + 120)) second
	repl-track -j theirs --record srv 3>&- &
	second=$!
	until repl-track -j theirs --cut >place; do
		((SECONDS < deadline)) || fail "no recorder after two minutes"
		sleep 0.05
	done
	cp place before
	bash -e "$1"
	bash -e "$1"
	run ! cmp place before
	same_tree srv replica
	kill "$second"
	wait "$second" || :
}

# with_loop SCRIPT: it goes on for ever; what changes meanwhile arrives.
with_loop() {
	local deadline=$((SECONDS + 120)) loop recorder
	repl-track -j journal --record srv 3>&- &
	recorder=$!
	until repl-track -j journal --cut >"cut"; do
		((SECONDS < deadline)) || fail "no recorder after two minutes"
		sleep 0.05
	done
	repl-track -s "$S" -j journal --wait --interval=1ms
	# The quarter of an hour of the page is over at once.
	sed -i 's/--wait /--wait --interval=100ms /' "$1"
	setsid bash "$1" 3>&- &
	loop=$!
	echo new >srv/new
	until same_tree srv replica 2>/dev/null >&2; do
		((SECONDS < deadline)) || fail "it did not arrive within two minutes"
		sleep 0.05
	done
	until [[ $(repl-snap -s "$S" --list) == *"pending  none"* ]]; do
		((SECONDS < deadline)) || fail "no answer within two minutes"
		sleep 0.05
	done
	kill -- "-$loop" "$recorder"
	wait "$loop" "$recorder" || :
}

run_block() {
	local b=$1 text want=0
	# A line of crontab(5).
	sed -i 's,^\*/5 \* \* \* \* root ,,' "$b"
	text=$(cat "$b")
	case $text in
	command=*) return 0 ;; # a line of authorized_keys
	'root = '*) # a policy, for the blocks that follow it
		scene ''
		mkdir -m 700 "$S"
		cp "$b" "$S/policy"
		return
		;;
	*--record*)
		with_recorder "$text" true
		return
		;;
	*--merge*)
		with_recorder "repl-track -j journal --record srv" with_two "$b"
		return
		;;
	*--cut*)
		with_recorder "repl-track -j journal --record srv" bash -e "$b"
		has "$output" "name='new'"
		return
		;;
	esac
	case $text in
	*--follow* | *--wait*)
		scene stamped
		rm -rf journal
		with_loop "$b"
		return
		;;
	*--rollback* | *--restore-meta*) scene with-replica && repl-apply replica <delta.rpl >ack ;;
	*--quiesce=*) scene '' ;;
	*--freeze*)
		[[ $(id -u) == 0 ]] && can_mount ext4 || return 0
		# Not that of the state.
		scene ''
		sed -i "s,$PWD/srv,$(mk_fs ext4 32M)," "$b"
		;;
	*disk=*)
		scene ''
		sed -i "s,/etc,$PWD/srv,; s,/var/lib/vm/disk.img,$PWD/srv/disk," "$b"
		head -c 300000 /dev/urandom >srv/disk
		;;
	*'repl-pack -s $S' | 'repl-pack -s $S --dequeue '*) ;; # they go on with what the block before them left
	*--resume=*) scene_broken ;;
	*--ack*) scene_unanswered ;;
	*'-o delta.rpl'*) scene '' ;;
	*--wanted*) scene damaged ;;
	*--verify*) scene verified ;;
	*--status*) scene stamped ;;
	*theirs.img* | *--digest* | *delta.rpl*) scene with-replica ;;
	*) scene '' ;;
	esac
	# What it writes itself is not there before.
	[[ $text != *'-o delta.rpl'* ]] || rm delta.rpl
	[[ $text != *'-o full.rpl'* ]] || rm full.rpl
	[[ $text != *'--exit-code old new'* ]] || want=10
	run -$want bash -e -o pipefail "$b" || fail "$output"
	echo "ran: $text"
	case $text in
	*'repl-apply -n '* | *--rollback*) run ! same_tree srv replica ;;
	*www=*) same_tree www replica/www && same_tree db replica/data ;;
	*disk=*) same_tree srv replica/etc && cmp srv/disk replica/disk ;;
	*repl-apply*) same_tree srv replica ;;
	esac
	case $text in
	*--commit*) has "$(repl-snap -s "$S" --list)" "pending  none" ;;
	esac
}

# The pages have that many blocks; one that vanishes shall not go unnoticed.
run_page() {
	local n=0 b
	blocks "$1"
	for b in block.*; do
		run_block "$b"
		n=$((n + 1))
	done
	[[ $n == "$2" ]] || fail "$1 has $n examples, not $2"
}

@test "the recipes of repl(7) do what they say" {
	run_page repl.7 28
}

@test "the examples of repl-snap(1) work" {
	run_page repl-snap.1 5
}

@test "the examples of repl-track(1) work" {
	run_page repl-track.1 7
}

@test "the examples of repl-diff(1) work" {
	run_page repl-diff.1 3
}

@test "the examples of repl-pack(1) work" {
	run_page repl-pack.1 4
}

@test "the examples of repl-apply(1) work, and its line for authorized_keys has options that exist" {
	run_page repl-apply.1 8
	blocks repl-apply.1
	command=$(sed -n 's/^command="\([^"]*\)".*/\1/p' block.*)
	[[ $command == repl-apply* ]]
	scene ''
	run -0 bash -c "$command <full.rpl >answer"
	same_tree srv replica
}

@test "the examples of repl-show(1) work" {
	run_page repl-show.1 3
}
