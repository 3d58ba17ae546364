#!/usr/bin/env bats
# repl-track with a recorder: what it hears of is all that is looked at; and whatever may have been missed is noticed, said, and
# costs one comparison.

load lib/setup
export REPL_LEAKS=0

setup() {
	common_setup
	recorder=
	others= # processes that end with the test
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

# record [OPTION...] PATH...: starts a recorder, and waits until it records.
record() {
	: >record.log
	repl-track -v -j "$PWD/J" --record "$@" 2>record.log 3>&- &
	recorder=$!
	until_true is_recording
}

is_recording() {
	grep -q 'recording with' record.log && return
	kill -0 "$recorder" 2>/dev/null && return 1
	fail "the recorder ended: $(cat record.log)" || return 99
}

stop() {
	kill "$recorder"
	wait "$recorder" || :
	recorder=
}

# A filesystem of its own: nobody else changes it. $fs/src is the source.
source_on() {
	requires "$1"
	fs=$(mk_fs "$1" "${2:-64M}")
	mkdir "$fs/src"
	src=$fs/src
}

# The whole pipeline; track.log has what repl-track -v says, change what it found. $snap, $track, $diff: options.
# $track_rc, $diff_rc: the statuses that are expected of these two.
ship() {
	# shellcheck disable=SC2086
	repl-snap -v -s S ${snap:-} ${roots:-"$src"} 2>snap.log | repl-track -v -s S ${track:-} "$@" 2>track.log | tee change |
		${wrap:-} repl-diff -v --stats -s S ${diff:-} 2>diff.log | tee delta | repl-pack | repl-apply R | repl-snap -s S --commit
	local rc="${PIPESTATUS[*]}"
	[[ $rc == "0 ${track_rc:-0} 0 ${diff_rc:-0} 0 0 0 0" ]] || fail "statuses $rc; $(cat snap.log track.log diff.log)"
}

# ship, and the replica is the source; the recorder knew all of it.
ship_listed() {
	ship
	same_tree "$src" R
	grep -q 'the recorder knows of' track.log || fail "not by the recorder: $(cat track.log)"
	run ! grep 'comparing' track.log diff.log
}

# ship, and the replica is the source; everything was compared, because of this.
ship_compared() {
	ship
	same_tree "$src" R
	grep -q "comparing everything: .*$1" track.log || fail "not compared because '$1': $(cat track.log)"
}

# Names that repl-diff looked at.
looked_at() {
	sed -n 's/.*looked at: *\([0-9]*\) names/\1/p' diff.log
}

# A first run, and one more by the recorder.
begin() {
	record "$src"
	ship -j J
	same_tree "$src" R
	ship_listed
}

# bats test_tags=slow
@test "a run looks only at what the recorder has heard of" {
	source_on ext4
	mkdir -p "$src"/{a,b}/{c,d}
	for i in {1..500}; do
		for d in a/c a/d b/c b/d; do echo "$i" >"$src/$d/$i"; done
	done
	record "$src"
	ship -j J
	grep 'there is no base yet: everything is new' track.log
	[[ $(cat S/journal) == "$PWD/J" ]]
	ship_listed
	(($(looked_at) <= 2)) || fail "looked at $(looked_at) names though nothing changed"
	echo more >>"$src/a/c/7"
	rm "$src/b/d/500"
	mv "$src/b/c/3" "$src/b/c/new"
	ship_listed
	(($(looked_at) < 20)) || fail "looked at $(looked_at) names for three changes"
	# What is forgotten is not asked.
	ship -j none
	run ! grep recorder track.log
	[[ ! -e S/journal ]]
	same_tree "$src" R
}

# bats test_tags=slow
@test "inotify, and other filesystems, serve as well" {
	for type in xfs btrfs; do
		source_on "$type" 300M
		begin
		mkdir "$src/d"
		echo x >"$src/d/f"
		ship_listed
		mv "$src/d" "$src/e"
		echo y >>"$src/e/f"
		ship_listed
		stop
		rm -rf S R J
	done
	record --source=inotify "$src"
	ship -j J
	mkdir -p "$src/new/deep"
	echo x >"$src/new/deep/f"
	echo y >>"$src/e/f"
	ship_listed
}

@test "what happens between the image and the look at it comes in the next run" {
	source_on ext4
	begin
	echo one >"$src/f"
	repl-snap -s S "$src" >image
	echo two >"$src/g"
	repl-track -v -s S <image 2>track.log >change
	echo three >>"$src/f"
	repl-diff -s S <change | repl-apply R | repl-snap -s S --commit
	ship_listed
	[[ $(cat R/f) == $'one\nthree' && $(cat R/g) == two ]]
}

@test "what was not acknowledged is in the next list again" {
	source_on ext4
	begin
	echo one >"$src/f"
	run_pipe "repl-snap -s S '$src' | repl-track -s S | repl-diff -s S >lost"
	echo two >"$src/g"
	run_pipe "repl-snap -s S '$src' | repl-track -s S | repl-diff -s S | repl-apply R >answer"
	echo three >"$src/h"
	# The answer comes late: the base is another one, with what it knows of the recorder.
	repl-snap -s S --commit <answer
	ship_listed
	[[ $(cat R/f R/g R/h) == $'one\ntwo\nthree' ]]
}

# bats test_tags=slow
@test "directories made in a hurry, with files in them at once" {
	source_on ext4
	begin
	python3 - "$src" <<-'PY'
		import os, sys
		for i in range(1000):
		    d = "%s/%d/b/c/d" % (sys.argv[1], i)
		    os.makedirs(d)
		    with open(d + "/f", "w") as f:
		        f.write(str(i))
	PY
	ship_listed
}

@test "changes that only a recorder sees, or hardly: times set back, inodes used again, the same size" {
	source_on ext4
	pushd "$src"
	for f in touched over same gone foo A; do echo "old $f" >"$f"; done
	mkdir -p a1/x out B/deep
	echo one >a1/x/f
	popd
	mkdir "$fs/outside"
	mkdir -p "$fs/in/deep"
	echo in >"$fs/in/deep/f"
	begin
	pushd "$src"
	# The modification time restored; another file with the same size and time; rewritten within a tick of the clock.
	cp -a touched ref
	echo new touched | head -c 12 >touched
	touch -r ref touched
	echo "new over" >over.new
	touch -r over over.new
	mv over.new over
	echo "1ld same" >same
	echo "2ld same" >same
	# An inode number used again.
	rm gone
	echo "new gone" >reused
	# Renamed twice, and then something in it; a chain of names; moved, and the old name made anew.
	mv a1 b1
	mv b1 c1
	echo two >c1/x/y
	mv foo bar
	mv bar baz
	mv A A2
	cp A2 A
	# In and out.
	mv "$fs/in" .
	mv B "$fs/outside"
	popd
	ship_listed
	[[ $(cat R/c1/x/y) == two && $(cat R/baz) == "old foo" && ! -e R/foo && ! -e R/B ]]
	ship_listed
}

@test "files without a name, holes, ranges moved, metadata alone" {
	source_on xfs 300M
	requires fallocate setfattr
	head -c 1M /dev/urandom | tee "$src"/{punch,collapse,insert,zero,cut,chmod,xattr} >"$src/chown"
	begin
	pushd "$src"
	fallocate -p -o 64K -l 128K punch
	fallocate -c -o 64K -l 64K collapse
	fallocate -i -o 64K -l 64K insert
	fallocate -z -o 64K -l 64K zero
	truncate -s 100000 cut
	python3 - <<-'PY'
		import os
		def unnamed(text):
		    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o644)
		    os.write(fd, text)
		    return fd
		kept, linked = unnamed(b"never"), unnamed(b"linked")
		os.link("/proc/self/fd/%d" % linked, "linked", dst_dir_fd=os.open(".", os.O_RDONLY), follow_symlinks=True)
		f = open("open", "w")
		f.write("deleted while it is open")
		f.flush()
		os.unlink("open")
	PY
	popd
	ship_listed
	[[ $(cat R/linked) == linked && ! -e R/open ]]
	chmod 600 "$src/chmod"
	chown 12:34 "$src/chown"
	setfattr -n user.name -v value "$src/xattr"
	ship_listed
	(($(stat -c %s delta) < 4096)) || fail "metadata cost $(stat -c %s delta) bytes"
}

