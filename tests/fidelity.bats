#!/usr/bin/env bats
# What a filesystem remembers arrives: on ext4, XFS and btrfs, checked with tools that are not ours.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

# One run from src to R; the answer stays in the file ack.
ship() {
	repl-snap -s S src | repl-track -s S | repl-diff -s S | tee delta | repl-pack | repl-apply R | tee ack |
		repl-snap -s S --commit
}

# two_filesystems TYPE [TYPE]: src on one, R on another
two_filesystems() {
	requires "$1" "${2:-$1}"
	local options=()
	for type in "$1" "${2:-$1}"; do
		# A small ext4 has blocks of 1 KiB, and as little room for attributes.
		[[ $type != ext4 ]] || options=(-b 4096)
		mk_fs "$type" 300M "${options[@]}" >/dev/null
		options=()
	done 2>mkfs.log
	mkdir -p fs0/src fs1/R.up
	ln -s fs0/src src
	ln -s fs1/R.up/R R
	mkdir fs1/R.up/R
}

as_nobody() {
	chmod 777 .
	setpriv --reuid nobody --regid nogroup --clear-groups bash -c "$1"
}

# The same question to tools that share no code with either side.
ask_others() {
	local names=$BATS_TEST_TMPDIR/.names.$BASHPID
	(cd "$1" && find . -path ./.repl -prune -o -print0 | sort -z >"$names" &&
		xargs -0 getfattr -h -d -m - -e hex -- <"$names" &&
		xargs -0 getfacl -n -P -- <"$names" &&
		getcap -r . && find . -path ./.repl -prune -o \( -type f -o -type d \) -print0 | sort -z | xargs -0 lsattr -d --)
}

everything() {
	two_filesystems "$1"
	rich_tree src/
	run -0 ship
	[[ -z $output ]]
	same_tree --holes src/ R/
	diff <(ask_others src/) <(ask_others R/)
	# And once more, when nothing changed.
	run -0 ship
	[[ -z $output && $(stat -c %s delta) -lt 1000 ]]
	same_tree --holes src/ R/
}

@test "everything arrives on ext4" {
	everything ext4
}

# bats test_tags=slow
@test "everything arrives on XFS" {
	everything xfs
}

# bats test_tags=slow
@test "everything arrives on btrfs" {
	everything btrfs
}

# Each property of each kind of object changes, and nothing else.
changes_of_metadata() {
	local before after
	two_filesystems "$1"
	rich_tree src/
	noise src/big 20000000
	ship
	before=$(cd R/ && find . -path ./.repl -prune -o -type f -printf '%P %i\n' | sort)
	chmod 4711 src/sizes/4096
	chmod 1700 src/modes/d0644
	chown 77:88 src/owners/1.2 src/owners/1.2.d
	chown -h 77:88 src/owners/1.2.l
	touch -d '1999-01-01 00:00:00.000000007' src/sizes src/sizes/1 src/big
	touch -h -d '1999-01-01 00:00:00.000000008' src/links/dangling
	setfattr -n user.new -v value src/big
	setfattr -n user.binary -v other src/xattrs/file
	setfattr -x user.empty src/xattrs/file
	setfattr -h -x trusted.link src/xattrs/link
	setfacl -b src/xattrs
	setfacl -m g:5:r src/sizes/1
	setcap -r src/xattrs/capable
	setcap cap_chown=p src/big
	run -0 ship
	[[ -z $output ]]
	same_tree --holes src/ R/
	diff <(ask_others src/) <(ask_others R/)
	# A file keeps its inode and sends no content when only what is known about it changes.
	after=$(cd R/ && find . -path ./.repl -prune -o -type f -printf '%P %i\n' | sort)
	[[ $after == "$before" ]]
	[[ $(stat -c %s delta) -lt 6000 ]] || fail "$(stat -c %s delta) bytes for metadata"
}

# bats test_tags=slow
@test "metadata changes alone travel alone on ext4" {
	changes_of_metadata ext4
}

# bats test_tags=slow
@test "metadata changes alone travel alone on XFS" {
	changes_of_metadata xfs
}

# bats test_tags=slow
@test "metadata changes alone travel alone on btrfs" {
	changes_of_metadata btrfs
}

