#!/usr/bin/env bats
# The queue between packing and sending: what waits there arrives, in order, whatever breaks.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

setup() {
	common_setup
	mkdir -m 700 S
	mkdir src
	Q=$PWD/S/queue
	printf 'root = %s\nqueue = %s\n' "$PWD/src" "$Q" >S/policy
}

# What the first cron job does, and the second. OPT: of repl-snap.
make_image() {
	run_pipe "repl-snap -s S $* | repl-track -s S | repl-diff -s S | repl-pack -s S"
}

send() {
	run_pipe 'repl-pack -s S --dequeue | repl-apply R | repl-snap -s S --commit'
}

queued() {
	find "$Q" -name '*.rpl' | sort
}

n_queued() {
	queued | wc -l
}

# The words behind this one in the list.
list() {
	repl-snap -s S --list | sed -n "s/^$1 *//p"
}

# The image that the answer on standard input is about.
answered() {
	repl-show --json | sed -n 's/^{"record":"ack".*"id":"\([0-9a-f]*\)".*/\1/p'
}

# So that the first image is on the replica.
begin() {
	echo 0 >src/f
	make_image
	send
	[[ $(n_queued) == 0 ]]
}

# The line is down for a day: an image each second hour, and attempts to send it that get nowhere.
day() {
	local h
	for h in {2..24..2}; do
		echo "$h" >src/f
		echo "$h" >"src/of $h"
		make_image --time="@$((1700000000 + h * 3600))"
		((h % 8)) || run ! run_pipe 'repl-pack -s S --dequeue | false'
	done
}

@test "the line is down for a day: with --chain all images arrive, with their times" {
	echo 'chain = yes' >>S/policy
	begin
	day
	[[ $(n_queued) == 12 && $(list queue) == "12 deltas, "* ]]
	has "$(repl-snap -s S --list --json)" '"queue":{"deltas":12,"bytes":'
	run -0 send
	[[ -z $output && $(n_queued) == 0 && $(list queue) == empty ]]
	has "$(repl-snap -s S --list --json)" '"queue":null,'
	same_tree src R
	[[ $(list base) == *" 2023-11-15T22:13:20Z "* ]]
	repl-apply --list R >images
	# The last and the ten before it, by default.
	for h in {4..24..2}; do
		grep -q "$(date -u -d "@$((1700000000 + h * 3600))" +%FT%TZ)" images
	done
	repl-apply --at=2023-11-15T18:30:00Z --into=then R
	[[ $(<then/f) == 20 && -e "then/of 20" && ! -e "then/of 22" ]]
	run -0 make_image
	run -0 send
	same_tree src R
}

@test "the line is down for a day: without, what was not sent is one delta" {
	begin
	for h in {1..12}; do
		head -c 100000 /dev/urandom >src/f
		make_image
		[[ $(n_queued) == 1 ]]
	done
	(($(stat -c %s "$(queued)") < 110000))
	# Only what may get an answer is remembered.
	[[ $(find S/plans -type f | wc -l) == 1 ]]
	run -0 send
	[[ -z $output && $(n_queued) == 0 ]]
	same_tree src R
	[[ $(repl-apply --list R | wc -l) == 2 ]]
}

@test "what was begun to be sent stays, and goes first" {
	begin
	day
	[[ $(n_queued) == 2 ]]
	[[ $(queued | head -n 1) == *-5-*.sent.rpl ]]
	# It had arrived: only the answer got lost, a day ago.
	run_pipe "repl-apply R <'$(queued | head -n 1)' >/dev/null"
	run -0 send
	[[ $(<R/f) == 8 && $(n_queued) == 0 ]]
	make_image
	run -0 send
	same_tree src R
}

