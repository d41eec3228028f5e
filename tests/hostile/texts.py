"""YAML, JSON and tables that are malformed, endless, or of the wrong kind."""

from __future__ import annotations

import json


def hostile_yaml() -> list[bytes]:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
    )
    merges = "a: &a {x: 1, y: 2}\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join(['*' + chr(97 + i)] * 9)}]}}\n" for i in range(12)
    )
    lines = [
        laughs,
        merges,
        "kind: train\n" + laughs,
        "encoder: &e {width: *e}\n",
        "[" * 60_000,
        "{a: " * 30_000,
        "- " * 30_000,
        "? " * 20_000,
        "kind: !!python/object/apply:os.system ['exit 1']\n",
        "kind: !!timestamp x\n",
        "kind: !!int ''\n",
        "kind: !!float ''\n",
        "kind: !!bool x\n",
        "kind: !!binary x\n",
        "kind: 2001-99-99\n",
        "width: 0x" + "f" * 60_000 + "\n",
        "width: " + "9" * 60_000 + "\n",
        "width: " + "1:" * 20_000 + "1\n",
        "\x00",
        "\ufeff{",
        'a: "\\ud800"\n',
        "a: 'x\n",
        "%YAML 9.9\n---\n",
        "=: =\n",
        "&a a: *b\n",
        "kind: train\nkind: pretrain\n",
        "x" * 2_000_000,
        "- x\n" * 15_000,
        "a: |\n" + " x\n" * 20_000,
    ]
    return [line.encode("utf-8", "surrogatepass") for line in lines]


def hostile_json() -> list[bytes]:
    card = '{"format": "metagvae-encoder/1", "encoder": %s, "card": %s}'
    lines = [
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 100_000,
        '{"encoder": ' + "9" * 100_000 + "}",
        "null",
        "[]",
        '"x"',
        "{}",
        "NaN",
        card % ("[]", "{}"),
        card % ("{}", "[]"),
        card % ('{"width": 1e999}', "{}"),
        card % ('{"width": true}', "{}"),
        card % ('{"width": 1000000000}', "{}"),
        card % ('{"width": 1024, "latent": 4096, "size": 512}', "{}"),
        card % ('{"units": {"content": "abcdefgh"}}', "{}"),
        card % ('{"features": "latent"}', "{}"),
        card % ('{"features": ' + json.dumps(["latent"] * 50_000) + "}", "{}"),
        card % ('{"std": "x"}', "{}"),
        card % ('{"mean": NaN}', "{}"),
        card % ('{"backbone": ["conv4"]}', '{"trained_classes": 3}'),
        card % ('{"width": 4}', '{"details": {"provenance": 3}}'),
        " " * 3_000_000,
        "\ud800",
        '"\\ud800"',
        "\x00",
    ]
    return [line.encode("utf-8", "surrogatepass") for line in lines]


def hostile_architectures() -> list[bytes]:
    """Configs in timm's layout, the largest networks there are among them."""
    names = ("vit_7b_patch16_dinov3", "tf_efficientnet_l2", "test_vit.x", "hf_hub:x/y", "x" * 900_000, {"a": 1}, None)
    return [json.dumps({"architecture": name, "num_classes": 10**9}).encode() for name in names]


def hostile_tables() -> list[bytes]:
    return [
        b"",
        b"\0",
        b"class,split\n\0,\0\n",
        b"class,split\n" + b"x" * 200_000 + b",train\n",
        b'class,split\n"' + b"x" * 200_000,
        b"class,split\nclass0\n",
        b"class,split\n,,,,,,\n",
        b"a,b\n1,2\n",
        b"," * 200_000,
        b"class,split\n" * 50_000,
        b"filename,label\n" + b"x" * 200_000 + b",y\n",
        b"filename,label\n../../etc/passwd,n01930112\n",
        b"filename,label\na\n",
        b"filename,label\n\0,n01930112\n",
        b"\xff\xfe\x00",
        b"x" * 17_000_000,
        b'filename,label\n"' + b"x" * 200_000,
        b"\r" * 100_000,
        b"class;split\nclass0;train\nclass0;test\n",
        b"class,split\nclass0,prod\n",
        "class,split\nclass0,tráin\n".encode("latin-1"),
        *(b"label,a,b\n" + row for row in (b"x,1\n", b"x,1,2,3\n", b"x,one,2\n", b"x,nan,2\n", b",1,2\n", b"")),
        b"label,a,b\nx,1e400,2\n",
        b"label,a,a,label\n1,2,3,4\n",
        b"label" + b",a" * 100_000 + b"\nx" + b",1" * 100_000,
        b"label,a\n" + b"x,1\n" * 500_000,
    ]


def hostile_glosses(good: bytes) -> list[bytes]:
    """WordNet's data files with lines that are no synset, fields that there are not, and bytes that are no text."""
    return [
        b"00000001 05 n 01 word without a bar\n",
        b"x 05 n 01 word | gloss\n",
        b"00000001 45 n 01 word | gloss\n",
        b"00000001 99999999999999999999 n 01 word | gloss\n",
        "00000001 \u0665\u0665 n 01 word | gloss\n".encode(),
        b"00000001 -1 n 01 word | gloss\n",
        b"|" * 1_000_000,
        b"00000001 05 n 01 word | " + b"gloss " * 1_000_000,
        b"\xff\xfe",
        b"\0" * 1000,
        good[: len(good) // 2] + b"\x00\xff" + good[len(good) // 2 :],
        good[:-30],
        b"",
    ]
