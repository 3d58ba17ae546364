#!/usr/bin/env bats
# repl-track --record: everything that changes is named, or a gap says that it may not be.

load lib/setup
export REPL_LEAKS=0

setup() {
	common_setup
	recorder=
	others= # processes that end with the test
	j=$BATS_TEST_TMPDIR/journal
}

teardown() {
	local p
	for p in $recorder $others; do
		kill -CONT "$p" 2>/dev/null || :
		kill "$p" 2>/dev/null || :
		wait "$p" 2>/dev/null || :
	done
	common_teardown
}

# record OPTION... PATH...: starts a recorder and waits until it records.
record() {
	: >log
	repl-track -v -j "$j" --record "$@" 2>log 3>&- &
	recorder=$!
	until_true is_recording
}

is_recording() {
	grep -q 'recording with' log || {
		kill -0 "$recorder" 2>/dev/null || fail "the recorder ended: $(cat log)"
		return 1
	}
}

# ends_with STATUS: the recorder does.
ends_with() {
	local rc=0
	wait "$recorder" || rc=$?
	recorder=
	((rc == $1)) || fail "it ended with $rc: $(cat log)"
}

stop() {
	kill "$recorder"
	wait "$recorder" || :
	recorder=
}

# The number of the last batch, with everything up to now in it.
cut_now() {
	local line
	line=$(repl-track -j "$j" --cut) || return
	echo "${line##*:}"
}

# shown AFTER: what the batches above this number say.
shown() {
	local f n
	for f in "$j"/batches/*.repl; do
		n=${f##*-}
		n=$((10#${n%.repl}))
		((n <= $1)) || repl-show "$f" || return
	done
}

# paths AFTER: each path that is named, a line each; gaps as "gap PATH"; inodes as "inode NUMBER".
paths() {
	shown "$1" >shown.txt || return
	sed -n "s/^changed .* path='\(.*\)'\$/\1/p; s/^gap .* path='\(.*\)'\$/gap \1/p; s/^inode .* ino=\([0-9]*\) .*/inode \1/p" \
		shown.txt | sort -u
}

# names AFTER PATH...: fails unless each of them is named.
names() {
	local p got
	got=$(paths "$1") || return
	shift
	for p; do
		grep -qxF -- "${p#/}" <<<"$got" || fail "'$p' is not named, but"$'\n'"$got"
	done
}

# every_call TREE OUTSIDE [MISSED]: what touch-every does is all in the list, but for this.
every_call() {
	local before want got missed
	[[ -e $1/source ]] || "$repl_root/tests/lib/touch-every" prepare "$1" "$2"
	before=$(cut_now)
	"$repl_root/tests/lib/touch-every" change "$1" "$2" >want.txt
	cut_now
	got=$(paths "$before" | sed "s|^${1#/}/||")
	want=$(sort -u want.txt)
	missed=$(comm -23 <(echo "$want") <(echo "$got" | sort -u))
	[[ $missed == "${3:-}" ]] || fail "not named: $missed"$'\n'"named: $got"
	run ! grep '^gap' <<<"$got"
}

@test "every way to change something is named: ext4, filesystem marks" {
	requires ext4
	fs=$(mk_fs ext4 64M)
	mkdir "$fs/tree" "$fs/out"
	record "$fs/tree"
	grep 'recording with fanotify, filesystem marks' log
	every_call "$fs/tree" "$fs/out"
}

@test "every way to change something is named: XFS, filesystem marks" {
	requires xfs
	fs=$(mk_fs xfs 300M)
	mkdir "$fs/tree" "$fs/out"
	record "$fs/tree"
	grep 'recording with fanotify, filesystem marks' log
	every_call "$fs/tree" "$fs/out"
}

@test "every way to change something is named: a btrfs subvolume, directory marks" {
	requires btrfs
	fs=$(mk_fs btrfs 128M)
	btrfs -q subvolume create "$fs/sub"
	mkdir "$fs/sub/tree" "$fs/sub/out"
	record "$fs/sub/tree"
	grep 'recording with fanotify, directory marks' log
	# A mark of a directory does not hear of a name outside.
	"$repl_root/tests/lib/touch-every" prepare "$fs/sub/tree" "$fs/sub/out"
	every_call "$fs/sub/tree" "$fs/sub/out" "inode $(stat -c %i "$fs/sub/tree/linked_out")"
}

