#!/usr/bin/env bats
# Snapshots that a program makes (repl-provider(5)): that of btrfs(8) for real; one of our own that can do all that goes wrong; and
# those of LVM and ZFS, which are not on this machine, against programs that know which commands should come.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup

setup() {
	common_setup
	providers=$repl_root/cmd/providers
	mkdir src store own
	export store=$PWD/store
	# The provider "copy": snapshots are copies in $store, and what is done is written to $store/log. What it is to do otherwise at
	# a verb stands in $store/VERB, as commands.
	cat >own/copy <<-'SH'
		#!/bin/sh
		set -eu
		echo "$1 $2 $3" >>"$store/log"
		[ ! -e "$store/$1" ] || . "$store/$1"
		at=$store/at/$2$3
		case $1 in
		create)
			mkdir -p "$at"
			cp -a "$3/." "$at"
			;;
		where) echo "$at" ;;
		delete) rm -rf "$store/at/$2" ;;
		esac
	SH
	chmod 755 own/copy
}

snap() { repl-snap -v -s state --providers=own --provider=copy src; }

# The rest of the pipeline, for the image in the file image.
ship() {
	run_pipe "repl-track -s state <image >changes && repl-diff -v -s state <changes 2>said >delta &&
		repl-apply replica <delta | repl-snap -s state --commit" || fail "$(cat said)"
	read=$(sed -n 's/^repl-diff: read \([0-9]*\) of .*/\1/p' said)
}

pipeline() {
	snap >image 2>said || fail "$(cat said)"
	ship
}

# The numbers of the images that have a snapshot.
kept() { find store/at -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | cut -d - -f 2 | sort -n | xargs; }

# Nothing is left, of whatever kind.
nothing_left() { [[ ! -e src/.repl/images && ! -e state/snapshots && $(kept) == "" ]]; }

does() { echo "$2" >"store/$1"; }
does_well() { rm -f store/create store/where store/delete; }

noise() { head -c "$1" /dev/urandom; }

@test "btrfs through its command line: an instant, what changed since, and nothing that is left" {
	requires root btrfs
	# In memory: each image tells the filesystem several times to write to the disk.
	mkdir ram fs
	mount -t tmpfs -o size=1G tmpfs ram
	truncate -s 300M ram/img
	mkfs.btrfs -q -m single ram/img
	mount -o loop ram/img fs
	printf '%s\n' "$PWD/ram" "$PWD/fs" >>.mounts
	cd fs
	btrfs -q subvolume create sub
	mkdir -p sub/a/src
	ln -s sub/a/src src
	real=$PWD/sub/a/src
	snapshots() { btrfs subvolume list -o sub | sed 's/.*-\([0-9]*\)-[0-9a-f]*$/\1/' | sort -n | xargs; }
	snap=(repl-snap -v -s state --providers="$providers" --provider=btrfs-cli)
	noise 8M >src/file
	mkdir src/d
	ln src/file src/d/name
	"${snap[@]}" src >image 2>said
	has "$(cat said)" "snapshots are made by '$providers/btrfs-cli'"
	has "$(cat said)" "opened image 1, a snapshot"
	has "$(repl-show --json image)" '"provider":"exec","consistency":"crash"'
	cp -a "$real" was
	rm -r was/.repl
	touch -r "$real" was
	noise 1M >src/later
	noise 4096 | dd of=src/file bs=4096 seek=9 conv=notrunc status=none
	ship
	same_tree was replica
	[[ $(snapshots) == 1 ]]
	"${snap[@]}" src >image
	[[ $(snapshots) == "1 2" ]]
	repl-snap -s state --list >list
	[[ $(grep -c "^snapshot seq [12] exec:$providers/btrfs-cli $real/.repl/images/[0-9a-f]*-[12]$" list) == 2 ]] || fail "$(cat list)"
	ship
	# Only what the two snapshots do not share is read.
	((read <= 1100000)) || fail "$(cat said)"
	same_tree "$real" replica
	"${snap[@]}" src >image
	repl-snap -s state --abort
	[[ $(snapshots) == 2 && $(find "$real/.repl/images" -type f | wc -l) == 1 ]]
	# Its own and ours take turns, also with the directory that has no subvolume of its own.
	repl-snap -s state --provider=live src >image
	ship
	[[ $(snapshots) == "" && ! -e sub/.repl/btrfs-cli && ! -e $real/.repl/images && ! -e state/snapshots ]]
	run -2 repl-snap -s state --provider=btrfs src
	"$providers/btrfs-cli" delete none-1 "$real"
	run -1 "$providers/btrfs-cli" where none-1 "$real"
	has "$output" "btrfs-cli: there is no snapshot 'none-1'"
	run -1 "$providers/btrfs-cli" create a-1 /proc
	has "$output" "btrfs-cli: not on btrfs: '/proc'"
}