# bats test_tags=slow
@test "stores through a mapping are named while it stands, and when it goes" {
	source_on ext4
	head -c 64K /dev/zero >"$src/mapped"
	head -c 64K /dev/zero >"$src/other"
	begin
	mkfifo ask answer
	python3 - "$src/mapped" 3>&- <<-'PY' &
		import mmap, sys
		f = open(sys.argv[1], "r+b")
		m = mmap.mmap(f.fileno(), 0)
		for n, line in enumerate(open("ask")):
		    m[4096 * n:4096 * n + 5] = line[:5].encode()
		    with open("answer", "w") as a:
		        a.write("done\n")
	PY
	others=$!
	exec 7>ask
	for text in first again third; do
		echo $text >&7
		read -r <answer
		ship_listed
		grep -aq $text R/mapped
	done
	# Another store into a page that is dirty already, and nobody holds it when the list is made.
	echo dirty >&7
	read -r <answer
	repl-snap -s S "$src" >image
	exec 7>&-
	wait "$others"
	others=
	ship_listed
	grep -aq dirty R/mapped
}

@test "a file with several names is right under all of them, by whichever it was changed" {
	source_on ext4
	mkdir "$src"/{d,e,z}
	for f in one two three four five six; do
		echo "old $f" >"$src/d/$f"
		ln "$src/d/$f" "$src/e/$f"
	done
	begin
	pushd "$src"
	echo new >>e/one
	# Changed by a name that goes, or goes elsewhere, or stands for something else now.
	echo new >>e/two
	rm e/two
	echo new >>d/three
	mv d/three z/three
	echo new >>e/four
	echo another >e/four.new
	mv e/four.new e/four
	# By one that came and went, and by a directory that goes.
	ln d/five z/passing
	echo new >>z/passing
	rm z/passing
	echo new >>e/six
	mv e gone
	ln d/six d/seventh
	popd
	ship_listed
	[[ $(tail -n 1 R/d/one R/d/two R/gone/three R/d/four R/d/five R/d/six R/d/seventh | grep -c new) == 7 ]]
	rm -r "$src/gone"
	echo more >>"$src/d/seventh"
	ship_listed
}