@test "without privilege it is inotify: every way inside the tree is named" {
	requires ext4 setpriv
	fs=$(mk_fs ext4 64M)
	mkdir "$fs/tree" "$fs/out"
	"$repl_root/tests/lib/touch-every" prepare "$fs/tree" "$fs/out"
	unprivileged "$fs/tree"
	grep 'recording with inotify' log
	before=$(cut_now)
	"$repl_root/tests/lib/touch-every" change "$fs/tree" "$fs/out" >want.txt
	cut_now
	paths "$before" | sed "s|^${fs#/}/tree/||" | sort -u >got.txt
	# Names that are gone by now make it doubt everything, and that is all that it says then.
	grep -qx "gap ${fs#/}/tree" got.txt || fail "$(cat got.txt)"
	# Without those: each one by its name.
	before=$(cut_now)
	echo new >>"$fs/tree/write"
	mv "$fs/tree/chmod" "$fs/tree/chmod2"
	ln "$fs/tree/chown" "$fs/tree/chown2"
	mkdir -p "$fs/tree/deep/er"
	echo new >"$fs/tree/came_dir/deep/file"
	rm "$fs/tree/setxattr"
	cut_now
	names "$before" "$fs"/tree/{write,chmod,chmod2,chown2,deep,came_dir/deep/file,setxattr}
	run ! grep '^gap' <<<"$(paths "$before")"
}

# unprivileged OPTION... PATH...: record, without any capability.
unprivileged() {
	: >log
	setpriv --bounding-set=-all --inh-caps=-all repl-track -v -j "$j" --record "$@" 2>log 3>&- &
	recorder=$!
	until_true is_recording
}

# With each of the sources.
each_source() {
	local s
	requires ext4
	for s in fanotify fanotify-dirs inotify; do
		fs=$(mk_fs ext4 64M)
		mkdir "$fs/tree" "$fs/out"
		"$1" "$s"
		stop
		rm -rf "$j"
	done
}

new_subtrees() {
	local before after
	record --source="$1" "$fs/tree"
	python3 - "$fs/tree" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for i in range(1000):
		    os.makedirs(f"{i}/b/c/d")
		    open(f"{i}/b/c/d/f", "w").write("x")
	PY
	before=$(cut_now)
	# Each of them is named, or something above it that is to be looked at whole.
	seq -f "${fs#/}/tree/%g" 0 999 | sort >want.txt
	paths 0 | sed 's|\(/tree/[0-9]*\)/.*|\1|' | sort -u >got.txt
	[[ -z $(comm -23 want.txt got.txt) ]] || fail "$1: $(comm -23 want.txt got.txt)"
	# And what happens in them later is heard.
	python3 - "$fs/tree" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for i in range(1000):
		    open(f"{i}/b/c/d/f", "a").write("y")
	PY
	after=$(cut_now)
	[[ $after -gt $before ]]
	sed 's|$|/b/c/d/f|' want.txt | sort >want2.txt
	paths "$before" >got.txt
	[[ -z $(comm -23 want2.txt got.txt) ]] || fail "$1: $(comm -23 want2.txt got.txt)"
}

# bats test_tags=slow
@test "a new directory with things in it is whole in the list, however fast it was filled (A1)" {
	each_source new_subtrees
}

