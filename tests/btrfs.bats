#!/usr/bin/env bats
# Images that are btrfs snapshots: one instant whoever writes meanwhile; those that are kept, those that go, and none that is leaked.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup

setup_file() {
	requires root btrfs
	# In memory: each image tells the filesystem several times to write to the disk.
	local ram=$BATS_FILE_TMPDIR/ram
	mkdir "$ram"
	mount -t tmpfs -o size=2G tmpfs "$ram"
	echo "$ram" >>"$(undo_dir)/.mounts"
	mkdir "$ram/fs"
	truncate -s 1G "$ram/img"
	mkfs.btrfs -q -m single "$ram/img"
	mount -o loop,noatime "$ram/img" "$ram/fs"
	echo "$ram/fs" >>"$(undo_dir)/.mounts"
}

setup() {
	common_setup
	cd "$(mktemp -d "$BATS_FILE_TMPDIR/ram/fs/XXXXXX")" || return 1
	subvolume src
}

subvolume() { btrfs -q subvolume create "$1"; }

snap() { repl-snap -v -s state "$@" src; }

# The rest of the pipeline, for the image in the file image; what is printed goes to said. $read: what repl-diff read.
ship() {
	run_pipe "repl-track -v -s state <image 2>said >changes && repl-diff -v -s state <changes 2>>said >delta &&
		repl-apply replica <delta 2>>said | repl-snap -s state --commit" || fail "$(cat said)"
	read=$(sed -n 's/^repl-diff: read \([0-9]*\) of .*/\1/p' said)
}

run_once() {
	snap "$@" >image 2>said.snap || fail "$(cat said.snap)"
	ship
}

# With a look at the replica: at names and content; all of it is compared where that matters.
pipeline() {
	run_once "$@"
	diff -r --no-dereference -x .repl src replica
}

base_id() { repl-snap -s state --list | sed -n 's/^base *\([0-9a-f]*\).*/\1/p'; }

whole_id() { repl-snap --digest "$1" | repl-show | sed -n 's/^end id=\([0-9a-f]*\).*/\1/p'; }

# The numbers of the images that have a snapshot, of all states, as the directory says.
kept() { find "${1:-src}/.repl/images" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sed 's/.*-//' | sort -n | xargs; }

subvolumes() { btrfs subvolume list -o "${1:-src}" | wc -l; }

noise() { head -c "$1" /dev/urandom; }

@test "the image of a subvolume is its snapshot: what happens later is not in it" {
	noise 300K >src/file
	mkdir -p src/d
	ln -s target src/d/link
	snap >image 2>said
	has "$(cat said)" "opened image 1, a btrfs snapshot"
	has "$(repl-show --json image)" '"provider":"btrfs","consistency":"crash"'
	cp -a src was
	rm -r was/.repl
	touch -r src was
	noise 200K >src/file
	rm src/d/link
	touch src/new
	ship
	same_tree was replica
	[[ ! -e replica/.repl/images && $(base_id) == "$(whole_id was)" ]]
	pipeline
	same_tree src replica
	[[ $(base_id) == "$(whole_id src)" && $(find src -name .repl -prune -o -newer image -print) == "" ]]
	[[ $(stat -c %a src/.repl/images) == 700 ]]
}

@test "--again makes the same delta, whatever was written meanwhile" {
	noise 300K >src/file
	snap >image
	repl-track -s state <image | repl-diff -s state >first
	noise 300K >src/file
	repl-snap -s state --again | repl-track -s state | repl-diff -s state >second
	cmp first second
}