@test "below a directory that moved, names under its old path count" {
	source_on ext4
	mkdir -p "$src/a/b/c"
	for i in 1 2 3; do echo old >"$src/a/b/c/$i"; done
	begin
	echo new >>"$src/a/b/c/1"
	repl-track -j J --cut
	mv "$src/a" "$src/moved"
	repl-track -j J --cut
	echo new >>"$src/moved/b/c/2"
	mv "$src/moved/b" "$src/b"
	mkdir "$src/a"
	ship_listed
	# There and back.
	mv "$src/b" "$src/away"
	echo new >>"$src/away/c/3"
	repl-track -j J --cut
	mv "$src/away" "$src/b"
	ship_listed
	[[ $(tail -qn 1 R/b/c/{1,2,3} | grep -c new) == 3 ]]
}

@test "an editor's new file under the old name costs no look at the tree" {
	source_on ext4
	mkdir "$src/many"
	for i in {1..1000}; do echo "$i" >"$src/many/$i"; done
	begin
	echo changed >"$src/many/.7.swp"
	mv "$src/many/.7.swp" "$src/many/7"
	ship_listed
	(($(looked_at) < 20)) || fail "looked at $(looked_at) names for one file"
}

# ---- what a list must not hide ----

@test "--checksum compares everything, list or not" {
	source_on ext4
	echo content >"$src/f"
	begin
	diff=--checksum
	ship
	same_tree "$src" R
	(($(sed -n 's/.*content read: *\([0-9]*\) bytes/\1/p' diff.log) >= 8)) || fail "read nothing: $(cat diff.log)"
	# The stat scan's list as well.
	stop
	ship
	(($(sed -n 's/.*content read: *\([0-9]*\) bytes/\1/p' diff.log) >= 8)) || fail "read nothing: $(cat diff.log)"
}