moves() {
	local before
	mkdir -p "$fs/tree/a1/x" "$fs/tree/A" "$fs/out/in/deep" "$fs/tree/gone/deep"
	echo 1 | tee "$fs/tree/a1/x/y" "$fs/tree/A/f" "$fs/out/in/deep/f" "$fs/tree/gone/deep/f" "$fs/tree/foo" >/dev/null
	record --source="$1" "$fs/tree"
	# Renamed twice, then written (A11); a chain (A12); in and out (A13); the old name made anew (A14).
	mv "$fs/tree/a1" "$fs/tree/b1"
	mv "$fs/tree/b1" "$fs/tree/c1"
	echo 2 >"$fs/tree/c1/x/y"
	mv "$fs/tree/foo" "$fs/tree/bar"
	mv "$fs/tree/bar" "$fs/tree/baz"
	mv "$fs/out/in" "$fs/tree/in"
	mv "$fs/tree/gone" "$fs/out/gone"
	mv "$fs/tree/A" "$fs/tree/B"
	mkdir "$fs/tree/A"
	before=$(cut_now)
	names 0 "$fs"/tree/{a1,b1,c1,foo,bar,baz,in,gone,A,B}
	repl-show "$j"/batches/*.repl | grep "flags=.*subtree name='c1'"
	repl-show "$j"/batches/*.repl | grep "flags=.*subtree name='in'"
	# From now on they are where they are.
	echo 3 >"$fs/tree/in/deep/f"
	echo 3 >"$fs/out/gone/deep/f"
	echo 3 >"$fs/tree/B/f"
	echo 3 >"$fs/tree/A/f"
	cut_now
	names "$before" "$fs"/tree/{in/deep/f,B/f,A/f}
	run ! grep gone <<<"$(paths "$before")"
}

# bats test_tags=slow
@test "directories that are renamed, come in and go out (A11, A12, A13, A14)" {
	each_source moves
}

# What the events speak of has moved on by the time they are read. Afterwards each directory is heard where it is.
moved_meanwhile() {
	local before f made
	rm -rf "$fs/tree" "$fs/out"
	mkdir -p "$fs"/tree/{a/x/1,b/y/2,c,e/p/q,f/p/q,g/h,k/l/m} "$fs/out"
	record --source="$1" "$fs/tree"
	kill -STOP "$recorder"
	exchange "$fs/tree/a/x" "$fs/tree/b/y"
	# Made in one that is renamed, or whose parent is, before anybody looks.
	mkdir "$fs/tree/c/new"
	mv "$fs/tree/c" "$fs/tree/d"
	mkdir "$fs/tree/k/l/new"
	mv "$fs/tree/k" "$fs/out/k"
	mv "$fs/out/k" "$fs/tree/K"
	# Another one stands where it was.
	mkdir "$fs/tree/e/p/q/new"
	exchange "$fs/tree/e" "$fs/tree/f"
	mkdir "$fs/tree/e/p/q/new"
	# One that was above another is below it.
	mv "$fs/tree/g/h" "$fs/tree/h"
	mv "$fs/tree/g" "$fs/tree/h/g"
	mkdir "$fs/tree/h/g/new"
	kill -CONT "$recorder"
	cut_now
	cut_now
	before=$(cut_now)
	find "$fs/tree" -mindepth 1 -type d -printf '%p/file\n' >made
	while read -r f; do
		echo x >"$f"
	done <made
	cut_now
	mapfile -t made <made
	names "$before" "${made[@]}" || fail "$1: it is deaf for this directory"
}

exchange() {
	python3 - "$@" <<-'PY'
		import ctypes, os, sys
		RENAME_EXCHANGE = 2
		if ctypes.CDLL(None, use_errno=True).renameat2(-100, os.fsencode(sys.argv[1]), -100, os.fsencode(sys.argv[2]), RENAME_EXCHANGE):
		    sys.exit(os.strerror(ctypes.get_errno()))
	PY
}

@test "directories that moved on before anybody looked are heard where they are" {
	each_source moved_meanwhile
}

# Else directories in directories that all move some times, which takes a moment, take the recorder hours.
moves_often() {
	local before
	mkdir -p "$fs/tree/$(printf '%s/' {1..40})"{1..100}
	record --source="$1" "$fs/tree"
	before=$(cut_now)
	kill -STOP "$recorder"
	python3 - "$fs/tree" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for name in range(1, 41):
		    for i in range(5):
		        os.rename(str(name), "x")
		        os.rename("x", str(name))
		    os.chdir(str(name))
		os.mkdir("77/new")
	PY
	strace -o calls -e trace=inotify_add_watch,fanotify_mark -p "$recorder" 2>strace.log 3>&- &
	others=$!
	until_true grep -q '^TracerPid:[^0-9]*[1-9]' "/proc/$recorder/status"
	kill -CONT "$recorder"
	cut_now
	echo file >"$fs/tree/$(printf '%s/' {1..40})77/new/file"
	cut_now
	names "$before" "$fs/tree/$(printf '%s/' {1..40})77/new/file"
	run ! grep '^gap' <<<"$(paths "$before")"
	echo "$(wc -l <calls) watches"
	(($(wc -l <calls) < 1500))
}

@test "a tree that moves again and again is looked through once" {
	requires strace no-sanitizer
	each_source moves_often
}

overflows() {
	local before
	mkdir "$fs/tree/late"
	record --source="$1" "$fs/tree"
	kill -STOP "$recorder"
	python3 - "$fs/tree" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for i in range(20000):
		    os.close(os.open(f"late/{i}", os.O_CREAT | os.O_WRONLY))
		    os.unlink(f"late/{i}")
	PY
	kill -CONT "$recorder"
	before=$(cut_now)
	paths 0 | grep -qx "gap ${fs#/}/tree" || fail "$1: $(paths 0)"
	grep 'overflowed' log
	mkdir "$fs/tree/late/d"
	echo x >"$fs/tree/late/d/new"
	cut_now
	names "$before" "$fs/tree/late/d"
	run ! grep '^gap' <<<"$(paths "$before")"
}

# bats test_tags=slow
@test "a queue that overflows is a gap, and recording goes on (A2)" {
	each_source overflows
}

replaced() {
	local before
	record --source="$1" "$fs/tree"
	mv "$fs/tree" "$fs/old"
	mkdir -p "$fs/tree/d"
	before=$(cut_now)
	paths 0 | grep -qx "gap ${fs#/}/tree" || fail "$1: $(paths 0)"
	echo x >"$fs/tree/d/f"
	echo x >"$fs/old/f"
	rm -rf "${fs:?}/old/f"
	cut_now
	names "$before" "$fs/tree/d/f"
	run ! grep '^gap' <<<"$(paths "$before")"
	rm -r "$fs/tree"
	before=$(cut_now)
	cut_now
	paths "$before" | grep -qx "gap ${fs#/}/tree" || fail "$1: $(paths "$before")"
	mkdir "$fs/tree"
	before=$(cut_now)
	echo x >"$fs/tree/f"
	cut_now
	names "$before" "$fs/tree/f"
	run ! grep '^gap' <<<"$(paths "$before")"
}

# bats test_tags=slow
@test "a path that is replaced, removed and made anew is a gap each time" {
	each_source replaced
}

remounted() {
	local before img
	record --source="$1" "$fs/tree"
	echo x >"$fs/tree/f"
	img=$(losetup -nO BACK-FILE "$(findmnt -no SOURCE "$fs")")
	# Nothing of ours keeps it from being unmounted.
	umount "$fs"
	mount -o loop "$img" "$fs"
	before=$(cut_now)
	paths 0 | grep -qx "gap ${fs#/}/tree" || fail "$1: $(paths 0)"
	echo x >"$fs/tree/g"
	cut_now
	names "$before" "$fs/tree/g"
	run ! grep '^gap' <<<"$(paths "$before")"
}

@test "unmounted and mounted again while it runs: a gap, and recording goes on" {
	each_source remounted
}

mounted_over() {
	local before
	mkdir -p "$fs/tree/d/hidden"
	record --source="$1" "$fs/tree"
	before=$(cut_now)
	mount -t tmpfs none "$fs/tree/d"
	before=$(cut_now)
	paths 0 >got.txt
	grep -qx -e "gap ${fs#/}/tree/d" -e "gap ${fs#/}/tree" got.txt || fail "$1: $(cat got.txt)"
	run ! grep hidden got.txt
	echo x >"$fs/tree/d/f"
	cut_now
	names "$before" "$fs/tree/d/f"
	umount "$fs/tree/d"
	before=$(cut_now)
	paths "$((before - 1))" | grep -qx -e "gap ${fs#/}/tree/d" -e "gap ${fs#/}/tree" || fail "$1"
	echo x >"$fs/tree/d/hidden/f"
	cut_now
	names "$before" "$fs/tree/d/hidden/f"
}

# bats test_tags=slow
@test "a filesystem mounted below a path is recorded, too, and nothing that it hides is gone (A18)" {
	each_source mounted_over
}

@test "the limit of watches is an error that names it, not half a record (A3)" {
	requires root unshare
	unshare -Ur true || skip "needs user namespaces"
	mkdir tree tree/{1..40}
	run -6 unshare -Ur bash -c 'echo 20 >/proc/sys/user/max_inotify_watches && exec repl-track -j journal --record tree'
	has "$output" "too many directories to watch with inotify: raise /proc/sys/fs/inotify/max_user_watches"
	# The same when it comes later.
	rmdir tree/{11..40}
	unshare -Ur bash -c 'echo 20 >/proc/sys/user/max_inotify_watches && exec repl-track -v -j journal --record tree' 2>log 3>&- &
	recorder=$!
	until_true is_recording
	mkdir tree/{11..40}
	ends_with 6
	grep 'too many directories to watch' log
}

@test "its own files are nobody's changes (A20)" {
	requires ext4
	fs=$(mk_fs ext4 64M)
	mkdir -p "$fs/tree/.repl" "$fs/tree/sub/.repl"
	j=$fs/tree/journal
	record "$fs/tree"
	[[ $(cut_now) == 0 ]]
	echo x >"$fs/tree/.repl/f"
	mkdir "$fs/tree/.repl/d"
	[[ $(cut_now) == 0 ]]
	echo x >"$fs/tree/sub/.repl/f"
	[[ $(cut_now) == 1 ]]
	[[ $(cut_now) == 1 ]]
	[[ $(paths 0) == "${fs#/}/tree/sub/.repl/f" ]]
}

@test "killed: the next recorder begins a new journal (A15)" {
	requires ext4
	# On a filesystem of its own: others change things on /, and may be heard.
	cd "$(mk_fs ext4 64M)" || return
	mkdir tree
	record "$PWD/tree"
	first=$(repl-track -j "$j" --cut)
	echo x >tree/f
	cut_now
	kill -KILL "$recorder"
	wait "$recorder" || :
	run -7 repl-track -j "$j" --cut
	has "$output" "there is no record: no recorder is running"
	record "$PWD/tree"
	second=$(repl-track -j "$j" --cut)
	[[ ${first%:*} != "${second%:*}" && ${second##*:} == 0 ]]
	[[ -z $(ls "$j/batches") ]]
}

@test "a second recorder of the same journal is told who is first" {
	mkdir tree
	record "$PWD/tree"
	run -8 repl-track -j "$j" --record tree
	has "$output" "$recorder"
	cut_now
}

@test "what is wrong on the command line is said" {
	mkdir tree
	echo >file
	run -2 repl-track -j "$j" --record
	has "$output" "what is to be recorded"
	run -2 repl-track --record tree
	has "$output" "which journal"
	run -2 repl-track -j "$j" --record --cut tree
	has "$output" "at a time"
	run -2 repl-track -j "$j" --record file
	has "$output" "not a directory"
	run -1 repl-track -j "$j" --record nothing
	has "$output" "cannot record 'nothing': No such file"
	run -2 repl-track -j "$j" --record --source=dmesg tree
	has "$output" "there is no event source 'dmesg'"
	run -2 repl-track -j "$j" --cut tree
	has "$output" "only --record takes paths"
	# The journal may lie in what it records, but not the other way round.
	mkdir tree/j
	run -2 repl-track -j tree/j --record tree/j
	has "$output" "it lies in the journal"
	run -1 repl-track -j nowhere --cut
	has "$output" "cannot open the journal 'nowhere'"
}

@test "it stops cleanly on a signal, and says what it does when asked" {
	mkdir tree
	for s in TERM INT HUP; do
		: >log
		# A shell's background job does not get INT.
		python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' repl-track -v -j "$j" --record tree 2>log 3>&- &
		recorder=$!
		until_true is_recording
		[[ -S $j/socket ]]
		kill -USR1 "$recorder"
		until_true grep -q 'names waiting' log
		kill -"$s" "$recorder"
		ends_with $((128 + $(kill -l "$s")))
		[[ ! -e $j/socket ]]
	done
}

@test "systemd is told when it is ready, that it lives, and that it stops" {
	mkdir tree
	python3 - >told 3>&- <<-'PY' &
		import os, socket
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.bind("notify")
		while True:
		    text = s.recv(4096).decode()
		    print(text, end="", flush=True)
		    if "STOPPING=1" in text:
		        break
	PY
	others=$!
	until_true test -S notify
	NOTIFY_SOCKET=$PWD/notify WATCHDOG_USEC=200000 repl-track -v -j "$j" --record tree 2>log 3>&- &
	recorder=$!
	until_true grep -q '^WATCHDOG=1$' told
	[[ $(head -n 1 told) == READY=1 ]]
	grep '^STATUS=recording with' told
	stop
	wait "$others"
	[[ $(tail -n 1 told) == STOPPING=1 ]]
}

@test "--status says what people and monitors want to know" {
	requires ext4
	# On a filesystem of its own: others change things on /, and may be heard.
	cd "$(mk_fs ext4 64M)" || return
	mkdir tree
	record "$PWD/tree"
	echo x >tree/f
	cut_now
	repl-track -j "$j" --status >text
	cat text
	grep '^seq: 1$' text
	grep '^batches: 1$' text
	repl-track -j "$j" --status --json | python3 -c 'import json, sys; s = json.load(sys.stdin); assert s["seq"] == 1, s'
}

@test "clients that talk nonsense, or nothing, or go away, harm nobody" {
	mkdir tree
	record "$PWD/tree"
	python3 - "$j/socket" 3>&- <<-'PY' &
		import os, socket, sys, time
		def new():
		    s = socket.socket(socket.AF_UNIX)
		    s.connect(sys.argv[1])
		    return s
		held = [new() for i in range(100)]          # more than there is room for
		for text in (b"\0\xff\n", b"x" * 5000, b"cut", b"cut\n", b"wait\n", b"wait " + b"0" * 32 + b" 1 2 3 4\n", b"\n", b"cut now\n",
		        b"wait " + b"0" * 32 + b" 1 1 1 99999999999999999999 1\n"):
		    s = new()
		    try:
		        s.sendall(text)
		    except OSError:
		        pass
		    s.close()
		s = new()
		try:
		    for i in range(100000):                   # never reads
		        s.send(b"status\n")
		except OSError:
		    pass
		s = new()
		s.sendall(b"what\n")
		assert s.recv(100) == b"no such question\n"
		assert s.recv(100) == b""
		open("told", "w")
		time.sleep(600)
	PY
	others=$!
	until_true test -e told
	echo x >tree/f
	cut_now
	names 0 "$PWD/tree/f"
}

@test "files that are held open are named at each cut: mappings, and what is behind a loop device (A4)" {
	requires ext4
	fs=$(mk_fs ext4 64M)
	mkdir "$fs/tree"
	truncate -s 1M "$fs/tree/mapped" "$fs/tree/open" "$fs/tree/reading" "$fs/tree/several"
	truncate -s 8M "$fs/tree/image"
	mkfs.ext4 -q -F "$fs/tree/image"
	ln "$fs/tree/several" "$fs/tree/several2"
	record "$fs/tree"
	python3 - "$fs/tree" 3>&- <<-'PY' &
		import mmap, os, signal, sys
		os.chdir(sys.argv[1])
		def mapped(name):
		    fd = os.open(name, os.O_RDWR)
		    m = mmap.mmap(fd, 4096)
		    os.close(fd)
		    return m
		a, b = mapped("mapped"), mapped("several")
		w = os.open("open", os.O_WRONLY)
		r = os.open("reading", os.O_RDONLY)
		def store(*_):
		    a[0:1] = b[0:1] = b"x"
		    open("../stored", "w")
		signal.signal(signal.SIGUSR1, store)
		open("../ready", "w")
		while True:
		    signal.pause()
	PY
	others=$!
	until_true test -e "$fs/ready"
	loop=$(losetup -f --show "$fs/tree/image")
	before=$(cut_now)
	kill -USR1 "$others"
	until_true test -e "$fs/stored"
	mkdir mnt
	mount "$loop" mnt
	echo x >mnt/f
	umount mnt
	cut_now
	losetup -d "$loop"
	names "$before" "$fs"/tree/{mapped,open,image}
	paths "$before" | grep -qx "inode $(stat -c %i "$fs/tree/several")"
	run ! grep reading <<<"$(paths "$before")"
	# Once nobody holds them any more, the kernel tells, and then they are like all others.
	kill "$others"
	wait "$others" || :
	before=$(cut_now)
	cut_now
	run ! grep -e mapped -e open -e inode <<<"$(paths "$before")"
}

# open_for_aio FIFO NAME...: opens the files, makes ../ready, and for each line of FIFO writes to each of them with io_submit(2).
open_for_aio() {
	python3 - "$@" 3>&- <<-'PY' &
		import ctypes, os, struct, sys
		fifo, *names = sys.argv[1:]
		syscall = ctypes.CDLL(None, use_errno=True).syscall
		SETUP, GETEVENTS, SUBMIT = {"x86_64": (206, 208, 209), "aarch64": (0, 4, 2)}[os.uname().machine]
		ctx, data, event = ctypes.c_ulong(), ctypes.create_string_buffer(b"some bytes"), ctypes.create_string_buffer(32)
		if syscall(SETUP, 4, ctypes.byref(ctx)):
		    sys.exit("io_setup: " + os.strerror(ctypes.get_errno()))
		fds = [os.open(n, os.O_RDWR) for n in names]
		open(fifo + ".ready", "w")
		while True:
		    with open(fifo) as f:
		        if not f.readline():
		            continue
		    for fd in fds:
		        # struct iocb: data, key, rw_flags, opcode (1: pwrite), priority, fildes, buf, nbytes, offset, ...
		        cb = ctypes.create_string_buffer(struct.pack("QIIHhIQQqQII", 0, 0, 0, 1, 0, fd, ctypes.addressof(data), 10, 0, 0, 0, 0))
		        one = ctypes.c_void_p(ctypes.addressof(cb))
		        if syscall(SUBMIT, ctx, 1, ctypes.byref(one)) != 1 or syscall(GETEVENTS, ctx, 1, 1, event, None) != 1:
		            sys.exit("io_submit: " + os.strerror(ctypes.get_errno()))
		    open(fifo + ".done", "w")
	PY
	others="$others $!"
	until_true test -e "$1.ready"
}

@test "asynchronous writes to what is held open are found, to a FIFO as well: its name has a new time" {
	requires root
	mkdir tree
	mkfifo tree/fifo tree/one orders
	ln tree/one tree/other
	: >tree/file
	record tree
	open_for_aio "$PWD/orders" "$PWD"/tree/{fifo,one,file}
	local ship="repl-snap -s s tree | repl-track -v -s s -j '$j' 2>track.log | repl-diff -s s | repl-apply r | repl-snap -s s --commit"
	run_pipe "$ship"
	stat -c '%n %y' tree/{fifo,file,one} | sort >before
	echo go >orders
	until_true test -e orders.done
	stat -c '%n %y' tree/{fifo,file,one} | sort >after
	run -0 comm -12 before after
	[[ $output == "" ]] || fail "these have the same time as before: $output"
	run_pipe "$ship"
	has "$(<track.log)" "the recorder knows of"
	same_tree tree r
}

@test "what is written and then renamed, as editors and rsync do it, is named and costs no look by inode" {
	requires root ext4
	fs=$(mk_fs ext4 32M)
	mkdir "$fs/tree" "$fs/out" "$fs/tree/d"
	echo x >"$fs/tree/linked"
	ln "$fs/tree/linked" "$fs/out/link"
	record "$fs/tree"
	before=$(cut_now)
	for i in {1..30}; do
		for dir in tree tree/d out; do
			echo "$i" >"$fs/$dir/.f$i.new"
			mv "$fs/$dir/.f$i.new" "$fs/$dir/f$i"
		done
	done
	mv "$fs/tree/f1" "$fs/tree/d/moved"
	mv "$fs/tree/f2" "$fs/out/gone"
	cut_now
	names "$before" "$fs"/tree/f{1..30} "$fs"/tree/d/f{1..30} "$fs/tree/d/moved"
	paths "$before" >got
	! grep -E '^inode|^gap|/out' got >bad || fail "$(cat bad)"
	# Not so what has another name.
	before=$(cut_now)
	echo y >>"$fs/out/link"
	mv "$fs/out/link" "$fs/out/renamed"
	cut_now
	paths "$before" | grep -qx "inode $(stat -c %i "$fs/tree/linked")"
}

@test "what is written through a file handle is named by its inode, as a file server does" {
	requires ext4
	fs=$(mk_fs ext4 64M)
	mkdir "$fs/tree"
	echo old >"$fs/tree/f"
	cat >by-handle <<-'PY'
		import ctypes, os, sys
		libc = ctypes.CDLL(None, use_errno=True)
		class Handle(ctypes.Structure):
		    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
		h = Handle(128, 0)
		if sys.argv[1] == "save":
		    n = ctypes.c_int()
		    assert libc.name_to_handle_at(-100, sys.argv[2].encode(), ctypes.byref(h), ctypes.byref(n), 0) == 0
		    open("handle", "wb").write(bytes(h))
		else:
		    h = Handle.from_buffer_copy(open("handle", "rb").read())
		    at = os.open(sys.argv[2], os.O_RDONLY)
		    fd = libc.open_by_handle_at(at, ctypes.byref(h), os.O_WRONLY)
		    assert fd >= 0, os.strerror(ctypes.get_errno())
		    os.write(fd, b"new")
	PY
	python3 by-handle save "$fs/tree/f"
	img=$(losetup -nO BACK-FILE "$(findmnt -no SOURCE "$fs")")
	umount "$fs"
	mount -o loop "$img" "$fs"
	record "$fs/tree"
	python3 by-handle write "$fs"
	cut_now
	[[ $(paths 0) == "inode $(stat -c %i "$fs/tree/f")" ]] || fail "$(paths 0)"
}

@test "paths longer than the kernel tells are a gap above them" {
	requires ext4
	fs=$(mk_fs ext4 64M)
	mkdir "$fs/tree"
	record "$fs/tree"
	python3 - "$fs/tree" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for i in range(30):
		    os.mkdir("d" * 200)
		    os.chdir("d" * 200)
	PY
	before=$(cut_now)
	python3 - "$fs/tree" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for i in range(30):
		    os.chdir("d" * 200)
		open("f", "w")
	PY
	cut_now
	paths "$before" | grep '^gap .*/ddd'
}