@test "kept are the snapshots of the base and of what waits; all others go, and the last one with them" {
	for i in 1 2 3; do
		echo $i >src/file
		snap >image
		[[ $(kept) == "$i" ]]
	done
	ship
	[[ $(kept) == 3 ]]
	echo 4 >src/file
	snap >image
	[[ $(kept) == "3 4" ]]
	# A delta that no answer came for: the replica may have it.
	repl-track -s state <image | repl-diff -s state | repl-apply replica >answer
	echo 5 >src/file
	snap >image
	[[ $(kept) == "3 4 5" ]]
	repl-snap -s state --list >list
	[[ $(grep -c "^snapshot seq [345] btrfs $PWD/src/.repl/images/[0-9a-f]*-[345]$" list) == 3 ]]
	[[ $(repl-snap -s state --list --json) == *'"snapshots":[{"seq":'*'"provider":"btrfs","path":"'"$PWD/src/"*'"}]}' ]]
	repl-snap -s state --commit <answer
	[[ $(kept) == "4 5" ]]
	repl-snap -s state --abort
	[[ $(kept) == 4 ]]
	pipeline
	[[ $(kept) == 6 ]]
	pipeline --provider=live
	[[ $(kept) == "" && ! -e src/.repl/images && ! -e state/snapshots && $(subvolumes) == 0 ]]
}

@test "chosen by itself, and said: what a snapshot would not hold keeps the image live" {
	mkdir plain
	run -0 repl-snap -v -s other plain
	has "$output" "a live image: '$PWD/plain' is not the root of a btrfs subvolume"
	run -2 repl-snap -s other --provider=btrfs plain
	has "$output" "'$PWD/plain' is not the root of a btrfs subvolume"
	run -2 repl-snap --provider=btrfs src
	has "$output" "a snapshot needs a state directory"
	run -2 repl-snap -s state --provider=zfs src
	has "$output" "'zfs' is no provider: there is no program of this name in"
	run -2 repl-snap -s state --provider=btrfs --abort
	has "$output" "--provider and --providers go with opening an image"
	repl-snap src | repl-show >text
	has "$(cat text)" "provider=live"
	mkdir -p src/a/b
	subvolume src/a/b/inner
	echo content >src/a/b/inner/file
	pipeline
	has "$(cat said.snap)" "a live image: '$PWD/src' holds the subvolume 'a/b/inner', which a snapshot leaves out"
	run -0 snap --provider=btrfs
	has "$output" "not in the image: '$PWD/src' holds the subvolume 'a/b/inner'"
	btrfs -q subvolume delete src/a/b/inner
	mkdir src/mnt
	mount -t tmpfs tmpfs src/mnt
	run -0 snap
	umount src/mnt
	has "$output" "a live image: another filesystem is mounted at '$PWD/src/mnt'"
	[[ $(kept) == "" ]]
	pipeline
	has "$(cat said.snap)" "a btrfs snapshot"
}

@test "a replica's own snapshots are no obstacle where it is sent on" {
	subvolume replica
	echo 1 >src/file
	pipeline
	repl-snap -v -s next replica 2>said >image
	has "$(cat said)" "opened image 1, a btrfs snapshot"
	repl-track -s next <image | repl-diff -s next | repl-apply third | repl-snap -s next --commit
	same_tree src third
	echo 2 >src/file
	pipeline
	[[ $(repl-snap -s next --list --json) == *"/replica/.repl/images/"* ]]
	repl-snap -s next replica | repl-track -s next | repl-diff -s next | repl-apply third | repl-snap -s next --commit
	same_tree src third
}

@test "a group of subvolumes is snapshots, though not of one instant; one that is none makes all live" {
	subvolume other
	mkdir plain
	echo 1 | tee src/file other/file >plain/file
	repl-snap -v -s state a=src b=other >image 2>said
	has "$(cat said)" "the members' snapshots are not of one instant"
	has "$(repl-show --json image)" '"provider":"btrfs","consistency":"live"'
	echo 2 | tee src/file >other/file
	ship
	[[ $(cat replica/a/file replica/b/file | xargs) == "1 1" && $(kept) == 1 && $(kept other) == 1 ]]
	repl-snap -v -s state a=src b=other c=plain >image 2>said
	has "$(cat said)" "'$PWD/plain' is not the root of a btrfs subvolume"
	ship
	[[ $(cat replica/a/file replica/c/file | xargs) == "2 1" && $(kept)$(kept other) == "" ]]
	# The same subvolume under two names.
	repl-snap -s state a=src b=src >image
	ship
	[[ $(kept) == 3 ]]
	same_tree src replica/b
}