# bats test_tags=slow
@test "other patterns than the base's: everything is compared, once" {
	source_on ext4
	for f in a.o b.c c.d; do echo old >"$src/$f"; done
	record "$src"
	diff='--exclude=*.o'
	ship -j J
	[[ ! -e R/a.o ]]
	ship
	grep 'the recorder knows of' track.log
	run ! grep comparing diff.log
	# Nothing happened to the file; it counts only now.
	diff=
	ship
	grep "comparing everything: patterns or --one-file-system are not those of the base" diff.log
	same_tree "$src" R
	ship_listed
	# And what is left out now stays as it is, on both sides.
	diff='--exclude=*.c'
	echo new >>"$src/b.c"
	rm "$src/c.d"
	ship
	[[ $(cat R/b.c) == old && ! -e R/c.d ]]
	diff=
	ship
	grep "comparing everything" diff.log
	same_tree "$src" R
}

@test "a file that could not be read comes in the next run, though nothing happens to it" {
	source_on ext4
	requires strace no-sanitizer
	mkdir "$src/d"
	for f in old linked kept; do echo one >"$src/d/$f"; done
	begin
	echo two >"$src/d/old"
	echo new >"$src/d/new"
	echo two >"$src/d/linked"
	ln "$src/d/linked" "$src/link2"
	echo new >"$src/d/pair"
	ln "$src/d/pair" "$src/pair2"
	wrap="strace -f -o trace -e trace=openat2,openat -e inject=openat2,openat:error=EIO -P old -P new -P linked -P link2 -P pair -P pair2"
	diff_rc=3
	ship
	grep 'the recorder knows of' track.log
	grep "cannot read 'd/old': Input/output error" diff.log
	[[ $(cat R/d/old) == one && ! -e R/d/new && ! -e R/pair2 ]]
	# It is still so, and the list has them again.
	ship
	grep "cannot read 'd/new': Input/output error" diff.log
	wrap='' diff_rc=0
	ship_listed
	[[ $(cat R/d/old R/d/new R/link2 R/pair2) == $'two\nnew\ntwo\nnew' ]]
	[[ R/d/pair -ef R/pair2 && R/d/linked -ef R/link2 ]]
	# Now that they were taken nobody looks at them.
	ship_listed
	(($(looked_at) <= 2)) || fail "looked at $(looked_at) names though nothing changed"
}

@test "a directory that is looked at again, for itself and for what is in it" {
	source_on ext4
	requires strace no-sanitizer
	mkdir "$src"/{d,e}
	echo one >"$src/d/f"
	ln "$src/d/f" "$src/e/f"
	begin
	# What stands there now cannot be read: the base keeps the directory.
	rm -r "$src/d"
	echo two >"$src/d"
	wrap="strace -f -o trace -e trace=openat2,openat -e inject=openat2,openat:error=EIO -P d"
	diff_rc=3
	ship
	grep 'the recorder knows of' track.log
	wrap='' diff_rc=0
	# The base knows the file under its name in there as well.
	echo two >>"$src/e/f"
	ship_listed
}

@test "a directory that could not be listed comes in the next run" {
	source_on ext4
	requires strace no-sanitizer
	mkdir "$src/known"
	echo one >"$src/known/f"
	begin
	mkdir -p "$src/new/deep"
	echo two >"$src/new/deep/f"
	touch "$src/known/g"
	wrap="strace -f -o trace -e trace=openat2,openat -e inject=openat2,openat:error=EIO -P new -P deep"
	diff_rc=3
	ship
	grep 'the recorder knows of' track.log
	[[ ! -e R/new/deep/f && -e R/known/g ]]
	wrap='' diff_rc=0
	ship_listed
	[[ $(cat R/new/deep/f) == two ]]
	ship_listed
	(($(looked_at) <= 2)) || fail "looked at $(looked_at) names though nothing changed"
}

@test "what is to be looked at again is not forgotten by a mending" {
	source_on ext4
	requires strace no-sanitizer
	echo one >"$src/f"
	echo one >"$src/g"
	begin
	echo two >"$src/f"
	wrap="strace -f -o trace -e trace=openat2,openat -e inject=openat2,openat:error=EIO -P f"
	diff_rc=3
	ship
	wrap='' diff_rc=0
	echo rot >R/g
	repl-apply --verify --wanted R >wanted
	run_pipe 'repl-diff -s S <wanted | repl-apply --edited=overrule R | repl-snap -s S --commit'
	[[ $(cat R/f R/g) == $'one\none' ]]
	ship_listed
	[[ $(cat R/f) == two ]]
}

