# shellcheck shell=bash
# Trees to replicate, for the tests: "load lib/trees" after lib/setup.
#
#   small_tree DIR     a handful of files, directories, links; about 200 KiB that do not compress
#   change_tree DIR    changes such a tree in every way: edited, appended, renamed, removed, new, another type
#   rich_tree DIR      every kind of object and metadata that the filesystem of DIR takes; needs root
#   noise FILE BYTES [SEED]   FILE with this many bytes, the same for the same SEED

noise() {
	python3 -c 'import random, sys
r = random.Random(int(sys.argv[3]))
n = int(sys.argv[2])
with open(sys.argv[1], "wb") as f:
    while n > 0:
        f.write(r.randbytes(min(n, 1 << 20)))
        n -= 1 << 20' "$1" "$2" "${3:-1}"
}

small_tree() {
	mkdir -p "$1/etc/app" "$1/home/ada" "$1/empty"
	echo "port 8080" >"$1/etc/app/config"
	: >"$1/etc/app/nothing"
	noise "$1/home/ada/photo" 150000
	noise "$1/home/ada/photo2" 50000 2
	ln "$1/home/ada/photo2" "$1/home/ada/same photo"
	ln -s ../ada/photo "$1/home/ada/link"
	ln -s /nowhere "$1/dangling"
	mkfifo "$1/etc/fifo"
	chmod 750 "$1/home/ada"
	touch -d '2001-02-03 04:05:06.123456789' "$1/etc/app/config" "$1/empty"
	touch -h -d '2002-02-03 04:05:06.987654321' "$1/dangling"
}

change_tree() {
	echo "port 9090" >>"$1/etc/app/config"
	rm "$1/etc/app/nothing"
	mkdir "$1/etc/app/nothing"
	echo deep >"$1/etc/app/nothing/file"
	mv "$1/home/ada" "$1/home/lovelace"
	printf 'in the middle' | dd of="$1/home/lovelace/photo" bs=1 seek=70000 conv=notrunc status=none
	rm "$1/home/lovelace/photo2"
	ln -sfn elsewhere "$1/dangling"
	chmod 700 "$1/empty"
	rm "$1/etc/fifo"
	echo "now a file" >"$1/etc/fifo"
}