@test "what the program is told, in order; kept are the base's and the image's under way" {
	echo 1 >src/file
	snap >image 2>said
	echo 2 >src/file
	ship
	[[ $(cat replica/file) == 1 && $(kept) == 1 ]]
	name=$(ls store/at)
	[[ $name =~ ^[0-9a-f]{32}-1-[0-9a-f]{8}$ && $(cat store/log) == "create $name $PWD/src"$'\n'"where $name $PWD/src" ]]
	snap >image
	[[ $(kept) == "1 2" ]]
	snap >image
	[[ $(kept) == "1 3" ]]
	[[ $(repl-snap -s state --list --json) == *'{"seq":3,"provider":"exec:'"$PWD/own/copy"'","path":"'"$PWD/src/.repl/images/"* ]]
	ship
	[[ $(kept) == 3 && $(cat replica/file) == 2 ]]
	snap >image
	repl-snap -s state --abort
	[[ $(kept) == 3 ]]
	repl-snap -s state --provider=live src >image
	ship
	nothing_left
	[[ $(grep -c ^create store/log) == 4 && $(grep -c ^delete store/log) == 4 ]]
}

@test "several members, and what their snapshots are worth" {
	mkdir other
	touch src/1 other/2
	stamp() { repl-show --json image | grep -o '"consistency":"[a-z]*"'; }
	both() { repl-snap -v -s state --providers=own --provider=copy "$@" a=src b=other >image 2>said; }
	both
	[[ $(stamp) == '"consistency":"live"' ]]
	has "$(cat said)" "the members' snapshots are not of one instant"
	ship
	[[ -e replica/a/1 && -e replica/b/2 ]]
	both --quiesce='echo quiesce >>$store/log' --resume='echo resume >>$store/log'
	[[ $(stamp) == '"consistency":"app"' ]]
	[[ $(tail -n 6 store/log | cut -d ' ' -f 1 | xargs) == "quiesce create create resume where where" ]]
	# The same directory under two names has one snapshot.
	repl-snap -s state --providers=own --provider=copy a=src b=src >image
	ship
	[[ -e replica/b/1 && $(kept) == 3 ]]
	pipeline
	[[ $(find store/at -mindepth 1 -maxdepth 1 | wc -l) == 1 ]]
	requires root ext4
	at=$(mk_fs ext4 16M)
	touch "$at/file"
	repl-snap -v -s state --providers=own --provider=copy --freeze a="$at" b="$at" >image 2>said
	has "$(cat said)" "frozen for"
	[[ $(stamp) == '"consistency":"crash"' ]]
	ship
	[[ -e replica/b/file ]]
}

