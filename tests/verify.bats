#!/usr/bin/env bats
# Verifying a replica, mending it from the source, and what becomes of local edits that a delta meets.

load lib/setup
load lib/trees

# A source with a state, and a replica of it that is up to date.
pair() {
	small_tree src
	mkdir -p src/going/deep
	echo a >src/going/a
	echo b >src/going/deep/b
	for n in 1 2 3 4 5 6; do echo "old $n" >"src/file $n"; done
	run_line
}

# The cron job.
run_line() {
	run_pipe "repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-pack | repl-apply R | repl-snap -s S --commit"
}

mend() {
	run_pipe "repl-apply --verify -q --wanted R | repl-diff -s S | repl-pack | repl-apply R | repl-snap -s S --commit"
}

# The words and paths that verify prints for R, without the rest, in the file found.
findings() {
	run -10 --separate-stderr repl-apply --verify "$1"
	[[ -z $output ]]
	sed -E "s/^repl-apply: ([a-z]+) '([^']*)'.*/\1 \2/" <<<"$stderr" >found
}

is_clean() {
	run -0 repl-apply --verify "$1"
	[[ -z $output ]] || fail "$output"
}

damage() {
	printf X | dd of="$1/home/ada/photo" bs=1 seek=70000 conv=notrunc status=none
	echo edited >>"$1/etc/app/config"
	rm "$1/home/ada/photo2"
	rm -r "$1/going"
	mkdir "$1/mine"
	echo m >"$1/mine/m"
	chmod 600 "$1/etc/app/nothing"
	rm "$1/dangling"
	mkdir "$1/dangling"
	echo in >"$1/dangling/in"
	rm -r "$1/empty"
	ln -s /etc "$1/empty"
	cp -p "$1/file 1" copy
	ln "$1/file 2" "$1/etc/further name"
	mkfifo "$1/home/pipe"
}

# bats test_tags=slow
@test "a fresh replica verifies, whatever is in the tree, as it was made and after deltas" {
	requires root
	rich_tree src
	rm src/sparse/huge # an image file has digests for each block of its hole
	small_tree src/small
	repl-diff src | repl-apply R >ack
	is_clean R
	repl-snap --digest R >theirs.img
	change_tree src/small
	repl-diff theirs.img src | repl-apply R >ack
	is_clean R
	run -0 repl-apply --verify --stats -T 1 R
	has "$output" "files:"
}

@test "each difference is named, in order, and the status is 10" {
	requires root
	pair
	is_clean R
	damage R
	findings R
	diff - found <<-'END'
		metadata .
		edited dangling
		edited empty
		metadata etc
		edited etc/app/config
		metadata etc/app/nothing
		stray etc/further name
		missing going
		metadata home
		metadata home/ada
		edited home/ada/photo
		missing home/ada/photo2
		stray home/pipe
		stray mine
	END
	# The same on one thread, and nothing was changed by looking.
	said=$stderr
	run -10 --separate-stderr repl-apply --verify -T 1 R
	[[ $stderr == "$said" ]]
	run -10 repl-apply --verify -q R
	[[ -z $output ]]
}

# bats test_tags=slow
@test "rot is told from an edit by the inode: bytes that change below the filesystem, on ext4 and XFS" {
	n=0
	for type in ext4 xfs; do
		requires $type
		at=$(mk_fs $type 300M)
		img=.fs$n.img
		n=$((n + 1))
		rm -rf src
		mkdir src
		noise src/rots 300000
		noise src/edited 300000 2
		repl-diff src | repl-apply "$at/R" >ack
		is_clean "$at/R"
		sync
		off=$(where $img src/rots)
		((off > 0))
		# An edit that takes care to keep the time.
		touch -r "$at/R/edited" time
		printf X | dd of="$at/R/edited" bs=1 seek=5000 conv=notrunc status=none
		touch -r time "$at/R/edited"
		umount "$at"
		printf XXXX | dd of=$img bs=1 seek=$((off + 100)) conv=notrunc status=none
		mount -o loop -t $type $img "$at"
		findings "$at/R"
		diff found <(printf '%s\n' 'edited edited' 'rot rots')
		has "$stderr" "its time was set back"
		has "$stderr" "nothing wrote to it"
	done
}