@test "a journal that cannot be written costs the cut, and no change" {
	requires ext4
	fs=$(mk_fs ext4 16M)
	mkdir tree
	j=$fs/journal
	record "$PWD/tree"
	dd if=/dev/zero of="$fs/filler" bs=64K 2>/dev/null || :
	dd if=/dev/zero of="$fs/filler2" bs=1K 2>/dev/null || :
	for i in {1..2000}; do
		: >"tree/$i-with-a-name-that-takes-some-room-in-the-journal"
	done
	run -7 repl-track -j "$j" --cut
	has "$output" "No space left on device"
	: >tree/later
	rm "$fs/filler" "$fs/filler2"
	cut_now
	names 0 "$PWD"/tree/{1,2000}-with-a-name-that-takes-some-room-in-the-journal "$PWD/tree/later"
	run ! grep '^gap' <<<"$(paths 0)"
}

@test "memory stays below 32 MiB with 300,000 changed names, and all of them are there" {
	requires no-sanitizer root
	mkdir tree
	mount -t tmpfs -o nr_inodes=400000 none tree
	echo "$PWD/tree" >>.mounts
	record "$PWD/tree"
	python3 - tree <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for d in range(300):
		    os.mkdir(f"directory-{d}")
		# Told one by one, for the directories were there before.
		open("../made", "w")
	PY
	before=$(cut_now)
	python3 - tree <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		for i in range(1000):
		    for d in range(300):
		        os.mknod(f"directory-{d}/some-file-name-{i}")
	PY
	cut_now
	peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$recorder/status")
	echo "peak: $peak KiB"
	((peak < 32768))
	shown "$before" >shown.txt
	n=$(grep -c "^changed .*some-file-name" shown.txt) || :
	((n >= 300000)) || grep '^gap' shown.txt || fail "only $n names"
	echo "$n names, $(grep -c '^gap' shown.txt || :) gaps"
}