# bats test_tags=slow
@test "a mount over a directory hides what is below it, which stays" {
	source_on ext4
	mkdir "$src/mnt"
	echo below >"$src/mnt/f"
	diff=--one-file-system
	record "$src"
	ship -j J
	ship
	other=$(mk_fs ext4 16M)
	echo other >"$other/g"
	mount --bind "$other" "$src/mnt"
	echo "$src/mnt" >>"$(undo_dir)/.mounts"
	echo x >"$src/x"
	ship
	grep "'mnt' is on another filesystem now: what the base has there stays" diff.log
	[[ $(cat R/mnt/f) == below && ! -e R/mnt/g && $(cat R/x) == x ]]
	umount "$src/mnt"
	ship
	same_tree "$src" R
}

# ---- losses ----

# bats test_tags=slow
@test "loss: no recorder, and a new one" {
	source_on ext4
	begin
	kill -9 "$recorder"
	wait "$recorder" || :
	recorder=
	echo unseen >"$src/f"
	mv "$src/f" "$src/g"
	ship_compared 'no recorder is running'
	echo unseen >"$src/h"
	record "$src"
	ship_compared 'the base does not say how far the recorder was'
	echo seen >>"$src/h"
	ship_listed
	# What happens while none runs, without a run in between.
	kill -9 "$recorder"
	wait "$recorder" || :
	echo unseen >>"$src/g"
	record "$src"
	ship_compared 'the recorder was started anew'
	ship_listed
}

@test "loss: the event queue overflows" {
	source_on ext4
	begin
	kill -STOP "$recorder"
	python3 - "$src" <<-'PY'
		import os, sys
		limit = int(open("/proc/sys/fs/fanotify/max_queued_events").read())
		for i in range(limit + 1000):
		    name = "%s/%d" % (sys.argv[1], i)
		    open(name, "w").close()
		    if i % 100:
		        os.unlink(name)
	PY
	echo late >"$src/late"
	kill -CONT "$recorder"
	ship_compared 'the event queue overflowed'
	echo x >>"$src/late"
	ship_listed
}

# bats test_tags=slow
@test "loss: the recorder does not answer in time" {
	source_on ext4
	begin
	kill -STOP "$recorder"
	echo x >"$src/f"
	snap=--cut-timeout=1s track=--cut-timeout=1s
	ship_compared 'the recorder does not answer'
	grep 'the image does not say how far the recorder is' snap.log
	kill -CONT "$recorder"
	snap='' track=''
	echo y >>"$src/f"
	ship_compared 'the base does not say how far the recorder was'
	ship_listed
}

# bats test_tags=slow
@test "loss: unmounted and mounted again" {
	source_on ext4
	begin
	umount "$fs"
	mkdir elsewhere
	mount -o loop "$(undo_dir)/.fs0.img" elsewhere
	echo "$PWD/elsewhere" >>"$(undo_dir)/.mounts"
	echo unseen >elsewhere/src/f
	umount elsewhere
	mount -o loop "$(undo_dir)/.fs0.img" "$fs"
	ship_compared ''
	echo x >>"$src/f"
	ship_listed
}

# bats test_tags=slow
@test "loss: the journal is cut, damaged, or incomplete" {
	source_on ext4
	begin
	n=0
	for how in cut flipped removed emptied; do
		n=$((n + 1))
		echo $n >"$src/f"
		last=$(repl-track -j J --cut)
		batch=$(find J/batches -name "*$(printf %016d "${last##*:}").repl")
		case $how in
		cut) truncate -s -8 "$batch" ;;
		flipped) printf '\377' | dd of="$batch" bs=1 seek=60 conv=notrunc status=none ;;
		removed) rm "$batch" ;;
		emptied) : >"$batch" ;;
		esac
		ship_compared ''
		echo again >>"$src/f"
		ship_listed
	done
}

# bats test_tags=slow
@test "loss: the root is another directory" {
	source_on ext4
	begin
	mv "$src" "$fs/was"
	mkdir "$src"
	echo new >"$src/f"
	ship_compared ''
	echo more >>"$src/f"
	ship
	same_tree "$src" R
	ship_listed
	# Moved away and back, changed in between.
	mv "$src" "$fs/away"
	echo unseen >>"$fs/away/f"
	mv "$fs/away" "$src"
	ship
	same_tree "$src" R
	ship_listed
}

