#!/usr/bin/env bats
# The policy of a state directory: what it says is done, what is given as an option wins, and a mistake is named by its line.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

setup() {
	common_setup
	umask 022
	mkdir -m 700 S
}

ship() {
	run_pipe 'repl-snap -s S | repl-track -s S | repl-diff -s S | tee delta | repl-pack -s S | tee packed | repl-apply R |
		repl-snap -s S --commit'
}

@test "a pipeline needs no more than -s, and does what the policy says" {
	small_tree src
	head -c 100000 /dev/urandom >src/random
	touch src/a.tmp src/keep.tmp
	mkdir src/lost
	touch src/lost/x
	cat >S/policy <<-EOF
		# what

		root = $PWD/src
		  include=keep.tmp
		exclude = *.tmp
		exclude =  lost/
		block-size = 64K
		one-file-system = no
		chunk = 8K
		adapt = no
	EOF
	repl-snap -s S --check-policy
	ship
	[[ -e R/keep.tmp && ! -e R/a.tmp && ! -e R/lost ]]
	rm -r src/a.tmp src/lost
	repl-show delta >text
	grep 'grain=65536' text
	run ! grep 'grain=4096' text
	# Seven chunks at least, each with a frame of its own.
	(($(grep -c -a -o $'\x28\xb5\x2f\xfd' packed) > 7))
	echo more >>src/random
	ship
	same_tree src R
	# REPL_STATE says where, too.
	export REPL_STATE=$PWD/S
	echo more >>src/random
	run_pipe 'repl-snap | repl-track | repl-diff | repl-pack | repl-apply R | repl-snap --commit'
	same_tree src R
}

@test "a policy names the commands round the instant" {
	mkdir src
	printf 'root = src\nquiesce = echo quiesced >>order\nresume = echo resumed >>order\nquiesce-timeout = 30s\n' >S/policy
	ship
	[[ $(<order) == $'quiesced\nresumed' ]]
	printf 'root = src\nquiesce = exit 7\nresume = echo resumed >>order\n' >S/policy
	run -1 --separate-stderr repl-snap -s S
	has "$stderr" "the quiesce command 'exit 7' failed with status 7"
	repl-snap -s S --quiesce=true >image
	printf 'root = src\nquiesce = exit 7\ncrash-consistent = yes\n' >S/policy
	repl-snap -s S >image
	printf 'root = src\nquiesce = exit 7\n' >S/policy
	repl-snap -s S --crash-consistent >image
	printf 'root = src\ncrash-consistent = yes\n' >S/policy
	run -2 --separate-stderr repl-snap -s S
	has "$stderr" "--crash-consistent goes with --quiesce"
}

@test "options win, and patterns that are given come first" {
	mkdir src other
	head -c 100000 /dev/urandom >src/f
	touch src/a.tmp src/b.tmp other/o
	printf 'root = src\nblock-size = 64K\nexclude = *.tmp\nlevel = 1\nprovider = btrfs\n' >S/policy
	run -2 --separate-stderr repl-snap -s S
	has "$stderr" "is not the root of a btrfs subvolume"
	repl-snap -s S --provider=live other >image
	repl-show image | grep "path='$PWD/other'"
	run ! grep -q "path='$PWD/src'" <(repl-show image)
	repl-snap -s S --provider=live | repl-diff -s S --block-size=4K --include=a.tmp >delta
	repl-show delta >text
	grep 'grain=4096' text
	grep "name='a.tmp'" text
	run ! grep "name='b.tmp'" text
	# The level of the policy comes before that of the environment, and one that is given before both.
	seq 100000 >other/text
	repl-diff other >plain
	repl-pack -l 1 -T 1 <plain >one
	repl-pack -l 19 -T 1 <plain >nineteen
	ZSTD_CLEVEL=19 repl-pack -s S -T 1 <plain | cmp - one
	repl-pack -s S -l 19 -T 1 <plain | cmp - nineteen
	run ! cmp -s one nineteen
	# What unpacks has nothing to ask it.
	echo nonsense >S/policy
	repl-pack -d -s S <one | cmp - plain
}

# bats test_tags=slow
@test "a mistake is named with its line, by each program, and nothing happens" {
	mkdir src
	echo x >src/f
	repl-snap -s S src | repl-track -s S >list
	repl-snap -s S src >image
	repl-diff src >plain
	local text wrong commands=('repl-snap' 'repl-track <image' 'repl-track --wait --interval=1ms' 'repl-diff <list' 'repl-pack <plain' \
		'repl-snap --commit <plain' 'repl-snap --check-policy')
	while IFS='|' read -r text wrong; do
		printf 'root = src\n# a line that is well\n%b\n' "$text" >S/policy
		cp -a S before
		for command in "${commands[@]}"; do
			run -2 --separate-stderr env REPL_STATE=S bash -c "$command"
			has "$stderr" "'S/policy', line 3: $wrong"
			[[ -z $output && $(wc -l <<<"$stderr") == 1 ]] || fail "$command: $output$stderr"
		done
		diff -r before S
		rm -r before
		# All of them see the first mistake, one the others.
		commands=('repl-snap --check-policy')
	done <<-'EOF'
		no-such-key = 1|unknown key 'no-such-key'
		nonsense|no '=': a line is 'key = value'
		interval = 15 fortnights|interval is '15 fortnights', not a duration such as 90s, 15m, 6h or 2d
		rate = 2Q|rate is '2Q', not a size such as 4096, 64K, 1MB or 2GiB
		block-size = 5000|block-size is '5000', not 4K, 16K, 64K, 256K or 1M
		root =|root is '', not a value
		level = 99|level is '99', not a level of zstd
		level = fast|level is 'fast', not a level of zstd
		long = 99|long is '99', not a number that --long takes
		chunk = 1|chunk is '1', not a size from 4K to 8M
		threads = -1|threads is '-1', not a number of threads
		clones = sometimes|clones is 'sometimes', not a size such as 16M, or never
		provider = a b|provider is 'a b', not a provider: auto, live, btrfs, reflink, exec:PROGRAM, or the name of a program
		checksum = 1|checksum is '1', not yes or no
		journal =|journal is '', not a value
		= x|unknown key ''
		a\0000b = 1|a NUL byte
	EOF
}

