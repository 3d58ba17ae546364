#!/usr/bin/env bats
# Memory does not follow the size of the tree: tens of thousands of files, and one file of 2 GiB, with every program below 64 MiB.

load lib/setup
load lib/trees

LIMIT_KB=65536

# peak NAME COMMAND...: runs it, and writes the most memory that it had, in KiB, to the file NAME.kb
setup() {
	common_setup
	requires no-sanitizer python3
	cat >peak <<-'PY'
		#!/usr/bin/env python3
		import os, sys
		pid = os.fork()
		if pid == 0:
		    os.execvp(sys.argv[2], sys.argv[2:])
		_, status, used = os.wait4(pid, 0)
		with open(sys.argv[1] + ".kb", "w") as f:
		    print(used.ru_maxrss, file=f)
		sys.exit(os.waitstatus_to_exitcode(status))
	PY
	chmod +x peak
}

measured_run() {
	run -0 run_pipe './peak snap repl-snap -s S src | ./peak track repl-track -s S | ./peak diff repl-diff -s S |
		./peak pack repl-pack | ./peak apply repl-apply R | ./peak commit repl-snap -s S --commit'
	[[ -z $output ]]
	for p in snap track diff pack apply commit; do
		[[ $(cat $p.kb) -lt $LIMIT_KB ]] || fail "$1: $p took $(cat $p.kb) KiB: $(grep -H . ./*.kb)"
	done
	echo "# $1: $(for p in snap track diff pack apply commit; do echo "$p $(cat $p.kb)"; done | paste -sd,) KiB" >&3
}

@test "many small files, and then a change of some of them" {
	each=$(samples 500)
	fs=$(mk_fs ext4 4G -i 4096)
	mkdir "$fs/src" "$fs/R"
	ln -s "$fs/src" src
	ln -s "$fs/R" R
	python3 - "$each" <<-'PY'
		import os, sys
		os.chdir("src")
		for d in range(200):
		    os.mkdir("dir%03d" % d)
		    for f in range(int(sys.argv[1])):
		        with open("dir%03d/file-with-a-name-%03d" % (d, f), "w") as out:
		            out.write("%d %d\n" % (d, f))
	PY
	measured_run "all of it"
	[[ $(find R/ -type f -not -path '*/.repl/*' | wc -l) == $((200 * each)) ]]
	for d in {000..199..10}; do
		for f in src/dir"$d"/*0; do
			echo changed >>"$f"
		done
		mv src/dir"$d" src/moved"$d"
	done
	measured_run "some of it"
	same_tree src/ R/
	# It held them all once, and would be read through by each run.
	(($(stat -c %s R/.repl/stage) <= 65536)) || fail "the staging directory has $(stat -c %s R/.repl/stage) bytes"
}

@test "a file of 2 GiB, data and holes, and then a change in the middle" {
	fs=$(mk_fs ext4 4G)
	mkdir "$fs/src" "$fs/R"
	ln -s "$fs/src" src
	ln -s "$fs/R" R
	noise block 50000000
	truncate -s 2G src/big
	for at in 0 500 1000 1500 1900; do
		dd if=block of=src/big bs=1M seek=$at conv=notrunc status=none
	done
	measured_run "full"
	same_tree --holes src/ R/
	printf 'changed' | dd of=src/big bs=1 seek=1050000000 conv=notrunc status=none
	measured_run "a block of it"
	same_tree --holes src/ R/
}