@test "with nothing to send the pipeline is silent, its status 0, and an answer that got lost is made up for" {
	begin
	run -0 send
	[[ -z $output ]]
	repl-pack -s S --dequeue >question
	run -0 repl-show --json question
	[[ $(stat -c %s question) -lt 200 ]]
	before=$(repl-snap --digest R | sha256sum)
	repl-apply -n R <question
	repl-apply R <question >answer
	[[ $(list base) == "$(answered <answer) "* ]]
	[[ $(repl-snap --digest R | sha256sum) == "$before" ]]
	# Without the queue: it was sent, and the file is gone.
	echo 1 >src/f
	make_image
	repl-pack -s S --dequeue | repl-apply R >lost
	rm "$Q"/*.rpl
	run -0 send
	[[ $(list base) == "$(repl-apply --ack R | answered) "* ]]
	# A replica that is not there yet has nothing, and says so.
	repl-apply new <question | repl-show --json | grep -q '^{"record":"ack",.*"id":null'
	# With a key the question is signed, too.
	echo secret >key
	chmod 600 key
	run -4 repl-apply --key-file=key R <question
	repl-pack -s S --dequeue --key-file=key | repl-apply --key-file=key R >answer
}

@test "answers that get lost, and crashes before the queue is told: the next runs get through" {
	for chain in no yes; do
		rm -rf S R src
		mkdir -m 700 S
		mkdir src
		printf 'root = %s\nqueue = %s\nchain = %s\n' "$PWD/src" "$Q" $chain >S/policy
		begin
		# The answer is lost, and the tree comes back to what it was: its images have the same id.
		for f in 1 0 0; do
			echo "$f" >src/f
			touch -d @1700000000 src src/f
			make_image
			repl-pack -s S --dequeue | repl-apply R >lost || [[ $chain == no ]]
		done
		run -0 send
		make_image
		run -0 send
		same_tree src R
		# The base moved, what it has passed is still there.
		echo 2 >src/f
		make_image
		run_pipe 'repl-pack -s S --dequeue | repl-apply R | repl-snap -s S --commit --queue=none'
		[[ $(n_queued) == 1 ]]
		# It is not sent again; the question's answer removes it.
		[[ $(repl-pack -s S --dequeue | wc -c) -lt 200 ]]
		run -0 send
		[[ $(n_queued) == 0 ]]
		# An image is made and queued while another one is on its way.
		echo 3 >src/f
		make_image
		repl-pack -s S --dequeue >slow
		echo 4 >src/f
		make_image
		run_pipe 'repl-apply R <slow | repl-snap -s S --commit'
		[[ $(<R/f) == 3 ]]
		run -0 send
		make_image
		run -0 send
		same_tree src R
	done
}

@test "an image that never got into the queue is not taken for a later one with the same id" {
	echo 'chain = yes' >>S/policy
	begin
	echo 1 >src/f
	run_pipe 'repl-snap -s S | repl-track -s S | repl-diff -s S >lost'
	make_image
	echo 2 >src/f
	make_image
	[[ $(n_queued) == 2 ]]
	# The answer to the first of the two comes alone.
	repl-pack -s S --dequeue >both
	run_pipe "repl-apply R <'$(queued | head -n 1)' | repl-snap -s S --commit"
	[[ $(list base) == *' seq 3 '* ]]
	# Nor by the answer to the one before it, which comes once more.
	run_pipe 'repl-snap -s S --queue=none | repl-track -s S | repl-diff -s S >lost'
	repl-apply --ack R | repl-snap -s S --commit
	[[ $(list base) == *' seq 3 '* ]]
	run -0 send
	same_tree src R
	[[ $(n_queued) == 0 ]]
}

@test "without a state the oldest goes first, and those that follow it" {
	mkdir R
	echo 1 >src/f
	repl-diff --image=1.img src | repl-pack --queue=Q
	echo 2 >src/f
	repl-diff --image=2.img 1.img src >two
	echo 3 >src/f
	repl-diff 2.img src >three
	# Several in one input: a file for each.
	run -0 --separate-stderr repl-pack --queue=Q --stats < <(cat two three)
	[[ -z $output && $stderr == *queued:*2* ]]
	[[ $(find Q -name '*.rpl' | wc -l) == 3 ]]
	# The very same once more.
	repl-pack --queue=Q <three
	[[ $(find Q -name '*.rpl' | wc -l) == 3 ]]
	repl-pack --dequeue=Q >all
	cat Q/*.rpl | cmp - all
	zstd -dc all | repl-apply R >answer
	same_tree src R
	# What was sent stays until somebody is told of the answer.
	[[ $(find Q -name '*.sent.rpl' | wc -l) == 3 ]]
}

@test "what is cut, of the wrong kind, or has no room leaves nothing" {
	repl-diff src >delta
	head -c -10 delta >cut
	run -4 repl-pack --queue=Q <cut
	[[ $(ls Q) == repl-queue ]]
	# The whole one before it is there.
	run -4 repl-pack --queue=Q < <(cat delta cut)
	[[ $(find Q -name '*.rpl' | wc -l) == 1 ]]
	rm Q/*.rpl
	run -4 repl-pack --queue=Q </dev/null
	run -4 repl-pack --queue=Q < <(repl-snap --digest src)
	has "$output" "kind 'image': deltas go into a queue"
	run -4 repl-pack --queue=Q < <(repl-pack <delta)
	has "$output" "already packed"
	[[ $(ls Q) == repl-queue ]]
	requires ext4
	small=$(mk_fs ext4 1M)
	head -c 3000000 /dev/urandom >src/large
	run -1 run_pipe "repl-diff src | repl-pack --queue=$small/queue"
	has "$output" "No space left on device"
	[[ $(ls "$small/queue") == repl-queue ]]
}

# What waits is whole, and there is something.
check_queue() {
	local f
	(($(n_queued) >= 1))
	[[ $(find "$Q" -name 'new.*' | wc -l) -le 1 ]]
	for f in "$Q"/*.rpl; do
		repl-pack -d <"$f" >/dev/null
	done
}

# bats test_tags=slow
@test "repl-pack is killed at any of its calls, or one fails: what waits is whole, and the next run gets through" {
	cut=$REPL_BUILD/tests/lib/cut
	begin
	head -c 300000 /dev/urandom >src/large
	make_image
	cp -a "$Q" before
	echo 1 >src/f
	run_pipe 'repl-snap -s S | repl-track -s S | repl-diff -s S >delta'
	"$cut" trace calls repl-pack --queue="$Q" --chunk=64K <delta
	n=$(wc -l <calls)
	((n > 8))
	# Not i: that is changed by run.
	max=$(samples 18)
	for ((at = 0; at < max && at < n; at++)); do
		k=$((at * n / (max < n ? max : n) + 1))
		for how in kill fail; do
			rm -rf "$Q"
			cp -a before "$Q"
			if [[ $how == kill ]]; then
				run -137 "$cut" kill "$k" repl-pack --queue="$Q" --chunk=64K <delta
			else
				# Where only room is made it does not matter.
				run "$cut" fail "$k" ENOSPC repl-pack --queue="$Q" --chunk=64K <delta
				[[ $status == 1 || ($status == 0 && $(n_queued) == 1) ]]
			fi
			check_queue
			repl-pack --queue="$Q" <delta
			[[ $(n_queued) == 1 && $(find "$Q" -name 'new.*' | wc -l) == 0 ]]
		done
	done
	run -0 send
	same_tree src R
}

# bats test_tags=slow
@test "repl-snap --commit is killed at any of its calls, or repl-pack --dequeue: the next runs get through" {
	cut=$REPL_BUILD/tests/lib/cut
	echo 'chain = yes' >>S/policy
	begin
	for n in 1 2 3; do
		echo "$n" >src/f
		make_image
	done
	cp -a S before
	"$cut" trace calls repl-pack -s S --dequeue >all
	n=$(wc -l <calls)
	for ((k = 1; k <= n; k++)); do
		rm -rf S
		cp -a before S
		run -137 bash -c "$cut kill $k repl-pack -s S --dequeue >out"
		repl-pack -s S --dequeue | cmp - all
	done
	repl-apply R <all >answer
	cp -a S sent
	"$cut" trace calls repl-snap -s S --commit <answer
	n=$(wc -l <calls)
	max=$(samples 24)
	for ((at = 0; at < max && at < n; at++)); do
		rm -rf S
		cp -a sent S
		run -137 "$cut" kill $((at * n / (max < n ? max : n) + 1)) repl-snap -s S --commit <answer
		run -0 send
		[[ $(list base) == *' seq 4 '* && $(n_queued) == 0 ]]
	done
}

@test "a limit stops the making of images until the line has caught up" {
	echo 'chain = yes' >>S/policy
	echo 'queue-limit = 2' >>S/policy
	begin
	head -c 2000 /dev/urandom >src/random
	make_image
	make_image
	before=$(repl-snap -s S --list)
	run -6 repl-snap -s S -o image
	has "$output" "no image: 2 deltas, "
	has "$output" "wait in '$Q' since 20"
	has "$output" "which is the limit: send them with repl-pack --dequeue"
	[[ ! -e image ]]
	# Age and lag go on.
	[[ $(repl-snap -s S --list | grep -v age) == $(grep -v age <<<"$before") ]]
	run -6 repl-snap -s S --queue-limit=1K -o image
	run -0 repl-snap -s S --queue-limit=1G -o image
	send
	run -0 make_image
}

@test "a damaged file is named, what is before it arrives, and without it all goes on" {
	echo 'chain = yes' >>S/policy
	begin
	for n in 1 2 3; do
		echo "$n" >src/f
		head -c 100000 /dev/urandom >src/large
		make_image
	done
	bad=$(queued | sed -n 2p)
	printf X | dd of="$bad" bs=1 seek=50000 conv=notrunc status=none
	# The sender ends last: what it says of its own is what matters.
	run -4 bash -c 'repl-pack -s S --dequeue | { repl-apply R 2>/dev/null | repl-snap -s S --commit 2>/dev/null; :; }; exit ${PIPESTATUS[0]}'
	has "$output" "${bad%.rpl}.sent.rpl' is damaged ("
	has "$output" "remove it, and the next image makes up for it"
	[[ $(<R/f) == 1 ]]
	rm "${bad%.rpl}.sent.rpl"
	run -0 send
	run -0 make_image
	run -0 send
	same_tree src R
	[[ $(n_queued) == 0 ]]
}

@test "one sends at a time, and what cannot be is said" {
	begin
	head -c 3000000 /dev/urandom >src/large
	make_image
	mkfifo line
	repl-pack -s S --dequeue >line 3>&- &
	exec 4<line
	head -c 1 <&4 >first
	run -8 repl-pack -s S --dequeue -o out
	has "$output" "the queue '$Q' is being sent by process $!"
	[[ ! -e out ]]
	# A new delta can be queued meanwhile.
	make_image
	cat first - <&4 >all
	wait $!
	exec 4<&-
	repl-apply R <all | repl-snap -s S --commit
	same_tree src R
	run -2 repl-pack --dequeue=nowhere -o out
	has "$output" "there is no queue 'nowhere'"
	run -2 repl-pack --dequeue -o out
	has "$output" "which queue? give --dequeue=DIR"
	run -2 repl-pack --dequeue=src -o out
	has "$output" "'src' is not a queue"
	repl-diff src >delta
	run -2 repl-pack --queue=src <delta
	has "$output" "'src' is not empty and not a queue"
	run -2 repl-pack --queue=Q -o out <delta
	has "$output" "no --dequeue, --unpack, --resume and --output"
	run -2 repl-pack --dequeue=Q -d -o out
	has "$output" "to --resume give the queue's file"
	run -2 repl-snap --queue=Q src
	has "$output" "a queue needs a state directory"
	run -2 repl-snap -s S --chain --queue-limit=many -o image
	has "$output" "not 'many'"
	run -2 repl-snap -s T --chain src -o image
	has "$output" "go with --queue"
	run -2 repl-snap -s S --abort --queue=Q
	has "$output" "--queue goes with opening an image, --commit and --list"
	run -2 repl-snap -s S --list --chain
	has "$output" "--queue-limit and --chain go with opening an image"
	run -2 repl-snap -s S --queue="$PWD/src/queue" -o image
	has "$output" "lies in what is replicated: put it into the state directory"
	for line in 'queue = queue' 'queue-limit = much' 'chain = maybe'; do
		printf '%s\n' "$line" >S/policy
		run -2 repl-snap -s S --check-policy
		has "$output" "line 1: ${line%% *} is '"
	done
}

@test "a chain begins where the images do, also for who asks the recorder or for regions" {
	requires root
	echo 'chain = yes' >>S/policy
	head -c 20000000 /dev/urandom >src/large
	repl-track -j J --record src 3>&- 2>recorder.log &
	recorder=$!
	recording() { repl-track -j J --cut >/dev/null 2>&1; }
	until_true recording
	echo "journal = $PWD/J" >>S/policy
	begin
	for n in {1..4}; do
		echo "$n" >src/f
		run_pipe "repl-snap -s S | repl-track -v -s S --regions 2>log | tee list | repl-diff -s S | repl-pack -s S"
		has "$(<log)" "the recorder knows of"
		run ! grep large <(repl-show list)
	done
	(($(cat "$Q"/*.rpl | wc -c) < 20000))
	# A run that goes back to the base, of which the recorder still knows.
	touch src/late
	run_pipe "repl-snap -s S --queue=none | repl-track -v -s S 2>log | repl-diff -s S | repl-apply R | repl-snap -s S --commit"
	has "$(<log)" "the recorder knows of"
	same_tree src R
	make_image
	run -0 send
	same_tree src R
	[[ $(n_queued) == 0 ]]
	kill $recorder
	wait $recorder || :
}
