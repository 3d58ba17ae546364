# Completions for fish, for all programs of repl(7).

for p in repl-snap repl-track repl-diff repl-pack repl-apply repl-show
    complete -c $p -s q -l quiet -d 'Print errors only'
    complete -c $p -s v -l verbose -d 'Say more'
    complete -c $p -l progress -d 'Show progress'
    complete -c $p -l no-progress -d 'Show none'
    complete -c $p -l stats -d 'Print counts at the end'
    complete -c $p -l help -d 'Print a summary of the options'
    complete -c $p -l usage -d 'Print a shorter one'
    complete -c $p -l version -d 'Print the version'
end
for p in repl-snap repl-track repl-diff repl-pack
    complete -c $p -s s -l state -x -a '(__fish_complete_directories)' -d 'State directory'
end
for p in repl-snap repl-track repl-diff repl-pack
    complete -c $p -s o -l output -r -F -d 'Write to a file'
end
for p in repl-snap repl-track repl-pack
    complete -c $p -l force -d 'Overwrite; use a terminal'
end
for p in repl-diff repl-apply
    complete -c $p -s f -l force -d 'Overwrite; use a terminal'
end
for p in repl-track repl-diff repl-pack repl-apply
    complete -c $p -s T -l threads -x -d 'Number of threads'
end
for p in repl-diff repl-pack repl-apply repl-show
    complete -c $p -l key-file -r -F -d 'Sign with this key, or accept no other'
end
for p in repl-snap repl-diff
    complete -c $p -l block-size -x -a '4K 16K 64K 256K 1M' -d 'Size of the blocks that get a digest'
    complete -c $p -l include -x -d 'Take what matches'
    complete -c $p -l exclude -x -d 'Leave out what matches'
    complete -c $p -l exclude-from -r -F -d 'Patterns from a file'
    complete -c $p -l time -x -d 'Stamp the image with this time'
    complete -c $p -l lock-wait -x -d 'Seconds to wait for the lock'
end
complete -c repl-snap -l provider -x -a 'auto live btrfs reflink btrfs-cli lvm zfs exec:' -d 'How the image is held still'
complete -c repl-snap -l providers -x -a '(__fish_complete_directories)' -d 'Where programs that make snapshots are'
complete -c repl-snap -l provider-timeout -x -d 'Time that each run of one gets'
for p in repl-snap repl-track
    complete -c $p -l cut-timeout -x -d 'Time to wait for the recorder'
end
for p in repl-snap repl-track repl-show
    complete -c $p -l json -d 'JSON'
end

complete -c repl-snap -f -a '(__fish_complete_directories)'
complete -c repl-snap -l again -d 'Open the image under way once more'
complete -c repl-snap -l digest -d 'Write the whole image'
complete -c repl-snap -l commit -d 'Read the answer of the replica'
complete -c repl-snap -l adopt -d 'Read an image: what the replica holds is the base'
complete -c repl-snap -l check-policy -d 'Is what the policy says right?'
complete -c repl-snap -l abort -d 'Forget the image under way'
complete -c repl-snap -l list -d 'Show the base and what is under way'
complete -c repl-snap -l timeout -x -d 'With --commit: give up when nothing comes for so long'
complete -c repl-snap -l quiesce -x -d 'Run this before the instant'
complete -c repl-snap -l resume -x -d 'Run this after the instant'
complete -c repl-snap -l quiesce-timeout -x -d 'Time that each of the two gets'
complete -c repl-snap -l crash-consistent -d 'An image also when --quiesce fails'
complete -c repl-snap -l freeze -d 'Freeze the filesystems for the instant'
complete -c repl-snap -l freeze-limit -x -d 'Never freeze for longer than this'
complete -c repl-snap -l queue-limit -x -d 'No image when so much waits in the queue'
complete -c repl-snap -l chain -d 'Follow the last image in the queue'
for p in repl-snap repl-pack
	complete -c $p -l queue -x -a '(__fish_complete_directories)' -d 'What deltas wait in until they are sent'
end
complete -c repl-snap -l group -x -d 'Name of what all the members are together'
complete -c repl-snap -l bookmark -x -d 'Give the image a name'
complete -c repl-snap -l one-file-system -d 'Do not enter other filesystems'

