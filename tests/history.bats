#!/usr/bin/env bats
# Going back: the undo of each commit, --list, --rollback, --at, --keep.

load lib/setup
load lib/trees

setup() {
	common_setup
	cd "$BATS_TEST_TMPDIR" || return 1
}
teardown() { common_teardown; }

# One image of src on R; arguments go to repl-apply.
image() {
	repl-snap -s S --group=shop ${mark:+--bookmark "$mark"} ${time:+--time "$time"} src | repl-track -s S | repl-diff -s S |
		repl-apply "$@" R | repl-snap -s S --commit
}

# Four images v1 to v4, the third with a bookmark.
four_images() {
	small_tree src
	noise src/big 3000000
	time=2026-01-01T00:00:00Z image
	cp -a src v1
	change_tree src
	time=2026-01-02T00:00:00Z image
	cp -a src v2
	mkdir -p src/deep/er
	mv src/big src/deep/er/big
	printf 'in the middle' | dd of=src/deep/er/big bs=1 seek=1500000 conv=notrunc status=none
	mark='before the upgrade' time=2026-01-03T00:00:00Z image
	cp -a src v3
	rm -rf src/deep
	echo last >src/last
	time=2026-01-04T00:00:00Z image
	cp -a src v4
}

# bats test_tags=slow
@test "--list names the images that a replica holds, also as JSON" {
	four_images
	run -0 repl-apply --list R
	[[ ${#lines[@]} == 4 && ${lines[0]} == now*2026-01-04* && ${lines[1]} == -1*2026-01-03*"'before the upgrade'" ]]
	[[ ${lines[3]} == -3*2026-01-01* ]]
	run -0 repl-apply --list --json R
	python3 -c 'import json, sys
d = json.loads(sys.argv[1])
assert [x["back"] for x in d] == [0, 1, 2, 3]
assert all(x["image"]["group"] == "shop" and x["image"]["host"] for x in d)
assert d[1]["image"]["bookmark"] == "before the upgrade" and d[3]["bytes"] > 0
assert d[2]["image"]["time"] == "2026-01-02T00:00:00Z"' "$output"
	# What is kept are ordinary deltas.
	for u in R/.repl/history/*; do run -0 repl-show "$u"; done
}

@test "--rollback goes back by number, id, time and bookmark, and forward again" {
	four_images
	id=$(repl-apply --list R | awk '/^-3/ {print $2}')
	run -0 repl-apply --rollback=-2 R
	same_tree v2 R
	# What was undone is the nearest image now.
	run -0 repl-apply --rollback='before the upgrade' R
	same_tree v3 R
	run -0 repl-apply --rollback="${id:0:10}" R
	same_tree v1 R
	run -0 repl-apply --rollback=2026-01-04T12:00:00Z R
	same_tree v4 R
	run -0 repl-apply --rollback=2026-01-02T23:59:59Z R
	same_tree v2 R
	[[ $(repl-snap --digest R | repl-show - | sed -n 's/^end id=\([^ ]*\).*/\1/p') == "$(repl-apply --list R | awk '/^now/ {print $2}')" ]]
	for which in -9 2025-01-01T00:00:00Z nothing ffffffff; do
		run -2 repl-apply --rollback=$which R
		has "$output" "--list"
	done
	same_tree v2 R
}

# bats test_tags=slow
@test "after a rollback a delta from the later image is refused, with the way to go on" {
	four_images
	id=$(repl-apply --list R | awk '/^now/ {print $2}')
	run -0 repl-apply --rollback=-1 R
	echo more >src/more
	run -5 bash -c 'repl-snap -s S src | repl-track -s S | repl-diff -s S | tee delta | repl-apply R >ack'
	has "$output" "--rollback=${id:0:16}"
	same_tree v3 R
	run -0 repl-apply --rollback="${id:0:16}" R
	same_tree v4 R
	run -0 bash -c 'repl-apply R <delta | repl-snap -s S --commit'
	same_tree src R
}

@test "--at opens an earlier image beside the replica and leaves that alone" {
	four_images
	before=$(find R -not -path '*/.repl*' -printf '%P %i %T@ %C@\n' | sort)
	run -0 repl-apply --at=-3 --into X R
	same_tree v1 X
	run -0 repl-apply --at='before the upgrade' --into Y R
	same_tree v3 Y
	run -0 repl-apply --at=-0 --into Z R
	same_tree v4 Z
	[[ $(find R -not -path '*/.repl*' -printf '%P %i %T@ %C@\n' | sort) == "$before" ]]
	same_tree v4 R
	# It is a replica of its own.
	run -0 bash -c 'repl-diff v1 v2 | repl-apply X >ack'
	same_tree v2 X
	run -6 repl-apply --at=-1 --into Y R
	run -2 repl-apply --at=-1 R
	run -1 repl-apply --at=-1 --into W missing
	[[ ! -e missing && ! -e W ]]
}

# bats test_tags=slow
@test "--at shares extents where the filesystem can" {
	requires xfs
	at=$(mk_fs xfs 400M -m reflink=1)
	mkdir src
	noise src/big 100000000
	repl-diff src | repl-apply "$at/R" >ack
	used=$(df --output=used -k "$at" | tail -1)
	run -0 repl-apply --at=-0 --into "$at/X" "$at/R"
	same_tree src "$at/X"
	(($(df --output=used -k "$at" | tail -1) - used < 20000))
}

# bats test_tags=slow
@test "the way back of a few pages is these pages, where extents are shared" {
	requires xfs
	at=$(mk_fs xfs 400M -m reflink=1)
	mkdir src
	noise src/big 20000000
	pipe() { repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply "$at/R" | repl-snap -s S --commit; }
	pipe
	cp -a src old
	python3 - <<-'PY'
		with open("src/big", "r+b") as f:
		    for page in range(5, 4800, 400):
		        f.seek(page * 4096 + 100)
		        f.write(b"changed")
		    # The end moves, and with it a page that is none.
		    f.truncate(19990001)
	PY
	pipe
	same_tree src "$at/R"
	# 13 pages, the end that was cut off, and what a stream takes.
	(($(du -sb "$at/R/.repl/history" | cut -f1) < 13 * 4096 + 20000000 - 19990001 + 4096 + 2000))
	run -0 repl-apply --at=-1 --into "$at/X" "$at/R"
	same_tree old "$at/X"
	run -0 repl-apply --rollback=-1 "$at/R"
	same_tree old "$at/R"
	run -0 repl-apply --verify "$at/R"
	run -0 repl-apply --rollback=-1 "$at/R"
	same_tree src "$at/R"
}

@test "the way back of many pages apart is these pages, in blocks of any size, and refused when one was edited" {
	requires root ext4 xfs
	mkdir src
	noise src/big 24000100
	cp src/big was
	# 366 pages, and the short end: more than are read at a time.
	python3 - <<-'PY'
		import os
		with open("src/big", "r+b") as f:
		    for page in range(0, 24000100 // 4096, 16):
		        f.seek(page * 4096)
		        f.write(os.urandom(4096))
		    f.seek(-99, os.SEEK_END)
		    f.write(b"e" * 99)
	PY
	mv src/big is
	for fs in "$(mk_fs ext4 128M)" "$(mk_fs xfs 400M -m reflink=1)"; do
		for size in 4K 16K; do
			rm -rf S "$fs/R"
			pipe() { repl-snap -s S src | repl-diff -s S --block-size=$size | repl-apply "$fs/R" | repl-snap -s S --commit; }
			cp was src/big
			pipe
			cp is src/big
			pipe
			cmp is "$fs/R/big"
			n=$(du -sb "$fs/R/.repl/history" | cut -f1)
			((n < 368 * (4096 + 99) + 99999)) || fail "$fs, $size: $n"
			for want in was is was; do
				run -0 repl-apply --rollback=-1 "$fs/R"
				cmp $want "$fs/R/big"
				run -0 repl-apply --verify "$fs/R"
			done
			# What is no page of the image cannot be kept as one.
			printf x | dd of="$fs/R/big" bs=1 seek=$((608 * 4096 + 7)) conv=notrunc status=none
			cp "$fs/R/big" edited
			repl-apply --rollback=-1 "$fs/R" 2>said && fail "$fs, $size: it went on"
			cmp edited "$fs/R/big"
		done
	done
}

@test "the way back of content that moved within its file is that it moves back, not the content" {
	requires root ext4 xfs
	mkdir src
	noise src/big 9000000
	cp src/big was
	for fs in "$(mk_fs ext4 128M)" "$(mk_fs xfs 400M -m reflink=1)"; do
		cp was src/big
		rm -rf S
		pipe() { repl-snap -s S src | repl-diff -s S | repl-apply "$fs/R" | repl-snap -s S --commit; }
		pipe
		# Something comes in, two parts change places, one of them is there twice, and the end goes.
		python3 - <<-'PY'
			s = open("src/big", "rb").read()
			with open("src/big", "wb") as f:
			    f.write(s[:100000] + b"ten bytes." + s[100000:3000000] + s[5000000:6000000] + s[3000000:5000000] + s[5500000:8900001])
		PY
		cp src/big is
		pipe
		cmp src/big "$fs/R/big"
		(($(du -sb "$fs/R/.repl/history" | cut -f1) < 99999 + 12 * 16384)) || fail "$(du -sb "$fs/R/.repl/history")"
		run -0 repl-apply --at=-1 --into "$fs/X" "$fs/R"
		cmp was "$fs/X/big"
		for want in was is was; do
			run -0 repl-apply --rollback=-1 "$fs/R"
			cmp $want "$fs/R/big"
			run -0 repl-apply --verify "$fs/R"
		done
	done
}

# bats test_tags=slow
@test "on a btrfs subvolume the history is snapshots" {
	requires btrfs
	at=$(mk_fs btrfs 600M)
	btrfs -q subvolume create "$at/R" 2>/dev/null || btrfs subvolume create "$at/R"
	mkdir here
	ln -s "$at/R" R
	four_images
	for u in R/.repl/history/*; do [[ $(stat -c %i "$u") == 256 ]]; done
	# Each is the whole image, to be read by anybody.
	same_tree v3 "$(find -L R/.repl/history -mindepth 1 -maxdepth 1 | sort | tail -1)"
	run -0 repl-apply --rollback=-2 R
	same_tree v2 R
	run -0 repl-apply --rollback='before the upgrade' R
	same_tree v3 R
	run -0 repl-apply --rollback=2026-01-04T12:00:00Z R
	same_tree v4 R
	run -0 repl-apply --at=2026-01-01T12:00:00Z --into "$at/X" R
	same_tree v1 "$at/X"
	same_tree v4 R
	run -0 repl-apply --verify R || fail "$output"
	# What is not kept is removed, also from between.
	echo x >src/x
	time=2026-01-05T00:00:00Z image --keep=2
	[[ $(find -L R/.repl/history -mindepth 1 -maxdepth 1 | wc -l) == 2 ]] || fail "$(ls -la R/.repl/history)"
	# Nothing is left of a delta that is refused, or of one that was killed before it was decided.
	echo stray >R/y
	echo y >src/y
	repl-snap -s S src | repl-track -s S | repl-diff -s S >new.delta
	run -6 bash -c 'repl-apply R <new.delta >ack'
	[[ ! -e R/.repl/undo ]]
	rm R/y
	for n in 5 10 15 20 25 30; do
		bash -c "$REPL_BUILD/tests/lib/cut kill $n repl-apply R <new.delta >ack" || :
		run -0 repl-apply --status R
		[[ ! -e R/.repl/undo ]]
	done
	run -0 bash -c 'repl-apply R <new.delta >ack'
	same_tree src R
	# The stray that came and went left its mark on the time of the root: no reason not to go back.
	run -3 repl-apply --rollback=-1 R
	has "$output" "taken as it is"
	[[ ! -e R/y && -e R/x ]]
	run -0 repl-apply --rollback=-1 R
	same_tree src R
}

# bats test_tags=slow
@test "--keep bounds the history from its old end; 0 makes none" {
	small_tree src
	for i in {1..14}; do
		echo "$i" >src/count
		time=2026-01-$((10 + i))T00:00:00Z image
	done
	[[ $(repl-apply --list R | wc -l) == 11 ]]
	echo x >src/count
	time=2026-01-25T00:00:00Z image --keep=4
	[[ $(repl-apply --list R | wc -l) == 5 ]]
	echo y >src/count
	time=2026-01-26T00:00:00Z image --keep=48h
	[[ $(repl-apply --list R | tail -1) == -1*2026-01-25* ]]
	echo z >src/count
	time=2026-01-27T00:00:00Z image --keep=0
	[[ $(repl-apply --list R | wc -l) == 1 && -z $(ls R/.repl/history) ]]
	# Tiers: of images every 12 hours, the newest of each of the last 3 days, and of the last 2 weeks.
	rm -r R S
	for i in {1..22}; do
		echo "$i" >src/count
		time=@$((1700000000 + i * 43200)) image --keep=3d,2w
	done
	run -0 repl-apply --list R
	times=$(repl-apply --list --json R | python3 -c 'import json, sys
from datetime import datetime
at = [int(datetime.fromisoformat(x["image"]["time"].replace("Z", "+00:00")).timestamp()) for x in json.load(sys.stdin)]
now, rest = at[0], at[1:]
days = [t // 86400 for t in rest]
assert now == 1700000000 + 22 * 43200
# One a day for the days before today, as the newest; one more for the week before.
assert days[:2] == [now // 86400 - 1, now // 86400 - 2], days
assert len(rest) == 3 and rest[2] // 604800 == now // 604800 - 1, rest
print(*rest)')
	run -0 repl-apply --rollback=-3 R
	[[ $(stat -c %s R/count) -gt 0 && $(($(cat R/count) * 43200 + 1700000000)) == "${times##* }" ]]
	run -2 repl-apply --rollback=@$((1700000000 + 1 * 43200)) R
	for keep in x 3q -1 '' '1h,'; do
		run -2 bash -c "repl-apply --keep='$keep' R </dev/null"
	done
}

@test "what rotted is no way back: the delta is refused, or goes without" {
	requires ext4
	at=$(mk_fs ext4 200M)
	mkdir src
	noise src/big 300000
	repl-diff src | repl-apply "$at/R" >ack
	sync
	off=$(where .fs0.img src/big)
	umount "$at"
	printf XXXX | dd of=.fs0.img bs=1 seek=$((off + 100)) conv=notrunc status=none
	mount -o loop -t ext4 .fs0.img "$at"
	cp -a src old
	rm src/big
	repl-diff old src >new.delta
	run -6 bash -c "repl-apply $at/R <new.delta >ack"
	has "$output" "--verify"
	[[ -e $at/R/big && ! -e $at/R/.repl/undo ]]
	run -0 bash -c "repl-apply --keep=0 $at/R <new.delta >ack"
	same_tree src "$at/R"
}

@test "a rollback of several steps that is killed goes on by itself" {
	four_images
	# Killed after the first of three commits: the goal stands, the image in place is whole.
	run -0 repl-apply --rollback=-1 R
	python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))' "$(repl-apply --list R | awk '/^-3/ {print $2}')" >R/.repl/goal
	run -0 repl-apply --rollback=-0 R
	[[ ! -e R/.repl/goal ]]
	same_tree v1 R
}

# bats test_tags=slow
@test "--status tells the image, its age, and what was recovered" {
	small_tree src
	time=@$(($(date +%s) - 600)) image
	run -0 repl-apply --status R
	has "$output" "$(repl-apply --list R | awk '/^now/ {print $2}')"
	has "$output" "recovery nothing"
	age=$(sed -n 's/^age *\([0-9]*\) s/\1/p' <<<"$output")
	((age >= 600 && age < 3600))
	run -0 repl-apply --status --max-age 1h R
	run -5 --separate-stderr repl-apply --status --json --max-age 9m R
	python3 -c 'import json, sys; d = json.loads(sys.argv[1]); assert d["age"] >= 600 and d["recovered"] == "nothing"' "$output"
	# Killed before and after the decision.
	cut=$REPL_BUILD/tests/lib/cut
	echo more >src/more
	repl-snap -s S src | repl-track -s S | repl-diff -s S >new.delta
	cp -a R was
	seen=
	for n in $(seq 1 80); do
		rm -rf R
		cp -a was R
		bash -c "$cut kill $n repl-apply R <new.delta >ack" || :
		[[ -e R/.repl/commit ]] && want=finished || want=discarded
		[[ -e R/.repl/commit || -e R/.repl/plan ]] || want=nothing
		if ((n % 3 == 0)) && [[ $want == finished ]]; then
			run -0 repl-apply --list R
			[[ ! -e R/.repl/commit ]]
			same_tree src R
			continue
		fi
		run -0 repl-apply --status R
		has "$output" "recovery $want"
		[[ $seen == *$want* ]] || seen+=" $want"
		[[ $seen != *discarded*finished* ]] || break
	done
	has "$seen" "finished"
	same_tree src R
}

# bats test_tags=slow
@test "who goes to and fro loses no image by it, and gathers no undos without end" {
	local n ids listed
	mkdir src
	for n in {1..9}; do
		echo "$n" >src/n
		image --keep=9
	done
	mapfile -t ids < <(repl-apply --list R | awk '{ print $4, $2 }' | sort -n | cut -d' ' -f2)
	for n in 9 2 8 1 7 5 1 9 5; do
		repl-apply --rollback="${ids[n - 1]}" R >ack
		[[ $(cat R/n) == "$n" ]]
		[[ $(repl-apply --list R | wc -l) == 9 ]] || fail "at $n: $(repl-apply --list R)"
	done
	# One there and one back between neighbours at most.
	(($(find -L R/.repl/history -mindepth 1 -maxdepth 1 | wc -l) <= 16))
	repl-apply --verify R
	# What is too much goes with the next delta, counted in images.
	repl-snap -s S --digest R >now.img
	rm -rf S2
	echo more >src/n
	repl-diff now.img src | repl-apply --keep=4 R >ack
	listed=$(repl-apply --list R | awk '{ print $2 }' | sed 1d)
	[[ $(wc -l <<<"$listed") == 4 && $(head -1 <<<"$listed") == "${ids[4]}" ]]
	for n in 1 2 3 4; do
		repl-apply --at=-"$n" --into="at$n" R
		id=$(sed -n "${n}p" <<<"$listed")
		[[ $(repl-apply --list "at$n" | awk '{ print $2 }') == "$id" ]]
	done
	# Unless --keep says so.
	repl-apply --rollback=-1 --keep=1 R >ack
	[[ $(repl-apply --list R | wc -l) == 2 ]]
}

@test "what no way leads to is not listed, and told to whoever asks for it" {
	four_images
	id=$(repl-apply --list R | awk '/^-3/ {print $2}')
	echo mine >R/last
	echo new >src/last
	time=2026-01-05T00:00:00Z image --edited=overrule
	same_tree src R
	run -0 repl-apply --list R
	[[ ${#lines[@]} == 1 && ${lines[0]} == now*2026-01-05* ]]
	run -6 repl-apply --rollback="$id" R
	has "$output" "there is no way to image '$id' any more"
	run -6 repl-apply --at='before the upgrade' --into=at R
	run -2 repl-apply --rollback=-1 R
	run -2 repl-apply --rollback=2026-01-02T00:00:00Z R
	same_tree src R
	# From here on there is one again.
	cp -a src v5
	echo newer >src/last
	time=2026-01-06T00:00:00Z image
	[[ $(repl-apply --list R | wc -l) == 2 ]]
	run -0 repl-apply --rollback=-1 R
	same_tree v5 R
}