# bats test_tags=slow
@test "loss: other roots than those of the base" {
	source_on ext4
	mkdir "$fs/second"
	echo two >"$fs/second/f"
	record "$fs"
	roots="one=$src two=$fs/second"
	ship -j J
	same_tree "$src" R/one
	echo more >>"$fs/second/f"
	ship
	grep 'the recorder knows of' track.log
	same_tree "$fs/second" R/two
	mkdir "$fs/third"
	echo three >"$fs/third/f"
	roots="one=$src two=$fs/third"
	ship
	grep 'comparing everything: the base is of other directories' track.log
	same_tree "$fs/third" R/two
	ship
	grep 'the recorder knows of' track.log
}

@test "loss: there is no journal where one is said to be" {
	source_on ext4
	echo x >"$src/f"
	ship -j nowhere
	grep "the next run will compare everything: cannot open the journal '$PWD/nowhere': No such file" track.log
	ship_compared "cannot open the journal '$PWD/nowhere': No such file"
}

@test "loss: the tree is not recorded here" {
	source_on ext4
	mkdir "$fs/other"
	record "$fs/other"
	echo x >"$src/f"
	ship -j J
	ship_compared 'is not recorded in this journal'
	echo y >>"$src/f"
	ship_compared 'is not recorded in this journal'
}

# bats test_tags=slow
@test "loss: the disk that has the journal is full" {
	source_on ext4
	small=$(mk_fs ext4 8M)
	mkdir "$small/J"
	ln -s "$small/J" J
	begin
	cat /dev/zero >"$small/fill" 2>/dev/null || :
	for i in {1..2000}; do echo "$i" >"$src/a-file-with-a-longer-name-$i"; done
	ship
	grep 'comparing everything' track.log
	same_tree "$src" R
	rm "$small/fill"
	echo x >"$src/x"
	ship
	same_tree "$src" R
	echo y >"$src/y"
	ship_listed
}

# bats test_tags=slow
@test "loss: the journal is too large, and its oldest part goes" {
	source_on ext4
	record --max-journal=8K "$src"
	ship -j J
	same_tree "$src" R
	ship_listed
	is_shorter() {
		for i in {1..20}; do
			echo x >"$src/$RANDOM-a-name-of-some-length-$i"
		done
		repl-track -j J --cut >"cut" || return 99
		# Batches are joined as well: which number is the first one that is left?
		local all=(J/batches/*.repl) oldest
		oldest=${all[0]##*/}
		((10#${oldest%%-*} > first))
	}
	echo first >"$src/first"
	first=$(repl-track -j J --cut)
	first=${first##*:}
	until_true is_shorter
	ship_compared 'batch [0-9]* of the journal is missing'
	echo more >>"$src/first"
	ship_listed
}

# bats test_tags=slow
@test "the clock means nothing: images of the past, files of the future" {
	source_on ext4
	begin
	snap='--time=@1000000000'
	echo x >"$src/f"
	ship_listed
	touch -d '2099-01-01' "$src/f"
	echo y >>"$src/g"
	snap='--time=@900000000'
	ship_listed
	snap=
	echo z >>"$src/f"
	ship_listed
}

@test "100 changed of 5,000 files: nobody looks at the others" {
	source_on ext4 256M
	requires strace no-sanitizer
	mkdir "$src"/{1..100}
	for d in {1..100}; do
		(cd "$src/$d" && for f in {1..50}; do echo "$d $f"; done | split -l 1 -a 3 -d - f)
	done
	begin
	for d in {1..100}; do echo changed >>"$src/$d/f007"; done
	calls='getdents64,statx,newfstatat,fstat,openat,openat2,open_by_handle_at'
	repl-snap -s S "$src" | strace -f -o track.calls -e trace=$calls repl-track -v -s S 2>track.log |
		strace -f -o diff.calls -e trace=$calls repl-diff --stats -s S 2>diff.log |
		strace -f -o apply.calls -e trace=$calls repl-apply R | repl-snap -s S --commit
	same_tree "$src" R
	for p in track diff apply; do
		n=$(wc -l <$p.calls)
		echo "# $p: $n calls" >&3
		((n < 4000)) || fail "repl-$p made $n calls that look at something"
	done
	(($(looked_at) < 300)) || fail "looked at $(looked_at) names"
}