# bats test_tags=slow
@test "a program that fails, hangs or is killed: no image, and nothing is left" {
	echo 1 >src/file
	pipeline
	cp -r state was
	while IFS='|' read -r verb text expected wrong; do
		does_well
		does "$verb" "$text"
		run repl-snap -s state --providers=own --provider=copy --provider-timeout=1s src
		[[ $status == "$expected" ]] || fail "$text: $status: $output"
		has "$output" "$wrong"
		[[ $(kept) == 1 ]] || fail "$text: $(kept)"
		diff -r -x seq -x lock -x follow -x catalog* was state
	done <<-EOF
		create|exit 7|1|the provider '$PWD/own/copy create
		create|mkdir -p \$store/at/\$2; echo half >\$store/at/\$2/file; exit 1|1|failed with status 1
		create|kill -9 \$\$|1|was ended by signal 9
		create|sleep 1000|9|took longer than 1000 ms and was ended
		where|echo there is none >&2; exit 1|1|there is none
		where|exit 0|1|own/copy where' printed '', which is not one absolute path
		where|echo at/\$2; exit|1|which is not one absolute path
		where|yes /a/long/path; exit 0|1|own/copy where
		where|printf /%04095d 0; exit|1|which is not one absolute path
		where|printf '/\\000x'; exit|1|which does not hold the snapshot
		where|echo /nowhere; exit|1|printed '/nowhere', which is no directory that can be opened
		where|mkdir -p \$store/empty; echo \$store/empty; exit|1|which does not hold the snapshot
		where|echo \$3; exit|1|which shows what is there now, or something newer than the snapshot
		where|echo \$store/at/*-1-*\$3; exit|1|which does not hold the snapshot
	EOF
	# What it prints is said, and is not in the stream.
	does_well
	does create 'echo to be heard; echo also >&2'
	snap >image 2>said
	has "$(cat said)" $'to be heard\nalso'
	ship
	[[ $(kept | wc -w) == 1 ]]
}

# bats test_tags=slow
@test "one that cannot be removed is named, tried again, and there is an end to them" {
	for _ in {1..8}; do
		does delete 'echo in the way >&2; exit 3'
		run -0 snap
	done
	has "$output" "in the way"
	has "$output" "a snapshot stays for now: the provider '$PWD/own/copy delete"
	[[ $(kept) == "1 2 3 4 5 6 7 8" && $(repl-snap -s state --list | grep -c '^snapshot seq [1-8] exec:') == 8 ]]
	run -6 snap
	has "$output" "8 snapshots of this state in '$PWD/src/.repl/images' cannot be removed: see to them first"
	does_well
	pipeline
	[[ $(kept) == 10 ]]
	# Who does not know the program any more keeps the row.
	mv own/copy own/gone
	run -0 repl-snap -s state --provider=live src -o image --force
	ship
	repl-snap -s state --abort 2>said
	has "$(cat said)" "cannot run the provider '$PWD/own/copy': No such file or directory"
	[[ $(kept) == 10 ]]
	mv own/gone own/copy
	repl-snap -s state --abort
	nothing_left
}

@test "roots that are away keep their snapshots, and so do other directories in their place" {
	echo 1 >src/file
	pipeline
	mv src away
	mkdir src
	repl-snap -s state --provider=live src >image
	ship
	[[ $(kept) == 1 ]]
	rmdir src
	mv away src
	repl-snap -s state --abort
	nothing_left
}

@test "a snapshot whose place is gone is not read, but found again" {
	noise 300K >src/file
	pipeline
	echo 2 >src/other
	snap >image
	# As after a restart, when nothing is mounted.
	hide() {
		for at in store/at/*; do mv "$at$PWD/src" "$at/hidden" && mkdir "$at$PWD/src"; done
		does where '[ ! -e $store/at/$2/hidden ] || { rmdir $store/at/$2$3; mv $store/at/$2/hidden $store/at/$2$3; }'
	}
	hide
	run -1 repl-track -s state <image
	has "$output" "is not at '$PWD/store/at/"
	has "$output" "$PWD/src', which does not hold the snapshot: find it with repl-snap --again"
	run -1 repl-diff -s state <image
	repl-snap -s state --again >image
	ship
	same_tree src replica
	# The base's is found by the next run.
	hide
	base=$(echo store/at/*-2-*)$PWD/src/file
	[[ ! -e $base ]]
	snap >image
	[[ -e $base ]]
	ship
	# The base's that is gone costs reading, the image's a new image.
	rm -r store/at/*
	noise 300K >src/file
	snap >image
	rm -r store/at/*
	does where 'exit 1'
	run -1 repl-track -s state <image
	run -1 repl-snap -s state --again
	does_well
	rm src/.repl/images/*
	run -1 repl-track -s state <image
	has "$output" "is gone: take a new image with repl-snap"
	pipeline
	same_tree src replica
}

@test "killed while the program works: it ends, and the next run removes what it made" {
	echo 1 >src/file
	pipeline
	does create 'mkdir -p $store/at/$2; echo $$ >$store/pid; kill -KILL $PPID; exec sleep 1000'
	run -137 snap
	does_well
	repl-snap -s state --providers=own --provider=copy --lock-wait=120 src >image
	pid=$(<store/pid)
	[[ ! -d /proc/$pid ]] || grep -q '^State:.Z' "/proc/$pid/status"
	[[ $(kept) == "1 3" ]]
	ship
	[[ $(kept) == 3 ]]
}

@test "killed at any system call nothing is leaked, and the next run goes on" {
	requires no-sanitizer
	echo 1 >src/file
	pipeline
	counted=0 step=61
	[[ ${REPL_CRASH:-} != all ]] || step=1
	for what in open abort; do
		for ((k = 1; ; k += step)); do
			command=(repl-snap -s state --lock-wait=60 "--$what")
			[[ $what == abort ]] || command=(repl-snap -s state --lock-wait=60 --providers=own --provider=copy src)
			[[ $what == open ]] || snap >image 2>said
			status=0
			"$REPL_BUILD/tests/lib/cut" kill "$k" "${command[@]}" >out 2>&1 || status=$?
			((status == 137 || status == 0)) || fail "$what $k: $status: $(cat out)"
			"${command[@]}" >out
			[[ $what == open ]] && least=2 || least=1
			[[ $(kept | wc -w) == "$least" ]] || fail "$what, killed at call $k: $(kept)"
			((status == 137)) || break
			counted=$((counted + 1))
		done
	done
	pipeline
	[[ $(kept | wc -w) == 1 ]]
	echo "# killed at $counted calls" >&3
}

@test "which program it is: by name or path, and only one that nobody else can change" {
	run -2 repl-snap -s state --providers=own --provider=none src
	has "$output" "'none' is no provider: there is no program of this name in 'own'"
	run -2 repl-snap -s state --provider=none src
	has "$output" "'none' is no provider: there is no program of this name in '/etc/repl/providers' and '$REPL_BUILD/../share/repl/providers'"
	run -2 repl-snap -s state --provider=../own/copy src
	has "$output" "'../own/copy' is no provider: auto, live, btrfs, reflink, exec:PROGRAM, or the name of a program"
	run -2 repl-snap -s state --provider=exec:own/copy src
	run -2 repl-snap -s state --provider=exec:/none src
	has "$output" "cannot find the provider 'exec:/none': No such file or directory"
	touch volume
	for how in btrfs "exec:$PWD/own/copy"; do
		run -2 repl-snap -s state --provider="$how" src volume
		[[ $output == *"'$PWD/volume' is a volume: such snapshots are made of directories only"* || $how != exec:* ]] || fail "$output"
	done
	run -2 repl-snap --providers=own --provider=copy src
	has "$output" "a snapshot needs a state directory"
	run -2 repl-snap -s state --providers=own --abort
	[[ ! -e store/log ]]
	repl-snap -s state --provider="exec:$PWD/own/copy" src >image
	for wrong in 'chmod 775 own/copy' 'chmod 777 own' 'chmod 644 own/copy'; do
		$wrong
		run -2 snap
		has "$output" "the provider '$PWD/own/copy'"
		chmod 755 own own/copy
	done
	if [[ $(id -u) == 0 ]]; then
		chown 12345 own/copy
		run -2 snap
		has "$output" "it or its directory belongs to somebody else, or others can write to it"
		chown 0 own/copy
	fi
	printf 'root = src\nprovider = copy\nproviders = own\nprovider-timeout = 30s\n' >state/policy
	repl-snap -v -s state 2>said >image
	has "$(cat said)" "snapshots are made by '$PWD/own/copy'"
	ship
	[[ $(kept) == 2 ]]
	# Where make install puts them.
	mkdir -p root/bin root/share/repl/providers
	cp "$REPL_BUILD/repl-snap" root/bin
	cp own/copy root/share/repl/providers
	rm state/policy
	root/bin/repl-snap -v -s state --provider=copy src 2>said >image
	has "$(cat said)" "snapshots are made by '$PWD/root/share/repl/providers/copy'"
}

@test "a damaged row is an error, not a leak" {
	echo 1 >src/file
	pipeline
	cp state/snapshots was
	id=$(head -c 32 was)
	for text in "$id@" "$id@0/x\0/y\0" "$id@1/x\0" "$id@1/x\0y\0" "$id@1/x\0/y" "$id@99999999999999999999/x\0/y\0" "$id@1x\0/y\0"; do
		printf %b "$text" >state/snapshots
		run -1 snap
		has "$output" "the state directory is damaged: 'snapshots' holds no paths"
	done
	cp was state/snapshots
	pipeline
	[[ $(kept | wc -w) == 1 ]]
}

@test "the examples of repl-provider(5) work" {
	awk '/^\.Bd -literal/ { f = "block." ++n; next } /^\.Ed/ { f = "" } f { print > f }' "$repl_root/man/repl-provider.5"
	sed -i "s,/var/lib/copies,$PWD/copies,; s,ssh dr ,,; s,/replica,$PWD/replica," block.*
	# The first one shows the arguments.
	grep -q '^PROGRAM create NAME ROOT' block.1
	mkdir S
	install -m 755 block.2 own/lvm
	printf 'root = src\nprovider = lvm\nproviders = own\n' >S/policy
	echo 1 >src/file
	bash -o pipefail block.3
	echo 2 >src/file
	S=S bash -o pipefail block.3
	same_tree src replica
	[[ $(find copies -mindepth 1 -maxdepth 1 | wc -l) == 1 && ! -e block.4 ]]
}

# ---- clones ----

# A filesystem that can make clones, in memory; prints where it is mounted.
clone_fs() {
	mkdir ram fs
	mount -t tmpfs -o size=1G tmpfs ram
	truncate -s 400M ram/img
	"mkfs.$1" -q ram/img
	mount -o loop ram/img fs
	printf '%s\n' "$PWD/ram" "$PWD/fs" >>.mounts
	cd fs || return 1
	mkdir src
}

clones() { repl-snap -v -s state --provider=reflink src >image 2>said || fail "$(cat said)"; }

trees() { find src/.repl/images -mindepth 1 -maxdepth 1 -type d -printf '%f\n' 2>/dev/null | sed 's/.*-//' | sort -n | xargs; }

@test "clones: everything that a tree can hold is kept, and what happens later is not in it" {
	requires root xfs
	clone_fs xfs
	noise 3M >src/file
	mkdir -p src/d/e src/locked
	ln src/file src/d/link
	ln -s nowhere src/d/symlink
	ln src/d/symlink src/second
	mkfifo src/fifo
	mknod src/node b 7 200
	truncate -s 1M src/hole
	touch src/empty src/locked/file $'src/a\nname' src/capable
	setfattr -n user.key -v value src/empty
	setfattr -n trusted.key -v value -h src/d/symlink
	chown 1234:4321 src/capable src/d/e
	setcap cap_net_raw=ep src/capable
	chmod 6751 src/empty
	chmod 0 src/d/e
	chattr +i src/locked/file
	chattr +i src/locked
	touch -d 2001-02-03T04:05:06.789 src/file src/d
	mkdir src/state
	ln -s src/state state
	clones
	has "$(cat said)" "opened image 1, clones of its files"
	has "$(cat said)" "each file of the snapshot is of one instant, not all of them"
	has "$(repl-show --json image)" '"provider":"reflink","consistency":"live"'
	[[ ! -e $(echo src/.repl/images/*-1)/state ]]
	chattr -i src/locked
	cp -a src was
	rm -r was/.repl was/state
	chattr +i was/locked
	touch -r src was
	chattr +i src/locked was/locked/file
	noise 1M >src/file
	rm src/d/symlink
	ship
	same_tree was replica
	# Only what is not shared with the base's clones is read.
	clones
	ship
	((read <= 1100000)) || fail "$(cat said)"
	cmp src/file replica/file
	chattr -i src/locked
	mv src/d src/moved
	clones
	ship
	[[ $(stat -c %s delta) -lt 10000 && $(trees) == 3 ]] || fail "$(stat -c %s delta)"
	cmp src/file replica/moved/link
	# And from there on as live ones, and back.
	repl-snap -s state --provider=live src >image
	ship
	[[ $(trees) == "" && ! -e src/.repl/images && ! -e state/snapshots ]]
	noise 4096 | dd of=src/file bs=4096 seek=9 conv=notrunc status=none
	repl-snap -v -s state --provider=reflink --quiesce=true --freeze src >image 2>said
	has "$(cat said)" "not frozen: no clones can be made while the filesystem is frozen"
	has "$(repl-show --json image)" '"provider":"reflink","consistency":"app"'
	[[ $(repl-snap -s state --list) == *"snapshot seq 5 reflink $PWD/src/.repl/images/"* ]]
	ship
	cmp src/file replica/file
	chattr -R -f -i src was replica || :
}

# bats test_tags=slow
@test "clones: kept and removed like snapshots; a tree that is gone; writers meanwhile" {
	requires root btrfs
	clone_fs btrfs
	for i in {1..300}; do echo "$i" >"src/$i"; done
	(
		exec >/dev/null 2>&1
		for ((i = 0; ; i++)); do
			[[ ! -e ../stop ]] || exit 0
			noise 9000 >"src/new$((i % 7))"
			mv "src/new$((i % 7))" "src/moved$((i % 5))"
			mkdir -p "src/dir$i/below" && touch "src/dir$i/below/file"
			rm -rf "src/dir$((i - 2))"
		done
	) 3>&- &
	writer=$!
	for _ in {1..5}; do clones; done
	touch ../stop
	wait "$writer"
	[[ $(trees) == 5 ]]
	ship
	[[ $(cat replica/300) == 300 ]]
	clones
	ship
	diff -r -x .repl src replica
	clones
	rm -r src/.repl/images/*-7
	run -1 repl-track -s state <image
	has "$output" "-7' is gone: take a new image with repl-snap"
	repl-snap -s state --abort
	[[ $(trees) == 6 ]]
	rm -r src/.repl/images/*
	noise 3M >src/file
	clones
	ship
	cmp src/file replica/file
	# Killed in the middle of it.
	"$REPL_BUILD/tests/lib/cut" kill 40 repl-snap -s state --provider=reflink src >image || :
	clones
	[[ $(trees | wc -w) == 2 ]]
	run -2 repl-snap -s ../state --provider=reflink "$BATS_TEST_TMPDIR/ram"
	has "$output" "no clones can be made in '$BATS_TEST_TMPDIR/ram': "
}

# ---- programs that are not on this machine ----

# fake COMMAND...: in place of them one that writes down how it was called and answers from the file answers: lines "call|answer", of
# which the first whose call is the same counts. A call that is not there fails.
fake() {
	local command
	mkdir -p bin
	for command; do
		cat >"bin/$command" <<-'SH'
			#!/bin/sh
			call="${0##*/} $*"
			echo "$call" >>"$store/log"
			while IFS='|' read -r known answer; do
				[ "$call" != "$known" ] || { [ -z "$answer" ] || echo "$answer"; exit 0; }
			done <"$store/answers"
			echo "not expected: $call" >&2
			exit 9
		SH
		chmod +x "bin/$command"
	done
	PATH=$PWD/bin:$PATH
	: >store/log
}