@test "a snapshot that somebody removes or writes to" {
	noise 1M >src/file
	pipeline
	snap >image
	btrfs -q subvolume delete src/.repl/images/*-2
	run -1 repl-track -s state <image
	has "$output" "-2' is gone: take a new image with repl-snap"
	run -1 repl-diff -s state <image
	has "$output" "-2' is gone: take a new image with repl-snap"
	# Written to, and sealed again.
	snap >image
	btrfs property set -f -ts src/.repl/images/*-3 ro false
	echo >src/.repl/images/*-3/file
	btrfs property set -ts src/.repl/images/*-3 ro true
	run -1 repl-track -s state <image
	has "$output" "-3' was written to: take a new image with repl-snap"
	# The base's alone is no loss: it is compared with what the state knows.
	btrfs -q subvolume delete src/.repl/images/*-1
	noise 1M >src/file
	pipeline
	[[ $(kept) == 4 ]]
	btrfs property set -f -ts src/.repl/images/*-4 ro false
	noise 1M >src/.repl/images/*-4/file
	noise 4K | dd of=src/file bs=4096 seek=9 conv=notrunc status=none
	pipeline
	[[ $(base_id) == "$(whole_id src)" && $(kept) == 5 ]]
}

@test "of a changed file only what its snapshots do not share is read, and named by --regions" {
	noise 8M >src/file
	pipeline
	noise 4096 | dd of=src/file bs=4096 seek=100 conv=notrunc status=none
	repl-snap -s state src >image
	repl-track -s state --regions <image | repl-show >changes
	[[ $(grep -c '^region' changes) == 1 ]] || fail "$(cat changes)"
	ship
	((read <= 65536)) || fail "$(cat said)"
	same_tree src replica
	# Live images keep clones; the first snapshot after them knows of those.
	pipeline --provider=live
	noise 4096 | dd of=src/file bs=4096 seek=200 conv=notrunc status=none
	pipeline
	noise 4096 | dd of=src/file bs=4096 seek=300 conv=notrunc status=none
	pipeline
	((read <= 65536)) || fail "$(cat said)"
}

@test "a state directory inside the subvolume is not sent, nor the replica's edits with it" {
	mkdir src/var
	echo 1 >src/file
	for i in 1 2 3; do
		echo $i >>src/file
		repl-snap -s src/var/state src | repl-track -s src/var/state | repl-diff -s src/var/state | repl-apply replica |
			repl-snap -s src/var/state --commit
		[[ ! -e replica/var/state ]]
		cmp src/file replica/file
	done
}

@test "snapshots that cannot be removed are counted, and there is an end to them" {
	echo 1 >src/file
	pipeline
	name=$(echo src/.repl/images/*)
	for i in {101..107}; do
		mkdir -p "${name%-*}-$i/in the way"
		mount -t tmpfs tmpfs "${name%-*}-$i/in the way"
	done
	run -6 snap --provider=btrfs
	has "$output" "8 snapshots of this state in '$PWD/src/.repl/images' cannot be removed: see to them first"
	umount src/.repl/images/*-10?/*
	pipeline
}

@test "a damaged list of where snapshots are is an error, not a leak" {
	echo 1 >src/file
	pipeline
	cp state/snapshots was
	printf 'not a list' >state/snapshots
	run -1 snap
	has "$output" "the state directory is damaged: 'snapshots' holds no paths"
	run -1 repl-snap -s state --list
	mv was state/snapshots
	pipeline
	[[ $(kept) == 3 ]]
}

@test "roots that are away keep their snapshots, and lose them when they are back" {
	at=$(mk_fs btrfs 128M)
	repl-snap -s state a=src b="$at" >image
	ship
	[[ $(kept "$at") == 1 ]]
	img=$(losetup -nO BACK-FILE "$(findmnt -no SOURCE "$at")")
	umount "$at"
	repl-snap -s state a=src >image
	ship
	[[ $(kept) == 2 && -e state/snapshots ]]
	mount -o loop "$img" "$at"
	[[ $(kept "$at") == 1 && $(repl-snap -s state --list | grep -c ^snapshot) == 2 ]]
	repl-snap -s state a=src >image
	[[ $(kept "$at") == "" && $(subvolumes "$at") == 0 ]]
}

@test "the source's disk fills while its snapshot lives, is read-only, and a member goes away" {
	local at
	at=$(mk_fs btrfs 200M)
	subvolume "$at/one"
	subvolume "$at/two"
	for n in 1 2 3; do noise 20M >"$at/one/$n"; done
	echo 1 >"$at/two/file"
	group() { repl-snap -s state one="$at/one" two="$at/two" >image; }
	whole() {
		group
		ship
		diff -r -x .repl "$at/one" replica/one
		diff -r -x .repl "$at/two" replica/two
	}
	whole
	noise 20M >"$at/one/1"
	group
	cp "$at/one/1" was
	noise 10M >"$at/one/1"
	run -1 cp /dev/zero "$at/one/full"
	has "$output" "No space left"
	ship
	cmp was replica/one/1
	run -1 cp /dev/zero "$at/one/full2" # still is
	rm "$at/one/full" "$at/one/full2"
	whole

	mount -o remount,ro "$at"
	group
	ship
	mount -o remount,rw "$at"
	noise 1M >"$at/one/4"
	whole

	group
	mv "$at/two" "$at/away"
	run -1 repl-track -s state <image
	has "$output" "cannot open '$at/two': No such file"
	run -1 group
	mv "$at/away" "$at/two"
	whole
	[[ $(kept "$at/one" | wc -w) == 1 && $(kept "$at/two" | wc -w) == 1 ]]
}

# ---- what changed, from the trees of two snapshots ----

# The trees were asked, and named no more names than these.
told() {
	local n
	n=$(sed -n "s/.*in the snapshots' trees .* inodes have changed since the base, with \([0-9]*\) names$/\1/p" said)
	((${n:-9999} <= $1)) || fail "$(cat said)"
}

no_use() {
	has "$(cat said)" "the snapshots' trees are of no use: $1"
	has "$(cat said)" "compared the stat of"
}

@test "what changed since the base's snapshot is told by the trees, without a look at what did not" {
	mkdir -p src/{a,b}/{c,d}
	touch src/{a,b}/{c,d}/{1..300}
	run_once
	echo changed >src/a/c/7
	rm src/a/d/8
	mv src/b src/e
	run_once
	# The two files, the directory of one of them, both sides of the move, and the root.
	told 6
	has "$(repl-show changes)" "name='7'"
	has "$(repl-show changes)" "name='8'"
	same_tree src replica
	run_once
	told 0
}

@test "a file with names in many directories is named by all of them" {
	mkdir src/d0
	noise 5K >src/file
	for n in {1..10}; do ln src/file "src/d0/a name of some length, so that there is no room for all in one item $n"; done
	for d in {1..19}; do cp -al src/d0 "src/d$d"; done
	run_once
	noise 5K >src/file
	run_once
	told 202
	[[ $(grep -c "^changed.* flags=content" <(repl-show changes)) == 201 ]]
	rm src/d*/*7
	pipeline
}