@test "what btrfs refuses to read is rot" {
	requires btrfs
	at=$(mk_fs btrfs 300M -m single -d single)
	mkdir src
	noise src/rots 300000
	noise src/well 300000 2
	repl-diff src | repl-apply "$at/R" >ack
	sync
	off=$(where .fs0.img src/rots)
	((off > 0))
	umount "$at"
	printf 'XXXX' | dd of=.fs0.img bs=1 seek="$off" conv=notrunc status=none
	mount -o loop -t btrfs .fs0.img "$at"
	findings "$at/R"
	diff found <(echo 'rot rots')
	has "$stderr" "cannot be read: Input/output error"
}

# bats test_tags=slow
@test "the source mends exactly what is wrong, over ssh, and the state goes on" {
	requires root
	start_sshd
	pair
	damage R
	echo "not wanted" >>"src/file 3"
	touch -r "R/file 3" time
	run -0 --separate-stderr run_pipe "'${SSH[0]}' ${SSH[*]:1} repl-apply --verify --wanted $PWD/R 2>wrong |
		repl-diff -s S | repl-pack | '${SSH[0]}' ${SSH[*]:1} repl-apply -i $PWD/R >answer 2>items"
	[[ $(wc -l <wrong) == 14 ]]
	is_clean R
	# What is wrong nowhere is not sent, though it changed here.
	run ! grep -q 'file 3' items
	echo "old 3" | cmp - "R/file 3"
	grep -q 'deleting.*mine' items
	# The pipeline had no --commit at its end.
	run_line
	same_tree src R
	is_clean R
	has "$(repl-snap -s S --list)" "pending  none"
}