inode_flags() {
	two_filesystems "$1"
	mkdir src/dir src/frozen src/plain
	for f in i a d A S id; do
		echo "$f" >"src/$f"
	done
	echo inside >src/frozen/inside
	chattr +d src/d
	chattr +A src/A src/dir
	chattr +S src/S
	chattr +a src/a
	chattr +i src/i src/frozen
	chattr +i +d src/id
	if [[ $1 == btrfs ]]; then
		mkdir src/nocow
		chattr +C src/nocow
		echo "not copied on write" >src/nocow/file
	fi
	ln src/plain/../d src/plain/link
	run -0 ship
	[[ -z $output ]]
	same_tree --flags src/ R/
	diff <(ask_others src/) <(ask_others R/)
	# What is locked changes all the same, and is locked again afterwards.
	chattr -i src/i src/frozen src/id
	chattr -a src/a
	echo more >>src/i
	mv src/a src/frozen/a
	rm src/id src/frozen/inside
	echo new >src/frozen/new
	chattr +i src/i src/frozen/new
	chattr +i src/frozen
	chattr -A +S src/dir
	run -0 ship
	[[ -z $output ]]
	same_tree --flags src/ R/
	# And goes.
	chattr -R -i src/
	rm -rf src/frozen src/i
	run -0 ship
	same_tree --flags src/ R/
}

@test "inode flags arrive on ext4, and locked files change" {
	inode_flags ext4
}

# bats test_tags=slow
@test "inode flags arrive on XFS, and locked files change" {
	inode_flags xfs
}

# bats test_tags=slow
@test "inode flags arrive on btrfs, and locked files change" {
	inode_flags btrfs
}

sparse_files() {
	two_filesystems "$1"
	truncate -s 64M src/file
	printf data | dd of=src/file bs=1 seek=33554432 conv=notrunc status=none
	cp src/file src/twin
	run -0 ship
	same_tree --holes src/ R/
	[[ $(stat -c %s delta) -lt 70000 ]]
	# Data where there was a hole, a hole where there was data, and a longer and a shorter file.
	noise patch 1000000
	dd if=patch of=src/file bs=1M seek=5 conv=notrunc status=none
	fallocate -p -o 33554432 -l 4096 src/file
	truncate -s 100M src/twin
	ship
	same_tree --holes src/ R/
	fallocate -p -o 5242880 -l 524288 src/file
	truncate -s 5767169 src/file
	truncate -s 1G src/twin
	printf tail >>src/twin
	ship
	same_tree --holes src/ R/
	[[ $(stat -c %s delta) -lt 70000 ]]
	: >src/file
	truncate -s 3 src/twin
	ship
	same_tree --holes src/ R/
}

# bats test_tags=slow
@test "sparse files stay sparse through their changes on ext4" {
	sparse_files ext4
}

# bats test_tags=slow
@test "sparse files stay sparse through their changes on XFS" {
	sparse_files xfs
}

# bats test_tags=slow
@test "sparse files stay sparse through their changes on btrfs" {
	sparse_files btrfs
}

# Size and what is not zero of a sparse file, however large.
content_of() {
	python3 - "$1" <<-'END'
		import hashlib, os, sys
		fd = os.open(sys.argv[1], os.O_RDONLY)
		print(os.fstat(fd).st_size)
		end = 0
		while True:
		    try:
		        at = os.lseek(fd, end, os.SEEK_DATA)
		    except OSError:
		        break
		    end = os.lseek(fd, at, os.SEEK_HOLE)
		    for page in range(at, end, 4096):
		        bytes = os.pread(fd, 4096, page)
		        if bytes.strip(b"\0"):
		            print(page, hashlib.sha256(bytes).hexdigest())
	END
}

write_at() { dd of=src/file bs=1 seek="$1" conv=notrunc status=none; }

