#!/usr/bin/env python3
"""Checks an exported audit chain without the broker and without its database.

    claudemesh-broker audit export team --out team.jsonl
    tools/verify-audit.py team.jsonl --anchor anchors.jsonl --key <public key>

It needs Python 3.8 or newer and nothing else: no other program's word is taken, neither the
broker's nor a library's. What is hashed and signed stands in docs/PROTOCOL.md, "The audit
chain". Exit codes: 0 the chain is whole, and the one that was anchored; 1 it is not, or an
anchor is not to be believed; 2 a file cannot be read, or the arguments are wrong.
"""

import argparse
import hashlib
import json
import re
import sys
from datetime import datetime, timedelta
from decimal import Decimal

GENESIS = "genesis"


class Bad(Exception):
    """The chain, or an anchor, is not what it should be."""


class Unreadable(Exception):
    """A file is no export, or no file of anchors."""


# Canonical JSON: the bytes that JavaScript's JSON.stringify would print, keys sorted.


def js_number(value):
    if value == int(value) and abs(value) < 2**53:
        return str(int(value))
    sign = "-" if value < 0 else ""
    _, digits, exponent = Decimal(repr(abs(value))).as_tuple()
    digits = "".join(map(str, digits))
    point = len(digits) + exponent
    digits = digits.rstrip("0")
    if 1 <= point <= 21:
        if len(digits) <= point:
            return sign + digits.ljust(point, "0")
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -5 <= point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def canonical(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return js_number(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    # JavaScript sorts by UTF-16 code units, not by code points.
    keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
    return "{" + ",".join(canonical(key) + ":" + canonical(value[key]) for key in keys) + "}"


def unambiguous(pairs):
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return names


def finite(text):
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number")
    return value


def refused(text):
    raise ValueError(f"{text} is no JSON")


DECODER = json.JSONDecoder(
    object_pairs_hook=unambiguous, parse_int=finite, parse_float=finite, parse_constant=refused
)


# Signatures: ed25519 (RFC 8032), as strict as the broker: one spelling of each key, nothing
# of small order, S below the order of the group.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def add(a, b):
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    e, f = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)
    g, h = 2 * t1 * t2 * D, 2 * z1 * z2
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(scalar, point):
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def encoded(point):
    x, y, z, _ = point
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decoded(data):
    """The point that 32 bytes spell, if they are its one spelling."""
    number = int.from_bytes(data, "little")
    y, odd = number & (2**255 - 1), number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = P - x
    return x, y, 1, x * y % P


BASE = decoded((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(key, text, signature):
    a, r = decoded(key), decoded(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    if any(encoded(times(8, point)) == encoded(NEUTRAL) for point in (a, r)):
        return False
    digest = hashlib.sha512(signature[:32] + key + text).digest()
    k = int.from_bytes(digest, "little") % ORDER
    return encoded(add(r, times(k, a))) == encoded(times(s, BASE))


# Anchors.


def is_hex(text, digits):
    return isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is not None


def objects(path):
    """The JSON objects in a file, one after the other."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    at, found = 0, []
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if at == len(text):
            return found
        try:
            value, at = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{path} is no file of anchors: {error}") from None
        if not isinstance(value, dict):
            raise Unreadable(f"{path} is no file of anchors: it holds something else")
        found.append(value)


def row_number(value):
    return isinstance(value, float) and value == int(value) and int(value)


def check_anchor(path, anchor, trusted):
    """Whose signature an anchor bears; None where there is none and none is asked for."""
    row, hash_, names = row_number(anchor.get("rowId")), anchor.get("hash"), anchor.get("nameHash")
    taken = anchor.get("takenAt")
    shaped = row and is_hex(hash_, 64)
    shaped = shaped and (names is None or is_hex(names, 64) or is_hex(names, 66))
    if not shaped or not isinstance(taken, str):
        raise Unreadable(f"{path} has an anchor that lacks a field: {anchor}")
    key, signature = anchor.get("publicKey"), anchor.get("signature")
    if key is None or signature is None:
        if trusted or signature is not None or key is not None:
            raise Bad(f"the anchor at row {row} is not signed: it proves nothing")
        return None
    if trusted and key not in trusted:
        raise Bad(f"the anchor at row {row} is by another key than the one to believe")
    text = "|".join(
        ["claudemesh-audit-head-v1", anchor["meshId"], str(row), hash_, names or "null", taken]
    )
    good = is_hex(key, 64) and is_hex(signature, 128)
    good = good and is_signed(bytes.fromhex(key), text.encode(), bytes.fromhex(signature))
    if not good:
        raise Bad(f"the signature of the anchor at row {row} is wrong")
    return key


def read_anchors(path, mesh, trusted, known):
    signers, count = set(), 0
    for anchor in objects(path):
        if anchor.get("meshId") != mesh:
            continue
        signers.add(check_anchor(path, anchor, trusted))
        known.setdefault(row_number(anchor["rowId"]), []).append(
            (anchor["hash"], anchor.get("nameHash"))
        )
        count += 1
    if not count:
        raise Unreadable(f"{path} has no anchor of mesh {mesh}")
    return signers - {None}, count


# Heads that nodes sign by the clock: rows of the chain itself.


def check_head(row, mesh, before, trusted):
    """Whose signature a row that carries a head bears."""
    last, head, names = before
    carried, at = row["payload"], row_number(row["id"])
    if not isinstance(carried, dict):
        raise Bad(f"row {at} carries no signed head, though it says so")
    second = names.hex() if isinstance(names, bytes) and names != head.encode() else None
    signed = (row_number(carried.get("rowId")), carried.get("hash"), carried.get("nameHash"))
    if signed != (last, head, second):
        raise Bad(f"row {at} signs another row than the one before it: the chain was written anew")
    try:
        key = check_anchor("the export", dict(carried, meshId=mesh), trusted)
    except (Bad, Unreadable) as error:
        raise Bad(f"row {at} carries a head that proves nothing: {error}") from None
    if key is None:
        raise Bad(f"row {at} carries a head that nobody has signed")
    return key


# The chain.

# For so long rows of the first kind may follow the first one of the second.
CHANGE_OVER_S = 60


def instant(text):
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    except ValueError:
        raise Bad(f"{text} is no instant") from None


def sha256(*parts):
    return hashlib.sha256(b"".join(parts))


def check_row(row, mesh, before, known):
    """Checks a row against what was before it; what the next one is checked against."""
    last, head, names = before
    number = row_number(row["id"])
    if not number or number <= last:
        raise Bad(f"row {row['id']} follows row {last}: rows were swapped or put in")
    wrong = f"row {number} ({row['eventType']}, {row['createdAt']}) was altered or put in, or the one"
    wrong += f" before it was removed; the last good row is {last}, with hash {head}"
    misplaced = row["eventType"] == "genesis" and last > 0
    if row["meshId"] != mesh or row["prevHash"] != head or misplaced:
        raise Bad(wrong)
    actor = row["actorMemberId"]
    fields = [head, mesh, row["eventType"], "null" if actor is None else actor]
    fields += [canonical(row["payload"]), row["createdAt"]]
    head = sha256("|".join(fields).encode()).hexdigest()
    if row["hash"] != head:
        raise Bad(wrong)
    second = row["nameHash"]
    name = row["actorName"]
    tail = b"" if name is None else b"|" + name.encode()
    if second is None:
        names = head.encode()
    elif len(second) == 66:
        names = b"\2" + sha256(names, f"|2|{number}|{head}".encode(), tail).digest()
    else:
        names = sha256(names, head.encode(), tail).digest()
    if second is not None:
        if second != names.hex():
            raise Bad(wrong + "; its rows fit, but not the names of the sessions in them")
    for noted, noted_names in known.pop(number, []):
        if noted != head:
            raise Bad(f"row {number} has another hash than was noted: the chain was written anew")
        if noted_names is not None and noted_names != second:
            raise Bad(f"row {number} has another second hash than was noted: a name was altered")
    return number, head, names


def check_kind(row, bound_from, is_first):
    """From when on every row has to have a second hash of the second kind."""
    is_second = row["nameHash"] is not None and len(row["nameHash"]) == 66
    at = instant(row["createdAt"])
    if bound_from is None and (is_second or row["eventType"] == "genesis"):
        bound_from = at + timedelta(seconds=0 if is_first else CHANGE_OVER_S)
    if not is_second and bound_from is not None and at >= bound_from:
        raise Bad(
            f"row {row_number(row['id'])} lacks the hash over its number that rows before it have:"
            " an earlier release or another program wrote it, or somebody wrote the chain anew"
        )
    return bound_from


def rows(path):
    if path == "-":
        file = sys.stdin
        file.reconfigure(encoding="utf-8")
    else:
        file = open(path, encoding="utf-8")
    with file:
        for at, line in enumerate(file, 1):
            try:
                row = DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                raise Unreadable(f"line {at} of {path} is no row of an export: {error}") from None
            wanted = ("id", "meshId", "eventType", "actorMemberId", "actorName", "payload")
            wanted += ("prevHash", "hash", "nameHash", "createdAt")
            texts = ("meshId", "eventType", "prevHash", "hash", "createdAt")
            optional = ("actorMemberId", "actorName", "nameHash")
            whole = isinstance(row, dict) and all(name in row for name in wanted)
            whole = whole and all(isinstance(row[name], str) for name in texts)
            whole = whole and all(isinstance(row[name], (str, type(None))) for name in optional)
            if not whole:
                raise Unreadable(f"line {at} of {path} is no row of an export")
            yield row


def counted(count, what):
    return f"{count} {what}" + ("" if count == 1 else "s")


def verify(options):
    trusted = [key.lower() for key in options.key]
    known, signers, anchors = {}, set(), 0
    if options.head is not None:
        known[options.at] = [(options.head.lower(), None)]
        anchors = 1
    mesh, before, count, unnamed = None, (0, GENESIS, GENESIS.encode()), 0, 0
    heads, since, bound_from = 0, 0, None
    for row in rows(options.export):
        if mesh is None:
            mesh = row["meshId"]
            if options.anchor is not None:
                signers, more = read_anchors(options.anchor, mesh, trusted, known)
                anchors += more
        after = check_row(row, mesh, before, known)
        bound_from = check_kind(row, bound_from, count == 0)
        since += 1
        if row["eventType"] == "audit_head":
            signers.add(check_head(row, mesh, before, trusted))
            heads, since = heads + 1, 0
        before = after
        count += 1
        unnamed += row["nameHash"] is None
    if mesh is None:
        raise Bad("the export has no rows")
    if known:
        missing = f"the chain has no row {min(known)}, which it had when that was noted: its end was"
        raise Bad(missing + " cut off, or it was written anew")
    if trusted and not signers:
        raise Bad("nothing in the chain is signed by the key to believe: its heads were removed")
    print(f"The chain of mesh {mesh} is whole: {counted(count, 'row')}.\n  head  {before[1]}")
    if unnamed:
        print(f"  the names of sessions in {counted(unnamed, 'row')} prove nothing")
    if anchors:
        print(f"  it has what was noted elsewhere: {counted(anchors, 'head')}")
    if heads:
        print(f"  signed by nodes: {counted(heads, 'head')}, the newest {counted(since, 'row')} ago")
    if not anchors:
        print("  without an anchor nothing shows whether its end was cut off")
    for key in sorted(signers):
        print(f"  signed by {key}" + ("" if trusted else ", whoever that is: no --key was given"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("export", help="what `audit export` wrote; - for standard input")
    parser.add_argument("--anchor", metavar="FILE", help="what `audit anchor --json` printed")
    parser.add_argument(
        "--key", metavar="HEX", action="append", default=[], help="believe this public key alone"
    )
    parser.add_argument("--head", metavar="HASH", help="the hash that row --at must have")
    parser.add_argument("--at", metavar="ROW", type=int, help="the number of that row")
    options = parser.parse_args()
    if (options.head is None) != (options.at is None):
        parser.error("--head and --at belong together")
    if not all(is_hex(key.lower(), 64) for key in options.key):
        parser.error("a public key is 64 hex digits")
    try:
        verify(options)
    except Bad as bad:
        # What stands in a row may come from a stranger, and is not to steer a terminal.
        sentence = "".join(c if c.isprintable() else "\ufffd" for c in str(bad))
        print(sentence, file=sys.stderr)
        return 1
    except (Unreadable, OSError, UnicodeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