rich_tree() {
	python3 - "$1" <<-'PY'
		import ctypes, os, socket, stat, struct, sys
		top = os.fsencode(sys.argv[1])
		os.makedirs(top, exist_ok=True)
		os.chdir(top)

		def put(name, data=b"", mode=0o644):
		    with open(name, "wb") as f:
		        f.write(data)
		    os.chmod(name, mode)

		# names are bytes
		os.mkdir(b"names")
		for i, n in enumerate([b"new\nline", b"tab\there", b"\xff\xfe", b"\xff\xfd", b"-rf", b" ", b"%s%n", b"'\"`$(x)", b"\r",
		                       b"\x1b[31mred", b"a" * 255, "\u00e9".encode(), "e\u0301".encode(), b"...", b"..a", b"\\n", b"*", b"x~"]):
		    put(b"names/" + n, b"%d" % i)
		os.mkdir(b"names/" + b"\xf0" * 255)
		put(b"names/" + b"\xf0" * 255 + b"/" + b"\xf1" * 255, b"deep")

		# modes; 0000 and set-id bits
		os.mkdir(b"modes")
		for m in (0o0, 0o1, 0o444, 0o555, 0o644, 0o777, 0o1644, 0o2755, 0o4755, 0o6755, 0o7777):
		    put(b"modes/%04o" % m, b"m", m)
		    os.mkdir(b"modes/d%04o" % m)
		    put(b"modes/d%04o/inside" % m, b"i")
		    os.chmod(b"modes/d%04o" % m, m)
		# owners, with and without set-id bits
		os.mkdir(b"owners")
		for u, g in ((1, 2), (65534, 65534), (12345, 54321), (2**31 + 5, 2**32 - 2)):
		    n = b"owners/%d.%d" % (u, g)
		    put(n, b"o", 0o755)
		    os.chown(n, u, g)
		    os.chmod(n, 0o6755)
		    os.symlink(b"x", n + b".l")
		    os.lchown(n + b".l", u, g)
		    os.mkdir(n + b".d")
		    os.chown(n + b".d", u, g)
		    os.chmod(n + b".d", 0o3770)

		# symbolic links
		os.mkdir(b"links")
		os.symlink(b"nowhere", b"links/dangling")
		os.symlink(b"/etc/passwd", b"links/absolute")
		os.symlink(b"self", b"links/self")
		os.symlink(b"../../../../..", b"links/up")
		os.symlink(b"new\nline\xff", b"links/bytes")
		for n in (59, 60, 61, 1000):
		    os.symlink(b"t" * n, b"links/%d" % n)
		for n in (1023, 4000):
		    try:
		        os.symlink(((b"p" * 200 + b"/") * 20)[:n], b"links/%d" % n)
		    except OSError:
		        assert n == 4000  # XFS stops at 1024

		# hard links
		os.mkdir(b"hard")
		os.mkdir(b"hard/other")
		put(b"hard/one", b"shared")
		os.link(b"hard/one", b"hard/two")
		os.link(b"hard/one", b"hard/other/three")
		os.symlink(b"t", b"hard/symlink")
		os.link(b"hard/symlink", b"hard/symlink2", follow_symlinks=False)
		os.mkfifo(b"hard/fifo")
		os.link(b"hard/fifo", b"hard/fifo2")

		# what is neither file nor directory
		os.mkdir(b"special")
		os.mkfifo(b"special/fifo", 0o640)
		os.mknod(b"special/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
		os.mknod(b"special/loop", stat.S_IFBLK | 0o660, os.makedev(7, 0))
		os.mknod(b"special/big", stat.S_IFCHR | 0o600, os.makedev(511, 262143))
		os.mknod(b"special/whiteout", stat.S_IFCHR | 0o000, os.makedev(0, 0))
		os.chown(b"special/null", 3, 4)

		# extended attributes
		os.mkdir(b"xattrs")
		put(b"xattrs/file", b"x")
		os.setxattr(b"xattrs/file", b"user.empty", b"")
		os.setxattr(b"xattrs/file", b"user.binary", bytes(range(256)))
		os.setxattr(b"xattrs/file", b"user.n\xff\xfe\n", b"name of bytes")
		os.setxattr(b"xattrs/file", b"trusted.secret", b"t")
		os.setxattr(b"xattrs/file", b"security.mine", b"s")
		put(b"xattrs/many", b"x")
		for i in range(15):
		    os.setxattr(b"xattrs/many", b"user.%03d" % i, b"v" * i)
		put(b"xattrs/long", b"x")
		os.setxattr(b"xattrs/long", b"user.long", b"L" * 2000)
		os.setxattr(b"xattrs", b"user.dir", b"d")
		os.symlink(b"x", b"xattrs/link")
		os.setxattr(b"xattrs/link", b"trusted.link", b"l", follow_symlinks=False)
		os.mkfifo(b"xattrs/fifo")
		os.setxattr(b"xattrs/fifo", b"trusted.fifo", b"f")

		# sparse files
		os.mkdir(b"sparse")
		for name, size, data in ((b"leading", 9 << 20, [(8 << 20, 1 << 20)]), (b"trailing", 9 << 20, [(0, 1 << 20)]),
		                         (b"middle", 9 << 20, [(0, 1 << 20), (8 << 20, 1 << 20)]), (b"hole", 50 << 20, []),
		                         (b"huge", 1 << 40, [(1 << 39, 4096)]), (b"odd", (1 << 20) + 777, [((1 << 20) + 700, 77)])):
		    with open(b"sparse/" + name, "wb") as f:
		        f.truncate(size)
		        for off, n in data:
		            f.seek(off)
		            f.write(b"\x5a" * n)
		with open(b"sparse/preallocated", "wb") as f:
		    os.posix_fallocate(f.fileno(), 0, 4 << 20)
		    f.write(b"head")
		with open(b"sparse/zeros", "wb") as f:
		    f.write(b"\0" * (1 << 20))

		# contents at the edges of blocks
		os.mkdir(b"sizes")
		for n in (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1):
		    put(b"sizes/%d" % n, bytes((i * 7 + n) % 251 for i in range(n)))
	PY
	setfacl -m u:1000:rwx,g:2000:r-x,m::r-x "$1/xattrs/file"
	setfacl -m u:12:r "$1/xattrs"
	setfacl -d -m u:1000:rwx,g::r-x,o::--- "$1/xattrs"
	cp "$(type -P true)" "$1/xattrs/capable"
	chown 33:33 "$1/xattrs/capable"
	setcap cap_net_raw,cap_net_bind_service+ep "$1/xattrs/capable"
	# times: before 1970, far ahead, in nanoseconds, on everything
	mkdir "$1/times" "$1/times/dir"
	echo t >"$1/times/file"
	touch -d '1969-12-31 23:59:58.999999999' "$1/times/file"
	echo t >"$1/times/1901"
	touch -d '1902-01-01 00:00:00.5' "$1/times/1901"
	echo t >"$1/times/2100"
	touch -d '2100-06-07 08:09:10.000000001' "$1/times/2100"
	ln -s x "$1/times/link"
	touch -h -d '2010-01-02 03:04:05.060708091' "$1/times/link"
	mkfifo "$1/times/fifo"
	touch -d '2011-01-02 03:04:05.060708091' "$1/times/fifo"
	echo inside >"$1/times/dir/inside"
	touch -d '2012-01-02 03:04:05.060708091' "$1/times/dir" "$1/hard/one" "$1/special/null"
	touch -d '2013-01-02 03:04:05.060708091' "$1/times"
	touch -d '2014-01-02 03:04:05.060708091' "$1"
}

# Where the first bytes of FILE are in the image of a filesystem.
where() {
	python3 -c 'import mmap, sys
f = open(sys.argv[1], "rb")
print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ).find(open(sys.argv[2], "rb").read(64)))' "$1" "$2"
}