calls() { [[ $(grep -v '^findmnt\|^lvs' store/log) == "$1" ]] || fail "$(cat store/log)"; : >store/log; }

# It runs as root: this is where it mounts, and nothing of ours may be there.
@test "LVM: the commands for thin and for plain snapshots (against fakes of lvm, findmnt and mount)" {
	requires root
	fake findmnt lvs lvcreate lvchange lvremove mount umount mountpoint
	mnt=/run/repl/providers/test-7
	base="findmnt -n -v -o SOURCE --target /srv/a b|/dev/mapper/vg-data
		findmnt -n -v -o TARGET --target /srv/a b|/srv
		findmnt -n -v -o FSROOT --target /srv/a b|/
		lvs --noheadings -o vg_name /dev/mapper/vg-data|  vg
		lvs --noheadings -o lv_name /dev/mapper/vg-data|  data"
	answers() { printf '%s\n' "$base" "$@" | sed 's/^\t*//' >store/answers; }
	type() { echo "findmnt -n -v -o FSTYPE --target /srv/a b|$1"; }
	lvm() { "$providers/lvm" "$1" test-7 "/srv/a b"; }

	answers "$(type ext4)" 'lvs --noheadings -o pool_lv /dev/mapper/vg-data|' \
		'lvcreate --snapshot --extents 10%ORIGIN --name repl-test-7 vg/data|Logical volume created.' \
		'lvcreate --snapshot --extents 5000 --name repl-test-7 vg/data|'
	[[ $(lvm create 2>&1 >out) == "Logical volume created." && ! -s out ]]
	calls 'lvcreate --snapshot --extents 10%ORIGIN --name repl-test-7 vg/data'
	REPL_LVM_EXTENTS=5000 lvm create
	: >store/log

	answers "$(type ext4)" 'lvs --noheadings -o pool_lv vg/repl-test-7|' "mount -t ext4 -o ro /dev/vg/repl-test-7 $mnt|"
	run -0 --separate-stderr lvm where
	[[ $output == "$mnt/a b" ]]
	calls $'mountpoint -q '"$mnt"$'\nmount -t ext4 -o ro /dev/vg/repl-test-7 '"$mnt"

	answers "$(type xfs)" 'lvs --noheadings -o pool_lv /dev/mapper/vg-data|  pool' 'lvs --noheadings -o pool_lv vg/repl-test-7|  pool' \
		'lvcreate --snapshot --setactivationskip n --name repl-test-7 vg/data|' 'lvchange --activate y vg/repl-test-7|' \
		"mount -t xfs -o ro,nouuid /dev/vg/repl-test-7 $mnt|"
	lvm create
	calls 'lvcreate --snapshot --setactivationskip n --name repl-test-7 vg/data'
	run -0 lvm where
	calls "mountpoint -q $mnt
lvchange --activate y vg/repl-test-7
mount -t xfs -o ro,nouuid /dev/vg/repl-test-7 $mnt"

	answers "$(type xfs)" "mountpoint -q $mnt|" "umount $mnt|" 'lvs --noheadings -o lv_name vg|  repl-test-7' 'lvremove --yes vg/repl-test-7|'
	run -0 lvm where
	calls "mountpoint -q $mnt"
	lvm delete
	[[ ! -d $mnt ]]
	calls "mountpoint -q $mnt
umount $mnt
lvremove --yes vg/repl-test-7"
	# One that is not there is none that has to be removed; a list that fails proves nothing.
	answers "$(type xfs)" 'lvs --noheadings -o lv_name vg|  repl-test-77'
	lvm delete
	calls "mountpoint -q $mnt"
	answers "$(type xfs)"
	run -9 lvm delete
	: >store/log
	answers "$(type btrfs)"
	run -1 lvm create
	has "$output" "lvm: only ext2, ext3, ext4 and XFS can be mounted beside their snapshot, '/srv/a b' is on btrfs"
	calls ""
}

