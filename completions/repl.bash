# shellcheck shell=bash
# Completions for bash, for all programs of repl(7). Needs nothing of the bash-completion package.

_repl() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} opts
	local common='-q --quiet -v --verbose --progress --no-progress --stats --help --usage --version'

	# An option and its value, joined by '=', are three words to readline.
	if [[ $cur == '=' ]]; then
		cur=
	elif [[ $prev == '=' ]]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	COMPREPLY=()
	case $prev in
	-o | --output | --key-file | --exclude-from | --image)
		compopt -o filenames
		COMPREPLY=($(compgen -f -- "$cur"))
		return
		;;
	-s | --state | -j | --journal | --providers)
		compopt -o filenames
		COMPREPLY=($(compgen -d -- "$cur"))
		return
		;;
	--block-size)
		COMPREPLY=($(compgen -W '4K 16K 64K 256K 1M' -- "$cur"))
		return
		;;
	--edited)
		COMPREPLY=($(compgen -W 'refuse keep overrule' -- "$cur"))
		return
		;;
	--source)
		COMPREPLY=($(compgen -W 'fanotify fanotify-dirs inotify' -- "$cur"))
		return
		;;
	--clones)
		COMPREPLY=($(compgen -W 'never 16M' -- "$cur"))
		return
		;;
	--provider)
		COMPREPLY=($(compgen -W 'auto live btrfs reflink btrfs-cli lvm zfs exec:' -- "$cur"))
		return
		;;
	--map-owner)
		COMPREPLY=($(compgen -W 'names' -- "$cur"))
		return
		;;
	-T | --threads | -l | --level | --rate | --chunk | --resume | --checkpoint | --max-delete | --max-memory | \
		--max-content | --include | --exclude | --bookmark | --group | --time | --lock-wait | --cut-timeout | --max-journal | --timeout | \
		--quiesce | --quiesce-timeout | --provider-timeout | --freeze-limit | \
		--interval | --changes | --bytes | --settle | --keepalive)
		return
		;;
	esac

	case ${COMP_WORDS[0]##*/} in
	repl-snap)
		opts='-s --state --again --digest --commit --adopt --abort --list --check-policy --json --bookmark --group --provider --providers --provider-timeout --time --lock-wait
			--quiesce --resume --quiesce-timeout --crash-consistent --freeze --freeze-limit
			--queue --queue-limit --chain --cut-timeout --timeout --one-file-system --include --exclude --exclude-from --block-size
			-o --output --force'
		;;
	repl-track)
		opts='-s --state -j --journal --cut-timeout --record --source --max-journal --cut --status --json --merge --regions -T --threads -o --output
			--follow --wait --interval --changes --bytes --settle --keepalive --force'
		;;
	repl-diff)
		opts='-s --state --image --wanted --block-size --checksum --clones --no-copies --ship-unsettled --include --exclude
			--exclude-from -x --one-file-system -T --threads --time --key-file --exit-code --lock-wait
			-o --output -f --force'
		;;
	repl-pack)
		opts='-s --state -d --unpack -l --level -T --threads --long --adapt --rate --chunk --flush --resume --queue --dequeue --key-file
			-o --output --force'
		;;
	repl-apply)
		opts='-n --dry-run -i --itemize --adopt --list --status --max-age --json --rollback --at --into --keep --where --restore-meta --restrict
			--ack --resume-token --checkpoint --timeout --edited --verify --wanted -T --threads
			--max-delete --max-memory --max-content --map-owner --no-owner --no-setuid --no-devices --key-file
			-f --force'
		;;
	repl-show) opts='-n --header --json --key-file' ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$opts $common" -- "$cur"))
		return
	fi
	case ${COMP_WORDS[0]##*/} in
	repl-snap | repl-apply)
		compopt -o filenames
		COMPREPLY=($(compgen -d -- "$cur"))
		;;
	repl-diff | repl-show | repl-track)
		compopt -o filenames
		COMPREPLY=($(compgen -f -- "$cur"))
		;;
	esac
}

complete -F _repl repl-snap repl-track repl-diff repl-pack repl-apply repl-show