@test "where the trees cannot tell, everything is compared, and why is said" {
	echo 1 >src/file
	touch src/left-out
	run_once --provider=live
	run_once
	no_use "the base is no snapshot of this state"
	snap >image 2>said.snap
	setpriv --bounding-set=-sys_admin repl-track -v -s state <image 2>said >changes
	no_use "the tree of a subvolume may not be searched"
	# The base's snapshot is gone.
	btrfs -q subvolume delete src/.repl/images/*-2
	repl-track -v -s state <image 2>said >changes
	no_use "the image's snapshot '$PWD/src/.repl/images/"
	ship
	# Other directories.
	mkdir -p src/deep
	subvolume other
	repl-snap -s state a=src b=other >image
	ship
	no_use "the base is of other directories"
	repl-snap -s state a=src b=other >image
	ship
	told 2
	# Names that are too long to be asked for.
	long=$(printf 'n%.0s' {1..200})
	(cd src/deep && for _ in {1..25}; do mkdir "$long" && cd "$long"; done && touch file)
	repl-snap -s state a=src b=other >image
	ship
	no_use "a path is too long to be looked up"
	same_tree src replica/a
}

@test "an older snapshot in the subvolume's place is compared" {
	for i in {1..5}; do echo "$i" >"src/$i"; done
	btrfs -q subvolume snapshot src old
	echo changed >src/3
	rm src/4
	run_once
	mv src away
	mv old src
	run_once
	no_use ""
	[[ -e replica/4 && $(cat replica/3) == 3 ]]
	same_tree src replica
	btrfs -q subvolume delete away/.repl/images/* away
}

@test "what was left out of the base is looked for when it is left out no more" {
	echo 1 | tee src/file >src/left-out
	repl-snap -s state src | repl-track -s state | repl-diff -s state --exclude=left-out | repl-apply replica | repl-snap -s state --commit
	[[ ! -e replica/left-out ]]
	run_once
	told 1
	has "$(cat said)" "comparing everything: patterns or --one-file-system are not those of the base"
	same_tree src replica
}

@test "subvolumes that a snapshot leaves out come and go as empty directories" {
	mkdir src/d
	subvolume src/d/inner
	run_once --provider=btrfs
	mv src/d/inner src/d/other
	subvolume src/new
	run_once --provider=btrfs
	told 5
	[[ $(cd replica && find . -name .repl -prune -o -type d -print | sort | xargs) == ". ./d ./d/other ./new" ]]
}

@test "at random: the trees never tell too little, and the image is exact" {
	btrfs -q subvolume delete src
	[[ $REPL_BUILD == *san ]] && rounds=3 || rounds=8
	run -0 python3 "$repl_root/tests/lib/generations" ${REPL_SEED:+--seed "$REPL_SEED"} --rounds "$rounds" .
	printf '# %s\n' "${lines[@]}" >&3
}

# Everything that a state does with snapshots, killed at each of its calls (REPL_CRASH=all), or at some of them.
@test "killed at any system call nothing is leaked, and the next run goes on" {
	cut() { "$REPL_BUILD/tests/lib/cut" kill "$@"; }
	counted=0 step=4 first=0
	[[ $REPL_BUILD != *san ]] || step=12
	[[ ${REPL_CRASH:-} != all ]] || step=1
	for what in open abort commit; do
		for ((k = first++ % step + 1; ; k += step)); do
			((counted % 5)) || { echo "$k" >src/file && run_once && cmp src/file replica/file; }
			echo "$what $k" >src/file
			command=(repl-snap -s state "--$what")
			: >answer
			if [[ $what == open ]]; then
				command=(repl-snap -s state src)
			else
				repl-snap -s state src >image
				[[ $what != commit ]] || repl-track -s state <image | repl-diff -s state | repl-apply replica >answer
			fi
			status=0
			cut "$k" "${command[@]}" <answer >out 2>&1 || status=$?
			((status == 137 || status == 0)) || fail "$what $k: $status: $(cat out)"
			"${command[@]}" <answer >out
			[[ $what == open ]] && least=2 || least=1
			[[ $(kept | wc -w) == "$least" && $(subvolumes) == "$least" ]] ||
				fail "$what, killed at call $k: $(ls -l src/.repl/images)"
			((status == 137)) || break
			counted=$((counted + 1))
		done
	done
	pipeline
	[[ $(kept | wc -w) == 1 && $(subvolumes) == 1 ]]
	echo "# killed at $counted calls" >&3
}