@test "a delta that mends leads from an image to the same image" {
	requires root
	pair
	damage R
	repl-apply --verify -q --wanted R >wanted
	repl-diff -s S <wanted >delta.rpl
	base=$(repl-show --json delta.rpl | python3 -c '
import json, sys
r = {x["record"]: x for x in map(json.loads, sys.stdin)}
assert r["delta"]["base"] == r["end"]["id"], r
print(r["end"]["id"])')
	repl-show delta.rpl >shown
	run ! grep -q 'flags=patch' shown
	run ! grep -q '^copy' shown
	has "$(repl-snap -s S --list)" "$base"
	# A dry run says what it would do, and does not.
	run -0 repl-apply -n R <delta.rpl
	has "$output" "*deleting   mine"
	[[ -e R/mine ]]
	repl-apply R <delta.rpl >ack
	same_tree src R
	# Mending what is right does nothing wrong.
	repl-apply R <delta.rpl >ack
	same_tree src R
	is_clean R
	repl-snap -s S --commit <ack
	run_line
}

# bats test_tags=slow
@test "mending with hints from an image file instead of a state" {
	requires root
	pair
	damage R
	repl-apply --verify -q --wanted R >wanted
	repl-snap --digest R >theirs.img
	repl-diff --wanted=wanted theirs.img src | repl-apply R >ack
	same_tree src R
	is_clean R
	run -2 repl-diff --wanted=wanted src
	# Words about another image are refused.
	echo x >src/x
	repl-snap --digest src >other.img
	run -5 --separate-stderr bash -c 'repl-diff --wanted=wanted other.img src >delta.rpl'
	has "$stderr" "verify again"
}

# bats test_tags=slow
@test "what changed at the source meanwhile comes as it is now, and what moved is found" {
	requires root
	pair
	damage R
	echo newer >>src/etc/app/config
	mv src/going src/moved
	rm src/home/ada/photo
	mkdir src/mine
	echo theirs >src/mine/t
	mend
	is_clean R
	run_line
	same_tree src R
	is_clean R
	has "$(repl-snap -s S --list)" "pending  none"
}

# bats test_tags=slow
@test "an answer that is lost after mending costs one run" {
	requires root
	pair
	damage R
	echo newer >>src/etc/app/config
	run_pipe 'repl-apply --verify -q --wanted R | repl-diff -s S | repl-apply R >/dev/null'
	run run_line
	[[ $status == 0 || $status == 5 ]]
	run_line
	same_tree src R
	has "$(repl-snap -s S --list)" "pending  none"
}

# bats test_tags=slow
@test "mending works for several members, and for a wide tree that is gone" {
	mkdir one two
	for n in $(seq 500); do echo "$n" >"one/$n"; done
	echo t >two/t
	line='repl-snap -s S one two=two | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
	run_pipe "$line"
	rm -r R/one
	echo x >R/two/t
	mend
	same_tree one R/one
	same_tree two R/two
	is_clean R
	run_pipe "$line"
}

# bats test_tags=slow
@test "links that stand apart, or too close together, are put right" {
	pair
	rm "R/home/ada/same photo"
	cp -p R/home/ada/photo2 "R/home/ada/same photo"
	ln -f "R/file 1" "R/file 2"
	run -10 repl-apply --verify R
	mend
	same_tree src R
	is_clean R
}

# bats test_tags=slow
@test "a crash in the middle of mending is finished by whoever comes next" {
	requires root strace
	pair
	damage R
	cp -a R before
	repl-apply --verify -q --wanted R >wanted
	repl-diff -s S <wanted >delta.rpl
	# Killed at each of the renames that landing makes, until it makes no more.
	for ((n = 1; n < 60; n++)); do
		rm -rf R
		cp -a before R
		ASAN_OPTIONS=detect_leaks=0 strace -f -o /dev/null -e trace=renameat -e inject=renameat:signal=KILL:when=$n \
			repl-apply R <delta.rpl >ack 2>err && break
		if [[ -e R/.repl/commit ]]; then
			run -0 repl-apply --verify R
		else
			repl-apply R <delta.rpl >ack
		fi
		same_tree src R || fail "killed at rename $n"
		is_clean R
	done
	((n > 10 && n < 60)) || fail "killed at $n renames"
}

@test "metadata that this user cannot keep is not told every time" {
	requires root setpriv
	pair
	chown -R 12:13 src/etc
	rm -rf R S
	mkdir R
	chown 1234:1234 R
	repl-diff src >full
	run -3 bash -c 'setpriv --reuid 1234 --regid 1234 --clear-groups repl-apply R <full >ack'
	run -0 setpriv --reuid 1234 --regid 1234 --clear-groups repl-apply --verify R
	[[ -z $output ]]
	run -0 repl-apply --verify --stats R
	has "$output" "kept otherwise"
	# Somebody who does change it is told.
	chmod 777 R/etc/app/config
	findings R
	diff found <(echo 'metadata etc/app/config')
	rm -rf Q
	run -0 bash -c 'repl-apply --no-owner Q <full >ack'
	is_clean Q
}

@test "nobody applies while a replica is verified, nor verifies while one is applied" {
	mkdir src
	echo a >src/a
	repl-diff src >delta.rpl
	repl-apply R <delta.rpl >ack
	exec 7<R/.repl/lock
	flock -s 7
	run -0 repl-apply --verify R
	run -8 bash -c 'repl-apply R <delta.rpl >ack'
	has "$output" "is being read"
	flock -u 7
	flock -x 7
	run -8 repl-apply --verify R
	exec 7<&-
	mkdir empty
	run -6 repl-apply --verify empty
	[[ -z $(ls -A empty) ]]
	run -2 repl-apply --wanted R
}

@test "edits that a delta meets are all refused together, put aside, or overruled" {
	pair
	for n in 1 2 3 4 5 6; do
		echo "new $n" >"src/file $n"
		echo "mine $n" >"R/file $n"
	done
	rm -r src/going "src/file 6"
	echo mine >R/going/deep/mine
	echo more >>R/going/a
	echo mine >R/fresh
	echo theirs >src/fresh
	cp -a R before
	repl-snap -s S src | repl-diff -s S >delta.rpl
	run -6 --separate-stderr bash -c 'repl-apply R <delta.rpl >ack'
	has "$stderr" "and 5 more"
	has "$stderr" "--edited=keep"
	[[ ! -e R/.repl/edits ]]
	same_tree before R
	run -2 bash -c 'repl-apply --edited=maybe R <delta.rpl >ack'

	run -0 --separate-stderr bash -c 'repl-apply --edited=keep R <delta.rpl >ack'
	same_tree src R
	is_clean R
	[[ ${#stderr_lines[@]} == 9 ]]
	aside=$(echo R/.repl/aside/*)
	has "$stderr" "'going/deep/mine' was edited here; it is now '$aside/going/deep/mine'"
	(cd "$aside" && find . -type f | sort) | diff - <(printf './%s\n' 'file '{1..6} fresh going/a going/deep/mine)
	[[ $(cat "$aside/file 3") == "mine 3" && $(cat "$aside/fresh") == mine ]]
	repl-snap -s S --commit <ack

	rm -rf R
	mv before R
	run -0 --separate-stderr bash -c 'repl-apply --edited=overrule R <delta.rpl >ack'
	[[ -z $stderr ]]
	same_tree src R
	is_clean R
	[[ ! -e R/.repl/aside ]]
}

@test "a stray name in a group, in a directory that is long settled, goes" {
	local line="repl-snap -s S one two | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit"
	mkdir -p one/d/e two
	echo 1 >one/d/e/f
	run_pipe "$line"
	sleep .1 # what is older than a tick of the clock is not looked at for its own sake
	run_pipe "$line"
	for dir in one/d one two/new; do
		mkdir -p "R/$dir"
		echo mine >"R/$dir/mine"
		mend
		repl-apply --verify R
	done
	same_tree one R/one
	same_tree two R/two
}

@test "an edit that the delta has only changes to needs mending first" {
	pair
	printf X | dd of=src/home/ada/photo bs=1 seek=100000 conv=notrunc status=none
	printf Y | dd of=R/home/ada/photo bs=1 seek=10 conv=notrunc status=none
	for mode in refuse keep overrule; do
		run -6 run_pipe "repl-snap -s S src | repl-diff -s S | repl-apply --edited=$mode R"
		has "$output" "mend it first"
	done
	mend
	run_line
	same_tree src R
	is_clean R
}

@test "an edit that keeps size and time is met all the same, and a copied replica is none" {
	pair
	cp -a R copy
	touch -r "R/file 1" time
	echo "odd 1" >"R/file 1"
	touch -r time "R/file 1"
	echo "new 1" >"src/file 1"
	printf X | dd of=src/home/ada/photo bs=1 seek=100000 conv=notrunc status=none
	repl-snap -s S src | repl-diff -s S >delta.rpl
	run -6 --separate-stderr bash -c 'repl-apply R <delta.rpl >ack'
	has "$stderr" "'file 1'"
	# Other inodes, other ctimes, the same content.
	run -0 bash -c 'repl-apply copy <delta.rpl >ack'
	same_tree src copy
}

@test "what was edited in the way of a name that moves is replaced, and stands under the new one" {
	mkdir -p src/d/e
	for n in alone both link gone; do echo "old $n" >src/$n; done
	ln src/both src/d/both
	ln -s old src/sym
	run_line
	cp -a R edited
	# Each gets another name and other content; in the replica something else stands there, or nothing.
	for n in alone both link gone; do
		mv src/$n src/d/$n.new
		echo "new $n" >src/d/$n.new
	done
	ln src/d/both.new src/d/e/both
	mv src/sym src/d/sym
	mv src/d/e src/e
	mkdir -p src/e/in/it
	repl-snap -s S src | repl-track -s S | repl-diff -s S >delta.rpl
	for word in keep overrule; do
		rm -rf R
		cp -a edited R
		for n in alone both; do
			rm R/$n
			mkdir R/$n
			echo mine >R/$n/mine
		done
		rm R/gone R/d/both
		mkdir R/d/both
		echo edited >R/link
		run -0 bash -c "repl-apply --edited=$word R <delta.rpl >ack"
		same_tree src R
	done
	repl-apply R <delta.rpl | repl-snap -s S --commit
	# The same while it is mended: here directories are files, and files directories.
	rm -r R/e R/d/alone.new R/d/both.new R/d/sym
	echo file >R/e
	mkdir R/d/alone.new R/d/both.new R/d/sym
	repl-apply --verify -q --wanted R >wanted
	mv src/e/in src/d/in
	mv src/e src/f
	mkdir src/f/below
	mv src/d/both.new src/f/below/both
	mv src/d/alone.new src/d/alone
	mv src/d/sym src/f/sym
	run_pipe "repl-diff -s S <wanted | repl-apply R >ack"
	run_line
	same_tree src R
	is_clean R
}

@test "metadata that was edited is put right also where a delta does nothing but move or link the file" {
	requires root
	for n in moved linked stays; do echo "$n" >src-$n; done
	mkdir -p src/d
	mv src-moved src/moved && mv src-linked src/linked && mv src-stays src/stays
	run_line
	for n in moved linked stays; do
		setfattr -n user.mine -v 1 R/$n
		touch -r src/$n R/$n
	done
	mv src/moved src/d/moved
	ln src/linked src/d/linked
	run_line
	rm src/d/linked
	[[ ! $(getfattr -d R/d/moved R/linked) ]]
	# What no delta touched is told.
	findings R
	[[ $(<found) == "metadata stays" ]]
	chmod 600 R/linked
	run_line
	findings R
	[[ $(sort found | tr '\n' ' ') == "metadata linked metadata stays " ]]
	mend
	run_line
	same_tree src R
}

@test "what is removed while a delta lands is told, and the delta comes to its end" {
	mkdir -p src/d
	for n in 1 2 3; do
		head -c 3000000 /dev/urandom >src/large$n
		echo "$n" >src/small$n
	done
	run_line
	for n in 1 2 3; do
		mv src/large$n src/d/large$n
		printf changed | dd of=src/d/large$n bs=1 seek=1000000 conv=notrunc status=none
		mv src/small$n src/d/small$n
		chmod 600 src/d/small$n
	done
	repl-snap -s S src | repl-track -s S | repl-diff -s S >delta.rpl
	# It is decided, and nothing is placed yet.
	mv R fresh
	for ((n = 20; ; n += 4)); do
		rm -rf R
		cp -a fresh R
		bash -c "$REPL_BUILD/tests/lib/cut kill $n repl-apply R <delta.rpl >ack" 2>err || :
		[[ ! -e R/.repl/detached ]] || break
		((n < 400))
	done
	cp -a R decided
	for gone in R/.repl/slots/small1 R/.repl/slots R/d; do
		rm -rf R
		cp -a decided R
		case $gone in
		*/small1) find R/.repl/slots -size -2k -type f -exec grep -qx 1 {} \; -delete ;;
		*/slots) rm R/.repl/slots/* ;;
		*) rm -r R/d ;;
		esac
		run -3 bash -c 'repl-apply R <delta.rpl >ack'
		has "$output" "is gone from the replica: repl-apply --verify tells what is missing"
		run -10 repl-apply --verify R
		has "$output" "missing 'd"
	done
	run -3 bash -c 'repl-snap -s S --commit <ack'
	mend
	run_line
	same_tree src R
	is_clean R
	# Before it is decided, it is refused.
	ln src/d/small2 src/linked
	rm R/d/small2
	repl-snap -s S src | repl-diff -s S >delta.rpl
	run -6 bash -c 'repl-apply R <delta.rpl >ack'
	has "$output" "'d/small2'"
	mend
	run_line
	same_tree src R
}

# bats test_tags=slow
@test "what was decided about edits survives a crash" {
	requires strace
	pair
	rm -r src/going
	echo mine >R/going/mine
	echo mine >R/fresh
	echo theirs >src/fresh
	repl-snap -s S src | repl-diff -s S >delta.rpl
	cp -a R before
	for ((n = 1; n < 40; n++)); do
		rm -rf R
		cp -a before R
		ASAN_OPTIONS=detect_leaks=0 strace -f -o /dev/null -e trace=renameat -e inject=renameat:signal=KILL:when=$n \
			repl-apply --edited=keep R <delta.rpl >ack 2>err && break
		# The next run has no such option, and no need for it once it is decided.
		if [[ -e R/.repl/commit ]]; then
			run -0 repl-apply --verify R
		else
			same_tree before R
			repl-apply --edited=keep R <delta.rpl >ack
		fi
		same_tree src R || fail "killed at rename $n"
		[[ $(cat R/.repl/aside/*/going/mine R/.repl/aside/*/fresh) == $'mine\nmine' ]] || fail "killed at rename $n"
	done
	((n > 3 && n < 40)) || fail "killed at $n renames"
}