@test "what may be said once is said once" {
	printf 'rate = 1M\n\nexclude = a\nexclude = b\nrate = 1M\n' >S/policy
	run -2 --separate-stderr repl-snap -s S --check-policy
	has "$stderr" "'S/policy', line 5: rate was set in line 1 already"
	printf 'exclude = a\nexclude = b\r\nroot = a\nroot = b=c\nrate = 1M' >S/policy
	run -0 --separate-stderr repl-snap -s S --check-policy
	[[ -z $output$stderr ]]
}

@test "a policy that is no file, or cannot be read, is an error; without one there is nothing to check" {
	mkdir src
	run -2 --separate-stderr repl-snap -s S --check-policy
	has "$stderr" "there is no policy in 'S'"
	repl-snap -s S src >image
	mkdir S/policy
	run -2 --separate-stderr repl-snap -s S src
	has "$stderr" "'S/policy' is no file of at most 1 MiB"
	rmdir S/policy
	truncate -s 2M S/policy
	run -2 repl-snap -s S src
	rm S/policy
	printf 'root = src' >S/policy
	chmod 664 S/policy
	run -2 --separate-stderr repl-snap -s S
	has "$stderr" "'S/policy' belongs to somebody else, or others can write to it"
	if [[ $(id -u) == 0 ]]; then
		chmod 644 S/policy
		chown 12345 S/policy
		run -2 repl-snap -s S
	fi
	rm S/policy
	mkfifo S/policy
	run -2 repl-snap -s S src
	rm S/policy
	ln -s loop S/loop
	ln -s loop S/policy
	run -1 --separate-stderr repl-snap -s S src
	has "$stderr" "cannot open 'S/policy'"
	rm S/policy
	printf 'exclude-from = nowhere' >S/policy
	run -1 --separate-stderr repl-diff -s S <image
	has "$stderr" "cannot read 'nowhere'"
}

# bats test_tags=slow
@test "--wait waits for what the policy says" {
	mkdir src
	echo x >src/f
	printf 'root = src\ninterval = 1ms\n' >S/policy
	ship
	repl-track -s S --wait
	repl-track -v -j J --record src 2>log 3>&- &
	recorder=$!
	until_true repl-track -j J --cut >/dev/null 2>&1
	printf 'root = src\njournal = J\ninterval = 1000d\nchanges = 3\n' >S/policy
	ship
	(
		until [[ -e over ]]; do
			echo x >>src/f
			touch "src/$RANDOM"
			sleep 0.05
		done
	) 3>&- &
	repl-track -s S --wait
	touch over
	wait $!
	kill $recorder
	wait $recorder || :
	ship
	same_tree src R
}

# The page's own policy, cron line and units, as they stand there; only paths become ours, and ssh runs the command here.
# bats test_tags=slow
@test "the examples of repl-policy(5) work" {
	mkdir bin www db state
	printf '#!/bin/sh\nshift\nexec sh -c "$*"\n' >bin/ssh
	chmod +x bin/ssh
	PATH=$PWD/bin:$PATH
	echo w >www/w
	echo d >db/d
	awk '/^\.Bd -literal/ { f = "block." ++n; next } /^\.Ed/ { f = "" } f { print > f }' "$repl_root/man/repl-policy.5"
	sed -i "s,/var/lib/repl/dr,$PWD/state,g; s,/var/lib/repl/journal,$PWD/journal,g; s,/srv/www,$PWD/www,g; s,/var/lib/db,$PWD/db,g
		s,/replica,$PWD/replica,g; s,/usr/local/bin/,$REPL_BUILD/,g" block.*
	[[ -e block.6 && ! -e block.7 ]]
	cp block.1 state/policy
	bash -e block.2
	python3 - block.4 block.5 block.6 <<-'PY'
		import configparser, sys
		units = []
		for name in sys.argv[1:]:
		    u = configparser.ConfigParser(interpolation=None, strict=True)
		    u.optionxform = str
		    u.read(name)
		    units.append(u)
		job, timer, recorder = units
		assert job["Service"]["Type"] == "oneshot" and recorder["Service"]["Type"] == "notify"
		assert timer["Timer"]["OnCalendar"] == "*:0/15"
		key, _, value = job["Service"]["Environment"].partition("=")
		open("job", "w").write("export %s=%s\nexec %s\n" % (key, value, job["Service"]["ExecStart"]))
		open("recorder", "w").write("exec %s\n" % recorder["Service"]["ExecStart"])
	PY
	if command -v systemd-analyze >/dev/null; then
		for n in 4:service 5:timer; do cp "block.${n%:*}" "repl-dr.${n#*:}"; done
		cp block.6 repl-journal.service
		run -0 systemd-analyze verify ./repl-dr.service ./repl-dr.timer ./repl-journal.service
	fi
	bash recorder 3>&- &
	recorder=$!
	until_true repl-track -j journal --cut >/dev/null 2>&1
	bash -e job
	same_tree www replica/www
	echo more >>db/d
	# A line of crontab(5): five fields, the user, the command.
	sed 's,^30 2 \* \* \* root ,,' block.3 >line
	run ! grep -F '*' line
	bash -e line
	same_tree db replica/db
	kill $recorder
	wait $recorder || :
}
