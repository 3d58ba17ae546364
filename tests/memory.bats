#!/usr/bin/env bats
# Memory does not follow the size of the tree: tens of thousands of files, and one file of 2 GiB, with every program below 64 MiB, and
# below 32 MiB of its own (what is mapped of a catalog is page cache).

load lib/setup
load lib/trees

LIMIT_KB=65536
OWN_LIMIT_KB=32768

# peak NAME COMMAND...: runs it, and writes the most memory that it had, in KiB, to the file NAME.kb, and the most of its own that was
# seen to NAME.own.kb
setup() {
	common_setup
	requires no-sanitizer python3
	cat >peak <<-'PY'
		#!/usr/bin/env python3
		import os, sys, time
		pid = os.fork()
		if pid == 0:
		    os.execvp(sys.argv[2], sys.argv[2:])
		own = ended = 0
		while not ended:
		    with open("/proc/%d/status" % pid) as f:
		        own = max([own] + [int(l.split()[1]) for l in f if l.startswith("RssAnon:")])
		    ended, status, used = os.wait4(pid, os.WNOHANG)
		    time.sleep(0.005)
		for name, kb in (".kb", used.ru_maxrss), (".own.kb", own):
		    with open(sys.argv[1] + name, "w") as f:
		        print(kb, file=f)
		sys.exit(os.waitstatus_to_exitcode(status))
	PY
	chmod +x peak
}

measured_run() {
	run -0 run_pipe './peak snap repl-snap -s S src | ./peak track repl-track -s S | ./peak diff repl-diff -s S |
		./peak pack repl-pack | ./peak apply repl-apply R | ./peak commit repl-snap -s S --commit'
	[[ -z $output ]]
	for p in snap track diff pack apply commit; do
		(($(cat $p.kb) < LIMIT_KB && $(cat $p.own.kb) < OWN_LIMIT_KB)) || fail "$1: $p took too much: $(grep -H . ./*.kb)"
	done
	echo "# $1: $(for p in snap track diff pack apply commit; do echo "$p $(cat $p.kb), own $(cat $p.own.kb)"; done | paste -sd';') KiB" >&3
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

# A name that goes is little to tell, and has pages changed in several tables of a catalog.
@test "a change that is small to tell and large in the catalogs" {
	LIMIT_KB=196608 # with what is mapped of a catalog
	fs=$(mk_fs ext4 4G)
	mkdir "$fs/src" "$fs/R"
	ln -s "$fs/src" src
	ln -s "$fs/R" R
	cat >each <<-'PY'
		import os, sys
		first, step, most = map(int, sys.argv[1:])
		for i in range(first, 36000, step)[:most]:
		    path = "src/%02d/%05d-%s" % (i % 25, i, "a-long-name-" * 20)
		    if step > 1:
		        if os.path.exists(path):
		            os.unlink(path)
		    else:
		        os.makedirs(os.path.dirname(path), exist_ok=True)
		        open(path, "w").close()
	PY
	python3 each 0 1 36000
	measured_run "all of it"
	of_replica=$(stat -c %i R/.repl/catalog) of_source=$(stat -c %i S/catalog)
	python3 each 0 1000 20
	measured_run "little less"
	# In a transaction each.
	[[ $(stat -c %i R/.repl/catalog) == "$of_replica" && $(stat -c %i S/catalog) == "$of_source" ]]
	python3 each 1 19 36000
	measured_run "a nineteenth less"
	# Each in a copy.
	[[ $(stat -c %i R/.repl/catalog) != "$of_replica" ]] || fail "the replica's catalog was changed where it is"
	[[ $(stat -c %i S/catalog) != "$of_source" ]] || fail "the source's catalog was changed where it is"
	# The answer finds no copy but the plan, which leads there as well.
	of_source=$(stat -c %i S/catalog)
	python3 each 2 19 36000
	run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R >ack'
	rm S/next
	./peak commit repl-snap -s S --commit <ack
	(($(cat commit.own.kb) < OWN_LIMIT_KB))
	[[ $(stat -c %i S/catalog) != "$of_source" ]]
	python3 each 3 1000 36000
	measured_run "little less again"
	same_tree src/ R/
}