complete -c repl-track -s j -l journal -x -a '(__fish_complete_directories)' -d 'Directory of a recorder'
complete -c repl-track -l record -d 'Record what changes below the paths'
complete -c repl-track -l source -x -a 'fanotify fanotify-dirs inotify' -d 'Of events, with --record'
complete -c repl-track -l max-journal -x -d 'With --record: forget the oldest above this'
complete -c repl-track -l cut -d 'Wait until all is recorded'
complete -c repl-track -l status -d 'Show what the recorder does'
complete -c repl-track -l follow -d 'One change stream after the other'
complete -c repl-track -l wait -d 'Return when it is time for the next image'
complete -c repl-track -l interval -x -d 'So long after the last image, or so often'
complete -c repl-track -l changes -x -d 'With --wait: so many names'
complete -c repl-track -l bytes -x -d 'With --wait: so much content'
complete -c repl-track -l settle -x -d 'With --follow: so long nothing must change'
complete -c repl-track -l keepalive -x -d 'With --follow: an image after this in any case'
complete -c repl-track -l merge -d 'Join lists into one'
complete -c repl-track -l regions -d 'Also which blocks of large files may have changed'

complete -c repl-diff -l image -r -F -d 'Also write the target as an image file'
complete -c repl-diff -l wanted -r -F -d 'Mend only what this of --verify --wanted names'
complete -c repl-diff -l checksum -d 'Compare content even where size and times are the same'
complete -c repl-diff -l clones -x -a 'never 16M' -d 'Keep clones of files from this size on'
complete -c repl-diff -l no-copies -d 'Do not look for content that moved'
complete -c repl-diff -l ship-unsettled -d 'Send files that will not hold still'
complete -c repl-diff -s x -l one-file-system -d 'Do not cross into other filesystems'
complete -c repl-diff -l exit-code -d 'Exit with 10 when there are differences'

complete -c repl-pack -f
complete -c repl-pack -s d -l unpack -d 'Packed stream in, plain stream out'
complete -c repl-pack -s l -l level -x -d 'From fast (negative) to small (22)'
complete -c repl-pack -l long -d 'Look for repetition far away'
complete -c repl-pack -l adapt -d 'Move the level with the line'
complete -c repl-pack -l rate -x -d 'Bytes a second'
complete -c repl-pack -l chunk -x -d 'Plain bytes in a chunk'
complete -c repl-pack -l resume -x -d 'Send what the replica has not'
complete -c repl-pack -l dequeue -x -a '(__fish_complete_directories)' -d 'Write what waits in a queue'
complete -c repl-pack -l flush -d 'Send what there is when a stream ends'

complete -c repl-apply -f -a '(__fish_complete_directories)'
complete -c repl-apply -s n -l dry-run -d 'Verify and itemize, change nothing'
complete -c repl-apply -s i -l itemize -d 'A line for each change'
complete -c repl-apply -l adopt -d 'Take a directory with content as it is'
complete -c repl-apply -l list -d 'Show the images it can go back to'
complete -c repl-apply -l status -d 'Show what it holds, and how old that is'
complete -c repl-apply -l max-age -x -d 'With --status: how old it may be'
complete -c repl-apply -l json -d 'With --list and --status'
complete -c repl-apply -l rollback -x -d 'Back to an image: id, time, bookmark or -N'
complete -c repl-apply -l at -x -d 'An image beside the replica: id, time, bookmark or -N'
complete -c repl-apply -l into -r -d 'Where --at makes it'
complete -c repl-apply -l where -x -d 'A place for a member: NAME=PATH'
complete -c repl-apply -l keep -x -d 'Undos to keep: a number, or 24h,7d,4w,12m'
complete -c repl-apply -l timeout -x -d 'Give up when nothing comes for so long'
complete -c repl-apply -l edited -x -a 'refuse keep overrule' -d 'Files that were edited on the replica'
complete -c repl-apply -l verify -d 'Read everything again and compare'
complete -c repl-apply -l wanted -d 'With --verify: write what is wanted as changes'
complete -c repl-apply -l ack -d 'Acknowledge again what the replica holds'
complete -c repl-apply -l resume-token -d 'Print where a delta goes on'
complete -c repl-apply -l checkpoint -x -d 'Bytes after which what came is made durable'
complete -c repl-apply -l max-delete -x -d 'Refuse a delta that removes more'
complete -c repl-apply -l map-owner -x -a names -d 'FROM:TO, +FROM:TO or names'
complete -c repl-apply -l no-owner -d 'Leave owner and group as they come'
complete -c repl-apply -l max-memory -x -d 'Memory for the names of one delta'
complete -c repl-apply -l max-content -x -d 'Refuse a delta that brings more content'
complete -c repl-apply -l restore-meta -d 'Set all metadata again, as the image has it'
complete -c repl-apply -l restrict -d 'For command= in authorized_keys'
complete -c repl-apply -l no-setuid -d 'No setuid, setgid, capabilities'
complete -c repl-apply -l no-devices -d 'Make no device nodes'

complete -c repl-show -s n -l header -d 'What the stream is about, and no further'