@test "ZFS: the commands (against fakes of zfs and findmnt)" {
	mkdir -p "pool/.zfs/snapshot/repl-test-7/a b"
	fake findmnt zfs
	answers() {
		printf '%s\n' "findmnt -n -v -o FSTYPE --target $PWD/pool/a b|zfs" "findmnt -n -v -o SOURCE --target $PWD/pool/a b|tank/a data" \
			"findmnt -n -v -o TARGET --target $PWD/pool/a b|$PWD/pool" "findmnt -n -v -o FSROOT --target $PWD/pool/a b|/" "$@" >store/answers
	}
	zfs() { "$providers/zfs" "$1" test-7 "$PWD/pool/a b"; }
	answers 'zfs snapshot tank/a data@repl-test-7|'
	zfs create
	calls 'zfs snapshot tank/a data@repl-test-7'
	run -0 zfs where
	[[ $output == "$PWD/pool/.zfs/snapshot/repl-test-7/a b" ]]
	calls ""
	answers 'zfs list -H -d 1 -t snapshot -o name tank/a data|tank/a data@repl-test-7' 'zfs destroy tank/a data@repl-test-7|'
	zfs delete
	calls $'zfs list -H -d 1 -t snapshot -o name tank/a data\nzfs destroy tank/a data@repl-test-7'
	answers 'zfs list -H -d 1 -t snapshot -o name tank/a data|tank/a data@repl-test-77'
	zfs delete
	answers
	run -9 zfs delete
	rm -r pool/.zfs
	run -1 zfs where
	has "$output" "zfs: there is no snapshot '$PWD/pool/.zfs/snapshot/repl-test-7'"
	for program in btrfs-cli lvm zfs; do
		run -1 "$providers/$program" create test-7
		has "$output" "usage: $program create|where|delete NAME ROOT"
		run -1 "$providers/$program" create test-7 relative
		has "$output" "not an absolute path: 'relative'"
		run -1 "$providers/$program" create test-7 $'/a\nb'
		has "$output" "a path with a line end in it cannot be told"
	done
}
