"""Writes streams by hand, whole ones and wrong ones, for tests: repl-stream(5) in a hundred lines, with no manners.

    from craft import *
    s = Delta()                         # against nothing, with its root directory
    s.file(1, b"name", b"content")      # 1 is the root
    s.save("full.repl")                 # END with the right image id, TRAILER with the right digest

Everything can be spoiled: rec() takes any type, flags and length; save(tail=False) leaves END and TRAILER out.
split(bytes) is the way back: the offsets at which records begin.
"""
import hashlib
import struct

MAGIC = b"\x8brepl\r\n\x1a"
IMAGE, CHANGE, DELTA, ACK, JOURNAL = 1, 2, 3, 4, 5
FILE, DIR, LINK, FIFO, CHAR, BLOCK, SOCKET = 1, 2, 3, 4, 5, 6, 7
ZERO = bytes(32)


def digest(person, data):
    return hashlib.blake2b(data, digest_size=32, person=person).digest()


def tree(data):
    nodes = [digest(b"repl-leaf-v1", data[i:i + 4096]) for i in range(0, len(data) or 1, 4096)]
    while len(nodes) > 1:
        groups = [nodes[i:i + 4] for i in range(0, len(nodes), 4)]
        nodes = [g[0] if len(g) == 1 else digest(b"repl-node-v1", b"".join(g)) for g in groups]
    return nodes[0]


def text(b):
    return struct.pack("<I", len(b)) + b


def meta(mode=0o644, uid=0, gid=0, mtime=1000000000, ns=0, major=0, minor=0, attr=0, target=b"", xattrs=b""):
    return struct.pack("<HIIqIIII", mode, uid, gid, mtime, ns, major, minor, attr) + text(target) + xattrs


class Stream:
    def __init__(self, kind, version=1, features=0):
        self.head = MAGIC + struct.pack("<HHI", version, kind, features)
        self.out, self.n, self.content = [self.head], 0, 0
        self.run = hashlib.blake2b(self.head, digest_size=32, person=b"repl-stream-v1")

    def rec(self, type, payload=b"", flags=0, length=None, covered=None):
        head = struct.pack("<HHI", type, flags, len(payload) if length is None else length)
        covered = len(payload) if covered is None else covered
        self.run.update(head + payload[:covered])
        self.content += len(payload) - covered
        self.out += [head, payload]
        self.n += 1
        return self

    def image(self, id=ZERO, parent=ZERO, time=0, seq=0, instance=bytes(16)):
        return self.rec(0x01, id + parent + struct.pack("<qQ", time, seq) + instance + b"\1\1" + text(b"") * 3)

    def member(self, name=b"", path=b"/src", kind=1):
        return self.rec(0x02, bytes([kind]) + text(name) + text(path))

    def trailer(self):
        d = self.run.digest()
        self.out.append(struct.pack("<HHIQQ", 0x7f, 0, 80, self.n, self.content) + d + ZERO)
        return self

    def bytes(self):
        return b"".join(self.out)

    def end(self):
        return self

    def save(self, path, tail=True):
        if tail:
            self.end().trailer()
        with open(path, "wb") as f:
            f.write(self.bytes())


class Delta(Stream):
    """ref() numbers what file(), dir() and so on make, in the order in which they are made; the root is 1."""

    def __init__(self, base=ZERO, root=True, **kw):
        super().__init__(DELTA, **kw)
        self.image().member()
        self.rec(0x03, base + struct.pack("<QQ", 0, 0))
        self.objects, self.refs, self.size = {}, 1, 0
        if root:
            m = meta(0o755)
            self.rec(0x11, struct.pack("<QQB", 1, 0, DIR) + text(b"")).rec(0x20, m)
            self.objects[1] = [DIR, m, 0, ZERO, {}]

    def create(self, parent, name, type, ref=None):
        if ref is None:
            self.refs += 1
            ref = self.refs
        self.rec(0x11, struct.pack("<QQB", ref, parent, type) + text(name))
        if parent in self.objects:
            self.objects[parent][4][name] = ref
        return ref

    def dir(self, parent, name, **kw):
        m, ref = meta(**{"mode": 0o755, **kw}), self.create(parent, name, DIR)
        self.rec(0x20, m)
        self.objects[ref] = [DIR, m, 0, ZERO, {}]
        return ref

    def link(self, parent, name, target):
        m, ref = meta(0o777, target=target), self.create(parent, name, LINK)
        self.rec(0x20, m)
        self.objects[ref] = [LINK, m, 0, ZERO, {}]
        return ref

    def node(self, parent, name, type, **kw):
        m, ref = meta(**kw), self.create(parent, name, type)
        self.rec(0x20, m)
        self.objects[ref] = [type, m, 0, ZERO, {}]
        return ref

    def data(self, off, data, d=None):
        return self.rec(0x22, struct.pack("<Q", off) + (d or tree(data)) + data, covered=40)

    def hole(self, off, n):
        return self.rec(0x24, struct.pack("<QQ", off, n))

    def seal(self, size, d, flags=0):
        return self.rec(0x25, struct.pack("<Q", size) + d + bytes([flags]))

    def file(self, parent, name, data, **kw):
        m, ref = meta(**kw), self.create(parent, name, FILE)
        self.rec(0x20, m).rec(0x21, b"\0" + struct.pack("<I", 4096))
        for i in range(0, len(data), 4096):
            self.data(i, data[i:i + 4096])
        self.seal(len(data), tree(data))
        self.objects[ref] = [FILE, m, len(data), tree(data), {}]
        self.size += len(data)
        return ref

    def id(self, ref=1):
        # An object that was made by hand may be missing: then the id is wrong, and something else was wrong before.
        type, m, size, content, names = self.objects.get(ref, (0, b"", 0, ZERO, {}))
        if type == DIR:
            content = digest(b"repl-dir-v1", b"".join(text(n) + self.id(r) for n, r in sorted(names.items())))
        return digest(b"repl-object-v1", struct.pack("<BI", type, 1) + m + struct.pack("<Q", size) + content)

    def end(self, id=None):
        entries = len(self.objects)
        return self.rec(0x2f, (id or self.id()) + struct.pack("<QQ", entries, self.size))


def split(stream):
    """Offsets of the records of one plain stream, and its length."""
    at, found = 16, []
    while at < len(stream):
        found.append(at)
        at += 8 + struct.unpack_from("<I", stream, at + 4)[0]
    return found + [at]