# bats test_tags=slow
@test "a sparse file of an exbibyte changes, and goes back, without a step for each block of its holes" {
	local eib=$((1 << 60)) n=0
	two_filesystems xfs
	image() {
		run -0 timeout 60 bash -o pipefail -c 'repl-snap -s s src | repl-track -s s | repl-diff -s s | tee delta |
			repl-apply --keep=20 R 2>err | repl-snap -s s --commit'
		(($(stat -c %s delta) < ${1:-5000})) || fail "$(stat -c %s delta) bytes for '$2'"
		n=$((n + 1))
		content_of src/file >"image$n"
		content_of R/file | diff "image$n" -
	}
	truncate -s "$eib" src/file
	noise page 150000
	write_at $((1 << 50)) <page
	write_at 12345678901 <<<one
	write_at $((eib - 5)) <<<tail
	image 300000 first
	write_at $((1 << 55)) <<<two
	image 20000 "data in a hole"
	fallocate -p -o $((1 << 50)) -l 100000 src/file
	image 70000 "a hole in data"
	truncate -s $(((1 << 52) + 5)) src/file
	image 5000 "shorter"
	truncate -s $((eib + 77)) src/file
	image 5000 "longer"
	cp --reflink=always src/file src/new
	mv src/new src/file
	image 5000 "another file of that name"
	truncate -s 0 src/file
	image 5000 "nothing"
	timeout 60 repl-apply --verify R
	mapfile -t ids < <(repl-apply --list R | awk '{ print $4, $2 }' | sort -n | cut -d' ' -f2)
	((${#ids[@]} == n))
	for i in 5 1 4 0 3 6 2; do
		timeout 60 repl-apply --rollback="${ids[i]}" R >ack
		content_of R/file | diff "image$((i + 1))" -
		timeout 60 repl-apply --verify R
	done
}

names_and_links() {
	two_filesystems "$1"
	mkdir -p src/a/b src/x src/y src/deep/er
	for n in 1 2 3; do
		noise "src/file$n" 30000 "$n"
	done
	echo b >src/a/b/in
	echo x >src/x/of-x
	echo y >src/y/of-y
	ln src/file3 src/a/three
	ship
	# Swap two files, swap two directories, rotate, and a directory into its former child.
	mv src/file1 src/t && mv src/file2 src/file1 && mv src/t src/file2
	mv src/x src/t && mv src/y src/x && mv src/t src/y
	mv src/a/b src/t && mv src/a src/t/a && mv src/t src/a
	run -0 ship
	same_tree src/ R/
	[[ $(stat -c %s delta) -lt 3000 ]] || fail "$(stat -c %s delta) bytes for renames"
	# Links: one more, the first name away, one broken by an edit, a whole group gone.
	ln src/file1 src/deep/er/again
	ln src/file3 src/deep/other
	rm src/file3
	cp src/file2 src/t && ln src/t src/file2b && mv src/t src/file2
	ship
	same_tree src/ R/
	printf 'changed' | dd of=src/deep/other conv=notrunc status=none
	cp --remove-destination src/file1 src/t && mv -f src/t src/file1
	ship
	same_tree src/ R/
	rm src/deep/other
	find src/ -samefile src/a/a/three -delete
	ship
	same_tree src/ R/
}

@test "renames, swaps and hard links on ext4" {
	names_and_links ext4
}

# bats test_tags=slow
@test "renames, swaps and hard links on XFS" {
	names_and_links xfs
}

# bats test_tags=slow
@test "renames, swaps and hard links on btrfs" {
	names_and_links btrfs
}

# bats test_tags=slow
@test "a file with five thousand names arrives, changes, and has them moved and taken away" {
	mkdir -p src/d src/first
	echo one >src/0
	python3 -c 'import os
for i in range(5000):
    os.link("src/0", "src/d/%d" % i)'
	ship
	same_tree src R
	echo two >>src/0
	mv src/d src/e
	python3 -c 'import os
for i in range(0, 5000, 2):
    os.rename("src/e/%d" % i, "src/first/%d" % i)
for i in range(1, 2000, 2):
    os.link("src/0", "src/more%d" % i)'
	ship
	same_tree src R
	rm src/e/*1 src/first/*
	cp src/0 src/t
	mv src/t src/0
	ship
	same_tree src R
}

@test "every type of object turns into every other" {
	requires root
	# fill DIR old|new: under each name FROM-TO what stands there before, or after
	fill() {
		python3 - "$@" <<-'PY'
			import os, shutil, stat, sys
			top, which = sys.argv[1:]
			def file(p, text="a file\n"):
			    with open(p, "w") as f:
			        f.write(text)
			def folder(p):
			    os.makedirs(p + "/sub")
			    file(p + "/inside", "inside\n")
			make = {
			    "file": file, "empty": lambda p: file(p, ""), "dir": folder, "link": lambda p: os.symlink("target", p),
			    "link2": lambda p: os.symlink("another", p), "fifo": os.mkfifo,
			    "char": lambda p: os.mknod(p, 0o644 | stat.S_IFCHR, os.makedev(1, 3)),
			    "char2": lambda p: os.mknod(p, 0o644 | stat.S_IFCHR, os.makedev(1, 5)),
			    "block": lambda p: os.mknod(p, 0o644 | stat.S_IFBLK, os.makedev(7, 9)), "none": lambda p: None,
			}
			for a in make:
			    for b in make:
			        p = os.path.join(top, a + "-" + b)
			        if os.path.isdir(p) and not os.path.islink(p):
			            shutil.rmtree(p)
			        elif os.path.lexists(p):
			            os.remove(p)
			        make[a if which == "old" else b](p)
		PY
	}
	mkdir old new
	fill old old
	fill new new
	cp -a old src
	ship
	same_tree src R
	fill src new
	run -0 ship
	[[ -z $output ]]
	same_tree src R
	# Without inode numbers to go by, it is the same.
	repl-diff old >full
	repl-apply R2 <full >ack
	same_tree old R2
	repl-diff old new >delta
	run -0 bash -c 'repl-apply R2 <delta >ack'
	same_tree new R2
}

@test "sockets are left out, and counted" {
	mkdir src
	echo x >src/file
	python3 -c 'import socket
for n in "0123456789":
    socket.socket(socket.AF_UNIX).bind("src/socket" + n)'
	run -0 --separate-stderr bash -c 'repl-diff src >full'
	has "$stderr" socket
	# The first few by name, and the count.
	has "$stderr" "7 more: socket"
	[[ ${#stderr_lines[@]} == 4 ]] || fail "$stderr"
	repl-apply R <full >ack
	[[ -e R/file && ! -e R/socket1 ]]
}

@test "owners are mapped by number" {
	requires root
	mkdir src
	for id in 1000 1001 7; do
		echo "$id" >src/$id
		chown "$id:$id" src/$id
	done
	setfacl -m u:1000:r,g:1000:r src/7
	repl-diff src >full
	run -0 bash -c 'repl-apply --map-owner 1000:2000 --map-owner +1000:3000 R <full >ack'
	[[ $(stat -c %u:%g R/1000 R/1001 R/7 | tr '\n' ' ') == "2000:3000 1001:1001 7:7 " ]]
	run -0 getfacl -n -c R/7
	has "$output" "user:2000:r--"
	has "$output" "group:3000:r--"
	# It stays the image of the source: the next delta fits.
	echo more >>src/1000
	repl-snap --digest R >theirs.img
	run -0 run_pipe 'repl-diff theirs.img src | repl-apply --map-owner 1000:2000 --map-owner +1000:3000 R >ack'
	[[ $(cat R/1000) == "$(cat src/1000)" && $(stat -c %u:%g R/1000) == 2000:3000 ]]
}

@test "owners are mapped by the names that the stream carries" {
	requires root
	mkdir src
	echo x >src/file
	chown daemon:daemon src/file
	repl-diff src >full
	# Another machine: the names have other numbers there.
	sed 's/^daemon:x:[0-9]*:[0-9]*:/daemon:x:4711:4712:/' /etc/passwd >passwd
	sed 's/^daemon:x:[0-9]*:/daemon:x:4712:/' /etc/group >group
	run -0 unshare -m bash -c 'mount --bind passwd /etc/passwd && mount --bind group /etc/group &&
		repl-apply --map-owner names R <full >ack'
	[[ $(stat -c %u:%g R/file) == 4711:4712 ]]
	run -0 bash -c 'repl-apply R2 <full >ack'
	[[ $(stat -c %u:%g R2/file) == "$(stat -c %u:%g src/file)" ]]
}

@test "who is not root is told once per kind what could not be kept, and so is the source" {
	requires root setpriv
	rich_tree src
	touch ack said full && chmod 666 ack said full
	rm -rf src/sparse
	install -d -o nobody -g nogroup R
	repl-diff src >full
	run -3 --separate-stderr as_nobody 'repl-apply R <full' >ack
	# The first three of a kind by name, then the count.
	[[ $(grep -c 'restore the owner of' <<<"$stderr") == 3 && $(grep -c 'more: owner$' <<<"$stderr") == 1 ]] || fail "$stderr"
	has "$stderr" "'special/null' was not made"
	[[ ${#stderr_lines[@]} -lt 25 ]] || fail "$stderr"
	rm -rf R
	install -d -o nobody -g nogroup R
	run -3 as_nobody 'repl-apply R <full >ack 2>said'
	run -0 repl-show --json ack
	has "$output" '"loss"'
	has "$output" owner
	has "$output" device
	same_tree --ignore=uid,gid,xattr,mode src R >differences || :
	[[ $(grep -vc 'special/\|hard/fifo' differences) == 0 ]] || fail "$(cat differences)"
	# The source hears of it as well.
	repl-snap -s S src | repl-track -s S | repl-diff -s S >full
	rm -rf R
	install -d -o nobody -g nogroup R
	as_nobody 'repl-apply R <full >ack 2>said' || :
	run -3 bash -c 'repl-snap -s S --commit <ack'
	has "$output" owner
	# What was lost is not sent again and again.
	run -0 run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S >again'
	[[ $(stat -c %s again) -lt 1000 ]]
}

@test "a replica of another user changes read-only files and directories" {
	requires root setpriv
	touch ack && chmod 666 ack
	install -d -o nobody -g nogroup src
	as_nobody 'cd src && mkdir -p closed/in sub && echo 1 >closed/in/file &&
		echo 2 >secret && echo 3 >sub/x && mkdir zero &&
		echo 4 >zero/in && chmod 0 secret zero && chmod 555 closed/in closed sub'
	install -d -o nobody -g nogroup R
	repl-diff src >full
	run -0 as_nobody 'repl-apply R <full >ack'
	same_tree src R
	cp -a src old
	chmod 700 src/closed src/closed/in src/secret src/sub
	echo new >src/closed/in/new
	rm src/closed/in/file
	mv src/sub src/closed/moved
	chmod 0 src/secret
	chmod 555 src/closed/in src/closed src/closed/moved
	chown -R -h nobody:nogroup src
	repl-diff old src >delta
	run -0 as_nobody 'repl-apply R <delta >ack'
	same_tree src R
}

@test "what another filesystem cannot keep is reported, once per kind" {
	requires root
	two_filesystems xfs ext4
	mkdir src/many
	for n in {0..9}; do
		python3 -c 'import os, sys
open(sys.argv[1], "w").close()
os.setxattr(sys.argv[1], "user.long", b"x" * 60000)' "src/many/$n"
	done
	touch -d '2480-01-01' src/far
	repl-diff src >full
	run -3 --separate-stderr bash -c 'repl-apply R <full >ack'
	has "$stderr" xattr
	[[ $(grep -c xattr <<<"$stderr") -le 4 ]] || fail "$stderr"
	has "$stderr" "7 more: xattr"
	has "$stderr" "many/1'"
	has "$stderr" "'far'"
	run -0 repl-show ack
	has "$output" "loss"
	has "$output" "count=10"
	[[ -e R/many/9 ]]
	# The next run does not send it again for that.
	repl-snap --digest R/ >theirs.img
	repl-diff theirs.img src/ >delta
	[[ $(stat -c %s delta) -lt 1000 ]]
}

@test "links and nodes that the replica's filesystem cannot have are counted, and do not stop later deltas" {
	requires root
	two_filesystems ext4 xfs
	ln -s "$(printf 'long/%.0s' {1..400})" src/long-link
	mknod src/node c 4000 1000000
	echo 1 >src/file
	run -3 run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | tee ack | repl-snap -s S --commit'
	has "$output" "'long-link' was not made"
	has "$output" "'node' was not made"
	[[ $(cat R/file) == 1 && ! -L R/long-link ]]
	echo 2 >src/file
	run -0 run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
	rm src/long-link src/node
	mkdir src/long-link
	run -0 run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
	same_tree src/ R/
}

@test "times before 1970 and far ahead arrive where the filesystem can" {
	two_filesystems btrfs
	touch -d '2480-01-01 00:00:00.999999999' src/far
	touch -d '1600-01-01 00:00:00.000000001' src/early
	touch -d '1970-01-01 00:00:00' src/zero
	touch -d '1969-12-31 23:59:59.5' src/minus
	run -0 ship
	[[ -z $output ]]
	same_tree src/ R/
}

# bats test_tags=slow
@test "long attribute values arrive on XFS" {
	two_filesystems xfs
	: >src/file
	python3 -c 'import os
os.setxattr("src/file", "user.long", b"x" * 65536)
for i in range(500):
    os.setxattr("src/file", "user.%d" % i, b"v" * i)'
	run -0 ship
	[[ -z $output ]]
	same_tree src/ R/
}

@test "setuid and devices stay away when asked to" {
	requires root
	mkdir src
	cp "$(type -P true)" src/suid
	chmod 6755 src/suid
	setcap cap_chown=p src/suid || :
	mknod src/null c 1 3
	chown 33 src/suid
	chmod 4755 src/suid
	repl-diff src >full
	run bash -c 'repl-apply --no-setuid --no-devices R <full >ack'
	[[ $status == [03] ]]
	[[ $(stat -c %a R/suid) == 755 && ! -e R/null ]]
	[[ -z $(getcap R/suid) ]]
	run bash -c 'repl-apply --no-owner R2 <full >ack'
	[[ $status == [03] && $(stat -c %u R2/suid) == 0 && $(stat -c %a R2/suid) == 755 ]]
}

@test "patterns leave out and take in, with the last directory's own" {
	mkdir -p src/keep/cache src/cache src/doc
	for f in keep/a.o keep/a.c keep/cache/x cache/y doc/b.o doc/important.o top.o; do
		echo "$f" >"src/$f"
	done
	repl-diff --include=important.o --exclude='*.o' --exclude=/cache/ src >full
	repl-apply R <full >ack
	run -0 bash -c 'cd R && find . -path ./.repl -prune -o -type f -print | sort'
	[[ $output == "./doc/important.o"$'\n'"./keep/a.c"$'\n'"./keep/cache/x" ]]
	printf '# comment\n\n!important.o\n*.o\n/cache/\n' >patterns
	repl-diff --exclude-from=patterns src >full2
	cmp full full2
	# Over a state as well.
	filtered() {
		run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S --exclude="*.o" | tee delta | repl-apply R2 |
			repl-snap -s S --commit'
	}
	filtered
	[[ -e R2/cache/y && ! -e R2/top.o ]]
	filtered
	[[ $(stat -c %s delta) -lt 1000 ]]
	echo new >src/new.o
	echo new >src/new.c
	filtered
	[[ -e R2/new.c && ! -e R2/new.o ]]
}

@test "other filesystems are entered, or left out when asked to" {
	requires root
	two_filesystems ext4
	mkdir src/mnt
	mount -t tmpfs none src/mnt
	echo inside >src/mnt/inside
	echo outside >src/outside
	repl-diff --one-file-system src/ >full
	repl-apply R <full >ack
	[[ -d R/mnt && ! -e R/mnt/inside && -e R/outside ]]
	repl-diff src/ >full
	repl-apply R2 <full >ack
	[[ $(cat R2/mnt/inside) == inside ]]
	umount src/mnt
	echo hidden >src/mnt/hidden
	repl-diff src/ >full
	repl-apply R3 <full >ack
	[[ $(cat R3/mnt/hidden) == hidden ]]
}

@test "a mount point on the replica is not crossed, and survives" {
	requires root
	mkdir -p src/data
	echo 1 >src/data/file
	repl-diff src >full
	repl-apply R <full >ack
	chmod 700 src/data
	echo 2 >src/data/file2
	repl-snap --digest R >theirs.img
	mount -t tmpfs none R/data
	echo theirs >R/data/precious
	repl-diff theirs.img src >delta
	run bash -c 'repl-apply R <delta >ack'
	code=$status
	[[ $(cat R/data/precious) == theirs ]]
	umount R/data
	[[ $code -ne 0 ]]
}

@test "names that are not text stay as they are, and are shown escaped" {
	mkdir src
	python3 -c 'import os
for n in (b"new\nline", b"\xff\xfe", b"\x1b[31mred", b"a\\nb", b"\xc3\xa9"):
    open(b"src/" + n, "w").close()'
	repl-diff src >full
	run -0 --separate-stderr bash -c 'repl-apply -i R <full >ack'
	same_tree src R
	[[ $stderr != *$'\x1b'* ]]
	has "$stderr" 'new\nline'
	run -0 repl-show full
	[[ $output != *$'\x1b'* ]]
}
